import AshlarCore
import AshlarTestSupport
import Ownership

/// One run of a cluster from a seed: at least so many seconds of virtual time, ``commandsMinimum`` commands and
/// ``faultsMinimum`` faults, then rest and recovery.
package struct Simulation: Sendable {
    /// Fewest seconds of virtual time in which things go wrong.
    package static let secondsMinimum: UInt64 = 60
    /// Fewest commands of initiators.
    package static let commandsMinimum = 2_000
    /// How many times its time a run may last at most, where commands stand still for long and there were too few of them.
    package static let secondsFactorMaximum: UInt64 = 20
    /// Fewest processes that were stopped, paused, or cut off, and disks that failed.
    package static let faultsMinimum = 2

    /// What came of a run.
    package struct Report: Sendable {
        /// The seed.
        package var seed: UInt64
        /// A hash of all that the initiators saw, and when: the same seed gives the same one.
        package var digest: UInt64
        /// What was wrong, as far as the checkers know; empty where all was well.
        package var findings: [String]
        /// Commands that initiators gave.
        package var commands: Int
        /// Seconds of virtual time.
        package var seconds: UInt64
        /// Faults that were injected.
        package var faults: Int
        /// How often things happened, by name.
        package var counters: [String: Int]
    }

    private let seed: UInt64
    private let seconds: UInt64
    private let defect: PlantedDefect?

    /// A run that has not begun.
    ///
    /// - Parameters:
    ///   - seconds: How long things go wrong, in virtual time; raised to ``secondsMinimum``.
    ///   - defect: A rule to leave out.
    package init(seed: UInt64, seconds: UInt64 = secondsMinimum, defect: PlantedDefect? = nil) {
        self.seed = seed
        self.seconds = max(seconds, Self.secondsMinimum)
        self.defect = defect
    }

    /// Runs it to its end, in the thread of the caller.
    package func run() throws -> Report {
        let cluster = try Cluster(seed: seed, defect: defect?.inCluster, storeDefect: defect?.inStore)
        let begin = cluster.now
        run(cluster)
        var findings = cluster.problems
        if findings.isEmpty {
            cluster.rest()
            findings = cluster.violations()
        }
        if findings.isEmpty {
            let before = cluster.operations.count
            let undone = cluster.recover()
            if let first = undone.first {
                let all = cluster.operations.count - before
                let what = "\(first.isRead ? "read" : "change") of \(first.begun), \(first.fate)"
                let why = first.refusal.map { ", \($0)" } ?? ""
                findings.append("\(undone.count) of \(all) commands not done at rest: \(what)\(why)")
            }
            findings += cluster.violations()
        }
        cluster.foldCounters()
        defer { cluster.end() }
        return Report(
            seed: seed,
            digest: cluster.digest,
            findings: findings,
            commands: cluster.operations.count,
            seconds: (cluster.now - begin) / 1_000_000_000,
            faults: cluster.faults,
            counters: cluster.counters
        )
    }

    /// Runs a cluster as long as things go wrong in it, or until something was found.
    func run(_ cluster: Cluster) {
        cluster.start()
        let begin = cluster.now
        let end = begin + seconds * 1_000_000_000
        let last = begin + Self.secondsFactorMaximum * seconds * 1_000_000_000
        while cluster.now < end
            || cluster.now < last
                && (cluster.operations.count < Self.commandsMinimum || cluster.faults < Self.faultsMinimum)
        {
            cluster.run(until: cluster.now + 1_500_000_000)
            cluster.disturb()
            guard cluster.problems.isEmpty else { break }
        }
    }
}

extension Cluster {
    /// Counters of faults.
    private static let faultNames = [
        "kill", "pause", "isolation", "agent: kill", "agent: pause", "object server: pause", "object server: power cut",
        "object server: restart", "target: kill", "disk: full", "disk: sync failed", "disk: write failed",
    ]

    func foldCounters() {
        for (name, count) in counters.sorted(by: { $0.key < $1.key }) {
            for byte in name.utf8 { fold(UInt64(byte)) }
            fold(UInt64(count))
        }
    }

    var faults: Int { Self.faultNames.reduce(0) { $0 + counters[$1, default: 0] } }

    /// Something goes wrong, or not: what happens to processes, beside what happens to sessions and messages.
    func disturb() {
        switch generator.below(40) {
        case 0, 1: kill(generator.below(2))
        case 2, 3: pause(generator.below(2), for: UInt64(generator.below(9_000)) * 1_000_000)
        case 4, 5:
            // R8 shows where a reader is left with an owner that is cut off, while others write through its successor.
            let own = generator.chance(70) ? initiators[0].session?.server : nil
            isolate(own ?? generator.below(2), for: UInt64(4_000 + generator.below(8_000)) * 1_000_000)
        case 6: kill(agents[generator.below(agents.count)])
        case 7:
            count("agent: pause")
            agents[generator.below(agents.count)].pausedUntil = now + UInt64(generator.below(12_000)) * 1_000_000
        case 8: stop(nodes[generator.below(nodes.count)], isMachine: generator.chance(70))
        case 9:
            count("object server: pause")
            nodes[generator.below(nodes.count)].pausedUntil = now + UInt64(generator.below(6_000)) * 1_000_000
        case 10, 11: changePorts()
        case 12, 13: resetWhileLate()
        case 14, 15: resize()
        case 16, 17: handOver()
        case 18: handOverWhileLate(isResetFirst: generator.chance(50))
        default: break
        }
    }

    /// An administrator makes the volume larger or smaller. What is cut off is zeros when it comes back. The servers hear of it
    /// when they look.
    private func resize() {
        guard var description = store.description(of: Self.volume) else { return }
        let regions = UInt64(Self.tail + generator.below(3))
        let block = description.geometry.blockSizeBytes
        let size = regions * Limits.regionBlocks * UInt64(block)
        guard size != description.geometry.sizeBytes,
            let geometry = try? Geometry(sizeBytes: size, blockSizeBytes: block)
        else { return }
        count(size > description.geometry.sizeBytes ? "grown" : "shrunk")
        if regions == Self.tail { cutTail() }
        description.geometry = geometry
        description.revision += 1
        store.describe(description)
        for index in servers.indices { tell(index) }
    }

    /// What lies in the tail becomes zeros: at the latest when the volume is taken over. The epoch that the shrink ended commits
    /// nothing more, but reads go on in it until its owner hears of that.
    private func cutTail() {
        let first = (0..<sectors).first { isCut($0) } ?? sectors
        var cut = ClusterOperation(isRead: false, firstSector: first, count: sectors - first, values: [], begun: now)
        cut.values = Array(repeating: 0, count: cut.count)
        cut.fate = .done
        cuts.append(operations.count)
        operations.append(cut)
    }

    /// Whether a sector is not there while the volume is smallest.
    private func isCut(_ sector: Int) -> Bool {
        offset(ofSector: sector) >= UInt64(Self.tail) * Limits.regionBlocks * UInt64(blockBytes)
    }

    func endCuts() {
        for cut in cuts { operations[cut].latest = now }
        cuts = []
    }

    private func tell(_ index: Int) {
        let generation = servers[index].generation
        after(UInt64(generator.below(3_000)) * 1_000_000) { [self] in
            guard let description = store.description(of: Self.volume) else { return }
            toServer(index, generation) { $0.core.describe(description, now: MonotonicTime(self.now)) }
        }
    }

    /// An initiator goes to another port while what it sent last is late.
    private func changePorts() {
        guard let session = initiators[generator.below(initiators.count)].session else { return }
        goToOtherPort(session, isTargetSlow: true, isSlowOnce: generator.chance(50))
    }

    /// An initiator resets the unit while what another one sent is late.
    private func resetWhileLate() {
        let first = generator.below(initiators.count)
        guard let late = initiators[first].session,
            let own = initiators[(first + 1) % initiators.count].session
        else { return }
        late.extraDelay = 1_000_000_000
        for _ in 0..<4 { issue(late) }
        after(100_000_000) { [self] in
            if !own.isEnded { reset(own) }
            after(1_500_000_000) { late.extraDelay = 0 }
        }
    }

    /// Lets the cluster come to rest: nothing goes wrong any more, and initiators begin nothing.
    func rest() {
        mood = .still
        run(until: now + 28_000_000_000)
    }

    /// Nothing goes wrong for some seconds; returns what was not done though nothing stood in its way.
    func recover() -> [ClusterOperation] {
        // First each session finds out what became of its nexus.
        mood = .healthy
        run(until: now + 500_000_000)
        rest()
        let before = operations.count
        mood = .healthy
        run(until: now + 2_000_000_000)
        rest()
        return operations[before...].filter {
            $0.fate != .done && $0.expected == nil && $0.reservation == nil && !$0.isReset && !$0.isExcused
        }
    }
}
