import AshlarCore

// The application's message types. A request and its answer have the same type; the frame says which it is.
extension RPCMessageType {
    // Target to cache: volumes and nexuses.
    static let lookUpVolume = RPCMessageType(0x10)
    static let listVolumes = RPCMessageType(0x11)
    static let openNexus = RPCMessageType(0x12)
    static let resumeNexus = RPCMessageType(0x13)
    static let closeNexus = RPCMessageType(0x14)
    static let stamps = RPCMessageType(0x15)
    static let targetHeartbeat = RPCMessageType(0x16)
    static let targetReport = RPCMessageType(0x17)
    static let nexusStates = RPCMessageType(0x18)
    static let findSlots = RPCMessageType(0x19)
    // Target to cache: commands.
    static let read = RPCMessageType(0x20)
    static let write = RPCMessageType(0x21)
    static let zero = RPCMessageType(0x22)
    static let compareAndWrite = RPCMessageType(0x23)
    static let fence = RPCMessageType(0x24)
    static let orWrite = RPCMessageType(0x25)
    static let mapStatus = RPCMessageType(0x26)
    static let checkUnit = RPCMessageType(0x27)
    static let changeUnit = RPCMessageType(0x28)
    static let manageUnit = RPCMessageType(0x29)
    static let copy = RPCMessageType(0x2A)
    static let beginDirect = RPCMessageType(0x2B)
    static let mapDirect = RPCMessageType(0x2C)
    static let writeThrough = RPCMessageType(0x2D)
    static let mapThrough = RPCMessageType(0x2E)
    // Agent to cache.
    static let moveWork = RPCMessageType(0x30)
    static let mapMove = RPCMessageType(0x31)
    static let evict = RPCMessageType(0x32)
    static let compactionWork = RPCMessageType(0x33)
    static let mapCompaction = RPCMessageType(0x34)
    static let collect = RPCMessageType(0x35)
    static let forgetObjects = RPCMessageType(0x36)
    static let knownObjects = RPCMessageType(0x37)
    static let databaseAge = RPCMessageType(0x38)
    static let scrubWork = RPCMessageType(0x39)
    static let reportObjects = RPCMessageType(0x3A)
    static let drainingServers = RPCMessageType(0x3B)
    // Anyone to objects.
    static let putObject = RPCMessageType(0x40)
    static let getSlots = RPCMessageType(0x41)
    static let deleteObject = RPCMessageType(0x42)
    static let listObjects = RPCMessageType(0x43)
    static let verifyObject = RPCMessageType(0x44)
    static let objectStatistics = RPCMessageType(0x45)
    static let objectHeader = RPCMessageType(0x46)
    static let raiseClock = RPCMessageType(0x47)
    // Control to cache.
    static let reloadVolume = RPCMessageType(0x50)
    static let cacheStatistics = RPCMessageType(0x51)
    static let moveNow = RPCMessageType(0x52)
    static let deleteVolumeStep = RPCMessageType(0x53)
}

/// Bounds of fields that only the messages have.
public enum RPCMessageLimits {
    /// Volumes in one page of a list.
    public static let volumesInListMaximum = 1_000
    /// Stamps asked for at once.
    public static let stampsMaximum = 4_096
    /// Runs in the answer to a read: each block of the largest transfer its own.
    public static let readRunsMaximum = Int(Limits.transferMaximumBytes) / Int(Limits.blockSizeMinimumBytes) + 2
    /// Commands whose outcome is told when a nexus is resumed.
    public static let outcomesMaximum = 65_536
    /// Objects named in one message.
    public static let objectsMaximum = 10_000
    /// Objects in one report of how they were found.
    public static let objectsReportedMaximum = 64
    /// Object servers named in one message.
    public static let objectServersMaximum = 4_096
    /// Slots asked of an object at once.
    public static let slotsMaximum = Int(Limits.objectSlotsMaximum)
    /// Blocks that are asked for, for reading ahead, and runs of slots in the answer: 4 MiB of the smallest blocks.
    public static let slotsFoundMaximum = 8_192
    /// Target nodes told at once.
    public static let targetNodesMaximum = Limits.targetNodesMaximum
    /// Runs in the answer to a question for what is mapped.
    public static let mapRunsMaximum = 4_096
    /// Objects handed out for direct writes at once.
    public static let directGrantsMaximum = 64
    /// Direct writes in one object.
    public static let directWritesMaximum = Limits.directWritesPerObjectMaximum
    /// Initiator ports named by one registration, and target ports that it goes through.
    public static let registrationPortsMaximum = Limits.registrationsMaximum
    /// Longest pattern of an erasure: a logical block.
    public static let patternMaximumBytes = 4_096
    /// Credentials and initiators in a volume's access rules.
    public static let accessRulesMaximum = 1_024
}
