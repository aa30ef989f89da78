import AshlarCore
import NIOCore

/// The logical blocks that a CDB names (SBC-4, 5.13 and others: the fields have the same places in all CDBs of a length).
struct MediumExtent {
    /// LOGICAL BLOCK ADDRESS.
    var address: UInt64
    /// TRANSFER LENGTH, NUMBER OF LOGICAL BLOCKS, VERIFICATION LENGTH...
    var blocks: UInt64
    /// Offset of the field that `blocks` comes from.
    var countOffset: Int

    /// Takes the fields from a CDB of 6, 10, 12 or 16 bytes.
    init(_ command: CommandDescriptorBlock, length: Int) {
        switch length {
        case 6:
            address = command.bigEndian(at: 1, count: 3) & 0x1F_FFFF
            blocks = command[4] == 0 ? 256 : UInt64(command[4])
            countOffset = 4
        case 10:
            address = command.bigEndian(at: 2, count: 4)
            blocks = command.bigEndian(at: 7, count: 2)
            countOffset = 7
        case 12:
            address = command.bigEndian(at: 2, count: 4)
            blocks = command.bigEndian(at: 6, count: 4)
            countOffset = 6
        default:
            address = command.bigEndian(at: 2, count: 8)
            blocks = command.bigEndian(at: 10, count: 4)
            countOffset = 10
        }
    }

    /// The fields of COMPARE AND WRITE, which has a length of one byte (SBC-4, 5.3).
    init(compareAndWrite command: CommandDescriptorBlock) {
        address = command.bigEndian(at: 2, count: 8)
        blocks = UInt64(command[13])
        countOffset = 13
    }
}

extension CommandContext {
    /// The range of an extent, if it lies inside the volume and is not too long.
    ///
    /// - Throws: LOGICAL BLOCK ADDRESS OUT OF RANGE with the first block outside, or INVALID FIELD IN CDB.
    func range(of extent: MediumExtent, maximumBlocks: UInt64 = .max) throws(SCSIError) -> ByteRange {
        let capacity = unit.logicalBlockCount
        guard extent.address <= capacity, extent.blocks <= capacity - extent.address else {
            throw SCSIError(.addressOutOfRange(LBA(max(extent.address, capacity))))
        }
        guard extent.blocks <= maximumBlocks else {
            throw SCSIError(.invalidFieldInCDB(byte: extent.countOffset, bit: 7))
        }
        let size = unit.logicalBlockBytes
        return ByteRange(offset: extent.address * size, count: extent.blocks * size)
    }

    /// The range of an extent in which a length of zero means: to the end of the volume.
    func rangeToEnd(of extent: MediumExtent, maximumBlocks: UInt64 = .max) throws(SCSIError) -> ByteRange {
        var extent = extent
        if extent.blocks == 0, extent.address <= unit.logicalBlockCount {
            extent.blocks = unit.logicalBlockCount - extent.address
        }
        return try range(of: extent, maximumBlocks: maximumBlocks)
    }

    /// Refuses RDPROTECT, WRPROTECT and VRPROTECT: the volume has no protection information (SBC-4, 4.21).
    func refuseProtection() throws(SCSIError) {
        guard command[1] & 0xE0 == 0 else {
            throw SCSIError(.invalidFieldInCDB(byte: 1, bit: 7))
        }
    }

    /// Refuses to change a volume that is read-only, by its description or by SWP of the control mode page.
    func requireWritable() throws(SCSIError) {
        guard !unit.volume.isReadOnly else { throw SCSIError(.writeProtected) }
        guard !unit.mode.isSoftwareWriteProtected else { throw SCSIError(.softwareWriteProtected) }
    }

    /// The bytes of the data-out from `offset` on.
    ///
    /// - Throws: INVALID FIELD IN COMMAND INFORMATION UNIT where there are not so many.
    func requireDataOut(at offset: Int = 0, count: UInt64) throws(SCSIError) -> ByteBuffer {
        guard
            let dataOut, let length = Int(exactly: count),
            let slice = dataOut.getSlice(at: dataOut.readerIndex + offset, length: length)
        else {
            throw SCSIError(.wrongDataOutLength)
        }
        return slice
    }

    /// Number of bytes of data-out.
    var dataOutCount: Int { dataOut?.readableBytes ?? 0 }
}
