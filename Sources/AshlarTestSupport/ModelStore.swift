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
        /// It is not kept which nexuses had their commands aborted (R9).
        case abortsForgotten
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
        /// It is not kept that something lies behind the end of a volume that shrank.
        case remainsForgotten
        /// Object ids are handed out a second time (M9).
        case idsReused
    }

    struct Item {
        var version: Version
        var checksum: Checksum
        var bytes: ByteBuffer
        var isMoved: Bool
        var order: UInt64
    }

    /// What becomes of an object (I6).
    public enum ObjectState: Sendable {
        /// Its row is committed, its bytes may be on their way.
        case intended
        /// It is mapped, or was.
        case live
        /// No extent refers to it, and none ever will.
        case dead
    }

    struct ObjectEntry {
        var state = ObjectState.intended
        /// When it came into that state.
        var since: MonotonicTime
        /// Where it lies, once it was mapped.
        var server: ObjectServerID?
        var slots = 0
    }

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
        var unit = LogicalUnitState()
        var told: ToldDescription?
    }

    /// The planted defect.
    public var defect: Defect?
    /// Rules that were seen to be broken.
    public private(set) var violations: [String] = []

    /// How long every unmoved item is said to have waited: by default longer than any policy lets it.
    public var itemAgeMilliseconds: UInt64 = 60_000_000

    /// Slots that were found damaged.
    public var damagedSlots: [ObjectID: Set<SlotIndex>] = [:]

    /// The database's clock: set by who runs it, where ages of objects matter.
    public var clock = MonotonicTime(0)

    private var volumes: [VolumeID: Volume] = [:]
    private var usedVersions: [VolumeID: Set<Version>] = [:]
    private var servers: [CacheServerID: (endpoint: String, leaseEnd: MonotonicTime)] = [:]
    private var objects: [ObjectID: ObjectEntry] = [:]
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
        return .owned(
            Ownership(
                description: volume.description,
                epoch: volume.epoch,
                firstVersion: defect == .versionsStartAgain ? Version(1) : volume.firstVersion,
                firstNexus: volume.firstNexus,
                nexuses: volume.nexuses.values.sorted { $0.number < $1.number },
                unit: volume.unit,
                told: volume.told
            )
        )
    }

    /// See ``BlockStore/countVolume(volume:completion:)``.
    public func countVolume(_ id: VolumeID) -> VolumeCounts {
        guard let volume = volumes[id] else { return VolumeCounts(unmovedItems: 0, items: 0, objectBlocks: 0) }
        let sizeBytes = volume.description.geometry.sizeBytes
        let served = BlockRange(
            first: BlockID(0),
            count: min(sizeBytes, volume.description.zeroFromBytes ?? sizeBytes)
                / UInt64(volume.description.geometry.blockSizeBytes)
        )
        let items = volume.items.filter { served.contains($0.key) }
        return VolumeCounts(
            unmovedItems: UInt64(items.values.count { !$0.isMoved }),
            items: UInt64(items.count),
            objectBlocks: volume.extents.extents.reduce(0) { $0 + $1.blocks.intersection(served).count }
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

    /// Why a commit would fail as a whole: a map that is required cannot be made. To be asked before ``commit(_:isUnguarded:)``.
    public func failure(of commits: [VolumeCommit]) -> StoreFailure? {
        let isMissing = commits.contains { commit in
            volumes[commit.volume]?.epoch == commit.epoch
                && commit.maps.contains { $0.isRequired && objects[$0.object]?.state != .intended }
        }
        return isMissing ? .broken("an object that is to be mapped was given up") : nil
    }

    /// See ``BlockStore/commit(_:completion:)``.
    ///
    /// - Parameter isUnguarded: The epoch was tested before, without a lock: a defect.
    public mutating func commit(_ commits: [VolumeCommit], isUnguarded: Bool = false) -> [VolumeCommitResult] {
        commits.map { commit in
            guard let epoch = volumes[commit.volume]?.epoch,
                epoch == commit.epoch || defect == .noEpochGuard || isUnguarded,
                var volume = volumes.removeValue(forKey: commit.volume)
            else { return .fenced }
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
        let direct = commit.maps.flatMap { map in map.slots.filter { $0.condition == .always }.map(\.version) }
        for version in versions + direct where !usedVersions[commit.volume, default: []].insert(version).inserted {
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
        for eviction in commit.evictions {
            let (isEvicted, isReturned) = apply(eviction, to: &volume)
            detail.evicted.append(isEvicted)
            detail.returned.append(isReturned)
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
        for entry in commit.aborts where defect != .abortsForgotten {
            let stamp = Stamp(epoch: commit.epoch, time: entry.time)
            guard let known = volume.nexuses[entry.nexus], known.aborted.map(stamp.isNewer) ?? true else { continue }
            volume.nexuses[entry.nexus]?.aborted = stamp
        }
        if let told = commit.told { volume.told = told }
        if commit.isRidOfRemains { volume.description.zeroFromBytes = nil }
        if let ceiling = commit.versionCeiling { volume.firstVersion = max(volume.firstVersion, ceiling) }
        return detail
    }

    /// Whether the item was dropped, and whether it became unmoved again.
    private mutating func apply(_ eviction: Eviction, to volume: inout Volume) -> (Bool, Bool) {
        guard
            let item = volume.items[eviction.block],
            defect == .evictionIgnoresVersion || (item.isMoved && item.version == eviction.version)
        else { return (false, false) }
        let run = BlockRange(first: eviction.block, count: 1)
        if let extent = volume.extents.extent(holding: eviction.block)?.clipped(to: run),
            damagedSlots[extent.object]?.contains(extent.firstSlot) == true
        {
            volume.items[eviction.block]?.isMoved = false
            volume.items[eviction.block]?.order = nextOrder
            nextOrder += 1
            return (false, true)
        }
        volume.items[eviction.block] = nil
        return (true, false)
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
        let state = objects[map.object]?.state
        guard state == .intended || (defect == .deadObjectMapped && state != .live) else { return nil }
        objects[map.object] = ObjectEntry(state: .live, since: clock, server: map.server, slots: map.slots.count)
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
            case .never: return false
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
        var live: [ObjectID: [Extent]] = [:]
        for extent in volume.extents.extents { live[extent.object, default: []].append(extent) }
        var result: [(ObjectRow, [Extent])] = []
        for (object, extents) in live.sorted(by: { $0.key < $1.key }) where result.count < limit {
            let count = extents.reduce(0) { $0 + $1.blocks.count }
            guard let entry = objects[object], entry.state == .live,
                Int(count) * 100 < entry.slots * Int(belowPercent)
            else { continue }
            result.append((row(object, entry, volume: id, liveSlots: UInt32(count)), extents))
        }
        return result
    }

    private func row(_ object: ObjectID, _ entry: ObjectEntry, volume: VolumeID, liveSlots: UInt32) -> ObjectRow {
        ObjectRow(
            object: object,
            volume: volume,
            server: entry.server ?? ObjectServerID(0),
            slots: UInt32(entry.slots),
            liveSlots: liveSlots,
            sizeBytes: 0
        )
    }

    // MARK: Objects

    /// See ``BlockStore/reserveObjects(volume:count:completion:)``.
    public mutating func reserve(count: Int) -> [ObjectID] {
        if defect == .idsReused { nextObject = max(1, nextObject - min(nextObject, 16)) }
        return (0..<count).map { _ in
            let id = ObjectID(nextObject)
            nextObject += 1
            objects[id] = ObjectEntry(since: clock)
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
        for (object, entry) in objects where entry.state == .dead { stored[object] = nil }
        buryUnreferenced()
    }

    /// Turns live objects to which no extent refers dead (M7).
    private mutating func buryUnreferenced() {
        var referenced: Set<ObjectID> = []
        if defect != .referencedCollected {
            for volume in volumes.values {
                for extent in volume.extents.extents where extent.copy == nil || defect != .copiesNotCounted {
                    referenced.insert(extent.object)
                }
            }
        }
        for (object, entry) in objects where entry.state == .live && !referenced.contains(object) {
            objects[object]?.state = .dead
            objects[object]?.since = clock
        }
    }

    /// Gives an intent up.
    public mutating func sweep(_ object: ObjectID) {
        guard objects[object]?.state == .intended else { return }
        objects[object]?.state = .dead
        objects[object]?.since = clock
    }

    /// See ``BlockStore/collectObjects(intentAgeMilliseconds:graceMilliseconds:limit:completion:)``.
    public mutating func collectObjects(intentAge: UInt64, grace: UInt64, limit: Int) -> [ObjectRow] {
        func isOlder(_ entry: ObjectEntry, _ milliseconds: UInt64) -> Bool {
            clock.nanoseconds(since: entry.since) > milliseconds * 1_000_000
        }
        objects = objects.filter { _, entry in
            entry.state != .dead || entry.server != nil || !isOlder(entry, grace)
        }
        for (object, entry) in objects where entry.state == .intended && isOlder(entry, intentAge) { sweep(object) }
        buryUnreferenced()
        let dead = objects.filter { $0.value.state == .dead && $0.value.server != nil && isOlder($0.value, grace) }
        return dead.sorted { $0.key < $1.key }.prefix(limit).map {
            row($0.key, $0.value, volume: VolumeID(0), liveSlots: 0)
        }
    }

    /// See ``BlockStore/forgetObjects(_:completion:)``.
    public mutating func forgetObjects(_ forgotten: [ObjectID]) {
        for object in forgotten where objects[object]?.state == .dead { objects[object] = nil }
    }

    /// See ``BlockStore/knownObjects(_:completion:)``.
    public func knownObjects(_ asked: [ObjectID]) -> Set<ObjectID> { Set(asked.filter { objects[$0] != nil }) }

    /// What became of an object; nil: it has no row.
    public func objectState(_ object: ObjectID) -> ObjectState? { objects[object]?.state }

    /// The item of a block.
    public func item(_ id: VolumeID, _ block: BlockID) -> ItemRow? {
        volumes[id]?.items[block].map {
            ItemRow(block: block, version: $0.version, checksum: $0.checksum, isMoved: $0.isMoved)
        }
    }

    /// The place of a block in an object.
    public func extent(_ id: VolumeID, _ block: BlockID) -> Extent? {
        volumes[id]?.extents.extent(holding: block)?.clipped(to: BlockRange(first: block, count: 1))
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

    /// Changes a volume as an administrator does. A shrink ends the epoch, and what lies behind the new end is left to the owner.
    public mutating func describe(_ description: VolumeDescription) {
        guard var volume = volumes[description.id] else { return }
        let size = description.geometry.sizeBytes
        let zeroFrom = volume.description.zeroFromBytes
        let isSmaller = size < volume.description.geometry.sizeBytes
        volume.description = description
        volume.description.zeroFromBytes = isSmaller ? min(zeroFrom ?? size, size) : zeroFrom
        if defect == .remainsForgotten { volume.description.zeroFromBytes = nil }
        if isSmaller { volume.epoch = Epoch(volume.epoch.rawValue + 1) }
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
