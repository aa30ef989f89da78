import AshlarCore
import NIOCore

extension CommandSet {
    /// MODE SELECT (6) and (10) (SPC-5, 6.12 and 6.13). RTD is a reserved bit here: parameters are reverted by sending
    /// them.
    static let modeSelectCommands: [SupportedCommand] = [
        SupportedCommand(
            [0x15, 0x11, 0x00, 0x00, 0xFF, 0x00],
            rules: .write,
            transfer: { command, _ in .dataOut(UInt64(command[4])) },
            plan: { context throws(SCSIError) in try ModeSelect.plan(context, .short) }
        ),
        SupportedCommand(
            [0x55, 0x11, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00],
            rules: .write,
            transfer: { command, _ in .dataOut(command.bigEndian(at: 7, count: 2)) },
            plan: { context throws(SCSIError) in try ModeSelect.plan(context, .long) }
        ),
    ]
}

/// MODE SELECT: what MODE SENSE reports may be sent back, with changes where its mask of changeable bits has ones.
enum ModeSelect {
    /// Where MODE SELECT (6) and MODE SELECT (10) have their fields (SPC-5, 7.5).
    struct Layout {
        /// Offset of PARAMETER LIST LENGTH in the CDB.
        let listLengthOffset: Int
        /// Bytes of PARAMETER LIST LENGTH, and of BLOCK DESCRIPTOR LENGTH.
        let lengthBytes: Int
        /// Bytes of the mode parameter header.
        let headerBytes: Int
        /// Offset of MEDIUM TYPE in the header.
        let mediumTypeOffset: Int
        /// Offset of the byte with LONGLBA; `nil`: there is none.
        let longAddressOffset: Int?
        /// Offset of BLOCK DESCRIPTOR LENGTH.
        let descriptorLengthOffset: Int

        /// MODE SELECT (6).
        static let short = Layout(
            listLengthOffset: 4,
            lengthBytes: 1,
            headerBytes: 4,
            mediumTypeOffset: 1,
            longAddressOffset: nil,
            descriptorLengthOffset: 3
        )
        /// MODE SELECT (10).
        static let long = Layout(
            listLengthOffset: 7,
            lengthBytes: 2,
            headerBytes: 8,
            mediumTypeOffset: 2,
            longAddressOffset: 4,
            descriptorLengthOffset: 6
        )
    }

    /// All pages of a list are in force, or none. MODE DATA LENGTH and the device-specific parameter (WP, DPOFUA) are
    /// reserved here, and ignored so that a list that was read may be sent.
    static func plan(_ context: CommandContext, _ layout: Layout) throws(SCSIError) -> SCSICommandPlan {
        let command = context.command
        let length = command.bigEndian(at: layout.listLengthOffset, count: layout.lengthBytes)
        guard length > 0 else { return .complete(.good) }
        guard command.isSet(byte: 1, bit: 4) else { throw SCSIError(.invalidFieldInCDB(byte: 1, bit: 4)) }
        let list = try context.parameterList(count: length)
        guard list.count >= layout.headerBytes else { throw SCSIError(.parameterListLengthError) }
        guard list[layout.mediumTypeOffset] == 0 else {
            throw SCSIError(.invalidFieldInParameterList(byte: layout.mediumTypeOffset, bit: 7))
        }
        let pages = try checkBlockDescriptor(list, layout, context.unit)
        let isSaved = command.isSet(byte: 1, bit: 0)
        guard isSaved || pages < list.count else { return .complete(.good) }
        return .modeSelect(try parameters(list, from: pages, context.unit), isSaved: isSaved)
    }

    /// Refuses a block descriptor that asks for another capacity or block length (SBC-4, 6.5.2).
    ///
    /// - Returns: where the pages begin.
    private static func checkBlockDescriptor(
        _ list: ParameterList,
        _ layout: Layout,
        _ unit: LogicalUnit
    ) throws(SCSIError) -> Int {
        let start = layout.headerBytes
        let isLong = layout.longAddressOffset.map { list.isSet(byte: $0, bit: 0) } ?? false
        let descriptorBytes = isLong ? 16 : 8
        let length = Int(list.bigEndian(at: layout.descriptorLengthOffset, count: layout.lengthBytes))
        guard length == 0 || length == descriptorBytes else {
            throw SCSIError(.invalidFieldInParameterList(byte: layout.descriptorLengthOffset, bit: 7))
        }
        guard length > 0 else { return start }
        guard list.count - start >= length else { throw SCSIError(.parameterListLengthError) }
        let count = list.bigEndian(at: start, count: isLong ? 8 : 4)
        let maximum = isLong ? UInt64.max : UInt64(UInt32.max)
        guard count == 0 || count == maximum || count == unit.logicalBlockCount else {
            throw SCSIError(.invalidFieldInParameterList(byte: start, bit: 7))
        }
        let (offset, bytes) = isLong ? (start + 12, 4) : (start + 5, 3)
        guard list.bigEndian(at: offset, count: bytes) == unit.logicalBlockBytes else {
            throw SCSIError(.invalidFieldInParameterList(byte: offset, bit: 7))
        }
        return start + length
    }

    /// The parameters in force once all pages are applied.
    private static func parameters(
        _ list: ParameterList,
        from start: Int,
        _ unit: LogicalUnit
    ) throws(SCSIError) -> ModeParameters {
        var mode = unit.mode
        var offset = start
        while offset < list.count {
            let hasSubpage = list.isSet(byte: offset, bit: 6)
            let headerBytes = hasSubpage ? 4 : 2
            guard list.count - offset >= headerBytes else { throw SCSIError(.parameterListLengthError) }
            let page = try page(list, at: offset, hasSubpage: hasSubpage)
            let (lengthOffset, lengthBytes) = hasSubpage ? (offset + 2, 2) : (offset + 1, 1)
            let length = Int(list.bigEndian(at: lengthOffset, count: lengthBytes))
            guard length == page.changeable.count else {
                throw SCSIError(.invalidFieldInParameterList(byte: lengthOffset, bit: 7))
            }
            offset += headerBytes
            guard list.count - offset >= length else { throw SCSIError(.parameterListLengthError) }
            let body = Array(list.bytes[offset..<(offset + length)])
            for (index, current) in page.bytes(unit.mode).enumerated() {
                let wrong = (body[index] ^ current) & ~page.changeable[index]
                guard wrong == 0 else {
                    let bit = UInt8(7 - wrong.leadingZeroBitCount)
                    throw SCSIError(.invalidFieldInParameterList(byte: offset + index, bit: bit))
                }
            }
            try page.apply(body, offset, &mode)
            offset += length
        }
        return mode
    }

    /// The page whose header is at `offset`. PS is reserved here, and ignored.
    private static func page(
        _ list: ParameterList,
        at offset: Int,
        hasSubpage: Bool
    ) throws(SCSIError) -> ModeSense.Page {
        let code = list[offset] & 0x3F
        guard ModeSense.pages.contains(where: { $0.code == code }) else {
            throw SCSIError(.invalidFieldInParameterList(byte: offset, bit: 5))
        }
        let found = ModeSense.pages.first { page in
            page.code == code
                && (hasSubpage ? page.subpage != 0 && page.subpage == list[offset + 1] : page.subpage == 0)
        }
        guard let found else {
            throw SCSIError(
                .invalidFieldInParameterList(byte: hasSubpage ? offset + 1 : offset, bit: hasSubpage ? 7 : 6)
            )
        }
        return found
    }
}
