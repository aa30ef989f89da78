/// What changes the state of a logical unit.
public enum UnitAction: Sendable, Hashable {
    /// PERSISTENT RESERVE OUT.
    case reservation(ReservationAction)
    /// RESERVE (6) and (10).
    case reserve
    /// RELEASE (6) and (10).
    case release
    /// MODE SELECT.
    case modeSelect(ModeParameters, isSaved: Bool)
    /// SET IDENTIFYING INFORMATION.
    case identify(IdentifyingInformationKind, [UInt8])
    /// SANITIZE and FORMAT UNIT; `isImmediate`: answered once it has begun.
    case erase(Erasure, isImmediate: Bool)
}

/// Task management that concerns all nexuses of a logical unit (SAM-6, 7).
public enum UnitManagement: UInt8, Sendable, Hashable {
    /// CLEAR TASK SET.
    case clearTaskSet = 4
    /// LOGICAL UNIT RESET.
    case logicalUnitReset = 5
    /// TARGET WARM RESET.
    case targetWarmReset = 6
    /// TARGET COLD RESET: every nexus is closed besides.
    case targetColdReset = 7
}

/// What a check tells of the unit.
public struct UnitReport: Sendable, Hashable {
    /// The revision of the volume's description.
    public var revision: UInt64
    /// The unit's state; without registrations where they were not asked for.
    public var state: LogicalUnitState
    /// The unit attention condition that the command delivers (REQUEST SENSE).
    public var attention: UnitAttention?
    /// Counted since the takeover.
    public var counters: UnitCounters

    /// A report with each part named.
    public init(revision: UInt64, state: LogicalUnitState, attention: UnitAttention?, counters: UnitCounters) {
        self.revision = revision
        self.state = state
        self.attention = attention
        self.counters = counters
    }
}

/// What the owner has counted since it took the volume over.
public struct UnitCounters: Sendable, Hashable {
    /// Read commands.
    public var reads: UInt64 = 0
    /// Commands that change blocks.
    public var writes: UInt64 = 0
    /// Bytes read.
    public var bytesRead: UInt64 = 0
    /// Bytes written.
    public var bytesWritten: UInt64 = 0
    /// Bytes of data blocks with an item or an extent, as far as that is known without a look at all of them.
    public var mappedBytes: UInt64 = 0

    /// Nothing was counted.
    public init() {}
}
