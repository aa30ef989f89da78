import AshlarCore
import NIOCore

extension CommandSet {
    /// SANITIZE and FORMAT UNIT (SBC-4, clause 5).
    ///
    /// In SANITIZE, IMMED and AUSE are bits 7 and 5 of byte 1; ZNR (bit 6) is for zoned devices, and refused. Only OVERWRITE has
    /// a parameter list: in the others each bit of PARAMETER LIST LENGTH is INVALID FIELD IN CDB.
    static let erasureCommands: [SupportedCommand] = [
        SupportedCommand(
            [0x48, 0xA1, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00],
            serviceAction: 0x01,
            rules: .write,
            isTimeBounded: false,
            transfer: { command, _ in .dataOut(command.bigEndian(at: 7, count: 2)) },
            plan: ErasureCommands.overwrite
        ),
        SupportedCommand(
            [0x48, 0xA2, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
            serviceAction: 0x02,
            rules: .write,
            isTimeBounded: false,
            plan: { context throws(SCSIError) in try ErasureCommands.sanitize(.blockErase, context) }
        ),
        SupportedCommand(
            [0x48, 0xA3, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
            serviceAction: 0x03,
            rules: .write,
            isTimeBounded: false,
            plan: { context throws(SCSIError) in try ErasureCommands.sanitize(.cryptographicErase, context) }
        ),
        SupportedCommand(
            [0x48, 0xBF, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
            serviceAction: 0x1F,
            rules: .write,
            plan: { _ throws(SCSIError) in
                // EXIT FAILURE MODE: an erasure is tried until it is done, so that there is no such mode to leave.
                .complete(.good)
            }
        ),
        SupportedCommand(
            [0x04, 0x3F, 0x00, 0x00, 0x00, 0x00],
            rules: .write,
            isTimeBounded: false,
            transfer: { command, _ in
                command.isSet(byte: 1, bit: 4) ? .dataOut(UInt64(ErasureCommands.formatHeaderBytes(command))) : .none
            },
            plan: ErasureCommands.formatUnit
        ),
    ]
}

/// The decisions of the commands that erase the whole medium.
enum ErasureCommands {
    // MARK: SANITIZE

    /// Bytes of the parameter list of OVERWRITE before its pattern.
    static let overwriteHeaderBytes = 4

    static func sanitize(_ kind: Erasure.Kind, _ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        try context.requireWritable()
        return .erase(Erasure(kind: kind), isImmediate: context.command.isSet(byte: 1, bit: 7))
    }

    /// OVERWRITE: OVERWRITE COUNT passes, of which the last alone leaves something to read: blocks are replaced as a whole, not
    /// written over in place. With INVERT each pass has the complement of the one before, so that an even number of them
    /// ends with the complement of the pattern.
    static func overwrite(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let blockBytes = Int(context.unit.logicalBlockBytes)
        let listLength = Int(context.command.bigEndian(at: 7, count: 2))
        guard listLength > overwriteHeaderBytes, listLength <= overwriteHeaderBytes + blockBytes else {
            throw SCSIError(.invalidFieldInCDB(byte: 7, bit: 7))
        }
        let list = try context.parameterList(count: UInt64(listLength))
        let passes = list[0] & 0x1F
        guard list[0] & 0x60 == 0 else {
            // TEST: whatever is not zero is vendor specific.
            throw SCSIError(.invalidFieldInParameterList(byte: 0, bit: 6))
        }
        guard passes > 0 else { throw SCSIError(.invalidFieldInParameterList(byte: 0, bit: 4)) }
        guard list[1] == 0 else { throw SCSIError(.invalidFieldInParameterList(byte: 1, bit: 7)) }
        let patternLength = Int(list.bigEndian(at: 2, count: 2))
        guard patternLength > 0, patternLength <= blockBytes else {
            throw SCSIError(.invalidFieldInParameterList(byte: 2, bit: 7))
        }
        guard overwriteHeaderBytes + patternLength <= listLength else { throw SCSIError(.parameterListLengthError) }
        try context.requireWritable()
        let isInverted = list[0] & 0x80 != 0 && passes % 2 == 0
        let pattern = (0..<blockBytes).map { index in
            list[overwriteHeaderBytes + index % patternLength] ^ (isInverted ? 0xFF : 0x00)
        }
        return .erase(
            Erasure(kind: .overwrite, pattern: pattern),
            isImmediate: context.command.isSet(byte: 1, bit: 7)
        )
    }

    // MARK: FORMAT UNIT

    /// Bytes of the short or, with LONGLIST, the long parameter list header.
    static func formatHeaderBytes(_ command: CommandDescriptorBlock) -> Int {
        command.isSet(byte: 1, bit: 5) ? 8 : 4
    }

    /// FORMAT UNIT: without FMTDATA there is no parameter list, and then LONGLIST, CMPLST and DEFECT LIST FORMAT mean nothing.
    /// FMTPINFO and FFMT have unsupported bits; CMPLST is true, since there are no defects that could be left out.
    static func formatUnit(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let command = context.command
        let hasList = command.isSet(byte: 1, bit: 4)
        guard hasList || !command.isSet(byte: 1, bit: 5) else { throw SCSIError(.invalidFieldInCDB(byte: 1, bit: 5)) }
        guard hasList || !command.isSet(byte: 1, bit: 3) else { throw SCSIError(.invalidFieldInCDB(byte: 1, bit: 3)) }
        guard command[1] & 0x07 == 0 else { throw SCSIError(.invalidFieldInCDB(byte: 1, bit: 2)) }
        var isImmediate = false
        if hasList {
            isImmediate = try formatHeader(context.parameterList(count: UInt64(formatHeaderBytes(command))))
        }
        try context.requireWritable()
        return .erase(Erasure(kind: .format), isImmediate: isImmediate)
    }

    /// Checks the parameter list header and takes IMMED from it.
    ///
    /// DPRY, DCRT and STPF are about defects, of which there are none; they need FOV. IP would bring an initialization pattern
    /// with it, which is refused, as defect lists and protection information are.
    private static func formatHeader(_ header: ParameterList) throws(SCSIError) -> Bool {
        let isLong = header.count == 8
        try header.refuse(0xFF, ofByte: 0)
        if !header.isSet(byte: 1, bit: 7) { try header.refuse(0x78, ofByte: 1) }
        // IP (bit 3), obsolete (bit 2), vendor specific (bit 0).
        try header.refuse(0x0D, ofByte: 1)
        if isLong {
            guard header[2] == 0 else { throw SCSIError(.invalidFieldInParameterList(byte: 2, bit: 7)) }
            guard header[3] == 0 else {
                throw SCSIError(.invalidFieldInParameterList(byte: 3, bit: header[3] & 0xF0 != 0 ? 7 : 3))
            }
        }
        let lengthOffset = isLong ? 4 : 2
        guard header.bigEndian(at: lengthOffset, count: header.count - lengthOffset) == 0 else {
            throw SCSIError(.invalidFieldInParameterList(byte: lengthOffset, bit: 7))
        }
        return header[1] & 0x02 != 0
    }
}
