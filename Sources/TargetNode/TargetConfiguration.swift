public import AshlarCore
import NIOCore

/// Whether a target sends logins to the least loaded target that lives (RFC 7143, 11.13.5).
public enum LoginRedirect: String, Sendable, Hashable, CaseIterable {
    /// It serves them itself.
    case never
    /// The initiator asks here again the next time.
    case temporarily
    /// The initiator is to remember where it was sent.
    case permanently
}

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
    /// Whether logins are sent to other targets.
    public var redirect: LoginRedirect
    /// iSNS server, `host` or `host:port`; nil: nothing is registered.
    public var isnsServer: String?
    /// Port on which the iSNS server's inquiries and notifications are answered; 0 for any.
    public var isnsListenPort: Int
    /// From where connections are taken.
    public var portalAccess: PortalAccess
    /// Memory for blocks that were read from objects, in bytes; 0: none are kept, and nothing is read ahead.
    public var readCacheBytes: Int
    /// Event loops, each with links of its own to cache and object servers, and its share of `readCacheBytes`.
    public var loops: Int

    /// Event loops that a target can have.
    public static let loopsAllowed = 1...TargetLimits.loopsMaximum
    /// Event loops where nothing else is wanted: a quarter of the machine's processors, since what is behind a target takes the
    /// others.
    public static let loopsDefault = loops(processors: System.coreCount)

    /// As many as a machine with so many processors has by default.
    static func loops(processors: Int) -> Int { min(max(1, processors / 4), TargetLimits.loopsMaximum) }

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
        redirect: LoginRedirect = .never,
        isnsServer: String? = nil,
        isnsListenPort: Int = 0,
        portalAccess: PortalAccess = PortalAccess(),
        readCacheBytes: Int = 256 << 20,
        loops: Int = 1
    ) {
        precondition(Self.loopsAllowed.contains(loops), "a target has some loops")
        self.node = node
        self.listenAddress = listenAddress
        self.listenPort = listenPort
        self.advertisedPortal = advertisedPortal
        self.portalGroupTag = portalGroupTag
        self.relativePortIdentifier = relativePortIdentifier
        self.cacheEndpoints = cacheEndpoints
        self.objectServers = objectServers
        self.discoveryAccess = discoveryAccess
        self.redirect = redirect
        self.isnsServer = isnsServer
        self.isnsListenPort = isnsListenPort
        self.portalAccess = portalAccess
        self.readCacheBytes = readCacheBytes
        self.loops = loops
    }
}
