import AshlarCore
import NIOCore

/// What memory holds of one item. The bytes are a copy of what is durable, so they may be dropped at any time.
struct CachedItem: Hashable {
    var version: Version
    var checksum: Checksum
    var isMoved: Bool
    /// Set by a read or a write, cleared when the bytes are next considered for dropping.
    var isVisited: Bool
    /// Where the block is in the volume's slab; ``BlockSlab/nowhere`` where it is not in memory. Its region gives it back.
    var place = BlockSlab.nowhere

    var isInMemory: Bool { place != BlockSlab.nowhere }
}

/// The map of ``Limits/regionBlocks`` consecutive blocks.
///
/// States: `loading` from the store (commands wait), then loaded. A loaded region agrees with what is durable, but for the
/// commits in flight, whose commands hold `pins`.
final class Region {
    private let first: BlockID
    private let slab: BlockSlab
    private(set) var items: ItemTable
    var extents = ExtentList()
    var waiters: [Command] = []
    var lastUse: UInt64 = 0
    var pins: Int32 = 0
    /// How many extents are counted in the image's size.
    var countedExtents: Int32 = 0
    /// Items whose bytes are in memory.
    private(set) var blocksInMemory: Int32 = 0
    /// Where dropping of bytes goes on: the offset of a block.
    private var hand: UInt16 = 0
    var isLoading = true
    /// Whether it is in the queue of regions whose bytes may be dropped.
    var isInDropQueue = false

    init(range: BlockRange, slab: BlockSlab) {
        first = range.first
        self.slab = slab
        items = ItemTable(of: range)
    }

    deinit {
        for item in items.values where item.isInMemory { slab.free(item.place) }
    }

    var range: BlockRange { BlockRange(first: first, count: Limits.regionBlocks) }
    /// Bytes of blocks that are in memory.
    var bytesInMemory: Int { Int(blocksInMemory) * slab.blockBytes }

    /// How many of the blocks in `run` have an item or an extent.
    func mappedBlocks(in run: BlockRange) -> UInt64 {
        let part = run.intersection(range)
        return UInt64(items.count(in: part) { !extents.holds($0) }) + extents.blocks(in: part)
    }

    /// Enters what was loaded: items without their bytes, into a region without any.
    func load(_ rows: some Collection<ItemRow>) {
        items.reserve(rows.count)
        for row in rows {
            items[row.block] = CachedItem(
                version: row.version,
                checksum: row.checksum,
                isMoved: row.isMoved,
                isVisited: false
            )
        }
    }

    /// Enters an item with its bytes in place of whatever was there, which is returned.
    @discardableResult
    func put(_ write: ItemWrite, isMoved: Bool, isVisited: Bool) -> CachedItem? {
        let old = items[write.block]
        var item = CachedItem(
            version: write.version,
            checksum: write.checksum,
            isMoved: isMoved,
            isVisited: isVisited
        )
        if let old, old.isInMemory {
            item.place = old.place
            slab.replace(old.place, write.bytes)
        } else {
            item.place = slab.store(write.bytes)
            blocksInMemory += 1
        }
        items[write.block] = item
        return old
    }

    /// Keeps the bytes of an item that are not in memory.
    func keep(_ bytes: ByteBuffer, of block: BlockID) {
        guard var item = items[block], !item.isInMemory else { return }
        item.place = slab.store(bytes)
        item.isVisited = true
        blocksInMemory += 1
        items[block] = item
    }

    /// Changes whether an item is moved.
    func setMoved(_ isMoved: Bool, _ block: BlockID) { items[block]?.isMoved = isMoved }

    /// Marks an item as used, and says what a read needs of it; nil where there is none.
    func use(_ block: BlockID) -> (place: BlockSlab.Place, checksum: Checksum)? { items.use(block) }

    /// Removes an item and its bytes.
    func removeItem(_ block: BlockID) -> CachedItem? {
        guard let item = items.removeValue(forKey: block) else { return nil }
        forget(item)
        return item
    }

    /// Removes the items of a run of blocks and their bytes; `body` is told each.
    func removeItems(in run: BlockRange, _ body: (CachedItem) -> Void) {
        items.removeAll(in: run) { item in
            forget(item)
            body(item)
        }
    }

    private func forget(_ item: CachedItem) {
        guard item.isInMemory else { return }
        slab.free(item.place)
        blocksInMemory -= 1
    }

    /// Goes on dropping bytes that were not used since it was here before, of at most so many blocks; returns how many were dropped,
    /// and whether all of the region has been looked at.
    func dropBytes(atMost maximum: Int) -> (dropped: Int, isAtEnd: Bool) {
        let before = blocksInMemory
        let next = items.takeBytes(from: hand, atMost: maximum) { place in
            slab.free(place)
            blocksInMemory -= 1
        }
        hand = next ?? 0
        return (Int(before - blocksInMemory), next == nil)
    }
}

/// Where a block's bytes are.
enum BlockContent {
    case bytes(BlockSlab.Place, Checksum)
    /// There is an item, but its bytes are not in memory.
    case notInMemory
    case object(Extent)
    case zeros
}

/// The memory image of one volume, by regions.
struct MemoryImage {
    private(set) var regions: [UInt64: Region] = [:]
    /// The bytes of its items, beside those of other volumes with blocks of the same size.
    let slab: BlockSlab

    /// An image without regions.
    init(slab: BlockSlab) { self.slab = slab }

    static func regionIndex(of block: BlockID) -> UInt64 { block.rawValue / Limits.regionBlocks }

    static func regionRange(_ index: UInt64) -> BlockRange {
        BlockRange(first: BlockID(index * Limits.regionBlocks), count: Limits.regionBlocks)
    }

    static func regionIndices(of range: BlockRange) -> ClosedRange<UInt64> {
        precondition(!range.isEmpty, "an empty range touches no region")
        return regionIndex(of: range.first)...regionIndex(of: BlockID(range.end.rawValue - 1))
    }

    /// The regions in memory that any of `ranges` touches, ascending.
    func indices(overlapping ranges: [BlockRange]) -> [UInt64] {
        var result: [UInt64] = []
        for range in ranges where !range.isEmpty {
            for index in Self.regionIndices(of: range) where index != result.last && regions[index] != nil {
                result.append(index)
            }
        }
        return result
    }

    func region(_ index: UInt64) -> Region? { regions[index] }

    mutating func add(_ index: UInt64) -> Region {
        let region = Region(range: Self.regionRange(index), slab: slab)
        regions[index] = region
        return region
    }

    mutating func remove(_ index: UInt64) { regions[index] = nil }

    /// What a block holds; its region must be loaded.
    func content(of block: BlockID) -> BlockContent {
        guard let region = regions[Self.regionIndex(of: block)], !region.isLoading else {
            preconditionFailure("the region of a block is loaded before its content is asked for")
        }
        if let (place, checksum) = region.use(block) {
            return place == BlockSlab.nowhere ? .notInMemory : .bytes(place, checksum)
        }
        if let extent = region.extents.extent(holding: block) {
            return .object(extent.clipped(to: BlockRange(first: block, count: 1)))
        }
        return .zeros
    }

    /// Where a block lies in an object, if it does, whether it has an item or not; its region must be loaded.
    func extent(_ block: BlockID) -> Extent? {
        guard let region = regions[Self.regionIndex(of: block)], !region.isLoading else {
            preconditionFailure("the region of a block is loaded before its content is asked for")
        }
        return region.extents.extent(holding: block)?.clipped(to: BlockRange(first: block, count: 1))
    }

    /// Whether a block has an item or an extent; its region must be loaded.
    func isMapped(_ block: BlockID) -> Bool {
        guard let region = regions[Self.regionIndex(of: block)], !region.isLoading else {
            preconditionFailure("the region of a block is loaded before its content is asked for")
        }
        return region.items[block] != nil || region.extents.holds(block)
    }

    /// The item of a block whose region is loaded.
    func item(_ block: BlockID) -> CachedItem? {
        guard let region = regions[Self.regionIndex(of: block)], !region.isLoading else { return nil }
        return region.items[block]
    }
}
