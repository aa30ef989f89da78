import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

@Suite("Copies by reference (M11)")
struct CopyRuleTests {
    private static let block = 2_048

    private static func policy(_ change: (inout CachePolicy) -> Void = { _ in }) -> CachePolicy {
        var policy = CachePolicy.standard
        policy.cachedBytesMaximum = 0
        policy.readFill = .never
        change(&policy)
        return policy
    }

    /// Writes some blocks, each with its own byte, and moves them; the items go as well.
    private static func inObject(_ bench: Bench, _ nexus: NexusNumber, _ bytes: [UInt8], evict: Bool = true) throws {
        for (index, byte) in bytes.enumerated() {
            #expect(bench.isDone(bench.submit(nexus, bench.write(index * block, block, byte))))
        }
        _ = bench.map(bench.put(try #require(bench.moveWork())))
        if evict { bench.evict() }
    }

    private static func copy(_ from: Int, _ to: Int, _ blocks: Int) -> CommandOperation {
        .copy(source: UInt64(from * block), destination: UInt64(to * block), count: UInt64(blocks * block))
    }

    private static func rows(_ bench: Bench) -> RegionRows {
        bench.store.loadRegion(Bench.volume, BlockRange(first: BlockID(0), count: 2_048))
    }

    /// What blocks hold, a byte each.
    private static func content(_ bench: Bench, _ nexus: NexusNumber, _ from: Int, _ blocks: Int) -> [UInt8]? {
        bench.read(nexus, from * block, blocks * block).map { bytes in
            stride(from: 0, to: bytes.count, by: block).map { bytes[$0] }
        }
    }

    @Test("What lies in an object is shared, and no byte is written")
    func sharing() throws {
        let bench = try Bench(policy: Self.policy())
        let nexus = try #require(bench.login())
        try Self.inObject(bench, nexus, [1, 2, 3, 4])
        #expect(bench.isDone(bench.submit(nexus, bench.write(9 * Self.block, Self.block, 9))))
        let next = try #require(bench.owner?.nextVersion)
        #expect(bench.isDone(bench.submit(nexus, Self.copy(1, 8, 3))))
        #expect(bench.commits.last?.first?.writes.isEmpty == true)
        let rows = Self.rows(bench)
        #expect(rows.items.isEmpty, "the item that was there goes in the same transaction")
        let extent = try #require(rows.extents.last)
        #expect(rows.extents.count == 2 && extent.blocks == BlockRange(first: BlockID(8), count: 3))
        #expect(extent.firstSlot == SlotIndex(1))
        #expect(extent.copy == BlockCopy(origin: BlockID(1), version: next))
        #expect(Self.content(bench, nexus, 7, 5) == [0, 2, 3, 4, 0])
        // A copy of the copy names the first origin.
        #expect(bench.isDone(bench.submit(nexus, Self.copy(9, 20, 2))))
        #expect(Self.rows(bench).extents.last?.copy?.origin == BlockID(2))
        #expect(Self.content(bench, nexus, 20, 2) == [3, 4])
        #expect(bench.owner?.unmovedItems == 0)
    }

    @Test("M7: a shared slot outlives the block that it was written as")
    func counting() throws {
        let bench = try Bench(policy: Self.policy())
        let nexus = try #require(bench.login())
        try Self.inObject(bench, nexus, [1, 2])
        #expect(bench.isDone(bench.submit(nexus, Self.copy(0, 8, 2))))
        #expect(bench.isDone(bench.submit(nexus, bench.zero((0, 2 * Self.block)))))
        for _ in 0..<3 { bench.store.collect() }
        #expect(Self.content(bench, nexus, 8, 2) == [1, 2])
        // A takeover reads the same map.
        bench.core.giveUp(Bench.volume, now: bench.now)
        bench.own()
        let other = try #require(bench.login("other"))
        #expect(Self.content(bench, other, 8, 2) == [1, 2])
        #expect(bench.isDone(bench.submit(other, bench.zero((8 * Self.block, 2 * Self.block)))))
        for _ in 0..<3 { bench.store.collect() }
        #expect(bench.store.stored.isEmpty)
    }

    @Test("Unmoved items become new ones, moved ones are shared, zeros are zeros: all in one transaction")
    func everyKind() throws {
        let bench = try Bench(policy: Self.policy())
        let nexus = try #require(bench.login())
        try Self.inObject(bench, nexus, [1, 2, 3], evict: false)
        // Block 1 was written again: its extent is older. Block 3 was never written.
        #expect(bench.isDone(bench.submit(nexus, bench.write(Self.block, Self.block, 7))))
        for index in 8..<12 {
            #expect(bench.isDone(bench.submit(nexus, bench.write(index * Self.block, Self.block, 9))))
        }
        let before = bench.commits.count
        #expect(bench.isDone(bench.submit(nexus, Self.copy(0, 8, 4))))
        #expect(bench.commits.count == before + 1)
        let commit = try #require(bench.commits.last?.first)
        #expect(commit.references.map(\.destination) == [BlockID(8), BlockID(10)])
        #expect(commit.writes.map(\.block) == [BlockID(9)])
        #expect(commit.zeros == [BlockRange(first: BlockID(11), count: 1)])
        #expect(commit.writes.first?.checksum == bench.filled(7, Self.block).testChecksum)
        #expect(Self.content(bench, nexus, 8, 4) == [1, 7, 3, 0])
        #expect(bench.owner?.unmovedItems == 2)
        #expect(bench.store.violations.isEmpty)
    }

    @Test("An item whose bytes are not in memory is read from the store, and its checksum is looked at (I11)")
    func bytesOfItems() throws {
        for isDamaged in [false, true] {
            let bench = try Bench(policy: Self.policy()) { $0.memoryBytes = 0 }
            let nexus = try #require(bench.login())
            #expect(bench.isDone(bench.submit(nexus, bench.write(0, Self.block, 5))))
            if isDamaged { bench.store.damage(Bench.volume, BlockID(0)) }
            let ticket = bench.submit(nexus, Self.copy(0, 4, 1))
            #expect(bench.isDone(ticket) != isDamaged)
            if isDamaged {
                #expect(bench.refusal(ticket) == .mediumError(0))
                #expect(Self.rows(bench).items.count == 1)
            } else {
                #expect(Self.content(bench, nexus, 4, 1) == [5])
            }
        }
    }

    @Test("M1: a late map of what was at the destination maps nothing")
    func lateMap() throws {
        let bench = try Bench(policy: Self.policy())
        let nexus = try #require(bench.login())
        try Self.inObject(bench, nexus, [1])
        #expect(bench.isDone(bench.submit(nexus, bench.write(8 * Self.block, Self.block, 9))))
        let map = bench.put(try #require(bench.moveWork()))
        #expect(bench.isDone(bench.submit(nexus, Self.copy(0, 8, 1))))
        let ticket = bench.map(map)
        guard case .count(0, _)? = bench.answers[ticket] else {
            Issue.record("the copy was overwritten by an older block")
            return
        }
        #expect(Self.content(bench, nexus, 8, 1) == [1])
    }

    @Test("M6: a compaction gives each block that shares a slot its own; the map of an older state of a block fails")
    func compaction() throws {
        let bench = try Bench(policy: Self.policy { $0.compactBelowPercent = 90 })
        let nexus = try #require(bench.login())
        try Self.inObject(bench, nexus, [1, 2, 3, 4])
        #expect(bench.isDone(bench.submit(nexus, Self.copy(0, 8, 1))))
        #expect(bench.isDone(bench.submit(nexus, bench.zero((Self.block, 3 * Self.block)))))
        let ticket = bench.ticket()
        bench.core.requestCompactionWork(ticket, now: bench.now)
        bench.run()
        guard case .compactionWork(let work?)? = bench.answers[ticket] else {
            Issue.record("a sparse object is compacted")
            return
        }
        #expect(work.extents.map(\.blocks.first) == [BlockID(0), BlockID(8)])
        #expect(work.extents.map(\.origin) == [BlockID(0), BlockID(0)])
        #expect(work.extents.map(\.firstSlot) == [SlotIndex(0), SlotIndex(0)])
        bench.store.put(work.object, [0, 8].map { (BlockID($0), bench.filled(1, Self.block)) })
        let map = ObjectMap(
            object: work.object,
            server: ObjectServerID(1),
            sizeBytes: 1,
            slots: work.extents.map {
                ObjectMap.Slot(
                    block: $0.blocks.first,
                    version: $0.copy?.version ?? Version(1),
                    condition: .extentNames($0.object, $0.firstSlot)
                )
            }
        )
        _ = bench.map(map)
        #expect(Self.rows(bench).extents.map(\.object) == [work.object, work.object])
        #expect(Self.rows(bench).extents.allSatisfy { $0.copy == nil })
        for _ in 0..<3 { bench.store.collect() }
        #expect(Self.content(bench, nexus, 0, 9) == [1, 0, 0, 0, 0, 0, 0, 0, 1])
    }

    @Test("R4: a copy that is sent again is not done again")
    func sentAgain() throws {
        let bench = try Bench(policy: Self.policy())
        let nexus = try #require(bench.login())
        try Self.inObject(bench, nexus, [1])
        #expect(bench.isDone(bench.submit(nexus, Self.copy(0, 8, 1), command: 50)))
        #expect(bench.isDone(bench.submit(nexus, bench.write(8 * Self.block, Self.block, 9))))
        #expect(bench.isDone(bench.submit(nexus, Self.copy(0, 8, 1), command: 50)))
        #expect(Self.content(bench, nexus, 8, 1) == [9])
    }

    @Test("I2: what overlaps either end waits for its turn")
    func order() throws {
        let bench = try Bench(policy: Self.policy())
        let nexus = try #require(bench.login())
        try Self.inObject(bench, nexus, [1])
        bench.holdsCommits = true
        let before = bench.submit(nexus, bench.write(0, Self.block, 2))
        let copy = bench.submit(nexus, Self.copy(0, 8, 1))
        let after = bench.submit(nexus, bench.write(0, Self.block, 3))
        let read = bench.submit(nexus, bench.readOperation(8 * Self.block, Self.block))
        #expect(Set(bench.unanswered).isSuperset(of: [before, copy, after, read]))
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect([before, copy, after].allSatisfy(bench.isDone))
        #expect(bench.bytes(read)?.first == 2)
    }

    @Test("The outcome of a commit that is not known: the copy is there whole or not at all")
    func unknownOutcome() throws {
        for isMade in [false, true] {
            let bench = try Bench(policy: Self.policy())
            let nexus = try #require(bench.login())
            try Self.inObject(bench, nexus, [1, 2])
            bench.commitFailures = [(.unknownOutcome("planted"), isMade: isMade)]
            bench.submit(nexus, Self.copy(0, 8, 2))
            bench.own()
            let other = try #require(bench.login("other"))
            #expect(Self.content(bench, other, 8, 2) == (isMade ? [1, 2] : [0, 0]))
        }
    }

    @Test("What is not made of data blocks, overlaps, ends behind the volume, or is too long is refused")
    func refusals() throws {
        let most = Int(Limits.transferMaximumBytes)
        let blocks = 4 * most / Self.block
        let bench = try Bench(blocks: UInt64(blocks))
        let nexus = try #require(bench.login())
        func refusal(_ source: Int, _ destination: Int, _ count: Int) -> Refusal? {
            let copy = CommandOperation.copy(
                source: UInt64(source),
                destination: UInt64(destination),
                count: UInt64(count)
            )
            return bench.refusal(bench.submit(nexus, copy))
        }
        func isInvalid(_ source: Int, _ destination: Int, _ count: Int) -> Bool {
            if case .invalid? = refusal(source, destination, count) { true } else { false }
        }
        let block = Self.block
        #expect(isInvalid(512, 8 * block, block) && isInvalid(0, 8 * block + 512, block))
        #expect(isInvalid(0, 8 * block, 512) && isInvalid(0, block, 2 * block) && isInvalid(block, 0, 2 * block))
        #expect(isInvalid(0, most + block, most + block))
        #expect(bench.isDone(bench.submit(nexus, Self.copy(0, most / block, most / block))))
        #expect(refusal(0, (blocks - 1) * block, 2 * block) == .outOfRange)
        #expect(refusal((blocks - 1) * block, 0, 2 * block) == .outOfRange)
        #expect(bench.isDone(bench.submit(nexus, Self.copy(0, 8, 0))))
    }
}
