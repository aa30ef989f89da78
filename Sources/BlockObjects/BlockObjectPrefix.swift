import AshlarCore
import NIOCore

/// The first 64 bytes of an object.
struct Prefix {
    let slotCount: Int
    let blockSizeBytes: UInt32
    let objectID: ObjectID
    let volumeID: VolumeID
    let volumeUUID: [UInt8]
    let objectBytes: UInt32
    /// CRC-32C of a block of zeros; not stored, but made once for all slots.
    let zerosChecksum: Checksum

    static let checkedBytes = BlockObjectsLimits.prefixBytes - BlockObjectsLimits.headerChecksumBytes

    init(
        slotCount: Int,
        blockSizeBytes: UInt32,
        objectID: ObjectID,
        volumeID: VolumeID,
        volumeUUID: [UInt8],
        objectBytes: UInt32
    ) {
        self.slotCount = slotCount
        self.blockSizeBytes = blockSizeBytes
        self.objectID = objectID
        self.volumeID = volumeID
        self.volumeUUID = volumeUUID
        self.objectBytes = objectBytes
        zerosChecksum = .zeros(count: Int(blockSizeBytes))
    }

    init(decoding buffer: ByteBuffer) throws(BlockObjectError) {
        guard var reader = buffer.getSlice(at: buffer.readerIndex, length: BlockObjectsLimits.prefixBytes) else {
            throw BlockObjectError(.truncated, "\(buffer.readableBytes) bytes are less than a prefix")
        }
        let covered = reader.getSlice(at: reader.readerIndex, length: Self.checkedBytes)
        guard
            let head = reader.readMultipleIntegers(as: (UInt64, UInt16, UInt16, UInt32, UInt32, UInt32).self),
            let ids = reader.readMultipleIntegers(as: (UInt64, Int64).self),
            let uuid = reader.readBytes(length: BlockObjectsLimits.uuidBytes),
            let tail = reader.readMultipleIntegers(as: (UInt32, UInt32).self)
        else {
            throw BlockObjectError(.truncated, "the prefix is cut off")
        }
        guard head.0 == BlockObjectHeader.magic else {
            throw BlockObjectError(.notAnObject, "the first bytes are not those of an object")
        }
        guard head.1 == BlockObjectHeader.formatVersion else {
            throw BlockObjectError(.unsupportedVersion, "format version \(head.1) is not known")
        }
        guard covered?.checksum.rawValue == tail.1 else {
            throw BlockObjectError(.headerChecksum, "the prefix does not match its checksum")
        }
        guard head.2 == 0 else { throw BlockObjectError(.badHeader, "a reserved field is not zero") }
        guard head.4 >= 1, head.4 <= Limits.objectSlotsMaximum else {
            throw BlockObjectError(.badHeader, "\(head.4) slots")
        }
        guard BlockObjectsLimits.isBlockSize(head.5) else {
            throw BlockObjectError(.badHeader, "blocks of \(head.5) bytes")
        }
        let headerBytes = BlockObjectsLimits.headerBytes(slotCount: Int(head.4))
        guard Int(head.3) == headerBytes else {
            throw BlockObjectError(.badHeader, "a header of \(head.3) bytes for \(head.4) slots")
        }
        guard Int(tail.0) >= headerBytes, Int(tail.0) <= Limits.objectMaximumBytes else {
            throw BlockObjectError(.badHeader, "an object of \(tail.0) bytes")
        }
        self.init(
            slotCount: Int(head.4),
            blockSizeBytes: head.5,
            objectID: ObjectID(ids.0),
            volumeID: VolumeID(ids.1),
            volumeUUID: uuid,
            objectBytes: tail.0
        )
    }

    func encode(into buffer: inout ByteBuffer) {
        let start = buffer.writerIndex
        buffer.writeMultipleIntegers(
            BlockObjectHeader.magic,
            BlockObjectHeader.formatVersion,
            UInt16(0),
            UInt32(BlockObjectsLimits.headerBytes(slotCount: slotCount)),
            UInt32(slotCount),
            blockSizeBytes
        )
        buffer.writeMultipleIntegers(objectID.rawValue, volumeID.rawValue)
        buffer.writeBytes(volumeUUID)
        buffer.writeInteger(objectBytes)
        buffer.writeChecksum(since: start)
    }
}

extension ByteBuffer {
    /// Appends the CRC-32C of what was written from `start` on.
    mutating func writeChecksum(since start: Int) {
        precondition(start >= readerIndex && start <= writerIndex, "the run must lie in what was written")
        let checksum = withUnsafeReadableBytes { bytes in
            Checksum(of: UnsafeRawBufferPointer(rebasing: bytes[(start - readerIndex)...]))
        }
        writeInteger(checksum.rawValue)
    }
}
