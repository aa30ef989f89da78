import AshlarCore
import AshlarTestSupport
import Foundation
import NIOCore
import Testing

@testable import Ownership

@Suite("Owner and nexuses in a seeded cluster")
struct ClusterTests {
    /// Seeds from the environment: ASHLAR_SEED for one, ASHLAR_SEEDS for so many from 1 on.
    static let seeds: [UInt64] = {
        let environment = ProcessInfo.processInfo.environment
        if let seed = environment["ASHLAR_SEED"].flatMap(UInt64.init) { return [seed] }
        let count = environment["ASHLAR_SEEDS"].flatMap(UInt64.init) ?? 10
        return (1...max(count, 1)).map { $0 }
    }()

    static func run(
        _ seed: UInt64,
        seconds: UInt64 = 40,
        defect: Cluster.Defect? = nil,
        storeDefect: ModelStore.Defect? = nil
    ) throws -> Cluster {
        let cluster = try Cluster(seed: seed, defect: defect, storeDefect: storeDefect)
        cluster.start()
        let end = cluster.now + seconds * 1_000_000_000
        while cluster.now < end {
            cluster.run(until: cluster.now + 1_500_000_000)
            switch cluster.generator.below(8) {
            case 0: cluster.kill(cluster.generator.below(2))
            case 2:
                cluster.isolate(
                    cluster.generator.below(2),
                    for: UInt64(4_000 + cluster.generator.below(10_000)) * 1_000_000
                )
            case 1: cluster.pause(cluster.generator.below(2), for: UInt64(cluster.generator.below(9_000)) * 1_000_000)
            default: break
            }
        }
        return cluster
    }

    /// Lets a cluster come to rest: nothing goes wrong any more, and initiators begin nothing.
    static func rest(_ cluster: Cluster) {
        cluster.mood = .still
        cluster.run(until: cluster.now + 28_000_000_000)
    }

    /// Nothing goes wrong for some seconds; returns what was not done though nothing stood in its way.
    static func recover(_ cluster: Cluster) -> [ClusterOperation] {
        // First each session finds out what became of its nexus.
        cluster.mood = .healthy
        cluster.run(until: cluster.now + 500_000_000)
        rest(cluster)
        let before = cluster.operations.count
        cluster.mood = .healthy
        cluster.run(until: cluster.now + 2_000_000_000)
        rest(cluster)
        return cluster.operations[before...].filter {
            $0.fate != .done && $0.expected == nil && $0.reservation == nil && !$0.isReset && !$0.isExcused
        }
    }

    /// All that is wrong with a history, by the one checker that knows nothing of what was planted.
    static func violations(_ cluster: Cluster) -> [String] {
        var result = cluster.store.violations
        // I8: the last read of all, from the tables alone.
        var values: [UInt64] = []
        for sector in 0..<Cluster.sectors {
            let offset = cluster.offset(ofSector: sector)
            let block = BlockID(offset / UInt64(cluster.blockBytes))
            switch cluster.store.content(Cluster.volume, block) {
            case .zeros: values.append(0)
            case .bytes(let bytes):
                values.append(bytes.getInteger(at: Int(offset) % cluster.blockBytes) ?? .max)
            case .lost(let object):
                result.append("I8: block \(block) is in object \(object), which is gone")
                values.append(.max)
            }
        }
        let last = ClusterOperation(
            isRead: true,
            firstSector: 0,
            count: Cluster.sectors,
            values: values,
            begun: cluster.now,
            latest: cluster.now,
            fate: .done
        )
        if cluster.counters["damaged read"] != nil { result.append("I11: a damaged block was returned") }
        if cluster.counters["slot of another block"] != nil { result.append("M11: a slot holds another block") }
        var operations = cluster.operations.filter { !$0.isReset } + [last] + copies(cluster, &result)
        result += ReservationChecker.violations(&operations)
        operations.removeAll { $0.reservation != nil || $0.isOfCopy && !$0.isRead }
        return result + LinearizabilityChecker.violations(operations, sectors: Cluster.sectors)
    }

    /// What the tables say of the places for copies, as reads of what was copied at the time when it was.
    private static func copies(_ cluster: Cluster, _ problems: inout [String]) -> [ClusterOperation] {
        cluster.initiators.compactMap { initiator in
            guard let index = initiator.copy, cluster.operations[index].fate == .done else { return nil }
            var read = cluster.operations[index]
            read.isRead = true
            read.values = []
            let first = Cluster.placeOfCopies(initiator.index)
            for block in 0..<UInt64(read.count / Cluster.sectorsInBlock) {
                switch cluster.store.content(Cluster.volume, BlockID(first + block)) {
                case .zeros: read.values += [UInt64](repeating: 0, count: Cluster.sectorsInBlock)
                case .bytes(let bytes):
                    read.values += (0..<Cluster.sectorsInBlock).map {
                        bytes.getInteger(at: $0 * Cluster.sectorBytes) ?? .max
                    }
                case .lost(let object):
                    problems.append("I8: block \(first + block) is in object \(object), which is gone")
                    return nil
                }
            }
            return read
        }
    }

    @Test("I1 I2 I3 I4 I5 I8 I12: every read is what some order of whole commands explains", arguments: seeds)
    func linearizable(seed: UInt64) throws {
        let cluster = try Self.run(seed)
        Self.rest(cluster)
        let violations = Self.violations(cluster)
        #expect(violations.isEmpty, "seed \(seed): \(violations.prefix(3)) \(cluster.counters)")
        let done = cluster.operations.filter { $0.fate == .done }.count
        #expect(
            done > 20,
            "seed \(seed): only \(done) of \(cluster.operations.count) done, \(cluster.counters.sorted { $0.key < $1.key })"
        )
        let left = Self.remains(cluster)
        #expect(left.isEmpty, "seed \(seed): \(left)")
        let before = cluster.operations.count
        let undone = Self.recover(cluster)
        #expect(
            undone.isEmpty,
            "seed \(seed): \(undone.count) of \(cluster.operations.count - before) not done at rest"
        )
        #expect(cluster.operations.count - before > 100, "seed \(seed): \(cluster.counters)")
        #expect(Self.violations(cluster).isEmpty, "seed \(seed), after recovery")
    }

    // MARK: The harness can fail

    /// Seeds up to which a planted defect must be found.
    static let seedsToFind: UInt64 = 40

    @Test("a store with a planted defect is found out", arguments: ModelStore.Defect.allCases)
    func storeDefect(_ defect: ModelStore.Defect) throws {
        try Self.find("\(defect)") { try Self.run($0, seconds: 25, storeDefect: defect) }
    }

    @Test("a cluster with a planted defect is found out", arguments: Cluster.Defect.allCases)
    func clusterDefect(_ defect: Cluster.Defect) throws {
        try Self.find("\(defect)") { seed in
            switch defect {
            case .leaseOverrated: try Self.runIsolations(seed, defect: defect)
            case .transitForgotten: try Self.runResets(seed, defect: defect)
            case .abortsForgottenWithHandOver, .abortsForgottenWithResume:
                try ClusterHandOverTests.runResets(seed, defect: defect)
            case .proofsNeverAge, .proofsWithoutInitiator, .epochsRewritten: try Self.runPorts(seed, defect: defect)
            case .halfCommitted, .commitForgotten, .registrationsForgotten:
                try Self.run(seed, seconds: 25, defect: defect)
            }
        }
    }

    /// R1 and R5 show where initiators go to other ports while what they sent last is late.
    private static func runPorts(_ seed: UInt64, defect: Cluster.Defect) throws -> Cluster {
        let cluster = try Cluster(seed: seed, defect: defect)
        cluster.start()
        cluster.mood = .healthy
        for round in 0..<4 {
            cluster.run(until: cluster.now + 1_000_000_000)
            if let session = cluster.initiators[round % 3].session {
                cluster.goToOtherPort(session, isTargetSlow: true, isSlowOnce: true)
            }
            cluster.run(until: cluster.now + 2_000_000_000)
        }
        cluster.run(until: cluster.now + 10_000_000_000)
        return cluster
    }

    /// R6 shows where an initiator resets the unit while what another sent is late, and goes on.
    private static func runResets(_ seed: UInt64, defect: Cluster.Defect?) throws -> Cluster {
        let cluster = try Cluster(seed: seed, defect: defect)
        cluster.start()
        cluster.mood = .healthy
        for round in 0..<8 {
            cluster.run(until: cluster.now + 1_000_000_000)
            guard let late = cluster.initiators[round % 3].session,
                let own = cluster.initiators[(round + 1) % 3].session
            else { continue }
            late.extraDelay = 1_000_000_000
            for _ in 0..<6 { cluster.issue(late) }
            cluster.run(until: cluster.now + 100_000_000)
            cluster.reset(own)
            cluster.run(until: cluster.now + 1_500_000_000)
            late.extraDelay = 0
        }
        cluster.run(until: cluster.now + 5_000_000_000)
        return cluster
    }

    @Test("R6: nothing from before a reset happens behind it", arguments: seeds)
    func resets(seed: UInt64) throws {
        let cluster = try Self.runResets(seed, defect: nil)
        #expect(Self.violations(cluster).isEmpty, "seed \(seed)")
        #expect(cluster.counters["reset done", default: 0] >= 4)
        #expect(cluster.counters["failed taskAborted", default: 0] > 0)
    }

    /// R8 shows where a server is cut off from the store while it has a reader, and others write through its successor.
    private static func runIsolations(_ seed: UInt64, defect: Cluster.Defect) throws -> Cluster {
        let cluster = try Cluster(seed: seed, defect: defect)
        cluster.start()
        for _ in 0..<2 {
            cluster.mood = .healthy
            cluster.run(until: cluster.now + 1_000_000_000)
            if let index = cluster.initiators[0].session?.server { cluster.isolate(index, for: 12_000_000_000) }
            cluster.run(until: cluster.now + 13_000_000_000)
        }
        return cluster
    }

    private static func find(_ name: String, _ run: (UInt64) throws -> Cluster) throws {
        for seed in 1...seedsToFind {
            let cluster = try run(seed)
            guard violations(cluster).isEmpty else { return }
        }
        Issue.record("\(name) was not found within \(seedsToFind) seeds")
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
            bytes += OwnerLimits.imageRegionBytes + region.extentBytes
            for item in region.items.values { bytes += OwnerLimits.imageItemBytes + (item.bytes?.readableBytes ?? 0) }
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
                guard let bytes = item.bytes else { continue }
                if bytes.testChecksum != item.checksum { result.append("block \(block) is damaged in memory") }
            }
        }
        return result
    }

    @Test("the same seed gives the same history")
    func deterministic() throws {
        let first = try Self.run(3, seconds: 8)
        #expect(try Self.run(3, seconds: 8).digest == first.digest)
        #expect(try Self.run(4, seconds: 8).digest != first.digest)
        if ProcessInfo.processInfo.environment["ASHLAR_SEED"] != nil { print("digest of seed 3: \(first.digest)") }
    }
}
