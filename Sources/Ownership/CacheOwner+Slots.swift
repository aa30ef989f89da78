public import AshlarCore

// What targets ask before they read ahead.
extension CacheOwner {
    /// Which of some blocks lie in objects, and where, as far as the memory image knows: up to where a region is not in memory.
    ///
    /// A hint, and no read: no block's bytes are answered by it, so it has no place in the order of commands, tests no lease, and
    /// changes nothing, neither what counts as used nor what is in memory. A slot keeps its bytes for good (I6); whether they are
    /// those of the block is for the read itself to learn here (I2).
    ///
    /// - Returns: how many blocks from the first one on are known, and their extents, ascending; nil where the volume is not owned
    ///   here.
    public func slots(of blocks: BlockRange, in id: VolumeID) -> (known: UInt64, extents: [Extent])? {
        guard let volume = owned(id) else { return nil }
        let end = min(blocks.end, BlockID(volume.geometry.blockCount))
        var extents: [Extent] = []
        var block = blocks.first
        while block < end {
            guard let region = volume.image.region(MemoryImage.regionIndex(of: block)), !region.isLoading else { break }
            let regionEnd = min(region.range.end, end)
            while block < regionEnd {
                guard let extent = region.extents.extent(holding: block) else {
                    block = block + 1
                    continue
                }
                let part = BlockRange(from: block, to: min(extent.blocks.end, regionEnd))
                Self.append(extent, part, without: region, to: &extents)
                block = part.end
            }
        }
        return (block < end ? block - blocks.first : blocks.count, extents)
    }

    /// Adds what of an extent is not hidden by items.
    private static func append(
        _ extent: Extent,
        _ part: BlockRange,
        without region: Region,
        to extents: inout [Extent]
    ) {
        guard region.items.count > 0 else { return extents.append(extent.clipped(to: part)) }
        var first = part.first
        var block = part.first
        while block < part.end {
            if region.items[block] != nil {
                if first < block { extents.append(extent.clipped(to: BlockRange(from: first, to: block))) }
                first = block + 1
            }
            block = block + 1
        }
        if first < part.end { extents.append(extent.clipped(to: BlockRange(from: first, to: part.end))) }
    }
}
