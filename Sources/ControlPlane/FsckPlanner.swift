import AshlarCore

/// Compares rows of items, extents and objects with each other, and says what to repair.
///
/// A value without I/O: rows go in, in the order that each method names; findings and repairs come out. Volumes and
/// objects first, then extents, then items.
struct FsckPlanner: Sendable {
    /// A row of `volumes`.
    struct Volume: Sendable, Hashable {
        var id: Int64
        var sizeBytes: UInt64
        var blockSizeBytes: UInt32
        /// Whether its owner still makes zeros of what a shrink has left behind its end.
        var isShrinking = false

        var blockCount: UInt64 { sizeBytes / UInt64(blockSizeBytes) }
    }

    /// A row of `block_objects`.
    struct Object: Sendable, Hashable {
        var id: Int64
        var volume: Int64
        var server: Int32?
        var slots: Int64
        var liveSlots: Int64
        var state: String
        /// Seconds since it was intended.
        var ageSeconds: Int64
    }

    /// A row of `block_extents`.
    struct Extent: Sendable, Hashable {
        var volume: Int64
        var firstBlock: Int64
        var blockCount: Int64
        var object: Int64
        var firstSlot: Int64
    }

    /// A row of `block_items`.
    struct Item: Sendable {
        var volume: Int64
        var block: Int64
        /// Attributes; nil where one is absent.
        var version: Int64?
        var length: Int64?
        var checksum: Int64?
        var isMoved: Bool
        /// Whether an extent maps the block.
        var isMapped: Bool
        var bytes: [UInt8]
    }

    /// What is safe to do.
    enum Repair: Sendable, Hashable {
        /// Count the live slots of an object again.
        case recountLiveSlots(object: Int64, volume: Int64)
        /// Give an old intent up, as the collector does.
        case giveUpIntent(object: Int64)
    }

    /// What has been found.
    private(set) var report = FsckReport()
    /// What is safe to repair.
    private(set) var repairs: [Repair] = []
    /// Live objects by server.
    private(set) var liveByServer: [Int32: [Int64]] = [:]

    private struct Known: Sendable {
        var volume: Int64
        var slots: Int32
        var liveSlots: Int64
        var isLive: Bool
        var counted: Int64 = 0
    }

    private var volumes: [Int64: Volume] = [:]
    private var objects: [Int64: Known] = [:]
    private var lastExtent: Extent?

    /// Takes a volume.
    mutating func add(_ volume: Volume) {
        volumes[volume.id] = volume
        report.volumes += 1
    }

    /// Takes an object.
    mutating func add(_ object: Object) {
        report.objects += 1
        objects[object.id] = Known(
            volume: object.volume,
            slots: Int32(clamping: object.slots),
            liveSlots: object.liveSlots,
            isLive: object.state == "live"
        )
        if object.state == "live", let server = object.server { liveByServer[server, default: []].append(object.id) }
        if object.state == "intended", object.ageSeconds >= ControlLimits.orphanIntentSeconds {
            find(.orphanIntent, volume: object.volume, object: object.id, "intended \(object.ageSeconds) s ago")
            repairs.append(.giveUpIntent(object: object.id))
        }
    }

    /// Takes an extent; ascending by volume and first block.
    mutating func add(_ extent: Extent) {
        report.extents += 1
        if let last = lastExtent, last.volume == extent.volume, last.firstBlock + last.blockCount > extent.firstBlock {
            find(
                .extentsOverlap,
                extent,
                "overlaps the one from block \(last.firstBlock), \(last.blockCount) blocks long, in object \(last.object)"
            )
        }
        lastExtent = extent
        if let volume = volumes[extent.volume] {
            let end = extent.firstBlock + extent.blockCount
            if extent.firstBlock < 0 || !volume.isShrinking && UInt64(end) > volume.blockCount {
                find(.extentOutsideVolume, extent, "ends at block \(end) of \(volume.blockCount)")
            }
        } else {
            find(.extentWithoutVolume, extent, "no such volume")
        }
        guard var object = objects[extent.object] else {
            find(.extentWithoutObject, extent, "no such object")
            return
        }
        if !object.isLive { find(.extentOfDeadObject, extent, "the object is not live") }
        if object.volume != extent.volume {
            find(.extentOfForeignObject, extent, "the object belongs to volume \(object.volume)")
        }
        if extent.firstSlot + extent.blockCount > Int64(object.slots) {
            find(
                .extentOutsideObject,
                extent,
                "slots \(extent.firstSlot) to \(extent.firstSlot + extent.blockCount - 1) of \(object.slots)"
            )
        }
        object.counted += extent.blockCount
        objects[extent.object] = object
    }

    /// To be called once after the last extent.
    mutating func extentsEnded() {
        for (id, object) in objects.sorted(by: { $0.key < $1.key }) where object.counted != object.liveSlots {
            guard object.isLive else { continue }  // Its extents, if it has any, are findings of their own.
            find(
                .liveSlotsWrong,
                volume: object.volume,
                object: id,
                "\(object.liveSlots) recorded, \(object.counted) referred to"
            )
            repairs.append(.recountLiveSlots(object: id, volume: object.volume))
        }
    }

    /// Takes an item with its bytes.
    mutating func add(_ item: Item) {
        report.items += 1
        guard let volume = volumes[item.volume] else {
            find(.itemWithoutVolume, item, "no such volume")
            return
        }
        if item.block < 0 || !volume.isShrinking && UInt64(item.block) >= volume.blockCount {
            find(.itemOutsideVolume, item, "the volume has \(volume.blockCount) blocks")
        }
        if item.isMoved, !item.isMapped { find(.movedItemUnmapped, item, "it must not be evicted") }
        guard item.version != nil, let length = item.length, let checksum = item.checksum else {
            find(.itemMalformed, item, "Version, Length or Checksum is absent")
            return
        }
        guard item.bytes.count == Int(volume.blockSizeBytes), length == Int64(item.bytes.count) else {
            find(
                .itemLengthWrong,
                item,
                "\(item.bytes.count) bytes, \(length) recorded, \(volume.blockSizeBytes) in a block"
            )
            return
        }
        let actual = item.bytes.withUnsafeBytes { Checksum(of: $0) }
        if Int64(actual.rawValue) != checksum {
            find(.itemChecksumWrong, item, "\(checksum) recorded, \(actual) found")
        }
    }

    /// Takes what became of the comparison of one server's list with the rows.
    mutating func addUnknown(object: UInt64, server: Int32) {
        find(
            .objectUnknown,
            object: Int64(clamping: object),
            "lies on object server \(server) without a row; an agent's scan removes it"
        )
    }

    /// Takes what a server said of a live object.
    mutating func add(_ damage: ObjectDamage?, object: Int64, server: Int32) {
        switch damage {
        case nil: report.objectsVerified += 1
        case .missing:
            find(.objectMissing, volume: objects[object]?.volume, object: object, "not on object server \(server)")
        case .damaged(let reason):
            report.objectsVerified += 1
            find(
                .objectDamaged,
                volume: objects[object]?.volume,
                object: object,
                "on object server \(server): \(reason)"
            )
        }
    }

    /// Notes that something was not looked at.
    mutating func skipped(_ reason: String) { report.incomplete.append(reason) }

    /// Notes a repair that was made.
    mutating func repaired(_ text: String) { report.repairs.append(text) }

    private mutating func find(
        _ kind: FsckReport.Kind,
        volume: Int64? = nil,
        block: Int64? = nil,
        object: Int64? = nil,
        _ detail: String
    ) {
        report.add(FsckReport.Finding(kind: kind, volume: volume, block: block, object: object, detail: detail))
    }

    private mutating func find(_ kind: FsckReport.Kind, _ extent: Extent, _ detail: String) {
        find(
            kind,
            volume: extent.volume,
            block: extent.firstBlock,
            object: extent.object,
            "extent of \(extent.blockCount) blocks: \(detail)"
        )
    }

    private mutating func find(_ kind: FsckReport.Kind, _ item: Item, _ detail: String) {
        find(kind, volume: item.volume, block: item.block, detail)
    }
}
