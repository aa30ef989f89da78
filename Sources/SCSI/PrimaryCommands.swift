import AshlarCore
import NIOCore

extension CommandSet {
    /// TEST UNIT READY, REQUEST SENSE, INQUIRY, MODE SENSE, START STOP UNIT and READ CAPACITY (SPC-5, clause 6; SBC-4, clause 5).
    static let primaryCommands: [SupportedCommand] = [
        SupportedCommand([0x00, 0x00, 0x00, 0x00, 0x00, 0x00], rules: .any) { _ throws(SCSIError) in .complete(.good) },
        SupportedCommand(
            [0x03, 0x01, 0x00, 0x00, 0xFF, 0x00],
            isForAnyLUN: true,
            rules: .sense,
            transfer: { command, _ in .dataInAtMost(UInt64(command[4])) },
            plan: PrimaryCommands.requestSense
        ),
        SupportedCommand(
            [0x12, 0x01, 0xFF, 0xFF, 0xFF, 0x00],
            isForAnyLUN: true,
            rules: .information,
            transfer: { command, _ in .dataInAtMost(command.bigEndian(at: 3, count: 2)) },
            plan: InquiryCommand.plan
        ),
        SupportedCommand(
            [0x1A, 0x08, 0xFF, 0xFF, 0xFF, 0x00],
            rules: .read,
            transfer: { command, _ in .dataInAtMost(UInt64(command[4])) },
            plan: ModeSense.plan6
        ),
        SupportedCommand(
            [0x5A, 0x18, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00],
            rules: .read,
            transfer: { command, _ in .dataInAtMost(command.bigEndian(at: 7, count: 2)) },
            plan: ModeSense.plan10
        ),
        SupportedCommand([0x1B, 0x01, 0x00, 0x00, 0xF7, 0x00], rules: .any, plan: PrimaryCommands.startStopUnit),
        SupportedCommand(
            [0x25, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
            rules: .any,
            transfer: { _, _ in .dataIn(8) },
            plan: PrimaryCommands.readCapacity10
        ),
        SupportedCommand(
            [0x9E, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
            serviceAction: 0x10,
            rules: .any,
            transfer: { command, _ in .dataInAtMost(command.bigEndian(at: 10, count: 4)) },
            plan: PrimaryCommands.readCapacity16
        ),
    ]
}

/// The decisions of the small commands.
enum PrimaryCommands {
    /// REQUEST SENSE (SPC-5, 6.39): GOOD with sense data as data-in. A LUN without a logical unit says so in them.
    static func requestSense(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let sense = context.isUnitSelected ? context.pendingSense ?? .noSense : .logicalUnitNotSupported
        let isInDescriptorFormat = context.command.isSet(byte: 1, bit: 0)
        return .complete(
            .good(
                sense.encode(descriptorFormat: isInDescriptorFormat).cut(toAllocationLength: UInt64(context.command[4]))
            )
        )
    }

    /// START STOP UNIT (SBC-4, 5.31): only "start" is accepted, which is true already. There are no power conditions and no tray,
    /// and a "stop" would make the commands of every other initiator NOT READY, while GOOD for one that is not
    /// done would be a lie.
    static func startStopUnit(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let flags = context.command[4]
        guard flags & 0xF0 == 0 else { throw SCSIError(.invalidFieldInCDB(byte: 4, bit: 7)) }
        guard flags & 0x02 == 0 else { throw SCSIError(.invalidFieldInCDB(byte: 4, bit: 1)) }
        guard flags & 0x01 == 1 else { throw SCSIError(.invalidFieldInCDB(byte: 4, bit: 0)) }
        return .complete(.good)
    }

    /// READ CAPACITY (10) (SBC-4, table 65): FFFFFFFFh where the last address does not fit.
    static func readCapacity10(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        var data = ByteBuffer()
        data.writeInteger(UInt32(clamping: context.unit.logicalBlockCount - 1))
        data.writeInteger(context.unit.volume.geometry.logicalBlockSizeBytes)
        return .complete(.good(data))
    }

    /// READ CAPACITY (16) (SBC-4, table 67): thin provisioned, unmapped blocks read as zeros, data blocks as physical blocks.
    static func readCapacity16(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let unit = context.unit
        var data = ByteBuffer()
        data.writeInteger(unit.logicalBlockCount - 1)
        data.writeInteger(unit.volume.geometry.logicalBlockSizeBytes)
        data.writeInteger(UInt8(0))
        data.writeInteger(UInt8(truncatingIfNeeded: unit.logicalBlocksPerDataBlock.trailingZeroBitCount))
        data.writeInteger(UInt16(0xC000))
        data.writeRepeatingByte(0, count: 16)
        return .complete(.good(data.cut(toAllocationLength: context.command.bigEndian(at: 10, count: 4))))
    }
}

extension ByteBuffer {
    /// The bytes, at most as many as the initiator made room for (SPC-5, 4.2.5.6).
    func cut(toAllocationLength length: UInt64) -> ByteBuffer {
        guard length < UInt64(readableBytes) else { return self }
        return getSlice(at: readerIndex, length: Int(length)) ?? ByteBuffer()
    }

    /// Writes text of ASCII in a field of fixed size, left-aligned and filled with spaces; other characters become spaces
    /// (SPC-5, 4.3.1).
    mutating func writeField(_ text: String, count: Int) {
        let bytes = text.utf8.prefix(count).map { $0 >= 0x20 && $0 <= 0x7E ? $0 : 0x20 }
        writeBytes(bytes)
        writeRepeatingByte(0x20, count: count - bytes.count)
    }
}
