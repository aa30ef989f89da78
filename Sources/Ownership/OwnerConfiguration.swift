public import AshlarCore

/// What the core of a cache server is told at its start. Times in nanoseconds.
public struct OwnerConfiguration: Sendable {
    /// The server's name: its registrations in PostgreSQL carry it.
    public var name: String
    /// `host:port` at which targets reach it.
    public var endpoint: String
    /// How long a proved stamp stays good (R1).
    public var nexusTimeToLive: UInt64 = UInt64(Limits.nexusTimeToLiveMilliseconds) * 1_000_000
    /// How long the server's lease lasts.
    public var lease: UInt64 = UInt64(Limits.leaseMilliseconds) * 1_000_000
    /// Bytes of memory for the image.
    public var memoryBytes: Int
    /// Unmoved bytes from which on writes are slowed down.
    public var unmovedHighWatermarkBytes: UInt64
    /// Unmoved bytes from which on writes wait.
    public var unmovedHardLimitBytes: UInt64
    /// While initiators use volumes, how long after an object's worth of blocks the next one is moved that nothing but order asks for,
    /// in nanoseconds; and how long after one compaction the next.
    public var busyPause: UInt64
    /// Dead bytes in objects up to which compaction does not keep up with what is overwritten while initiators use volumes.
    public var deadBytesSlack: UInt64
    /// Room for PostgreSQL's log below which writes are slowed down.
    public var logSlowBelowBytes: UInt64
    /// Room for PostgreSQL's log below which they wait.
    public var logWaitBelowBytes: UInt64

    /// A configuration with each part named.
    public init(
        name: String,
        endpoint: String,
        memoryBytes: Int = 256 << 20,
        unmovedHighWatermarkBytes: UInt64 = 8 << 30,
        unmovedHardLimitBytes: UInt64 = 16 << 30,
        busyPause: UInt64 = 1_000_000_000,
        deadBytesSlack: UInt64 = 2 << 30,
        logSlowBelowBytes: UInt64 = 1 << 30,
        logWaitBelowBytes: UInt64 = 256 << 20
    ) {
        self.name = name
        self.endpoint = endpoint
        self.memoryBytes = memoryBytes
        self.unmovedHighWatermarkBytes = unmovedHighWatermarkBytes
        self.unmovedHardLimitBytes = unmovedHardLimitBytes
        self.busyPause = busyPause
        self.deadBytesSlack = deadBytesSlack
        self.logSlowBelowBytes = logSlowBelowBytes
        self.logWaitBelowBytes = logWaitBelowBytes
    }
}

/// Bounds of the owner that are no matter of configuration.
public enum OwnerLimits {
    /// Commands of one nexus that are known and not answered.
    public static let commandsPerNexusMaximum = 4 * Int(Limits.commandWindow)
    /// Commands of one nexus whose answers are kept; beyond it the nexus must raise its low-water mark first.
    public static let answersPerNexusMaximum = 16_384
    /// Steps of a low-water mark up to which each id is looked at.
    static let lowWaterStep: UInt64 = 1_024
    /// Requests under one command id whose answers are waited for at once.
    static let ticketsPerCommandMaximum = 4
    /// Commands that task management took back, by their ids, in one nexus.
    static let fencedPerNexusMaximum = 4_096
    /// Rows of items, and as many of extents, that one GET LBA STATUS looks at: what lies behind them is asked for again.
    public static let mapStatusRowsMaximum = 65_536
    /// Bytes that one step of an erasure unmaps: other commands wait no longer than such a step.
    public static let erasureStepMaximumBytes: UInt64 = 256 << 20
    /// Mapped blocks that one step of removing what lies behind the end of a volume makes zeros.
    static let remainsStepBlocksMaximum: UInt64 = 4_096
    /// Runs of blocks that such a step looks at.
    static let remainsRunsMaximum = 4_096
    /// Nexuses open on one volume.
    public static let nexusesPerVolumeMaximum = 4_096
    /// How long after a takeover a nexus may stay unresumed before its place is given away, in nanoseconds.
    static let unresumedGrace: UInt64 = 60_000_000_000
    /// Requests for a volume that wait for it to be taken over, and that wait for a registration.
    public static let lookUpsWaitingMaximum = 4_096
    /// Versions taken ahead with one commit.
    public static let versionsAhead: UInt64 = 1 << 20
    /// Object ids reserved at once.
    public static let objectsReservedAtOnce = 32
    /// How long a reserved object id may wait for its use, in nanoseconds: less than any agent's intent age.
    public static let objectReservation: UInt64 = 240_000_000_000
    /// Objects handed out for direct writes with one answer.
    public static let directGrantsAtOnce = 8
    /// Objects of one volume that are handed out for direct writes and have not come back.
    public static let directGrantsMaximum = 256
    /// How long such an object may take to come back, in nanoseconds. With ``objectReservation`` less than any agent's intent age.
    public static let directGrantLife: UInt64 = 10_000_000_000
    /// Changes of one volume that are remembered while objects are handed out for direct writes: with one more, those that were
    /// handed out before the oldest are refused.
    public static let directChangesMaximum = 8_192
    /// How long items of writes through are kept from agents while their object is on its way, in nanoseconds: longer than a put may take.
    public static let throughMapWait: UInt64 = 4_000_000_000
    /// Items of one volume that are with agents, or whose object is on its way, from which on no more of the latter are noted: agents may
    /// move them then, which does no harm.
    public static let throughItemsMaximum = 65_536
    /// Longest time that a write is slowed down at the high watermark, in nanoseconds.
    public static let slowdownMaximum: UInt64 = 50_000_000
    /// How long a hand-over may take before the volume is taken over anew instead, in nanoseconds.
    public static let handOverMaximum: UInt64 = 10_000_000_000
    /// How long to wait before a refused request to the store is made again, in nanoseconds.
    public static let storeRetry: UInt64 = 100_000_000
    /// How long blocks stay with an agent before they are given out again, in nanoseconds. Shorter than a command's deadline:
    /// at the hard limit writes wait for what an agent that died has held.
    public static let moveTimeout: UInt64 = 12_000_000_000
    /// How long too little to fill an object is left to grow, in milliseconds.
    public static let settleMilliseconds: UInt64 = 2_000
    /// How often a volume without work is looked at again, in nanoseconds.
    public static let idleLook: UInt64 = 1_000_000_000
    /// How often a volume is looked at for unmoved items though its counter says that there are none, in nanoseconds.
    static let driftLook: UInt64 = 60_000_000_000
    /// Slowdowns shorter than this are left out, in nanoseconds.
    static let slowdownMinimum: UInt64 = 500_000
    /// From this part of the high watermark on, moves have to keep up with what is written.
    static let urgentWatermarkDivisor: UInt64 = 2
    /// From this part of what is mapped on, what is dead in objects is urgent to compact, above the slack of the configuration.
    static let urgentDeadDivisor: UInt64 = 2
    /// Volumes that are looked at, one after the other, for who asks for something to compact.
    public static let compactionLooksMaximum = 16
    /// How long after a command of an initiator its server counts as in use, in nanoseconds.
    public static let busyWindow: UInt64 = 500_000_000
    /// Commands that are ready from which on a commit is always sent beside another one.
    static let besideAnotherMinimumCommands = 16
    /// Unmoved items looked at to choose what to move.
    public static let moveCandidates = 2_048
    /// Items evicted by one commit.
    public static let evictionsAtOnce = 4_096
    /// Bytes that an entry of the memory image is counted for, beside the block.
    public static let imageItemBytes = 32
    /// Bytes that a region of the memory image is counted for.
    public static let imageRegionBytes = 320
    /// Bytes that an extent in the memory image is counted for.
    public static let imageExtentBytes = 40
    /// Bytes of the pieces of memory in which cached blocks lie.
    static let slabPieceBytes = 1 << 20
    /// Bytes of the buffers in which a read is answered from memory.
    static let readBufferBytes = 64 << 10
    /// Read-fills of one volume under way.
    public static let fillsInFlightMaximum = 64
    /// Blocks remembered as read once.
    public static let readOnceMaximum = 65_536
}

/// What the core asks of its shell.
public enum OwnerAction: Sendable {
    /// Answer a request.
    case answer(Ticket, OwnerAnswer)
    /// ``BlockStore/commit(_:completion:)``, answered by `commitCompleted`.
    case commit(OperationID, [VolumeCommit])
    /// ``BlockStore/loadRegion(volume:range:completion:)``, answered by `regionLoaded`.
    case loadRegion(OperationID, VolumeID, BlockRange)
    /// ``BlockStore/countVolume(volume:completion:)``, answered by `volumeCounted`.
    case countVolume(OperationID, VolumeID)
    /// ``BlockStore/surveyMap(volume:range:rowsMaximum:runsMaximum:completion:)``, answered by `mapSurveyed`.
    case surveyMap(OperationID, VolumeID, BlockRange, runsMaximum: Int)
    /// ``BlockStore/loadBytes(volume:blocks:completion:)``, answered by `bytesLoaded`.
    case loadBytes(OperationID, VolumeID, [BlockID])
    /// Read one slot of an object, answered by `slotFetched`.
    indirect case fetchSlot(OperationID, Extent, blockSizeBytes: UInt32)
    /// ``BlockStore/takeOver(volume:server:completion:)``, answered by `takeOverCompleted`.
    case takeOver(OperationID, VolumeID, CacheServerID)
    /// ``BlockStore/relinquish(volume:epoch:server:successor:completion:)``, answered by `volumeRelinquished`.
    case relinquish(OperationID, VolumeID, Epoch, from: CacheServerID, to: CacheServerID)
    /// ``BlockStore/openNexus(volume:epoch:nexus:completion:)``, answered by `nexusStored`.
    indirect case openNexus(OperationID, VolumeID, Epoch, NexusRow)
    /// ``BlockStore/closeNexus(volume:epoch:nexus:completion:)``, answered by `nexusStored`.
    case closeNexus(OperationID, VolumeID, Epoch, NexusNumber)
    /// ``BlockStore/reserveObjects(volume:count:completion:)``, answered by `objectsReserved`.
    case reserveObjects(OperationID, VolumeID, Int)
    /// ``BlockStore/fetchMoveCandidates(volume:from:limit:completion:)``, answered by `moveCandidatesFetched`.
    case fetchMoveCandidates(OperationID, VolumeID, from: BlockID?, limit: Int)
    /// ``BlockStore/fetchEvictionCandidates(volume:limit:completion:)``, answered by `evictionCandidatesFetched`.
    case fetchEvictionCandidates(OperationID, VolumeID, limit: Int)
    /// ``BlockStore/fetchCompactionCandidates(volume:belowPercent:limit:completion:)``, answered by
    /// `compactionCandidatesFetched`.
    case fetchCompactionCandidates(OperationID, VolumeID, belowPercent: UInt8, limit: Int)
    /// ``BlockStore/registerServer(name:endpoint:leaseMilliseconds:completion:)``, answered by `serverRegistered`.
    case registerServer(OperationID)
    /// ``BlockStore/renewLease(server:leaseMilliseconds:completion:)``, answered by `leaseRenewed`.
    case renewLease(OperationID, CacheServerID)
    /// Something for the log.
    case note(String)
    /// Something that an operator has to see to.
    case alarm(String)
}
