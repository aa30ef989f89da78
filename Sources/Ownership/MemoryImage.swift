import AshlarCore
import NIOCore

/// What memory holds of one item. The bytes are a copy of what is durable, so they may be dropped at any time.
struct CachedItem {
    var version: Version
    var checksum: Checksum
    var isMoved: Bool
    /// Set by a read or a write, cleared when the bytes are next considered for dropping.
    var isVisited: Bool
    /// The block, where it is in memory; the drop queue has one entry for it.
    var bytes: ByteBuffer?
}

/// The map of ``Limits/regionBlocks`` consecutive blocks.
///
/// States: `loading` from the store (commands wait), then loaded. A loaded region agrees with what is durable, but for the
/// commits in flight, whose commands hold `pins`.
final class Region {
    let range: BlockRange
    var isLoading = true
    var items: ItemTable
    var extents = ExtentList()
    /// What the extents are counted for in the image's size.
    var extentBytes = 0
    var pins = 0
    var lastUse: UInt64 = 0
    var waiters: [Command] = []

    init(range: BlockRange) {
        self.range = range
        items = ItemTable(of: range)
    }

    /// How many of the blocks in `run` have an item or an extent.
    func mappedBlocks(in run: BlockRange) -> UInt64 {
        func isOnlyItem(_ block: BlockID) -> Bool { items[block] != nil && extents.extent(holding: block) == nil }
        let part = run.intersection(range)
        let others =
            part.count < UInt64(items.count)
            ? (0..<part.count).count { isOnlyItem(part.first + $0) }
            : items.count { part.contains($0.key) && extents.extent(holding: $0.key) == nil }
        return extents.extents.reduce(UInt64(others)) { sum, extent in
            extent.blocks.overlaps(part) ? sum + extent.blocks.intersection(part).count : sum
        }
    }
}

/// Where a block's bytes are.
enum BlockContent {
    case bytes(ByteBuffer, Checksum)
    /// There is an item, but its bytes are not in memory.
    case notInMemory
    case object(Extent)
    case zeros
}

/// A place in the queue of bytes that may be dropped.
struct DropEntry {
    var volume: VolumeID
    var epoch: Epoch
    var block: BlockID
    var version: Version
}

/// The memory image of one volume, by regions.
struct MemoryImage {
    private(set) var regions: [UInt64: Region] = [:]

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
        let region = Region(range: Self.regionRange(index))
        regions[index] = region
        return region
    }

    mutating func remove(_ index: UInt64) { regions[index] = nil }

    /// What a block holds; its region must be loaded.
    func content(of block: BlockID) -> BlockContent {
        guard let region = regions[Self.regionIndex(of: block)], !region.isLoading else {
            preconditionFailure("the region of a block is loaded before its content is asked for")
        }
        if let content = region.items.use(block) { return content }
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
        return region.items[block] != nil || region.extents.extent(holding: block) != nil
    }

    /// The item of a block whose region is loaded.
    func item(_ block: BlockID) -> CachedItem? {
        guard let region = regions[Self.regionIndex(of: block)], !region.isLoading else { return nil }
        return region.items[block]
    }
}
