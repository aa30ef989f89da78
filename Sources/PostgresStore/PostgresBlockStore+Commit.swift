import AshlarCore
import Failpoints
import NIOCore
public import Ownership

extension PostgresBlockStore {
    /// See ``BlockStore/commit(_:completion:)``.
    public func commit(
        _ commits: [VolumeCommit],
        completion: @escaping @Sendable (Result<[VolumeCommitResult], StoreFailure>) -> Void
    ) {
        if commits.isEmpty {
            completion(.success([]))
            return
        }
        let plan = CommitPlan(commits)
        let lane = idlest(commitLanes)
        let journal = journals[lane.number]
        var job = Job.transaction(
            failpoints: Failpoint.isAnyArmed ? plan.failpoints : JobFailpoints(),
            { (lane) throws(StoreFailure) in
                plan.calls(
                    lane: lane.lane,
                    try plan.journalFrames > 0 ? journal.take(frames: plan.journalFrames, lane) : .none
                )
            },
            completion: completion,
            parse: { [watch] (results) throws(StoreFailure) in
                let answer = try plan.answer(results)
                if let position = try plan.position(results) { watch.noteAcknowledged(position) }
                return answer
            }
        )
        if plan.journalFrames > 0 { job.preparation = { journal.preparation(frames: plan.journalFrames, $0) } }
        lane.submit(job, isShort: plan.journalFrames <= PostgresStoreLimits.shortCommitFramesMaximum)
    }
}

/// Turns the parts of a commit into set-based statements over all its volumes, and their results into the answer.
struct CommitPlan: Sendable {
    /// The statements that a commit has after its locks and guard, in the order of their effects.
    private enum Step: Sendable {
        case frames
        case zeroItems, zeroWholeExtents, zeroExtents, references, writes
        case mapObjects, requireMaps
        case mapItems(round: Int), mapExtents(round: Int), mapRuns(round: Int)
        case evictions, fills, marks, versions
        case units, droppedRegistrations, registrations, attentions, aborts, told
        case remains
        case position
    }

    /// A map by its place in the commit.
    private struct MapKey: Sendable {
        var commit: Int
        var map: Int
        /// Whether it is of direct writes, which are mapped by runs.
        var isDirect: Bool
    }

    private let commits: [VolumeCommit]
    private let steps: [Step]
    private let needsExtents: [Int64]
    /// Maps that are asked for, in order; of two with the same object only the first is.
    private let maps: [MapKey]
    /// Positions in `maps`: no two maps of a round touch the same block, and later rounds find what earlier ones did.
    private let rounds: [[Int]]
    /// Frames of the journal that the bytes of its items take.
    let journalFrames: Int64

    init(_ commits: [VolumeCommit]) {
        self.commits = commits
        var seen: Set<ObjectID> = []
        var maps: [MapKey] = []
        for (commit, part) in commits.enumerated() {
            for (map, object) in part.maps.enumerated() where seen.insert(object.object).inserted {
                let isDirect = object.slots.contains { $0.condition.isDirect }
                assert(!isDirect || object.slots.allSatisfy(\.condition.isDirect), "a map is of direct writes, or not")
                maps.append(MapKey(commit: commit, map: map, isDirect: isDirect))
            }
        }
        self.maps = maps
        rounds = Self.rounds(of: maps, in: commits)
        steps = Self.steps(commits, maps, rounds: rounds)
        journalFrames = JournalLayout.frames(
            bytes: Self.journalItems(commits).reduce(0) { $0 + $1.bytes.readableBytes }
        )
        let changing = commits.filter { !$0.zeros.isEmpty || !$0.references.isEmpty || !$0.maps.isEmpty }
        needsExtents = Set(changing.map { Int64($0.volume) }).sorted()
    }

    private static func rounds(of maps: [MapKey], in commits: [VolumeCommit]) -> [[Int]] {
        guard maps.count > 1 else { return maps.isEmpty ? [] : [[0]] }
        var lastRound: [VolumeID: [BlockID: Int]] = [:]
        var rounds: [[Int]] = []
        for (position, key) in maps.enumerated() {
            let volume = commits[key.commit].volume
            let slots = commits[key.commit].maps[key.map].slots
            var round = 0
            for slot in slots {
                if let last = lastRound[volume]?[slot.block] { round = max(round, last + 1) }
            }
            for slot in slots { lastRound[volume, default: [:]][slot.block] = round }
            if round == rounds.count { rounds.append([]) }
            rounds[round].append(position)
        }
        return rounds
    }

    private static func steps(_ commits: [VolumeCommit], _ maps: [MapKey], rounds: [[Int]]) -> [Step] {
        var steps: [Step] = []
        if commits.contains(where: { !$0.writes.isEmpty || !$0.fills.isEmpty }) { steps.append(.frames) }
        if commits.contains(where: { !$0.zeros.isEmpty }) { steps += [.zeroItems, .zeroWholeExtents, .zeroExtents] }
        if commits.contains(where: { !$0.references.isEmpty }) { steps.append(.references) }
        if commits.contains(where: { !$0.writes.isEmpty }) { steps.append(.writes) }
        if !rounds.isEmpty { steps.append(.mapObjects) }
        if commits.contains(where: { $0.maps.contains(where: \.isRequired) }) { steps.append(.requireMaps) }
        for round in rounds.indices {
            let direct = rounds[round].count { maps[$0].isDirect }
            if direct < rounds[round].count { steps += [.mapItems(round: round), .mapExtents(round: round)] }
            if direct > 0 { steps.append(.mapRuns(round: round)) }
        }
        if commits.contains(where: { !$0.evictions.isEmpty }) { steps.append(.evictions) }
        if commits.contains(where: { !$0.fills.isEmpty }) { steps.append(.fills) }
        if commits.contains(where: { !$0.marks.isEmpty }) { steps.append(.marks) }
        if commits.contains(where: { $0.versionCeiling != nil }) { steps.append(.versions) }
        if commits.contains(where: { $0.unit != nil }) { steps += [.units, .droppedRegistrations, .registrations] }
        if commits.contains(where: { !$0.attentions.isEmpty }) { steps.append(.attentions) }
        if commits.contains(where: { !$0.aborts.isEmpty }) { steps.append(.aborts) }
        if commits.contains(where: { $0.told != nil }) { steps.append(.told) }
        if commits.contains(where: \.isRidOfRemains) { steps.append(.remains) }
        steps.append(.position)
        return steps
    }

    /// Those that what is committed has to do with, of which one at most is armed.
    var failpoints: JobFailpoints {
        let all = commits.flatMap(\.maps)
        let maps = all.filter { !$0.isRequired }
        let isDirect = maps.count < all.count
        let isCompaction = maps.contains { map in
            map.slots.contains { if case .extentNames = $0.condition { true } else { false } }
        }
        let isWrite = commits.contains { !$0.writes.isEmpty }
        var done: [Failpoint] = isWrite ? [.cacheWritesCommitted] : []
        if commits.contains(where: { $0.versionCeiling != nil }) { done.append(.cacheVersionsRaised) }
        if commits.contains(where: { !$0.zeros.isEmpty }) { done.append(.cacheZerosCommitted) }
        if commits.contains(where: { !$0.references.isEmpty }) { done.append(.cacheCopyCommitted) }
        if commits.contains(where: { $0.unit != nil }) { done.append(.cacheUnitChanged) }
        if commits.contains(where: { $0.told != nil }) { done.append(.cacheDescriptionTold) }
        if commits.contains(where: \.isRidOfRemains) { done.append(.cacheRemainsForgotten) }
        if !maps.isEmpty { done.append(isCompaction ? .cacheCompactionMapped : .cacheMoveMapped) }
        if isDirect { done.append(.cacheDirectMapped) }
        if commits.contains(where: { !$0.evictions.isEmpty }) { done.append(.cacheItemsEvicted) }
        if commits.contains(where: { !$0.fills.isEmpty }) { done.append(.cacheItemsFilled) }
        let isMove = !maps.isEmpty && !isCompaction
        return JobFailpoints(
            ready: isWrite ? .armed(among: [.cacheWritesReady]) : nil,
            sent: .armed(
                among: (isWrite ? [.cacheWritesSent] : []) + (isMove ? [.cacheMoveSent] : [])
                    + (isDirect ? [.cacheDirectSent] : [])
            ),
            done: .armed(among: done)
        )
    }

    // MARK: Calls

    /// The calls between BEGIN and COMMIT; `place` is where its bytes go.
    func calls(lane: Int, _ place: JournalPlace) -> [Call] {
        var calls = [Call(Statements.lockShared, arrays: Set(commits.map { Int64($0.volume) }).sorted())]
        if !needsExtents.isEmpty { calls.append(Call(Statements.lockExtents, arrays: needsExtents)) }
        calls.append(
            Call(Statements.guardEpochs, arrays: commits.map { Int64($0.volume) }, commits.map { Int64($0.epoch) })
        )
        for step in steps { calls.append(call(step, lane: lane, place)) }
        return calls
    }

    private func call(_ step: Step, lane: Int, _ place: JournalPlace) -> Call {
        switch step {
        case .frames: return frames(place)
        case .zeroItems: return zeros(Statements.zeroItems)
        case .zeroWholeExtents: return zeros(Statements.zeroWholeExtents)
        case .zeroExtents: return zeros(Statements.zeroExtents)
        case .references: return references()
        case .writes: return items(Statements.writeItems, \.writes, place, before: 0)
        case .mapObjects: return mapObjects()
        case .requireMaps:
            var columns = Columns(3)
            for part in commits {
                for map in part.maps where map.isRequired { columns.add(part, Int64(map.object)) }
            }
            return columns.call(Statements.requireMaps)
        case .mapItems(let round): return slots(Statements.mapItems, round: round, isWhole: false)
        case .mapExtents(let round): return slots(Statements.mapExtents, round: round, isWhole: true)
        case .mapRuns(let round): return runs(round: round)
        case .evictions:
            var columns = Columns(4)
            for part in commits {
                for item in part.evictions { columns.add(part, Int64(item.block), Int64(item.version)) }
            }
            return columns.call(Statements.evictItems)
        case .fills:
            // Their bytes lie behind those of the writes.
            let before = commits.reduce(0) { sum, part in part.writes.reduce(sum) { $0 + $1.bytes.readableBytes } }
            return items(Statements.fillItems, \.fills, place, before: before)
        case .marks: return marks(lane: lane)
        case .versions:
            var columns = Columns(3)
            for part in commits.sorted(by: { $0.volume < $1.volume }) {
                if let ceiling = part.versionCeiling { columns.add(part, Int64(ceiling)) }
            }
            return columns.call(Statements.raiseVersions)
        case .units: return Self.units(commits)
        case .droppedRegistrations: return Self.droppedRegistrations(commits)
        case .registrations: return Self.registrations(commits)
        case .attentions: return Self.attentions(commits)
        case .aborts:
            var columns = Columns(4)
            for part in commits.sorted(by: { $0.volume < $1.volume }) {
                for entry in part.aborts {
                    columns.add(part, Int64(entry.nexus), Int64(bitPattern: entry.time.rawValue))
                }
            }
            return columns.call(Statements.setAborts)
        case .told: return Self.told(commits)
        case .remains:
            var columns = Columns(2)
            for part in commits where part.isRidOfRemains { columns.add(part) }
            return columns.call(Statements.forgetRemains)
        case .position: return Call(Statements.position)
        }
    }

    private func zeros(_ statement: Statement) -> Call {
        var columns = Columns(4)
        for part in commits {
            for run in part.zeros where !run.isEmpty { columns.add(part, Int64(run.first), Int64(run.end)) }
        }
        return columns.call(statement)
    }

    private func references() -> Call {
        var columns = Columns(9)
        for part in commits {
            for reference in part.references {
                columns.add(
                    part,
                    Int64(reference.source.object),
                    Int64(reference.source.blocks.first),
                    Int64(reference.source.firstSlot),
                    Int64(reference.destination),
                    Int64(reference.source.blocks.count),
                    Int64(reference.source.origin),
                    Int64(reference.version)
                )
            }
        }
        return columns.call(Statements.referenceExtents)
    }

    /// The items whose bytes go to the journal, in the order in which they lie there.
    private static func journalItems(_ commits: [VolumeCommit]) -> [ItemWrite] {
        commits.flatMap(\.writes) + commits.flatMap(\.fills)
    }

    private func frames(_ place: JournalPlace) -> Call {
        var blocks: [VolumeID: [Int64]] = [:]
        for part in commits where !part.writes.isEmpty || !part.fills.isEmpty {
            blocks[part.volume, default: []] += (part.writes + part.fills).map { Int64($0.block) }
        }
        var volumes: [Int64] = []
        var firsts: [Int64] = []
        var lasts: [Int64] = []
        var all: [Int64] = []
        for (volume, list) in blocks.sorted(by: { $0.key < $1.key }) {
            volumes.append(Int64(volume))
            firsts.append(Int64(all.count) + 1)
            all += list
            lasts.append(Int64(all.count))
        }
        var call = Call(Statements.writeFrames, place.segment, place.firstFrame)
        for array in [volumes, firsts, lasts, all] { call.add(array: array) }
        call.add(frames: Self.journalItems(commits).map(\.bytes), frameBytes: JournalLayout.frameBytes)
        return call
    }

    private func items(
        _ statement: Statement,
        _ field: KeyPath<VolumeCommit, [ItemWrite]>,
        _ place: JournalPlace,
        before: Int
    ) -> Call {
        var columns = Columns(8)
        columns.reserve(commits.reduce(0) { $0 + $1[keyPath: field].count })
        var offset = before
        for part in commits {
            for item in part[keyPath: field] {
                let count = item.bytes.readableBytes
                let (frame, frameOffset) = offset.quotientAndRemainder(dividingBy: JournalLayout.frameBytes)
                columns.add(
                    part,
                    Int64(item.block),
                    Int64(item.version),
                    Int64(item.checksum),
                    Int64(count),
                    place.firstFrame + Int64(frame),
                    Int64(frameOffset)
                )
                offset += count
            }
        }
        var call = columns.call(statement)
        call.add(place.segment)
        return call
    }

    private func mapObjects() -> Call {
        var columns = Columns(6)
        for key in maps {
            let part = commits[key.commit]
            let map = part.maps[key.map]
            columns.add(
                part,
                Int64(map.object),
                Int64(map.server),
                Int64(map.slots.count),
                Int64(truncatingIfNeeded: map.sizeBytes)
            )
        }
        return columns.call(Statements.mapObjects)
    }

    private func slots(_ statement: Statement, round: Int, isWhole: Bool) -> Call {
        var columns = Columns(isWhole ? 10 : 6)
        for position in rounds[round] where !maps[position].isDirect {
            let part = commits[maps[position].commit]
            let map = part.maps[maps[position].map]
            columns.reserve(map.slots.count)
            for (index, slot) in map.slots.enumerated() {
                var kind = Statements.SlotKind.itemHasVersion
                var source: Int64 = 0
                var sourceSlot: Int64 = 0
                switch slot.condition {
                case .itemHasVersion: break
                case .always, .never: continue
                case .extentNames(let object, let slot):
                    kind = Statements.SlotKind.extentNames
                    source = Int64(object)
                    sourceSlot = Int64(slot)
                }
                let object = Int64(map.object)
                if isWhole {
                    columns.add(
                        part,
                        object,
                        Int64(slot.block),
                        Int64(slot.version),
                        kind,
                        Int64(position),
                        Int64(index),
                        source,
                        sourceSlot
                    )
                } else {
                    columns.add(part, object, Int64(slot.block), Int64(slot.version), kind)
                }
            }
        }
        return columns.call(statement)
    }

    /// Slots of direct writes whose blocks follow one another are one run.
    private func runs(round: Int) -> Call {
        var columns = Columns(6)
        for position in rounds[round] where maps[position].isDirect {
            let part = commits[maps[position].commit]
            let map = part.maps[maps[position].map]
            var index = 0
            while index < map.slots.count {
                let first = index
                index += 1
                guard map.slots[first].condition == .always else { continue }
                while index < map.slots.count, map.slots[index].condition == .always,
                    map.slots[index].block == map.slots[first].block + UInt64(index - first)
                {
                    index += 1
                }
                columns.add(
                    part,
                    Int64(map.object),
                    Int64(map.slots[first].block),
                    Int64(index - first),
                    Int64(first)
                )
            }
        }
        return columns.call(Statements.mapRuns)
    }

    private func marks(lane: Int) -> Call {
        var columns = Columns(6)
        var done: [Int64] = []
        for part in commits {
            for mark in part.marks {
                let first = Int64(done.count) + 1
                done.append(contentsOf: mark.done.lazy.map { Int64($0) })
                columns.add(part, Int64(mark.nexus), Int64(mark.lowWater), first, Int64(done.count))
            }
        }
        var call = columns.call(Statements.markNexuses)
        call.add(array: done)
        call.add(Int64(lane))
        return call
    }

    // MARK: Answer

    /// Reads the results of the calls.
    func answer(_ results: [QueryResult]) throws(StoreFailure) -> [VolumeCommitResult] {
        var results = results[...]
        guard results.count == steps.count + (needsExtents.isEmpty ? 2 : 3) else {
            throw StoreFailure.broken("a commit has the wrong number of results")
        }
        results.removeFirst(needsExtents.isEmpty ? 1 : 2)
        let current = try currentCommits(results.removeFirst())
        var details = commits.map { part in
            VolumeCommitResult.CommitDetail(
                mapped: [[Bool]?](repeating: nil, count: part.maps.count),
                evicted: [Bool](repeating: false, count: part.evictions.count),
                returned: [Bool](repeating: false, count: part.evictions.count),
                filled: [Bool](repeating: false, count: part.fills.count)
            )
        }
        for step in steps {
            try read(results.removeFirst(), of: step, current: current, into: &details)
        }
        return zip(current, details).map { $0 ? .committed($1) : .fenced }
    }

    /// A position of the log that is durable now; nil where nothing was changed.
    func position(_ results: [QueryResult]) throws(StoreFailure) -> WALPosition? {
        guard let last = results.last, last.count == 1, !last.isNull(0, 0) else { return nil }
        return WALPosition(try last.unsigned(0, 0))
    }

    private func currentCommits(_ result: QueryResult) throws(StoreFailure) -> [Bool] {
        var current = [Bool](repeating: false, count: commits.count)
        for row in 0..<result.count {
            let position = try result.exactly(row, 0, as: Int.self) - 1
            guard current.indices.contains(position) else {
                throw StoreFailure.broken("a guard answered a wrong position")
            }
            current[position] = true
        }
        return current
    }

    private func read(
        _ result: QueryResult,
        of step: Step,
        current: [Bool],
        into details: inout [VolumeCommitResult.CommitDetail]
    ) throws(StoreFailure) {
        switch step {
        case .references:
            let expected = zip(commits, current).reduce(0) { sum, element in
                sum + (element.1 ? element.0.references.reduce(0) { $0 + $1.source.blocks.count } : 0)
            }
            let copied = result.count == 1 ? try result.unsigned(0, 0) : 0
            guard copied == expected else {
                throw StoreFailure.broken("\(copied) blocks were copied by reference instead of \(expected)")
            }
        case .frames:
            try check(result, rows: Int(journalFrames))
        case .writes:
            try check(result, rows: zip(commits, current).reduce(0) { $0 + ($1.1 ? $1.0.writes.count : 0) })
        case .mapObjects:
            for row in 0..<result.count {
                let key = try mapKey(result.exactly(row, 0, as: Int.self) - 1)
                // Of direct writes that is all there is to know.
                details[key.commit].mapped[key.map] = commits[key.commit].maps[key.map].slots.map {
                    $0.condition == .always
                }
            }
        case .mapExtents:
            for row in 0..<result.count {
                let key = try mapKey(result.exactly(row, 0, as: Int.self))
                for slot in try result.ints(row, 1) {
                    guard let count = details[key.commit].mapped[key.map]?.count, slot >= 0, slot < count else {
                        throw StoreFailure.broken("a map answered a wrong slot")
                    }
                    details[key.commit].mapped[key.map]?[Int(slot)] = true
                }
            }
        case .evictions: try readEvictions(result, into: &details)
        case .fills: try readFills(result, into: &details)
        case .units: try check(result, rows: zip(commits, current).count { $1 && $0.unit != nil })
        case .told: try check(result, rows: zip(commits, current).count { $1 && $0.told != nil })
        case .registrations:
            let rows = zip(commits, current).reduce(0) { sum, element in
                sum + (element.1 ? element.0.unit?.reservations.registrations.count ?? 0 : 0)
            }
            try check(result, rows: rows)
        case .zeroItems, .zeroWholeExtents, .zeroExtents, .requireMaps, .mapItems, .mapRuns, .marks, .versions,
            .droppedRegistrations,
            .attentions,
            .aborts, .remains, .position:
            break
        }
    }

    private func check(_ result: QueryResult, rows: Int) throws(StoreFailure) {
        guard result.affected == rows else {
            throw StoreFailure.broken("\(result.affected) rows were written instead of \(rows)")
        }
    }

    private func mapKey(_ position: Int) throws(StoreFailure) -> MapKey {
        guard maps.indices.contains(position) else { throw StoreFailure.broken("a map answered a wrong position") }
        return maps[position]
    }

    private func readEvictions(
        _ result: QueryResult,
        into details: inout [VolumeCommitResult.CommitDetail]
    ) throws(StoreFailure) {
        var starts: [Int] = []
        var total = 0
        for part in commits {
            starts.append(total)
            total += part.evictions.count
        }
        for row in 0..<result.count {
            let position = try result.exactly(row, 0, as: Int.self) - 1
            guard position >= 0, position < total, let commit = starts.lastIndex(where: { $0 <= position }) else {
                throw StoreFailure.broken("an eviction answered a wrong position")
            }
            if try result.bool(row, 1) {
                details[commit].returned[position - starts[commit]] = true
            } else {
                details[commit].evicted[position - starts[commit]] = true
            }
        }
    }

    private func readFills(
        _ result: QueryResult,
        into details: inout [VolumeCommitResult.CommitDetail]
    ) throws(StoreFailure) {
        var inserted: [Int64: Set<Int64>] = [:]
        for row in 0..<result.count { inserted[try result.int(row, 0), default: []].insert(try result.int(row, 1)) }
        for (commit, part) in commits.enumerated() {
            guard let blocks = inserted[Int64(part.volume)] else { continue }
            for (index, fill) in part.fills.enumerated() {
                details[commit].filled[index] = blocks.contains(Int64(fill.block))
            }
        }
    }
}

/// Int8 arrays that grow row by row; the first two are volume and epoch.
struct Columns {
    private var arrays: [[Int64]]

    init(_ count: Int) { arrays = [[Int64]](repeating: [], count: count) }

    mutating func reserve(_ rows: Int) {
        for index in arrays.indices { arrays[index].reserveCapacity(arrays[index].count + rows) }
    }

    mutating func add(_ part: VolumeCommit, _ values: Int64...) {
        assert(values.count + 2 == arrays.count, "a row has a value for each column")
        arrays[0].append(Int64(part.volume))
        arrays[1].append(Int64(part.epoch))
        for (index, value) in values.enumerated() { arrays[index + 2].append(value) }
    }

    func call(_ statement: Statement, capacity: Int = 256) -> Call {
        var call = Call(statement, capacity: capacity)
        for array in arrays { call.add(array: array) }
        return call
    }
}
