public import AshlarCore
import DequeModule
import NIOCore

// Group commit: what is ready goes to the store as one transaction; while it is on its way the next batch fills, and goes once it is as
// large, or the first one is done. Nothing waits for a timer.
extension CacheOwner {
    /// Sends a batch if something is ready and a commit slot is free.
    mutating func flush(now: MonotonicTime) {
        guard now >= noCommitBefore else { return }
        while mayCommit, !ready.isEmpty || !untold.isEmpty {
            guard let (flight, commits) = makeBatch(now: now) else { return }
            commitsInFlight += 1
            commandsInFlight += flight.clientCommands
            self.commits += 1
            actions.append(.commit(operation(.commit(flight)), commits))
        }
    }

    /// A transaction costs as much as several writes in it: so where initiators have many commands under way, the second one waits until it
    /// is worth it. What the first one takes long for, as for the map of an object, counts for one or nothing.
    private var mayCommit: Bool {
        if commitsInFlight == 0 || ready.isEmpty { return commitsInFlight < Limits.commitsInFlightMaximum }
        return commitsInFlight < Limits.commitsInFlightMaximum
            && ready.count >= min(commandsInFlight, OwnerLimits.besideAnotherMinimumCommands)
    }

    /// Takes ready commands up to the limits of a batch; nil where nothing may go now.
    private mutating func makeBatch(now: MonotonicTime) -> (Flight, [VolumeCommit])? {
        let isFull = unmovedBytes >= configuration.unmovedHardLimitBytes
        let isLogFull = isLogFull
        let flight = Flight()
        var indices: [VolumeID: Int] = [:]
        var commits: [VolumeCommit] = []
        var bytes = 0
        var weight = 0
        var isAlone = false
        var held: Deque<(volume: VolumeOwner, command: Command)> = []
        while let (volume, command) = ready.first {
            let commandBytes = command.writes.reduce(0) { $0 + $1.bytes.readableBytes }
            // A command is never split (I12), so that the first of a batch goes whatever its size.
            guard
                commits.isEmpty
                    || (!isAlone && !command.isAlone && bytes + commandBytes <= Limits.batchMaximumBytes
                        && weight + command.weight <= Limits.batchMaximumBlocks)
            else { break }
            ready.removeFirst()
            if let context = command.context, volume.nexuses[context.nexus]?.state != .open {
                cancelReady(command, of: volume, refusal: .nexusClosed, now: now)
                continue
            }
            if isLogFull && command.waitsForLogRoom
                || isFull && command.operation != nil && mustWait(command, in: volume)
            {
                held.append((volume, command))
                continue
            }
            var joined: [Command] = []
            if case .direct(let group) = command.kind {
                joined = committable(group, of: volume, now: now)
                if joined.isEmpty { continue }
            }
            let index: Int
            if let known = indices[volume.id] {
                index = known
            } else {
                index = commits.count
                indices[volume.id] = index
                commits.append(VolumeCommit(volume: volume.id, epoch: volume.epoch))
                flight.parts.append((volume, []))
            }
            command.phase = .committing
            isAlone = command.isAlone
            for other in joined { other.phase = .committing }
            flight.parts[index].commands.append(command)
            flight.parts[index].commands.append(contentsOf: joined)
            if case .client = command.kind { flight.clientCommands += 1 }
            add(command, to: &commits[index])
            weight += command.weight
            bytes += commandBytes
        }
        ready.insert(contentsOf: held, at: 0)
        if !isAlone { addUntold(to: &commits, flight: flight, known: indices) }
        guard !commits.isEmpty else { return nil }
        for index in commits.indices { complete(&commits[index], flight: flight, index: index, now: now) }
        return (flight, commits)
    }

    /// Adds volumes of which nothing else is to be committed than unit attention conditions: what was told, or reported, is durable
    /// soon, also on an idle volume.
    private mutating func addUntold(to commits: inout [VolumeCommit], flight: Flight, known: [VolumeID: Int]) {
        for id in untold.sorted() where known[id] == nil {
            guard commits.count < Limits.batchMaximumBlocks else { return }
            guard let volume = owned(id), volume.isToldChanged || !volume.changedAttentions.isEmpty else {
                untold.remove(id)
                continue
            }
            guard volume.isToldChanged || !volume.attentionsToCommit.isEmpty else { continue }
            commits.append(VolumeCommit(volume: id, epoch: volume.epoch))
            flight.parts.append((volume, []))
        }
    }

    /// Whether a command has to wait at the hard limit: it makes more blocks unmoved, and no map that would make room waits
    /// behind it, or behind what waits for it.
    private func mustWait(_ command: Command, in volume: VolumeOwner) -> Bool {
        let isGrowing = command.writes.contains { write in
            guard let item = volume.image.item(write.block) else { return true }
            return item.isMoved
        }
        guard isGrowing else { return false }
        guard let map = volume.order.firstWaitingMap else { return true }
        return command.arrival > map
    }

    /// A ready command that ends without effect; it has left `ready` already.
    private mutating func cancelReady(
        _ command: Command,
        of volume: VolumeOwner,
        refusal: Refusal,
        now: MonotonicTime
    ) {
        command.phase = .loading
        cancel(command, of: volume, refusal: refusal, now: now)
    }

    private func add(_ command: Command, to commit: inout VolumeCommit) {
        switch command.kind {
        case .client, .erase, .manage:
            commit.zeros.append(contentsOf: command.zeros)
            commit.references.append(contentsOf: command.references)
            commit.writes.append(contentsOf: command.writes)
            // Changes of the state go one after the other: there is no second one.
            if let change = command.change { commit.unit = change.state }
        case .map(let map): commit.maps.append(map)
        case .direct(let group): commit.maps.append(group.map)
        case .evict(let evictions): commit.evictions.append(contentsOf: evictions)
        case .fill(_, let fills): commit.fills.append(contentsOf: fills)
        case .forget(let blocks, let rest):
            commit.zeros.append(blocks)
            if rest.isEmpty { commit.isRidOfRemains = true }
        }
    }

    /// Puts the parts into the order that the store wants, and adds marks and the version ceiling.
    private mutating func complete(
        _ commit: inout VolumeCommit,
        flight: Flight,
        index: Int,
        now: MonotonicTime
    ) {
        let (volume, commands) = flight.parts[index]
        commit.zeros = Self.normalized(commit.zeros)
        commit.writes.sort { $0.block < $1.block }
        commit.evictions.sort { $0.block < $1.block }
        commit.fills.sort { $0.block < $1.block }
        var marks: [NexusNumber: NexusMark] = [:]
        let hasErased = commands.contains { $0.isLastStep }
        for command in commands.filter({ !$0.isWholeErasure })
            + (hasErased ? volume.lingering.filter(\.isWholeErasure) : [])
        {
            guard let context = command.context, let nexus = volume.nexuses[context.nexus] else { continue }
            marks[
                context.nexus,
                default: NexusMark(nexus: context.nexus, lowWater: nexus.lowWater, done: [])
            ].done.append(context.command)
        }
        commit.marks = marks.values.sorted { $0.nexus < $1.nexus }.map {
            NexusMark(nexus: $0.nexus, lowWater: $0.lowWater, done: $0.done.sorted())
        }
        var told = volume.attentionsToCommit
        volume.changedAttentions.subtract(told)
        if volume.changedAttentions.isEmpty { untold.remove(volume.id) }
        if volume.isToldChanged { commit.told = volume.told }
        volume.isToldChanged = false
        flight.told.append(commit.told)
        for command in commands { told.formUnion(command.change?.attentions.keys ?? [:].keys) }
        commit.attentions = told.sorted().compactMap { number in
            guard let nexus = volume.nexuses[number] else { return nil }
            let added = commands.compactMap { $0.change?.attentions[number] }.filter { !nexus.attentions.contains($0) }
            let attentions = (nexus.lastingAttentions.filter { !added.contains($0) } + added).suffix(
                Limits.attentionsPerNexusMaximum
            )
            return NexusAttentions(nexus: number, attentions: Array(attentions))
        }
        flight.attentions.append(commit.attentions)
        // R9: what is aborted is durable with what aborts it.
        let aborted = commands.reduce(into: Set<NexusNumber>()) { $0.formUnion(nexusesAborted(by: $1, of: volume)) }
        commit.aborts = aborted.sorted().map { NexusAbort(nexus: $0, time: volume.nexuses[$0]?.abortedAt ?? now) }
        // M2: versions above what is durable may be used only in a transaction that makes them so.
        var ceiling: Version?
        if volume.nextVersion > volume.durableCeiling || volume.direct.wantsVersions {
            volume.direct.wantsVersions = false
            ceiling = Version(volume.nextVersion.rawValue + OwnerLimits.versionsAhead)
            commit.versionCeiling = ceiling
        }
        flight.ceilings.append(ceiling)
    }

    /// The nexuses whose commands a change of the unit's state aborts, but for its own.
    private func nexusesAborted(by command: Command, of volume: VolumeOwner) -> Set<NexusNumber> {
        guard case .manage(_, let context) = command.kind else { return command.change?.aborted ?? [] }
        return Set(volume.nexuses.keys).subtracting([context.nexus])
    }

    /// The store committed a batch, or not.
    public mutating func commitCompleted(
        _ id: OperationID,
        _ result: Result<[VolumeCommitResult], StoreFailure>,
        now: MonotonicTime
    ) {
        guard case .commit(let flight)? = operations.removeValue(forKey: id) else { return }
        commitsInFlight -= 1
        commandsInFlight -= flight.clientCommands
        switch result {
        case .success(let results):
            precondition(results.count == flight.parts.count, "a store answers every part of a commit")
            noCommitBefore = MonotonicTime(0)
            for (index, outcome) in results.enumerated() {
                let (volume, commands) = flight.parts[index]
                guard !volume.isLost else { continue }
                switch outcome {
                case .committed(let detail):
                    if let ceiling = flight.ceilings[index] {
                        volume.durableCeiling = max(volume.durableCeiling, ceiling)
                    }
                    apply(commands, detail, to: volume, now: now)
                    // Of two commits under way either may be the last: what is durable is put right with the next one.
                    let differing = flight.attentions[index].filter { entry in
                        volume.nexuses[entry.nexus].map { $0.lastingAttentions != entry.attentions } ?? false
                    }
                    noteAttentions(of: differing.map(\.nexus), volume)
                    if let told = flight.told[index], let newest = volume.told, told != newest {
                        noteTold(newest, of: volume)
                    }
                case .fenced:
                    actions.append(.note("volume \(volume.id): epoch \(volume.epoch) is over, a batch was fenced (I3)"))
                    lose(volume, retake: false, now: now)
                }
            }
        case .failure(.refused):
            returnToReady(flight, now: now)
        case .failure(.broken):
            // One of the commands cannot be committed: each goes by itself, behind the others, so that it alone suffers.
            let others = ready
            ready = []
            for command in flight.parts.flatMap(\.commands) {
                command.isAlone = true
                // The object of a direct write may have been given up: it can be written as usual. Of writes through the items stay.
                if command.group != nil || command.isThroughMap { command.takenBack = command.takenBack ?? .stale }
            }
            returnToReady(flight, now: now)
            ready = others + ready
        case .failure(.unknownOutcome(let why)):
            // What was committed is known only to PostgreSQL: take the volumes over and read it there (R6).
            actions.append(.note("the outcome of a commit is unknown: \(why)"))
            for (volume, _) in flight.parts { lose(volume, retake: true, now: now) }
        }
        flush(now: now)
    }

    /// Nothing of a batch was changed: its commands go back to the head of what is ready, as they are. The owner's own are
    /// dropped instead, so that no read waits behind them for a store that refuses; and so are those that were to be taken back.
    private mutating func returnToReady(_ flight: Flight, now: MonotonicTime) {
        noCommitBefore = now.advanced(byNanoseconds: OwnerLimits.storeRetry)
        for (index, part) in flight.parts.enumerated() where !part.volume.isLost {
            noteAttentions(of: flight.attentions[index].map(\.nexus), part.volume)
            if flight.told[index] != nil, let newest = part.volume.told { noteTold(newest, of: part.volume) }
        }
        var dropped: [(VolumeOwner, Command)] = []
        for (volume, commands) in flight.parts.reversed() where !volume.isLost {
            for command in commands.reversed() where command.phase == .committing {
                if command.isInternal || command.takenBack != nil {
                    command.phase = .loading
                    dropped.append((volume, command))
                } else {
                    command.phase = .ready
                    // Direct writes go with their object.
                    if command.group == nil { ready.prepend((volume, command)) }
                }
            }
        }
        for (volume, command) in dropped.reversed() {
            let refusal = command.takenBack ?? .busy("the store refused a commit")
            cancel(command, of: volume, refusal: refusal, now: now)
        }
    }

    /// Brings image, marks and numbers up to what has become durable, and answers.
    private mutating func apply(
        _ commands: [Command],
        _ detail: VolumeCommitResult.CommitDetail,
        to volume: VolumeOwner,
        now: MonotonicTime
    ) {
        volume.appliedCommits += 1
        var mapIndex = 0
        var evicted: [BlockID: Bool] = [:]
        var filled: [BlockID: Bool] = [:]
        // The store's order is that of the sorted commit; here by block.
        let evictions = commands.flatMap { command -> [Eviction] in
            if case .evict(let list) = command.kind { list } else { [] }
        }.sorted { $0.block < $1.block }
        for (eviction, done) in zip(evictions, detail.evicted) { evicted[eviction.block] = done }
        var returned: Set<BlockID> = []
        for (eviction, isUnmoved) in zip(evictions, detail.returned) where isUnmoved { returned.insert(eviction.block) }
        let fills = commands.flatMap { command -> [ItemWrite] in
            if case .fill(_, let list) = command.kind { list } else { [] }
        }.sorted { $0.block < $1.block }
        for (fill, done) in zip(fills, detail.filled) { filled[fill.block] = done }

        for command in commands {
            noteChange(command, of: volume)
            switch command.kind {
            case .direct(let group):
                let mapped = mapIndex < detail.mapped.count ? detail.mapped[mapIndex] : nil
                mapIndex += 1
                guard applyDirect(group, mapped, to: volume) else {
                    actions.append(.note("volume \(volume.id): direct writes were committed and not mapped"))
                    return lose(volume, retake: true, now: now)
                }
            case .client, .erase, .manage:
                for range in command.zeros { applyZero(range, to: volume) }
                for reference in command.references { applyReference(reference, to: volume) }
                for write in command.writes { applyWrite(write, to: volume) }
                if command.through != nil { noteThrough(command, of: volume, now: now) }
                committedBlocks += UInt64(command.writes.count)
                if let context = command.context, !command.isWholeErasure {
                    volume.nexuses[context.nexus]?.markDone(context.command)
                }
                if let change = command.change {
                    apply(change, of: command, to: volume, now: now)
                    continue
                }
                answer(command, .done(stamp(volume, now)))
            case .map(let map):
                let mapped = mapIndex < detail.mapped.count ? detail.mapped[mapIndex] : nil
                mapIndex += 1
                let count = applyMap(map, mapped, to: volume)
                if let ticket = command.ticket {
                    actions.append(.answer(ticket, .count(UInt64(count), left: volume.unmovedItems)))
                }
            case .evict(let list):
                let gone = list.filter { evicted[$0.block] == true }
                for eviction in gone { applyEviction(eviction, to: volume) }
                for eviction in list where returned.contains(eviction.block) {
                    applyReturn(of: eviction.block, to: volume)
                }
                if let ticket = command.ticket {
                    actions.append(.answer(ticket, .count(UInt64(gone.count), left: evictableItems(of: volume) ?? 0)))
                }
            case .fill(_, let list):
                for write in list where filled[write.block] == true { applyFill(write, to: volume) }
            case .forget(_, let rest): applyForgotten(rest: rest, to: volume)
            }
            finish(command, of: volume, now: now)
        }
    }

    private mutating func applyWrite(_ write: ItemWrite, to volume: VolumeOwner) {
        guard let region = volume.image.region(MemoryImage.regionIndex(of: write.block)), !region.isLoading else {
            preconditionFailure("a write pins its regions")
        }
        let old = region.put(write, isMoved: false, isVisited: true)
        if let old {
            if old.isMoved { countUnmoved(1, of: volume) }
        } else {
            if !region.extents.holds(write.block) { volume.setMapped(volume.mappedBlocks + 1) }
            countUnmoved(1, of: volume)
            volume.cachedItems += 1
        }
        account(of: write, in: region, since: old, to: volume)
    }

    private mutating func applyFill(_ write: ItemWrite, to volume: VolumeOwner) {
        volume.cachedItems += 1
        guard
            let region = volume.image.region(MemoryImage.regionIndex(of: write.block)), !region.isLoading,
            region.items[write.block] == nil
        else { return }
        let old = region.put(write, isMoved: true, isVisited: false)
        account(of: write, in: region, since: old, to: volume)
    }

    /// Counts what an item that was entered takes in memory.
    private mutating func account(
        of write: ItemWrite,
        in region: Region,
        since old: CachedItem?,
        to volume: VolumeOwner
    ) {
        if old?.isInMemory != true { account(write.bytes.readableBytes, to: volume) }
        if old == nil { account(OwnerLimits.imageItemBytes, to: volume) }
        noteBytes(of: region, volume)
    }

    private mutating func remove(_ block: BlockID, from region: Region, of volume: VolumeOwner) {
        guard let old = region.removeItem(block) else { return }
        forget(old, of: volume)
    }

    /// Counts an item out that was removed.
    private mutating func forget(_ old: CachedItem, of volume: VolumeOwner) {
        account(-(OwnerLimits.imageItemBytes + (old.isInMemory ? Int(volume.blockBytes) : 0)), to: volume)
        if volume.cachedItems > 0 { volume.cachedItems -= 1 }
        if !old.isMoved { countUnmoved(-1, of: volume) }
    }

    mutating func applyZero(_ range: BlockRange, to volume: VolumeOwner) {
        var mapped: UInt64 = 0
        defer { volume.unmap(range, known: mapped) }
        for index in volume.image.indices(overlapping: [range]) {
            guard let region = volume.image.region(index), !region.isLoading else { continue }
            mapped += region.mappedBlocks(in: range)
            volume.deadBlocks += region.extents.cut(range)
            accountExtents(of: region, volume)
            region.removeItems(in: range) { forget($0, of: volume) }
        }
    }

    private mutating func applyReference(_ reference: Reference, to volume: VolumeOwner) {
        applyZero(reference.blocks, to: volume)
        insert(reference.extent, to: volume)
    }

    /// Enters an extent where nothing is, in regions that the command has pinned.
    mutating func insert(_ extent: Extent, to volume: VolumeOwner) {
        for index in volume.image.indices(overlapping: [extent.blocks]) {
            guard let region = volume.image.region(index), !region.isLoading else {
                preconditionFailure("a copy and a direct write pin their regions")
            }
            region.extents.insert(extent.clipped(to: region.range))
            accountExtents(of: region, volume)
        }
        volume.setMapped(volume.mappedBlocks + extent.blocks.count)
    }

    private mutating func applyEviction(_ eviction: Eviction, to volume: VolumeOwner) {
        if let region = volume.image.region(MemoryImage.regionIndex(of: eviction.block)), !region.isLoading,
            region.items[eviction.block] != nil
        {
            remove(eviction.block, from: region, of: volume)
        } else if volume.cachedItems > 0 {
            volume.cachedItems -= 1
        }
    }

    /// An item that has the last intact copy of its block waits to be moved again.
    private mutating func applyReturn(of block: BlockID, to volume: VolumeOwner) {
        countUnmoved(1, of: volume)
        guard let region = volume.image.region(MemoryImage.regionIndex(of: block)), !region.isLoading else { return }
        region.setMoved(false, block)
    }

    /// Enters a map that the store has made; returns the number of slots mapped.
    private mutating func applyMap(_ map: ObjectMap, _ mapped: [Bool]?, to volume: VolumeOwner) -> Int {
        for slot in map.slots {
            switch slot.condition {
            case .itemHasVersion:
                if volume.moving[slot.block]?.version == slot.version { volume.moving[slot.block] = nil }
            case .extentNames(let source, _): volume.compacting[source] = nil
            case .always, .never: break
            }
        }
        guard let mapped else { return 0 }
        var count = 0
        for (index, slot) in map.slots.enumerated() where index < mapped.count && mapped[index] {
            count += 1
            let region = volume.image.region(MemoryImage.regionIndex(of: slot.block))
            if let region, !region.isLoading {
                if !volume.image.isMapped(slot.block) { volume.setMapped(volume.mappedBlocks + 1) }
                if region.extents.extent(holding: slot.block) != nil, slot.condition == .itemHasVersion {
                    volume.deadBlocks += 1
                }
                region.extents.insert(
                    Extent(
                        blocks: BlockRange(first: slot.block, count: 1),
                        object: map.object,
                        server: map.server,
                        firstSlot: SlotIndex(UInt32(index))
                    )
                )
                accountExtents(of: region, volume)
            }
            switch slot.condition {
            case .itemHasVersion:
                // A version that two agents moved is counted once, where memory knows.
                if let region, !region.isLoading, let item = region.items[slot.block] {
                    if !item.isMoved { countUnmoved(-1, of: volume) }
                    region.setMoved(true, slot.block)
                } else {
                    countUnmoved(-1, of: volume)
                }
            case .extentNames, .always, .never: break
            }
        }
        return count
    }
}
