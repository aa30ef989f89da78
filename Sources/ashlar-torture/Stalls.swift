/// How long clients stood still after a fault.
struct Stalls {
    /// How often the fault was done.
    var count = 0
    /// From the begin of a fault until each client has had an answer with GOOD to something that it began after that; sorted.
    /// A fault after which some client came to its end first has none.
    var milliseconds: [Int] = []

    /// The stalls after each fault, by its name.
    static func byFault(_ faults: [FaultDone], _ history: History) -> [String: Stalls] {
        let clients = operations(history)
        var result: [String: Stalls] = [:]
        for fault in faults {
            var stalls = result.removeValue(forKey: fault.name) ?? Stalls()
            stalls.count += 1
            let ends = clients.map { firstEnd($0, after: fault.time) }
            if !ends.isEmpty, !ends.contains(nil), let last = ends.compactMap({ $0 }).max() {
                stalls.milliseconds.append(Int((last - fault.time) / 1_000))
            }
            result[fault.name] = stalls
        }
        for name in result.keys { result[name]?.milliseconds.sort() }
        return result
    }

    /// "12; 30, 4100, 4200 ms".
    var text: String {
        guard let longest = milliseconds.last else { return "\(count)" }
        return "\(count); \(percentile(50)), \(percentile(99)), \(longest) ms"
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
    }

    /// What ended with GOOD, a list for each client that did something, by begin.
    private static func operations(_ history: History) -> [[Span]] {
        var byClient: [Int: [Span]] = [:]
        for operation in history.operations where operation.status == .good {
            byClient[operation.client, default: []].append(Span(begin: operation.begin, end: operation.end))
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
        var low = 0
        var high = spans.count
        while low < high {
            let middle = (low + high) / 2
            if spans[middle].begin < time { low = middle + 1 } else { high = middle }
        }
        return low < spans.count ? spans[low].end : nil
    }
}
