import AshlarCore
import Foundation
import Hummingbird
import HummingbirdTLS
public import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Observability
import PostgresStore
import RPC
import Transport

/// Runs the control role until its task is cancelled.
///
/// - Throws: ``ControlError`` with one sentence where it cannot start.
public func runControl(_ configuration: ControlConfiguration, logger: Logger) async throws {
    let token = try BearerToken(file: configuration.tokenFile)
    let identity: TLSIdentity
    do {
        identity = try TLSIdentity(
            certificatePath: configuration.node.certificatePath,
            keyPath: configuration.node.keyPath,
            authorityPath: configuration.node.authorityPath
        )
    } catch {
        throw ControlError(.invalid, "\(error.message).", remedy: "Issue the certificate with: ashlar certs issue.")
    }
    try check(identity, configuration.node)
    try await verifyDatabase(configuration, cluster: identity.node.cluster.description)
    let certificate = try APICertificate(
        certificatePath: configuration.node.certificatePath,
        keyPath: configuration.node.keyPath
    )
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let role = try ControlRole(
        configuration,
        identity: identity,
        certificate: certificate,
        token: token,
        group: group,
        logger: logger
    )
    let result: Result<Void, any Error>
    do {
        try await role.run()
        result = .success(())
    } catch {
        // A cancelled role has done what it was told.
        result = Task.isCancelled ? .success(()) : .failure(error)
    }
    await role.shutdown()
    try await group.shutdownGracefully()
    try result.get()
}

/// Tests schema and cluster, on a thread that may block.
private func verifyDatabase(_ configuration: ControlConfiguration, cluster: String) async throws {
    do {
        try await NIOThreadPool.singleton.runIfActive {
            let connection = try PostgresConnection(configuration.postgres)
            defer { connection.close() }
            try SchemaGate.verify(connection, release: ProgramRelease.current, cluster: cluster)
        }
    } catch let error as PostgresError {
        throw ControlError(
            .invalid,
            "The database cannot be used: \(error).",
            remedy: "Name the right one with postgres.dsn, or bring its schema up with: ashlar migrate up."
        )
    }
}

private func check(_ identity: TLSIdentity, _ node: NodeConfiguration) throws(ControlError) {
    guard identity.node.role == .control, identity.node.cluster.description == node.clusterID.lowercased() else {
        throw ControlError(
            .invalid,
            "The certificate \(node.certificatePath) is of \(identity.node), not of role control in cluster "
                + "\(node.clusterID).",
            remedy: "Issue one with: ashlar certs issue --role control."
        )
    }
}

/// The parts of the control role, and the order in which they start and end.
private struct ControlRole: Sendable {
    private let configuration: ControlConfiguration
    private let certificate: APICertificate
    private let identity: TLSIdentity
    private let group: MultiThreadedEventLoopGroup
    private let api: DatabaseWorker
    private let snapshot: DatabaseWorker
    private let peers: RPCControlPeers
    private let jobs: Jobs
    private let service: ControlService
    private let token: BearerToken
    private let logger: Logger
    private let isServing = NIOLockedValueBox(false)

    init(
        _ configuration: ControlConfiguration,
        identity: TLSIdentity,
        certificate: APICertificate,
        token: BearerToken,
        group: MultiThreadedEventLoopGroup,
        logger: Logger
    ) throws {
        self.configuration = configuration
        self.identity = identity
        self.certificate = certificate
        self.token = token
        self.group = group
        self.logger = logger
        var postgres = configuration.postgres
        postgres.applicationName = "ashlar control"
        api = DatabaseWorker(postgres, settings: PostgresControlStore.settings)
        postgres.applicationName = "ashlar fsck"
        snapshot = DatabaseWorker(postgres)
        peers = try RPCControlPeers(
            cacheEndpoints: configuration.cacheEndpoints,
            objectEndpoints: configuration.objectServers,
            identity: identity,
            on: group.next(),
            seed: UInt64.random(in: .min ... .max),
            logger: logger
        )
        jobs = Jobs()
        let checking = PostgresFsckStore(snapshot: snapshot, present: api)
        let recovering = PostgresRecoverStore(snapshot: snapshot, present: api)
        let (peers, checks) = (peers, OneAtATime())
        service = ControlService(
            store: PostgresControlStore(worker: api),
            peers: peers,
            jobs: jobs,
            logger: logger,
            check: { request, progress in
                // There is one snapshot connection; a second check waits for the first.
                try await checks.run {
                    try await FsckRunner(store: checking, peers: peers, logger: logger).run(request, progress: progress)
                }
            },
            recovery: { request, progress in
                try await checks.run {
                    try await RecoverRunner(store: recovering, peers: peers, logger: logger)
                        .run(request, progress: progress)
                }
            }
        )
    }

    func run() async throws {
        // The first question tells at once whether the database can be used.
        _ = try await service.volumes(after: nil, limit: 1)
        let health = try await startHealth()
        identity.startWatching(on: group.next(), logger: logger)
        let result: Result<Void, any Error>
        do {
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                tasks.addTask { try await serve() }
                tasks.addTask { try await sweep() }
                tasks.addTask { try await poll() }
                defer { tasks.cancelAll() }
                try await tasks.next()
            }
            result = .success(())
        } catch {
            result = .failure(error)
        }
        identity.stopWatching()
        await health?.shutdown()
        try result.get()
    }

    func shutdown() async {
        await jobs.shutdown()
        await peers.close()
        await api.shutdown()
        await snapshot.shutdown()
    }

    private func startHealth() async throws -> HealthServer? {
        guard let listen = configuration.node.metricsListen else { return nil }
        return try await HealthServer.start(listen: listen, group: group, logger: logger) { [isServing] in
            isServing.withLockedValue { $0 } ? .ready : .notReady("the API is not open yet")
        }
    }

    private func serve() async throws {
        let address = configuration.listenAddress
        // The server calls it an error that a stop ends its connections; requests that fail are logged by the router.
        var quiet = logger
        quiet.logLevel = .critical
        let application = try Application(
            router: ControlRouter.make(service, token: token),
            server: .tls(.http1(), tlsConfiguration: certificate.tlsConfiguration()),
            configuration: ApplicationConfiguration(
                address: .hostname(address, port: configuration.listenPort),
                serverName: "ashlar"
            ),
            onServerRunning: { [isServing, logger] channel in
                isServing.withLockedValue { $0 = true }
                let port = channel.localAddress?.port ?? 0
                logger.info("ready", metadata: ["endpoint": "https://\(address):\(port)"])
            },
            eventLoopGroupProvider: .shared(group),
            logger: quiet
        )
        do {
            try await application.run()
        } catch let error as IOError {
            throw ControlError(
                .invalid,
                "listen.address \(address), port \(configuration.listenPort), cannot be opened (\(error)).",
                remedy: "Choose another address or port, or stop what listens there."
            )
        }
    }

    /// Takes interrupted deletions up, and looks for a renewed certificate.
    private func sweep() async throws {
        while true {
            do {
                try await service.resumeDeletions()
            } catch let error as ControlError {
                logger.warning("deletions not taken up", metadata: ["reason": "\(error)"])
            }
            certificate.reloadIfChanged(logger: logger)
            try await Task.sleep(for: .seconds(ControlLimits.deletionSweepSeconds))
        }
    }

    /// Asks the object servers for their numbers, and records them.
    private func poll() async throws {
        let store = service.store
        while true {
            for server in await peers.objectStatistics() where server.reachable {
                guard let name = await peers.objectServerName(server.id) else { continue }
                do {
                    try await store.recordObjectServer(
                        id: server.id,
                        name: name,
                        endpoint: server.endpoint,
                        cluster: configuration.node.clusterID
                    )
                } catch let error as ControlError {
                    logger.warning(
                        "object server not recorded",
                        metadata: ["id": "\(server.id)", "reason": "\(error)"]
                    )
                }
            }
            try await Task.sleep(for: .seconds(ControlLimits.objectServerPollSeconds))
        }
    }
}

/// Runs one body after the other.
private actor OneAtATime {
    private var isBusy = false
    private var waiting: [CheckedContinuation<Void, Never>] = []

    func run<Value: Sendable>(_ body: @Sendable () async throws -> Value) async throws -> Value {
        if isBusy {
            await withCheckedContinuation { waiting.append($0) }
        }
        isBusy = true
        defer {
            if waiting.isEmpty { isBusy = false } else { waiting.removeFirst().resume() }
        }
        return try await body()
    }
}
