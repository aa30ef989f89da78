import AshlarCore

/// The order of the commands of one volume (I2): a command begins once no command before it in the order that conflicts
/// with it is unfinished. Two commands conflict where they share a block and at least one of them changes it.
///
/// Lists:
/// - `active`: begun and not finished;
/// - `waiting`: held back, in order of arrival. A waiting command holds back every later one that conflicts with it, so that
///   none is starved.
///
/// Each waiting command counts those before it that conflict with it and are unfinished, so that entering and leaving cost
/// one look at each command and no more.
struct RangeOrder {
    private(set) var active: [Command] = []
    private(set) var waiting: [Command] = []
    private var arrivals: UInt64 = 0

    var isEmpty: Bool { active.isEmpty && waiting.isEmpty }

    static func conflict(_ a: Command, _ b: Command) -> Bool {
        guard a.isExclusive || b.isExclusive, a.hull.overlaps(b.hull) else { return false }
        if a.ranges.count == 1, b.ranges.count == 1 { return true }
        return a.ranges.count <= b.ranges.count ? overlap(a.ranges, b.ranges) : overlap(b.ranges, a.ranges)
    }

    /// Whether two ascending lists share a block; looks each element of the shorter one up in the other.
    private static func overlap(_ few: [BlockRange], _ many: [BlockRange]) -> Bool {
        var start = 0
        for range in few {
            var high = many.count
            while start < high {
                let middle = (start + high) / 2
                if many[middle].end <= range.first { start = middle + 1 } else { high = middle }
            }
            guard start < many.count else { return false }
            if many[start].first < range.end { return true }
        }
        return false
    }

    /// Takes a command into the order; `true` if it may begin at once.
    mutating func enter(_ command: Command) -> Bool {
        arrivals += 1
        command.arrival = arrivals
        command.blockers = 0
        for other in active where Self.conflict(other, command) { command.blockers += 1 }
        for other in waiting where Self.conflict(other, command) { command.blockers += 1 }
        guard command.blockers == 0 else {
            waiting.append(command)
            return false
        }
        active.append(command)
        return true
    }

    /// When the first map that waits for its turn arrived; nil where none waits.
    var firstWaitingMap: UInt64? {
        waiting.first { command in
            if case .map = command.kind { true } else { false }
        }?.arrival
    }

    /// Takes a command out of the order; returns those that may begin now, in order of arrival.
    mutating func leave(_ command: Command) -> [Command] {
        var behind = 0
        if let index = active.firstIndex(where: { $0 === command }) {
            active.swapAt(index, active.count - 1)
            active.removeLast()
        } else if let index = waiting.firstIndex(where: { $0 === command }) {
            waiting.remove(at: index)
            behind = index
        } else {
            return []
        }
        var begun: [Command] = []
        for other in waiting[behind...] where Self.conflict(command, other) {
            other.blockers -= 1
            if other.blockers == 0 { begun.append(other) }
        }
        guard !begun.isEmpty else { return [] }
        waiting.removeAll { $0.blockers == 0 }
        active.append(contentsOf: begun)
        return begun
    }
}
