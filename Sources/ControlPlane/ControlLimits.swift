/// The bounds of the control role (I10).
public enum ControlLimits {
    /// Volumes, sessions or findings in one page of an answer.
    public static let pageMaximum = 1_000
    /// Entries of a page for which no limit is named.
    public static let pageDefault = 100
    /// Largest body of a request.
    public static let requestMaximumBytes = 1 << 20
    /// Connections of the API at once; further ones wait to be accepted.
    public static let connectionsMaximum = 256
    /// Jobs that run at once; a further one is refused.
    public static let jobsRunningMaximum = 64
    /// Jobs that are remembered, running or ended.
    public static let jobsKeptMaximum = 256
    /// Rows that one step of a deletion removes.
    public static let deletionStepRows: Int64 = 5_000
    /// How often deletions that were interrupted are taken up again, in seconds.
    public static let deletionSweepSeconds = 10
    /// How long a cache server may take for one answer, in milliseconds.
    public static let cacheDeadlineMilliseconds: UInt32 = 10_000
    /// How long a cache server may take to notice a change, in milliseconds.
    public static let reloadDeadlineMilliseconds: UInt32 = 5_000
    /// How long an object server may take to answer, in milliseconds.
    public static let objectsDeadlineMilliseconds: UInt32 = 30_000
    /// How often object servers are asked for their numbers, in seconds.
    public static let objectServerPollSeconds = 10
    /// Longest time of a statement of the API, in milliseconds.
    public static let statementMilliseconds = 30_000
    /// Initiators or credentials of one volume.
    public static let accessRulesMaximum = 1_024
    /// Shortest CHAP secret: 96 bits (RFC 7143, 9.2.1).
    public static let chapSecretMinimumBytes = 12
    /// Longest CHAP secret or name (RFC 7143, 12.1.3, leaves 255 bytes to a text value of this kind).
    public static let chapSecretMaximumBytes = 255
    /// Longest iSCSI name (RFC 7143, 4.2.7.1).
    public static let iscsiNameMaximumBytes = 223
    /// Shortest token of the API.
    public static let tokenMinimumBytes = 16
    /// Longest token of the API.
    public static let tokenMaximumBytes = 4_096
    /// Rows that a check reads at once.
    public static let fsckPageRows: Int64 = 4_096
    /// Items, with their bytes, that a check reads at once.
    public static let fsckItemPageRows: Int64 = 256
    /// Objects asked for in one page of an object server's list.
    public static let fsckListPage: UInt32 = 4_096
    /// Blocks of one run that a rebuilt map has: no extent is longer.
    public static let recoverRunBlocks: UInt64 = 4_096
    /// Runs that one transaction of a recovery maps.
    public static let recoverRunsInTransaction = 512
    /// Headers asked for at once.
    public static let headersInFlightMaximum = 16
    /// How far epochs, nexus numbers and versions go on after a recovery: those that were handed out and are not known lie below.
    public static let recoverNumbersSkipped: Int64 = 1 << 20
    /// Longest wait for the lease of a cache server from which a volume was taken, in milliseconds.
    public static let recoverLeaseWaitMilliseconds: UInt64 = 60_000
    /// Damaged blocks that the settings of the cluster count; more are not counted.
    public static let damagedBlocksCounted = 100_000
    /// Findings that a report names; further ones are counted.
    public static let findingsMaximum = 1_000
    /// An intent older than this is given up by a check that repairs, in seconds.
    public static let orphanIntentSeconds: Int64 = 3_600
}
