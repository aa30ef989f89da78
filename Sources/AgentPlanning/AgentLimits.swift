/// The bounds and cadences of an agent that its configuration does not name (I10).
///
/// Their relations are asserted in `AgentLimitsTests`.
public enum AgentLimits {
    /// Most objects that an agent may be told to hold in memory at once.
    public static let movesInFlightMaximum = 64
    /// Shortest rest between two questions for work; a shorter one is raised to it.
    public static let idleMinimumMilliseconds: UInt32 = 5
    /// The first rest after work is this part of the idle rest; each further one is twice as long.
    package static let firstRestDivisor: UInt64 = 16
    /// How often a cache server is asked to evict, unless it has more to evict at once.
    package static let evictMilliseconds: UInt64 = 2_000
    /// How often a cache server is asked for an object to compact, unless it has more.
    package static let compactMilliseconds: UInt64 = 5_000
    /// How often dead objects are asked for, unless there are more.
    package static let collectMilliseconds: UInt64 = 10_000
    /// How often a cache server is asked for something to verify, unless there is more.
    package static let scrubMilliseconds: UInt64 = 500
    /// How long it is taken for true which object servers are drained.
    package static let drainingMilliseconds: UInt64 = 3_000
    /// How often it is said that the database is older than the objects.
    package static let complaintMilliseconds: UInt64 = 600_000
    /// The rest after a first failure; each further one in a row is twice as long.
    package static let backoffMinimumMilliseconds: UInt64 = 100
    /// The longest rest after failures.
    package static let backoffMaximumMilliseconds: UInt64 = 10_000
    /// Rests vary by this many percent to either side, so that agents do not walk in step.
    package static let jitterPercent: UInt64 = 25
    /// How long an object server that refused a put comes last in the choice.
    package static let placementRestMilliseconds: UInt64 = 10_000
    /// Object servers that one object is offered to.
    package static let putAttemptsMaximum = 3
    /// How long a question to a cache server may take.
    package static let askDeadlineMilliseconds: UInt32 = 10_000
    /// How long a map may take.
    package static let mapDeadlineMilliseconds: UInt32 = 20_000
    /// How long a put may take, its sync with it.
    package static let putDeadlineMilliseconds: UInt32 = 20_000
    /// How long any other request to an object server may take.
    package static let objectDeadlineMilliseconds: UInt32 = 10_000
    /// Dead slots that a compaction reads along, to make one request of two.
    package static let compactionReadThroughSlots: UInt32 = 16
    /// Runs of slots that a compaction reads at once.
    package static let compactionReadsInFlightMaximum = 16
    /// Deletions in flight at once.
    package static let deletionsInFlightMaximum = 16
    /// Objects in one page of a scan.
    package static let scanPageObjects: UInt32 = 1_000
    /// A page of a scan with more unknown objects than this, if they are also more than half of it, deletes none: then
    /// the database, not the page, is to be doubted (M8).
    package static let scanUnknownMaximum = 64
}
