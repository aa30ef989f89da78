import AshlarTestSupport
import Testing

@testable import ControlPlane

/// How the map is rebuilt from the headers of objects.
@Suite struct RecoverPlannerTests {
    private static let uuid = [UInt8](repeating: 7, count: 16)

    private func header(_ object: Int64, _ slots: [(UInt64, UInt64)]) -> RecoverPlanner.Header {
        RecoverPlanner.Header(
            object: object,
            server: 1,
            volume: 1,
            uuid: Self.uuid,
            blockSizeBytes: 512,
            sizeBytes: 1,
            slots: slots.map { RecoverPlanner.Slot(block: $0.0, version: $0.1) }
        )
    }

    private func knowledge(
        blocks: UInt64 = 100,
        isBehind: Bool = true,
        _ headers: [RecoverPlanner.Header]
    ) -> RecoverPlanner.Knowledge {
        RecoverPlanner.Knowledge(
            volume: RecoverPlanner.Volume(
                id: 1,
                uuid: Self.uuid,
                blockSizeBytes: 512,
                blockCount: blocks,
                isBehind: isBehind
            ),
            headers: headers
        )
    }

    private func extent(_ first: UInt64, _ count: UInt64, _ object: Int64, slot: UInt64 = 0, copy: UInt64? = nil)
        -> RecoverPlanner.Extent
    {
        RecoverPlanner.Extent(firstBlock: first, blockCount: count, object: object, firstSlot: slot, copyVersion: copy)
    }

    private func run(_ first: UInt64, _ count: UInt64, _ object: Int64, slot: UInt64 = 0) -> RecoverPlanner.Run {
        RecoverPlanner.Run(firstBlock: first, blockCount: count, object: object, firstSlot: slot)
    }

    @Test func anEmptyDatabaseGetsTheNewestOfEachBlock() {
        let plan = RecoverPlanner.plan(
            knowledge([header(1, [(4, 10), (5, 11), (6, 12)]), header(2, [(5, 20), (9, 21)])])
        )
        #expect(plan.runs == [run(4, 1, 1), run(5, 1, 2), run(6, 1, 1, slot: 2), run(9, 1, 2, slot: 1)])
        #expect(plan.blocksTaken == 4 && plan.nextVersion == 22 && plan.losses.isEmpty)
    }

    @Test func ofEqualVersionsTheObjectThatWasWrittenLastCounts() {
        let plan = RecoverPlanner.plan(knowledge([header(1, [(4, 10), (5, 11)]), header(8, [(4, 10), (5, 11)])]))
        #expect(plan.runs == [run(4, 2, 8)])
    }

    @Test func whatIsNotNewerThanTheDatabaseIsLeftAlone() {
        var knowledge = knowledge([header(1, [(4, 10), (5, 11)]), header(2, [(4, 10), (5, 12), (6, 13), (7, 14)])])
        knowledge.rows = [1: .mapped]
        knowledge.extents = [extent(4, 2, 1)]
        knowledge.items = [
            RecoverPlanner.Item(block: 6, version: 13, isMoved: false),
            RecoverPlanner.Item(block: 7, version: 13, isMoved: false),
        ]
        let plan = RecoverPlanner.plan(knowledge)
        #expect(plan.runs == [run(5, 1, 2, slot: 1), run(7, 1, 2, slot: 3)])
        #expect(plan.staleItems == [knowledge.items[1]] && plan.nextVersion == 15)
    }

    @Test func aCopyIsAsNewAsItsOwnVersion() {
        var knowledge = knowledge([header(1, [(4, 10), (5, 11)]), header(2, [(20, 15), (21, 31)])])
        knowledge.rows = [1: .mapped]
        knowledge.extents = [extent(4, 2, 1), extent(20, 2, 1, copy: 30)]
        #expect(RecoverPlanner.plan(knowledge).runs == [run(21, 1, 2, slot: 1)])
    }

    /// What a database that did not go back knows of its objects is right: garbage must not come to life again.
    @Test func objectsThatTheDatabaseKnowsAsMappedTellNothingNew() {
        var healthy = knowledge(isBehind: false, [header(1, [(4, 10)]), header(2, [(5, 11)])])
        #expect(RecoverPlanner.plan(healthy).isEmpty)
        healthy.volume.isBehind = true
        healthy.rows = [1: .mapped]
        #expect(RecoverPlanner.plan(healthy).runs == [run(5, 1, 2)], "block 4 was unmapped before")
    }

    @Test func blocksOfAnObjectThatIsGoneAreKeptReplacedOrLost() {
        var knowledge = knowledge([header(2, [(13, 40)])])
        knowledge.lostObjects = [1]
        knowledge.rows = [1: .mapped]
        knowledge.extents = [extent(10, 8, 1)]
        let moved = RecoverPlanner.Item(block: 11, version: 3, isMoved: true)
        let newer = RecoverPlanner.Item(block: 12, version: 4, isMoved: false)
        knowledge.items = [moved, newer]
        let plan = RecoverPlanner.plan(knowledge)
        #expect(plan.keptItems == [moved])
        #expect(plan.runs == [run(11, 2, 0), run(13, 1, 2)], "items keep 11 and 12, 13 is in another object")
        #expect(
            plan.losses == [
                RecoverPlanner.Loss(firstBlock: 10, blockCount: 1, object: 1),
                RecoverPlanner.Loss(firstBlock: 14, blockCount: 4, object: 1),
            ]
        )
    }

    @Test func whatLiesBehindTheEndIsCountedAndLeft() {
        let plan = RecoverPlanner.plan(knowledge(blocks: 5, [header(1, [(4, 10), (5, 11)])]))
        #expect(plan.runs == [run(4, 1, 1)] && plan.beyondEnd == 1)
    }

    /// Block 5 and those behind it were taken away under versions below 20.
    private func shrunk(isPending: Bool, _ headers: [RecoverPlanner.Header]) -> RecoverPlanner.Knowledge {
        var knowledge = knowledge(headers)
        knowledge.volume.shrink = RecoverPlanner.Shrink(firstBlock: 5, version: 20, isPending: isPending)
        return knowledge
    }

    @Test func whatAShrinkHasTakenAwayDoesNotComeBack() {
        for isPending in [false, true] {
            let plan = RecoverPlanner.plan(shrunk(isPending: isPending, [header(1, [(4, 10), (5, 11), (6, 19)])]))
            #expect(plan.runs == [run(4, 1, 1)] && plan.beyondEnd == 0 && plan.nextVersion == 20)
            #expect(!plan.isRidOfRemains, "what waits to become zeros is left to the owner")
        }
    }

    @Test func whatWasWrittenBehindAShrinkStays_andWhatTheShrinkHasLeftGoes() {
        // Object 1, and the items, are of before the shrink; objects 2 and 3 were written after the volume had grown again.
        var knowledge = shrunk(
            isPending: true,
            [header(1, (0..<10).map { ($0, $0 + 1) }), header(2, [(4, 21), (6, 22)]), header(3, [(30, 23)])]
        )
        knowledge.rows = [1: .mapped]
        knowledge.extents = [extent(0, 10, 1)]
        knowledge.items = [(4, 15), (5, 16), (6, 17), (40, 18)].map {
            RecoverPlanner.Item(block: $0.0, version: $0.1, isMoved: false)
        }
        let plan = RecoverPlanner.plan(knowledge)
        #expect(plan.isRidOfRemains && plan.blocksTaken == 3)
        #expect(plan.runs == [run(4, 1, 2), run(5, 1, 0), run(6, 1, 2, slot: 1), run(7, 3, 0), run(30, 1, 3)])
        #expect(plan.staleItems == knowledge.items)

        // Interrupted after a part of it: the rest is as it was.
        knowledge.rows[2] = .mapped
        knowledge.extents = [
            extent(0, 4, 1), extent(4, 1, 2), extent(6, 1, 2, slot: 1), extent(7, 3, 1, slot: 7),
        ]
        knowledge.items.removeFirst(3)
        let rest = RecoverPlanner.plan(knowledge)
        #expect(rest.isRidOfRemains && rest.runs == [run(7, 3, 0), run(30, 1, 3)])
        #expect(rest.staleItems == knowledge.items)
        // And even where nothing is to be mapped any more.
        knowledge.rows[3] = .mapped
        knowledge.extents = [extent(0, 4, 1), extent(4, 1, 2), extent(6, 1, 2, slot: 1), extent(30, 1, 3)]
        #expect(RecoverPlanner.plan(knowledge).isRidOfRemains)
    }

    @Test func whatWaitsToBecomeZerosIsNoLoss() {
        var knowledge = shrunk(isPending: true, [])
        knowledge.lostObjects = [1]
        knowledge.rows = [1: .mapped]
        knowledge.extents = [extent(3, 5, 1)]
        knowledge.items = [RecoverPlanner.Item(block: 6, version: 17, isMoved: true)]
        let plan = RecoverPlanner.plan(knowledge)
        #expect(plan.losses == [RecoverPlanner.Loss(firstBlock: 3, blockCount: 2, object: 1)])
        #expect(plan.isEmpty && !plan.isRidOfRemains)
    }

    @Test func noRunIsLongerThanAnExtentMayBe() {
        let count = ControlLimits.recoverRunBlocks
        let slots = (0...count).map { ($0, $0 + 1) }
        let plan = RecoverPlanner.plan(knowledge(blocks: 10_000, [header(1, slots)]))
        #expect(plan.runs == [run(0, count, 1), run(count, 1, 1, slot: count)])
    }

    // MARK: Histories

    /// The rules of moving, compacting and collecting, in a few lines; databases are values, so that a backup is a copy.
    private struct World {
        struct Database {
            var items: [UInt64: (version: UInt64, isMoved: Bool)] = [:]
            var extents: [UInt64: (object: Int64, slot: Int)] = [:]
            var rows: [Int64: RecoverPlanner.Row] = [:]
            var dead: Set<Int64> = []
            var nextObject: Int64 = 1
            var size = World.blocks
            /// What lies behind this one waits to become zeros.
            var zeroFrom: UInt64?
            var shrink: (to: UInt64, version: UInt64)?

            /// Blocks that the owner serves.
            var served: UInt64 { min(size, zeroFrom ?? size) }

            /// Makes zeros of what a shrink has left.
            mutating func makeZeros() {
                guard let zeroFrom else { return }
                items = items.filter { $0.key < zeroFrom }
                extents = extents.filter { $0.key < zeroFrom }
                self.zeroFrom = nil
            }
        }

        static let blocks: UInt64 = 12
        var database = Database()
        var disk: [Int64: [(block: UInt64, version: UInt64)]] = [:]
        var nextVersion: UInt64 = 1
        /// Whether dead objects lose their bytes.
        var isWindowOpen: Bool
        /// Whether the volume changes its size.
        var hasResizes: Bool
        /// The last version that each block ever had.
        var last: [UInt64: UInt64] = [:]
        /// The smallest size since it was last set.
        var smallest = World.blocks
        var random: SeededGenerator

        init(seed: UInt64, isWindowOpen: Bool, hasResizes: Bool) {
            random = SeededGenerator(seed: seed)
            self.isWindowOpen = isWindowOpen
            self.hasResizes = hasResizes
        }

        mutating func step() {
            if hasResizes, random.next() % 6 == 0 { return resize() }
            switch random.next() % 10 {
            case 0...4:
                let block = random.next() % database.served
                database.items[block] = (nextVersion, false)
                last[block] = nextVersion
                nextVersion += 1
            case 5, 6: move()
            case 7: compact()
            case 8:
                // Evict.
                let moved = database.items.filter { $0.value.isMoved }.keys.sorted()
                if let block = moved.randomElement(using: &random) { database.items[block] = nil }
            default: collect()
            }
        }

        private mutating func resize() {
            let size = 1 + random.next() % Self.blocks
            switch random.next() % 3 {
            case 0 where size < database.size:
                // As the trigger of the table does.
                let zeroFrom = min(database.zeroFrom ?? size, size)
                database.shrink = (zeroFrom, nextVersion)
                database.zeroFrom = zeroFrom
                database.size = size
                smallest = min(smallest, size)
            case 1: database.size = max(size, database.size)
            default: database.makeZeros()
            }
        }

        private mutating func reserve() -> Int64 {
            database.nextObject += 1
            database.rows[database.nextObject - 1] = .unmapped
            return database.nextObject - 1
        }

        private mutating func move() {
            let unmoved = database.items.filter { !$0.value.isMoved && $0.key < database.served }.keys.sorted()
                .prefix(Int(random.next() % 5))
            guard !unmoved.isEmpty else { return }
            let object = reserve()
            disk[object] = unmoved.map { ($0, database.items[$0]?.version ?? 0) }
            // An agent that ends here leaves an object that is never mapped.
            guard random.next() % 8 > 0 else { return }
            for (slot, content) in (disk[object] ?? []).enumerated() {
                database.extents[content.block] = (object, slot)
                database.items[content.block]?.isMoved = true
            }
            database.rows[object] = .mapped
        }

        private mutating func compact() {
            let served = database.extents.filter { $0.key < database.served }
            let sources = Set(served.values.map(\.object)).sorted()
            guard let source = sources.randomElement(using: &random) else { return }
            let live = served.filter { $0.value.object == source }.keys.sorted()
            let object = reserve()
            disk[object] = live.compactMap { block in
                database.extents[block].flatMap { disk[$0.object]?[$0.slot] }
            }
            for (slot, block) in live.enumerated() { database.extents[block] = (object, slot) }
            database.rows[object] = .mapped
        }

        private mutating func collect() {
            let used = Set(database.extents.values.map(\.object))
            for (object, row) in database.rows where row == .mapped && !used.contains(object) {
                database.dead.insert(object)
            }
            guard !isWindowOpen else { return }
            for object in database.dead {
                disk[object] = nil
                database.rows[object] = nil
            }
            database.dead = []
        }

        /// The version that a block reads as; nil: lost; 0: never written.
        func version(of block: UInt64, in database: Database) -> UInt64? {
            if let zeroFrom = database.zeroFrom, block >= zeroFrom { return 0 }
            if let item = database.items[block] { return item.version }
            guard let place = database.extents[block] else { return 0 }
            return disk[place.object].map { $0[place.slot].version }
        }
    }

    private func knowledge(_ world: World, _ database: World.Database) -> RecoverPlanner.Knowledge {
        var knowledge = knowledge(
            blocks: database.size,
            world.disk.sorted { $0.key < $1.key }.map { header($0.key, $0.value.map { ($0.block, $0.version) }) }
        )
        knowledge.volume.shrink = database.shrink.map {
            RecoverPlanner.Shrink(firstBlock: $0.to, version: $0.version, isPending: database.zeroFrom != nil)
        }
        knowledge.rows = database.rows
        knowledge.lostObjects = Set(database.extents.values.map(\.object)).filter { world.disk[$0] == nil }
        knowledge.extents = database.extents.sorted { $0.key < $1.key }.map {
            extent($0.key, 1, $0.value.object, slot: UInt64($0.value.slot))
        }
        knowledge.items = database.items.sorted { $0.key < $1.key }.map {
            RecoverPlanner.Item(block: $0.key, version: $0.value.version, isMoved: $0.value.isMoved)
        }
        return knowledge
    }

    private func apply(_ plan: RecoverPlanner.Plan, to database: inout World.Database) {
        for run in plan.runs {
            for offset in 0..<run.blockCount {
                let slot = Int(run.firstSlot + offset)
                database.extents[run.firstBlock + offset] = run.object == 0 ? nil : (run.object, slot)
            }
        }
        for item in plan.staleItems { database.items[item.block] = nil }
        for item in plan.keptItems { database.items[item.block]?.isMoved = false }
        if plan.isRidOfRemains { database.zeroFrom = nil }
    }

    /// Random histories with a backup in the middle: nothing goes back behind the backup, nothing that is in an object is missed,
    /// nothing comes from the future, what is lost is named, and what a shrink of before the backup has taken away stays away. What
    /// was shrunk away after the backup is back, as after an UNMAP: objects say nothing of either.
    @Test(arguments: 0..<600 as Range<UInt64>)
    func aRestoredDatabaseGetsWhatObjectsKnow(seed: UInt64) {
        var world = World(seed: seed, isWindowOpen: seed % 2 == 0, hasResizes: seed % 3 > 0)
        let isEmptyBackup = seed % 5 == 0
        for _ in 0..<(isEmptyBackup ? 0 : 60) { world.step() }
        let backup = world.database
        let before = (0..<World.blocks).map { world.version(of: $0, in: backup) }
        world.smallest = backup.size
        for _ in 0..<60 { world.step() }
        let truth = (0..<World.blocks).map { world.version(of: $0, in: world.database) }

        var restored = backup
        let plan = RecoverPlanner.plan(knowledge(world, backup))
        apply(plan, to: &restored)
        let isPending = restored.zeroFrom != nil
        let recovered = restored
        // The owner goes on with what a shrink has left.
        restored.makeZeros()

        let lost = Set(plan.losses.flatMap { $0.firstBlock..<$0.firstBlock + $0.blockCount })
        for block in 0..<restored.size {
            let index = Int(block)
            let floor = backup.shrink.flatMap { block >= $0.to ? $0.version : nil } ?? 0
            // What the backup knows as mapped, and as behind the end of an earlier shrink since, is no news to it.
            let told = world.disk.filter { !world.hasResizes || backup.rows[$0.key] != .mapped }
            let newest =
                told.values.flatMap { $0 }.filter { $0.block == block && $0.version >= floor }.map(\.version).max() ?? 0
            guard let version = world.version(of: block, in: restored) else {
                #expect(lost.contains(block), "block \(block) is lost, and nobody says so")
                // With the window open no object of the backup is ever gone.
                #expect(!world.isWindowOpen)
                continue
            }
            #expect(!lost.contains(block))
            #expect(version >= before[index] ?? 0, "block \(block) went back")
            #expect(version >= newest, "block \(block) is newer in an object")
            #expect(version == 0 || version >= floor, "block \(block) was shrunk away")
            let limit = block < world.smallest ? truth[index] ?? .max : world.last[block, default: 0]
            #expect(version <= limit, "block \(block) was never \(version)")
            if let place = restored.extents[block], restored.items[block] == nil {
                #expect(world.disk[place.object]?[place.slot].block == block)
            }
            if let item = restored.items[block], item.isMoved { #expect(restored.extents[block] != nil, "I8") }
        }
        #expect(plan.nextVersion > (world.disk.values.flatMap { $0 }.map(\.version).max() ?? 0))
        if isPending { #expect(plan.runs.allSatisfy { $0.firstBlock < recovered.zeroFrom ?? 0 }) }
        // What was carried out needs not be done again.
        for run in plan.runs where run.object > 0 { restored.rows[run.object] = .mapped }
        #expect(RecoverPlanner.plan(knowledge(world, restored)).isEmpty)
    }
}
