/// Decides how the map of a volume is rebuilt from the headers of its objects, where the database was lost or went back in time.
///
/// A value without I/O: what the database and the headers say goes in, a plan comes out.
///
/// - A block is mapped anew only where an object that the database does not know as mapped holds a *newer* version than the item
///   and the extent that the database has. Objects that it knows as mapped, or as dead, tell nothing new: the database is from
///   after their map, and so knows what has become of their blocks.
/// - Of equal versions the object with the highest number counts: it was written last, by a compaction.
/// - Where an extent names an object that is gone or unreadable, and no newer version is found, an item keeps what it has and
///   becomes unmoved again; without one the block is lost. Its extent stays: reads fail rather than tell zeros.
/// - What a shrink has taken away does not come back: behind its end, versions of before it count for nothing, in objects as in the
///   database, where they may still wait to become zeros. A version of after it shows that they had become so, and that the volume
///   had grown again, in the time that was lost: then the plan makes the zeros, or they would take what it maps along.
enum RecoverPlanner {
    /// A volume as the database has it, or as headers name it.
    struct Volume: Sendable, Hashable {
        var id: Int64
        var uuid: [UInt8]
        var blockSizeBytes: UInt32
        var blockCount: UInt64
        /// Whether a database that went back has to be reckoned with: objects whose row is missing or merely intended count.
        var isBehind: Bool
        /// What its last shrink has taken away.
        var shrink: Shrink?
    }

    /// What a shrink has taken away: blocks from `firstBlock` on, in versions below `version`.
    struct Shrink: Sendable, Hashable {
        var firstBlock: UInt64
        var version: UInt64
        /// Whether the database still has them, until they become zeros.
        var isPending: Bool

        /// Whether it has taken away this version of a block.
        func took(_ block: UInt64, _ version: UInt64) -> Bool { block >= firstBlock && version < self.version }
    }

    /// What a header says of a slot.
    struct Slot: Sendable, Hashable {
        var block: UInt64
        var version: UInt64
    }

    /// The header of an object that lies on a server.
    struct Header: Sendable, Hashable {
        var object: Int64
        var server: Int32
        var volume: Int64
        var uuid: [UInt8]
        var blockSizeBytes: UInt32
        var sizeBytes: Int64
        var slots: [Slot]
    }

    /// How the database knows an object.
    enum Row: Sendable, Hashable {
        /// No row, an intent, or an intent that was given up: what became of it is not known.
        case unmapped
        /// Live, or dead after it was live.
        case mapped
    }

    /// A row of `block_extents`.
    struct Extent: Sendable, Hashable {
        var firstBlock: UInt64
        var blockCount: UInt64
        var object: Int64
        var firstSlot: UInt64
        /// The version of the copy that made it, where one did.
        var copyVersion: UInt64?

        var end: UInt64 { firstBlock + blockCount }
    }

    /// A row of `block_items`.
    struct Item: Sendable, Hashable {
        var block: UInt64
        var version: UInt64
        var isMoved: Bool
    }

    /// All that is known of one volume.
    struct Knowledge: Sendable {
        var volume: Volume
        /// The headers of its objects.
        var headers: [Header] = []
        /// How the database knows those objects.
        var rows: [Int64: Row] = [:]
        /// Objects that are named by extents, and lie nowhere or cannot be read.
        var lostObjects: Set<Int64> = []
        /// Ascending, without overlap.
        var extents: [Extent] = []
        /// Ascending.
        var items: [Item] = []
    }

    /// A run of blocks to be mapped to slots of an object; object 0: to nothing, since an item has the block.
    struct Run: Sendable, Hashable {
        var firstBlock: UInt64
        var blockCount: UInt64
        var object: Int64
        var firstSlot: UInt64
    }

    /// A run of blocks of which nothing is left but an extent.
    struct Loss: Sendable, Hashable {
        var firstBlock: UInt64
        var blockCount: UInt64
        var object: Int64
    }

    /// What to do.
    struct Plan: Sendable, Hashable {
        /// What to map, ascending.
        var runs: [Run] = []
        /// Items that are older than what is mapped in their place.
        var staleItems: [Item] = []
        /// Moved items whose object is gone: they become unmoved again.
        var keptItems: [Item] = []
        /// Blocks that cannot be read any more.
        var losses: [Loss] = []
        /// Blocks in objects that lie behind the end of the volume.
        var beyondEnd: UInt64 = 0
        /// Blocks that are mapped to newer versions.
        var blocksTaken: UInt64 = 0
        /// Versions from this one on were never seen.
        var nextVersion: UInt64 = 1
        /// Whether it makes zeros of what the last shrink has left.
        var isRidOfRemains = false

        /// Whether the map changes.
        var isEmpty: Bool { runs.isEmpty && staleItems.isEmpty && keptItems.isEmpty }
    }

    private struct Candidate {
        var block: UInt64
        var version: UInt64
        var object: Int64
        var slot: UInt64
    }

    /// Rebuilds the map of a volume.
    static func plan(_ knowledge: Knowledge) -> Plan {
        var plan = Plan()
        let byObject = Dictionary(knowledge.headers.map { ($0.object, $0) }) { first, _ in first }
        plan.nextVersion = 1 + (knowledge.headers.lazy.flatMap(\.slots).map(\.version).max() ?? 0)
        let items = Dictionary(knowledge.items.map { ($0.block, $0) }) { first, _ in first }
        let extents = Lookup(knowledge.extents)
        let remains = remains(of: knowledge, byObject)
        var taken: Set<UInt64> = []
        var places: [Candidate] = []
        for candidate in newest(of: knowledge) {
            guard candidate.block < knowledge.volume.blockCount else {
                plan.beyondEnd += 1
                continue
            }
            let item = remains.items.contains(candidate.block) ? nil : items[candidate.block]
            let extent = remains.mapped.contains(candidate.block) ? nil : extents.holding(candidate.block)
            let isLost = extent.map { knowledge.lostObjects.contains($0.object) } ?? false
            if let item {
                guard candidate.version > item.version || (candidate.version == item.version && item.isMoved && isLost)
                else { continue }
                if candidate.version > item.version { plan.staleItems.append(item) }
            } else if let extent, !isLost {
                guard let version = version(of: candidate.block, in: extent, byObject), candidate.version > version
                else {
                    continue
                }
            }
            taken.insert(candidate.block)
            places.append(candidate)
        }
        plan.blocksTaken = UInt64(places.count)
        // Extents of objects that are gone: items keep their blocks, and the rest is lost.
        for extent in knowledge.extents where knowledge.lostObjects.contains(extent.object) {
            for block in extent.firstBlock..<extent.end where !taken.contains(block) && !remains.mapped.contains(block)
            {
                if let item = items[block] {
                    places.append(Candidate(block: block, version: 0, object: 0, slot: 0))
                    if item.isMoved { plan.keptItems.append(item) }
                } else if let last = plan.losses.last, last.object == extent.object,
                    last.firstBlock + last.blockCount == block
                {
                    plan.losses[plan.losses.count - 1].blockCount += 1
                } else {
                    plan.losses.append(Loss(firstBlock: block, blockCount: 1, object: extent.object))
                }
            }
        }
        if let shrink = knowledge.volume.shrink, shrink.isPending,
            remains.hasNewer || taken.contains(where: { $0 >= shrink.firstBlock })
        {
            plan.isRidOfRemains = true
            plan.staleItems += knowledge.items.filter { remains.items.contains($0.block) }
            plan.staleItems.sort { $0.block < $1.block }
            for block in remains.mapped where !taken.contains(block) {
                places.append(Candidate(block: block, version: 0, object: 0, slot: 0))
            }
        }
        plan.runs = runs(of: places)
        return plan
    }

    /// What a shrink has left in the database, which waits to become zeros.
    private struct Remains {
        /// Blocks with an item of before the shrink.
        var items: Set<UInt64> = []
        /// Blocks with an extent of before the shrink.
        var mapped: Set<UInt64> = []
        /// Whether something of after it is there as well: this plan was carried out in part already.
        var hasNewer = false
    }

    private static func remains(of knowledge: Knowledge, _ headers: [Int64: Header]) -> Remains {
        var remains = Remains()
        guard let shrink = knowledge.volume.shrink, shrink.isPending else { return remains }
        for item in knowledge.items where item.block >= shrink.firstBlock {
            if shrink.took(item.block, item.version) {
                remains.items.insert(item.block)
            } else {
                remains.hasNewer = true
            }
        }
        for extent in knowledge.extents where extent.end > shrink.firstBlock {
            for block in max(extent.firstBlock, shrink.firstBlock)..<extent.end {
                // What is not known was not mapped by a plan like this one.
                if shrink.took(block, version(of: block, in: extent, headers) ?? 0) {
                    remains.mapped.insert(block)
                } else {
                    remains.hasNewer = true
                }
            }
        }
        return remains
    }

    /// The newest version of each block among the objects that count, ascending by block.
    private static func newest(of knowledge: Knowledge) -> [Candidate] {
        guard knowledge.volume.isBehind else { return [] }
        var all: [Candidate] = []
        for header in knowledge.headers where knowledge.rows[header.object, default: .unmapped] == .unmapped {
            for (slot, content) in header.slots.enumerated() {
                if let shrink = knowledge.volume.shrink, shrink.took(content.block, content.version) { continue }
                all.append(
                    Candidate(
                        block: content.block,
                        version: content.version,
                        object: header.object,
                        slot: UInt64(slot)
                    )
                )
            }
        }
        all.sort { ($0.block, $1.version, $1.object) < ($1.block, $0.version, $0.object) }
        var newest: [Candidate] = []
        for candidate in all where newest.last?.block != candidate.block { newest.append(candidate) }
        return newest
    }

    /// The version that an extent says a block has; nil where that cannot be known.
    private static func version(of block: UInt64, in extent: Extent, _ headers: [Int64: Header]) -> UInt64? {
        if let copied = extent.copyVersion { return copied }
        guard let header = headers[extent.object] else { return nil }
        let slot = extent.firstSlot + (block - extent.firstBlock)
        return slot < UInt64(header.slots.count) ? header.slots[Int(slot)].version : nil
    }

    private static func runs(of places: [Candidate]) -> [Run] {
        var runs: [Run] = []
        for place in places.sorted(by: { $0.block < $1.block }) {
            if let last = runs.last, last.object == place.object, last.firstBlock + last.blockCount == place.block,
                place.object == 0 || last.firstSlot + last.blockCount == place.slot,
                last.blockCount < ControlLimits.recoverRunBlocks
            {
                runs[runs.count - 1].blockCount += 1
            } else {
                runs.append(
                    Run(firstBlock: place.block, blockCount: 1, object: place.object, firstSlot: place.slot)
                )
            }
        }
        return runs
    }

    /// Extents by block.
    private struct Lookup {
        let extents: [Extent]

        init(_ extents: [Extent]) { self.extents = extents }

        func holding(_ block: UInt64) -> Extent? {
            var (low, high) = (0, extents.count)
            while low < high {
                let middle = (low + high) / 2
                if extents[middle].firstBlock <= block { low = middle + 1 } else { high = middle }
            }
            guard low > 0, extents[low - 1].end > block else { return nil }
            return extents[low - 1]
        }
    }
}
