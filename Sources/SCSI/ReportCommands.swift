import NIOCore

extension CommandSet {
    /// REPORT LUNS, REPORT SUPPORTED OPERATION CODES and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-5, clause 6).
    static let reportCommands: [SupportedCommand] = [
        SupportedCommand(
            [0xA0, 0x00, 0xFF, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
            isForAnyLUN: true,
            rules: .information,
            transfer: ReportCommands.transfer,
            plan: ReportCommands.logicalUnits
        ),
        SupportedCommand(
            [0xA3, 0x0C, 0x87, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
            serviceAction: 0x0C,
            rules: .discovery,
            transfer: ReportCommands.transfer,
            plan: ReportCommands.operationCodes
        ),
        SupportedCommand(
            [0xA3, 0x0D, 0x80, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
            serviceAction: 0x0D,
            rules: .underReserve,
            transfer: ReportCommands.transfer,
            plan: ReportCommands.taskManagementFunctions
        ),
    ]
}

/// The decisions of the commands that report what there is.
enum ReportCommands {
    /// All of them have the allocation length at the same place.
    static func transfer(_ command: CommandDescriptorBlock, unit: LogicalUnit) -> DataTransfer {
        .dataInAtMost(command.bigEndian(at: 6, count: 4))
    }

    private static func complete(_ data: ByteBuffer, _ context: CommandContext) -> SCSICommandPlan {
        .complete(.good(data.cut(toAllocationLength: context.command.bigEndian(at: 6, count: 4))))
    }

    // MARK: REPORT LUNS

    /// REPORT LUNS (SPC-5, 6.34): LUN 0 is all there is; well known, administrative and subsidiary logical units do not exist.
    static func logicalUnits(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let hasUnit: Bool
        switch context.command[2] {
        case 0x00, 0x02: hasUnit = true
        case 0x01, 0x10, 0x11, 0x12: hasUnit = false
        default: throw SCSIError(.invalidFieldInCDB(byte: 2, bit: 7))
        }
        var data = ByteBuffer()
        data.writeInteger(UInt32(hasUnit ? 8 : 0))
        data.writeInteger(UInt32(0))
        if hasUnit { data.writeInteger(UInt64(0)) }
        return complete(data, context)
    }

    // MARK: REPORT SUPPORTED OPERATION CODES

    /// SUPPORT values of the one-command format (SPC-5, table 234).
    private enum Support {
        static let no: UInt8 = 0b001
        static let asInStandard: UInt8 = 0b011
    }

    static func operationCodes(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let command = context.command
        let hasTimeouts = command.isSet(byte: 2, bit: 7)
        let entries = context.commandSet.entries(operationCode: command[3])
        let serviceAction = UInt16(truncatingIfNeeded: command.bigEndian(at: 4, count: 2))
        let hasServiceActions = entries.first?.serviceAction != nil
        let found: SupportedCommand?
        switch command[2] & 0x07 {
        case 0b000:
            return complete(allCommands(context.commandSet, hasTimeouts: hasTimeouts), context)
        case 0b001:
            guard !hasServiceActions else { throw SCSIError(.invalidFieldInCDB(byte: 2, bit: 2)) }
            found = entries.first
        case 0b010:
            guard hasServiceActions || entries.isEmpty else { throw SCSIError(.invalidFieldInCDB(byte: 2, bit: 2)) }
            found = entries.first { $0.serviceAction == serviceAction }
        case 0b011:
            found = entries.first { ($0.serviceAction ?? 0) == serviceAction }
        default:
            throw SCSIError(.invalidFieldInCDB(byte: 2, bit: 2))
        }
        return complete(oneCommand(found, hasTimeouts: hasTimeouts), context)
    }

    /// The all-commands format (SPC-5, tables 230 and 231).
    private static func allCommands(_ set: CommandSet, hasTimeouts: Bool) -> ByteBuffer {
        var data = ByteBuffer()
        data.writeInteger(UInt32(set.commands.count * (hasTimeouts ? 20 : 8)))
        for entry in set.commands {
            data.writeInteger(entry.operationCode)
            data.writeInteger(UInt8(0))
            data.writeInteger(entry.serviceAction ?? 0)
            data.writeInteger(UInt8(0))
            data.writeInteger(UInt8((hasTimeouts ? 0x02 : 0) | (entry.serviceAction == nil ? 0 : 0x01)))
            data.writeInteger(UInt16(entry.usage.count))
            if hasTimeouts { writeTimeouts(of: entry, &data) }
        }
        return data
    }

    /// The one-command format (SPC-5, table 233).
    private static func oneCommand(_ entry: SupportedCommand?, hasTimeouts: Bool) -> ByteBuffer {
        var data = ByteBuffer()
        data.writeInteger(UInt8(0))
        guard let entry else {
            data.writeInteger(Support.no)
            data.writeInteger(UInt16(0))
            return data
        }
        data.writeInteger((hasTimeouts ? 0x80 : 0) | Support.asInStandard)
        data.writeInteger(UInt16(entry.usage.count))
        data.writeBytes(entry.usage)
        if hasTimeouts { writeTimeouts(of: entry, &data) }
        return data
    }

    /// The command timeouts descriptor (SPC-5, table 235); zero: no time is told.
    private static func writeTimeouts(of entry: SupportedCommand, _ data: inout ByteBuffer) {
        data.writeInteger(UInt16(0x000A))
        data.writeInteger(UInt16(0))
        data.writeInteger(entry.isTimeBounded ? SCSILimits.commandNominalSeconds : 0)
        data.writeInteger(entry.isTimeBounded ? SCSILimits.commandRecommendedSeconds : 0)
    }

    // MARK: REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS

    /// ABORT TASK (ATS), ABORT TASK SET (ATSS), CLEAR TASK SET (CTSS) and LOGICAL UNIT RESET (LURS) (SPC-5, tables 238 and
    /// 239). There is neither an ACA condition to clear (CACAS) nor QUERY TASK, QUERY TASK SET or I_T NEXUS RESET (QTS,
    /// QTSS, ITNRS); the bits of target reset and wakeup are obsolete.
    static func taskManagementFunctions(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let isExtended = context.command.isSet(byte: 2, bit: 7)
        var data = ByteBuffer()
        data.writeInteger(UInt8(0xD8))
        data.writeInteger(UInt8(0x00))
        data.writeInteger(UInt8(0x00))
        data.writeInteger(UInt8(isExtended ? 0x0C : 0x00))
        if isExtended { data.writeRepeatingByte(0, count: 12) }
        return complete(data, context)
    }
}
