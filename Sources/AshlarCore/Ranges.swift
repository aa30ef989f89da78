/// A run of consecutive data blocks of one volume.
public struct BlockRange: Hashable, Sendable {
    /// The first block of the run.
    public var first: BlockID
    /// The number of blocks; may be 0.
    public var count: UInt64

    /// `count` blocks from `first` on.
    @inlinable
    public init(first: BlockID, count: UInt64) {
        self.first = first
        self.count = count
    }

    /// The blocks from `first` up to but not including `end`.
    @inlinable
    public init(from first: BlockID, to end: BlockID) {
        self.init(first: first, count: end - first)
    }

    /// The first block behind the run.
    @inlinable
    public var end: BlockID { first + count }

    /// Whether the run holds no block.
    @inlinable
    public var isEmpty: Bool { count == 0 }

    /// Whether the two runs have a block in common.
    @inlinable
    public func overlaps(_ other: BlockRange) -> Bool { first < other.end && other.first < end }

    /// Whether the run holds `block`.
    @inlinable
    public func contains(_ block: BlockID) -> Bool { block >= first && block < end }

    /// The blocks that both runs hold; empty where there is none.
    @inlinable
    public func intersection(_ other: BlockRange) -> BlockRange {
        let low = max(first, other.first)
        let high = min(end, other.end)
        return high > low ? BlockRange(from: low, to: high) : BlockRange(first: low, count: 0)
    }
}

/// A run of consecutive bytes of one volume.
public struct ByteRange: Hashable, Sendable {
    /// Offset of the first byte from the start of the volume.
    public var offset: UInt64
    /// Number of bytes; may be 0.
    public var count: UInt64

    /// `count` bytes from `offset` on.
    @inlinable
    public init(offset: UInt64, count: UInt64) {
        self.offset = offset
        self.count = count
    }

    /// The offset of the first byte behind the run.
    @inlinable
    public var end: UInt64 { offset + count }
}

/// The dimensions of a volume.
public struct Geometry: Hashable, Sendable {
    /// Size in bytes; a multiple of both block sizes.
    public private(set) var sizeBytes: UInt64
    /// Bytes in a data block: a power of two from 512 to 65,536.
    public let blockSizeBytes: UInt32
    /// Bytes in a SCSI logical block: 512 or 4,096, never more than a data block.
    public let logicalBlockSizeBytes: UInt32

    /// Checks and makes a geometry.
    ///
    /// - Throws: ``GeometryError`` that names the dimension which is out of its bounds.
    public init(
        sizeBytes: UInt64,
        blockSizeBytes: UInt32 = Limits.blockSizeDefaultBytes,
        logicalBlockSizeBytes: UInt32 = Limits.logicalBlockSizeDefaultBytes
    ) throws(GeometryError) {
        guard
            blockSizeBytes >= Limits.blockSizeMinimumBytes, blockSizeBytes <= Limits.blockSizeMaximumBytes,
            blockSizeBytes & (blockSizeBytes - 1) == 0
        else {
            throw GeometryError.blockSize(blockSizeBytes)
        }
        guard logicalBlockSizeBytes == 512 || logicalBlockSizeBytes == 4096, logicalBlockSizeBytes <= blockSizeBytes
        else {
            throw GeometryError.logicalBlockSize(logicalBlockSizeBytes)
        }
        guard
            sizeBytes > 0, sizeBytes <= Limits.volumeSizeMaximumBytes, sizeBytes % UInt64(blockSizeBytes) == 0
        else {
            throw GeometryError.size(sizeBytes)
        }
        self.sizeBytes = sizeBytes
        self.blockSizeBytes = blockSizeBytes
        self.logicalBlockSizeBytes = logicalBlockSizeBytes
    }

    /// The first `bytes` of it: at least a data block and a multiple of it, and no more than there are.
    public func cut(toBytes bytes: UInt64) -> Geometry {
        precondition(
            bytes > 0 && bytes <= sizeBytes && bytes % UInt64(blockSizeBytes) == 0,
            "a part is whole data blocks"
        )
        var geometry = self
        geometry.sizeBytes = bytes
        return geometry
    }

    /// Number of data blocks.
    @inlinable
    public var blockCount: UInt64 { sizeBytes / UInt64(blockSizeBytes) }

    /// Number of SCSI logical blocks.
    @inlinable
    public var logicalBlockCount: UInt64 { sizeBytes / UInt64(logicalBlockSizeBytes) }

    /// Whether `range` lies inside the volume.
    @inlinable
    public func contains(_ range: ByteRange) -> Bool {
        range.count <= sizeBytes && range.offset <= sizeBytes - range.count
    }

    /// The data blocks that hold at least one byte of `range`.
    @inlinable
    public func blocks(touching range: ByteRange) -> BlockRange {
        guard range.count > 0 else {
            return BlockRange(first: BlockID(range.offset / UInt64(blockSizeBytes)), count: 0)
        }
        let first = range.offset / UInt64(blockSizeBytes)
        let last = (range.end - 1) / UInt64(blockSizeBytes)
        return BlockRange(first: BlockID(first), count: last - first + 1)
    }

    /// The data blocks that lie wholly inside `range`; empty where there is none.
    @inlinable
    public func blocks(inside range: ByteRange) -> BlockRange {
        let size = UInt64(blockSizeBytes)
        let first = (range.offset + size - 1) / size
        let end = range.end / size
        return BlockRange(first: BlockID(first), count: end > first ? end - first : 0)
    }

    /// The bytes of a run of data blocks.
    @inlinable
    public func bytes(of range: BlockRange) -> ByteRange {
        ByteRange(
            offset: range.first.rawValue * UInt64(blockSizeBytes),
            count: range.count * UInt64(blockSizeBytes)
        )
    }
}

/// A dimension of a volume that is out of its bounds, with the value that was asked for.
public enum GeometryError: Error, Hashable, CustomStringConvertible {
    /// The data block size in bytes.
    case blockSize(UInt32)
    /// The SCSI logical block size in bytes.
    case logicalBlockSize(UInt32)
    /// The volume's size in bytes.
    case size(UInt64)

    /// Names the dimension, the value and what is allowed.
    public var description: String {
        switch self {
        case .blockSize(let bytes):
            "block size \(bytes) is not a power of two from \(Limits.blockSizeMinimumBytes) to \(Limits.blockSizeMaximumBytes)"
        case .logicalBlockSize(let bytes):
            "logical block size \(bytes) is neither 512 nor 4096, or is larger than the block size"
        case .size(let bytes):
            "size \(bytes) is not a multiple of the block size from one block to \(Limits.volumeSizeMaximumBytes) bytes"
        }
    }
}

/// A run of data blocks that are all mapped or all unmapped.
public struct MappedRun: Sendable, Hashable {
    /// The blocks.
    public var blocks: BlockRange
    /// Whether each has an item or an extent.
    public var isMapped: Bool

    /// A run with its state.
    public init(blocks: BlockRange, isMapped: Bool) {
        self.blocks = blocks
        self.isMapped = isMapped
    }
}
