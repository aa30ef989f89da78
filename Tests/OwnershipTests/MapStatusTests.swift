import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

@Suite("GET LBA STATUS")
struct MapStatusTests {
    /// 1 TiB.
    private static let large: UInt64 = 1 << 40

    private func ask(_ bench: Bench, _ nexus: NexusNumber, from first: Int, _ count: UInt64, most: Int = 8) -> Ticket {
        let range = ByteRange(offset: UInt64(first * bench.block), count: count * UInt64(bench.block))
        return bench.submit(nexus, .mapStatus(range, runsMaximum: most))
    }

    private func status(_ bench: Bench, _ first: Int) -> CommandOperation {
        .mapStatus(ByteRange(offset: UInt64((first + 1) * bench.block), count: UInt64(4 * bench.block)), runsMaximum: 8)
    }

    /// The runs as numbers of blocks, negative where unmapped.
    private func runs(_ bench: Bench, _ ticket: Ticket) -> [Int]? {
        guard case .mapped(_, let runs)? = bench.answers[ticket] else { return nil }
        return runs.map { $0.isMapped ? Int($0.blocks.count) : -Int($0.blocks.count) }
    }

    @Test("an empty volume of 1 TiB is one run, and nothing of it comes into memory")
    func emptyVolume() throws {
        let blocks = Self.large / 4_096
        let bench = try Bench(blocks: blocks, blockBytes: 4_096)
        let nexus = try #require(bench.login())
        #expect(runs(bench, ask(bench, nexus, from: 0, blocks, most: 1)) == [-Int(blocks)])
        #expect(bench.isDone(bench.submit(nexus, bench.write(Int(Self.large) - 4_096, 4_096, 1))))
        #expect(runs(bench, ask(bench, nexus, from: 0, blocks)) == [1 - Int(blocks), 1])
        #expect(runs(bench, ask(bench, nexus, from: Int(blocks) - 1, 1)) == [1])
        #expect(bench.owner?.image.regions.count == 1)
    }

    @Test("items and extents are one map, and neighbours one run, over the borders of regions")
    func itemsAndExtents() throws {
        var policy = CachePolicy.standard
        policy.cachedBytesMaximum = 0
        let bench = try Bench(blocks: 4_096, policy: policy)
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(1_020 * 2_048, 8 * 2_048, 1))))
        let work = try #require(bench.moveWork())
        bench.map(bench.put(work))
        bench.evict()
        #expect(bench.isDone(bench.submit(nexus, bench.write(1_028 * 2_048, 2_048, 2))))
        #expect(runs(bench, ask(bench, nexus, from: 0, 4_096)) == [-1_020, 9, -3_067])
        #expect(runs(bench, ask(bench, nexus, from: 1_024, 10)) == [5, -5])
        #expect(bench.isDone(bench.submit(nexus, bench.zero((1_022 * 2_048, 2_048), (1_028 * 2_048, 2_048)))))
        #expect(runs(bench, ask(bench, nexus, from: 1_020, 10)) == [2, -1, 5, -2])
        #expect(runs(bench, ask(bench, nexus, from: 1_020, 10, most: 3)) == [2, -1, 5])
        #expect(runs(bench, ask(bench, nexus, from: 1_020, 10, most: 2)) == [2, -1])
        #expect(runs(bench, ask(bench, nexus, from: 1_020, 10, most: 1)) == [2])
    }

    @Test("a command looks at so many rows and no more, and its answer ends there")
    func bounds() throws {
        var policy = CachePolicy.standard
        policy.cachedBytesMaximum = 0
        let bench = try Bench(policy: policy)
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(2 * 2_048, 10 * 2_048, 1))))
        bench.surveyedRowsMaximum = 4
        #expect(runs(bench, ask(bench, nexus, from: 0, 2_048)) == [-2, 4])
        #expect(runs(bench, ask(bench, nexus, from: 6, 2_042)) == [4])
        #expect(runs(bench, ask(bench, nexus, from: 10, 2_038)) == [2, -2_036])
        let work = try #require(bench.moveWork())
        bench.map(bench.put(work))
        #expect(runs(bench, ask(bench, nexus, from: 0, 2_048)) == [-2, 4])
        bench.evict()
        #expect(runs(bench, ask(bench, nexus, from: 0, 2_048)) == [-2, 10, -2_036])
    }

    @Test("I2: what was answered is told, what is refused meanwhile is not, and nobody waits for the map")
    func order() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        bench.holdsCommits = true
        let write = bench.submit(nexus, bench.write(0, 2_048, 1))
        #expect(runs(bench, ask(bench, nexus, from: 0, 4)) == [-4])
        bench.holdsLoads = true
        let status = ask(bench, nexus, from: 0, 4)
        bench.holdsCommits = false
        bench.release(at: 0)
        #expect(bench.isDone(write))
        #expect(bench.answers[status] == nil)
        // Its block is not kept from others while the store looks.
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 2))))
        bench.releaseHeld()
        #expect(runs(bench, status) == [1, -3])
    }

    @Test("R8: the answer waits for the lease; a takeover refuses it, and what comes late is ignored")
    func lease() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        bench.holdsLoads = true
        let status = ask(bench, nexus, from: 0, 4)
        bench.losesRenewals = true
        bench.advance(UInt64(Limits.leaseMilliseconds) * Bench.millisecond)
        bench.releaseHeld()
        #expect(bench.answers[status] == nil)
        let late = ask(bench, nexus, from: 0, 4)
        bench.core.giveUp(Bench.volume, now: bench.now)
        bench.run()
        #expect(bench.refusal(status) == .notOwner(nil))
        #expect(bench.refusal(late) != nil)
        bench.releaseHeld()
        #expect(bench.answers.count > 0)
    }

    @Test("a survey that fails is made again; one that was aborted is not answered twice")
    func failures() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        bench.holdsLoads = true
        let status = ask(bench, nexus, from: 0, 4)
        guard case .surveyMap(let id, _, _, _)? = bench.held.first else {
            Issue.record("no survey")
            return
        }
        bench.core.mapSurveyed(id, .failure(.refused("planted")), now: bench.now)
        bench.run()
        #expect(bench.answers[status] == nil)
        bench.holdsLoads = false
        bench.advance(2 * OwnerLimits.storeRetry)
        #expect(runs(bench, status) == [-4])
        bench.releaseHeld()

        bench.holdsLoads = true
        let aborted = ask(bench, nexus, from: 0, 4)
        _ = bench.fence(nexus, below: 100)
        #expect(bench.refusal(aborted) == .aborted)
        bench.holdsLoads = false
        bench.releaseHeld()
        #expect(bench.refusal(aborted) == .aborted)
    }

    @Test("the surveys of a volume go one after the other, whatever becomes of each")
    func oneAtATime() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 1))))
        bench.holdsLoads = true
        let tickets = (0..<5).map { bench.submit(nexus, status(bench, $0), command: UInt64(100 + $0)) }
        #expect(bench.held.count == 1)
        #expect(bench.isDone(bench.fence(nexus, below: 200, commands: [100, 102])))
        #expect(bench.refusal(tickets[0]) == .aborted && bench.refusal(tickets[2]) == .aborted)
        #expect(bench.owner?.surveysWaiting.count == 3)
        // The one that was aborted comes back, and the next is asked for.
        bench.release(at: 0)
        #expect(bench.held.count == 1 && bench.answers[tickets[1]] == nil)
        guard case .surveyMap(let id, _, _, _)? = bench.held.first else {
            Issue.record("no survey")
            return
        }
        bench.core.mapSurveyed(id, .failure(.refused("planted")), now: bench.now)
        bench.run()
        #expect(bench.held.count == 2)
        bench.holdsLoads = false
        bench.releaseHeld()
        bench.advance(2 * OwnerLimits.storeRetry)
        for index in [1, 3, 4] { #expect(runs(bench, tickets[index]) == [-4]) }
        #expect(bench.owner?.isSurveying == false && bench.owner?.surveysWaiting.isEmpty == true)
        #expect(bench.owner?.order.isEmpty == true)
    }

    @Test("a survey reaches as far as both of its parts")
    func parts() {
        func run(_ first: UInt64, _ count: UInt64) -> BlockRange { BlockRange(first: BlockID(first), count: count) }
        func survey(_ items: MapSurvey.Part, _ extents: MapSurvey.Part) -> MapSurvey {
            MapSurvey(of: run(10, 90), items: items, extents: extents)
        }
        let none = MapSurvey.Part(runs: [], isComplete: true)
        #expect(survey(none, none).blocks == run(10, 90))
        #expect(survey(none, none).runs(atMost: 4) == [MappedRun(blocks: run(10, 90), isMapped: false)])
        let cut = MapSurvey.Part(runs: [run(12, 3), run(20, 2)], isComplete: false)
        let across = MapSurvey.Part(runs: [run(5, 7), run(21, 100)], isComplete: true)
        #expect(survey(cut, across).blocks == run(10, 12))
        #expect(survey(cut, across).mapped == [run(10, 5), run(20, 2)])
        #expect(survey(across, none).mapped == [run(10, 2), run(21, 79)])
    }
}
