public import AshlarCore

/// The extents of a run of blocks, ascending and without overlap: a piece of a volume's map in memory. 32 bytes an extent, and what
/// made them apart, since few were made by copies.
public struct ExtentList: Sendable {
    struct Entry: Sendable, Hashable {
        var first: BlockID
        var object: ObjectID
        var count: UInt32
        var firstSlot: SlotIndex
        var server: ObjectServerID

        init(_ extent: Extent) {
            precondition(extent.blocks.count <= UInt64(UInt32.max), "an extent is no longer than its object has slots")
            first = extent.blocks.first
            object = extent.object
            count = UInt32(extent.blocks.count)
            firstSlot = extent.firstSlot
            server = extent.server
        }

        var end: BlockID { first + UInt64(count) }
    }

    private var entries: [Entry] = []
    /// What made each of `entries`; empty where none was made by a copy.
    private var copies: [BlockCopy?] = []

    /// A list of extents that are ascending and do not overlap, as a store returns them.
    public init(_ extents: [Extent] = []) {
        entries.reserveCapacity(extents.count)
        for extent in extents { entries.append(Entry(extent)) }
        if extents.contains(where: { $0.copy != nil }) { copies = extents.map(\.copy) }
        assert(isWellFormed, "extents of a volume never overlap")
    }

    /// How many there are.
    public var count: Int { entries.count }
    /// Whether there are none.
    public var isEmpty: Bool { entries.isEmpty }
    /// The extents, ascending by their first block.
    public var extents: [Extent] { entries.indices.map { self[$0] } }

    /// What its entries take up in memory, with what is set aside for others and what every array has.
    var allocatedBytes: Int {
        (entries.capacity == 0 ? 0 : 32 + entries.capacity * MemoryLayout<Entry>.stride)
            + (copies.capacity == 0 ? 0 : 32 + copies.capacity * MemoryLayout<BlockCopy?>.stride)
    }

    /// Whether no extent overlaps the next.
    var isWellFormed: Bool {
        zip(entries, entries.dropFirst()).allSatisfy { $0.end <= $1.first } && entries.allSatisfy { $0.count > 0 }
            && (copies.isEmpty || copies.count == entries.count)
    }

    private subscript(index: Int) -> Extent {
        let entry = entries[index]
        return Extent(
            blocks: BlockRange(first: entry.first, count: UInt64(entry.count)),
            object: entry.object,
            server: entry.server,
            firstSlot: entry.firstSlot,
            copy: copies.isEmpty ? nil : copies[index]
        )
    }

    private mutating func set(_ index: Int, _ extent: Extent) {
        entries[index] = Entry(extent)
        note(extent.copy)
        if !copies.isEmpty { copies[index] = extent.copy }
    }

    private mutating func add(_ extent: Extent, at index: Int) {
        let isNoted = extent.copy != nil || !copies.isEmpty
        note(extent.copy)
        if entries.count == entries.capacity {
            // Not twice as much, as an array would: half of it would lie idle.
            entries.reserveCapacity(entries.count + max(4, entries.count / 4))
        }
        entries.insert(Entry(extent), at: index)
        // Also where it is the first of all.
        if isNoted { copies.insert(extent.copy, at: index) }
    }

    private mutating func remove(_ part: Range<Int>) {
        guard !part.isEmpty else { return }
        entries.removeSubrange(part)
        if !copies.isEmpty { copies.removeSubrange(part) }
        if entries.isEmpty { entries = [] }
        if copies.allSatisfy({ $0 == nil }) { copies = [] }
        guard entries.capacity > 16, entries.count * 3 < entries.capacity else { return }
        var less: [Entry] = []
        less.reserveCapacity(entries.count + entries.count / 4)
        less.append(contentsOf: entries)
        entries = less
    }

    /// Makes room for what made the extents, with the first one that a copy made.
    private mutating func note(_ copy: BlockCopy?) {
        guard copy != nil, copies.isEmpty else { return }
        copies = [BlockCopy?](repeating: nil, count: entries.count)
    }

    /// The index of the first extent that ends behind `block`.
    private func index(endingBehind block: BlockID) -> Int {
        entries.withUnsafeBufferPointer { entries in
            var low = 0
            var high = entries.count
            while low < high {
                let middle = (low + high) / 2
                if entries[middle].end <= block { low = middle + 1 } else { high = middle }
            }
            return low
        }
    }

    /// The extent that holds `block`, if there is one.
    public func extent(holding block: BlockID) -> Extent? {
        let index = index(endingBehind: block)
        guard index < entries.count, entries[index].first <= block else { return nil }
        return self[index]
    }

    /// Whether an extent holds `block`.
    func holds(_ block: BlockID) -> Bool {
        let index = index(endingBehind: block)
        return index < entries.count && entries[index].first <= block
    }

    /// How many blocks of `range` lie in extents.
    func blocks(in range: BlockRange) -> UInt64 {
        guard !range.isEmpty else { return 0 }
        var sum: UInt64 = 0
        for entry in entries[index(endingBehind: range.first)...] {
            guard entry.first < range.end else { break }
            sum += BlockRange(from: entry.first, to: entry.end).intersection(range).count
        }
        return sum
    }

    /// Removes `range` from the map: extents inside it go, those across its borders are cut.
    ///
    /// - Returns: how many blocks lost their place.
    @discardableResult
    public mutating func cut(_ range: BlockRange) -> UInt64 {
        guard !range.isEmpty else { return 0 }
        var start = index(endingBehind: range.first)
        var end = start
        var lost: UInt64 = 0
        while end < entries.count, entries[end].first < range.end {
            lost += BlockRange(from: entries[end].first, to: entries[end].end).intersection(range).count
            end += 1
        }
        guard end > start else { return 0 }
        let last = self[end - 1]
        let first = self[start]
        if first.blocks.first < range.first {
            set(start, first.clipped(to: BlockRange(from: first.blocks.first, to: range.first)))
            start += 1
        }
        if last.blocks.end > range.end {
            let rest = last.clipped(to: BlockRange(from: range.end, to: last.blocks.end))
            if start < end {
                set(end - 1, rest)
                end -= 1
            } else {
                add(rest, at: start)
                return lost
            }
        }
        remove(start..<end)
        return lost
    }

    /// Puts an extent into the map in place of whatever was there.
    public mutating func insert(_ extent: Extent) {
        guard !extent.blocks.isEmpty else { return }
        cut(extent.blocks)
        let index = index(endingBehind: extent.blocks.first)
        var merged = extent
        var isInPlace = false
        if index > 0, let joined = Self.joined(self[index - 1], merged) {
            merged = joined
            isInPlace = true
        }
        if index < entries.count, let joined = Self.joined(merged, self[index]) {
            set(index, joined)
            if isInPlace { remove(index - 1..<index) }
            return
        }
        if isInPlace { set(index - 1, merged) } else { add(merged, at: index) }
    }

    /// Two extents as one, where the second goes on where the first ends.
    static func joined(_ left: Extent, _ right: Extent) -> Extent? {
        guard
            left.blocks.end == right.blocks.first, left.object == right.object, left.server == right.server,
            UInt64(left.firstSlot.rawValue) + left.blocks.count == UInt64(right.firstSlot.rawValue),
            left.copy?.version == right.copy?.version, left.origin + left.blocks.count == right.origin
        else { return nil }
        var joined = left
        joined.blocks.count += right.blocks.count
        return joined
    }
}

extension ExtentList: Hashable {
    /// Whether both say the same of each block.
    public static func == (left: ExtentList, right: ExtentList) -> Bool {
        left.entries == right.entries && left.copies == right.copies
    }

    /// Hashes where the extents lie.
    public func hash(into hasher: inout Hasher) { hasher.combine(entries) }
}
