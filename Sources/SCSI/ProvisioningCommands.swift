import AshlarCore
import NIOCore

extension CommandSet {
    /// UNMAP and WRITE SAME (SBC-4, 5.35, 5.50 and 5.51). ANCHOR is a reserved bit here: anchored blocks are not supported
    /// (VPD page B2h, ANC_SUP zero).
    static let provisioningCommands: [SupportedCommand] = [
        SupportedCommand(
            [0x42, 0x00, 0x00, 0x00, 0x00, 0x00, 0x3F, 0xFF, 0xFF, 0x00],
            rules: .write,
            transfer: { command, _ in .dataOut(command.bigEndian(at: 7, count: 2)) },
            plan: ProvisioningCommands.unmap
        ),
        SupportedCommand(
            [0x41, 0xE8, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0xFF, 0xFF, 0x00],
            rules: .write,
            transfer: { _, unit in .dataOut(unit.logicalBlockBytes) },
            plan: { context throws(SCSIError) in
                try ProvisioningCommands.writeSame(context, hasNoDataOut: false)
            }
        ),
        SupportedCommand(
            [0x93, 0xE9, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0x00],
            rules: .write,
            transfer: { command, unit in
                command.isSet(byte: 1, bit: 0) ? .none : .dataOut(unit.logicalBlockBytes)
            },
            plan: { context throws(SCSIError) in
                try ProvisioningCommands.writeSame(context, hasNoDataOut: context.command.isSet(byte: 1, bit: 0))
            }
        ),
    ]
}

/// The decisions of the commands of logical block provisioning. Unmapped blocks read as zeros (LBPRZ), therefore unmapping and
/// writing zeros are one operation.
enum ProvisioningCommands {
    /// Bytes of the UNMAP parameter list header (SBC-4, table 99).
    static let unmapHeaderBytes = 8
    /// Bytes of an UNMAP block descriptor (SBC-4, table 100).
    static let unmapDescriptorBytes = 16

    // MARK: UNMAP

    static func unmap(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let listLength = Int(context.command.bigEndian(at: 7, count: 2))
        guard listLength > 0 else {
            try context.requireWritable()
            return .complete(.good)
        }
        guard var list = context.dataOut?.readSlicePrefix(listLength), list.readableBytes >= unmapHeaderBytes else {
            throw SCSIError(.parameterListLengthError)
        }
        let descriptors = try unmapDescriptors(&list)
        let ranges = try unmapRanges(descriptors, context: context)
        try context.requireWritable()
        return ranges.isEmpty ? .complete(.good) : .zero(ranges)
    }

    /// Reads the header and cuts the list to its whole descriptors: a last incomplete one is to be ignored.
    private static func unmapDescriptors(_ list: inout ByteBuffer) throws(SCSIError) -> ByteBuffer {
        guard
            let dataLength = list.readInteger(as: UInt16.self),
            let descriptorsLength = list.readInteger(as: UInt16.self),
            list.readSlice(length: 4) != nil
        else {
            throw SCSIError(.parameterListLengthError)
        }
        guard Int(descriptorsLength) <= list.readableBytes else {
            throw SCSIError(.parameterListLengthError)
        }
        guard Int(descriptorsLength) + unmapHeaderBytes - 2 <= Int(dataLength) else {
            throw SCSIError(.invalidFieldInParameterList(byte: 0, bit: 7))
        }
        let count = Int(descriptorsLength) / unmapDescriptorBytes
        guard count <= Limits.unmapDescriptorsMaximum else {
            throw SCSIError(.invalidFieldInParameterList(byte: 2, bit: 7))
        }
        return list.readSlice(length: count * unmapDescriptorBytes) ?? ByteBuffer()
    }

    private static func unmapRanges(
        _ descriptors: ByteBuffer,
        context: CommandContext
    ) throws(SCSIError) -> [ByteRange] {
        let maximum = SCSILimits.unmapMaximumBlocks(context.unit)
        let capacity = context.unit.logicalBlockCount
        let size = context.unit.logicalBlockBytes
        var ranges: [ByteRange] = []
        var total: UInt64 = 0
        var rest = descriptors
        var offset = unmapHeaderBytes
        while let address = rest.readInteger(as: UInt64.self), let blocks = rest.readInteger(as: UInt32.self) {
            guard rest.readSlice(length: 4) != nil else { break }
            let blocks = UInt64(blocks)
            guard address <= capacity, blocks <= capacity - address else {
                throw SCSIError(.addressOutOfRange(LBA(max(address, capacity))))
            }
            total += blocks
            guard total <= maximum else {
                throw SCSIError(.invalidFieldInParameterList(byte: offset + 8, bit: 7))
            }
            if blocks > 0 {
                ranges.append(ByteRange(offset: address * size, count: blocks * size))
            }
            offset += unmapDescriptorBytes
        }
        return ranges
    }

    // MARK: WRITE SAME

    /// Zero blocks means to the end of the volume (WSNZ is zero).
    ///
    /// With UNMAP the addresses are deallocated whatever the pattern is: the table of ANCHOR, UNMAP and ANC_SUP in SBC-4, 5.50, asks
    /// that of a thin provisioned logical unit without looking at the data, and LBPRZ says what is read then. The pattern is
    /// transferred all the same, so that its length must be right. libiscsi's WriteSame10.UnmapUntilEnd sends FFh and
    /// expects zeros; tgt and LIO read the table in this way too.
    static func writeSame(_ context: CommandContext, hasNoDataOut: Bool) throws(SCSIError) -> SCSICommandPlan {
        try context.refuseProtection()
        let length = context.command.nominalLength ?? 16
        let range = try context.rangeToEnd(
            of: MediumExtent(context.command, length: length),
            maximumBlocks: SCSILimits.writeSameMaximumBlocks(context.unit)
        )
        try context.requireWritable()
        guard range.count > 0 else { return .complete(.good) }
        guard !hasNoDataOut else { return .zero([range]) }
        guard UInt64(context.dataOutCount) == context.unit.logicalBlockBytes else {
            throw SCSIError(.wrongDataOutLength)
        }
        let pattern = try context.requireDataOut(count: context.unit.logicalBlockBytes)
        let isUnmapped = context.command.isSet(byte: 1, bit: 3) || pattern.isAllZeros
        return isUnmapped ? .zero([range]) : .writeSame(range: range, pattern: pattern)
    }
}

extension ByteBuffer {
    /// The first bytes, `count` of them or as many as there are.
    fileprivate func readSlicePrefix(_ count: Int) -> ByteBuffer? {
        getSlice(at: readerIndex, length: min(count, readableBytes))
    }

    /// Whether every readable byte is zero.
    var isAllZeros: Bool {
        withUnsafeReadableBytes { bytes in bytes.allSatisfy { $0 == 0 } }
    }
}
