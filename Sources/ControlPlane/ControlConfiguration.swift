public import AshlarCore
public import PostgresStore

/// What the control role is told at its start.
public struct ControlConfiguration: Sendable {
    /// Name, cluster, certificate. The certificate also serves the API.
    public var node: NodeConfiguration
    /// Address of the API.
    public var listenAddress: String
    /// Port of the API; 0 for any.
    public var listenPort: Int
    /// File with the token of the API.
    public var tokenFile: String
    /// How to reach PostgreSQL.
    public var postgres: PostgresConfiguration
    /// Cache servers, each `host:port`.
    public var cacheEndpoints: [String]
    /// Object servers by number, each `host:port`.
    public var objectServers: [Int32: String]

    /// A configuration with each part named.
    public init(
        node: NodeConfiguration,
        listenAddress: String = "127.0.0.1",
        listenPort: Int = 7443,
        tokenFile: String,
        postgres: PostgresConfiguration,
        cacheEndpoints: [String],
        objectServers: [Int32: String] = [:]
    ) {
        self.node = node
        self.listenAddress = listenAddress
        self.listenPort = listenPort
        self.tokenFile = tokenFile
        self.postgres = postgres
        self.cacheEndpoints = cacheEndpoints
        self.objectServers = objectServers
    }
}
