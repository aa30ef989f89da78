import AshlarCore
import AshlarTestSupport
import Foundation
import Testing

@Suite("Owner and nexuses in a seeded cluster")
struct ClusterTests {
    static let seeds: [UInt64] = {
        let environment = ProcessInfo.processInfo.environment
        if let seed = environment["ASHLAR_SEED"].flatMap(UInt64.init) { return [seed] }
        let count = environment["ASHLAR_SEEDS"].flatMap(UInt64.init) ?? 12
        return (1...count).map { $0 }
    }()

    static func run(_ seed: UInt64, seconds: UInt64 = 40) throws -> Cluster {
        let cluster = try Cluster(seed: seed)
        cluster.start()
        let end = cluster.now + seconds * 1_000_000_000
        while cluster.now < end {
            cluster.run(until: cluster.now + 1_500_000_000)
            switch cluster.generator.below(8) {
            case 0: cluster.kill(cluster.generator.below(2))
            case 1: cluster.pause(cluster.generator.below(2), for: UInt64(cluster.generator.below(9_000)) * 1_000_000)
            default: break
            }
        }
        return cluster
    }

    @Test("I1 I2 I3 I4 I5 I8: every read is what some order of the commands explains", arguments: seeds)
    func linearizable(seed: UInt64) throws {
        let cluster = try Self.run(seed)
        let sectors = cluster.blocks * cluster.blockBytes / Cluster.sectorBytes
        let violations = LinearizabilityChecker.violations(cluster.operations, sectors: sectors)
        #expect(violations.isEmpty, "seed \(seed): \(violations.prefix(3)) \(cluster.counters)")
        let done = cluster.operations.filter { $0.ended != nil }.count
        #expect(done > 300, "seed \(seed): only \(done) of \(cluster.operations.count) done, \(cluster.counters)")
        // I8: the store can always tell what a block holds.
        for block in 0..<cluster.blocks { _ = cluster.store.content(Cluster.volume, BlockID(UInt64(block))) }
    }

    @Test("the same seed gives the same history")
    func deterministic() throws {
        #expect(try Self.run(3, seconds: 10).digest == Self.run(3, seconds: 10).digest)
        #expect(try Self.run(3, seconds: 10).digest != Self.run(4, seconds: 10).digest)
    }
}
