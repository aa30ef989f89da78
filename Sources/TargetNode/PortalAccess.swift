public import AshlarCore
import Logging
import NIOCore

/// Whether a portal is reached through a proxy that says where its connections come from.
public enum ProxyProtocol: String, Sendable, Hashable, CaseIterable {
    /// Connections come from initiators, or from a proxy that says nothing.
    case off
    /// Every connection begins with a header of the PROXY protocol, version 2.
    case required
}

/// From where connections to a portal are taken.
public struct PortalAccess: Sendable {
    /// Whether connections begin with a PROXY header.
    public var proxyProtocol: ProxyProtocol
    /// Who may speak the PROXY protocol, and so say any address.
    public var proxies: [AddressPrefix]
    /// Initiators that are let in; empty: all.
    public var initiators: [AddressPrefix]

    /// Rules with each part named.
    public init(
        proxyProtocol: ProxyProtocol = .off,
        proxies: [AddressPrefix] = [],
        initiators: [AddressPrefix] = []
    ) {
        self.proxyProtocol = proxyProtocol
        self.proxies = proxies
        self.initiators = initiators
    }

    /// The log line of an initiator that is not let in.
    static let initiatorRefused: Logger.Message =
        "a connection is refused: the initiator's address is not in target.allowed-addresses"
    /// The log line of a connection that comes past the proxies.
    static let proxyRefused: Logger.Message =
        "a connection is refused: its address is not in target.proxy-protocol-from"

    /// What the log calls an address.
    static func text(_ address: SocketAddress?) -> String { address.map { "\($0)" } ?? "unknown" }

    /// Whether a peer may speak the PROXY protocol.
    func admitsProxy(_ address: NetworkAddress?) -> Bool {
        address.map { address in proxies.contains { $0.contains(address) } } ?? false
    }

    /// Whether an initiator may log in here; one whose address is not known only where everyone may.
    func admitsInitiator(_ address: NetworkAddress?) -> Bool {
        initiators.isEmpty || address.map { address in initiators.contains { $0.contains(address) } } ?? false
    }
}

extension NetworkAddress {
    /// The address of a socket; `nil` for a Unix socket.
    init?(_ socket: SocketAddress?) {
        guard let text = socket?.ipAddress else { return nil }
        // A link-local address may carry its zone.
        self.init(String(text.prefix { $0 != "%" }))
    }
}
