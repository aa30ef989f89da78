public import AshlarCore

/// What a cache server is told at its start.
public struct CacheConfiguration: Sendable {
    /// Name, cluster, certificate.
    public var node: NodeConfiguration
    /// Address to listen on.
    public var listenAddress: String
    /// Port to listen on; 0 for any.
    public var listenPort: Int
    /// `host:port` at which targets and agents reach this server; nil for the address and port that were bound.
    public var advertisedEndpoint: String?
    /// PostgreSQL connection string (libpq's key words or URI), without a password.
    public var postgresDSN: String
    /// File that holds the password; nil where none is needed.
    public var postgresPasswordFile: String?
    /// Accept a PostgreSQL that may lose acknowledged writes.
    public var allowUnsafeDurability: Bool
    /// Object servers by number, each `host:port`.
    public var objectServers: [Int32: String]
    /// Bytes of block data kept in memory.
    public var memoryBytes: Int
    /// Unmoved bytes from which on writes are slowed down.
    public var unmovedHighWatermarkBytes: UInt64
    /// Unmoved bytes from which on writes wait.
    public var unmovedHardLimitBytes: UInt64
    /// How the room for PostgreSQL's log is measured.
    public var log: LogRoom
    /// Directory in which it is kept which PostgreSQL server was worked with; nil: a restart forgets it.
    public var stateDirectory: String?

    /// The room for PostgreSQL's log.
    public struct LogRoom: Sendable {
        /// A directory of this host in the file system of the log; nil: it is not on this host.
        public var directory: String?
        /// Bytes that the log may take on another host; nil: not known. Needs the rights of `pg_monitor`.
        public var capacityBytes: UInt64?
        /// Free bytes below which writes are slowed down.
        public var slowBelowBytes: UInt64
        /// Free bytes below which writes wait.
        public var waitBelowBytes: UInt64

        /// Where nothing is said, the room is not measured.
        public init(
            directory: String? = nil,
            capacityBytes: UInt64? = nil,
            slowBelowBytes: UInt64 = 1 << 30,
            waitBelowBytes: UInt64 = 256 << 20
        ) {
            self.directory = directory
            self.capacityBytes = capacityBytes
            self.slowBelowBytes = slowBelowBytes
            self.waitBelowBytes = waitBelowBytes
        }
    }

    /// A configuration with each part named.
    public init(
        node: NodeConfiguration,
        listenAddress: String = "127.0.0.1",
        listenPort: Int = 7401,
        advertisedEndpoint: String? = nil,
        postgresDSN: String,
        postgresPasswordFile: String? = nil,
        allowUnsafeDurability: Bool = false,
        objectServers: [Int32: String],
        memoryBytes: Int = 256 << 20,
        unmovedHighWatermarkBytes: UInt64 = 8 << 30,
        unmovedHardLimitBytes: UInt64 = 16 << 30,
        log: LogRoom = LogRoom(),
        stateDirectory: String? = nil
    ) {
        self.node = node
        self.listenAddress = listenAddress
        self.listenPort = listenPort
        self.advertisedEndpoint = advertisedEndpoint
        self.postgresDSN = postgresDSN
        self.postgresPasswordFile = postgresPasswordFile
        self.allowUnsafeDurability = allowUnsafeDurability
        self.objectServers = objectServers
        self.memoryBytes = memoryBytes
        self.unmovedHighWatermarkBytes = unmovedHighWatermarkBytes
        self.unmovedHardLimitBytes = unmovedHardLimitBytes
        self.log = log
        self.stateDirectory = stateDirectory
    }
}
