import AshlarCore
import Glibc
import ISNS
import Logging
import NIOCore
import NIOPosix
import RPC
import Transport

/// Keeps portal and volumes of a target registered with an iSNS server: runs the actions of an ``ISNSClient``.
///
/// Not Sendable: everything happens on the loop of the target's service.
final class ISNSService {
    /// The port of iSNS servers (RFC 4171, 2.1).
    static let serverPort = 3_205

    private unowned let service: TargetService
    private let server: RPCEndpoint
    private let portal: RPCEndpoint
    private let entity: String
    private let logger: Logger
    private var client: ISNSClient?
    private var channel: (any Channel)?
    /// Counts connections, so that what comes of an earlier one is told apart.
    private var attempt: UInt64 = 0
    private var timer: RepeatedTask?
    private var listener: (any Channel)?
    private var inquirers = 0
    private var whenStopped: EventLoopPromise<Void>?

    private var loop: any EventLoop { service.loop }

    /// A registration that does not begin before ``start()``.
    init(service: TargetService, server: String) throws {
        let portal = String(service.portal.prefix { $0 != "," })
        guard let server = RPCEndpoint(server, defaultPort: Self.serverPort) else {
            throw TargetError.invalidEndpoint(key: "target.isns-server", value: server)
        }
        guard let endpoint = RPCEndpoint(portal, defaultPort: 3_260) else {
            throw TargetError.invalidEndpoint(key: "target.advertise", value: portal)
        }
        self.service = service
        self.server = server
        self.portal = endpoint
        // One for the cluster: a server has a name in one entity only, and all targets export the same volumes.
        entity = "ashlar-\(service.configuration.node.clusterID)"
        var logger = service.logger
        logger[metadataKey: "isns-server"] = "\(server)"
        self.logger = logger
    }

    // MARK: Life

    /// Looks the portal's address up, listens for the server, connects.
    func start() {
        NIOThreadPool.singleton.runIfActive(eventLoop: loop) { [portal] in
            try SocketAddress.makeAddressResolvingHost(portal.host, port: portal.port)
        }.assumeIsolated().whenComplete { result in
            guard self.whenStopped == nil else { return }
            switch result {
            case .success(let address): self.listen(at: address)
            case .failure(let error):
                self.logger.warning(
                    "the portal's address is not found; it is not registered yet",
                    metadata: ["portal": "\(self.portal)", "reason": "\(error)"]
                )
                let bound = NIOLoopBound(self, eventLoop: self.loop)
                self.loop.scheduleTask(in: TargetLimits.isnsLookUpInterval) {
                    if bound.value.whenStopped == nil { bound.value.start() }
                }
            }
        }
    }

    /// Deregisters what is this target's alone. The result comes after two seconds at the latest.
    func stop() -> EventLoopFuture<Void> {
        let promise = loop.makePromise(of: Void.self)
        whenStopped = promise
        if client == nil {
            ended()
        } else {
            handle { $0.stop(now: $1) }
        }
        return promise.futureResult
    }

    private func ended() {
        timer?.cancel()
        timer = nil
        listener?.close(promise: nil)
        listener = nil
        whenStopped?.succeed()
    }

    // MARK: Inquiries

    /// Listens at the portal's own address, since that is where a server sends its inquiries.
    private func listen(at address: SocketAddress) {
        let bound = NIOLoopBound(self, eventLoop: loop)
        var own = address
        own.port = service.configuration.isnsListenPort
        ServerBootstrap(group: loop)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers(bound.value.inquiryHandlers(address))
                }
            }
            .bind(to: own)
            .assumeIsolated()
            .whenComplete { result in
                switch result {
                case .success(let channel):
                    self.listener = channel
                    self.begin(address, inquiryPort: channel.localAddress?.port, isShared: false)
                case .failure(let error):
                    // An address that is not this host's is a balanced one: inquiries would reach any of the targets.
                    let isElsewhere = (error as? IOError)?.errnoCode == EADDRNOTAVAIL
                    if !isElsewhere {
                        self.logger.warning(
                            "inquiries of the iSNS server cannot be answered; the registration lives by renewal",
                            metadata: ["port": "\(self.service.configuration.isnsListenPort)", "reason": "\(error)"]
                        )
                    }
                    self.begin(address, inquiryPort: nil, isShared: isElsewhere)
                }
            }
    }

    private func inquiryHandlers(_ address: SocketAddress) throws -> [any ChannelHandler] {
        guard inquirers < TargetLimits.isnsConnectionsMaximum, let portal = Self.portal(at: address) else {
            throw ChannelError.operationUnsupported
        }
        inquirers += 1
        return [
            IdleStateHandler(allTimeout: TargetLimits.isnsIdleTimeout),
            ISNSInquiryHandler(
                responder: ISNSResponder(entity: entity, portal: portal),
                log: { [logger] in Self.log($0, logger) },
                onEnd: { [weak self] in self?.inquirers -= 1 }
            ),
        ]
    }

    private static func portal(at address: SocketAddress) -> ISNSPortal? {
        guard let text = address.ipAddress, let port = address.port else { return nil }
        let (family, count) = address.protocol == .inet6 ? (AF_INET6, 16) : (AF_INET, 4)
        var bytes = [UInt8](repeating: 0, count: count)
        guard inet_pton(family, text, &bytes) == 1 else { return nil }
        return ISNSPortal(address: bytes, port: UInt16(clamping: port))
    }

    // MARK: Registration

    private func begin(_ address: SocketAddress, inquiryPort: Int?, isShared: Bool) {
        guard whenStopped == nil else { return ended() }
        guard let portal = Self.portal(at: address), portal.address.contains(where: { $0 != 0 && $0 != 0xFF }) else {
            logger.error("\(self.portal) is no address to send initiators to: name one with target.advertise")
            return
        }
        client = ISNSClient(
            configuration: ISNSClientConfiguration(
                entity: entity,
                portal: portal,
                portalGroupTag: service.configuration.portalGroupTag,
                inquiryPort: inquiryPort.map { UInt16(clamping: $0) },
                isPortalShared: isShared,
                seed: UInt64.random(in: 0...UInt64.max)
            )
        )
        let bound = NIOLoopBound(self, eventLoop: loop)
        timer = loop.scheduleRepeatedTask(initialDelay: .zero, delay: TargetLimits.sessionTick) { _ in
            bound.value.handle { $0.timePassed(now: $1) }
        }
        handle { $0.start(now: $1) }
    }

    private func handle(_ event: (inout ISNSClient, MonotonicTime) -> [ISNSAction]) {
        guard var machine = client else { return }
        // Taken out while it works, so that nothing of it is copied.
        client = nil
        let actions = event(&machine, service.now)
        client = machine
        for action in actions { run(action) }
    }

    private func run(_ action: ISNSAction) {
        switch action {
        case .connect: connect()
        case .send(let bytes): channel?.writeAndFlush(bytes, promise: nil)
        case .close:
            attempt += 1
            channel?.close(promise: nil)
            channel = nil
        case .listTargets: listTargets()
        case .note(let note): Self.log(note, logger)
        case .stopped: ended()
        }
    }

    private func connect() {
        attempt += 1
        let attempt = attempt
        let bound = NIOLoopBound(self, eventLoop: loop)
        ClientBootstrap(group: loop)
            .connectTimeout(TargetLimits.isnsConnectTimeout)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        ISNSClientHandler(service: bound.value, attempt: attempt)
                    )
                }
            }
            .connect(host: server.host, port: server.port)
            .assumeIsolated()
            .whenComplete { result in
                switch result {
                case .success(let channel):
                    guard self.attempt == attempt, channel.isActive else {
                        channel.close(promise: nil)
                        return self.connectionEnded("connection ended at once", attempt: attempt)
                    }
                    self.channel = channel
                    self.handle { $0.connected(now: $1) }
                case .failure(let error):
                    self.connectionEnded(ConnectionErrorText.text(of: error), attempt: attempt)
                }
            }
    }

    fileprivate func received(_ bytes: ByteBuffer, attempt: UInt64) {
        guard self.attempt == attempt, channel != nil else { return }
        var bytes = bytes
        handle { $0.received(&bytes, now: $1) }
    }

    fileprivate func connectionEnded(_ reason: String, attempt: UInt64) {
        guard self.attempt == attempt else { return }
        self.attempt += 1
        channel = nil
        handle { $0.connectionClosed(reason: reason, now: $1) }
    }

    private static func log(_ note: ISNSNote, _ logger: Logger) {
        let level: Logger.Level =
            switch note.severity {
            case .debug: .debug
            case .info: .info
            case .warning: .warning
            }
        logger.log(level: level, "\(note.message)")
    }

    // MARK: Volumes

    /// Lists all volumes, whoever may log in to them: who sees what is a matter of discovery domains.
    private func listTargets() {
        service.listVolumes({ ISNSTarget(name: $0.iqn, alias: $0.name) }) { [self] targets in
            if targets == nil { logger.debug("volumes could not be listed for the iSNS server") }
            handle { $0.targetsListed(targets, now: $1) }
        }
    }
}

/// Hands what the iSNS server says to the service.
private final class ISNSClientHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let service: ISNSService
    private let attempt: UInt64
    private var reason = "the server closed the connection"

    init(service: ISNSService, attempt: UInt64) {
        self.service = service
        self.attempt = attempt
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        service.received(unwrapInboundIn(data), attempt: attempt)
    }

    func channelInactive(context: ChannelHandlerContext) {
        service.connectionEnded(reason, attempt: attempt)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        reason = ConnectionErrorText.text(of: error)
        context.close(promise: nil)
    }
}

/// Answers an iSNS server that has connected to the target.
private final class ISNSInquiryHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var responder: ISNSResponder
    private let log: (ISNSNote) -> Void
    private let onEnd: () -> Void

    init(responder: ISNSResponder, log: @escaping (ISNSNote) -> Void, onEnd: @escaping () -> Void) {
        self.responder = responder
        self.log = log
        self.onEnd = onEnd
    }

    func handlerRemoved(context: ChannelHandlerContext) { onEnd() }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        for answer in responder.received(&bytes) {
            switch answer {
            case .send(let response): context.writeAndFlush(wrapOutboundOut(response), promise: nil)
            case .close: context.close(promise: nil)
            case .note(let note): log(note)
            }
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent { context.close(promise: nil) }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
