import AshlarCore

/// The items of one region, by block. It is used as a dictionary would be, but takes 24 bytes an item and little else: entries lie
/// behind one another in the order of their blocks.
///
/// Where an entry must be follows from how many there are: all blocks of a full region are at their own places, and of a region with
/// few items an entry is near to where it would be if they were evenly spread. So a look finds it in one or two cache lines.
struct ItemTable: Sequence {
    typealias Element = (key: BlockID, value: CachedItem)

    /// An item and its block's offset in the region.
    struct Entry {
        var version: Version
        var checksum: Checksum
        var place: BlockSlab.Place
        var offset: UInt16
        var isMoved: Bool
        var isVisited: Bool

        init(_ item: CachedItem, offset: UInt16) {
            version = item.version
            checksum = item.checksum
            place = item.place
            self.offset = offset
            isMoved = item.isMoved
            isVisited = item.isVisited
        }

        var item: CachedItem {
            CachedItem(version: version, checksum: checksum, isMoved: isMoved, isVisited: isVisited, place: place)
        }
    }

    private let first: BlockID
    private var entries: [Entry] = []

    /// An empty table for the blocks of a region, which has at most ``Limits/regionBlocks``.
    init(of range: BlockRange) {
        precondition(range.count <= Limits.regionBlocks, "a region has a bounded number of blocks")
        first = range.first
    }

    var count: Int { entries.count }
    var isEmpty: Bool { entries.isEmpty }
    var keys: some Collection<BlockID> { entries.lazy.map { [first] in first + UInt64($0.offset) } }
    var values: some Collection<CachedItem> { entries.lazy.map(\.item) }
    /// What its entries take up in memory, with what is set aside for others and what every array has.
    var allocatedBytes: Int { entries.capacity == 0 ? 0 : 32 + entries.capacity * MemoryLayout<Entry>.stride }

    func makeIterator() -> AnyIterator<Element> {
        var rest = entries.makeIterator()
        return AnyIterator { [first] in rest.next().map { (first + UInt64($0.offset), $0.item) } }
    }

    /// Sets room aside for so many items.
    mutating func reserve(_ items: Int) { entries.reserveCapacity(items) }

    subscript(block: BlockID) -> CachedItem? {
        get {
            let (index, isThere) = position(of: block)
            return isThere ? entries[index].item : nil
        }
        set {
            let (index, isThere) = position(of: block)
            if let newValue {
                let entry = Entry(newValue, offset: UInt16(block - first))
                if isThere { entries[index] = entry } else { insert(entry, at: index) }
            } else if isThere {
                entries.remove(at: index)
                giveBack()
            }
        }
    }

    /// What a read finds of a block: marked as used where its bytes are in memory; nil where there is no item.
    mutating func use(_ block: BlockID) -> (place: BlockSlab.Place, checksum: Checksum)? {
        let (index, isThere) = position(of: block)
        guard isThere else { return nil }
        if !entries[index].isVisited, entries[index].place != BlockSlab.nowhere { entries[index].isVisited = true }
        return (entries[index].place, entries[index].checksum)
    }

    @discardableResult
    mutating func removeValue(forKey block: BlockID) -> CachedItem? {
        let (index, isThere) = position(of: block)
        guard isThere else { return nil }
        let removed = entries.remove(at: index).item
        giveBack()
        return removed
    }

    /// Removes the items of a run of blocks; `body` is told each.
    mutating func removeAll(in run: BlockRange, _ body: (CachedItem) -> Void) {
        let part = indices(of: run)
        guard !part.isEmpty else { return }
        for entry in entries[part] { body(entry.item) }
        entries.removeSubrange(part)
        giveBack()
    }

    /// How many items a run of blocks has for whose block `isCounted` is true.
    func count(in run: BlockRange, where isCounted: (BlockID) -> Bool) -> Int {
        entries[indices(of: run)].count { isCounted(first + UInt64($0.offset)) }
    }

    /// Takes bytes out of memory: from the item at or behind `hand` on, those that were not used since this was last done, at most so
    /// many; others lose their mark. `body` is told each place. Returns the offset to go on from, or nil at the end.
    mutating func takeBytes(from hand: UInt16, atMost maximum: Int, _ body: (BlockSlab.Place) -> Void) -> UInt16? {
        var index = lowerBound(Int(hand))
        var taken = 0
        while index < entries.count {
            if taken == maximum { return entries[index].offset }
            if entries[index].place != BlockSlab.nowhere {
                if entries[index].isVisited {
                    entries[index].isVisited = false
                } else {
                    body(entries[index].place)
                    entries[index].place = BlockSlab.nowhere
                    taken += 1
                }
            }
            index += 1
        }
        return nil
    }

    private mutating func insert(_ entry: Entry, at index: Int) {
        if entries.count == entries.capacity {
            // Not twice as much, as an array would: half of it would lie idle.
            let room = entries.count + Swift.max(4, entries.count / 4)
            entries.reserveCapacity(Swift.min(room, Int(Limits.regionBlocks)))
        }
        entries.insert(entry, at: index)
    }

    /// Gives memory back that has become idle.
    private mutating func giveBack() {
        if entries.isEmpty {
            entries = []
        } else if entries.capacity > 16, entries.count * 3 < entries.capacity {
            var less: [Entry] = []
            less.reserveCapacity(entries.count + entries.count / 4)
            less.append(contentsOf: entries)
            entries = less
        }
    }

    private func indices(of run: BlockRange) -> Range<Int> {
        guard run.end > first, !run.isEmpty else { return 0..<0 }
        let low = run.first > first ? Swift.min(run.first - first, Limits.regionBlocks) : 0
        return lowerBound(Int(low))..<lowerBound(Int(Swift.min(run.end - first, Limits.regionBlocks)))
    }

    private func position(of block: BlockID) -> (index: Int, isThere: Bool) {
        guard block >= first, block - first < Limits.regionBlocks else { return (0, false) }
        let offset = Int(block - first)
        let index = lowerBound(offset)
        return (index, index < entries.count && Int(entries[index].offset) == offset)
    }

    /// The index of the first entry at or behind an offset.
    private func lowerBound(_ offset: Int) -> Int {
        entries.withUnsafeBufferPointer { entries in
            let count = entries.count
            guard count > 0 else { return 0 }
            // So many of the blocks before it have an item at least, and at most.
            var low = Swift.max(0, offset - (Int(Limits.regionBlocks) - count))
            var high = Swift.min(offset, count)
            guard low < high else { return low }
            // Where it is if the items are evenly spread; from there in growing steps.
            let guess = Swift.min(Swift.max(offset &* count / Int(Limits.regionBlocks), low), high - 1)
            var step = 1
            if Int(entries[guess].offset) < offset {
                low = guess + 1
                while low < high {
                    let probe = Swift.min(low + step, high) - 1
                    if Int(entries[probe].offset) >= offset {
                        high = probe
                        break
                    }
                    low = probe + 1
                    step *= 2
                }
            } else {
                high = guess
                while low < high {
                    let probe = Swift.max(high - step, low)
                    if Int(entries[probe].offset) < offset {
                        low = probe + 1
                        break
                    }
                    high = probe
                    step *= 2
                }
            }
            while low < high {
                let middle = (low + high) / 2
                if Int(entries[middle].offset) < offset { low = middle + 1 } else { high = middle }
            }
            return low
        }
    }
}
