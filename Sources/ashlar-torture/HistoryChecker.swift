/// Checks a history of reads and writes with unique numbers.
///
/// Each sector by itself must behave as an atomic register: some order of all operations on it, in which each lies between its
/// begin and its end, explains every read. With unique numbers that can be decided from each number's *zone*, the time from the
/// first end to the last begin of the write and the reads of that number (Gibbons and Korach, "Testing shared memories", SIAM
/// Journal on Computing 26, 1997): a lost write, a stale read and a value that comes back all show as zones that overlap.
///
/// Commands are checked as wholes besides (I12): a read that has something of a write must not show, where that write has
/// written too, what was there before it.
///
/// What a task management function has aborted has taken effect when that is answered, or never (R6). MEDIUM ERROR may only be
/// where the nemesis has damaged an object, and a command that ends with it has done nothing (I11).
struct HistoryChecker {
    /// What cannot be explained.
    struct Finding: Equatable {
        var lba: UInt64
        var description: String
    }

    /// Findings after which nothing more is looked for.
    static let findingsMaximum = 50

    /// Everything of one number in one sector.
    private struct Cluster {
        var writeBegin: UInt64
        var writeEnd: UInt64
        /// Whether it surely took effect: it was acknowledged, or read.
        var isCertain: Bool
        /// The earliest end.
        var firstEnd: UInt64
        /// The latest begin.
        var lastBegin: UInt64
        var hasReads = false
    }

    private struct Zone {
        var from: UInt64
        var to: UInt64
        var number: UInt64
    }

    let history: History
    private let damaged: DamagedBlocks
    private var findings: [Finding] = []
    /// Where in the history the write with a number is.
    private var writes: [UInt64: Int] = [:]

    /// Until when each operation may have taken effect; nil where it has none.
    private var ends: [UInt64?] = []

    init(_ history: History, damaged: DamagedBlocks) {
        self.history = history
        self.damaged = damaged
    }

    /// All that was found, in the order of sectors; empty where the history is explained.
    static func check(_ history: History, damaged: DamagedBlocks = DamagedBlocks()) -> [Finding] {
        var checker = HistoryChecker(history, damaged: damaged)
        checker.run()
        return checker.findings
    }

    private mutating func run() {
        for (index, operation) in history.operations.enumerated() where operation.kind != .read {
            if writes.updateValue(index, forKey: operation.number) != nil || operation.number == 0 {
                report(operation.lba, "the number \(operation.number) is not unique: the history is no use")
            }
        }
        checkDamage()
        boundEffects()
        checkWholeCommands()
        for (lba, indices) in operationsBySector().sorted(by: { $0.key < $1.key }) {
            guard findings.count < Self.findingsMaximum else { return }
            checkSector(lba, indices)
        }
    }

    private mutating func report(_ lba: UInt64, _ description: String) {
        guard findings.count < Self.findingsMaximum else { return }
        findings.append(Finding(lba: lba, description: description))
    }

    /// MEDIUM ERROR is where something was damaged before the command ended, and the command has asked for it.
    private mutating func checkDamage() {
        for operation in history.operations where operation.status == .damaged {
            let block = DamagedBlocks.block(operation.badLBA)
            let last = operation.lba + UInt64(operation.sectors) - 1
            let isAsked = DamagedBlocks.block(operation.lba) <= block && block <= DamagedBlocks.block(last)
            if !isAsked || !damaged.mayFail(block, at: operation.end) {
                report(
                    operation.badLBA,
                    "\(text(operation)) ended with MEDIUM ERROR there, where nothing was damaged"
                )
            }
        }
    }

    /// Works out until when each operation may have taken effect.
    ///
    /// A function that aborts everything ends what is on its way, too (R6): what was lost with its connection and had begun before
    /// such a function has taken effect when that was answered. What ended with TASK ABORTED was aborted by one that had begun by then.
    private mutating func boundEffects() {
        let functions = history.functions.filter { $0.isForAll && ($0.response == 0 || $0.end == .max) }
        let byBegin = functions.sorted { $0.begin < $1.begin }
        // The earliest answer of those that begin here or later, and the latest of those that begin here or earlier.
        var earliest = byBegin.map(\.end)
        for index in earliest.indices.dropLast().reversed() {
            earliest[index] = min(earliest[index], earliest[index + 1])
        }
        var latest = byBegin.map(\.end)
        for index in latest.indices.dropFirst() { latest[index] = max(latest[index], latest[index - 1]) }
        func begun(before time: UInt64) -> Int {
            var low = 0
            var high = byBegin.count
            while low < high {
                let middle = (low + high) / 2
                if byBegin[middle].begin < time { low = middle + 1 } else { high = middle }
            }
            return low
        }
        for operation in history.operations {
            var end: UInt64? = operation.end
            switch operation.status {
            case .good, .failed, .aborted: break
            case .miscompare, .damaged: end = nil
            case .lost:
                let next = begun(before: operation.begin)
                if next < earliest.count { end = min(operation.end, earliest[next]) }
            case .taskAborted:
                let count = begun(before: operation.end)
                if count == 0 {
                    report(operation.lba, "\(text(operation)) ended with TASK ABORTED, and nobody had aborted anything")
                } else {
                    end = min(operation.end, latest[count - 1])
                }
            }
            ends.append(end.flatMap { $0 < operation.begin ? nil : $0 })
        }
    }

    private func operationsBySector() -> [UInt64: [Int32]] {
        var result: [UInt64: [Int32]] = [:]
        for (index, operation) in history.operations.enumerated() {
            for sector in 0..<operation.sectors {
                result[operation.lba + UInt64(sector), default: []].append(Int32(index))
            }
        }
        return result
    }

    // MARK: Sectors

    private mutating func checkSector(_ lba: UInt64, _ indices: [Int32]) {
        // Zeros are there before everything.
        var clusters: [UInt64: Cluster] = [
            0: Cluster(writeBegin: 0, writeEnd: 0, isCertain: true, firstEnd: 0, lastBegin: 0)
        ]
        for index in indices {
            let operation = history.operations[Int(index)]
            guard operation.kind != .read, let end = ends[Int(index)] else { continue }
            clusters[operation.number] = Cluster(
                writeBegin: operation.begin,
                writeEnd: end,
                isCertain: operation.status == .good,
                firstEnd: end,
                lastBegin: operation.begin
            )
        }
        for index in indices {
            let operation = history.operations[Int(index)]
            let value: UInt64
            switch operation.kind {
            case .read where operation.status == .damaged: continue
            case .read: value = history.values[operation.firstValue + Int(lba - operation.lba)]
            case .compareAndWrite where operation.status == .good: value = operation.expected
            case .write, .compareAndWrite: continue
            }
            guard var cluster = clusters.removeValue(forKey: value) else {
                report(lba, "\(text(operation)) found \(value), which was never written there")
                continue
            }
            if operation.end < cluster.writeBegin {
                report(lba, "\(text(operation)) found \(value) before it was written")
            }
            cluster.isCertain = true
            cluster.hasReads = true
            cluster.firstEnd = min(cluster.firstEnd, operation.end)
            cluster.lastBegin = max(cluster.lastBegin, operation.begin)
            clusters[value] = cluster
        }
        checkZones(lba, clusters)
    }

    private mutating func checkZones(_ lba: UInt64, _ clusters: [UInt64: Cluster]) {
        var forward: [Zone] = []
        var backward: [Zone] = []
        for (number, cluster) in clusters where cluster.isCertain {
            if cluster.firstEnd < cluster.lastBegin {
                forward.append(Zone(from: cluster.firstEnd, to: cluster.lastBegin, number: number))
            } else {
                backward.append(Zone(from: cluster.lastBegin, to: cluster.firstEnd, number: number))
            }
        }
        forward.sort { ($0.from, $0.to, $0.number) < ($1.from, $1.to, $1.number) }
        for (first, second) in zip(forward, forward.dropFirst()) where second.from < first.to {
            report(
                lba,
                "\(first.number) was there from \(first.from) to \(first.to), and \(second.number) from \(second.from) to "
                    + "\(second.to): one of them was lost, came back, or was read when it was stale"
            )
        }
        backward.sort { ($0.from, $0.number) < ($1.from, $1.number) }
        for zone in backward {
            // The last one that begins before it.
            var low = 0
            var high = forward.count
            while low < high {
                let middle = (low + high) / 2
                if forward[middle].from < zone.from { low = middle + 1 } else { high = middle }
            }
            guard low > 0, zone.to < forward[low - 1].to else { continue }
            let other = forward[low - 1]
            report(
                lba,
                "\(zone.number) took effect between \(zone.from) and \(zone.to), while \(other.number) was there from "
                    + "\(other.from) to \(other.to): the former was lost, or the latter came back"
            )
        }
    }

    // MARK: Whole commands

    private struct Run {
        var number: UInt64
        var first: UInt64
        var end: UInt64
    }

    private mutating func checkWholeCommands() {
        for operation in history.operations where operation.kind == .read && operation.status != .damaged {
            let runs = runs(of: operation)
            for run in runs where run.number != 0 {
                guard let index = writes[run.number] else { continue }  // Told by the check of the sector.
                let write = history.operations[index]
                let writeEnd = write.lba + UInt64(write.sectors)
                for other in runs where other.number != run.number {
                    let from = max(write.lba, other.first)
                    guard from < min(writeEnd, other.end) else { continue }
                    if isBefore(other.number, write, at: run) {
                        report(
                            from,
                            "\(text(operation)) has \(run.number) in \(run.first) and \(other.number), which is older, in "
                                + "\(from): the command is torn"
                        )
                    }
                }
            }
        }
    }

    /// Whether a number must have been overwritten by a write of which a read has seen the sectors `seen`.
    private func isBefore(_ number: UInt64, _ write: History.Operation, at seen: Run) -> Bool {
        guard number != 0, let index = writes[number] else { return number == 0 }
        let other = history.operations[index]
        // It has written what the read shows as the write's: so the write came after it.
        let overlaps = max(other.lba, seen.first) < min(other.lba + UInt64(other.sectors), seen.end)
        return overlaps || (ends[index] ?? other.end) < write.begin
    }

    private func runs(of read: History.Operation) -> [Run] {
        var result: [Run] = []
        for sector in 0..<read.sectors {
            let number = history.values[read.firstValue + sector]
            let lba = read.lba + UInt64(sector)
            if let last = result.last, last.number == number {
                result[result.count - 1].end = lba + 1
            } else {
                result.append(Run(number: number, first: lba, end: lba + 1))
            }
        }
        return result
    }

    private func text(_ operation: History.Operation) -> String {
        let name =
            switch operation.kind {
            case .read: "the read"
            case .write: "the write \(operation.number)"
            case .compareAndWrite: "COMPARE AND WRITE \(operation.number)"
            }
        return "\(name) of \(operation.sectors) sectors at \(operation.lba) from \(operation.begin) to \(operation.end)"
    }
}
