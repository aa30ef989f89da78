import AshlarCore
import Testing

@testable import Ownership

@Suite("The packer of writes through")
struct ThroughPackerTests {
    private static let millisecond: UInt64 = 1_000_000
    private static let epoch = Epoch(2)

    /// A packer with what it has asked for.
    private final class Rig {
        var packer = ThroughPacker<Int>(blockSizeBytes: 4_096)
        var now = MonotonicTime(1_000_000_000)
        var puts: [ThroughPacker<Int>.Pack] = []
        var begins: [UInt64] = []
        var nextObject: UInt64 = 1

        func add(_ item: Int, _ first: UInt64, _ count: UInt64, epoch: Epoch = ThroughPackerTests.epoch)
            -> ThroughPlace?
        {
            packer.add(item, blocks: BlockRange(first: BlockID(first), count: count), epoch: epoch, now: now)
        }

        func pack() {
            packer.pack(now: now)
            run()
        }

        func run() {
            while let action = packer.nextAction() {
                switch action {
                case .begin(let number, _, _): begins.append(number)
                case .put(let pack): puts.append(pack)
                }
            }
        }

        func grant(_ count: Int) {
            let grants = (0..<count).map { _ -> DirectGrant in
                defer { nextObject += 1 }
                return DirectGrant(
                    object: ObjectID(nextObject),
                    firstVersion: Version(nextObject * 10_000),
                    slots: 1_024
                )
            }
            packer.granted(begins.removeFirst(), grants, now: now)
            run()
        }

        /// With objects in stock.
        static func stocked(_ count: Int = 2) -> Rig {
            let rig = Rig()
            #expect(rig.add(0, 0, 1) == nil)
            rig.run()
            rig.grant(count)
            return rig
        }

        func end(isDone: Bool) -> ThroughPacker<Int>.Pack? {
            let number = puts.removeFirst().number
            defer { run() }
            if isDone { return packer.putSucceeded(number, now: now) }
            packer.putFailed(number, now: now)
            return nil
        }
    }

    private static func items(_ pack: ThroughPacker<Int>.Pack?) -> [Int] { pack?.writes.map(\.item) ?? [] }

    @Test("A write has its place at once; what comes while an object is put goes into the next one together")
    func places() {
        let rig = Rig.stocked()
        #expect(rig.add(1, 10, 4) == ThroughPlace(object: ObjectID(1), firstSlot: 0))
        #expect(rig.add(2, 20, 2) == ThroughPlace(object: ObjectID(1), firstSlot: 4))
        rig.pack()
        #expect(rig.puts.map { Self.items($0) } == [[1, 2]] && rig.puts[0].slots == 6)
        // The same block again is in another object, with higher versions.
        #expect(rig.add(3, 10, 1) == ThroughPlace(object: ObjectID(2), firstSlot: 0))
        rig.pack()
        #expect(rig.puts.count == 1, "an object that is not full is put beside no other")
        #expect(rig.add(4, 10, 1) == nil, "what is written again so soon goes to the cache alone")
        #expect(rig.add(5, 11, 1) == ThroughPlace(object: ObjectID(2), firstSlot: 1))
        #expect(rig.packer.waitingCount == 2)
        #expect(Self.items(rig.end(isDone: true)) == [1, 2])
        #expect(rig.puts.map { Self.items($0) } == [[3, 5]] && rig.packer.waitingCount == 0)
    }

    @Test("Without an object a write goes to the cache alone, and the next ones are asked for in time")
    func asks() {
        let rig = Rig()
        #expect(rig.add(1, 0, 1) == nil && rig.add(2, 1, 1) == nil)
        rig.run()
        #expect(rig.begins.count == 1)
        rig.grant(1)
        #expect(rig.add(3, 2, 1) != nil)
        rig.run()
        #expect(rig.begins.count == 1, "the stock is empty")
        rig.grant(0)
        #expect(rig.add(4, 3, 1)?.firstSlot == 1, "there is room in the one that is being filled")
        rig.pack()
        #expect(rig.add(5, 4, 1) == nil)
        rig.run()
        #expect(rig.begins.isEmpty, "the owner has none now")
        rig.now = rig.now.advanced(byNanoseconds: ThroughPackerLimits.emptyPause)
        #expect(rig.add(6, 5, 1) == nil)
        rig.run()
        #expect(rig.begins.count == 1)
        rig.packer.beginFailed(rig.begins[0], now: rig.now)
        #expect(rig.add(7, 6, 1) == nil)
        rig.run()
        #expect(rig.begins.count == 1)
    }

    @Test("I10: full objects are put beside one another, up to a bound; what waits is bounded in bytes and in time")
    func bounds() {
        let rig = Rig.stocked(64)
        var places = 0
        var index: UInt64 = 0
        while rig.add(Int(index), index * 256, 256) != nil {
            places += 1
            index += 1
            if index.isMultiple(of: 4) { rig.pack() }
        }
        #expect(rig.puts.count == ThroughPackerLimits.putsMaximum)
        #expect(rig.puts.allSatisfy { $0.slots == 1_024 })
        let waiting = places - 4 * ThroughPackerLimits.putsMaximum
        #expect(UInt64(waiting) * 256 * 4_096 == ThroughPackerLimits.waitingBytesMaximum)
        // An owner still remembers what is put last of all.
        #expect(ThroughPackerLimits.grantLife + ThroughPackerLimits.waitingMaximum < OwnerLimits.directGrantLife)
        rig.now = rig.now.advanced(byNanoseconds: ThroughPackerLimits.waitingMaximum)
        rig.packer.tick(now: rig.now)
        #expect(rig.packer.waitingCount == 0, "they are in the cache")
        #expect(rig.add(1, 0, 1_025) == nil, "more than an object holds")
        #expect(rig.add(1, 0, 1_024)?.firstSlot == 0)
        let many = Rig.stocked()
        for item in 0...Limits.directWritesPerObjectMaximum { #expect(many.add(item, UInt64(item), 1) != nil) }
        many.pack()
        #expect(many.puts.map(\.writes.count) == [Limits.directWritesPerObjectMaximum])
    }

    @Test("Puts that fail cost their writes nothing; after several in a row none is tried for a while")
    func failures() {
        let rig = Rig.stocked(8)
        for item in 1...ThroughPackerLimits.failuresMaximum {
            #expect(rig.add(item, UInt64(item), 1) != nil)
            rig.pack()
            #expect(rig.end(isDone: false) == nil)
        }
        #expect(rig.add(9, 9, 1) == nil)
        rig.now = rig.now.advanced(byNanoseconds: ThroughPackerLimits.failurePause)
        #expect(rig.add(9, 9, 1) == nil, "what was in stock has grown old")
        rig.run()
        rig.grant(1)
        #expect(rig.add(9, 9, 1) != nil)
    }

    @Test("R5: objects of an epoch are for its writes; nothing is left of them when the owner is lost")
    func epochs() {
        let rig = Rig.stocked(3)
        #expect(rig.add(1, 1, 1) != nil)
        #expect(rig.add(2, 2, 1, epoch: Epoch(3)) == nil, "the object is of another epoch, and so is the stock")
        rig.pack()
        #expect(rig.puts.map { Self.items($0) } == [[1]])
        rig.grant(1)
        #expect(rig.add(3, 3, 1, epoch: Epoch(3)) != nil)
        rig.packer.ownerLost()
        #expect(rig.packer.waitingCount == 0)
        #expect(Self.items(rig.end(isDone: true)) == [1])
        #expect(rig.puts.isEmpty)
    }
}
