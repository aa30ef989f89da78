/// What every role is told about itself and its cluster.
public struct NodeConfiguration: Sendable, Hashable {
    /// The node's name, as in its certificate.
    public var name: String
    /// The cluster's UUID, as in its certificate.
    public var clusterID: String
    /// PEM file of the node's certificate.
    public var certificatePath: String
    /// PEM file of its key.
    public var keyPath: String
    /// PEM file of the cluster's authority.
    public var authorityPath: String
    /// `host:port` of the metrics and health endpoint; nil for none.
    public var metricsListen: String?

    /// A node's configuration with each part named.
    public init(
        name: String,
        clusterID: String,
        certificatePath: String,
        keyPath: String,
        authorityPath: String,
        metricsListen: String? = nil
    ) {
        self.name = name
        self.clusterID = clusterID
        self.certificatePath = certificatePath
        self.keyPath = keyPath
        self.authorityPath = authorityPath
        self.metricsListen = metricsListen
    }
}
