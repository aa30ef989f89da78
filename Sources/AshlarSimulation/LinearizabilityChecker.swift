/// Checks a history sector by sector, and whole commands: every value but zero is written once, so that a violation is
/// visible from pairs.
///
/// A read that returned the value of write W is wrong where
/// - W was refused, or began after the read had ended,
/// - another write that did happen began after W could last have happened and ended before the read began (stale, or a ghost),
/// - W is known not to have happened: a read that began after W could last have happened returned what was there before W,
/// - an earlier read, which had ended before this one began, returned a write that began after W could last have happened, or
/// - at another sector that both wrote it returned the value of a write that W is known to have been whole with (I12).
enum LinearizabilityChecker {
    /// The greatest of what has ended before a time, for many times.
    private struct Horizon {
        private var ends: [UInt64] = []
        private var greatest: [UInt64] = []

        init(_ pairs: [(ended: UInt64, value: UInt64)]) {
            var high: UInt64 = 0
            for pair in pairs.sorted(by: { $0.ended < $1.ended }) {
                high = max(high, pair.value)
                ends.append(pair.ended)
                greatest.append(high)
            }
        }

        func before(_ time: UInt64) -> UInt64 {
            var low = 0
            var high = ends.count
            while low < high {
                let middle = (low + high) / 2
                if ends[middle] < time { low = middle + 1 } else { high = middle }
            }
            return low == 0 ? 0 : greatest[low - 1]
        }
    }

    static func violations(_ operations: [ClusterOperation], sectors: Int) -> [String] {
        var reads: [[Int]] = Array(repeating: [], count: sectors)
        var writes: [[Int]] = Array(repeating: [], count: sectors)
        for (index, operation) in operations.enumerated() {
            for sector in operation.firstSector..<operation.firstSector + operation.count {
                if operation.isRead {
                    if operation.fate == .done { reads[sector].append(index) }
                } else {
                    writes[sector].append(index)
                }
            }
        }
        var result: [String] = []
        for sector in 0..<sectors {
            result += order(operations, sector: sector, reads: reads[sector], writes: writes[sector])
        }
        return result + wholeness(operations, writes: writes)
    }

    private struct Looked {
        var value: UInt64
        var begun: UInt64
        var ended: UInt64
    }

    private static func order(
        _ operations: [ClusterOperation],
        sector: Int,
        reads: [Int],
        writes: [Int]
    ) -> [String] {
        var result: [String] = []
        var byValue: [UInt64: [ClusterOperation]] = [
            0: [
                ClusterOperation(
                    isRead: false,
                    firstSector: sector,
                    count: 1,
                    values: [0],
                    begun: 0,
                    latest: 0,
                    fate: .done
                )
            ]
        ]
        for index in writes where operations[index].fate != .never {
            byValue[operations[index].values[0], default: []].append(operations[index])
        }
        let refused = Set(writes.filter { operations[$0].fate == .never }.map { operations[$0].values[0] })
        // A COMPARE AND WRITE that succeeded read what it expected.
        let compared = writes.filter { operations[$0].fate == .done && operations[$0].expected != nil }
        var looks = reads.map { index in
            let operation = operations[index]
            return Looked(
                value: operation.values[sector - operation.firstSector],
                begun: operation.begun,
                ended: operation.latest
            )
        }
        var replaced: Set<UInt64> = []
        for index in compared {
            let operation = operations[index]
            guard let value = operation.expected?[sector - operation.firstSector] else { continue }
            looks.append(Looked(value: value, begun: operation.begun, ended: operation.latest))
            if value != 0, !replaced.insert(value).inserted {
                result.append("sector \(sector): value \(value) was compared and replaced twice")
            }
        }
        let written = Horizon(
            writes.filter { operations[$0].fate == .done }.map { (operations[$0].latest, operations[$0].begun) }
        )
        let seen = Horizon(
            looks.compactMap { look in byValue[look.value]?.map(\.begun).min().map { (look.ended, $0) } }
        )
        for look in looks {
            guard let candidates = byValue[look.value] else {
                let why = refused.contains(look.value) ? "that was refused" : "that nobody wrote"
                result.append("sector \(sector): read a value \(why): \(look.value) at \(look.begun)")
                continue
            }
            let horizon = max(written.before(look.begun), seen.before(look.begun))
            if !candidates.contains(where: { $0.begun <= look.ended && $0.latest >= horizon }) {
                result.append("sector \(sector): stale or resurrected value \(look.value) read at \(look.begun)")
            }
        }
        return result + ghosts(sector, looks, byValue)
    }

    /// What could last have happened before a look that shows what was there before it did not happen (I4).
    private static func ghosts(
        _ sector: Int,
        _ looks: [Looked],
        _ byValue: [UInt64: [ClusterOperation]]
    ) -> [String] {
        var result: [String] = []
        for (value, candidates) in byValue where candidates.count == 1 && value != 0 {
            guard candidates[0].fate == .open, let seen = looks.first(where: { $0.value == value }) else { continue }
            let write = candidates[0]
            for look in looks where look.begun > write.latest && look.value != value {
                guard let others = byValue[look.value], others.allSatisfy({ $0.latest < write.begun }) else { continue }
                result.append("sector \(sector): ghost \(value) read at \(seen.begun), not there at \(look.begun)")
                break
            }
        }
        return result
    }

    /// I12: a read that shows a command at one sector shows it, or what came after it, at all others.
    private static func wholeness(_ operations: [ClusterOperation], writes: [[Int]]) -> [String] {
        // In the order of their beginning: what a read shows is mostly young.
        let zeros = writes.map { indices in
            indices.filter { operations[$0].values[0] == 0 && operations[$0].fate != .never }
        }
        var byValue: [UInt64: ClusterOperation] = [:]
        for operation in operations where !operation.isRead && operation.values[0] != 0 {
            byValue[operation.values[0]] = operation
        }
        func covers(_ operation: ClusterOperation, _ sector: Int) -> Bool {
            operation.firstSector <= sector && sector < operation.firstSector + operation.count
        }
        var result: [String] = []
        for read in operations where read.isRead && read.fate == .done {
            var shown: [UInt64: [Int]] = [:]
            for (offset, value) in read.values.enumerated() {
                shown[value, default: []].append(read.firstSector + offset)
            }
            guard shown.count > 1 else { continue }
            for (value, at) in shown {
                guard value != 0, let write = byValue[value] else { continue }
                for (otherValue, others) in shown where otherValue != value {
                    let inside = others.filter { covers(write, $0) }
                    guard !inside.isEmpty else { continue }
                    if let other = byValue[otherValue] {
                        // The other one came later, since it shows where both wrote: then it shows wherever both did.
                        // Nor may it be one that had ended before the command began.
                        if other.latest < write.begun || at.contains(where: { covers(other, $0) }) {
                            result.append("torn: values \(value) and \(otherValue) at \(read.begun)")
                        }
                    } else if otherValue == 0 {
                        for sector in inside
                        where !zeros[sector].reversed().contains(where: { index in
                            let zero = operations[index]
                            return zero.begun <= read.latest
                                && zero.latest >= write.begun && !at.contains { covers(zero, $0) }
                        }) {
                            result.append("torn: value \(value) without sector \(sector) at \(read.begun)")
                        }
                    }
                }
            }
        }
        return result
    }
}
