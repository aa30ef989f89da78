public import AshlarCore

/// What an object server is told at its start.
public struct ObjectServerConfiguration: Sendable {
    /// A directory and its share of the objects.
    public struct Root: Sendable, Hashable {
        /// The directory.
        public var path: String
        /// Its weight among the roots.
        public var weight: UInt32

        /// A root.
        public init(path: String, weight: UInt32 = 100) {
            self.path = path
            self.weight = weight
        }
    }

    /// Name, cluster, certificate.
    public var node: NodeConfiguration
    /// Address to listen on.
    public var listenAddress: String
    /// Port to listen on; 0 for any.
    public var listenPort: Int
    /// The server's number, which the map keeps with every object.
    public var serverID: ObjectServerID
    /// Where objects lie.
    public var roots: [Root]

    /// A configuration with each part named.
    public init(
        node: NodeConfiguration,
        listenAddress: String = "127.0.0.1",
        listenPort: Int = 7501,
        serverID: ObjectServerID,
        roots: [Root]
    ) {
        self.node = node
        self.listenAddress = listenAddress
        self.listenPort = listenPort
        self.serverID = serverID
        self.roots = roots
    }
}
