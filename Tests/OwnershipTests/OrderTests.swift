import AshlarCore
import AshlarTestSupport
import Testing

@testable import Ownership

@Suite("Order of commands and extent lists")
struct OrderTests {
    private static func command(_ generator: inout SeededGenerator) -> Command {
        var ranges: [BlockRange] = []
        var next = UInt64(generator.below(40))
        for _ in 0..<(generator.chance(70) ? 1 : 1 + generator.below(20)) {
            let count = UInt64(1 + generator.below(6))
            ranges.append(BlockRange(first: BlockID(next), count: count))
            next += count + UInt64(1 + generator.below(6))
        }
        return Command(
            kind: .evict([]),
            ticket: nil,
            ranges: ranges,
            isExclusive: generator.chance(50),
            deadline: MonotonicTime(.max)
        )
    }

    private static func conflict(_ a: Command, _ b: Command) -> Bool {
        (a.isExclusive || b.isExclusive) && a.ranges.contains { range in b.ranges.contains { $0.overlaps(range) } }
    }

    @Test("I2: conflicting commands are never active together, and go in order of arrival", arguments: 1...20)
    func order(seed: Int) {
        var generator = SeededGenerator(seed: UInt64(seed))
        var order = RangeOrder()
        // All are kept, so that no identity is used again.
        var all: [Command] = []
        var arrived: [Command] = []
        var begun: Set<ObjectIdentifier> = []
        func begin(_ command: Command) {
            for earlier in arrived.prefix(while: { $0 !== command }) {
                #expect(!Self.conflict(earlier, command), "seed \(seed): begun before what arrived earlier")
            }
            #expect(begun.insert(ObjectIdentifier(command)).inserted, "seed \(seed): begun twice")
        }
        func leave(_ command: Command) {
            arrived.removeAll { $0 === command }
            for next in order.leave(command) { begin(next) }
        }
        for _ in 0..<600 {
            if arrived.count < 60, generator.chance(55) {
                let command = Self.command(&generator)
                arrived.append(command)
                all.append(command)
                if order.enter(command) { begin(command) }
            } else if !arrived.isEmpty {
                // Waiting commands leave as well: they are cancelled.
                let isCancel = generator.chance(15)
                let pool = isCancel ? arrived : arrived.filter { begun.contains(ObjectIdentifier($0)) }
                #expect(!pool.isEmpty, "seed \(seed): nothing is active, all starve")
                if let command = pool.randomElement(using: &generator) { leave(command) }
            }
            for command in arrived where !begun.contains(ObjectIdentifier(command)) {
                let isBlocked = arrived.prefix { $0 !== command }.contains { Self.conflict($0, command) }
                #expect(isBlocked, "seed \(seed): held back by nothing")
            }
        }
        while let command = arrived.first { leave(command) }
        #expect(order.isEmpty && all.count >= begun.count)
    }

    @Test("an extent list agrees with an array of blocks", arguments: 1...20)
    func extents(seed: Int) {
        var generator = SeededGenerator(seed: UInt64(seed))
        let size = 60
        var model: [(object: ObjectID, slot: UInt32, copy: BlockCopy?)?] = Array(repeating: nil, count: size)
        var list = ExtentList()
        for _ in 0..<300 {
            let first = generator.below(size)
            let count = generator.below(size - first + 1)
            let range = BlockRange(first: BlockID(UInt64(first)), count: UInt64(count))
            if generator.chance(40) {
                list.cut(range)
                for block in first..<first + count { model[block] = nil }
            } else {
                // Few objects and slots that continue one another, so that extents join.
                let object = ObjectID(UInt64(1 + generator.below(3)))
                let slot = UInt32(first + 100 * generator.below(2))
                // Most are no copies, and those that are may continue one another, too.
                let copy =
                    generator.chance(25)
                    ? BlockCopy(origin: BlockID(UInt64(200 + first)), version: Version(UInt64(1 + generator.below(2))))
                    : nil
                list.insert(
                    Extent(
                        blocks: range,
                        object: object,
                        server: ObjectServerID(1),
                        firstSlot: SlotIndex(slot),
                        copy: copy
                    )
                )
                for index in 0..<count {
                    model[first + index] = (object, slot + UInt32(index), copy?.dropped(UInt64(index)))
                }
            }
            #expect(list.isWellFormed, "seed \(seed)")
            for (block, expected) in model.enumerated() {
                let id = BlockID(UInt64(block))
                let found = list.extent(holding: id)?.clipped(to: BlockRange(first: id, count: 1))
                #expect(
                    found?.object == expected?.object && found?.firstSlot.rawValue == expected?.slot
                        && found?.copy == expected?.copy && list.holds(id) == (expected != nil),
                    "seed \(seed)"
                )
            }
            let mapped = model[first..<first + count].count { $0 != nil }
            #expect(list.blocks(in: range) == UInt64(mapped) && list == ExtentList(list.extents), "seed \(seed)")
        }
    }
}
