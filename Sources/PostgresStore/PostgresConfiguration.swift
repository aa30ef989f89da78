public import AshlarCore
import Foundation

/// How to reach PostgreSQL.
public struct PostgresConfiguration: Sendable {
    /// A libpq connection string: keywords and values, or a `postgresql://` URI; `sslmode`, `sslrootcert`, `passfile` and
    /// the others work as libpq documents them.
    public var dsn: String
    /// A file whose content is the password; a line end at its end is left out.
    public var passwordFile: String?
    /// Shown in `pg_stat_activity`.
    public var applicationName: String
    /// Accept a server with `fsync`, `full_page_writes` or `synchronous_commit` off, and one that has lost the end of its log:
    /// acknowledged writes may be lost.
    public var allowUnsafeDurability: Bool
    /// How long an attempt to connect may take, in seconds.
    public var connectTimeoutSeconds: Int
    /// Connections that commit.
    public var commitConnections: Int
    /// Connections that read.
    public var readConnections: Int
    /// Where it is remembered which server was worked with, and what it has acknowledged; nil: nowhere, so that a restart forgets it.
    public var memory: ServerMemoryFile?
    /// Faults that a test has put into the connections.
    package var faults: FaultPlan?
    /// Frames that may be put into a segment of the journal; fewer in tests.
    package var journalSegmentFrames = JournalLayout.segmentFrames
    /// How long a takeover waits for the transactions of the old epoch before it ends them; longer in tests.
    package var takeoverLockTimeoutMilliseconds = PostgresStoreLimits.takeoverLockTimeoutMilliseconds

    /// A connection string and what goes with it.
    public init(
        dsn: String,
        passwordFile: String? = nil,
        applicationName: String = "ashlar",
        allowUnsafeDurability: Bool = false,
        connectTimeoutSeconds: Int = 5,
        commitConnections: Int = Limits.commitsInFlightMaximum,
        readConnections: Int = 1,
        memory: ServerMemoryFile? = nil
    ) {
        self.dsn = dsn
        self.passwordFile = passwordFile
        self.applicationName = applicationName
        self.allowUnsafeDurability = allowUnsafeDurability
        self.connectTimeoutSeconds = connectTimeoutSeconds
        self.commitConnections = max(1, commitConnections)
        self.readConnections = max(1, readConnections)
        self.memory = memory
    }

    /// Reads the password file.
    ///
    /// - Throws: ``PostgresError`` where it cannot be read or is too long.
    func password() throws(PostgresError) -> String? {
        guard let passwordFile else { return nil }
        guard
            let data = FileManager.default.contents(atPath: passwordFile),
            data.count <= PostgresStoreLimits.passwordFileMaximumBytes
        else {
            throw PostgresError(.configuration, "password file \(passwordFile) cannot be read or is too long")
        }
        var bytes = [UInt8](data)
        while let last = bytes.last, last == UInt8(ascii: "\n") || last == UInt8(ascii: "\r") { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }
}
