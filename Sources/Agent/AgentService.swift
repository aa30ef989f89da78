import AgentPlanning
import AshlarCore
import Logging
import NIOCore
import NIOPosix
import Observability
import RPC
import Transport

/// An agent that runs: one event loop, a client for every server, a driver.
final class AgentService: Sendable {
    let jobs: AgentJobs
    private let driver: AgentDriver
    private let healthServer: HealthServer?
    private let identity: TLSIdentity
    private let group: MultiThreadedEventLoopGroup
    private let logger: Logger

    private init(
        jobs: AgentJobs,
        driver: AgentDriver,
        healthServer: HealthServer?,
        identity: TLSIdentity,
        group: MultiThreadedEventLoopGroup,
        logger: Logger
    ) {
        self.jobs = jobs
        self.driver = driver
        self.healthServer = healthServer
        self.identity = identity
        self.group = group
        self.logger = logger
    }

    /// Checks the configuration, begins to connect, and starts to work.
    ///
    /// - Parameter adjust: Changes cadences, where a test needs it.
    static func start(
        _ configuration: AgentConfiguration,
        logger: Logger,
        adjust: (inout AgentPlanner.Configuration) -> Void = { _ in }
    ) async throws -> AgentService {
        let endpoints = try Endpoints(configuration)
        let identity = try TLSIdentity(
            certificatePath: configuration.node.certificatePath,
            keyPath: configuration.node.keyPath,
            authorityPath: configuration.node.authorityPath
        )
        try check(identity.node, configuration.node)
        var planner = AgentPlanner.Configuration(
            caches: endpoints.caches.count,
            objectsInMemory: configuration.movesInFlight,
            idleNanoseconds: UInt64(max(configuration.idleMilliseconds, AgentLimits.idleMinimumMilliseconds))
                * 1_000_000,
            scanNanoseconds: UInt64(configuration.scanSeconds) * 1_000_000_000,
            seed: .random(in: 0 ... .max)
        )
        adjust(&planner)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let eventLoop = group.any()
        let connections = AgentConnections()
        let healthServer: HealthServer?
        do {
            healthServer = try await openHealth(configuration, connections: connections, group: group, logger: logger)
        } catch {
            await end(group, logger)
            throw error
        }
        identity.startWatching(on: eventLoop, logger: logger)
        let jobs = AgentJobs(
            name: configuration.node.name,
            peers: connect(
                endpoints,
                identity: identity,
                connections: connections,
                eventLoop: eventLoop,
                logger: logger
            ),
            gate: AgentGate(),
            metrics: AgentMetrics(.shared),
            intentAgeMilliseconds: UInt64(configuration.intentAgeSeconds) * 1_000,
            graceMilliseconds: UInt64(configuration.graceSeconds) * 1_000,
            logger: logger
        )
        let driver = AgentDriver(planner, eventLoop: eventLoop) { await jobs.perform($0, foundWork: $1) }
        await driver.run()
        return AgentService(
            jobs: jobs,
            driver: driver,
            healthServer: healthServer,
            identity: identity,
            group: group,
            logger: logger
        )
    }

    /// Starts no more jobs, finishes what is between put and map, breaks off everything else, and closes. A second call
    /// does nothing.
    func stop() async {
        guard jobs.gate.close() else { return }
        await driver.stop()
        await jobs.gate.waitUntilEmpty()
        await jobs.peers.closeAll()
        await driver.waitForEnd()
        await healthServer?.shutdown()
        identity.stopWatching()
        await Self.end(group, logger)
    }

    private static func end(_ group: MultiThreadedEventLoopGroup, _ logger: Logger) async {
        do {
            try await group.shutdownGracefully()
        } catch {
            logger.warning("event loop not ended in order", metadata: ["reason": "\(error)"])
        }
    }

    private static func openHealth(
        _ configuration: AgentConfiguration,
        connections: AgentConnections,
        group: MultiThreadedEventLoopGroup,
        logger: Logger
    ) async throws -> HealthServer? {
        guard let listen = configuration.node.metricsListen else { return nil }
        return try await HealthServer.start(listen: listen, group: group, logger: logger) { connections.readiness }
    }

    // MARK: - Configuration

    /// The servers as they are configured, checked.
    private struct Endpoints {
        var caches: [RPCEndpoint] = []
        var objects: [(id: ObjectServerID, endpoint: RPCEndpoint)] = []

        init(_ configuration: AgentConfiguration) throws(AgentError) {
            guard (1...AgentLimits.movesInFlightMaximum).contains(configuration.movesInFlight) else {
                throw AgentError(
                    .configuration,
                    "\(configuration.movesInFlight) moves in flight; from 1 to \(AgentLimits.movesInFlightMaximum) are "
                        + "allowed"
                )
            }
            for text in configuration.cacheEndpoints {
                caches.append(try Self.endpoint(text, of: "cache server"))
            }
            for (number, text) in configuration.objectServers.sorted(by: { $0.key < $1.key }) {
                guard number > 0 else {
                    throw AgentError(.configuration, "object server \(number): numbers begin at 1")
                }
                objects.append((ObjectServerID(number), try Self.endpoint(text, of: "object server \(number)")))
            }
            guard !caches.isEmpty else { throw AgentError(.configuration, "no cache server is configured") }
            guard !objects.isEmpty else { throw AgentError(.configuration, "no object server is configured") }
        }

        private static func endpoint(_ text: String, of server: String) throws(AgentError) -> RPCEndpoint {
            guard let endpoint = RPCEndpoint(text) else {
                throw AgentError(.configuration, "endpoint \(text) of \(server) is not host:port")
            }
            return endpoint
        }
    }

    private static func check(_ node: NodeIdentity, _ configured: NodeConfiguration) throws(AgentError) {
        guard
            node.role == .agent, node.name == configured.name,
            node.cluster == ClusterID(configured.clusterID)
        else {
            throw AgentError(
                .configuration,
                "the certificate is of \(node), not of agent \(configured.name) in cluster \(configured.clusterID)"
            )
        }
    }

    private static func connect(
        _ endpoints: Endpoints,
        identity: TLSIdentity,
        connections: AgentConnections,
        eventLoop: any EventLoop,
        logger: Logger
    ) -> AgentPeers {
        func peer(_ name: String, _ endpoint: RPCEndpoint, _ role: Role) -> AgentPeer {
            let configuration = RPCClient.Configuration(
                endpoint: endpoint,
                identity: identity,
                expectedRole: role,
                seed: .random(in: 0 ... .max)
            )
            let client = RPCClientHandle.connect(on: eventLoop, configuration: configuration, logger: logger) { state in
                connections.changed(name, role, state)
            }
            return AgentPeer(name: name, client: client)
        }
        return AgentPeers(
            caches: endpoints.caches.map { peer("cache server \($0)", $0, .cache) },
            objects: Dictionary(
                uniqueKeysWithValues: endpoints.objects.map { server in
                    (server.id, peer("object server \(server.id)", server.endpoint, .objects))
                }
            )
        )
    }
}
