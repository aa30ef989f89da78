/// Every bound of the system that is not a matter of configuration, by name (I10).
///
/// The relations between them are asserted in `LimitsTests`.
public enum Limits {
    // MARK: Volumes

    /// Smallest data block.
    public static let blockSizeMinimumBytes: UInt32 = 512
    /// Largest data block.
    public static let blockSizeMaximumBytes: UInt32 = 65_536
    /// Data block of a volume for which none is named.
    public static let blockSizeDefaultBytes: UInt32 = 4_096
    /// SCSI logical block of a volume for which none is named.
    public static let logicalBlockSizeDefaultBytes: UInt32 = 512
    /// Largest volume: 1 PiB.
    public static let volumeSizeMaximumBytes: UInt64 = 1 << 50
    /// Longest name of a volume, in bytes of UTF-8.
    public static let volumeNameMaximumBytes = 64

    // MARK: Commands

    /// Most bytes that one command may transfer, so that it can be whole (I12): VPD page B0h says so.
    public static let transferMaximumBytes: UInt32 = 8 << 20
    /// A write begins with a logical block and may end inside of one, at a multiple of this many bytes.
    public static let writeGranularityBytes: UInt64 = 512
    /// Most bytes that one COMPARE AND WRITE compares (and then writes): VPD page B0h says so.
    public static let compareAndWriteMaximumBytes: UInt32 = 128 << 10
    /// Most ranges of one UNMAP command (VPD page B0h).
    public static let unmapDescriptorsMaximum = 256
    /// Most bytes that one command makes zeros, so that it can be whole (I12): VPD page B0h says so of UNMAP.
    public static let zeroStepMaximumBytes: UInt64 = 1 << 30
    /// How long a command may wait for its back end before it is failed cleanly (R6).
    public static let commandDeadlineMilliseconds: UInt32 = 20_000
    /// How long a stamp stays good, and a path counts as proved (R1).
    public static let nexusTimeToLiveMilliseconds: UInt32 = 4_000
    /// How long a cache server's lease lasts.
    public static let leaseMilliseconds: UInt32 = 4_000
    /// Commands of one session in flight: the command window.
    public static let commandWindow: UInt32 = 128

    // MARK: Logical units

    /// Registrations of persistent reservations on one volume.
    public static let registrationsMaximum = 1_024
    /// Unit attention conditions that wait for one nexus; where there are more, the oldest are left out.
    public static let attentionsPerNexusMaximum = 16
    /// Longest PERIPHERAL DEVICE IDENTIFYING INFORMATION.
    public static let identifyingInformationMaximumBytes = 64
    /// Longest PERIPHERAL DEVICE TEXT IDENTIFYING INFORMATION.
    public static let identifyingTextMaximumBytes = 256

    // MARK: Target nodes

    /// A target that has told nothing for so many seconds counts as gone: three times the interval of its reports.
    public static let targetLifeSeconds = 15
    /// Target nodes that are told at once.
    public static let targetNodesMaximum = 1_024

    // MARK: Wire

    /// Largest RPC frame: a transfer of the largest size with its checksums, and room for the fields.
    public static let frameMaximumBytes = 10 << 20
    /// Bytes one end of an RPC connection may send before the other has granted more.
    public static let rpcWindowBytes: UInt32 = 32 << 20
    /// Requests in flight on one RPC connection.
    public static let rpcRequestsInFlightMaximum = 4_096
    /// Longest string field in an RPC message.
    public static let rpcStringMaximumBytes = 4_096

    // MARK: Batches and memory

    /// Most bytes of block data in one commit; a command that touches more, by parts of blocks at its ends, goes alone.
    public static let batchMaximumBytes = 8 << 20
    /// Most blocks in one commit.
    public static let batchMaximumBlocks = 16_384
    /// Commits of one cache server in flight at once.
    public static let commitsInFlightMaximum = 2
    /// Data blocks in one region of the memory image.
    public static let regionBlocks: UInt64 = 1_024
    /// Most data blocks in one block object.
    public static let objectSlotsMaximum: UInt32 = 4_096
    /// Most bytes in one block object, header and all.
    public static let objectMaximumBytes = 5 << 20
    /// Direct writes in one object.
    public static let directWritesPerObjectMaximum = 256
    /// Bytes of block data that a move packs into one object.
    public static let objectTargetBytes = 4 << 20
}
