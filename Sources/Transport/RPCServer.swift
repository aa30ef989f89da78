public import AshlarCore
public import Logging
import NIOConcurrencyHelpers
public import NIOCore
import NIOPosix
import NIOSSL
public import RPC

/// Listens, accepts peers over mutual TLS 1.3 and hands their requests to handlers. Safe from any thread.
public final class RPCServer: Sendable {
    /// What a server listens on and whom it accepts.
    public struct Configuration: Sendable {
        /// The address to listen on.
        public var host: String
        /// The port to listen on; 0 for any that is free.
        public var port: Int
        /// The node's certificate; its role is the server's.
        public var identity: TLSIdentity
        /// The roles that may connect.
        public var acceptedRoles: Set<Role>
        /// What this server can do beyond the protocol's version.
        public var features: UInt64 = 0
        /// Most connections at once; more are refused with a reason.
        public var connectionsMaximum: Int = TransportLimits.connectionsMaximum
        /// Protocol versions that this server speaks.
        public var versions: ClosedRange<UInt16> = RPCLimits.versionMinimum...RPCLimits.versionMaximum
        /// Bytes that a peer may send before it is granted more.
        public var windowBytes: UInt32 = Limits.rpcWindowBytes
        /// Changes the other bounds of a connection, where a test or a benchmark needs it.
        public var adjust: (@Sendable (inout RPCConnectionConfiguration) -> Void)?

        /// The standard bounds.
        public init(host: String, port: Int, identity: TLSIdentity, acceptedRoles: Set<Role>) {
            self.host = host
            self.port = port
            self.identity = identity
            self.acceptedRoles = acceptedRoles
        }

        func connection() -> RPCConnectionConfiguration {
            var configuration = RPCConnectionConfiguration(
                node: identity.node,
                side: .server(acceptedRoles: acceptedRoles)
            )
            configuration.versions = versions
            configuration.features = features
            configuration.windowBytes = windowBytes
            adjust?(&configuration)
            return configuration
        }
    }

    /// What happens to connections, for metrics and tests.
    public enum Event: Sendable {
        /// A peer was accepted.
        case accepted(RPCPeer)
        /// A peer was not accepted, or failed before it could be.
        case refused(address: String, reason: String)
        /// An accepted connection has ended.
        case closed(RPCPeer, reason: String)
    }

    struct Registered: Sendable {
        let eventLoop: any EventLoop
        let acceptor: NIOLoopBound<RPCServerAcceptor>
    }

    struct Registry: Sendable {
        var connections: [UInt64: Registered] = [:]
        var nextID: UInt64 = 1
        var isStopping = false
    }

    let configuration: Configuration
    let logger: Logger
    let onEvent: (@Sendable (Event) -> Void)?
    let makeHandler: @Sendable (RPCServerConnection) -> any RPCConnectionHandler
    let registry = NIOLockedValueBox(Registry())
    private let listener = NIOLockedValueBox<(any Channel)?>(nil)

    private init(
        _ configuration: Configuration,
        logger: Logger,
        onEvent: (@Sendable (Event) -> Void)?,
        makeHandler: @escaping @Sendable (RPCServerConnection) -> any RPCConnectionHandler
    ) {
        self.configuration = configuration
        self.logger = logger
        self.onEvent = onEvent
        self.makeHandler = makeHandler
    }

    /// Binds and begins to accept.
    ///
    /// - Parameters:
    ///   - configuration: where, and whom to accept.
    ///   - group: connections are spread over its loops.
    ///   - logger: gets a line for every accepted, refused and ended connection.
    ///   - onEvent: called on the loop of the connection.
    ///   - makeHandler: called on the connection's loop once its peer is accepted.
    /// - Throws: ``TransportError`` with code `bind` where the address cannot be listened on.
    public static func start(
        _ configuration: Configuration,
        group: any EventLoopGroup,
        logger: Logger,
        onEvent: (@Sendable (Event) -> Void)? = nil,
        makeHandler: @escaping @Sendable (RPCServerConnection) -> any RPCConnectionHandler
    ) async throws(TransportError) -> RPCServer {
        let server = RPCServer(configuration, logger: logger, onEvent: onEvent, makeHandler: makeHandler)
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: TransportLimits.acceptBacklog)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try server.initialize(channel) }
            }
        do {
            let channel = try await bootstrap.bind(host: configuration.host, port: configuration.port).get()
            server.listener.withLockedValue { $0 = channel }
        } catch {
            let endpoint = RPCEndpoint(host: configuration.host, port: configuration.port)
            throw TransportError(.bind, "cannot listen on \(endpoint)", underlying: error)
        }
        logger.info(
            "RPC server listens",
            metadata: [
                "endpoint": "\(server.endpoint)", "node": "\(configuration.identity.node)",
                "accepts": "\(configuration.acceptedRoles.map(\.rawValue).sorted().joined(separator: ", "))",
            ]
        )
        return server
    }

    /// Where the server listens, with the port that was bound.
    public var endpoint: RPCEndpoint {
        let address = listener.withLockedValue { $0?.localAddress }
        return RPCEndpoint(host: address?.ipAddress ?? configuration.host, port: address?.port ?? configuration.port)
    }

    /// Connections that are open, accepted or in their handshake.
    public var connectionCount: Int { registry.withLockedValue { $0.connections.count } }

    /// Stops accepting, tells every peer, waits for answers that are due, at most for `drain`, and closes.
    public func shutdown(drain: TimeAmount = .seconds(5)) async {
        let channel = listener.withLockedValue { $0 }
        registry.withLockedValue { $0.isStopping = true }
        if let channel {
            do {
                try await channel.close().get()
            } catch ChannelError.alreadyClosed {
                logger.debug("RPC server was closed before")
            } catch {
                logger.warning("RPC server's listener not closed in order", metadata: ["reason": "\(error)"])
            }
        }
        forEachConnection { $0.drain() }
        guard let eventLoop = channel?.eventLoop else { return }
        let end = NIODeadline.now() + drain
        while connectionCount > 0, NIODeadline.now() < end { await pause(eventLoop) }
        forEachConnection { $0.closeNow("server stops") }
        let last = NIODeadline.now() + .seconds(1)
        while connectionCount > 0, NIODeadline.now() < last { await pause(eventLoop) }
    }

    /// Waits a little, also in a task that is cancelled: shutting down is what cancelled tasks do.
    private func pause(_ eventLoop: any EventLoop) async {
        let task = eventLoop.scheduleTask(in: .milliseconds(TransportLimits.drainPollMilliseconds)) {}
        do {
            try await task.futureResult.get()
        } catch {
            logger.debug("event loop has stopped", metadata: ["reason": "\(error)"])
        }
    }

    private func forEachConnection(_ body: @escaping @Sendable (RPCServerAcceptor) -> Void) {
        for connection in registry.withLockedValue({ Array($0.connections.values) }) {
            connection.eventLoop.execute { body(connection.acceptor.value) }
        }
    }

    private func initialize(_ channel: any Channel) throws {
        let acceptor = RPCServerAcceptor(server: self, eventLoop: channel.eventLoop)
        let bound = NIOLoopBound(acceptor, eventLoop: channel.eventLoop)
        let refusal = registry.withLockedValue { registry -> RPCCloseReason? in
            acceptor.id = registry.nextID
            registry.nextID += 1
            registry.connections[acceptor.id] = Registered(eventLoop: channel.eventLoop, acceptor: bound)
            if registry.isStopping { return RPCCloseReason(.draining, "server stops") }
            let count = registry.connections.count
            guard count > configuration.connectionsMaximum else { return nil }
            return RPCCloseReason(.tooManyConnections, "at most \(configuration.connectionsMaximum) connections")
        }
        let handler = RPCChannelHandler(
            configuration.connection(),
            tickInterval: .milliseconds(TransportLimits.serverTickMilliseconds),
            refusal: refusal
        )
        let ended = handler.adopt(by: acceptor)
        precondition(ended == nil, "a connection that has not begun has not ended")
        acceptor.channel = handler
        try channel.pipeline.syncOperations.addHandlers(
            NIOSSLServerHandler(context: configuration.identity.serverContext),
            handler
        )
    }
}

/// Stands between a channel and the application's handler, from the first byte of a connection to its end.
final class RPCServerAcceptor: RPCChannelDelegate {
    private let server: RPCServer
    private let eventLoop: any EventLoop
    var id: UInt64 = 0
    var channel: RPCChannelHandler?
    private var connection: RPCServerConnection?
    private var application: (any RPCConnectionHandler)?

    init(server: RPCServer, eventLoop: any EventLoop) {
        self.server = server
        self.eventLoop = eventLoop
    }

    func drain() { channel?.drain("server stops") }

    func closeNow(_ reason: String) { channel?.close(RPCCloseReason(.draining, reason)) }

    func connectionEstablished(_ remote: RPCRemote) {
        guard let channel else { return }
        let peer = RPCPeer(remote, address: channel.remoteAddress)
        let connection = RPCServerConnection(eventLoop: eventLoop, peer: peer, id: id, channel: channel)
        self.connection = connection
        application = server.makeHandler(connection)
        server.logger.info("RPC peer accepted", metadata: ["peer": "\(peer)", "version": "\(peer.version)"])
        server.onEvent?(.accepted(peer))
    }

    func requestReceived(_ request: RPCRequest) {
        guard let connection else { return }
        application?.requestReceived(request, connection: connection)
    }

    func readCompleted() {
        guard let connection else { return }
        application?.readCompleted(connection: connection)
    }

    func answerReceived(_ id: RPCRequestID, _ answer: RPCAnswer) {
        preconditionFailure("a server sends no requests")
    }

    func requestsFailed(_ requests: [RPCRequestID], _ failure: RPCFailure) {
        precondition(requests.isEmpty, "a server sends no requests")
    }

    func connectionDraining(_ reason: RPCCloseReason) {
        server.logger.debug("RPC peer drains", metadata: ["reason": "\(reason)"])
    }

    func connectionClosed(_ reason: RPCCloseReason) {
        let id = id
        server.registry.withLockedValue { _ = $0.connections.removeValue(forKey: id) }
        if let connection {
            server.logger.info("RPC peer gone", metadata: ["peer": "\(connection.peer)", "reason": "\(reason)"])
            server.onEvent?(.closed(connection.peer, reason: reason.description))
            application?.connectionClosed(connection: connection)
        } else {
            let address = channel?.remoteAddress ?? "unknown"
            server.logger.warning("RPC peer refused", metadata: ["address": "\(address)", "reason": "\(reason)"])
            server.onEvent?(.refused(address: address, reason: reason.description))
        }
        application = nil
        connection = nil
        channel = nil
    }
}
