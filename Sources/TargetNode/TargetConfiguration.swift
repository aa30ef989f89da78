public import AshlarCore

/// What a target is told at its start.
public struct TargetConfiguration: Sendable {
    /// Name, cluster, certificate.
    public var node: NodeConfiguration
    /// Address of the iSCSI portal.
    public var listenAddress: String
    /// Port of the iSCSI portal; 0 for any.
    public var listenPort: Int
    /// `address:port` that SendTargets returns; nil for what was bound.
    public var advertisedPortal: String?
    /// Tag of the portal group.
    public var portalGroupTag: UInt16
    /// Relative target port identifier (SPC-5, 7.7.6).
    public var relativePortIdentifier: UInt16
    /// Cache servers, each `host:port`.
    public var cacheEndpoints: [String]
    /// Object servers by number, each `host:port`.
    public var objectServers: [Int32: String]
    /// Who may discover; without credentials everyone.
    public var discoveryAccess: AccessRules
    /// From where connections are taken.
    public var portalAccess: PortalAccess

    /// A configuration with each part named.
    public init(
        node: NodeConfiguration,
        listenAddress: String = "127.0.0.1",
        listenPort: Int = 3260,
        advertisedPortal: String? = nil,
        portalGroupTag: UInt16 = 1,
        relativePortIdentifier: UInt16 = 1,
        cacheEndpoints: [String],
        objectServers: [Int32: String],
        discoveryAccess: AccessRules = AccessRules(),
        portalAccess: PortalAccess = PortalAccess()
    ) {
        self.node = node
        self.listenAddress = listenAddress
        self.listenPort = listenPort
        self.advertisedPortal = advertisedPortal
        self.portalGroupTag = portalGroupTag
        self.relativePortIdentifier = relativePortIdentifier
        self.cacheEndpoints = cacheEndpoints
        self.objectServers = objectServers
        self.discoveryAccess = discoveryAccess
        self.portalAccess = portalAccess
    }
}
