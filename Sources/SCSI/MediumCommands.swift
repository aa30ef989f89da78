import AshlarCore
import NIOCore

extension CommandSet {
    /// READ, WRITE, COMPARE AND WRITE, VERIFY, SYNCHRONIZE CACHE and PRE-FETCH (SBC-4, clause 5).
    static let mediumCommands: [SupportedCommand] = [
        SupportedCommand(
            [0x08, 0x1F, 0xFF, 0xFF, 0xFF, 0x00],
            rules: .read,
            transfer: MediumCommands.dataIn,
            plan: MediumCommands.read6
        ),
        SupportedCommand(
            [0x28, 0xFA, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0xFF, 0xFF, 0x00],
            rules: .read,
            transfer: MediumCommands.dataIn,
            plan: MediumCommands.read
        ),
        SupportedCommand(
            [0xA8, 0xFA, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0x00],
            rules: .read,
            transfer: MediumCommands.dataIn,
            plan: MediumCommands.read
        ),
        SupportedCommand(
            [0x88, 0xFA, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0x00],
            rules: .read,
            transfer: MediumCommands.dataIn,
            plan: MediumCommands.read
        ),
        SupportedCommand(
            [0x0A, 0x1F, 0xFF, 0xFF, 0xFF, 0x00],
            rules: .write,
            transfer: MediumCommands.dataOut,
            plan: MediumCommands.write6
        ),
        SupportedCommand(
            [0x2A, 0xFA, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0xFF, 0xFF, 0x00],
            rules: .write,
            transfer: MediumCommands.dataOut,
            plan: MediumCommands.write
        ),
        SupportedCommand(
            [0xAA, 0xFA, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0x00],
            rules: .write,
            transfer: MediumCommands.dataOut,
            plan: MediumCommands.write
        ),
        SupportedCommand(
            [0x8A, 0xFA, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0x00],
            rules: .write,
            transfer: MediumCommands.dataOut,
            plan: MediumCommands.write
        ),
        SupportedCommand(
            [0x89, 0xFA, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0xFF, 0x3F, 0x00],
            rules: .write,
            transfer: MediumCommands.dataOutOfCompareAndWrite,
            plan: MediumCommands.compareAndWrite
        ),
        SupportedCommand(
            [0x2F, 0xF6, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0xFF, 0xFF, 0x00],
            rules: .read,
            transfer: MediumCommands.dataOutOfVerify,
            plan: MediumCommands.verify
        ),
        SupportedCommand(
            [0xAF, 0xF6, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0x00],
            rules: .read,
            transfer: MediumCommands.dataOutOfVerify,
            plan: MediumCommands.verify
        ),
        SupportedCommand(
            [0x8F, 0xF6, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0x00],
            rules: .read,
            transfer: MediumCommands.dataOutOfVerify,
            plan: MediumCommands.verify
        ),
        SupportedCommand(
            [0x35, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0xFF, 0xFF, 0x00],
            rules: .write,
            plan: MediumCommands.synchronizeCache
        ),
        SupportedCommand(
            [0x91, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0x00],
            rules: .write,
            plan: MediumCommands.synchronizeCache
        ),
        SupportedCommand(
            [0x34, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0xFF, 0xFF, 0x00],
            rules: .read,
            plan: MediumCommands.prefetch
        ),
        SupportedCommand(
            [0x90, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0x00],
            rules: .read,
            plan: MediumCommands.prefetch
        ),
    ]
}

/// The decisions of the commands that address logical blocks.
///
/// Byte 1 of their CDBs: RDPROTECT, WRPROTECT or VRPROTECT in bits 7 to 5, DPO in bit 4, FUA in bit 3. FUA_NV (bit 1), obsolete
/// since SBC-3, is accepted: a target without a volatile cache fulfils it always.
enum MediumCommands {
    // MARK: What the CDBs imply

    static func dataIn(_ command: CommandDescriptorBlock, unit: LogicalUnit) -> DataTransfer {
        .dataIn(extent(command).blocks * unit.logicalBlockBytes)
    }

    static func dataOut(_ command: CommandDescriptorBlock, unit: LogicalUnit) -> DataTransfer {
        .dataOut(extent(command).blocks * unit.logicalBlockBytes)
    }

    static func dataOutOfCompareAndWrite(_ command: CommandDescriptorBlock, unit: LogicalUnit) -> DataTransfer {
        .dataOut(2 * MediumExtent(compareAndWrite: command).blocks * unit.logicalBlockBytes)
    }

    static func dataOutOfVerify(_ command: CommandDescriptorBlock, unit: LogicalUnit) -> DataTransfer {
        let blocks = extent(command).blocks
        return switch command[1] >> 1 & 0x3 {
        case 1: .dataOut(blocks * unit.logicalBlockBytes)
        case 3: .dataOut(blocks == 0 ? 0 : unit.logicalBlockBytes)
        default: .none
        }
    }

    static func extent(_ command: CommandDescriptorBlock) -> MediumExtent {
        MediumExtent(command, length: command.nominalLength ?? 16)
    }

    // MARK: Reads

    /// READ (6) has neither protection nor cache control bits (SBC-4, 5.12).
    static func read6(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        try read(context, flags: 0)
    }

    static func read(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        try context.refuseProtection()
        return try read(context, flags: context.command[1])
    }

    private static func read(_ context: CommandContext, flags: UInt8) throws(SCSIError) -> SCSICommandPlan {
        let range = try context.range(
            of: extent(context.command),
            maximumBlocks: SCSILimits.transferMaximumBlocks(context.unit)
        )
        guard range.count > 0 else { return .complete(.good) }
        return .read(
            ReadPlan(range: range, isForceUnitAccess: flags & 0x08 != 0, isPageOutDisabled: flags & 0x10 != 0)
        )
    }

    // MARK: Writes

    /// WRITE (6) has neither protection nor cache control bits (SBC-4, 5.44).
    static func write6(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        try write(context, flags: 0)
    }

    static func write(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        try context.refuseProtection()
        return try write(context, flags: context.command[1])
    }

    /// A write may end inside of a logical block, at a multiple of ``Limits/writeGranularityBytes``: the rest of the block keeps
    /// its bytes.
    private static func write(_ context: CommandContext, flags: UInt8) throws(SCSIError) -> SCSICommandPlan {
        let plan = try writePlan(context, flags: flags, granularity: Limits.writeGranularityBytes)
        return plan.map { .write($0) } ?? .complete(.good)
    }

    /// What is to be written of what arrived; `nil` for nothing.
    ///
    /// Where the initiator sent less than the CDB implies, what arrived is written, and the transport reports the residual. Bytes
    /// that are no multiple of `granularity` cannot be written: then none are, and the initiator is told so. Where it sent more,
    /// the rest is ignored.
    static func writePlan(
        _ context: CommandContext,
        flags: UInt8,
        granularity: UInt64
    ) throws(SCSIError) -> WritePlan? {
        var range = try context.range(
            of: extent(context.command),
            maximumBlocks: SCSILimits.transferMaximumBlocks(context.unit)
        )
        try context.requireWritable()
        range.count = min(range.count, UInt64(context.dataOutCount))
        guard range.count % granularity == 0 else { throw SCSIError(.wrongDataOutLength) }
        guard range.count > 0 else { return nil }
        return WritePlan(
            range: range,
            data: try context.requireDataOut(count: range.count),
            isForceUnitAccess: flags & 0x08 != 0,
            isPageOutDisabled: flags & 0x10 != 0
        )
    }

    /// The data-out are the bytes to compare and then, as many, those to write (SBC-4, 5.3). Any other length is refused, since
    /// the second half could not be told from the first.
    static func compareAndWrite(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        try context.refuseProtection()
        let range = try context.range(
            of: MediumExtent(compareAndWrite: context.command),
            maximumBlocks: SCSILimits.compareAndWriteMaximumBlocks(context.unit)
        )
        try context.requireWritable()
        guard range.count > 0 else {
            // 256 blocks and their data do not fit the field: what arrives as 0 was meant as too many.
            guard context.dataOutCount == 0 else { throw SCSIError(.invalidFieldInCDB(byte: 13, bit: 7)) }
            return .complete(.good)
        }
        guard UInt64(context.dataOutCount) == 2 * range.count else {
            throw SCSIError(.wrongDataOutLength)
        }
        return .compareAndWrite(
            range: range,
            compare: try context.requireDataOut(count: range.count),
            write: try context.requireDataOut(at: Int(range.count), count: range.count)
        )
    }

    // MARK: Others

    /// VERIFY (SBC-4, 5.37): BYTCHK 10b is reserved. Data-out that go with BYTCHK 00b are ignored.
    static func verify(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        try context.refuseProtection()
        let check = context.command[1] >> 1 & 0x3
        guard check != 2 else { throw SCSIError(.invalidFieldInCDB(byte: 1, bit: 2)) }
        let range = try context.range(
            of: extent(context.command),
            maximumBlocks: SCSILimits.transferMaximumBlocks(context.unit)
        )
        guard range.count > 0 else { return .complete(.good) }
        switch check {
        case 1:
            return .verify(range: range, mode: .compareData(try context.requireDataOut(count: range.count)))
        case 3:
            let block = try context.requireDataOut(count: context.unit.logicalBlockBytes)
            return .verify(range: range, mode: .compareOneBlock(block))
        default:
            return .verify(range: range, mode: .mediumOnly)
        }
    }

    /// SYNCHRONIZE CACHE (SBC-4, 5.33): zero blocks means to the end. IMMED changes nothing, since the answer is immediate.
    static func synchronizeCache(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let range = try context.rangeToEnd(of: extent(context.command))
        return range.count > 0 ? .synchronizeCache(range: range) : .complete(.good)
    }

    /// PRE-FETCH (SBC-4, 5.10): GOOD says that not all blocks may be in the cache; CONDITION MET is never promised.
    static func prefetch(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        _ = try context.rangeToEnd(of: extent(context.command))
        return .complete(.good)
    }
}
