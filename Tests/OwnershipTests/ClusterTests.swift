import AshlarCore
import AshlarTestSupport
import Foundation
import NIOCore
import Testing

@testable import AshlarSimulation
@testable import Ownership

@Suite("Owner and nexuses in a seeded cluster")
struct ClusterTests {
    /// Seeds from the environment: ASHLAR_SEED for one, ASHLAR_SEEDS for so many from 1 on; else some that are always the same, and
    /// some that never were: a finding of one of these is a new one, and its seed is printed with it.
    static let seeds: [UInt64] = {
        let environment = ProcessInfo.processInfo.environment
        if let seed = environment["ASHLAR_SEED"].flatMap(UInt64.init) { return [seed] }
        if let count = environment["ASHLAR_SEEDS"].flatMap(UInt64.init) { return (1...max(count, 1)).map { $0 } }
        let fresh = (0..<2).map { _ in UInt64.random(in: 1_000_000 ... .max) }
        print("fresh seeds: \(fresh)")
        return (1...6).map { $0 } + fresh
    }()

    @Test(
        "I1 to I8, I12: every read is what some order of whole commands explains, and the map is right",
        arguments: seeds
    )
    func linearizable(seed: UInt64) throws {
        let cluster = try Cluster(seed: seed)
        Simulation(seed: seed).run(cluster)
        cluster.rest()
        let violations = cluster.violations()
        #expect(violations.isEmpty, "seed \(seed): \(violations.prefix(3)) \(cluster.counters)")
        #expect(cluster.operations.count >= Simulation.commandsMinimum, "seed \(seed)")
        #expect(cluster.faults >= Simulation.faultsMinimum, "seed \(seed)")
        let done = cluster.operations.filter { $0.fate == .done }.count
        #expect(done * 3 > cluster.operations.count, "seed \(seed): only \(done) of \(cluster.operations.count) done")
        let left = Self.remains(cluster)
        #expect(left.isEmpty, "seed \(seed): \(left)")
        let before = cluster.operations.count
        let undone = cluster.recover()
        #expect(
            undone.isEmpty,
            "seed \(seed): \(undone.count) of \(cluster.operations.count - before) not done at rest"
        )
        #expect(cluster.operations.count > before, "seed \(seed): \(cluster.counters)")
        #expect(cluster.violations().isEmpty, "seed \(seed), after recovery")
    }

    // MARK: The harness can fail

    /// Seeds up to which a planted defect of ``quick`` must be found: each finds it by a chance of one in three or more.
    static let seedsToFind: UInt64 = 60

    /// Rules whose absence most seeds find; the others take more, see `scripts/simulate --defects`.
    static let quick = [
        "overtakenMapped", "throughIgnoresVersion", "knownPlacesTrusted",
        "resentUnderNewNumbers", "epochsRewritten", "abortedTooSoon",
        "portsTooSoon",
        "halfCommitted",
        "commitForgotten",
        "lockLeftOut", "registrationsForgotten", "putsUnsynced", "noEpochGuard", "moveIgnoresVersion",
        "compactionIgnoresExtent", "evictionIgnoresVersion", "marksForgotten", "versionsStartAgain",
        "zeroLeavesExtents",
        "referencedCollected", "copyKeepsItems", "copiesNotCounted", "reservationsIgnored", "idsReused",
    ]

    @Test("a rule that is left out is found out by the checkers of all seeds", arguments: quick)
    func defects(name: String) throws {
        let defect = try #require(PlantedDefect(name: name))
        let isFound = try (1...Self.seedsToFind).contains { seed in
            try !Simulation(seed: seed, defect: defect).run().findings.isEmpty
        }
        #expect(isFound, "\(name) was not found within \(Self.seedsToFind) seeds")
    }

    @Test("the rules that can be left out have names of their own")
    func names() {
        let names = PlantedDefect.allCases.map(\.name)
        #expect(Set(names).count == names.count)
        #expect(PlantedDefect.allCases.allSatisfy { PlantedDefect(name: $0.name) == $0 })
        #expect(Self.quick.allSatisfy { names.contains($0) })
    }

    /// What a cluster at rest must not hold any more, and where memory and tables differ.
    static func remains(_ cluster: Cluster) -> [String] {
        var result: [String] = []
        for session in cluster.sessions where session.client.outstandingCount > 0 {
            result.append("\(session.client.outstandingCount) commands without an answer")
        }
        if cluster.counters["answered twice"] != nil { result.append("a request was answered twice") }
        for server in cluster.servers {
            if !server.tickets.isEmpty {
                result.append("\(server.endpoint): \(server.tickets.count) requests unanswered")
            }
            if !server.core.ready.isEmpty || !server.core.parkedReads.isEmpty || !server.core.toBegin.isEmpty {
                result.append("\(server.endpoint): commands that nobody goes on with")
            }
            if server.core.commitsInFlight != 0 { result.append("\(server.endpoint): commits in flight") }
            var imageBytes = 0
            for volume in server.core.ownedVolumes {
                imageBytes += volume.imageBytes
                result += remains(volume, cluster)
            }
            if imageBytes != server.core.imageBytes { result.append("\(server.endpoint): image bytes are miscounted") }
        }
        return result
    }

    private static func remains(_ volume: VolumeOwner, _ cluster: Cluster) -> [String] {
        var result: [String] = []
        if !volume.order.isEmpty { result.append("commands in the order: \(volume.order.active.map(\.phase))") }
        if volume.unitChange != nil || !volume.heldByChange.isEmpty || !volume.lingering.isEmpty {
            result.append("a change of the unit's state is stuck")
        }
        if !volume.bulk.isEmpty || !volume.blockedByBulk.isEmpty { result.append("bulk commands are stuck") }
        if volume.fillsInFlight != 0 { result.append("\(volume.fillsInFlight) read-fills in flight") }
        for nexus in volume.nexuses.values where !nexus.inFlight.isEmpty {
            result.append("a nexus has commands in flight")
        }
        var bytes = 0
        for (index, region) in volume.image.regions {
            if region.pins != 0 || !region.waiters.isEmpty { result.append("region \(index) is pinned or waited for") }
            bytes += OwnerLimits.imageRegionBytes + region.extents.count * OwnerLimits.imageExtentBytes
            bytes +=
                region.items.count * OwnerLimits.imageItemBytes
                + region.items.values.count(where: \.isInMemory) * Int(volume.blockBytes)
        }
        if bytes != volume.imageBytes { result.append("image of \(bytes) bytes is counted as \(volume.imageBytes)") }
        guard cluster.store.state(of: volume.id)?.epoch == volume.epoch else { return result }
        if volume.unit != cluster.store.unit(of: volume.id) {
            result.append("the unit's state differs from the table's")
        }
        for (index, region) in volume.image.regions where !region.isLoading {
            let rows = cluster.store.loadRegion(volume.id, MemoryImage.regionRange(index))
            let known = region.items.sorted { $0.key < $1.key }.map {
                ItemRow(
                    block: $0.key,
                    version: $0.value.version,
                    checksum: $0.value.checksum,
                    isMoved: $0.value.isMoved
                )
            }
            if known != rows.items { result.append("region \(index): items differ from the table's") }
            if region.extents != ExtentList(rows.extents) { result.append("region \(index): extents differ") }
            for (block, item) in region.items {
                guard item.isInMemory else { continue }
                if volume.image.slab.bytes(at: item.place).testChecksum != item.checksum {
                    result.append("block \(block) is damaged in memory")
                }
            }
        }
        return result
    }

    @Test("the same seed gives the same history")
    func deterministic() throws {
        let first = try Simulation(seed: 3).run()
        let second = try Simulation(seed: 3).run()
        #expect(second.digest == first.digest && second.counters == first.counters)
        #expect(try Simulation(seed: 4).run().digest != first.digest)
        #expect(first.seconds >= Simulation.secondsMinimum)
    }
}
