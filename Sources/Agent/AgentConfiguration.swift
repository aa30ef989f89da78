public import AshlarCore

/// What an agent is told at its start.
public struct AgentConfiguration: Sendable {
    /// Name, cluster, certificate.
    public var node: NodeConfiguration
    /// Cache servers, each `host:port`.
    public var cacheEndpoints: [String]
    /// Object servers by number, each `host:port`.
    public var objectServers: [Int32: String]
    /// How long to rest when there was nothing to do, in milliseconds.
    public var idleMilliseconds: UInt32
    /// Objects being moved at once.
    public var movesInFlight: Int
    /// Intents older than this are given up, in seconds.
    public var intentAgeSeconds: UInt32
    /// How long a dead object is kept before its bytes are deleted, in seconds.
    public var graceSeconds: UInt32
    /// How often object servers are scanned for objects without a row, in seconds; 0 for never.
    public var scanSeconds: UInt32

    /// A configuration with each part named.
    public init(
        node: NodeConfiguration,
        cacheEndpoints: [String],
        objectServers: [Int32: String],
        idleMilliseconds: UInt32 = 500,
        movesInFlight: Int = 2,
        intentAgeSeconds: UInt32 = 600,
        graceSeconds: UInt32 = 60,
        scanSeconds: UInt32 = 3_600
    ) {
        self.node = node
        self.cacheEndpoints = cacheEndpoints
        self.objectServers = objectServers
        self.idleMilliseconds = idleMilliseconds
        self.movesInFlight = movesInFlight
        self.intentAgeSeconds = intentAgeSeconds
        self.graceSeconds = graceSeconds
        self.scanSeconds = scanSeconds
    }
}
