public import AshlarCore
public import NIOCore

// What the owner asks of PostgreSQL, as values: the pure core makes requests, a shell hands them to a store and brings the
// answers back as events. PostgresStore and the model store of the tests implement the same contract.
//
// Every request that changes rows of a volume carries the epoch it was made under and changes nothing, not one row, unless
// that epoch is still the volume's (I3): the transaction first takes the shared advisory lock of each of its volumes in a
// statement of its own, then checks the epoch in each following statement.

/// One data block to be written into `block_items`: inserted, or replacing the item that is there.
///
/// The item becomes unmoved. Its place in the queue of unmoved items is kept where it was unmoved already.
public struct ItemWrite: Sendable {
    /// The data block.
    public var block: BlockID
    /// The version the write was given (M2).
    public var version: Version
    /// CRC-32C over the whole block.
    public var checksum: Checksum
    /// The whole block.
    public var bytes: ByteBuffer

    /// A block with the version it gets.
    public init(block: BlockID, version: Version, checksum: Checksum, bytes: ByteBuffer) {
        self.block = block
        self.version = version
        self.checksum = checksum
        self.bytes = bytes
    }
}

/// The blocks that a finished object holds, in slot order, as its map is asked for.
public struct ObjectMap: Sendable {
    /// What must hold of a block for its slot to be mapped.
    public enum Condition: Sendable, Hashable {
        /// A move (M1): its item exists with exactly the version in the slot. The item is marked moved.
        case itemHasVersion
        /// A read-fill or compaction (M6): its extent still names this object and slot. Items are not touched.
        case extentNames(ObjectID, SlotIndex)
        /// A direct write (M4): always. The item, if there is one, is deleted.
        case always
        /// A direct write that is not done: the slot is mapped nowhere.
        case never

        /// Whether it is one of a direct write.
        public var isDirect: Bool { self == .always || self == .never }
    }

    /// One slot of the object.
    public struct Slot: Sendable {
        /// The data block in this slot.
        public var block: BlockID
        /// The version in this slot.
        public var version: Version
        /// When to map it.
        public var condition: Condition

        /// A slot with its condition.
        public init(block: BlockID, version: Version, condition: Condition) {
            self.block = block
            self.version = version
            self.condition = condition
        }
    }

    /// The object; its row must be `intended`, else nothing of the map is done (M1, M9).
    public var object: ObjectID
    /// Where its bytes lie.
    public var server: ObjectServerID
    /// Its size in bytes as it was put.
    public var sizeBytes: UInt64
    /// Slot i of the object is element i. Either all conditions are those of direct writes or none is.
    public var slots: [Slot]
    /// Whether commands are answered by it: where its object is not `intended`, nothing of the whole transaction is done, which
    /// fails as `broken`.
    public var isRequired: Bool

    /// A map of an object that has been put and synced.
    public init(
        object: ObjectID,
        server: ObjectServerID,
        sizeBytes: UInt64,
        slots: [Slot],
        isRequired: Bool = false
    ) {
        self.object = object
        self.server = server
        self.sizeBytes = sizeBytes
        self.slots = slots
        self.isRequired = isRequired
    }
}

/// A run of blocks that becomes a copy of another one by referring to the same slots of an object (M11).
public struct Reference: Sendable, Hashable {
    /// Where the bytes lie: the source's extent, which must still name that object and these slots.
    public var source: Extent
    /// The first block of the copy, which is as long as the source and does not overlap it.
    public var destination: BlockID
    /// The version of the copy (M2).
    public var version: Version

    /// A copy of the blocks of an extent.
    public init(source: Extent, destination: BlockID, version: Version) {
        self.source = source
        self.destination = destination
        self.version = version
    }

    /// This copy and one of the blocks and slots right behind it, as one.
    func joined(with next: Reference) -> Reference? {
        guard let source = ExtentList.joined(source, next.source), next.destination == blocks.end,
            version == next.version
        else { return nil }
        return Reference(source: source, destination: destination, version: version)
    }

    /// The blocks of the copy.
    public var blocks: BlockRange { BlockRange(first: destination, count: source.blocks.count) }

    /// The extent of the copy.
    public var extent: Extent {
        Extent(
            blocks: blocks,
            object: source.object,
            server: source.server,
            firstSlot: source.firstSlot,
            copy: BlockCopy(origin: source.origin, version: version)
        )
    }
}

/// An item to be dropped if it is moved and still has this version (M3).
///
/// Where its slot is known to be damaged and the item is not, it is the last intact copy: it becomes unmoved again instead (I11).
public struct Eviction: Sendable, Hashable {
    /// The data block.
    public var block: BlockID
    /// The version it must have.
    public var version: Version

    /// An item and the version that may be dropped.
    public init(block: BlockID, version: Version) {
        self.block = block
        self.version = version
    }
}

/// All that one commit changes in one volume. The parts take effect in the order of the fields.
///
/// The owner sees to it that parts of commits in flight at the same time never touch the same block.
public struct VolumeCommit: Sendable {
    /// The volume.
    public var volume: VolumeID
    /// The epoch under which the owner made this.
    public var epoch: Epoch
    /// Runs of blocks that become zeros: items deleted, extents cut (M5). Ascending, without overlap.
    public var zeros: [BlockRange] = []
    /// Copies by reference: what was at the destination goes, extents and items (M11).
    public var references: [Reference] = []
    /// Blocks to write, ascending by block, each block at most once.
    public var writes: [ItemWrite] = []
    /// Objects to map.
    public var maps: [ObjectMap] = []
    /// Items to drop, ascending by block.
    public var evictions: [Eviction] = []
    /// Copies of object blocks to keep as moved items, only where no item exists (read-fill); ascending by block.
    public var fills: [ItemWrite] = []
    /// What becomes durable of nexuses; each nexus at most once.
    public var marks: [NexusMark] = []
    /// The first version that has not been handed out, where a new block of versions was taken (M2); else nil.
    public var versionCeiling: Version?
    /// The state of the logical unit, where it changes.
    public var unit: LogicalUnitState?
    /// The unit attention conditions that now wait for these nexuses, in place of those that did; ascending by nexus.
    public var attentions: [NexusAttentions] = []
    /// Nexuses whose changes another one aborts; ascending by nexus.
    public var aborts: [NexusAbort] = []
    /// What the nexuses know of the volume's description from now on, with these conditions.
    public var told: ToldDescription?
    /// Whether nothing lies behind the end of the volume any more (``VolumeDescription/zeroFromBytes``).
    public var isRidOfRemains = false

    /// An empty commit.
    public init(volume: VolumeID, epoch: Epoch) {
        self.volume = volume
        self.epoch = epoch
    }
}

/// What nexuses know of a volume's description: by a login, or by a unit attention condition. What differs from it when a volume
/// is taken over has changed while nobody could tell.
public struct ToldDescription: Sendable, Hashable {
    /// Size of the volume.
    public var sizeBytes: UInt64
    /// Whether it is read-only.
    public var isReadOnly: Bool

    /// A description with each part named.
    public init(sizeBytes: UInt64, isReadOnly: Bool) {
        self.sizeBytes = sizeBytes
        self.isReadOnly = isReadOnly
    }

    /// What of a description is told.
    public init(_ description: VolumeDescription) {
        self.init(sizeBytes: description.geometry.sizeBytes, isReadOnly: description.isReadOnly)
    }
}

/// What became of one volume's part in a commit.
public enum VolumeCommitResult: Sendable {
    /// All of it is durable.
    case committed(CommitDetail)
    /// The volume has another epoch, or none: nothing of this part was changed, nor ever will be.
    case fenced

    /// What the statements found.
    public struct CommitDetail: Sendable {
        /// For each map of the commit: nil where its object was not `intended` any more, else for each slot whether it was
        /// mapped.
        public var mapped: [[Bool]?]
        /// For each eviction whether the item was dropped.
        public var evicted: [Bool]
        /// For each eviction whether the item became unmoved again, since nothing else has its block intact.
        public var returned: [Bool]
        /// For each fill whether the item was inserted.
        public var filled: [Bool]

        /// Details for a commit.
        public init(
            mapped: [[Bool]?] = [],
            evicted: [Bool] = [],
            returned: [Bool] = [],
            filled: [Bool] = []
        ) {
            self.mapped = mapped
            self.evicted = evicted
            self.returned = returned
            self.filled = filled
        }
    }
}

/// Why a store could not do what it was asked.
public enum StoreFailure: Error, Sendable, Hashable {
    /// Nothing was changed; the same request may succeed later (connection refused, serialization failure, disk full…).
    case refused(String)
    /// The connection broke while a change was under way: it may or may not be durable.
    case unknownOutcome(String)
    /// The request can never succeed (corrupt row, missing table): a defect or damage.
    case broken(String)
}

/// One item as the memory image needs it.
public struct ItemRow: Sendable, Hashable {
    /// The data block.
    public var block: BlockID
    /// Its version.
    public var version: Version
    /// CRC-32C over the block.
    public var checksum: Checksum
    /// Whether its bytes are in a mapped object as well.
    public var isMoved: Bool

    /// An item without its bytes.
    public init(block: BlockID, version: Version, checksum: Checksum, isMoved: Bool) {
        self.block = block
        self.version = version
        self.checksum = checksum
        self.isMoved = isMoved
    }
}

/// A run of data blocks that lie side by side in a block object: a row of `block_extents`.
public struct Extent: Sendable, Hashable {
    /// The blocks.
    public var blocks: BlockRange
    /// The object.
    public var object: ObjectID
    /// Where the object lies.
    public var server: ObjectServerID
    /// The slot of the first block.
    public var firstSlot: SlotIndex
    /// What made it, where that was a copy by reference; else nil.
    public var copy: BlockCopy?

    /// A run of blocks and where it lies.
    public init(
        blocks: BlockRange,
        object: ObjectID,
        server: ObjectServerID,
        firstSlot: SlotIndex,
        copy: BlockCopy? = nil
    ) {
        self.blocks = blocks
        self.object = object
        self.server = server
        self.firstSlot = firstSlot
        self.copy = copy
    }

    /// The block that the slot of the first block was written as, and names in the object's header.
    public var origin: BlockID { copy?.origin ?? blocks.first }

    /// The part of the extent that lies in `range`, which must overlap it.
    public func clipped(to range: BlockRange) -> Extent {
        let part = blocks.intersection(range)
        let skipped = part.first - blocks.first
        return Extent(
            blocks: part,
            object: object,
            server: server,
            firstSlot: SlotIndex(firstSlot.rawValue + UInt32(skipped)),
            copy: copy?.dropped(skipped)
        )
    }
}

/// The map of a run of blocks, and the bytes of its items where they were asked for.
public struct RegionRows: Sendable {
    /// Items in the run, ascending by block.
    public var items: [ItemRow]
    /// Extents that overlap the run, clipped to it, ascending.
    public var extents: [Extent]

    /// Rows of one run.
    public init(items: [ItemRow], extents: [Extent]) {
        self.items = items
        self.extents = extents
    }
}

/// The bytes of one item.
public struct ItemBytes: Sendable {
    /// The item.
    public var row: ItemRow
    /// The whole block.
    public var bytes: ByteBuffer

    /// An item with its bytes.
    public init(row: ItemRow, bytes: ByteBuffer) {
        self.row = row
        self.bytes = bytes
    }
}

/// What a new owner knows once it has taken a volume over.
public struct Ownership: Sendable {
    /// The volume's row.
    public var description: VolumeDescription
    /// The epoch that begins.
    public var epoch: Epoch
    /// Versions from this one on have never been handed out (M2).
    public var firstVersion: Version
    /// Nexus numbers from this one on have never been handed out (R3).
    public var firstNexus: NexusNumber
    /// Open nexuses with their marks.
    public var nexuses: [NexusRow]
    /// The state of the logical unit.
    public var unit: LogicalUnitState
    /// What the nexuses know of the description; nil: nobody logged in yet.
    public var told: ToldDescription?

    /// What was read in the transaction that bumped the epoch.
    public init(
        description: VolumeDescription,
        epoch: Epoch,
        firstVersion: Version,
        firstNexus: NexusNumber,
        nexuses: [NexusRow],
        unit: LogicalUnitState = LogicalUnitState(),
        told: ToldDescription? = nil
    ) {
        self.description = description
        self.epoch = epoch
        self.firstVersion = firstVersion
        self.firstNexus = firstNexus
        self.nexuses = nexuses
        self.unit = unit
        self.told = told
    }
}

/// How much there is of a volume, without what a shrink has left behind its end.
public struct VolumeCounts: Sendable, Hashable {
    /// Unmoved items.
    public var unmovedItems: UInt64
    /// All items.
    public var items: UInt64
    /// Blocks that lie in extents.
    public var objectBlocks: UInt64

    /// What was counted in one snapshot.
    public init(unmovedItems: UInt64, items: UInt64, objectBlocks: UInt64) {
        self.unmovedItems = unmovedItems
        self.items = items
        self.objectBlocks = objectBlocks
    }
}

/// The answer to an attempt to own a volume.
public enum TakeoverResult: Sendable {
    /// The volume is ours, under a new epoch.
    case owned(Ownership)
    /// Another server with a living lease owns it.
    case heldBy(server: CacheServerID, endpoint: String, leaseLeftMilliseconds: UInt32)
    /// There is no such volume.
    case noSuchVolume
    /// This server's own lease has ended in PostgreSQL: it must register anew.
    case leaseEnded
}

/// What `fetchMoveCandidates` may return at once, and where to continue.
public struct MoveCandidates: Sendable {
    /// Unmoved items in queue order.
    public var items: [ItemRow]
    /// For each item how long ago it first became unmoved, in milliseconds of the database's clock.
    public var agesMilliseconds: [UInt64]

    /// A page of candidates.
    public init(items: [ItemRow], agesMilliseconds: [UInt64]) {
        self.items = items
        self.agesMilliseconds = agesMilliseconds
    }
}

/// A row of `block_objects` as the collector and the compactor see it.
public struct ObjectRow: Sendable, Hashable {
    /// The object.
    public var object: ObjectID
    /// The volume its blocks belong to.
    public var volume: VolumeID
    /// Where it lies.
    public var server: ObjectServerID
    /// Its slots.
    public var slots: UInt32
    /// Slots that extents refer to.
    public var liveSlots: UInt32
    /// Its size in bytes.
    public var sizeBytes: UInt64

    /// A row of an object.
    public init(
        object: ObjectID,
        volume: VolumeID,
        server: ObjectServerID,
        slots: UInt32,
        liveSlots: UInt32,
        sizeBytes: UInt64
    ) {
        self.object = object
        self.volume = volume
        self.server = server
        self.slots = slots
        self.liveSlots = liveSlots
        self.sizeBytes = sizeBytes
    }
}

/// What the owner and its shell ask of the store. Completions run on a thread of the store's choosing, once each, also when
/// the store is shut down (with `refused`).
public protocol BlockStore: Sendable {
    /// Runs one transaction over all volumes of a batch; each volume is guarded and counted by itself.
    ///
    /// The result has one element for each element of `commits`, in order. A failure holds for the whole transaction.
    func commit(
        _ commits: [VolumeCommit],
        completion: @escaping @Sendable (Result<[VolumeCommitResult], StoreFailure>) -> Void
    )

    /// Reads the map of a run of blocks. Reads are not guarded: the caller holds the lease and the range (I2, R8).
    func loadRegion(
        volume: VolumeID,
        range: BlockRange,
        completion: @escaping @Sendable (Result<RegionRows, StoreFailure>) -> Void
    )

    /// Counts what there is of a volume, in one snapshot. Takes as long as there is much of it.
    func countVolume(
        volume: VolumeID,
        completion: @escaping @Sendable (Result<VolumeCounts, StoreFailure>) -> Void
    )

    /// Looks which blocks of a run are mapped, in one snapshot: at no more rows of items than `rowsMaximum`, nor of extents, and
    /// until there are `runsMaximum` runs of blocks with items, or with extents. Reads no bytes.
    func surveyMap(
        volume: VolumeID,
        range: BlockRange,
        rowsMaximum: Int,
        runsMaximum: Int,
        completion: @escaping @Sendable (Result<MapSurvey, StoreFailure>) -> Void
    )

    /// Reads the bytes of items; a block without an item is left out of the answer.
    func loadBytes(
        volume: VolumeID,
        blocks: [BlockID],
        completion: @escaping @Sendable (Result<[ItemBytes], StoreFailure>) -> Void
    )

    /// Registers a new process of a cache server with a lease from now, on the database's clock.
    func registerServer(
        name: String,
        endpoint: String,
        leaseMilliseconds: UInt32,
        completion: @escaping @Sendable (Result<CacheServerID, StoreFailure>) -> Void
    )

    /// Extends the lease; `false` where it has ended or was released.
    func renewLease(
        server: CacheServerID,
        leaseMilliseconds: UInt32,
        completion: @escaping @Sendable (Result<Bool, StoreFailure>) -> Void
    )

    /// Ends the lease of every registration under `name` but `except`: for a server that stops, and for who saw one end.
    func releaseLeases(
        name: String,
        except: CacheServerID?,
        completion: @escaping @Sendable (Result<Void, StoreFailure>) -> Void
    )

    /// Takes a volume over: waits for transactions of the old epoch, bumps it, reads what the owner needs (I3).
    func takeOver(
        volume: VolumeID,
        server: CacheServerID,
        completion: @escaping @Sendable (Result<TakeoverResult, StoreFailure>) -> Void
    )

    /// Gives a volume up for another server: whoever is not that one has to wait for a while before it may take the volume over.
    /// `false` where another epoch serves. Asked again it does no harm.
    func relinquish(
        volume: VolumeID,
        epoch: Epoch,
        server: CacheServerID,
        successor: CacheServerID,
        completion: @escaping @Sendable (Result<Bool, StoreFailure>) -> Void
    )

    /// Records a login: closes every older nexus between the same ports, then inserts this one (R3). Guarded by the epoch;
    /// `false` where it was fenced.
    func openNexus(
        volume: VolumeID,
        epoch: Epoch,
        nexus: NexusRow,
        completion: @escaping @Sendable (Result<Bool, StoreFailure>) -> Void
    )

    /// Records a logout; guarded by the epoch; `false` where it was fenced.
    func closeNexus(
        volume: VolumeID,
        epoch: Epoch,
        nexus: NexusNumber,
        completion: @escaping @Sendable (Result<Bool, StoreFailure>) -> Void
    )

    /// Hands out object ids, each with a committed row in state `intended` (I6).
    func reserveObjects(
        volume: VolumeID,
        count: Int,
        completion: @escaping @Sendable (Result<[ObjectID], StoreFailure>) -> Void
    )

    /// Reads unmoved items in queue order (or in block order from `from` on, where it is given): keys, no bytes.
    func fetchMoveCandidates(
        volume: VolumeID,
        from: BlockID?,
        limit: Int,
        completion: @escaping @Sendable (Result<MoveCandidates, StoreFailure>) -> Void
    )

    /// Reads moved items, oldest write first: what may be evicted.
    func fetchEvictionCandidates(
        volume: VolumeID,
        limit: Int,
        completion: @escaping @Sendable (Result<[ItemRow], StoreFailure>) -> Void
    )

    /// Reads live objects of a volume whose live share is below `percent`, sparsest first, with the extents that refer to them.
    func fetchCompactionCandidates(
        volume: VolumeID,
        belowPercent: UInt8,
        limit: Int,
        completion: @escaping @Sendable (Result<[(ObjectRow, [Extent])], StoreFailure>) -> Void
    )

    /// Turns old intents and unreferenced live objects of all volumes to `dead` (M7), and returns dead ones whose grace
    /// period has passed, to be deleted from their object server. Ages are on the database's clock.
    func collectObjects(
        intentAgeMilliseconds: UInt64,
        graceMilliseconds: UInt64,
        limit: Int,
        completion: @escaping @Sendable (Result<[ObjectRow], StoreFailure>) -> Void
    )

    /// Removes the rows of dead objects whose bytes have been deleted.
    func forgetObjects(
        _ objects: [ObjectID],
        completion: @escaping @Sendable (Result<Void, StoreFailure>) -> Void
    )

    /// Which of these objects have a row (M8): for the scan of an object server, which lists first and asks then.
    func knownObjects(
        _ objects: [ObjectID],
        completion: @escaping @Sendable (Result<Set<ObjectID>, StoreFailure>) -> Void
    )

    /// Reads the descriptions of volumes, in the order of their names, behind the name `after`.
    func volumes(
        after: String?,
        limit: Int,
        completion: @escaping @Sendable (Result<[VolumeDescription], StoreFailure>) -> Void
    )

    /// Reads one volume by its iSCSI name.
    func volume(
        iqn: String,
        completion: @escaping @Sendable (Result<VolumeDescription?, StoreFailure>) -> Void
    )

    /// Records that a target lives, and the sessions it has.
    func heartbeat(
        _ heartbeat: TargetHeartbeat,
        completion: @escaping @Sendable (Result<Void, StoreFailure>) -> Void
    )

    /// Records that a target lives, and returns all that do, by name. Whether one is draining is what an operator has set.
    func report(
        _ node: TargetNodeState,
        completion: @escaping @Sendable (Result<[TargetNodeState], StoreFailure>) -> Void
    )
}

/// What a target tells of itself every few seconds.
public struct TargetHeartbeat: Sendable, Hashable {
    /// Its configured name.
    public var node: String
    /// The advertised iSCSI portal, `address:port`.
    public var portal: String
    /// Its portal group tag.
    public var portalGroupTag: UInt16
    /// Its release.
    public var release: String
    /// Sessions that are logged in now.
    public var sessions: UInt32

    /// A sign of life.
    public init(node: String, portal: String, portalGroupTag: UInt16, release: String, sessions: UInt32) {
        self.node = node
        self.portal = portal
        self.portalGroupTag = portalGroupTag
        self.release = release
        self.sessions = sessions
    }
}
