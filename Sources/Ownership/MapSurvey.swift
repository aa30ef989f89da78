public import AshlarCore
import DequeModule

/// Which blocks of a run are mapped, as far as was looked: all of one snapshot of the store.
public struct MapSurvey: Sendable, Hashable {
    /// What is known of one kind of rows: items or extents.
    public struct Part: Sendable {
        /// Runs of blocks that have one, ascending, no two of them touching.
        public var runs: [BlockRange]
        /// Whether there is none behind the last run.
        public var isComplete: Bool

        /// Runs and whether they are all.
        public init(runs: [BlockRange], isComplete: Bool) {
            self.runs = runs
            self.isComplete = isComplete
        }
    }

    /// What was looked at: from the first block that was asked for on, and never empty unless that was.
    public let blocks: BlockRange
    /// The mapped ones, ascending, no two runs touching.
    public let mapped: [BlockRange]

    /// Joins what was found of items and of extents in `range`: it reaches as far as both do.
    public init(of range: BlockRange, items: Part, extents: Part) {
        let end = [items, extents].reduce(range.end) { end, part in
            guard !part.isComplete, let last = part.runs.last else { return end }
            return min(end, last.end)
        }
        let blocks = BlockRange(from: range.first, to: max(range.first, end))
        self.blocks = blocks
        mapped = CacheOwner.normalized(
            (items.runs + extents.runs).map { $0.intersection(blocks) }.filter { !$0.isEmpty }
        )
    }

    /// Mapped and unmapped runs in turn, from the first block on, at most `maximum`.
    func runs(atMost maximum: Int) -> [MappedRun] {
        var result: [MappedRun] = []
        var position = blocks.first
        for run in mapped where result.count < maximum {
            if run.first > position {
                result.append(MappedRun(blocks: BlockRange(from: position, to: run.first), isMapped: false))
            }
            result.append(MappedRun(blocks: run, isMapped: true))
            position = run.end
        }
        if position < blocks.end {
            result.append(MappedRun(blocks: BlockRange(from: position, to: blocks.end), isMapped: false))
        }
        return Array(result.prefix(maximum))
    }
}

// GET LBA STATUS. What is durable is the map (I1), and a snapshot of the store holds each command whole or not at all (I12). One
// that was answered is in it; one that is being committed may be, and is then seen by all who ask later, since what reads its
// blocks waits for it. So the answer has its place in the order (I2) though the command keeps no block from others: the whole of a
// volume can be asked for while it is written.
extension CacheOwner {
    /// Asks the store for the map of what a command wants to know. A dense map costs the store more than a read does: those of a
    /// volume go one after the other, so that they never fill the way of its reads.
    mutating func surveyMap(for command: Command, of volume: VolumeOwner) {
        guard
            command.phase == .loading, !volume.isLost,
            case .mapStatus(let range, let runsMaximum)? = command.operation
        else { return }
        guard !volume.isSurveying else { return volume.surveysWaiting.append(command) }
        volume.isSurveying = true
        let blocks = volume.geometry.blocks(touching: range)
        let id = operation(.survey(volume, command))
        actions.append(.surveyMap(id, volume.id, blocks, runsMaximum: runsMaximum))
    }

    /// The store looked at a map.
    public mutating func mapSurveyed(_ id: OperationID, _ result: Result<MapSurvey, StoreFailure>, now: MonotonicTime) {
        let volume: VolumeOwner
        let command: Command
        switch operations.removeValue(forKey: id) {
        case .survey(let owner, let asking): (volume, command) = (owner, asking)
        case .remains(let owner, let remains): return remainsSurveyed(remains, result, of: owner, now: now)
        default: return
        }
        guard !volume.isLost else { return }
        volume.isSurveying = false
        if command.phase == .loading {
            switch result {
            case .success(let survey):
                command.survey = survey
                proceed(command, of: volume, now: now)
            case .failure:
                schedule(.survey(volume, command), at: now.advanced(byNanoseconds: OwnerLimits.storeRetry))
            }
        }
        while !volume.isSurveying, let next = volume.surveysWaiting.popFirst() { surveyMap(for: next, of: volume) }
    }

    /// Answers from what the store found, once it is certain that no other owner changed it since (R8).
    mutating func finishMapStatus(_ command: Command, runsMaximum: Int, of volume: VolumeOwner, now: MonotonicTime) {
        guard holdsLease(now: now) else { return park(command, of: volume) }
        guard let survey = command.survey else { preconditionFailure("a map is told once it was surveyed") }
        answer(command, .mapped(stamp(volume, now), survey.runs(atMost: runsMaximum)))
        finish(command, of: volume, now: now)
    }
}
