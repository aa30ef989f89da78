import AshlarCore
import AshlarTestSupport
import Testing

@testable import AshlarSimulation
@testable import Ownership

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
        cluster.rest()
        let violations = cluster.violations()
        #expect(violations.isEmpty, "seed \(seed): \(violations.prefix(3)) \(cluster.counters)")
        let left = ClusterTests.remains(cluster)
        #expect(left.isEmpty, "seed \(seed): \(left)")
        #expect(cluster.counters["hand-over", default: 0] > 0, "seed \(seed): \(cluster.counters)")
        let undone = cluster.recover()
        #expect(undone.isEmpty, "seed \(seed): \(undone.count) not done at rest")
    }

    /// Runs a cluster in which nothing goes wrong but `disturb`, six times: no command may fail for that.
    private static func expectNoFailure(
        _ seed: UInt64,
        disturb: (Cluster, Int) -> Void
    ) throws -> Cluster {
        let cluster = try Cluster(seed: seed)
        cluster.start()
        cluster.mood = .healthy
        cluster.run(until: cluster.now + 1_000_000_000)
        let before = cluster.operations.count
        for round in 0..<6 { disturb(cluster, round) }
        cluster.rest()
        let undone = cluster.operations[before...].filter {
            $0.fate != .done && $0.expected == nil && $0.reservation == nil && !$0.isExcused
        }
        #expect(undone.isEmpty, "seed \(seed): \(undone.count) failed, \(cluster.counters)")
        #expect(
            cluster.counters["drop"] == nil && cluster.counters["aborted"] == nil,
            "seed \(seed): \(cluster.counters)"
        )
        #expect(cluster.operations.count - before > 100, "seed \(seed)")
        #expect(cluster.violations().isEmpty, "seed \(seed)")
        return cluster
    }

    @Test("R9: where nothing else goes wrong, a hand-over makes no command fail", arguments: ClusterTests.seeds)
    func withoutError(seed: UInt64) throws {
        let cluster = try Self.expectNoFailure(seed) { cluster, _ in
            cluster.handOver()
            cluster.run(until: cluster.now + UInt64(700 + cluster.generator.below(600)) * 1_000_000)
        }
        #expect(cluster.counters["hand-over", default: 0] >= 5, "seed \(seed): \(cluster.counters)")
    }

    @Test("R9: nor does the end of a cache server, or a connection that breaks", arguments: ClusterTests.seeds)
    func killedWithoutError(seed: UInt64) throws {
        let cluster = try Self.expectNoFailure(seed) { cluster, round in
            if round.isMultiple(of: 2) {
                cluster.servingServer.map { cluster.kill($0) }
            } else {
                for session in cluster.sessions { cluster.breakConnection(session) }
            }
            cluster.run(until: cluster.now + UInt64(5_000 + cluster.generator.below(600)) * 1_000_000)
        }
        #expect(cluster.counters["takeover", default: 0] >= 3, "seed \(seed): \(cluster.counters)")
    }

    private static func runResets(_ seed: UInt64, defect: PlantedDefect? = nil) throws -> Cluster {
        let cluster = try Cluster(seed: seed, defect: defect?.inCluster, storeDefect: defect?.inStore)
        cluster.start()
        cluster.mood = .healthy
        for round in 0..<8 {
            cluster.run(until: cluster.now + 1_000_000_000)
            cluster.handOverWhileLate(isResetFirst: round.isMultiple(of: 2))
            cluster.run(until: cluster.now + 1_500_000_000)
        }
        cluster.run(until: cluster.now + 5_000_000_000)
        return cluster
    }

    @Test("R9: nothing from before a reset happens behind it, whatever is handed over", arguments: ClusterTests.seeds)
    func resets(seed: UInt64) throws {
        let cluster = try Self.runResets(seed)
        let violations = cluster.violations()
        #expect(violations.isEmpty, "seed \(seed): \(violations.prefix(3)) \(cluster.counters)")
        #expect(cluster.counters["reset done", default: 0] >= 4, "seed \(seed): \(cluster.counters)")
        // By their owner, or by the target when it learns of the reset behind the hand-over.
        let aborted = ["failed taskAborted", "aborted"].reduce(0) { $0 + cluster.counters[$1, default: 0] }
        #expect(aborted > 0, "seed \(seed): \(cluster.counters)")
    }

    @Test(
        "what is not remembered of aborts is found out",
        arguments: ["abortsForgotten", "abortsForgottenWithResume"]
    )
    func defects(name: String) throws {
        let defect = try #require(PlantedDefect(name: name))
        let isFound = try (1...ClusterTests.seedsToFind).contains { seed in
            try !Self.runResets(seed, defect: defect).violations().isEmpty
        }
        #expect(isFound, "\(name) was not found within \(ClusterTests.seedsToFind) seeds")
    }
}
