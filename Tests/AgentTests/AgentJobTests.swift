import AshlarCore
import NIOCore
import RPC
import Testing
import Transport

@testable import Agent
@testable import AgentPlanning

@Suite("Jobs of an agent", .timeLimit(.minutes(2)))
struct AgentJobTests {
    // MARK: - Move

    @Test("I5, I8: blocks move into an object and read back as they were written")
    func move() async throws {
        try await Bench.run { bench async throws in
            let seeds: [UInt64] = [1, 2, 0, 3]
            bench.cache.write(from: 10, seeds: seeds)
            #expect(await bench.perform(.move) == .worked)
            #expect(bench.cache.unmoved == 0)
            for (index, seed) in seeds.enumerated() {
                #expect(try await bench.readExtent(10 + UInt64(index)) == block(seed: seed))
            }
            #expect(await bench.perform(.move) == .nothing)
            #expect(try await bench.listed() == [ObjectID(1)])
        }
    }

    @Test("I5: a block that is written while it moves stays unmoved, its neighbours do not")
    func staleVersion() async throws {
        try await Bench.run { bench async throws in
            bench.cache.write(from: 10, seeds: [2, 4, 6])
            bench.cache.with { $0.onMoveWork = { state, _, _ in state.write(BlockID(11), block(seed: 8)) } }
            #expect(await bench.perform(.move) == .worked)
            #expect(bench.cache.with { $0.items.filter { !$0.value.isMoved }.map(\.key) } == [BlockID(11)])
            #expect(try await bench.readExtent(11) == nil)
            bench.cache.with { $0.onMoveWork = nil }
            #expect(await bench.perform(.move) == .worked)
            #expect(try await bench.readExtent(11) == block(seed: 8))
        }
    }

    @Test("I11: a cached block that does not match its checksum is left out, and the others move")
    func corruptBlock() async throws {
        try await Bench.run { bench async throws in
            bench.cache.write(from: 10, seeds: [2, 4, 6])
            bench.cache.with { state in
                state.onMoveWork = { _, _, payload in payload.setInteger(UInt8(0xFF), at: 4_096 + 17) }
            }
            #expect(await bench.perform(.move) == .worked)
            #expect(bench.cache.with { $0.items.filter { !$0.value.isMoved }.map(\.key) } == [BlockID(11)])
            #expect(try await bench.readExtent(10) == block(seed: 2))
            #expect(try await bench.readExtent(12) == block(seed: 6))
            bench.cache.with { $0.handedOut = [:] }
            bench.cache.with { state in
                state.onMoveWork = { _, _, payload in payload.setInteger(UInt8(0xFF), at: 17) }
            }
            #expect(await bench.perform(.move) == .failed, "nothing is left to move")
        }
    }

    @Test("Payloads that are too short or too long are no work", arguments: [-1, 1])
    func lyingPayload(difference: Int) async throws {
        try await Bench.run { bench async throws in
            bench.cache.write(from: 10, seeds: [2, 4])
            bench.cache.with { state in
                state.onMoveWork = { _, _, payload in
                    let count = payload.readableBytes + difference
                    payload.writeInteger(UInt8(0))
                    payload = payload.getSlice(at: 0, length: count) ?? ByteBuffer()
                }
            }
            #expect(await bench.perform(.move) == .failed)
            #expect(try await bench.listed().isEmpty)
        }
    }

    @Test("I6: an object whose map was refused is collected, wherever it lies")
    func refusedMap() async throws {
        try await Bench.run(objectServers: 2) { bench async throws in
            bench.cache.write(from: 10, seeds: [2])
            bench.cache.with { $0.refusals[MapMove.type] = .notOwner(current: Epoch(2), owner: "", "fenced") }
            #expect(await bench.perform(.move) == .failed)
            #expect(try await bench.listed(0).count + bench.listed(1).count == 1)
            bench.cache.with { $0.handedOut = [:] }
            #expect(await bench.perform(.collect) == .worked)
            #expect(try await bench.listed(0).count + bench.listed(1).count == 0)
            #expect(bench.cache.with { $0.rows.isEmpty })
            bench.cache.with { $0.refusals = [:] }
            #expect(await bench.perform(.move) == .worked)
            #expect(bench.cache.unmoved == 0)
        }
    }

    @Test("M9: another object under the same key ends the move")
    func keyTaken() async throws {
        try await Bench.run { bench async throws in
            try await bench.putAlien(1, wasHandedOut: false)
            bench.cache.write(from: 10, seeds: [2])
            #expect(await bench.perform(.move) == .failed)
            #expect(bench.cache.unmoved == 1)
            #expect(!bench.cache.with { $0.received.contains(MapMove.type) })
        }
    }

    @Test("Objects go where they can be stored while an object server is away")
    func deadObjectServer() async throws {
        try await Bench.run(deadObjectServers: 3) { bench async throws in
            bench.cache.write(from: 10, seeds: (1...12).map { $0 })
            for _ in 0..<3 { #expect(await bench.perform(.move) == .worked) }
            #expect(bench.cache.unmoved == 0)
            #expect(try await bench.listed().count == 3)
        }
    }

    // MARK: - Evict

    @Test("Eviction goes on while there is more to evict")
    func evict() async throws {
        try await Bench.run { bench async throws in
            bench.cache.with {
                $0.evictions = [
                    CountAnswer(count: 5, left: 2), CountAnswer(count: 2, left: 0), CountAnswer(count: 0, left: 9),
                ]
            }
            #expect(await bench.perform(.evict) == .worked)
            #expect(await bench.perform(.evict) == .nothing)
            #expect(await bench.perform(.evict) == .nothing, "what cannot be evicted is not asked for again and again")
        }
    }

    // MARK: - Compaction

    /// Two objects of four blocks each, of which every second was written anew and moved into a third.
    private func makeSparse(_ bench: Bench) async {
        bench.cache.write(from: 10, seeds: [1, 2, 0, 4, 5, 6, 7, 8])
        for _ in 0..<2 { #expect(await bench.perform(.move) == .worked) }
        for id: UInt64 in [10, 12, 14, 16] { bench.cache.write(from: id, seeds: [100 + id]) }
        #expect(await bench.perform(.move) == .worked)
        bench.cache.with { $0.sparse = [ObjectID(1), ObjectID(2)] }
    }

    @Test("M6, M7: live slots of sparse objects come together in one, and the sources die")
    func compaction() async throws {
        try await Bench.run(objectServers: 2) { bench async throws in
            await makeSparse(bench)
            #expect(await bench.perform(.compact) == .worked)
            let object = ObjectID(4)
            let slots = bench.cache.with { state in
                [11, 13, 15, 17].map { state.extents[BlockID($0)] }
            }
            #expect(slots == (0...3).map { FakeCache.Place(object: object, slot: SlotIndex($0)) })
            for (id, seed) in [(11, 2), (13, 4), (15, 6), (17, 8)] as [(UInt64, UInt64)] {
                #expect(try await bench.readExtent(id) == block(seed: seed))
            }
            #expect(try await bench.readExtent(10) == block(seed: 110))
            #expect(await bench.perform(.compact) == .nothing)
            #expect(await bench.perform(.collect) == .worked)
            #expect(try await (bench.listed(0) + bench.listed(1)).sorted() == [ObjectID(3), object])
            #expect(await bench.perform(.collect) == .nothing)
        }
    }

    @Test("M6: a block that is moved anew during its compaction keeps its new place")
    func staleCompaction() async throws {
        try await Bench.run { bench async throws in
            await makeSparse(bench)
            let elsewhere = FakeCache.Place(object: ObjectID(3), slot: SlotIndex(0))
            bench.cache.with { state in
                state.onCompactionWork = { state, _ in state.extents[BlockID(13)] = elsewhere }
            }
            #expect(await bench.perform(.compact) == .worked)
            #expect(bench.cache.with { $0.extents[BlockID(13)] } == elsewhere)
            #expect(try await bench.readExtent(11) == block(seed: 2))
        }
    }

    @Test("M11: a copy that shares a slot gets one of its own, which says which block and version it is")
    func compactionOfCopy() async throws {
        try await Bench.run { bench async throws in
            await makeSparse(bench)
            let shared = try #require(bench.cache.with { $0.extents[BlockID(13)] })
            bench.cache.with { state in
                state.onCompactionWork = { state, answer in
                    state.extents[BlockID(40)] = shared
                    answer.runs.append(
                        CompactionWork.LiveRun(
                            blocks: BlockRange(first: BlockID(40), count: 1),
                            source: shared.object,
                            server: answer.runs[0].server,
                            firstSlot: shared.slot,
                            copy: BlockCopy(origin: BlockID(13), version: Version(5_000))
                        )
                    )
                }
            }
            #expect(await bench.perform(.compact) == .worked)
            #expect(try await bench.readExtent(40) == block(seed: 4))
            #expect(try await bench.readExtent(13) == block(seed: 4))
            let place = try #require(bench.cache.with { $0.extents[BlockID(40)] })
            #expect(place.object != shared.object)
            let (answer, _) = try await bench.clients[0].call(
                GetSlots(object: place.object, firstSlot: place.slot, count: 1),
                answer: GetSlots.Answer.self,
                deadlineMilliseconds: patience
            )
            #expect(answer.slots.first?.version == Version(5_000))
        }
    }

    @Test(
        "I7, I11: blocks whose source is gone, or holds another block, stay; the others are compacted",
        arguments: [true, false]
    )
    func missingSource(isGone: Bool) async throws {
        try await Bench.run { bench async throws in
            await makeSparse(bench)
            if isGone {
                let delete = DeleteObject(object: ObjectID(2))
                #expect(try await bench.clients[0].call(delete, deadlineMilliseconds: patience).isOK)
            } else {
                bench.cache.with { state in
                    state.onCompactionWork = { _, answer in
                        for index in answer.runs.indices where answer.runs[index].source == ObjectID(2) {
                            answer.runs[index].firstSlot = SlotIndex(answer.runs[index].firstSlot.rawValue - 1)
                        }
                    }
                }
            }
            let before = bench.cache.with { $0.extents }
            #expect(await bench.perform(.compact) == .worked)
            let after = bench.cache.with { $0.extents }
            for block: UInt64 in [11, 13] { #expect(after[BlockID(block)]?.object == ObjectID(4), "block \(block)") }
            for block: UInt64 in [15, 17] { #expect(after[BlockID(block)] == before[BlockID(block)], "block \(block)") }
            let reports = bench.cache.with { $0.reports }
            let finding = try #require(reports.first?.objects.first)
            #expect(reports.count == 1 && finding.object == ObjectID(2))
            #expect(finding.state == (isGone ? .missing : .partlyRead))
        }
    }

    @Test("I11: a damaged slot is neither spread by a compaction, nor does it keep the others back, and it is reported")
    func damagedSource() async throws {
        try await Bench.run { bench async throws in
            await makeSparse(bench)
            // The last slot of object 2 is block 17.
            try bench.damageEnd(of: ObjectID(2))
            let before = bench.cache.with { $0.extents[BlockID(17)] }
            #expect(await bench.perform(.compact) == .worked)
            for (id, seed) in [(11, 2), (13, 4), (15, 6)] as [(UInt64, UInt64)] {
                #expect(try await bench.readExtent(id) == block(seed: seed))
                #expect(bench.cache.with { $0.extents[BlockID(id)]?.object } == ObjectID(4))
            }
            #expect(bench.cache.with { $0.extents[BlockID(17)] } == before)
            let findings = bench.cache.with { $0.reports.flatMap(\.objects) }
            let expected = ReportObjects.Finding(object: ObjectID(2), state: .partlyRead, slots: [SlotIndex(3)])
            #expect(findings == [expected])
            // What is left is damaged only: it is told again, and no object is made of nothing.
            #expect(await bench.perform(.compact) == .worked)
            let received = bench.cache.with { $0.received }
            #expect(received.count { $0 == MapCompaction.type } == 1)
        }
    }

    // MARK: - Scrub

    @Test("I11: a scrub finds damaged slots and missing objects, and calls the others sound")
    func scrub() async throws {
        try await Bench.run { bench async throws in
            bench.cache.write(from: 10, seeds: [1, 2, 4, 6, 8, 10, 12, 14])
            for _ in 0..<2 { #expect(await bench.perform(.move) == .worked) }
            try bench.damageEnd(of: ObjectID(2))
            bench.cache.with { state in
                state.scrubWork =
                    [1, 2, 9].map {
                        ScrubWork.Object(object: ObjectID($0), server: ObjectServerID(1), slots: 4, sizeBytes: 1)
                    } + [ScrubWork.Object(object: ObjectID(3), server: ObjectServerID(77), slots: 4, sizeBytes: 1)]
            }
            #expect(await bench.perform(.scrub) == .worked)
            let report = try #require(bench.cache.with { $0.reports }.first)
            #expect(report.token == 7)
            #expect(
                report.objects == [
                    ReportObjects.Finding(object: ObjectID(1), state: .sound),
                    ReportObjects.Finding(object: ObjectID(2), state: .damaged, slots: [SlotIndex(3)]),
                    ReportObjects.Finding(object: ObjectID(9), state: .missing),
                    ReportObjects.Finding(object: ObjectID(3), state: .unknown),
                ]
            )
            #expect(await bench.perform(.scrub) == .nothing)
            // A cache server of an older release does not know the question.
            bench.cache.with { $0.refusals[ScrubWork.type] = RPCError(.unsupported, "old") }
            #expect(await bench.perform(.scrub) == .nothing)
        }
    }

    // MARK: - Draining

    @Test("A server that is drained gets no new objects, also where there is no other")
    func draining() async throws {
        try await Bench.run(objectServers: 2) { bench async throws in
            bench.cache.with { $0.draining = [ObjectServerID(1)] }
            bench.cache.write(from: 10, seeds: (1...24).map { $0 })
            for _ in 0..<6 { #expect(await bench.perform(.move) == .worked) }
            #expect(try await bench.listed(0).isEmpty)
            #expect(try await bench.listed(1).count == 6)
        }
        try await Bench.run { bench async throws in
            bench.cache.with { $0.draining = [ObjectServerID(1)] }
            bench.cache.write(from: 10, seeds: [1])
            #expect(await bench.perform(.move) == .failed)
            #expect(try await bench.listed().isEmpty)
            #expect(bench.cache.unmoved == 1)
        }
    }

    // MARK: - The age of the database

    @Test(
        "M8: nothing is deleted while an object has an id that the database never handed out",
        arguments: [
            AgentPlanner.Kind.collect, .scan,
        ]
    )
    func databaseBehindObjects(kind: AgentPlanner.Kind) async throws {
        try await Bench.run(objectServers: 2) { bench async throws in
            try await bench.putAlien(40, server: 1, wasHandedOut: false)
            try await bench.putAlien(2, server: 0)
            bench.cache.with { $0.rows[ObjectID(2)] = FakeCache.Row(state: .dead, server: ObjectServerID(1)) }
            for _ in 0..<2 { #expect(await bench.perform(kind) == .failed) }
            #expect(try await bench.listed(0) == [ObjectID(2)])
            #expect(try await bench.listed(1) == [ObjectID(40)])
            let received = bench.cache.with { $0.received }
            #expect(!received.contains(Collect.type) && !received.contains(KnownObjects.type))
            // Once the map is rebuilt, its ids are known.
            bench.cache.with { $0.nextObject = 41 }
            #expect(await bench.perform(.collect) == .worked)
            #expect(try await bench.listed(0).isEmpty)
        }
    }

    @Test("M8: nothing is deleted while an object server knows a later time of the database")
    func databaseBehindClock() async throws {
        try await Bench.run { bench async throws in
            for _ in 0..<3 { #expect(await bench.perform(.collect) == .nothing) }
            try await bench.putAlien(2)
            // The database goes back; a server that is started again remembers.
            bench.cache.with { state in
                #expect(state.clock == 3)
                state.clock = 2
                state.rows[ObjectID(2)] = FakeCache.Row(state: .dead, server: ObjectServerID(1))
            }
            #expect(await bench.perform(.collect) == .failed)
            #expect(await bench.perform(.scan) == .failed)
            #expect(try await bench.listed() == [ObjectID(2)])
            bench.cache.with { $0.clock = 3 }
            #expect(await bench.perform(.collect) == .worked)
            #expect(try await bench.listed().isEmpty)
        }
    }

    @Test("It is said once in a while, not with every try, that the database is older")
    func complaints() {
        var limiter = ComplaintLimiter()
        let period = AgentLimits.complaintMilliseconds * 1_000_000
        let start = MonotonicTime(1)
        let times: [UInt64] = [0, period - 1, period, period + 1]
        let said = times.map { limiter.mayComplain(now: start.advanced(byNanoseconds: $0)) }
        #expect(said == [true, false, true, false])
        limiter.settled()
        let again = limiter.mayComplain(now: start.advanced(byNanoseconds: period + 2))
        #expect(again)
    }

    // MARK: - Collection

    @Test("I6: a row stays while a server that may hold its bytes is away")
    func collectionWithDeadServer() async throws {
        try await Bench.run(deadObjectServers: 1) { bench async throws in
            bench.cache.with { state in
                state.rows[ObjectID(50)] = FakeCache.Row(state: .dead, server: ObjectServerID(1))
                // A server that is not configured, and one that is away: no server means all of them.
                state.rows[ObjectID(51)] = FakeCache.Row(state: .dead, server: ObjectServerID(77))
                state.rows[ObjectID(52)] = FakeCache.Row(state: .dead, server: ObjectServerID(0))
            }
            for id: UInt64 in 50...52 { try await bench.putAlien(id) }
            #expect(await bench.perform(.collect) == .failed)
            #expect(bench.cache.with { Set($0.rows.keys) } == [ObjectID(51), ObjectID(52)])
            #expect(try await bench.listed() == [ObjectID(51)])
        }
    }

    @Test("M8: a scan deletes objects without a row, and no others")
    func scan() async throws {
        try await Bench.run(objectServers: 2) { bench async throws in
            bench.cache.write(from: 10, seeds: (1...12).map { $0 })
            for _ in 0..<3 { #expect(await bench.perform(.move) == .worked) }
            // Every state of a row counts as known.
            try await bench.putAlien(60)
            try await bench.putAlien(61)
            bench.cache.with { state in
                state.rows[ObjectID(60)] = FakeCache.Row(state: .intended)
                state.rows[ObjectID(61)] = FakeCache.Row(state: .dead, server: ObjectServerID(1))
            }
            try await bench.putAlien(70, server: 0)
            try await bench.putAlien(71, server: 1)
            #expect(await bench.perform(.scan) == .worked)
            let left = try await (bench.listed(0) + bench.listed(1)).sorted()
            #expect(left == [1, 2, 3, 60, 61].map { ObjectID($0) })
            #expect(await bench.perform(.scan) == .nothing)
            #expect(try await (bench.listed(0) + bench.listed(1)).count == 5)
        }
    }

    @Test("M8: nothing is deleted where the question fails, or the database knows next to nothing")
    func doubtfulScan() async throws {
        try await Bench.run { bench async throws in
            let count = AgentLimits.scanUnknownMaximum + 1
            for id in 1...count { try await bench.putAlien(UInt64(id)) }
            #expect(await bench.perform(.scan) == .failed)
            #expect(try await bench.listed().count == count)
            bench.cache.with { state in
                for id in 1...count - 1 { state.rows[ObjectID(UInt64(id))] = FakeCache.Row(state: .intended) }
                state.refusals[KnownObjects.type] = RPCError(.inputOutput, "no database")
            }
            #expect(await bench.perform(.scan) == .failed)
            #expect(try await bench.listed().count == count)
            bench.cache.with { $0.refusals = [:] }
            #expect(await bench.perform(.scan) == .worked)
            #expect(try await bench.listed().count == count - 1)
        }
    }
}
