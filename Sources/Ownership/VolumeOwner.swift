package import AshlarCore
import DequeModule

/// What the owner holds of one volume under one epoch. Dropped as a whole when the epoch ends.
package final class VolumeOwner {
    var description: VolumeDescription
    let epoch: Epoch
    /// The next version to hand out (M2).
    var nextVersion: Version
    /// Versions below this one are covered by what is durable: a new owner starts at or above it.
    var durableCeiling: Version
    /// The next nexus number to hand out (R3).
    var nextNexus: NexusNumber
    package internal(set) var nexuses: [NexusNumber: Nexus] = [:]
    var order = RangeOrder()
    var image: MemoryImage
    /// Bulk commands under way: regions that they overlap are not loaded meanwhile.
    var bulk: [Command] = []
    /// Commands whose regions wait for a bulk command to finish.
    var blockedByBulk: [Command] = []
    /// Whether the store looks at the map for a command.
    var isSurveying = false
    /// Commands that want the map looked at, in order of arrival.
    var surveysWaiting: Deque<Command> = []
    /// Commits applied since the takeover.
    var appliedCommits: UInt64 = 0
    /// When the volume was taken over.
    let takenAt: MonotonicTime
    /// Where it is being handed over to.
    var handOver: HandOver?
    /// Set when the epoch is over: whatever comes back for this object is ignored.
    var isLost = false

    // Numbers. They begin at 0 and hold what has come since; what there was is added when the store has counted it, so that a volume
    // is served at once however much there is of it. Zeroing regions that are not in memory makes the first two drift, and so do
    // commits while it is counted; the candidates' queries put them right. The third one drifts until the next takeover counts.
    /// Changed by ``CacheOwner/countUnmoved(_:of:)`` alone, which keeps the sum of all volumes.
    fileprivate(set) var unmovedItems: UInt64 = 0
    var cachedItems: UInt64 = 0
    /// Whether what there was at the takeover is in them.
    var isCounted = false
    /// The number of commits at which the first one was seen to be right.
    var exactSinceCommit: UInt64?
    /// Data blocks with an item or an extent.
    private(set) var mappedBlocks: UInt64 = 0
    var counters = UnitCounters()
    /// What this volume has in the memory image.
    var imageBytes = 0

    // The logical unit.
    /// Its state: what is durable of it.
    var unit: LogicalUnitState
    /// The command that changes the state now; others wait in `heldByChange`, in order of arrival.
    var unitChange: Command?
    var heldByChange: Deque<Command> = []
    /// Commands that are durable and not answered: until an erasure has ended, or what they aborted has.
    var lingering: [Command] = []
    /// Nexuses whose unit attention conditions are not durable as they are.
    var changedAttentions: Set<NexusNumber> = []
    /// What the nexuses know of the description, with the conditions that wait for them.
    var told: ToldDescription?
    /// Whether that is not durable as it is.
    var isToldChanged = false

    // Moves.
    /// Blocks that are with agents, with the time at which they are given out again.
    var moving: [BlockID: (version: Version, until: MonotonicTime)] = [:]
    /// Reserved object ids whose intents are committed.
    var objectPool: Deque<ObjectID> = []
    /// When the pool was last filled: an intent that has grown old is given up by the collector, and its id with it.
    var objectPoolFilled = MonotonicTime(0)
    var isReservingObjects = false
    /// Objects handed out for direct writes.
    package var direct = DirectWrites()
    /// No look for work before this time.
    var nextMoveLook = MonotonicTime(0)
    /// When to look for unmoved items though the counter says that there are none.
    var nextDriftLook = MonotonicTime(0)
    var nextCompactionLook = MonotonicTime(0)
    var nextEvictionLook = MonotonicTime(0)
    var isLookingForMoves = false
    var isLookingForEvictions = false
    var isLookingForCompactions = false
    /// Blocks in objects that were overwritten or became zeros, as far as memory knew of them, since nothing was there to compact.
    var deadBlocks: UInt64 = 0
    /// An operator asked for everything to be moved.
    var isDraining = false
    /// Objects being compacted, with the time at which they are given out again.
    var compacting: [ObjectID: MonotonicTime] = [:]
    /// Blocks read once from an object, for the read-fill policy `second`.
    var readOnce: Set<BlockID> = []
    var fillsInFlight = 0

    // What a larger volume has left behind the end.
    /// Blocks that may hold something of it; nil: there is none.
    var remains: BlockRange?
    /// Whether a step of its removal is under way.
    var isLookingForRemains = false
    /// No step before this time.
    var nextRemainsLook = MonotonicTime(0)
    /// Whether less is served than the size of the volume, until that is gone.
    var isCutShort: Bool

    init(_ ownership: Ownership, slab: BlockSlab, now: MonotonicTime) {
        image = MemoryImage(slab: slab)
        takenAt = now
        nextDriftLook = now.advanced(byNanoseconds: OwnerLimits.driftLook)
        description = ownership.description.servable
        remains = ownership.description.remains
        isCutShort = description.geometry != ownership.description.geometry
        epoch = ownership.epoch
        nextVersion = ownership.firstVersion
        durableCeiling = ownership.firstVersion
        nextNexus = ownership.firstNexus
        unit = ownership.unit
        told = ownership.told
        // R2: of nexuses between the same ports the newest counts; an older row is what a lost login left behind.
        var newest: [InitiatorTargetNexus: NexusRow] = [:]
        for row in ownership.nexuses where row.number > newest[row.ports]?.number ?? NexusNumber(0) {
            newest[row.ports] = row
        }
        for row in newest.values { nexuses[row.number] = Nexus(row: row, state: .unresumed, now: now) }
    }

    /// Sets the number of mapped blocks, of which there are no more than blocks.
    func setMapped(_ blocks: UInt64) { mappedBlocks = min(blocks, geometry.sizeBytes / blockBytes) }

    /// Counts blocks that are zeros now: `known` of them were mapped; of others in the range that is not known.
    func unmap(_ range: BlockRange, known: UInt64) {
        let blocks = geometry.sizeBytes / blockBytes
        mappedBlocks = min(mappedBlocks - min(known, mappedBlocks), blocks - min(range.count, blocks))
    }

    var id: VolumeID { description.id }
    /// Whether commands are refused, because it is being handed over.
    var isRefusing: Bool { handOver?.isRefusing ?? false }
    var geometry: Geometry { description.geometry }
    var blockBytes: UInt64 { UInt64(description.geometry.blockSizeBytes) }
    var unmovedBytes: UInt64 { unmovedItems * blockBytes }

    /// The nexus that holds the unit by RESERVE (6), as long as it is there.
    var reserveHolder: NexusNumber? { unit.reservedBy.flatMap { nexuses[$0]?.number } }

    /// The nexuses whose unit attention conditions the next commit makes durable; those of a login that is not yet durable wait
    /// for it.
    var attentionsToCommit: Set<NexusNumber> {
        changedAttentions.filter { number in nexuses[number].map { $0.state != .opening } ?? false }
    }

    /// The counters, with what is mapped.
    var currentCounters: UnitCounters {
        var counters = counters
        counters.mappedBytes = mappedBlocks * blockBytes
        return counters
    }

    /// The next reserved object id whose intent is young enough to be mapped; nil where there is none.
    func takeObject(now: MonotonicTime) -> ObjectID? {
        dropOldObjects(now: now)
        return objectPool.popFirst()
    }

    /// Drops reserved ids whose intents the collector may have given up.
    func dropOldObjects(now: MonotonicTime) {
        guard now.nanoseconds(since: objectPoolFilled) >= OwnerLimits.objectReservation else { return }
        objectPool = []
    }

    func takeVersion() -> Version {
        let version = nextVersion
        nextVersion = Version(version.rawValue + 1)
        return version
    }
}

extension CacheOwner {
    /// Lets a nexus know of something with its next command.
    mutating func tell(_ nexus: Nexus, _ attention: UnitAttention, of volume: VolumeOwner) {
        nexus.add(attention)
        noteAttentions(of: [nexus.number], volume)
    }

    /// Lets all nexuses know of something.
    mutating func tellAll(_ attention: UnitAttention, of volume: VolumeOwner) {
        for nexus in volume.nexuses.values { nexus.add(attention) }
        noteAttentions(of: Array(volume.nexuses.keys), volume)
    }

    /// Lets all nexuses know of what in the description differs from what they know, and has that made durable.
    mutating func tellDescription(of volume: VolumeOwner) {
        let current = ToldDescription(volume.description)
        // Who logs in first knows it by that.
        guard volume.told != current, volume.told != nil || !volume.nexuses.isEmpty else { return }
        if let told = volume.told {
            if told.sizeBytes != current.sizeBytes { tellAll(.capacityChanged, of: volume) }
            // WP stands in the header of the mode parameters.
            if told.isReadOnly != current.isReadOnly { tellAll(.modeParametersChanged, of: volume) }
        }
        noteTold(current, of: volume)
    }

    /// Has made durable with the next commit what the nexuses know of the description.
    mutating func noteTold(_ told: ToldDescription, of volume: VolumeOwner) {
        volume.told = told
        volume.isToldChanged = true
        untold.insert(volume.id)
    }

    /// Forgets commands of a nexus whose answers have arrived, and what was reported with them.
    mutating func raiseLowWater(of nexus: Nexus, to mark: CommandID, _ volume: VolumeOwner) {
        if nexus.raiseLowWater(to: mark) { noteAttentions(of: [nexus.number], volume) }
    }

    /// Has the conditions of nexuses made durable as they are now, with the next commit.
    mutating func noteAttentions(of numbers: [NexusNumber], _ volume: VolumeOwner) {
        guard !volume.isLost, !numbers.isEmpty else { return }
        volume.changedAttentions.formUnion(numbers)
        untold.insert(volume.id)
    }

    /// Sets the number of unmoved items of a volume, and with it the sum.
    mutating func setUnmoved(_ count: UInt64, of volume: VolumeOwner) {
        guard !volume.isLost else { return }
        unmovedBytes = unmovedBytes - volume.unmovedBytes
        volume.unmovedItems = count
        unmovedBytes += volume.unmovedBytes
        // A drain ends with the queue: what is written later goes by the policy again.
        if count == 0 { volume.isDraining = false }
    }

    /// Counts unmoved items that came or went; never below zero.
    mutating func countUnmoved(_ change: Int, of volume: VolumeOwner) {
        let magnitude = UInt64(change.magnitude)
        setUnmoved(
            change < 0 ? volume.unmovedItems - min(magnitude, volume.unmovedItems) : volume.unmovedItems + magnitude,
            of: volume
        )
    }

    /// Owned volumes in the order of their ids: whatever decides the order of actions must not come from a hash table.
    var ownedVolumes: [VolumeOwner] {
        volumes.values.compactMap { slot in
            if case .owned(let volume) = slot { volume } else { nil }
        }.sorted { $0.id < $1.id }
    }
}
