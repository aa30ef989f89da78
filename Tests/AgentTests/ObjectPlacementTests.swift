import AshlarCore
import Testing

@testable import Agent
@testable import AgentPlanning

@Suite("Which object server gets an object")
struct ObjectPlacementTests {
    private func servers(_ numbers: ClosedRange<Int32>) -> Set<ObjectServerID> {
        Set(numbers.map { ObjectServerID($0) })
    }

    private func first(_ placement: ObjectPlacement, _ object: UInt64) -> ObjectServerID? {
        placement.order(of: ObjectID(object), connected: Set(placement.servers), now: MonotonicTime(0)).first
    }

    @Test("Objects spread evenly")
    func spread() {
        let placement = ObjectPlacement(servers: servers(1...5))
        var counts: [ObjectServerID: Int] = [:]
        for object in 1...10_000 as ClosedRange<UInt64> {
            if let server = first(placement, object) { counts[server, default: 0] += 1 }
        }
        #expect(counts.count == 5)
        #expect(counts.values.allSatisfy { (1_800...2_200).contains($0) })
    }

    @Test("A server more takes only its own share from the others")
    func growth() {
        let small = ObjectPlacement(servers: servers(1...4))
        let large = ObjectPlacement(servers: servers(1...5))
        var moved = 0
        for object in 1...10_000 as ClosedRange<UInt64> where first(small, object) != first(large, object) {
            #expect(first(large, object) == ObjectServerID(5))
            moved += 1
        }
        #expect((1_800...2_200).contains(moved))
    }

    @Test("Servers that are away, or refused a put lately, come last; never more than a few are tried")
    func preference() throws {
        var placement = ObjectPlacement(servers: servers(1...6))
        let now = MonotonicTime(1_000_000_000)
        let all = placement.order(of: ObjectID(9), connected: servers(1...6), now: now)
        #expect(all.count == AgentLimits.putAttemptsMaximum)
        let best = all[0]
        #expect(
            !placement.order(of: ObjectID(9), connected: servers(1...6).subtracting([best]), now: now).contains(best)
        )
        placement.putFailed(on: best, now: now)
        #expect(!placement.order(of: ObjectID(9), connected: servers(1...6), now: now).contains(best))
        #expect(placement.order(of: ObjectID(9), connected: [best], now: now)[0] == best, "it is the only one there")
        let later = now.advanced(byNanoseconds: AgentLimits.placementRestMilliseconds * 1_000_000)
        #expect(placement.order(of: ObjectID(9), connected: servers(1...6), now: later) == all)
        placement.putSucceeded(on: best)
        #expect(placement.order(of: ObjectID(9), connected: servers(1...6), now: now) == all)
    }
}
