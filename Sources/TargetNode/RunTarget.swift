import AshlarCore
public import Logging
import NIOCore
import NIOPosix
import Observability
import RPC
import Transport

/// Runs a target until its task is cancelled: an iSCSI portal whose volumes lie with cache and object servers.
///
/// - Throws: what keeps it from starting, with the remedy: certificate, port, endpoints.
public func runTarget(_ configuration: TargetConfiguration, logger: Logger) async throws {
    let identity = try TLSIdentity(
        certificatePath: configuration.node.certificatePath,
        keyPath: configuration.node.keyPath,
        authorityPath: configuration.node.authorityPath
    )
    try identity.require(.target, configuration.node)
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop = group.next()
    identity.startWatching(on: loop, logger: logger)
    do {
        try await serve(configuration, identity: identity, loop: loop, group: group, logger: logger)
    } catch {
        identity.stopWatching()
        try? await group.shutdownGracefully()
        throw error
    }
    identity.stopWatching()
    try await group.shutdownGracefully()
}

private func serve(
    _ configuration: TargetConfiguration,
    identity: TLSIdentity,
    loop: any EventLoop,
    group: any EventLoopGroup,
    logger: Logger
) async throws {
    let box = NIOLoopBoundBox<TargetService?>.makeEmptyBox(valueType: TargetService.self, eventLoop: loop)
    let bootstrap = ServerBootstrap(group: group)
        .serverChannelOption(.backlog, value: 1_024)
        .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
        .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
        .childChannelOption(.maxMessagesPerRead, value: 4)
        .childChannelOption(
            .writeBufferWaterMark,
            value: .init(low: TargetLimits.outputLowBytes, high: TargetLimits.outputHighBytes)
        )
        .childChannelOption(
            .recvAllocator,
            value: AdaptiveRecvByteBufferAllocator(minimum: 4_096, initial: 65_536, maximum: 1 << 20)
        )
        .childChannelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                guard let service = box.value else { throw ChannelError.operationUnsupported }
                try service.accept(channel)
            }
        }
    let portal = "\(configuration.listenAddress):\(configuration.listenPort)"
    let listener: any Channel
    do {
        listener = try await bootstrap.bind(host: configuration.listenAddress, port: configuration.listenPort).get()
    } catch {
        throw TargetError.portalNotAvailable(portal, reason: "\(error)")
    }
    let port = listener.localAddress?.port ?? configuration.listenPort
    let host =
        configuration.listenAddress.contains(":") ? "[\(configuration.listenAddress)]" : configuration.listenAddress
    try await loop.submit {
        let service = try TargetService(
            loop: loop,
            configuration: configuration,
            identity: identity,
            boundPortal: "\(host):\(port)",
            logger: logger
        )
        box.value = service
        try service.start()
    }.get()
    var health: HealthServer?
    if let listen = configuration.node.metricsListen {
        // The group has one loop, so that the question comes on the service's own.
        health = try await HealthServer.start(listen: listen, group: group, logger: logger) {
            box.value?.isReady == true ? .ready : .notReady("no cache server is connected")
        }
    }
    logger.info("ready", metadata: ["role": "target", "endpoint": "\(host):\(port)"])
    try? await Task.sleep(for: .seconds(UInt32.max))
    logger.info("stopping", metadata: ["role": "target"])
    try await loop.flatSubmit { box.value?.deregister() ?? loop.makeSucceededVoidFuture() }.get()
    try await listener.close()
    if try await loop.submit({ box.value?.requestLogouts() ?? false }).get() {
        // Their initiators have this long to log out; this task was cancelled already, so that only the loop can wait.
        try await loop.scheduleTask(in: TargetLimits.stopGrace) {}.futureResult.get()
    }
    await health?.shutdown()
    try await loop.submit { box.value?.stop() }.get()
}
