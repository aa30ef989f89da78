import AshlarCore
import NIOCore

extension CommandSet {
    /// ORWRITE (16), WRITE ATOMIC (16) and WRITE AND VERIFY (10), (12) and (16) (SBC-4, clause 5).
    static let compoundWriteCommands: [SupportedCommand] = [
        SupportedCommand(
            [0x8B, 0xFA, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0x00],
            rules: .write,
            transfer: MediumCommands.dataOut,
            plan: CompoundWriteCommands.orWrite
        ),
        SupportedCommand(
            [0x9C, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0xFF, 0xFF, 0x3F, 0x00],
            rules: .write,
            transfer: CompoundWriteCommands.dataOutOfWriteAtomic,
            plan: CompoundWriteCommands.writeAtomic
        ),
        SupportedCommand(
            [0x2E, 0xF6, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0xFF, 0xFF, 0x00],
            rules: .write,
            transfer: MediumCommands.dataOut,
            plan: CompoundWriteCommands.writeAndVerify
        ),
        SupportedCommand(
            [0xAE, 0xF6, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0x00],
            rules: .write,
            transfer: MediumCommands.dataOut,
            plan: CompoundWriteCommands.writeAndVerify
        ),
        SupportedCommand(
            [0x8E, 0xF6, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0x00],
            rules: .write,
            transfer: MediumCommands.dataOut,
            plan: CompoundWriteCommands.writeAndVerify
        ),
    ]
}

/// The decisions of writes that do more than write.
enum CompoundWriteCommands {
    /// ORWRITE: ORPROTECT stands where WRPROTECT does. Blocks that did not arrive stay as they are.
    static func orWrite(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        try context.refuseProtection()
        let plan = try MediumCommands.writePlan(
            context,
            flags: context.command[1],
            granularity: context.unit.logicalBlockBytes
        )
        guard let write = plan else { return .complete(.good) }
        return .orWrite(range: write.range, data: write.data)
    }

    static func dataOutOfWriteAtomic(_ command: CommandDescriptorBlock, unit: LogicalUnit) -> DataTransfer {
        .dataOut(MediumExtent(writeAtomic: command).blocks * unit.logicalBlockBytes)
    }

    /// WRITE ATOMIC: every write is whole (I12), so that this one is told from WRITE (16) only by what it refuses: ATOMIC BOUNDARY
    /// has unsupported bits, since MAXIMUM ATOMIC BOUNDARY SIZE is zero; a part of the blocks is not written; and what is not made
    /// of whole data blocks is refused, so that who asks for atomic writes gets those that cost no read (VPD page B0h).
    static func writeAtomic(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        try context.refuseProtection()
        let range = try context.range(
            of: MediumExtent(writeAtomic: context.command),
            maximumBlocks: SCSILimits.atomicMaximumBlocks(context.unit)
        )
        let granularity = UInt64(context.unit.volume.geometry.blockSizeBytes)
        guard range.offset % granularity == 0 else { throw SCSIError(.invalidFieldInCDB(byte: 2, bit: 7)) }
        guard range.count % granularity == 0 else { throw SCSIError(.invalidFieldInCDB(byte: 12, bit: 7)) }
        try context.requireWritable()
        guard range.count > 0 else { return .complete(.good) }
        return .write(
            WritePlan(
                range: range,
                data: try context.requireDataOut(count: range.count),
                isForceUnitAccess: context.command.isSet(byte: 1, bit: 3),
                isPageOutDisabled: context.command.isSet(byte: 1, bit: 4)
            )
        )
    }

    /// WRITE AND VERIFY: BYTCHK 01b compares byte by byte; 10b is reserved, and 11b is not defined for this command.
    static func writeAndVerify(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        try context.refuseProtection()
        let check = context.command[1] >> 1 & 0x3
        guard check <= 1 else { throw SCSIError(.invalidFieldInCDB(byte: 1, bit: 2)) }
        let plan = try MediumCommands.writePlan(
            context,
            flags: context.command[1],
            granularity: context.unit.logicalBlockBytes
        )
        guard let write = plan else { return .complete(.good) }
        return .writeAndVerify(write, compares: check == 1)
    }
}

extension MediumExtent {
    /// The fields of WRITE ATOMIC (16), which has an ATOMIC BOUNDARY before a TRANSFER LENGTH of two bytes.
    fileprivate init(writeAtomic command: CommandDescriptorBlock) {
        self.init(command, length: 16)
        blocks = command.bigEndian(at: 12, count: 2)
        countOffset = 12
    }
}
