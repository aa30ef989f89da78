/// How long clients stood still after a fault.
struct Stalls {
    /// A client that has had no answer for so long stands still.
    static let stillMicroseconds: UInt64 = 300_000

    /// How often the fault was done.
    var count = 0
    /// How often some client still stood still for an earlier fault when it was done: how long it lasted then says nothing of it.
    var overlapped = 0
    /// From the begin of a fault until each client has had an answer with GOOD to something that it began after that; sorted.
    /// A fault after which some client came to its end first has none.
    var milliseconds: [Int] = []

    /// The stalls after each fault, by its name.
    static func byFault(_ faults: [FaultDone], _ history: History) -> [String: Stalls] {
        let clients = operations(history)
        let answers = clients.map { $0.map(\.ownEnd).sorted() }
        var result: [String: Stalls] = [:]
        // When all had gone on after each of the faults so far.
        var settled: UInt64 = 0
        for fault in faults {
            var stalls = result.removeValue(forKey: fault.name) ?? Stalls()
            stalls.count += 1
            let ends = clients.map { firstEnd($0, after: fault.time) }
            if !ends.isEmpty, !ends.contains(nil), let last = ends.compactMap({ $0 }).max() {
                if settled > fault.time || answers.contains(where: { stoodStill($0, at: fault.time) }) {
                    stalls.overlapped += 1
                } else {
                    stalls.milliseconds.append(Int((last - fault.time) / 1_000))
                }
                settled = max(settled, last)
            }
            result[fault.name] = stalls
        }
        for name in result.keys { result[name]?.milliseconds.sort() }
        return result
    }

    /// "12; 30, 4100, 4200 ms; 2 in the wake of others".
    var text: String {
        let others = overlapped == 0 ? "" : "; \(overlapped) in the wake of others"
        guard let longest = milliseconds.last else { return "\(count)\(others)" }
        return "\(count); \(percentile(50)), \(percentile(99)), \(longest) ms\(others)"
    }

    /// The smallest that is not below so many percent of all; 0 where there are none.
    func percentile(_ percent: Int) -> Int {
        guard !milliseconds.isEmpty else { return 0 }
        return milliseconds[max(0, (milliseconds.count * percent + 99) / 100 - 1)]
    }

    private struct Span {
        var begin: UInt64
        /// The earliest end of this and of all that began later.
        var end: UInt64
        var ownEnd: UInt64
    }

    /// Whether a client had its last answer long before a time, or none yet; `answers` are in order.
    private static func stoodStill(_ answers: [UInt64], at time: UInt64) -> Bool {
        let before = answers.partitioningIndex { $0 > time }
        guard before > 0 else { return true }
        return time - answers[before - 1] > stillMicroseconds
    }

    /// What ended with GOOD, a list for each client that did something, by begin.
    private static func operations(_ history: History) -> [[Span]] {
        var byClient: [Int: [Span]] = [:]
        for operation in history.operations where operation.status == .good {
            byClient[operation.client, default: []].append(
                Span(begin: operation.begin, end: operation.end, ownEnd: operation.end)
            )
        }
        return byClient.sorted { $0.key < $1.key }.map { _, spans in
            var sorted = spans.sorted { $0.begin < $1.begin }
            for index in sorted.indices.dropLast().reversed() {
                sorted[index].end = min(sorted[index].end, sorted[index + 1].end)
            }
            return sorted
        }
    }

    private static func firstEnd(_ spans: [Span], after time: UInt64) -> UInt64? {
        let first = spans.partitioningIndex { $0.begin >= time }
        return first < spans.count ? spans[first].end : nil
    }
}

extension Array {
    /// The index of the first element that is one of the second part; all in front of it are not.
    fileprivate func partitioningIndex(where isSecond: (Element) -> Bool) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if isSecond(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
