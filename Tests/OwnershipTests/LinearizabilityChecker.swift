/// Checks a history of one sector after the other: every value is written once, so that a violation is visible from pairs.
///
/// A read that returned the value of write W is wrong where
/// - W began after the read had ended,
/// - another write began after W had ended and ended before the read began (stale), or
/// - an earlier read, which had ended before this one began, returned a write that began after W had ended (went back).
/// A write without an end may have happened at any time after it began, or never.
enum LinearizabilityChecker {
    struct Write {
        var value: UInt64
        var begun: UInt64
        var ended: UInt64
    }

    static func violations(_ operations: [Cluster.Operation], sectors: Int) -> [String] {
        var result: [String] = []
        for sector in 0..<sectors {
            let here = operations.filter { $0.firstSector <= sector && sector < $0.firstSector + $0.count }
            let writes = here.filter { !$0.isRead }.map {
                Write(value: $0.values[sector - $0.firstSector], begun: $0.begun, ended: $0.ended ?? .max)
            }
            let reads = here.filter { $0.isRead && $0.ended != nil }
            // Zeros are written by many: any of them may be the one that was read.
            var byValue: [UInt64: [Write]] = [0: [Write(value: 0, begun: 0, ended: 0)]]
            for write in writes { byValue[write.value, default: []].append(write) }
            for read in reads {
                let value = read.values[sector - read.firstSector]
                guard let ended = read.ended, let candidates = byValue[value] else {
                    result.append("sector \(sector): read a value that nobody wrote: \(value)")
                    continue
                }
                let isGood = candidates.contains { write in
                    write.begun <= ended
                        && !writes.contains { $0.begun > write.ended && $0.ended < read.begun }
                        && !reads.contains { other in
                            guard let otherEnd = other.ended, otherEnd < read.begun else { return false }
                            let otherValue = other.values[sector - other.firstSector]
                            guard otherValue != value, let others = byValue[otherValue] else { return false }
                            return others.allSatisfy { $0.begun > write.ended }
                        }
                }
                if !isGood { result.append("sector \(sector): stale or resurrected value \(value) read at \(read.begun)") }
            }
        }
        return result
    }
}
