import AshlarCore
public import Logging
import NIOCore
import NIOPosix
import Observability
import PostgresStore
import RPC
import Transport

/// Runs a cache server until its task is cancelled: registers, takes volumes over, serves targets and agents.
///
/// - Throws: what keeps it from starting, with the remedy: certificate, port, database.
public func runCacheServer(_ configuration: CacheConfiguration, logger: Logger) async throws {
    let identity = try TLSIdentity(
        certificatePath: configuration.node.certificatePath,
        keyPath: configuration.node.keyPath,
        authorityPath: configuration.node.authorityPath
    )
    try identity.require(.cache, configuration.node)
    let postgres = PostgresConfiguration(
        dsn: configuration.postgresDSN,
        passwordFile: configuration.postgresPasswordFile,
        applicationName: "ashlar \(configuration.node.name)",
        allowUnsafeDurability: configuration.allowUnsafeDurability,
        memory: configuration.stateDirectory.map { ServerMemoryFile(directory: $0) }
    )
    try postgres.memory?.verify()
    try await verifyDatabase(postgres, cluster: identity.node.cluster.description, logger: logger)
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop = group.next()
    identity.startWatching(on: loop, logger: logger)
    let store = PostgresBlockStore(postgres, logger: logger)
    do {
        try await serve(configuration, identity: identity, loop: loop, group: group, store: store, logger: logger)
    } catch {
        store.shutdown()
        try? await group.shutdownGracefully()
        throw error
    }
    store.shutdown()
    identity.stopWatching()
    try await group.shutdownGracefully()
}

/// Tests schema and cluster on a thread that may block; a database that is only just starting is waited for.
private func verifyDatabase(_ postgres: PostgresConfiguration, cluster: String, logger: Logger) async throws {
    for attempt in 1...CacheServerLimits.databaseAttempts {
        do {
            return try await NIOThreadPool.singleton.runIfActive {
                let connection = try PostgresConnection(postgres)
                defer { connection.close() }
                try SchemaGate.verify(connection, release: ProgramRelease.current, cluster: cluster)
            }
        } catch let error as PostgresError
            where error.code == .connection && attempt < CacheServerLimits.databaseAttempts
        {
            logger.warning("PostgreSQL does not answer yet", metadata: ["error": "\(error)"])
            try await Task.sleep(for: CacheServerLimits.databaseRetry)
        }
    }
}

private func serve(
    _ configuration: CacheConfiguration,
    identity: TLSIdentity,
    loop: any EventLoop,
    group: any EventLoopGroup,
    store: PostgresBlockStore,
    logger: Logger
) async throws {
    // The service is made once the port is known, since its endpoint goes into PostgreSQL.
    let box = NIOLoopBoundBox<CacheService?>.makeEmptyBox(valueType: CacheService.self, eventLoop: loop)
    let server = try await RPCServer.start(
        RPCServer.Configuration(
            host: configuration.listenAddress,
            port: configuration.listenPort,
            identity: identity,
            acceptedRoles: [.target, .agent, .control]
        ),
        group: group,
        logger: logger,
        makeHandler: { _ in CacheConnection(service: box) }
    )
    let endpoint = configuration.advertisedEndpoint ?? server.endpoint.description
    try await loop.submit {
        let service = try CacheService(
            loop: loop,
            configuration: configuration,
            endpoint: endpoint,
            store: store,
            identity: identity,
            logger: logger
        )
        box.value = service
        service.start()
    }.get()
    var health: HealthServer?
    if let listen = configuration.node.metricsListen {
        // The group has one loop, so that the question comes on the service's own.
        health = try await HealthServer.start(listen: listen, group: group, logger: logger) {
            guard let service = box.value else { return .notReady("starting") }
            return service.healthProblem.map { .notReady($0) } ?? .ready
        }
    }
    logger.info("ready", metadata: ["role": "cache", "endpoint": "\(endpoint)"])
    try? await Task.sleep(for: .seconds(UInt32.max))
    logger.info("stopping", metadata: ["role": "cache"])
    await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
        loop.execute {
            guard let service = box.value else { return continuation.resume() }
            service.leave { continuation.resume() }
        }
    }
    await server.shutdown()
    await health?.shutdown()
    try await loop.submit { box.value?.stop() }.get()
    // Whoever takes the volumes over need not wait for the lease to run out.
    await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
        store.releaseLeases(name: configuration.node.name, except: nil) { result in
            if case .failure(let failure) = result {
                logger.warning(
                    "the lease could not be given back: others take the volumes over when it has run out",
                    metadata: ["reason": "\(failure)", "seconds": "\(Limits.leaseMilliseconds / 1_000)"]
                )
            }
            continuation.resume()
        }
    }
}
