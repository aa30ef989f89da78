/// Every bound of this module, by name (I10).
enum PostgresStoreLimits {
    /// Requests that wait for one connection; more are refused.
    static let mailboxRequestsMaximum = 16_384
    /// Reads in flight on one connection.
    static let readsInFlightMaximum = 64
    /// Most frames of the journal in a commit that is sent by the thread that made it, where its lane is idle; more are left to the lane's.
    static let shortCommitFramesMaximum: Int64 = 16
    /// How often a transaction that lost a deadlock or a serialization conflict is tried.
    static let attemptsMaximum = 3
    /// Shortest pause between two attempts to connect.
    static let reconnectPauseMinimumMilliseconds: UInt64 = 50
    /// Longest pause between two attempts to connect.
    static let reconnectPauseMaximumMilliseconds: UInt64 = 2_000
    /// How long a statement of a commit or a read may take: no longer than a command may wait.
    static let statementTimeoutMilliseconds = 20_000
    /// How long a statement of the background may take.
    static let backgroundTimeoutMilliseconds = 120_000
    /// How long a transaction may wait for its next statement: a batch is sent whole.
    static let idleInTransactionTimeoutMilliseconds = 10_000
    /// How long a transaction of a blocking connection may wait for its next statement.
    static let administrationIdleTimeoutMilliseconds = 300_000
    /// How long a takeover waits for the transactions of the old epoch before it ends them.
    static let takeoverLockTimeoutMilliseconds = 1_000
    /// How often a takeover is tried before it is refused.
    static let takeoverAttemptsMaximum = 5
    /// How long TLS may keep decrypted bytes to itself before it is asked again.
    static let tlsPollMilliseconds: Int32 = 2
    /// Memory a sort or an array may take inside PostgreSQL.
    static let workMemory = "64MB"
    /// Oldest server that is supported, as in `server_version_num`.
    static let serverVersionMinimum = 150_000
    /// Most bytes of a password file.
    static let passwordFileMaximumBytes = 4_096
    /// Most bytes of a timeline's history that are read.
    static let timelineHistoryMaximumBytes = 1 << 20
    /// Most bytes of the file that remembers the server.
    static let serverMemoryMaximumBytes = 256
    /// How long what was acknowledged may be ahead of that file: a process that is killed forgets so much of it.
    static let serverMemoryLagMilliseconds = 1_000
    /// Most bytes of a migration file.
    static let migrationFileMaximumBytes = 4 << 20
    /// Items that a step of a scrub verifies; each may be as large as a data block.
    static let scrubItemsMaximum = 128
    /// Objects that are handed out to be verified at once.
    static let scrubObjectsMaximum = 8
    /// A piece of a scrub that is not reported within this time is handed out again, in seconds.
    static let scrubTimeoutSeconds = 120
}
