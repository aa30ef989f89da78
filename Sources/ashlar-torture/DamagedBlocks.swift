/// The blocks that may be damaged, and since when: those that an object held when a bit of it was flipped.
struct DamagedBlocks {
    /// Sectors of a data block.
    static let blockSectors: UInt64 = 8

    /// The earliest time of damage by block, in microseconds.
    private(set) var since: [UInt64: UInt64] = [:]

    /// The data block of a sector.
    static func block(_ lba: UInt64) -> UInt64 { lba / blockSectors }

    /// Notes that blocks may be damaged from a time on.
    mutating func add(_ blocks: [Range<UInt64>], from time: UInt64) {
        for block in blocks.joined() { since[block] = min(since[block] ?? .max, time) }
    }

    /// Whether a command that ended at a time may have found the block damaged.
    func mayFail(_ block: UInt64, at end: UInt64) -> Bool {
        since[block].map { $0 <= end } ?? false
    }

    /// What does not agree, when all is at rest, between the blocks that can not be read and those that the scrub has found.
    ///
    /// - Parameters:
    ///   - unreadable: Blocks that ended with MEDIUM ERROR when all was read.
    ///   - found: Blocks that the database says are damaged, in an object.
    func disagreements(unreadable: Set<UInt64>, found: Set<UInt64>) -> [HistoryChecker.Finding] {
        var result: [HistoryChecker.Finding] = []
        for block in unreadable.subtracting(found).sorted() {
            result.append(
                .init(lba: block * Self.blockSectors, description: "MEDIUM ERROR that the scrub has not found")
            )
        }
        for block in found.sorted() where since[block] == nil {
            result.append(
                .init(
                    lba: block * Self.blockSectors,
                    description: "the scrub has found damage that nobody has done: it has spread"
                )
            )
        }
        return Array(result.prefix(HistoryChecker.findingsMaximum))
    }
}
