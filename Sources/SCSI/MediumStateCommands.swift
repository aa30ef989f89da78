import AshlarCore
import NIOCore

extension CommandSet {
    /// PREVENT ALLOW MEDIUM REMOVAL and READ DEFECT DATA (10) and (12) (SBC-4, clause 5).
    static let mediumStateCommands: [SupportedCommand] = [
        SupportedCommand(
            [0x1E, 0x00, 0x00, 0x00, 0x01, 0x00],
            rules: .any,
            ruling: { command in command.isSet(byte: 4, bit: 0) ? .write : .any },
            plan: { _ throws(SCSIError) in
                // Nothing can be removed (RMB is zero): preventing it is true already, and allowing it changes nothing.
                .complete(.good)
            }
        ),
        SupportedCommand(
            [0x37, 0x00, 0x1F, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00],
            rules: .read,
            transfer: { command, _ in .dataInAtMost(command.bigEndian(at: 7, count: 2)) },
            plan: MediumStateCommands.readDefectData10
        ),
        SupportedCommand(
            [0xB7, 0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
            rules: .read,
            transfer: { command, _ in .dataInAtMost(command.bigEndian(at: 6, count: 4)) },
            plan: MediumStateCommands.readDefectData12
        ),
    ]
}

/// The decisions of the commands about what state the medium is in.
enum MediumStateCommands {
    /// READ DEFECT DATA (10): a volume has no defects, so that both lists are there and empty in each format.
    static func readDefectData10(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        var data = ByteBuffer()
        data.writeInteger(UInt8(0))
        data.writeInteger(try listsAndFormat(context, byte: 2))
        data.writeInteger(UInt16(0))
        return .complete(.good(data.cut(toAllocationLength: context.command.bigEndian(at: 7, count: 2))))
    }

    /// READ DEFECT DATA (12): GENERATION CODE zero, not supported. Any ADDRESS DESCRIPTOR INDEX is beyond the empty lists.
    static func readDefectData12(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        var data = ByteBuffer()
        data.writeInteger(UInt8(0))
        data.writeInteger(try listsAndFormat(context, byte: 1))
        data.writeInteger(UInt16(0))
        data.writeInteger(UInt32(0))
        return .complete(.good(data.cut(toAllocationLength: context.command.bigEndian(at: 6, count: 4))))
    }

    /// PLISTV, GLISTV and DEFECT LIST FORMAT, which stand in the parameter data as REQ_PLIST, REQ_GLIST and the format do in
    /// the CDB. 110b is vendor specific and 111b reserved.
    private static func listsAndFormat(_ context: CommandContext, byte: Int) throws(SCSIError) -> UInt8 {
        let flags = context.command[byte] & 0x1F
        guard flags & 0x07 < 0x06 else { throw SCSIError(.invalidFieldInCDB(byte: byte, bit: 2)) }
        return flags
    }
}
