import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

@Suite("Rules of moving, memory and watermarks, with plain calls")
struct MoveRuleTests {
    private static func policy(_ change: (inout CachePolicy) -> Void) -> CachePolicy {
        var policy = CachePolicy.standard
        change(&policy)
        return policy
    }

    /// Writes some blocks, moves them and drops the items: they lie in an object alone.
    private static func inObject(_ bench: Bench, _ nexus: NexusNumber, _ blocks: Int, _ byte: UInt8) throws {
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, blocks * bench.block, byte))))
        let work = try #require(bench.moveWork())
        _ = bench.map(bench.put(work))
        bench.evict()
        #expect(bench.store.loadRegion(Bench.volume, BlockRange(first: BlockID(0), count: 2_048)).items.isEmpty)
    }

    @Test("M1 I5: a block that was written after it was handed out stays unmoved")
    func newerVersion() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 3 * 2_048, 1))))
        let work = try #require(bench.moveWork())
        #expect(work.blocks.count == 3)
        let map = bench.put(work)
        #expect(bench.isDone(bench.submit(nexus, bench.write(2_048, 2_048, 2))))
        let ticket = bench.map(map)
        guard case .count(2, let left)? = bench.answers[ticket] else {
            Issue.record("two of three are mapped")
            return
        }
        #expect(left == 1)
        #expect(bench.read(nexus, 0, 3 * 2_048) == [1, 2, 1].flatMap { [UInt8](repeating: $0, count: 2_048) })
        // Asked for once more, an object that is live already maps nothing (M9).
        let again = bench.map(map)
        guard case .count(0, _)? = bench.answers[again] else {
            Issue.record("an object is mapped once")
            return
        }
        #expect(bench.owner?.unmovedItems == 1)
    }

    @Test("while initiators use a volume, what nothing but order asks for is moved at a measured pace")
    func paceOfMoves() throws {
        let bench = try Bench(blocks: 16_384)
        bench.store.itemAgeMilliseconds = 10_000
        let nexus = try #require(bench.login())
        let block = bench.block
        /// As an initiator that writes on and on.
        func write(for nanoseconds: UInt64) {
            let end = bench.now.advanced(byNanoseconds: nanoseconds)
            while bench.now < end {
                #expect(bench.isDone(bench.submit(nexus, bench.write(0, block, 1))))
                bench.advance(OwnerLimits.busyWindow / 2)
            }
        }
        // More than an object holds, so that there is always something to move.
        let perObject = min(Limits.objectTargetBytes / block, Int(Limits.objectSlotsMaximum))
        for part in 0..<4 { bench.submit(nexus, bench.write(part * perObject * block, perObject * block, 2)) }
        _ = bench.map(bench.put(try #require(bench.moveWork())))
        #expect(bench.moveWork() == nil)
        write(for: bench.core.configuration.busyPause)
        _ = bench.map(bench.put(try #require(bench.moveWork())))
        #expect(bench.moveWork() == nil)
        // Nobody uses it any more: all goes at once.
        bench.advance(OwnerLimits.busyWindow)
        _ = bench.map(bench.put(try #require(bench.moveWork())))
        _ = bench.map(bench.put(try #require(bench.moveWork())))
        #expect(try #require(bench.owner).unmovedItems < UInt64(perObject))
    }

    @Test("while initiators use a volume, objects are compacted at a measured pace, until much in them is dead")
    func paceOfCompaction() throws {
        let bench = try Bench(blocks: 1_024) { $0.deadBytesSlack = 400 * 2_048 }
        let nexus = try #require(bench.login())
        let block = bench.block
        func compact() -> CompactionAssignment? {
            let ticket = bench.ticket()
            bench.core.requestCompactionWork(ticket, now: bench.now)
            bench.run()
            guard case .compactionWork(let work)? = bench.answers[ticket] else { return nil }
            return work
        }
        func overwrite(_ first: Int, _ count: Int) throws {
            #expect(bench.isDone(bench.submit(nexus, bench.write(first * block, count * block, 3))))
            bench.core.moveNow(bench.ticket(), volume: Bench.volume, now: bench.now)
            _ = bench.map(bench.put(try #require(bench.moveWork())))
        }
        bench.submit(nexus, bench.write(0, 200 * block, 2))
        bench.core.moveNow(bench.ticket(), volume: Bench.volume, now: bench.now)
        _ = bench.map(bench.put(try #require(bench.moveWork())))
        try overwrite(0, 150)
        #expect(try #require(compact()).extents.map(\.blocks) == [BlockRange(first: BlockID(150), count: 50)])
        try overwrite(0, 100)
        #expect(bench.owner?.deadBlocks == 250)
        #expect(compact() == nil)
        // Above the slack, and above half of what is mapped.
        try overwrite(0, 148)
        try overwrite(0, 3)
        #expect(bench.owner?.deadBlocks == 401)
        #expect(compact() != nil)
        bench.advance(OwnerLimits.busyWindow)
        bench.advance(OwnerLimits.moveTimeout)
        #expect(compact() != nil)
    }

    @Test(
        "who asks for something to compact is not sent away because of volumes that have nothing",
        arguments: [false, true]
    )
    func compactionLooksOn(isUrgent: Bool) throws {
        let others = (1...20 as ClosedRange<Int64>).map { VolumeID(Bench.volume.rawValue + $0) }
        let bench = try Bench(blocks: 1_024, others: others) { $0.deadBytesSlack = isUrgent ? 0 : 1 << 30 }
        let nexus = try #require(bench.login())
        let block = bench.block
        func compact() -> CompactionAssignment? {
            let ticket = bench.ticket()
            bench.core.requestCompactionWork(ticket, now: bench.now)
            bench.run()
            guard case .compactionWork(let work)? = bench.answers[ticket] else { return nil }
            return work
        }
        #expect(compact() == nil)
        #expect(bench.compactionQueries == [Bench.volume] + others.prefix(OwnerLimits.compactionLooksMaximum - 1))
        for count in [200, 150] {
            bench.submit(nexus, bench.write(0, count * block, 2))
            bench.core.moveNow(bench.ticket(), volume: Bench.volume, now: bench.now)
            _ = bench.map(bench.put(try #require(bench.moveWork())))
        }
        bench.advance(10 * OwnerLimits.idleLook)
        let before = bench.compactionQueries.count
        #expect(compact()?.volume.id == Bench.volume)
        let looks = Array(bench.compactionQueries[before...])
        #expect(looks == (isUrgent ? [] : others.suffix(5)) + [Bench.volume])
    }

    @Test(
        "what is urgent is moved while initiators use a volume: half of the high watermark, a drain, a bound of the policy",
        arguments: ["watermark", "drain", "policy", "age"]
    )
    func urgentMoves(why: String) throws {
        let policy = Self.policy {
            if why == "policy" {
                $0.move = .count
                $0.unmovedItemsMaximum = 0
            }
            if why == "age" { $0.unmovedAgeMaximumSeconds = 1 }
        }
        let bench = try Bench(blocks: 16_384, policy: policy) {
            if why == "watermark" { $0.unmovedHighWatermarkBytes = 2 * 2_048 }
        }
        bench.store.itemAgeMilliseconds = 10_000
        let nexus = try #require(bench.login())
        let block = bench.block
        let perObject = min(Limits.objectTargetBytes / block, Int(Limits.objectSlotsMaximum))
        for part in 0..<4 { bench.submit(nexus, bench.write(part * perObject * block, perObject * block, 2)) }
        if why == "drain" { bench.core.moveNow(bench.ticket(), volume: Bench.volume, now: bench.now) }
        if why == "age" {
            bench.advance(2_000_000_000)
            bench.submit(nexus, bench.write(0, block, 3))
        }
        for _ in 0..<3 { _ = bench.map(bench.put(try #require(bench.moveWork(), "\(why)"))) }
    }

    @Test(
        "M2: versions after a takeover lie above all that are durable, also where the first batch's outcome is unknown"
    )
    func versionCeiling() throws {
        for isMade in [true, false] {
            let bench = try Bench()
            let nexus = try #require(bench.login())
            bench.commitFailures = [(.unknownOutcome("planted"), isMade: isMade)]
            bench.submit(nexus, bench.write(0, 4 * 2_048, 1))
            bench.own()
            let used = bench.store.loadRegion(Bench.volume, BlockRange(first: BlockID(0), count: 2_048)).items
            #expect(used.isEmpty != isMade)
            let next = try #require(bench.owner?.nextVersion)
            #expect(used.allSatisfy { $0.version < next })
            let other = try #require(bench.login("other"))
            #expect(bench.isDone(bench.submit(other, bench.write(0, 2_048, 2))))
            // Two commits on their way at once both carry a ceiling.
            bench.holdsCommits = true
            for index in 0..<3 { bench.submit(other, bench.write(index * 2_048, 2_048, 3)) }
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.store.violations.isEmpty)
            let ceiling = try #require(bench.store.firstVersion(of: Bench.volume))
            #expect(try #require(bench.owner?.nextVersion) <= ceiling)
        }
    }

    @Test("M3: an item that was written after it was chosen is not evicted")
    func evictionOfNewer() throws {
        let bench = try Bench(policy: Self.policy { $0.cachedBytesMaximum = 0 })
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2 * 2_048, 1))))
        _ = bench.map(bench.put(try #require(bench.moveWork())))
        bench.holdsCommits = true
        bench.submit(nexus, bench.write(0, 2_048, 2))
        bench.evict()
        bench.holdsCommits = false
        bench.releaseHeld()
        let items = bench.store.loadRegion(Bench.volume, BlockRange(first: BlockID(0), count: 2)).items
        #expect(items.map(\.block) == [BlockID(0)])
        #expect(bench.read(nexus, 0, 4_096) == [2, 1].flatMap { [UInt8](repeating: $0, count: 2_048) })
    }

    @Test("I11: an item whose slot is damaged is not evicted but moved again", arguments: [false, true])
    func evictionOfTheLastIntactCopy(isTakenOver: Bool) throws {
        let bench = try Bench(policy: Self.policy { $0.cachedBytesMaximum = 0 })
        var nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 3 * 2_048, 1))))
        let first = bench.put(try #require(bench.moveWork()))
        _ = bench.map(first)
        bench.store.damagedSlots[first.object] = [SlotIndex(1)]
        if isTakenOver {
            // The item is not in memory.
            bench.own()
            nexus = try #require(bench.login("other"))
        }
        bench.evict()
        #expect(bench.owner?.unmovedItems == 1 && bench.owner?.cachedItems == 1)
        let work = try #require(bench.moveWork())
        #expect(work.blocks.map(\.row.block) == [BlockID(1)])
        _ = bench.map(bench.put(work))
        #expect(bench.owner?.unmovedItems == 0)
        bench.evict()
        #expect(bench.store.loadRegion(Bench.volume, BlockRange(first: BlockID(0), count: 3)).items.isEmpty)
        #expect(bench.owner?.cachedItems == 0)
        #expect(bench.read(nexus, 0, 3 * 2_048) == [UInt8](repeating: 1, count: 3 * 2_048))
    }

    @Test("I10: a volume on which nothing happens is looked at once, and has no objects reserved")
    func idleVolume() throws {
        let bench = try Bench()
        for _ in 0..<600 {
            #expect(bench.moveWork() == nil)
            bench.advance(1_000 * Bench.millisecond)
        }
        #expect(bench.moveQueries == 1 && bench.reservations == 0)
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 1))))
        bench.advance(3_000 * Bench.millisecond)
        #expect(bench.moveWork() != nil && bench.reservations > 0)
    }

    @Test("a volume is served before it is counted, and what there was is added to what came meanwhile")
    func servedBeforeItIsCounted() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 3 * 2_048, 1))))
        bench.core.giveUp(Bench.volume, now: bench.now)
        bench.countFailures = 1
        bench.own()
        #expect(bench.owner?.unmovedItems == 0)
        let other = try #require(bench.login("other"))
        #expect(bench.read(other, 0, 2_048)?.first == 1)
        #expect(bench.isDone(bench.submit(other, bench.write(8 * 2_048, 2_048, 2))))
        #expect(bench.owner?.unmovedItems == 1)
        bench.advance(2 * OwnerLimits.storeRetry)
        #expect(bench.owner?.unmovedItems == 4 && bench.owner?.cachedItems == 4 && bench.owner?.mappedBlocks == 4)
        #expect(bench.core.unmovedBytes == 4 * 2_048)
    }

    @Test("M5: a map of what was made zeros meanwhile maps nothing")
    func mapAfterZero() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2 * 2_048, 1))))
        let map = bench.put(try #require(bench.moveWork()))
        #expect(bench.isDone(bench.submit(nexus, bench.zero((0, 4_096)))))
        _ = bench.map(map)
        #expect(bench.read(nexus, 0, 4_096).map { Set($0) } == [0])
        #expect(bench.owner?.unmovedItems == 0)
    }

    @Test("M6: a compaction changes a block only where its extent still names the source")
    func compaction() throws {
        let bench = try Bench(
            policy: Self.policy {
                $0.cachedBytesMaximum = 0; $0.compactBelowPercent = 90
            }
        )
        let nexus = try #require(bench.login())
        try Self.inObject(bench, nexus, 4, 1)
        #expect(bench.isDone(bench.submit(nexus, bench.zero((0, 2_048)))))
        let ticket = bench.ticket()
        bench.core.requestCompactionWork(ticket, now: bench.now)
        bench.run()
        guard case .compactionWork(let work?)? = bench.answers[ticket] else {
            Issue.record("a sparse object is compacted")
            return
        }
        let blocks = work.extents.flatMap { extent in
            (0..<extent.blocks.count).map {
                (extent.blocks.first + $0, SlotIndex(extent.firstSlot.rawValue + UInt32($0)), extent.object)
            }
        }
        #expect(blocks.map(\.0) == [BlockID(1), BlockID(2), BlockID(3)])
        bench.store.put(work.object, blocks.map { ($0.0, bench.filled(1, 2_048)) })
        // Meanwhile one block is made zeros and another is written, moved and evicted.
        #expect(bench.isDone(bench.submit(nexus, bench.zero((2_048, 2_048)))))
        #expect(bench.isDone(bench.submit(nexus, bench.write(4_096, 2_048, 7))))
        _ = bench.map(bench.put(try #require(bench.moveWork())))
        bench.evict()
        let map = ObjectMap(
            object: work.object,
            server: ObjectServerID(1),
            sizeBytes: 1,
            slots: blocks.map {
                ObjectMap.Slot(block: $0.0, version: Version(1), condition: .extentNames($0.2, $0.1))
            }
        )
        let mapped = bench.map(map)
        guard case .count(1, _)? = bench.answers[mapped] else {
            Issue.record("one block of three is mapped")
            return
        }
        #expect(bench.read(nexus, 0, 8_192) == [0, 0, 7, 1].flatMap { [UInt8](repeating: $0, count: 2_048) })
    }

    @Test("I11: a damaged item is a medium error, is never moved, and does not keep others from being moved")
    func damagedItem() throws {
        let bench = try Bench { $0.memoryBytes = 0 }
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(20_480, 2_048, 1))))
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 2))))
        bench.store.damage(Bench.volume, BlockID(10))
        #expect(bench.refusal(bench.submit(nexus, bench.readOperation(20_480, 2_048))) == .mediumError(20_480))
        #expect(bench.refusal(bench.submit(nexus, bench.write(20_480, 512, 3))) == .mediumError(20_480))
        var moved: [BlockID] = []
        for _ in 0..<4 {
            if let work = bench.moveWork() {
                moved += work.blocks.map(\.row.block)
                _ = bench.map(bench.put(work))
            }
            bench.advance(2_000 * Bench.millisecond)
        }
        #expect(moved == [BlockID(0)])
    }

    @Test("what an agent that died has held is given out again")
    func deadAgent() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 4 * 2_048, 1))))
        let first = try #require(bench.moveWork())
        #expect(bench.moveWork() == nil)
        bench.advance(OwnerLimits.moveTimeout + 1_000 * Bench.millisecond)
        let second = try #require(bench.moveWork())
        #expect(second.blocks.map(\.row) == first.blocks.map(\.row))
        // Both maps arrive: the blocks are counted once.
        _ = bench.map(bench.put(first))
        _ = bench.map(bench.put(second))
        #expect(bench.owner?.unmovedItems == 0 && bench.core.unmovedBytes == 0)
    }

    @Test("what one agent is moving is not in excess for the next")
    func excessOnce() throws {
        let bench = try Bench(
            policy: Self.policy {
                $0.move = .count
                $0.unmovedItemsMaximum = 4
            }
        )
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 10 * 2_048, 1))))
        bench.store.itemAgeMilliseconds = 5_000
        let work = try #require(bench.moveWork())
        #expect(work.blocks.count == 6)
        bench.advance(OwnerLimits.idleLook * 6)
        #expect(bench.moveWork() == nil)
        _ = bench.map(bench.put(work))
        #expect(bench.owner?.unmovedItems == 4)
    }

    @Test("I6: an object id whose intent may have been swept meanwhile is not handed out")
    func oldIntent() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 1))))
        let young = try #require(bench.moveWork())
        _ = bench.map(bench.put(young))
        bench.advance(OwnerLimits.objectReservation)
        let again = try #require(bench.login("j"))
        #expect(bench.isDone(bench.submit(again, bench.write(0, 2_048, 2))))
        let later = try #require(bench.moveWork())
        #expect(later.object.rawValue > young.object.rawValue + UInt64(OwnerLimits.objectsReservedAtOnce) - 1)
    }

    @Test("read-fill keeps a copy at the first read, at the second, or never", arguments: ReadFillPolicy.allCases)
    func readFill(_ policy: ReadFillPolicy) throws {
        let bench = try Bench(
            policy: Self.policy {
                $0.cachedBytesMaximum = 0; $0.readFill = policy
            }
        )
        let nexus = try #require(bench.login())
        try Self.inObject(bench, nexus, 2, 3)
        var filled: [Int] = []
        for _ in 0..<3 {
            #expect(bench.read(nexus, 0, 4_096).map { Set($0) } == [3])
            filled.append(bench.store.loadRegion(Bench.volume, BlockRange(first: BlockID(0), count: 2)).items.count)
        }
        switch policy {
        case .never: #expect(filled == [0, 0, 0])
        case .always: #expect(filled == [2, 2, 2])
        case .second: #expect(filled == [0, 2, 2])
        }
        #expect(bench.owner?.fillsInFlight == 0)
    }

    @Test("I8: a read-fill that waits behind zeroing does not bring the old bytes back")
    func fillBehindZero() throws {
        let bench = try Bench(
            policy: Self.policy {
                $0.cachedBytesMaximum = 0; $0.readFill = .always
            }
        )
        let nexus = try #require(bench.login())
        try Self.inObject(bench, nexus, 1, 3)
        bench.holdsLoads = true
        bench.submit(nexus, bench.readOperation(0, 2_048))
        bench.holdsCommits = true
        let zero = bench.submit(nexus, bench.zero((0, 2_048)))
        // The copy arrives while the zeros are on their way.
        let fetch = bench.held.first { if case .fetchSlot = $0 { true } else { false } }
        guard case .fetchSlot(let id, _, _)? = fetch else {
            Issue.record("a copy is fetched")
            return
        }
        bench.core.slotFetched(id, .success(bench.filled(3, 2_048)), now: bench.now)
        bench.run()
        bench.holdsCommits = false
        bench.holdsLoads = false
        bench.releaseHeld()
        #expect(bench.isDone(zero))
        #expect(bench.read(nexus, 0, 2_048).map { Set($0) } == [0])
        if case .zeros = bench.store.content(Bench.volume, BlockID(0)) {} else { Issue.record("old bytes are back") }
        #expect(bench.owner?.fillsInFlight == 0)
    }

    @Test("I10: above the high watermark writes slow down smoothly, and go through")
    func highWatermark() throws {
        let bench = try Bench {
            $0.unmovedHighWatermarkBytes = 20 * 2_048; $0.unmovedHardLimitBytes = 1_020 * 2_048
        }
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 20 * 2_048, 1))))
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 1))))
        func wait() -> UInt64 {
            let begun = bench.now
            let ticket = bench.submit(nexus, bench.write(0, 2_048, 1))
            while bench.answers[ticket] == nil { bench.advance(Bench.millisecond) }
            return bench.now.nanoseconds(since: begun)
        }
        var waits: [UInt64] = []
        for step in 1...4 {
            #expect(!bench.isDone(bench.submit(nexus, bench.write(step * 250 * 2_048, 200 * 2_048, 1))) || step == 1)
            bench.advance(100 * Bench.millisecond)
            waits.append(wait())
        }
        #expect(waits == waits.sorted() && waits[0] > 0 && waits[3] <= 60 * Bench.millisecond, "\(waits)")
        #expect(bench.isDone(bench.submit(nexus, bench.zero((0, 2_048)))), "zeroing makes room and is not slowed down")
    }

    @Test("I10: at the hard limit writes wait for moves, and fail no earlier than at their deadline")
    func hardLimit() throws {
        let bench = try Bench {
            $0.unmovedHighWatermarkBytes = 1 << 30; $0.unmovedHardLimitBytes = 4 * 2_048
        }
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 4 * 2_048, 1))))
        let growing = bench.submit(nexus, bench.write(40_960, 2_048, 2))
        let late = bench.submit(nexus, bench.write(61_440, 2_048, 3), deadline: 1_000)
        bench.advance(900 * Bench.millisecond)
        #expect(bench.answers[growing] == nil && bench.answers[late] == nil)
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 4))), "a rewrite makes nothing more unmoved")
        #expect(bench.read(nexus, 2_048, 2_048)?.first == 1)
        bench.advance(200 * Bench.millisecond)
        #expect(bench.refusal(late) == .deadline && bench.answers[growing] == nil)
        _ = bench.map(bench.put(try #require(bench.moveWork())))
        #expect(bench.isDone(growing))
    }

    @Test(
        "I10: where PostgreSQL runs out of room for its log, writes are slowed down smoothly, then wait, and fail no earlier"
    )
    func logRoom() throws {
        let bench = try Bench {
            $0.logSlowBelowBytes = 1_000; $0.logWaitBelowBytes = 200
        }
        let nexus = try #require(bench.login())
        func wait() -> UInt64 {
            let begun = bench.now
            let ticket = bench.submit(nexus, bench.write(0, 2_048, 1))
            while bench.answers[ticket] == nil { bench.advance(Bench.millisecond) }
            return bench.now.nanoseconds(since: begun)
        }
        #expect(wait() == 0)
        var waits: [UInt64] = []
        for free in [1_000, 900, 600, 400, 200] as [UInt64] {
            bench.core.logRoomMeasured(freeBytes: free, now: bench.now)
            waits.append(wait())
        }
        #expect(waits == waits.sorted() && waits[0] == 0 && waits[1] > 0, "\(waits)")
        #expect(waits[4] >= OwnerLimits.slowdownMaximum && waits[4] <= 2 * OwnerLimits.slowdownMaximum, "\(waits)")
        #expect(bench.alarms.isEmpty)

        bench.core.logRoomMeasured(freeBytes: 199, now: bench.now)
        #expect(bench.read(nexus, 0, 2_048)?.first == 1, "reads need no log")
        let held = bench.submit(nexus, bench.write(0, 2_048, 2))
        let zeros = bench.submit(nexus, bench.zero((4_096, 2_048)))
        let late = bench.submit(nexus, bench.write(8_192, 2_048, 3), deadline: 1_000)
        bench.advance(900 * Bench.millisecond)
        #expect([held, zeros, late].allSatisfy { bench.answers[$0] == nil })
        #expect(bench.alarms.count == 1)
        bench.advance(200 * Bench.millisecond)
        #expect(bench.refusal(late) == .deadline && bench.answers[held] == nil)
        // Where it is not known any more, nothing is held back.
        bench.core.logRoomMeasured(freeBytes: nil, now: bench.now)
        bench.run()
        #expect(bench.isDone(held) && bench.isDone(zeros))
    }

    @Test("I10: at the hard limit a move does not wait behind the write that waits for it")
    func hardLimitAndMap() throws {
        let bench = try Bench {
            $0.unmovedHighWatermarkBytes = 1 << 30; $0.unmovedHardLimitBytes = 4 * 2_048
        }
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 4 * 2_048, 1))))
        let work = try #require(bench.moveWork())
        // It covers a block that is being moved, and new ones.
        let write = bench.submit(nexus, bench.write(3 * 2_048, 4 * 2_048, 2))
        let behind = bench.submit(nexus, bench.write(0, 5 * 2_048, 3))
        #expect(bench.answers[write] == nil && bench.answers[behind] == nil)
        _ = bench.map(bench.put(work))
        #expect(bench.isDone(write) && bench.isDone(behind))
    }

    @Test("I10: the memory image shrinks to its limit and stays right")
    func memoryBound() throws {
        let bench = try Bench(blocks: 16_384) { $0.memoryBytes = 64 << 10 }
        let nexus = try #require(bench.login())
        var generator = SeededGenerator(seed: 5)
        var model = [UInt8](repeating: 0, count: 16_384)
        for step in 0..<600 {
            let block = generator.below(16) * 1_024 + generator.below(12)
            let count = 1 + generator.below(8)
            if generator.chance(50) {
                let byte = UInt8(1 + step % 250)
                #expect(bench.isDone(bench.submit(nexus, bench.write(block * 2_048, count * 2_048, byte))))
                for index in block..<block + count { model[index] = byte }
            } else {
                let bytes = bench.read(nexus, block * 2_048, count * 2_048)
                #expect(bytes == model[block..<block + count].flatMap { [UInt8](repeating: $0, count: 2_048) })
            }
            #expect(bench.core.imageBytes <= 64 << 10)
            if step % 100 == 99 { bench.advance(1_000 * Bench.millisecond) }
        }
        let counted = bench.owner?.image.regions.values.reduce(0) { sum, region in
            sum + OwnerLimits.imageRegionBytes + region.extents.count * OwnerLimits.imageExtentBytes
                + region.items.count * OwnerLimits.imageItemBytes + region.bytesInMemory
        }
        #expect(counted == bench.core.imageBytes)
    }

    @Test("I10: rewriting one block for ever leaves no trail in memory")
    func rewrites() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        for step in 1...10_000 {
            if step % 1_000 == 0 { bench.advance(500 * Bench.millisecond) }
            bench.submit(nexus, bench.write(0, 2_048, UInt8(step % 256)), lowWater: UInt64(step))
        }
        #expect(bench.core.dropQueue.count == 1)
        #expect(bench.core.operations.isEmpty && bench.core.retries.isEmpty)
        #expect(bench.owner?.nexuses.values.allSatisfy { $0.done.count <= 1 && $0.inFlight.isEmpty } == true)
    }

    @Test("a region is not loaded while zeroing passes over it, and its commands go on behind")
    func bulkAndLoads() throws {
        let bench = try Bench(blocks: 8_192)
        let nexus = try #require(bench.login())
        bench.holdsCommits = true
        let zero = bench.submit(nexus, bench.zero((0, 8_000 * 2_048)))
        let other = bench.submit(nexus, bench.readOperation(8_100 * 2_048, 2_048))
        let write = bench.submit(nexus, bench.write(8_050 * 2_048, 2_048, 1))
        let cancelled = bench.submit(nexus, bench.readOperation(8_150 * 2_048, 2_048), command: 100)
        #expect([other, write, cancelled].allSatisfy { bench.answers[$0] == nil })
        #expect(bench.isDone(bench.fence(nexus, below: 101, commands: [100])))
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(bench.isDone(zero) && bench.isDone(write) && bench.bytes(other) != nil)
        #expect(bench.refusal(cancelled) == .aborted)
        #expect(bench.owner?.bulk.isEmpty == true && bench.owner?.blockedByBulk.isEmpty == true)
        #expect(bench.owner?.image.regions.values.allSatisfy { $0.pins == 0 } == true)
    }
}
