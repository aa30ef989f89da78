public import AshlarCore
import NIOCore
public import RPC

/// Where a server listens.
public struct RPCEndpoint: Hashable, Sendable, CustomStringConvertible {
    /// A name or an address; IPv6 without brackets.
    public let host: String
    /// The TCP port.
    public let port: Int

    /// An endpoint with both parts named.
    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// Reads `host:port` or `[address]:port`; without a port, `defaultPort` where there is one.
    public init?(_ text: String, defaultPort: Int? = nil) {
        var host = Substring(text)
        var port: Substring?
        if host.first == "[" {
            guard let end = host.firstIndex(of: "]") else { return nil }
            let rest = host[host.index(after: end)...]
            host = host[host.index(after: host.startIndex)..<end]
            guard rest.isEmpty || rest.first == ":" else { return nil }
            if !rest.isEmpty { port = rest.dropFirst() }
        } else if let colon = host.lastIndex(of: ":") {
            port = host[host.index(after: colon)...]
            host = host[..<colon]
            guard !host.contains(":") else { return nil }
        }
        let number: Int? = port.map { Int($0) } ?? defaultPort
        guard !host.isEmpty, let number, (0...65_535).contains(number) else { return nil }
        self.init(host: String(host), port: number)
    }

    /// `host:port`, with brackets round an IPv6 address.
    public var description: String {
        host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }
}

/// The other end of a connection, as its certificate and its hello say alike.
public struct RPCPeer: Hashable, Sendable, CustomStringConvertible {
    /// Cluster, role and name.
    public let node: NodeIdentity
    /// The protocol version that both use.
    public let version: UInt16
    /// The features that both have.
    public let features: UInt64
    /// The address that the connection comes from or goes to.
    public let address: String

    init(_ remote: RPCRemote, address: String) {
        node = remote.node
        version = remote.version
        features = remote.features
        self.address = address
    }

    /// Role, name and address.
    public var description: String { "\(node.role.rawValue)/\(node.name) at \(address)" }
}

/// The monotonic clock of event loops.
public enum RPCClock {
    /// What the clock reads now; deadlines of requests are on it.
    public static var now: MonotonicTime { MonotonicTime(NIODeadline.now().uptimeNanoseconds) }
}

extension SocketAddress {
    /// `address:port`, or the path.
    var text: String {
        if let ipAddress, let port { return RPCEndpoint(host: ipAddress, port: port).description }
        return pathname ?? "unknown"
    }
}

extension Optional<SocketAddress> {
    var text: String { self?.text ?? "unknown" }
}
