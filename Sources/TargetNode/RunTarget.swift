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
    let group = MultiThreadedEventLoopGroup(numberOfThreads: configuration.loops)
    let loops = Array(group.makeIterator())
    identity.startWatching(on: loops[0], logger: logger)
    do {
        try await serve(configuration, identity: identity, loops: loops, logger: logger)
    } catch {
        identity.stopWatching()
        try? await group.shutdownGracefully()
        throw error
    }
    identity.stopWatching()
    try await group.shutdownGracefully()
}

/// - Parameter loops: Each gets a service; the first one listens besides.
private func serve(
    _ configuration: TargetConfiguration,
    identity: TLSIdentity,
    loops: [any EventLoop],
    logger: Logger
) async throws {
    let first = loops[0]
    let box = NIOLoopBoundBox<SharedNode?>.makeEmptyBox(valueType: SharedNode.self, eventLoop: first)
    let listener = try await listen(configuration, on: first, node: box, logger: logger)
    let port = listener.localAddress?.port ?? configuration.listenPort
    let host =
        configuration.listenAddress.contains(":") ? "[\(configuration.listenAddress)]" : configuration.listenAddress
    let node = SharedNode(
        NodeState(
            name: configuration.node.name,
            portal: "\(configuration.advertisedPortal ?? "\(host):\(port)"),\(configuration.portalGroupTag)",
            port: TargetPort(
                portalGroupTag: configuration.portalGroupTag,
                relativePortIdentifier: configuration.relativePortIdentifier
            ),
            redirect: configuration.redirect,
            loops: loops.count
        )
    )
    for (number, loop) in loops.enumerated() {
        try await loop.submit {
            node.add(
                try TargetService(
                    loop: loop,
                    number: number,
                    node: node,
                    configuration: configuration,
                    identity: identity,
                    logger: logger
                )
            )
        }.get()
    }
    let services = node.all
    for service in services { try await service.eventLoop.submit { try service.value.start() }.get() }
    try await first.submit { box.value = node }.get()
    node.show(in: .shared)
    var health: HealthServer?
    if let listen = configuration.node.metricsListen {
        health = try await HealthServer.start(listen: listen, group: first, logger: logger) {
            node.withState({ $0.isReady }) ? .ready : .notReady("no cache server is connected")
        }
    }
    logger.info(
        "ready",
        metadata: ["role": "target", "endpoint": "\(host):\(port)", "loops": "\(loops.count)"]
    )
    try? await Task.sleep(for: .seconds(UInt32.max))
    logger.info("stopping", metadata: ["role": "target"])
    try await first.flatSubmit { services[0].value.deregister() }.get()
    try await listener.close()
    var areThereSessions = false
    for service in services {
        let has = try await service.eventLoop.submit { service.value.requestLogouts() }.get()
        areThereSessions = areThereSessions || has
    }
    if areThereSessions {
        // Their initiators have this long to log out; this task was cancelled already, so that only a loop can wait.
        try await first.scheduleTask(in: TargetLimits.stopGrace) {}.futureResult.get()
    }
    await health?.shutdown()
    for service in services { try await service.eventLoop.submit { service.value.stop() }.get() }
    node.removeAll()
}

/// Opens the portal; connections are closed until there is a node to take them.
private func listen(
    _ configuration: TargetConfiguration,
    on loop: any EventLoop,
    node: NIOLoopBoundBox<SharedNode?>,
    logger: Logger
) async throws -> any Channel {
    let bootstrap = ServerBootstrap(group: loop)
        .serverChannelOption(.backlog, value: 1_024)
        .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
        .serverChannelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(ConnectionSpreader(node: node, logger: logger))
            }
        }
        .portalOptions()
        .childChannelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                guard let service = node.value?.all.first else { throw ChannelError.operationUnsupported }
                try service.value.accept(channel)
            }
        }
    do {
        return try await bootstrap.bind(host: configuration.listenAddress, port: configuration.listenPort).get()
    } catch {
        let portal = "\(configuration.listenAddress):\(configuration.listenPort)"
        throw TargetError.portalNotAvailable(portal, reason: "\(error)")
    }
}
