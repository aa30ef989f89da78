/// A target node as the others know it.
public struct TargetNodeState: Sendable, Hashable {
    /// Its configured name.
    public var name: String
    /// The advertised iSCSI portal, `address:port`.
    public var portal: String
    /// Its target port.
    public var port: TargetPort
    /// Its release.
    public var release: String
    /// Sessions that are logged in.
    public var sessions: UInt32
    /// Whether logins may be sent there: a node that sends them elsewhere itself does not receive any.
    public var receivesLogins: Bool
    /// Whether its sessions are to go elsewhere.
    public var isDraining: Bool

    /// A node with each part named.
    public init(
        name: String,
        portal: String,
        port: TargetPort,
        release: String,
        sessions: UInt32,
        receivesLogins: Bool = true,
        isDraining: Bool = false
    ) {
        self.name = name
        self.portal = portal
        self.port = port
        self.release = release
        self.sessions = sessions
        self.receivesLogins = receivesLogins
        self.isDraining = isDraining
    }
}
