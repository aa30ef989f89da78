public import AshlarCore
import DequeModule
public import NIOCore

// What commands need before they can go on: regions of the map, bytes of items, slots of objects.
extension CacheOwner {
    /// Brings the regions that a command needs into memory, then goes on with it.
    mutating func load(_ command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        guard command.phase == .loading, !volume.isLost else { return }
        if case .mapStatus? = command.operation { return surveyMap(for: command, of: volume) }
        if case .zero(let ranges)? = command.operation {
            // First the blocks that are only partly zeroed, whose bytes have to be known; then the rest in bulk.
            let edges = partialBlocks(of: ranges, in: volume.geometry)
            let isBulkAlready = volume.bulk.contains { $0 === command }
            if !edges.isEmpty, !isBulkAlready {
                let needed = edges.map { BlockRange(first: $0, count: 1) }
                guard loadRegions(of: needed, for: command, of: volume) else { return }
            }
        }
        if command.isBulk {
            beginBulk(command, of: volume)
        } else {
            guard loadRegions(of: command.ranges, for: command, of: volume) else { return }
        }
        if command.outstanding == 0 { proceed(command, of: volume, now: now) }
    }

    /// Pins loaded regions and asks for those that are not; `false` while a bulk command is in the way or something is
    /// still to come.
    private mutating func loadRegions(of ranges: [BlockRange], for command: Command, of volume: VolumeOwner) -> Bool {
        for range in ranges where !range.isEmpty {
            for index in MemoryImage.regionIndices(of: range) {
                if let region = volume.image.region(index) {
                    if region.isLoading {
                        guard !region.waiters.contains(where: { $0 === command }) else { continue }
                        region.waiters.append(command)
                        command.outstanding += 1
                    } else {
                        pin(region, index: index, for: command, of: volume)
                    }
                    continue
                }
                let target = MemoryImage.regionRange(index)
                let isBulk = volume.bulk.contains { other in
                    other !== command && other.hull.overlaps(target) && other.ranges.contains { $0.overlaps(target) }
                }
                if isBulk {
                    if !volume.blockedByBulk.contains(where: { $0 === command }) {
                        volume.blockedByBulk.append(command)
                    }
                    return false
                }
                let region = volume.image.add(index)
                region.waiters.append(command)
                command.outstanding += 1
                account(OwnerLimits.imageRegionBytes, to: volume)
                actions.append(.loadRegion(operation(.region(volume, region)), volume.id, region.range))
            }
        }
        return command.outstanding == 0
    }

    private mutating func pin(_ region: Region, index: UInt64, for command: Command, of volume: VolumeOwner) {
        useCounter += 1
        region.lastUse = useCounter
        guard !command.pinned.contains(where: { $0 === region }) else { return }
        region.pins += 1
        command.pinned.append(region)
    }

    /// Registers a command that changes blocks without loading them: regions in memory are pinned and will be kept true,
    /// those on their way are waited for, others are kept out until it has finished.
    private mutating func beginBulk(_ command: Command, of volume: VolumeOwner) {
        guard !volume.bulk.contains(where: { $0 === command }) else { return }
        volume.bulk.append(command)
        for index in volume.image.indices(overlapping: command.ranges) {
            guard let region = volume.image.region(index) else { continue }
            if region.isLoading {
                region.waiters.append(command)
                command.outstanding += 1
            } else {
                pin(region, index: index, for: command, of: volume)
            }
        }
    }

    /// The store read the map of a region.
    public mutating func regionLoaded(_ id: OperationID, _ result: Result<RegionRows, StoreFailure>, now: MonotonicTime)
    {
        guard case .region(let volume, let region)? = operations.removeValue(forKey: id), !volume.isLost else { return }
        switch result {
        case .success(let rows):
            // Behind the end lies what a volume that shrank has left: it will be gone before the volume grows.
            let inside = BlockRange(first: BlockID(0), count: volume.geometry.blockCount)
            region.load(rows.items.prefix { inside.contains($0.block) })
            account(OwnerLimits.imageItemBytes * region.items.count, to: volume)
            region.extents = ExtentList(
                rows.extents.filter { $0.blocks.overlaps(inside) }.map { $0.clipped(to: inside) }
            )
            accountExtents(of: region, volume)
            region.isLoading = false
            useCounter += 1
            region.lastUse = useCounter
            let index = MemoryImage.regionIndex(of: region.range.first)
            regionQueue.append((volume, index, region.lastUse))
            let waiters = region.waiters
            region.waiters = []
            for command in waiters where command.phase == .loading {
                pin(region, index: index, for: command, of: volume)
            }
            for command in waiters where command.phase == .loading {
                command.outstanding -= 1
                if command.outstanding == 0 { load(command, of: volume, now: now) }
            }
        case .failure:
            schedule(.region(volume, region), at: now.advanced(byNanoseconds: OwnerLimits.storeRetry))
        }
    }

    /// Collects the whole content of blocks in `command.fetched`; `false` while something is still to come.
    mutating func gather(_ blocks: [BlockID], for command: Command, of volume: VolumeOwner) -> Bool {
        var missing: [BlockID] = []
        for block in blocks where command.fetched[block] == nil {
            switch volume.image.content(of: block) {
            case .bytes(let place, _): command.fetched[block] = volume.image.slab.bytes(at: place)
            case .zeros:
                command.fetched[block] = ByteBuffer(repeating: 0, count: Int(volume.geometry.blockSizeBytes))
            case .notInMemory: missing.append(block)
            case .object(let extent):
                command.outstanding += 1
                let id = operation(.slot(volume, command, extent))
                actions.append(.fetchSlot(id, extent, blockSizeBytes: volume.geometry.blockSizeBytes))
            }
        }
        if !missing.isEmpty {
            command.outstanding += 1
            actions.append(.loadBytes(operation(.bytes(volume, command, missing)), volume.id, missing))
        }
        return command.outstanding == 0
    }

    /// The store read the bytes of items.
    public mutating func bytesLoaded(_ id: OperationID, _ result: Result<[ItemBytes], StoreFailure>, now: MonotonicTime)
    {
        switch operations.removeValue(forKey: id) {
        case .bytes(let volume, let command, let blocks):
            guard !volume.isLost, command.phase == .loading else { return }
            command.outstanding -= 1
            switch result {
            case .success(let items):
                for item in items {
                    guard isWhole(item, in: volume) else {
                        actions.append(.note("volume \(volume.id) block \(item.row.block): item damaged (I11)"))
                        return failMedium(command, block: item.row.block, of: volume, now: now)
                    }
                    guard volume.image.item(item.row.block)?.version == item.row.version else {
                        actions.append(
                            .note("volume \(volume.id): PostgreSQL holds other versions than the memory image")
                        )
                        return lose(volume, retake: true, now: now)
                    }
                    keep(item, of: volume)
                    command.fetched[item.row.block] = item.bytes
                }
                if items.count < blocks.count {
                    // The image says that there are items, the table does not: the image cannot be trusted any more.
                    actions.append(.note("volume \(volume.id): items of the memory image are not in PostgreSQL"))
                    return lose(volume, retake: true, now: now)
                }
                proceed(command, of: volume, now: now)
            case .failure:
                command.outstanding += 1
                schedule(.bytes(volume, command, blocks), at: now.advanced(byNanoseconds: OwnerLimits.storeRetry))
            }
        case .moveBytes(let search): moveBytesLoaded(search, result, now: now)
        default: return
        }
    }

    /// Whether an item's bytes are a block that agrees with its checksum (I11).
    func isWhole(_ item: ItemBytes, in volume: VolumeOwner) -> Bool {
        UInt64(item.bytes.readableBytes) == volume.blockBytes && item.bytes.checksum == item.row.checksum
    }

    /// Keeps bytes that were read from the store in the image, if they are still what it describes.
    private mutating func keep(_ item: ItemBytes, of volume: VolumeOwner) {
        guard
            let region = volume.image.region(MemoryImage.regionIndex(of: item.row.block)), !region.isLoading,
            let cached = region.items[item.row.block], cached.version == item.row.version, !cached.isInMemory
        else { return }
        region.keep(item.bytes, of: item.row.block)
        account(item.bytes.readableBytes, to: volume)
        noteBytes(of: region, volume)
    }

    /// An object server returned a block, or said why not.
    public mutating func slotFetched(_ id: OperationID, _ result: Result<ByteBuffer, SlotFailure>, now: MonotonicTime) {
        switch operations.removeValue(forKey: id) {
        case .slot(let volume, let command, let extent):
            guard !volume.isLost, command.phase == .loading else { return }
            command.outstanding -= 1
            switch result {
            case .success(let bytes) where UInt64(bytes.readableBytes) != volume.blockBytes:
                actions.append(.note("object \(extent.object) holds no whole block \(extent.blocks.first)"))
                failMedium(command, block: extent.blocks.first, of: volume, now: now)
            case .success(let bytes):
                command.fetched[extent.blocks.first] = bytes
                if command.outstanding == 0 { proceed(command, of: volume, now: now) }
            case .failure(.unavailable(let why)):
                actions.append(.note("object \(extent.object) cannot be reached: \(why)"))
                command.outstanding += 1
                schedule(.slot(volume, command, extent), at: now.advanced(byNanoseconds: OwnerLimits.storeRetry))
            case .failure(.damaged(let why)):
                // The map cannot have changed: the command holds the block (I7).
                actions.append(.note("volume \(volume.id) block \(extent.blocks.first) is lost: \(why)"))
                failMedium(command, block: extent.blocks.first, of: volume, now: now)
            }
        case .fillSlot(let volume, let extent):
            volume.fillsInFlight -= 1
            if case .success(let bytes) = result, !volume.isLost, UInt64(bytes.readableBytes) == volume.blockBytes {
                fill(extent, bytes: bytes, of: volume, now: now)
            }
        default: return
        }
    }

    /// Has what there is of a volume counted.
    mutating func count(_ volume: VolumeOwner) {
        let before = KnownCounts(
            unmovedItems: volume.unmovedItems,
            items: volume.cachedItems,
            mappedBlocks: volume.mappedBlocks
        )
        actions.append(.countVolume(operation(.count(volume, before: before)), volume.id))
    }

    /// The store counted what there is of a volume: all that was committed before it was asked is in it. The numbers are that and what
    /// has come since.
    public mutating func volumeCounted(
        _ id: OperationID,
        _ result: Result<VolumeCounts, StoreFailure>,
        now: MonotonicTime
    ) {
        guard case .count(let volume, let before)? = operations.removeValue(forKey: id), !volume.isLost else { return }
        func sum(_ counted: UInt64, _ current: UInt64, _ before: UInt64) -> UInt64 {
            counted + current - min(before, counted + current)
        }
        switch result {
        case .success(let counts):
            volume.isCounted = true
            setUnmoved(sum(counts.unmovedItems, volume.unmovedItems, before.unmovedItems), of: volume)
            volume.cachedItems = sum(counts.items, volume.cachedItems, before.items)
            // Moved items lie in extents as well.
            let mapped = counts.objectBlocks + counts.unmovedItems
            volume.setMapped(sum(mapped, volume.mappedBlocks, before.mappedBlocks))
        case .failure: schedule(.count(volume), at: now.advanced(byNanoseconds: OwnerLimits.storeRetry))
        }
    }

    // MARK: Memory

    mutating func account(_ bytes: Int, to volume: VolumeOwner) {
        imageBytes += bytes
        volume.imageBytes += bytes
    }

    /// Brings what a region's extents are counted for up to date.
    mutating func accountExtents(of region: Region, _ volume: VolumeOwner) {
        account((region.extents.count - Int(region.countedExtents)) * OwnerLimits.imageExtentBytes, to: volume)
        region.countedExtents = Int32(region.extents.count)
    }

    /// Has the bytes of a region dropped in its turn. A queue of regions takes a thousandth of what one of blocks would.
    mutating func noteBytes(of region: Region, _ volume: VolumeOwner) {
        guard !region.isInDropQueue else { return }
        region.isInDropQueue = true
        dropQueue.append((volume, region))
    }

    /// Drops bytes, then whole regions, until the image fits its memory. A hand goes round over the regions, and in each over its
    /// blocks; what was used since it last came by gets a second chance.
    mutating func shrinkImage() {
        guard imageBytes > configuration.memoryBytes else { return }
        // The first one may have been left in the middle.
        var chances = dropQueue.count * 2 + 1
        while imageBytes > configuration.memoryBytes, chances > 0, let (volume, region) = dropQueue.first {
            let blockBytes = Int(volume.blockBytes)
            let excess = (imageBytes - configuration.memoryBytes + blockBytes - 1) / blockBytes
            let (dropped, isAtEnd) = region.dropBytes(atMost: excess)
            account(-dropped * blockBytes, to: volume)
            guard isAtEnd else { continue }
            chances -= 1
            dropQueue.removeFirst()
            if region.blocksInMemory > 0 {
                dropQueue.append((volume, region))
            } else {
                region.isInDropQueue = false
            }
        }
        var regionChances = regionQueue.count * 2
        while imageBytes > configuration.memoryBytes, regionChances > 0, let entry = regionQueue.popFirst() {
            regionChances -= 1
            guard !entry.volume.isLost, let region = entry.volume.image.region(entry.index) else { continue }
            if region.isLoading || region.pins > 0 || region.lastUse != entry.lastUse {
                regionQueue.append((entry.volume, entry.index, region.lastUse))
                continue
            }
            // One whose bytes still wait for their turn is not dropped before them.
            guard region.blocksInMemory == 0 else {
                regionQueue.append((entry.volume, entry.index, region.lastUse))
                continue
            }
            account(
                -(region.items.count * OwnerLimits.imageItemBytes + OwnerLimits.imageRegionBytes
                    + region.extents.count * OwnerLimits.imageExtentBytes),
                to: entry.volume
            )
            entry.volume.image.remove(entry.index)
        }
    }
}

/// Why a slot of an object could not be had.
public enum SlotFailure: Error, Sendable, Hashable {
    /// The object server cannot be reached, or is busy: worth another try.
    case unavailable(String)
    /// The object is missing, or its bytes do not agree with their checksum.
    case damaged(String)
}
