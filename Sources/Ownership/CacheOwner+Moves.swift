public import AshlarCore
import DequeModule
import NIOCore

/// A search for blocks to move, through its steps: candidates by the policy, their neighbours in address order, bytes.
final class MoveSearch {
    enum Step {
        /// The head of the queue of unmoved items.
        case queue
        /// Unmoved items from the chosen block on, in address order.
        case neighbours
        case bytes
    }

    let volume: VolumeOwner
    let ticket: Ticket
    var step = Step.queue
    /// Most blocks to hand out.
    var limit: Int
    /// Whether nothing but order asks for it.
    var isInBackground = false
    var chosen: [ItemBytes] = []
    var missing: [BlockID] = []
    /// Commits of the volume when the search began.
    let appliedCommits: UInt64

    init(volume: VolumeOwner, ticket: Ticket, limit: Int) {
        self.volume = volume
        self.ticket = ticket
        self.limit = limit
        appliedCommits = volume.appliedCommits
    }
}

// Moving, evicting, compacting: what agents ask for (I5 to I8, M1 to M7).
extension CacheOwner {
    // MARK: Work for agents

    /// Finds blocks to move in any owned volume, by its policy; answered with `moveWork`.
    public mutating func requestMoveWork(_ ticket: Ticket, now: MonotonicTime) {
        for _ in 0..<moveRound.count {
            let id = moveRound.removeFirst()
            moveRound.append(id)
            guard let volume = owned(id), let limit = moveLimit(of: volume, now: now) else { continue }
            volume.isLookingForMoves = true
            let search = MoveSearch(volume: volume, ticket: ticket, limit: limit)
            let operation = operation(.moveCandidates(search))
            actions.append(
                .fetchMoveCandidates(operation, id, from: nil, limit: OwnerLimits.moveCandidates)
            )
            return
        }
        actions.append(.answer(ticket, .moveWork(nil)))
    }

    mutating func reserveObjects(for volume: VolumeOwner) {
        guard !volume.isReservingObjects else { return }
        volume.isReservingObjects = true
        actions.append(
            .reserveObjects(operation(.objects(volume)), volume.id, OwnerLimits.objectsReservedAtOnce)
        )
    }

    /// The store committed intents for objects (I6).
    public mutating func objectsReserved(
        _ id: OperationID,
        _ result: Result<[ObjectID], StoreFailure>,
        now: MonotonicTime
    ) {
        guard case .objects(let volume)? = operations.removeValue(forKey: id) else { return }
        volume.isReservingObjects = false
        switch result {
        case .success(let objects):
            // Those left over are as old as the last filling; their intents are swept in time.
            volume.objectPool = Deque(objects)
            volume.objectPoolFilled = now
        case .failure: break
        }
    }

    /// Whether moves have to keep up with what is written, whatever that costs initiators: the cache fills, somebody wants the volume
    /// moved, or its policy names a bound.
    private func isMoveUrgent(of volume: VolumeOwner) -> Bool {
        let urgentBytes = configuration.unmovedHighWatermarkBytes / OwnerLimits.urgentWatermarkDivisor
        if volume.isDraining || unmovedBytes >= urgentBytes { return true }
        return switch volume.description.policy.move {
        case .lru, .fifo: false
        case .count, .bytes, .age: true
        }
    }

    /// Whether what is not urgent has to wait, so that initiators do not notice it. What is overwritten meanwhile need not be moved.
    private func mustMoveLater(_ volume: VolumeOwner, now: MonotonicTime) -> Bool {
        guard now < busyUntil, now < nextBackgroundMove else { return false }
        return !isMoveUrgent(of: volume)
    }

    /// How many blocks the policy wants moved now, at most an object's worth; nil for none.
    private func moveLimit(of volume: VolumeOwner, now: MonotonicTime) -> Int? {
        guard !volume.isLookingForMoves, now >= volume.nextMoveLook, !mustMoveLater(volume, now: now) else {
            return nil
        }
        // Blocks whose agent is gone are free again; a counter that drifted must not hide what is left for ever.
        if volume.unmovedItems <= UInt64(volume.moving.count), !volume.moving.isEmpty {
            volume.moving = volume.moving.filter { $0.value.until > now }
        }
        if volume.unmovedItems <= UInt64(volume.moving.count) {
            // Nothing was committed since the number was right: of many volumes most are never looked at again.
            guard now >= volume.nextDriftLook, volume.exactSinceCommit != volume.appliedCommits else { return nil }
        }
        volume.nextDriftLook = now.advanced(byNanoseconds: OwnerLimits.driftLook)
        let perObject = min(
            Limits.objectTargetBytes / Int(volume.geometry.blockSizeBytes),
            Int(Limits.objectSlotsMaximum)
        )
        return perObject
    }

    /// The blocks that exceed a policy's bound; nil where the policy has none.
    private func excess(of volume: VolumeOwner, now: MonotonicTime) -> UInt64? {
        let policy = volume.description.policy
        let maximum: UInt64
        switch policy.move {
        case .lru, .fifo: return nil
        case .age: return 0
        case .count: maximum = policy.unmovedItemsMaximum
        case .bytes: maximum = policy.unmovedBytesMaximum / volume.blockBytes
        }
        // What is with agents already, or in an object that is being put, will be moved: it is not in excess a second time.
        let moving = UInt64(volume.moving.values.count { $0.until > now })
        return volume.unmovedItems > maximum + moving ? volume.unmovedItems - maximum - moving : 0
    }

    /// The store read a page of unmoved items.
    public mutating func moveCandidatesFetched(
        _ id: OperationID,
        _ result: Result<MoveCandidates, StoreFailure>,
        now: MonotonicTime
    ) {
        guard case .moveCandidates(let search)? = operations.removeValue(forKey: id) else { return }
        let volume = search.volume
        guard !volume.isLost else { return actions.append(.answer(search.ticket, .moveWork(nil))) }
        guard case .success(let candidates) = result else {
            return endSearch(search, nextLook: now.advanced(byNanoseconds: OwnerLimits.idleLook))
        }
        switch search.step {
        case .queue: chooseOldest(candidates, search, now: now)
        case .neighbours: chooseNeighbours(candidates.inside(volume.geometry), search, now: now)
        case .bytes: preconditionFailure("bytes come by another event")
        }
    }

    private mutating func endSearch(_ search: MoveSearch, nextLook: MonotonicTime) {
        search.volume.isLookingForMoves = false
        search.volume.nextMoveLook = nextLook
        actions.append(.answer(search.ticket, .moveWork(nil)))
    }

    private mutating func chooseOldest(_ found: MoveCandidates, _ search: MoveSearch, now: MonotonicTime) {
        let volume = search.volume
        let candidates = found.inside(volume.geometry)
        // Put right what zeroing regions outside memory made drift: downward only where the page shows everything.
        let count = UInt64(candidates.items.count)
        let isAll = found.items.count < OwnerLimits.moveCandidates
        let isExact = isAll && search.appliedCommits == volume.appliedCommits
        if volume.isCounted, isExact || count > volume.unmovedItems { setUnmoved(count, of: volume) }
        if volume.isCounted, isExact { volume.exactSinceCommit = volume.appliedCommits }
        guard let age = candidates.agesMilliseconds.first else {
            volume.isDraining = false
            return endSearch(search, nextLook: now.advanced(byNanoseconds: OwnerLimits.idleLook))
        }
        let free = candidates.items.filter { item in
            guard let moving = volume.moving[item.block] else { return true }
            return moving.version != item.version || moving.until <= now
        }
        guard !free.isEmpty else {
            return endSearch(search, nextLook: now.advanced(byNanoseconds: OwnerLimits.idleLook))
        }
        let maximumAge = UInt64(volume.description.policy.unmovedAgeMaximumSeconds) * 1_000
        search.isInBackground = age < maximumAge && !isMoveUrgent(of: volume)
        if !volume.isDraining, age < maximumAge {
            if let excess = excess(of: volume, now: now) {
                guard excess > 0 else {
                    // Only age can make work here, or new writes; look again soon, no sooner than needed.
                    let wait = min((maximumAge - age) * 1_000_000, 5 * OwnerLimits.idleLook)
                    return endSearch(search, nextLook: now.advanced(byNanoseconds: wait))
                }
                search.limit = min(search.limit, Int(min(excess, UInt64(Int32.max))))
            } else if free.count < min(search.limit, candidates.items.count), age < OwnerLimits.settleMilliseconds {
                return endSearch(search, nextLook: now.advanced(byNanoseconds: OwnerLimits.idleLook / 4))
            } else if candidates.items.count < search.limit, age < OwnerLimits.settleMilliseconds {
                return endSearch(search, nextLook: now.advanced(byNanoseconds: OwnerLimits.idleLook / 4))
            }
        }
        // Only now: of many volumes most have nothing to move, and an id that is not used is a row that has to be swept.
        volume.dropOldObjects(now: now)
        guard !volume.objectPool.isEmpty else {
            reserveObjects(for: volume)
            return endSearch(search, nextLook: now)
        }
        let first = volume.description.policy.move == .lru ? leastRecent(free, of: volume) : free[0]
        // Neighbours in address order make long extents: start where the object-sized window of the chosen block starts.
        let window = UInt64(search.limit)
        let start = BlockID(first.block.rawValue / window * window)
        search.step = .neighbours
        let operation = operation(.moveCandidates(search))
        actions.append(.fetchMoveCandidates(operation, volume.id, from: start, limit: search.limit))
    }

    /// The candidate whose bytes were not used since the image last looked, else the first.
    private func leastRecent(_ items: [ItemRow], of volume: VolumeOwner) -> ItemRow {
        items.first { item in
            guard let cached = volume.image.item(item.block) else { return true }
            return !cached.isVisited
        } ?? items[0]
    }

    private mutating func chooseNeighbours(_ candidates: MoveCandidates, _ search: MoveSearch, now: MonotonicTime) {
        let volume = search.volume
        for item in candidates.items where search.chosen.count + search.missing.count < search.limit {
            if let moving = volume.moving[item.block], moving.until > now, moving.version == item.version { continue }
            if let cached = volume.image.item(item.block), !cached.isMoved, cached.isInMemory {
                let row = ItemRow(
                    block: item.block,
                    version: cached.version,
                    checksum: cached.checksum,
                    isMoved: false
                )
                search.chosen.append(ItemBytes(row: row, bytes: volume.image.slab.bytes(at: cached.place)))
            } else {
                search.missing.append(item.block)
            }
        }
        guard search.missing.isEmpty else {
            search.step = .bytes
            let operation = operation(.moveBytes(search))
            actions.append(.loadBytes(operation, volume.id, search.missing))
            return
        }
        assign(search, now: now)
    }

    mutating func moveBytesLoaded(_ search: MoveSearch, _ result: Result<[ItemBytes], StoreFailure>, now: MonotonicTime)
    {
        let volume = search.volume
        guard !volume.isLost else { return actions.append(.answer(search.ticket, .moveWork(nil))) }
        switch result {
        case .success(let items):
            let until = now.advanced(byNanoseconds: OwnerLimits.moveTimeout)
            for item in items where !item.row.isMoved {
                // A damaged item is never spread by a move (I11), nor may it keep those behind it from being moved.
                guard isWhole(item, in: volume) else {
                    volume.moving[item.row.block] = (item.row.version, until)
                    actions.append(.note("volume \(volume.id) block \(item.row.block): item damaged, not moved (I11)"))
                    continue
                }
                search.chosen.append(item)
            }
            search.chosen.sort { $0.row.block < $1.row.block }
            assign(search, now: now)
        case .failure:
            endSearch(search, nextLook: now.advanced(byNanoseconds: OwnerLimits.idleLook))
        }
    }

    private mutating func assign(_ search: MoveSearch, now: MonotonicTime) {
        let volume = search.volume
        guard !search.chosen.isEmpty, let object = volume.takeObject(now: now) else {
            return endSearch(search, nextLook: now.advanced(byNanoseconds: OwnerLimits.idleLook / 4))
        }
        if volume.objectPool.count < OwnerLimits.objectsReservedAtOnce / 4 { reserveObjects(for: volume) }
        let until = now.advanced(byNanoseconds: OwnerLimits.moveTimeout)
        for item in search.chosen { volume.moving[item.row.block] = (item.row.version, until) }
        volume.isLookingForMoves = false
        if search.isInBackground { nextBackgroundMove = now.advanced(byNanoseconds: configuration.busyPause) }
        let assignment = MoveAssignment(volume: volume.description, object: object, blocks: search.chosen)
        actions.append(.answer(search.ticket, .moveWork(assignment)))
    }

    // MARK: Maps

    /// Maps an object (M1, M4, M6) in the owner's order; answered with `count`.
    public mutating func map(
        _ ticket: Ticket,
        volume id: VolumeID,
        map: ObjectMap,
        deadline: MonotonicTime,
        now: MonotonicTime
    ) {
        guard let volume = owned(id) else { return refuse(ticket, .notOwner(nil)) }
        guard !map.slots.isEmpty, map.slots.allSatisfy({ $0.block.rawValue < volume.geometry.blockCount }) else {
            return refuse(ticket, .invalid("a map without slots, or of blocks beyond the volume"))
        }
        let ranges = Self.normalized(map.slots.map { BlockRange(first: $0.block, count: 1) })
        let command = Command(
            kind: .map(map),
            ticket: ticket,
            ranges: ranges,
            isExclusive: true,
            deadline: deadline
        )
        enter(command, of: volume, now: now)
    }

    // MARK: Eviction

    /// Evicts moved items of all owned volumes down to their policies' limits, a batch of each volume at a time; answered
    /// with `count` once the first of these batches is durable, or at once where there is nothing to do.
    public mutating func requestEviction(_ ticket: Ticket, now: MonotonicTime) {
        var waiting: Ticket? = ticket
        let candidates = volumes.values.compactMap { slot -> VolumeOwner? in
            guard
                case .owned(let volume) = slot, evictableItems(of: volume) != nil, !volume.isLookingForEvictions,
                now >= volume.nextEvictionLook
            else { return nil }
            return volume
        }
        for volume in candidates.sorted(by: { $0.id < $1.id }) {
            guard let excess = evictableItems(of: volume) else { continue }
            volume.isLookingForEvictions = true
            let limit = Int(min(excess, UInt64(OwnerLimits.evictionsAtOnce)))
            let operation = operation(.evictions(volume, waiting))
            waiting = nil
            actions.append(.fetchEvictionCandidates(operation, volume.id, limit: limit))
        }
        if let waiting { actions.append(.answer(waiting, .count(0, left: 0))) }
    }

    /// Moved items above the policy's limit; nil where there is none.
    func evictableItems(of volume: VolumeOwner) -> UInt64? {
        let maximum = volume.description.policy.cachedBytesMaximum / volume.blockBytes
        guard volume.cachedItems > maximum, volume.cachedItems > volume.unmovedItems else { return nil }
        return min(volume.cachedItems - maximum, volume.cachedItems - volume.unmovedItems)
    }

    /// The store read moved items.
    public mutating func evictionCandidatesFetched(
        _ id: OperationID,
        _ result: Result<[ItemRow], StoreFailure>,
        now: MonotonicTime
    ) {
        guard case .evictions(let volume, let ticket)? = operations.removeValue(forKey: id) else { return }
        var rows: [ItemRow] = []
        if case .success(let found) = result { rows = found.filter { $0.block.rawValue < volume.geometry.blockCount } }
        guard !volume.isLost, !rows.isEmpty else {
            volume.isLookingForEvictions = false
            // No moved items: put right what zeroing regions outside memory made drift.
            if case .success = result { volume.cachedItems = volume.unmovedItems }
            volume.nextEvictionLook = now.advanced(byNanoseconds: OwnerLimits.idleLook)
            if let ticket { actions.append(.answer(ticket, .count(0, left: 0))) }
            return
        }
        let evictions = rows.map { Eviction(block: $0.block, version: $0.version) }.sorted { $0.block < $1.block }
        let ranges = Self.normalized(evictions.map { BlockRange(first: $0.block, count: 1) })
        let command = Command(
            kind: .evict(evictions),
            ticket: ticket,
            ranges: ranges,
            isExclusive: true,
            deadline: MonotonicTime(.max)
        )
        enter(command, of: volume, now: now)
    }

    // MARK: Compaction

    /// Finds a sparse object to rewrite; answered with `compactionWork`.
    public mutating func requestCompactionWork(_ ticket: Ticket, now: MonotonicTime) {
        lookForCompaction(ticket, looksLeft: OwnerLimits.compactionLooksMaximum, now: now)
    }

    /// Looks at one volume after the other, until there is work for who asks: they come back only after a rest.
    private mutating func lookForCompaction(_ ticket: Ticket, looksLeft: Int, now: MonotonicTime) {
        let volumes = ownedVolumes
        guard looksLeft > 0, !mustCompactLater(volumes, now: now), let volume = nextToCompact(volumes, now: now) else {
            return actions.append(.answer(ticket, .compactionWork(nil)))
        }
        lastCompactionLook = volume.id
        volume.isLookingForCompactions = true
        // Also where the policy wants none: what lies on a server that is drained has to go elsewhere.
        let percent = volume.description.policy.compactBelowPercent
        let operation = operation(.compactions(volume, ticket, looksLeft: looksLeft - 1))
        actions.append(.fetchCompactionCandidates(operation, volume.id, belowPercent: percent, limit: 16))
    }

    /// The volume of which most is dead, where that is urgent; else each in turn, so that of many none is always behind others.
    private func nextToCompact(_ volumes: [VolumeOwner], now: MonotonicTime) -> VolumeOwner? {
        func isDue(_ volume: VolumeOwner) -> Bool {
            !volume.isLookingForCompactions && now >= volume.nextCompactionLook
        }
        if hasMuchDead(volumes) {
            let most = volumes.filter { isDue($0) && $0.deadBlocks > 0 }
                .max { $0.deadBlocks * $0.blockBytes < $1.deadBlocks * $1.blockBytes }
            if let most { return most }
        }
        let start = volumes.firstIndex { $0.id > lastCompactionLook } ?? 0
        return (volumes[start...] + volumes[..<start]).first(where: isDue)
    }

    /// Whether compaction has to wait, so that initiators do not notice it. What is overwritten meanwhile need not be copied.
    private func mustCompactLater(_ volumes: [VolumeOwner], now: MonotonicTime) -> Bool {
        now < busyUntil && now < nextBackgroundCompaction && !hasMuchDead(volumes)
    }

    private func hasMuchDead(_ volumes: [VolumeOwner]) -> Bool {
        var dead: UInt64 = 0
        var mapped: UInt64 = 0
        for volume in volumes {
            dead += volume.deadBlocks * volume.blockBytes
            mapped += volume.mappedBlocks * volume.blockBytes
        }
        return dead > max(configuration.deadBytesSlack, mapped / OwnerLimits.urgentDeadDivisor)
    }

    /// The store read sparse objects and their extents.
    public mutating func compactionCandidatesFetched(
        _ id: OperationID,
        _ result: Result<[(ObjectRow, [Extent])], StoreFailure>,
        now: MonotonicTime
    ) {
        guard case .compactions(let volume, let ticket, let looksLeft)? = operations.removeValue(forKey: id) else {
            return
        }
        volume.isLookingForCompactions = false
        guard !volume.isLost, case .success(let rows) = result else {
            return actions.append(.answer(ticket, .compactionWork(nil)))
        }
        volume.dropOldObjects(now: now)
        // Only where there is something to rewrite: of many volumes most have nothing.
        guard !volume.objectPool.isEmpty || rows.isEmpty else {
            reserveObjects(for: volume)
            return actions.append(.answer(ticket, .compactionWork(nil)))
        }
        volume.compacting = volume.compacting.filter { $0.value > now }
        let slotsMaximum = min(
            UInt64(Limits.objectTargetBytes) / volume.blockBytes,
            UInt64(Limits.objectSlotsMaximum)
        )
        var extents: [Extent] = []
        var slots: UInt64 = 0
        let end = BlockID(volume.geometry.blockCount)
        let percent = UInt64(volume.description.policy.compactBelowPercent)
        var isDrain = false
        for (row, live) in rows where volume.compacting[row.object] == nil {
            // What refers to it behind the end is to go first.
            guard live.allSatisfy({ $0.blocks.end <= end }) else { continue }
            var live = live
            var count = live.reduce(0) { $0 + $1.blocks.count }
            if count > slotsMaximum, extents.isEmpty {
                // Copies share its slots, or its server is drained: it goes in pieces.
                live = Self.firstBlocks(of: live, slotsMaximum)
                count = slotsMaximum
            }
            guard count > 0, slots + count <= slotsMaximum else { continue }
            extents.append(contentsOf: live)
            slots += count
            isDrain = isDrain || UInt64(row.liveSlots) * 100 >= UInt64(row.slots) * percent
            volume.compacting[row.object] = now.advanced(byNanoseconds: OwnerLimits.moveTimeout)
        }
        if rows.isEmpty { volume.deadBlocks = 0 }
        guard !extents.isEmpty, let object = volume.takeObject(now: now) else {
            volume.nextCompactionLook = now.advanced(byNanoseconds: 5 * OwnerLimits.idleLook)
            return lookForCompaction(ticket, looksLeft: looksLeft, now: now)
        }
        // An operator waits for what is on a server that is drained.
        if !isDrain { nextBackgroundCompaction = now.advanced(byNanoseconds: configuration.busyPause) }
        extents.sort { $0.blocks.first < $1.blocks.first }
        let assignment = CompactionAssignment(volume: volume.description, object: object, extents: extents)
        actions.append(.answer(ticket, .compactionWork(assignment)))
    }

    /// The first `count` blocks that extents map, of which there are more.
    private static func firstBlocks(of extents: [Extent], _ count: UInt64) -> [Extent] {
        var left = count
        var first: [Extent] = []
        for extent in extents where left > 0 {
            let taken = min(left, extent.blocks.count)
            first.append(extent.clipped(to: BlockRange(first: extent.blocks.first, count: taken)))
            left -= taken
        }
        return first
    }

    // MARK: Read-fill

    /// Takes note of a block that is read from its object, and fetches a copy for the cache where the policy says so.
    mutating func noteObjectRead(_ extent: Extent, of volume: VolumeOwner) {
        let block = extent.blocks.first
        switch volume.description.policy.readFill {
        case .never: return
        case .always: break
        case .second:
            guard volume.readOnce.contains(block) else {
                if volume.readOnce.count >= OwnerLimits.readOnceMaximum { volume.readOnce = [] }
                volume.readOnce.insert(block)
                return
            }
            volume.readOnce.remove(block)
        }
        // Counted until the copy is entered or given up.
        guard volume.fillsInFlight < OwnerLimits.fillsInFlightMaximum else { return }
        volume.fillsInFlight += 1
        let id = operation(.fillSlot(volume, extent))
        actions.append(.fetchSlot(id, extent, blockSizeBytes: volume.geometry.blockSizeBytes))
    }

    /// Enters a fetched block as a moved item, where its place in the map is still the one it was fetched from.
    mutating func fill(_ extent: Extent, bytes: ByteBuffer, of volume: VolumeOwner, now: MonotonicTime) {
        let block = extent.blocks.first
        guard stillLies(extent, in: volume), !volume.isRefusing else { return }
        volume.fillsInFlight += 1
        let write = ItemWrite(
            block: block,
            version: volume.takeVersion(),
            checksum: bytes.checksum,
            bytes: bytes
        )
        let command = Command(
            kind: .fill(extent, [write]),
            ticket: nil,
            ranges: [extent.blocks],
            isExclusive: true,
            deadline: MonotonicTime(.max)
        )
        enter(command, of: volume, now: now)
    }

    /// Whether a block is in memory's map as lying at one place of an object, without an item.
    func stillLies(_ extent: Extent, in volume: VolumeOwner) -> Bool {
        let block = extent.blocks.first
        guard
            let region = volume.image.region(MemoryImage.regionIndex(of: block)), !region.isLoading,
            region.items[block] == nil, let known = region.extents.extent(holding: block)
        else { return false }
        let here = known.clipped(to: extent.blocks)
        return here.object == extent.object && here.firstSlot == extent.firstSlot
    }

    // MARK: Administration

    /// Moves every unmoved item of a volume, whatever its policy; answered with `count`.
    public mutating func moveNow(_ ticket: Ticket, volume id: VolumeID, now: MonotonicTime) {
        guard let volume = owned(id) else { return refuse(ticket, .notOwner(nil)) }
        if volume.unmovedItems > 0, !volume.isDraining {
            volume.isDraining = true
            volume.nextMoveLook = now
        }
        actions.append(.answer(ticket, .count(0, left: volume.unmovedItems)))
    }

    /// Gives a volume up that is being deleted: its epoch serves no more.
    public mutating func giveUp(_ id: VolumeID, now: MonotonicTime) {
        if let volume = owned(id) { lose(volume, retake: false, now: now) }
        recollections[id] = nil
    }

    /// Numbers of one owned volume.
    public struct VolumeNumbers: Sendable {
        /// The volume.
        public var volume: VolumeID
        /// The epoch served.
        public var epoch: Epoch
        /// Open nexuses.
        public var nexuses: Int
        /// Unmoved items.
        public var unmovedItems: UInt64
        /// Bytes of items.
        public var cachedBytes: UInt64
        /// Reads since the takeover.
        public var reads: UInt64
        /// Writes since the takeover.
        public var writes: UInt64
    }

    /// Numbers of all owned volumes.
    public func numbers() -> [VolumeNumbers] {
        ownedVolumes.map { volume in
            VolumeNumbers(
                volume: volume.id,
                epoch: volume.epoch,
                nexuses: volume.nexuses.count,
                unmovedItems: volume.unmovedItems,
                cachedBytes: volume.cachedItems * volume.blockBytes,
                reads: volume.counters.reads,
                writes: volume.counters.writes
            )
        }
    }
}
