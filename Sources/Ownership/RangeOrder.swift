import AshlarCore

/// The order of the commands of one volume (I2): a command begins once no command before it in the order that conflicts
/// with it is unfinished. Two commands conflict where they share a block and at least one of them changes it.
///
/// Lists:
/// - `active`: begun and not finished;
/// - `waiting`: held back, in order of arrival. A waiting command holds back every later one that conflicts with it, so that
///   none is starved.
struct RangeOrder {
    private(set) var active: [Command] = []
    private(set) var waiting: [Command] = []

    private static func conflict(_ a: Command, _ b: Command) -> Bool {
        guard a.isExclusive || b.isExclusive, a.hull.overlaps(b.hull) else { return false }
        if a.ranges.count == 1, b.ranges.count == 1 { return true }
        // Both lists ascend.
        var i = 0
        var j = 0
        while i < a.ranges.count, j < b.ranges.count {
            if a.ranges[i].overlaps(b.ranges[j]) { return true }
            if a.ranges[i].end <= b.ranges[j].end { i += 1 } else { j += 1 }
        }
        return false
    }

    /// Takes a command into the order; `true` if it may begin at once.
    mutating func enter(_ command: Command) -> Bool {
        let blocked =
            active.contains { Self.conflict($0, command) } || waiting.contains { Self.conflict($0, command) }
        if blocked {
            waiting.append(command)
        } else {
            active.append(command)
        }
        return !blocked
    }

    /// Takes a command out of the order; returns those that may begin now, in order of arrival.
    mutating func leave(_ command: Command) -> [Command] {
        if let index = active.firstIndex(where: { $0 === command }) {
            active.swapAt(index, active.count - 1)
            active.removeLast()
        } else if let index = waiting.firstIndex(where: { $0 === command }) {
            waiting.remove(at: index)
        }
        guard !waiting.isEmpty else { return [] }
        var begun: [Command] = []
        var still: [Command] = []
        still.reserveCapacity(waiting.count)
        for candidate in waiting {
            let blocked =
                active.contains { Self.conflict($0, candidate) } || still.contains { Self.conflict($0, candidate) }
            if blocked {
                still.append(candidate)
            } else {
                active.append(candidate)
                begun.append(candidate)
            }
        }
        waiting = still
        return begun
    }
}
