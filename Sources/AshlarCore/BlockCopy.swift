/// What a copy by reference adds to a run of blocks that lie in an object: they share slots that were written as other blocks
/// (M11).
public struct BlockCopy: Sendable, Hashable {
    /// The block that the slot of the run's first block was written as; the others follow.
    public var origin: BlockID
    /// The version of the copy, which is newer than those in the slots.
    public var version: Version

    /// A copy of blocks from `origin` on.
    public init(origin: BlockID, version: Version) {
        self.origin = origin
        self.version = version
    }

    /// The same copy, without its first blocks.
    public func dropped(_ blocks: UInt64) -> BlockCopy { BlockCopy(origin: origin + blocks, version: version) }
}
