import AshlarCore

/// Bounds of the SCSI command set that follow from ``AshlarCore/Limits`` or are the standard's own.
public enum SCSILimits {
    /// Longest CDB that is looked at (SPC-5, 4.2.3: a variable length CDB has at most 260 bytes).
    public static let commandMaximumBytes = 260
    /// Most bytes that one WRITE SAME covers: as many as one transfer, since its pattern need not be zeros, and what was written
    /// with one command can be read with one.
    public static let writeSameMaximumBytes = UInt64(Limits.transferMaximumBytes)
    /// Most bytes that one UNMAP covers, all its descriptors together.
    public static let unmapMaximumBytes: UInt64 = Limits.zeroStepMaximumBytes
    /// Most logical blocks that one UNMAP covers, whatever their size.
    public static let unmapMaximumBlocks: UInt64 = 1 << 20
    /// Transfer length at which commands do best (VPD page B0h).
    public static let transferOptimalBytes: UInt32 = 1 << 20
    /// Largest NUMBER OF LOGICAL BLOCKS that a COMPARE AND WRITE CDB can carry.
    public static let compareAndWriteMaximumBlocks: UInt64 = 255
    /// Most TransportIDs in one PERSISTENT RESERVE OUT parameter list.
    public static let transportIDsMaximum = 128
    /// Most target ports that VPD page 88h tells of; its length has 16 bits.
    public static let reportedPortsMaximum = 128
    /// Seconds that a target port group may be in transition (IMPLICIT TRANSITION TIME): no command waits longer either.
    public static let implicitTransitionSeconds = UInt8(Limits.commandDeadlineMilliseconds / 1_000)
    /// Largest TRANSFER LENGTH that a WRITE ATOMIC (16) CDB can carry.
    public static let atomicMaximumBlocks: UInt64 = 65_535
    /// Most descriptors in the parameter data of one GET LBA STATUS: more runs than this need not be looked for.
    public static let lbaStatusDescriptorsMaximum = 4_096
    /// Most CSCD descriptors in the parameter list of an EXTENDED COPY.
    public static let copyDevicesMaximum = 64
    /// Most segment descriptors in the parameter list of an EXTENDED COPY.
    public static let copySegmentsMaximum = 256
    /// Most bytes of all descriptors of an EXTENDED COPY: as many as the two limits above need.
    public static let copyListMaximumBytes =
        copyDevicesMaximum * ExtendedCopyCommands.deviceDescriptorBytes
        + copySegmentsMaximum * ExtendedCopyCommands.segmentDescriptorBytes
    /// Most bytes that one segment of an EXTENDED COPY copies.
    public static let copySegmentMaximumBytes: UInt64 = 16 << 20
    /// Copies of one session that may be in progress, and that are remembered once they have ended; at most 255.
    public static let copiesMaximum = 16
    /// Seconds that a command takes at most while all is well (command timeouts descriptor).
    public static let commandNominalSeconds: UInt32 = 1
    /// Seconds that an initiator should wait before it gives a command up (command timeouts descriptor).
    public static let commandRecommendedSeconds: UInt32 = 30

    /// Most logical blocks that a command of `unit` may transfer.
    static func transferMaximumBlocks(_ unit: LogicalUnit) -> UInt64 {
        UInt64(Limits.transferMaximumBytes) / unit.logicalBlockBytes
    }

    /// Most logical blocks that a COMPARE AND WRITE may compare.
    static func compareAndWriteMaximumBlocks(_ unit: LogicalUnit) -> UInt64 {
        min(compareAndWriteMaximumBlocks, UInt64(Limits.compareAndWriteMaximumBytes) / unit.logicalBlockBytes)
    }

    /// Most logical blocks that a WRITE ATOMIC may transfer: every write is whole (I12).
    static func atomicMaximumBlocks(_ unit: LogicalUnit) -> UInt64 {
        min(atomicMaximumBlocks, transferMaximumBlocks(unit))
    }

    /// Most logical blocks that a WRITE SAME may cover.
    static func writeSameMaximumBlocks(_ unit: LogicalUnit) -> UInt64 {
        writeSameMaximumBytes / unit.logicalBlockBytes
    }

    /// Most logical blocks that an UNMAP may cover.
    static func unmapMaximumBlocks(_ unit: LogicalUnit) -> UInt64 {
        min(unmapMaximumBlocks, unmapMaximumBytes / unit.logicalBlockBytes)
    }
}
