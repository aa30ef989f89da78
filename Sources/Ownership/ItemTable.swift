import AshlarCore

/// The items of one region, by block. It is used as a dictionary would be, but finds a block without hashing, and keeps the items
/// densely behind one another: what a read looks at lies in few cache lines.
///
/// `places` has a number for each block of the region: 0, or one more than where its item stands in `entries`. It is made with the
/// first item.
struct ItemTable: Sequence {
    typealias Element = (key: BlockID, value: CachedItem)

    private struct Entry {
        var item: CachedItem
        /// The block's offset in the region.
        var offset: UInt16
    }

    private let first: BlockID
    private var places: [UInt16] = []
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

    func makeIterator() -> AnyIterator<Element> {
        var rest = entries.makeIterator()
        return AnyIterator { [first] in rest.next().map { (first + UInt64($0.offset), $0.item) } }
    }

    subscript(block: BlockID) -> CachedItem? {
        get { place(of: block).map { entries[$0].item } }
        set {
            guard let newValue else {
                removeValue(forKey: block)
                return
            }
            if let place = place(of: block) {
                entries[place].item = newValue
                return
            }
            let offset = Int(block - first)
            if places.isEmpty { places = [UInt16](repeating: 0, count: Int(Limits.regionBlocks)) }
            entries.append(Entry(item: newValue, offset: UInt16(offset)))
            places[offset] = UInt16(entries.count)
        }
    }

    /// The content of a block that has an item, which is marked as used where its bytes are in memory.
    mutating func use(_ block: BlockID) -> BlockContent? {
        guard let place = place(of: block) else { return nil }
        guard let bytes = entries[place].item.bytes else { return .notInMemory }
        if !entries[place].item.isVisited { entries[place].item.isVisited = true }
        return .bytes(bytes, entries[place].item.checksum)
    }

    @discardableResult
    mutating func removeValue(forKey block: BlockID) -> CachedItem? {
        guard let place = place(of: block) else { return nil }
        let removed = entries[place].item
        places[Int(block - first)] = 0
        let last = entries.removeLast()
        if place < entries.count {
            entries[place] = last
            places[Int(last.offset)] = UInt16(place + 1)
        }
        return removed
    }

    private func place(of block: BlockID) -> Int? {
        guard block >= first, block - first < UInt64(places.count) else { return nil }
        let place = places[Int(block - first)]
        return place == 0 ? nil : Int(place) - 1
    }
}
