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
            try await bench.putAlien(1)
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

    @Test("I7: a compaction whose source is gone, or holds another block, changes nothing", arguments: [true, false])
    func missingSource(isGone: Bool) async throws {
        try await Bench.run { bench async throws in
            await makeSparse(bench)
            if isGone {
                let delete = DeleteObject(object: ObjectID(2))
                #expect(try await bench.clients[0].call(delete, deadlineMilliseconds: patience).isOK)
            } else {
                bench.cache.with { state in
                    state.onCompactionWork = { _, answer in answer.runs[1].firstSlot = SlotIndex(0) }
                }
            }
            let before = bench.cache.with { $0.extents }
            #expect(await bench.perform(.compact) == .failed)
            #expect(bench.cache.with { $0.extents } == before)
            #expect(!bench.cache.with { $0.received.contains(MapCompaction.type) })
        }
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
