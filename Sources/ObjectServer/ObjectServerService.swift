import AshlarCore
public import Logging
import NIOCore
import NIOPosix
import ObjectStore
import Observability
import RPC
public import Transport

/// An object server that runs: one event loop, a store with its threads, an RPC server.
///
/// Safe from any thread. ``stop()`` must be called once before it is let go.
public final class ObjectServerService: Sendable {
    /// Where it listens, with the port that was bound.
    public var endpoint: RPCEndpoint { server.endpoint }

    private let server: RPCServer
    private let store: ObjectStore
    private let health: ObjectServerHealth
    private let healthServer: HealthServer?
    private let identity: TLSIdentity
    private let group: MultiThreadedEventLoopGroup
    private let logger: Logger

    private init(
        server: RPCServer,
        store: ObjectStore,
        health: ObjectServerHealth,
        healthServer: HealthServer?,
        identity: TLSIdentity,
        group: MultiThreadedEventLoopGroup,
        logger: Logger
    ) {
        self.server = server
        self.store = store
        self.health = health
        self.healthServer = healthServer
        self.identity = identity
        self.group = group
        self.logger = logger
    }

    /// Checks the configuration, opens the roots, and begins to listen. Where that fails, everything is closed again.
    ///
    /// - Throws: As ``runObjectServer(_:logger:)``.
    public static func start(
        _ configuration: ObjectServerConfiguration,
        logger: Logger
    ) async throws -> ObjectServerService {
        try await start(configuration, logger: logger) { _ in }
    }

    /// - Parameter adjust: Changes bounds of the store, where a test needs it.
    static func start(
        _ configuration: ObjectServerConfiguration,
        logger: Logger,
        adjust: @escaping @Sendable (inout ObjectStoreConfiguration) -> Void
    ) async throws -> ObjectServerService {
        let identity = try TLSIdentity(
            certificatePath: configuration.node.certificatePath,
            keyPath: configuration.node.keyPath,
            authorityPath: configuration.node.authorityPath
        )
        try check(configuration, identity.node)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        do {
            let eventLoop = group.any()
            let store = try await openStore(configuration, eventLoop: eventLoop, logger: logger, adjust: adjust)
            do {
                return try await open(
                    configuration,
                    identity: identity,
                    store: store,
                    group: group,
                    logger: logger
                )
            } catch {
                await close(store, logger)
                throw error
            }
        } catch {
            await end(group, logger)
            throw error
        }
    }

    /// Takes no more requests, answers those that are due, and closes the roots.
    public func stop() async {
        await server.shutdown(drain: .milliseconds(ObjectServerLimits.drainMilliseconds))
        await healthServer?.shutdown()
        health.stop()
        identity.stopWatching()
        await Self.close(store, logger)
        await Self.end(group, logger)
    }

    // MARK: - Parts

    private static func check(
        _ configuration: ObjectServerConfiguration,
        _ node: NodeIdentity
    ) throws(ObjectServerError) {
        guard
            node.role == .objects, node.name == configuration.node.name,
            node.cluster == ClusterID(configuration.node.clusterID)
        else {
            throw ObjectServerError(
                .configuration,
                "the certificate is of \(node), not of object server \(configuration.node.name) in cluster "
                    + configuration.node.clusterID
            )
        }
        guard configuration.serverID.rawValue > 0 else {
            throw ObjectServerError(.configuration, "object server \(configuration.serverID): numbers begin at 1")
        }
    }

    /// Opening locks, recovers and counts: it blocks, so it goes to a thread that may.
    private static func openStore(
        _ configuration: ObjectServerConfiguration,
        eventLoop: any EventLoop,
        logger: Logger,
        adjust: @escaping @Sendable (inout ObjectStoreConfiguration) -> Void
    ) async throws -> ObjectStore {
        try await offLoop {
            for root in configuration.roots { try ObjectRoots.createIfMissing(root) }
            var store = ObjectStoreConfiguration(
                roots: configuration.roots.map { ObjectStoreConfiguration.Root(path: $0.path, weight: $0.weight) },
                clusterID: configuration.node.clusterID,
                serverID: configuration.serverID
            )
            adjust(&store)
            return try ObjectStore(configuration: store, logger: logger) { eventLoop.execute($0) }
        }
    }

    /// Begins to listen: for health and metrics first, so that what fails later can be seen there.
    private static func open(
        _ configuration: ObjectServerConfiguration,
        identity: TLSIdentity,
        store: ObjectStore,
        group: MultiThreadedEventLoopGroup,
        logger: Logger
    ) async throws -> ObjectServerService {
        let metrics = ObjectServerMetrics(.shared)
        let health = ObjectServerHealth()
        let eventLoop = group.any()
        var healthServer: HealthServer?
        if let listen = configuration.node.metricsListen {
            healthServer = try await HealthServer.start(listen: listen, group: group, logger: logger) { health.current }
        }
        let serverID = configuration.serverID
        let server: RPCServer
        do {
            server = try await RPCServer.start(
                RPCServer.Configuration(
                    host: configuration.listenAddress,
                    port: configuration.listenPort,
                    identity: identity,
                    acceptedRoles: [.target, .cache, .agent, .control]
                ),
                group: group,
                logger: logger
            ) { _ in
                ObjectRequestHandler(store: store, serverID: serverID, metrics: metrics, logger: logger)
            }
        } catch {
            await healthServer?.shutdown()
            throw error
        }
        health.start(on: eventLoop, store: store, metrics: metrics, logger: logger)
        identity.startWatching(on: eventLoop, logger: logger)
        return ObjectServerService(
            server: server,
            store: store,
            health: health,
            healthServer: healthServer,
            identity: identity,
            group: group,
            logger: logger
        )
    }

    /// Ending the store waits for its threads, whose last completions need the event loop: so first this, then the
    /// loop.
    private static func close(_ store: ObjectStore, _ logger: Logger) async {
        do {
            try await offLoop { store.shutdown() }
        } catch {
            logger.warning("object store not closed in order", metadata: ["reason": "\(error)"])
        }
    }

    /// Runs something that blocks on a thread that may; also in a task that is cancelled, since what is open must be
    /// closed.
    private static func offLoop<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await Task { try await NIOThreadPool.singleton.runIfActive(body) }.value
    }

    private static func end(_ group: MultiThreadedEventLoopGroup, _ logger: Logger) async {
        do {
            try await group.shutdownGracefully()
        } catch {
            logger.warning("event loop not ended in order", metadata: ["reason": "\(error)"])
        }
    }
}
