public import AshlarCore

/// The extents of a run of blocks, ascending and without overlap: a piece of a volume's map in memory.
public struct ExtentList: Sendable, Hashable {
    /// The extents, ascending by their first block.
    public private(set) var extents: [Extent]

    /// A list of extents that are ascending and do not overlap, as a store returns them.
    public init(_ extents: [Extent] = []) {
        self.extents = extents
        assert(isWellFormed, "extents of a volume never overlap")
    }

    /// Whether no extent overlaps the next.
    var isWellFormed: Bool {
        zip(extents, extents.dropFirst()).allSatisfy { $0.blocks.end <= $1.blocks.first && !$0.blocks.isEmpty }
    }

    /// The index of the first extent that ends behind `block`.
    private func index(endingBehind block: BlockID) -> Int {
        var low = 0
        var high = extents.count
        while low < high {
            let middle = (low + high) / 2
            if extents[middle].blocks.end <= block { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// The extent that holds `block`, if there is one.
    public func extent(holding block: BlockID) -> Extent? {
        let index = index(endingBehind: block)
        guard index < extents.count, extents[index].blocks.contains(block) else { return nil }
        return extents[index]
    }

    /// Removes `range` from the map: extents inside it go, those across its borders are cut.
    ///
    /// - Returns: how many blocks lost their place.
    @discardableResult
    public mutating func cut(_ range: BlockRange) -> UInt64 {
        guard !range.isEmpty else { return 0 }
        let start = index(endingBehind: range.first)
        var end = start
        while end < extents.count, extents[end].blocks.first < range.end { end += 1 }
        guard end > start else { return 0 }
        let lost = extents[start..<end].reduce(UInt64(0)) { $0 + $1.blocks.intersection(range).count }
        var remains: [Extent] = []
        let first = extents[start]
        if first.blocks.first < range.first {
            remains.append(first.clipped(to: BlockRange(from: first.blocks.first, to: range.first)))
        }
        let last = extents[end - 1]
        if last.blocks.end > range.end {
            remains.append(last.clipped(to: BlockRange(from: range.end, to: last.blocks.end)))
        }
        extents.replaceSubrange(start..<end, with: remains)
        return lost
    }

    /// Puts an extent into the map in place of whatever was there.
    public mutating func insert(_ extent: Extent) {
        guard !extent.blocks.isEmpty else { return }
        cut(extent.blocks)
        var index = index(endingBehind: extent.blocks.first)
        var merged = extent
        if index > 0, let joined = Self.joined(extents[index - 1], merged) {
            index -= 1
            extents.remove(at: index)
            merged = joined
        }
        if index < extents.count, let joined = Self.joined(merged, extents[index]) {
            extents[index] = joined
            return
        }
        extents.insert(merged, at: index)
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
