public import AshlarCore
public import NIOCore
public import Ownership

/// The contract of ``BlockStore`` in memory, one call one transaction: what PostgreSQL has to agree with.
///
/// Not a ``BlockStore`` itself: a simulation calls it at the moment in which a transaction takes effect, and decides by itself
/// when, and whether, the answer arrives. Objects' bytes lie here too, as if on an object server that never fails.
public struct ModelStore {
    /// Defects that a test plants to see that its checker finds them.
    public enum Defect: String, Sendable, CaseIterable {
        /// A commit of an epoch that is over is made all the same (I3).
        case noEpochGuard
        /// A move maps whatever version the item has by now (M1).
        case moveIgnoresVersion
        /// A compaction maps its slots whatever the extents say by now (M6).
        case compactionIgnoresExtent
        /// An eviction drops the item whatever its version and wherever its bytes (M3).
        case evictionIgnoresVersion
        /// The marks of what was done are not kept (R4).
        case marksForgotten
        /// A new owner starts with the versions of the first one (M2).
        case versionsStartAgain
        /// Zeroing leaves the extents (M5).
        case zeroLeavesExtents
        /// An object whose intent was given up can be mapped (I6).
        case deadObjectMapped
        /// Objects that extents refer to are collected (M7).
        case referencedCollected
        /// A copy by reference leaves the items that are at its destination (M11).
        case copyKeepsItems
        /// Objects are collected to which only copies refer (M7, M11).
        case copiesNotCounted
        /// Changes of the logical unit's state are not kept.
        case reservationsIgnored
    }

    struct Item {
        var version: Version
        var checksum: Checksum
        var bytes: ByteBuffer
        var isMoved: Bool
        var order: UInt64
    }

    enum ObjectState { case intended, live, dead }

    struct Volume {
        var description: VolumeDescription
        var epoch = Epoch(0)
        var owner: CacheServerID?
        /// Whom it was given up for, and until when nobody else may take it over.
        var handedTo: (server: CacheServerID, until: MonotonicTime)?
        var firstVersion = Version(1)
        var firstNexus = NexusNumber(1)
        var items: [BlockID: Item] = [:]
        var extents = ExtentList()
        var nexuses: [NexusNumber: NexusRow] = [:]
        var usedVersions: Set<Version> = []
        var unit = LogicalUnitState()
        var told: ToldDescription?
    }

    /// The planted defect.
    public var defect: Defect?
    /// Rules that were seen to be broken.
    public private(set) var violations: [String] = []

    /// How long every unmoved item is said to have waited: by default longer than any policy lets it.
    public var itemAgeMilliseconds: UInt64 = 60_000_000

    private var volumes: [VolumeID: Volume] = [:]
    private var servers: [CacheServerID: (endpoint: String, leaseEnd: MonotonicTime)] = [:]
    private var objects: [ObjectID: ObjectState] = [:]
    /// Bytes of objects, by slot.
    public private(set) var stored: [ObjectID: [(block: BlockID, bytes: ByteBuffer)]] = [:]
    private var nextServer: Int64 = 1
    private var nextObject: UInt64 = 1
    private var nextOrder: UInt64 = 1

    /// An empty database with these volumes.
    public init(volumes: [VolumeDescription]) {
        for volume in volumes { self.volumes[volume.id] = Volume(description: volume) }
    }

    // MARK: Leases and epochs

    /// See ``BlockStore/registerServer(name:endpoint:leaseMilliseconds:completion:)``.
    public mutating func register(endpoint: String, lease: UInt64, now: MonotonicTime) -> CacheServerID {
        let id = CacheServerID(nextServer)
        nextServer += 1
        servers[id] = (endpoint, now.advanced(byNanoseconds: lease))
        return id
    }

    /// See ``BlockStore/renewLease(server:leaseMilliseconds:completion:)``.
    public mutating func renew(_ id: CacheServerID, lease: UInt64, now: MonotonicTime) -> Bool {
        guard let server = servers[id], server.leaseEnd > now else { return false }
        servers[id] = (server.endpoint, now.advanced(byNanoseconds: lease))
        return true
    }

    /// See ``BlockStore/takeOver(volume:server:completion:)``.
    public mutating func takeOver(_ id: VolumeID, server: CacheServerID, now: MonotonicTime) -> TakeoverResult {
        guard let own = servers[server], own.leaseEnd > now else { return .leaseEnded }
        guard var volume = volumes[id] else { return .noSuchVolume }
        if let owner = volume.owner, owner != server, let other = servers[owner], other.leaseEnd > now {
            let left = other.leaseEnd.nanoseconds(since: now) / 1_000_000
            return .heldBy(server: owner, endpoint: other.endpoint, leaseLeftMilliseconds: UInt32(left))
        }
        if volume.owner == nil, let (next, until) = volume.handedTo, next != server, until > now,
            let other = servers[next], other.leaseEnd > now
        {
            return .heldBy(server: next, endpoint: other.endpoint, leaseLeftMilliseconds: 0)
        }
        volume.handedTo = nil
        volume.epoch = Epoch(volume.epoch.rawValue + 1)
        volume.owner = server
        volumes[id] = volume
        let unmoved = volume.items.values.filter { !$0.isMoved }.count
        let size = UInt64(volume.description.geometry.blockSizeBytes)
        return .owned(
            Ownership(
                description: volume.description,
                epoch: volume.epoch,
                firstVersion: defect == .versionsStartAgain ? Version(1) : volume.firstVersion,
                firstNexus: volume.firstNexus,
                nexuses: volume.nexuses.values.sorted { $0.number < $1.number },
                unmovedBytes: UInt64(unmoved) * size,
                unmovedItems: UInt64(unmoved),
                cachedBytes: UInt64(volume.items.count) * size,
                objectBytes: volume.extents.extents.reduce(0) { $0 + $1.blocks.count } * size,
                unit: volume.unit,
                told: volume.told
            )
        )
    }

    /// See ``BlockStore/relinquish(volume:epoch:server:successor:completion:)``.
    public mutating func relinquish(
        _ id: VolumeID,
        _ epoch: Epoch,
        from server: CacheServerID,
        to successor: CacheServerID,
        now: MonotonicTime
    ) -> Bool {
        guard var volume = volumes[id], volume.epoch == epoch, volume.owner ?? server == server else { return false }
        volume.owner = nil
        volume.handedTo = (successor, now.advanced(byNanoseconds: 5_000_000_000))
        volumes[id] = volume
        return true
    }

    /// See ``BlockStore/openNexus(volume:epoch:nexus:completion:)``.
    public mutating func openNexus(_ id: VolumeID, _ epoch: Epoch, _ row: NexusRow) -> Bool {
        guard var volume = volumes[id], volume.epoch == epoch else { return false }
        volume.nexuses = volume.nexuses.filter { $0.value.ports != row.ports || $0.key > row.number }
        volume.nexuses[row.number] = row
        volume.firstNexus = max(volume.firstNexus, NexusNumber(row.number.rawValue + 1))
        volumes[id] = volume
        return true
    }

    /// See ``BlockStore/closeNexus(volume:epoch:nexus:completion:)``.
    public mutating func closeNexus(_ id: VolumeID, _ epoch: Epoch, _ nexus: NexusNumber) -> Bool {
        guard var volume = volumes[id], volume.epoch == epoch else { return false }
        volume.nexuses[nexus] = nil
        volumes[id] = volume
        return true
    }

    // MARK: Commits

    /// See ``BlockStore/commit(_:completion:)``.
    public mutating func commit(_ commits: [VolumeCommit]) -> [VolumeCommitResult] {
        commits.map { commit in
            guard var volume = volumes[commit.volume], volume.epoch == commit.epoch || defect == .noEpochGuard else {
                return .fenced
            }
            let detail = apply(commit, to: &volume)
            volumes[commit.volume] = volume
            return .committed(detail)
        }
    }

    private mutating func apply(
        _ commit: VolumeCommit,
        to volume: inout Volume
    ) -> VolumeCommitResult.CommitDetail {
        var detail = VolumeCommitResult.CommitDetail()
        for range in commit.zeros {
            if defect != .zeroLeavesExtents { volume.extents.cut(range) }
            volume.items = volume.items.filter { !range.contains($0.key) }
        }
        for reference in commit.references { apply(reference, to: &volume) }
        let versions = (commit.writes + commit.fills).map(\.version) + Set(commit.references.map(\.version))
        for version in versions where !volume.usedVersions.insert(version).inserted {
            violations.append("M2: version \(version) was used twice")
        }
        for write in commit.writes {
            var order = nextOrder
            if let old = volume.items[write.block], !old.isMoved { order = old.order } else { nextOrder += 1 }
            volume.items[write.block] = Item(
                version: write.version,
                checksum: write.checksum,
                bytes: write.bytes,
                isMoved: false,
                order: order
            )
        }
        detail.mapped = commit.maps.map { apply($0, to: &volume) }
        detail.evicted = commit.evictions.map { eviction in
            guard
                let item = volume.items[eviction.block],
                defect == .evictionIgnoresVersion || (item.isMoved && item.version == eviction.version)
            else { return false }
            volume.items[eviction.block] = nil
            return true
        }
        detail.filled = commit.fills.map { fill in
            guard volume.items[fill.block] == nil else { return false }
            volume.items[fill.block] = Item(
                version: fill.version,
                checksum: fill.checksum,
                bytes: fill.bytes,
                isMoved: true,
                order: nextOrder
            )
            nextOrder += 1
            return true
        }
        for mark in commit.marks where defect != .marksForgotten {
            guard var row = volume.nexuses[mark.nexus] else { continue }
            let lowWater = max(row.mark.lowWater, mark.lowWater)
            let done = Set(row.mark.done).union(mark.done).filter { $0 >= lowWater }
            row.mark = NexusMark(nexus: mark.nexus, lowWater: lowWater, done: done.sorted())
            volume.nexuses[mark.nexus] = row
        }
        if let unit = commit.unit, defect != .reservationsIgnored { volume.unit = unit }
        for entry in commit.attentions { volume.nexuses[entry.nexus]?.attentions = entry.attentions }
        if let told = commit.told { volume.told = told }
        if let ceiling = commit.versionCeiling { volume.firstVersion = max(volume.firstVersion, ceiling) }
        return detail
    }

    private mutating func apply(_ reference: Reference, to volume: inout Volume) {
        let source = reference.source
        for offset in 0..<source.blocks.count {
            let block = source.blocks.first + offset
            let extent = volume.extents.extent(holding: block)?.clipped(to: BlockRange(first: block, count: 1))
            let wanted = source.clipped(to: BlockRange(first: block, count: 1))
            guard extent?.object == wanted.object, extent?.firstSlot == wanted.firstSlot else {
                violations.append("M11: block \(block) does not lie where its copy is to refer to")
                return
            }
        }
        if defect != .copyKeepsItems { volume.items = volume.items.filter { !reference.blocks.contains($0.key) } }
        volume.extents.insert(reference.extent)
    }

    private mutating func apply(_ map: ObjectMap, to volume: inout Volume) -> [Bool]? {
        guard objects[map.object] == .intended || (defect == .deadObjectMapped && objects[map.object] == .dead) else {
            return nil
        }
        objects[map.object] = .live
        return map.slots.enumerated().map { index, slot in
            switch slot.condition {
            case .itemHasVersion:
                guard
                    var item = volume.items[slot.block],
                    item.version == slot.version || defect == .moveIgnoresVersion
                else { return false }
                item.isMoved = true
                volume.items[slot.block] = item
            case .extentNames(let object, let source):
                let extent = volume.extents.extent(holding: slot.block)?.clipped(
                    to: BlockRange(first: slot.block, count: 1)
                )
                guard
                    defect == .compactionIgnoresExtent || (extent?.object == object && extent?.firstSlot == source)
                else { return false }
            case .always: volume.items[slot.block] = nil
            }
            volume.extents.insert(
                Extent(
                    blocks: BlockRange(first: slot.block, count: 1),
                    object: map.object,
                    server: map.server,
                    firstSlot: SlotIndex(UInt32(index))
                )
            )
            return true
        }
    }

    // MARK: Reads

    /// See ``BlockStore/loadRegion(volume:range:completion:)``.
    public func loadRegion(_ id: VolumeID, _ range: BlockRange) -> RegionRows {
        guard let volume = volumes[id] else { return RegionRows(items: [], extents: []) }
        let items = volume.items.filter { range.contains($0.key) }.sorted { $0.key < $1.key }.map {
            ItemRow(block: $0.key, version: $0.value.version, checksum: $0.value.checksum, isMoved: $0.value.isMoved)
        }
        let extents = volume.extents.extents.filter { $0.blocks.overlaps(range) }.map { $0.clipped(to: range) }
        return RegionRows(items: items, extents: extents)
    }

    /// See ``BlockStore/surveyMap(volume:range:rowsMaximum:runsMaximum:completion:)``.
    public func surveyMap(_ id: VolumeID, _ range: BlockRange, rowsMaximum: Int, runsMaximum: Int) -> MapSurvey {
        func part(_ rows: [BlockRange]) -> MapSurvey.Part {
            var runs: [BlockRange] = []
            for row in rows.prefix(rowsMaximum) {
                if let last = runs.last, last.end == row.first {
                    runs[runs.count - 1].count += row.count
                } else if runs.count < runsMaximum {
                    runs.append(row)
                } else {
                    return MapSurvey.Part(runs: runs, isComplete: false)
                }
            }
            return MapSurvey.Part(runs: runs, isComplete: rows.count < rowsMaximum && runs.count < runsMaximum)
        }
        let items = volumes[id]?.items.keys.filter { range.contains($0) }.sorted() ?? []
        let extents = volumes[id]?.extents.extents.filter { $0.blocks.overlaps(range) } ?? []
        return MapSurvey(
            of: range,
            items: part(items.map { BlockRange(first: $0, count: 1) }),
            extents: part(extents.map(\.blocks))
        )
    }

    /// See ``BlockStore/loadBytes(volume:blocks:completion:)``.
    public func loadBytes(_ id: VolumeID, _ blocks: [BlockID]) -> [ItemBytes] {
        blocks.compactMap { block in
            guard let item = volumes[id]?.items[block] else { return nil }
            let row = ItemRow(
                block: block,
                version: item.version,
                checksum: item.checksum,
                isMoved: item.isMoved
            )
            return ItemBytes(row: row, bytes: item.bytes)
        }
    }

    /// See ``BlockStore/fetchMoveCandidates(volume:from:limit:completion:)``; every item is old enough.
    public func moveCandidates(_ id: VolumeID, from: BlockID?, limit: Int) -> MoveCandidates {
        let unmoved = volumes[id]?.items.filter { !$0.value.isMoved } ?? [:]
        let sorted =
            if let from { unmoved.filter { $0.key >= from }.sorted { $0.key < $1.key } } else {
                unmoved.sorted { $0.value.order < $1.value.order }
            }
        let rows = sorted.prefix(limit).map {
            ItemRow(block: $0.key, version: $0.value.version, checksum: $0.value.checksum, isMoved: false)
        }
        return MoveCandidates(items: rows, agesMilliseconds: rows.map { _ in itemAgeMilliseconds })
    }

    /// See ``BlockStore/fetchEvictionCandidates(volume:limit:completion:)``.
    public func evictionCandidates(_ id: VolumeID, limit: Int) -> [ItemRow] {
        let moved = volumes[id]?.items.filter { $0.value.isMoved }.sorted { $0.value.order < $1.value.order } ?? []
        return moved.prefix(limit).map {
            ItemRow(block: $0.key, version: $0.value.version, checksum: $0.value.checksum, isMoved: true)
        }
    }

    /// See ``BlockStore/fetchCompactionCandidates(volume:belowPercent:limit:completion:)``.
    public func compactionCandidates(_ id: VolumeID, belowPercent: UInt8, limit: Int) -> [(ObjectRow, [Extent])] {
        guard let volume = volumes[id] else { return [] }
        return stored.keys.sorted().compactMap { object in
            let live = volume.extents.extents.filter { $0.object == object }
            let count = live.reduce(0) { $0 + $1.blocks.count }
            let slots = stored[object]?.count ?? 0
            guard objects[object] == .live, count > 0, Int(count) * 100 < slots * Int(belowPercent) else { return nil }
            let row = ObjectRow(
                object: object,
                volume: id,
                server: ObjectServerID(1),
                slots: UInt32(slots),
                liveSlots: UInt32(count),
                sizeBytes: 0
            )
            return (row, live)
        }.prefix(limit).map { $0 }
    }

    // MARK: Objects

    /// See ``BlockStore/reserveObjects(volume:count:completion:)``.
    public mutating func reserve(count: Int) -> [ObjectID] {
        (0..<count).map { _ in
            let id = ObjectID(nextObject)
            nextObject += 1
            objects[id] = .intended
            return id
        }
    }

    /// Puts an object's bytes.
    public mutating func put(_ object: ObjectID, _ slots: [(block: BlockID, bytes: ByteBuffer)]) {
        if stored[object] != nil { violations.append("M9: object \(object) was put twice") }
        stored[object] = slots
    }

    /// Reads a slot; nil where the object has gone.
    public func slot(_ object: ObjectID, _ slot: SlotIndex) -> (block: BlockID, bytes: ByteBuffer)? {
        guard let slots = stored[object], slots.indices.contains(Int(slot.rawValue)) else { return nil }
        return slots[Int(slot.rawValue)]
    }

    /// Turns objects without references dead, gives old intents up, and deletes the bytes of what was dead before.
    public mutating func collect() {
        for (object, state) in objects.sorted(by: { $0.key < $1.key }) {
            switch state {
            case .dead: stored[object] = nil
            case .live:
                let isReferenced = volumes.values.contains { volume in
                    volume.extents.extents.contains {
                        $0.object == object && ($0.copy == nil || defect != .copiesNotCounted)
                    }
                }
                if !isReferenced || defect == .referencedCollected { objects[object] = .dead }
            case .intended: break
            }
        }
    }

    /// Gives an intent up.
    public mutating func sweep(_ object: ObjectID) {
        if objects[object] == .intended { objects[object] = .dead }
    }

    /// What became of a block, by items and objects alone: the truth that I8 is about.
    public enum Content {
        /// Its bytes.
        case bytes(ByteBuffer)
        /// It was never written, or made zeros.
        case zeros
        /// An extent names an object whose bytes are gone.
        case lost(ObjectID)
    }

    /// What a block reads as.
    public func content(_ id: VolumeID, _ block: BlockID) -> Content {
        guard let volume = volumes[id] else { return .zeros }
        if let item = volume.items[block] { return .bytes(item.bytes) }
        guard let extent = volume.extents.extent(holding: block) else { return .zeros }
        let place = extent.clipped(to: BlockRange(first: block, count: 1))
        guard let found = self.slot(extent.object, place.firstSlot), found.block == place.origin else {
            return .lost(extent.object)
        }
        return .bytes(found.bytes)
    }

    /// The epoch that a volume has now, and the marks of its nexuses.
    public func state(of id: VolumeID) -> (epoch: Epoch, nexuses: [NexusRow])? {
        volumes[id].map { ($0.epoch, $0.nexuses.values.sorted { $0.number < $1.number }) }
    }

    /// The state of a logical unit as it is durable.
    public func unit(of id: VolumeID) -> LogicalUnitState? { volumes[id]?.unit }

    /// A volume's row.
    public func description(of id: VolumeID) -> VolumeDescription? { volumes[id]?.description }

    /// Changes a volume as an administrator does; what lies beyond a new end goes.
    public mutating func describe(_ description: VolumeDescription) {
        guard var volume = volumes[description.id] else { return }
        let size = UInt64(description.geometry.blockSizeBytes)
        let end = BlockID(description.geometry.sizeBytes / size)
        let old = BlockID(volume.description.geometry.sizeBytes / size)
        volume.items = volume.items.filter { $0.key < end }
        if end < old { volume.extents.cut(BlockRange(from: end, to: old)) }
        volume.description = description
        volumes[description.id] = volume
    }

    /// Versions from this one on have never been handed out, by what is durable (M2).
    public func firstVersion(of id: VolumeID) -> Version? { volumes[id]?.firstVersion }

    /// Changes the bytes of an item behind its checksum's back (I11).
    public mutating func damage(_ id: VolumeID, _ block: BlockID) {
        guard var item = volumes[id]?.items[block], let first = item.bytes.getInteger(at: 0, as: UInt8.self) else {
            return
        }
        item.bytes.setInteger(~first, at: 0)
        volumes[id]?.items[block] = item
    }
}
