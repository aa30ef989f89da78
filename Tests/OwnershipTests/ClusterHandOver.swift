import AshlarCore
import AshlarTestSupport
import Foundation
import NIOCore
import Testing

@testable import Ownership

// Planned hand-overs in the seeded cluster (R9).
extension Cluster {
    /// The server that serves the volume now, as far as it knows.
    var servingServer: Int? {
        servers.indices.first { servers[$0].core.currentStamp(of: Self.volume, now: MonotonicTime(now)) != nil }
    }

    /// Has the server that serves the volume hand it over to the other one.
    func handOver() {
        guard let index = servingServer else { return }
        let other = servers.count - 1 - index
        guard let successor = servers[other].core.registration else { return }
        let endpoint = servers[other].endpoint
        onServer(index) { [self] server in
            let now = MonotonicTime(self.now)
            if server.core.handOver(Self.volume, to: successor, endpoint: endpoint, now: now) { count("hand-over") }
        }
    }

    /// Runs what the core asks of the store to give a volume up.
    func relinquish(_ action: OwnerAction, at index: Int, _ generation: Int) {
        guard case .relinquish(let id, let volume, let epoch, let server, let successor) = action else { return }
        if defect == .abortsForgottenWithHandOver {
            for nexus in servers[index].core.owned(volume)?.nexuses.values.map({ $0 }) ?? [] {
                nexus.abortedAt = nil
                nexus.kept = [:]
            }
        }
        ask(
            index,
            generation,
            { $0.relinquish(volume, epoch, from: server, to: successor, now: MonotonicTime(self.now)) },
            { $0.volumeRelinquished(id, $1, now: $2) }
        )
    }

    /// A planted defect: a nexus that is resumed does not know that it was aborted before.
    func forgetAborts(of nexus: NexusNumber, in core: borrowing CacheOwner) {
        guard defect == .abortsForgottenWithResume, let nexus = core.owned(Self.volume)?.nexuses[nexus] else { return }
        if nexus.state == .unresumed { nexus.abortedAt = nil }
    }
}

@Suite("Hand-overs in a seeded cluster")
struct ClusterHandOverTests {
    /// Everything goes wrong now and then, and volumes are handed over all the while.
    private static func runRough(_ seed: UInt64, seconds: UInt64) throws -> Cluster {
        let cluster = try Cluster(seed: seed)
        cluster.start()
        let end = cluster.now + seconds * 1_000_000_000
        while cluster.now < end {
            cluster.run(until: cluster.now + UInt64(200 + cluster.generator.below(1_200)) * 1_000_000)
            switch cluster.generator.below(12) {
            case 0: cluster.kill(cluster.generator.below(2))
            case 1: cluster.pause(cluster.generator.below(2), for: UInt64(cluster.generator.below(5_000)) * 1_000_000)
            default: cluster.handOver()
            }
        }
        return cluster
    }

    @Test(
        "R9: with hand-overs, every read is what some order of whole commands explains",
        arguments: ClusterTests.seeds
    )
    func linearizable(seed: UInt64) throws {
        let cluster = try Self.runRough(seed, seconds: 20)
        ClusterTests.rest(cluster)
        let violations = ClusterTests.violations(cluster)
        #expect(violations.isEmpty, "seed \(seed): \(violations.prefix(3)) \(cluster.counters)")
        let left = ClusterTests.remains(cluster)
        #expect(left.isEmpty, "seed \(seed): \(left)")
        #expect(cluster.counters["hand-over", default: 0] > 0, "seed \(seed): \(cluster.counters)")
        let undone = ClusterTests.recover(cluster)
        #expect(undone.isEmpty, "seed \(seed): \(undone.count) not done at rest")
    }

    @Test("R9: where nothing else goes wrong, a hand-over makes no command fail", arguments: ClusterTests.seeds)
    func withoutError(seed: UInt64) throws {
        let cluster = try Cluster(seed: seed)
        cluster.start()
        cluster.mood = .healthy
        cluster.run(until: cluster.now + 1_000_000_000)
        let before = cluster.operations.count
        for _ in 0..<6 {
            cluster.handOver()
            cluster.run(until: cluster.now + UInt64(700 + cluster.generator.below(600)) * 1_000_000)
        }
        ClusterTests.rest(cluster)
        let undone = cluster.operations[before...].filter {
            $0.fate != .done && $0.expected == nil && $0.reservation == nil && !$0.isExcused
        }
        #expect(undone.isEmpty, "seed \(seed): \(undone.count) failed, \(cluster.counters)")
        #expect(
            cluster.counters["drop"] == nil && cluster.counters["aborted"] == nil,
            "seed \(seed): \(cluster.counters)"
        )
        #expect(cluster.counters["hand-over", default: 0] >= 5, "seed \(seed): \(cluster.counters)")
        #expect(cluster.operations.count - before > 100, "seed \(seed)")
        #expect(ClusterTests.violations(cluster).isEmpty, "seed \(seed)")
    }

    /// What was on its way when another initiator reset the unit is late, and the volume is handed over: behind the reset, or
    /// before it.
    static func runResets(_ seed: UInt64, defect: Cluster.Defect?) throws -> Cluster {
        let cluster = try Cluster(seed: seed, defect: defect)
        cluster.start()
        cluster.mood = .healthy
        for round in 0..<8 {
            cluster.run(until: cluster.now + 1_000_000_000)
            guard let late = cluster.initiators[round % 3].session,
                let own = cluster.initiators[(round + 1) % 3].session
            else { continue }
            let isResetFirst = round.isMultiple(of: 2)
            // It comes to the old owner before its target knows that there is a new one.
            late.extraDelay = isResetFirst ? 60_000_000 : 150_000_000
            for _ in 0..<6 { cluster.issue(late) }
            late.extraDelay = 0
            cluster.run(until: cluster.now + 1_000_000)
            if isResetFirst { cluster.reset(own) } else { cluster.handOver() }
            cluster.run(until: cluster.now + (isResetFirst ? 25_000_000 : 1_000_000))
            if isResetFirst { cluster.handOver() } else { cluster.reset(own) }
            cluster.run(until: cluster.now + 1_500_000_000)
        }
        cluster.run(until: cluster.now + 5_000_000_000)
        return cluster
    }

    @Test("R9: nothing from before a reset happens behind it, whatever is handed over", arguments: ClusterTests.seeds)
    func resets(seed: UInt64) throws {
        let cluster = try Self.runResets(seed, defect: nil)
        let violations = ClusterTests.violations(cluster)
        #expect(violations.isEmpty, "seed \(seed): \(violations.prefix(3)) \(cluster.counters)")
        #expect(cluster.counters["reset done", default: 0] >= 4, "seed \(seed): \(cluster.counters)")
        #expect(cluster.counters["failed taskAborted", default: 0] > 0, "seed \(seed): \(cluster.counters)")
    }
}
