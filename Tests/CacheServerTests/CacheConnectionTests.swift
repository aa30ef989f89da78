import AshlarCore
import Foundation
import Logging
import NIOCore
import NIOPosix
import PostgresStore
import RPC
import Testing
import Transport

@testable import CacheServer

/// What a connection is told before and after the service is there.
@Suite struct CacheConnectionTests {
    private static let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    private let authority: CertificateAuthority
    /// One, as the cache server has: connections and service live on it.
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    init() throws {
        authority = try CertificateAuthority.create(cluster: ClusterID(high: 0xA5A5, low: 1), now: Date())
    }

    private func identity(_ role: Role) throws -> TLSIdentity {
        let node = try #require(NodeIdentity(cluster: authority.cluster, role: role, name: "node-1"))
        let issued = try authority.issue(CertificateRequest(node: node, validityDays: 30), now: Date())
        return try TLSIdentity(
            certificatePEM: issued.certificatePEM,
            keyPEM: issued.keyPEM,
            authorityPEM: authority.certificatePEM
        )
    }

    @Test("A target that is connected before the service is made is served once it is, on the same connection")
    func earlyConnection() async throws {
        let loop = group.next()
        let identity = try identity(.cache)
        let box = NIOLoopBoundBox<CacheService?>.makeEmptyBox(valueType: CacheService.self, eventLoop: loop)
        let server = try await RPCServer.start(
            RPCServer.Configuration(host: "127.0.0.1", port: 0, identity: identity, acceptedRoles: [.target]),
            group: group,
            logger: Self.logger,
            makeHandler: { _ in CacheConnection(service: box) }
        )
        let (states, changes) = AsyncStream<RPCClient.State>.makeStream()
        let client = RPCClientHandle.connect(
            on: loop,
            configuration: RPCClient.Configuration(
                endpoint: server.endpoint,
                identity: try self.identity(.target),
                expectedRole: .cache,
                seed: 1
            ),
            logger: Self.logger,
            onStateChange: { changes.yield($0) }
        )
        for await state in states { if case .connected = state { break } }
        func stamps() async throws -> Stamps.Answer {
            try await client.call(
                Stamps(volumes: [VolumeID(1)]),
                answer: Stamps.Answer.self,
                deadlineMilliseconds: 30_000
            ).0
        }
        await #expect { _ = try await stamps() } throws: { "\($0)".contains("the cache server is starting") }
        // It connects to PostgreSQL only when it is asked for something.
        let store = PostgresBlockStore(PostgresConfiguration(dsn: "host=127.0.0.1 port=1"), logger: Self.logger)
        try await loop.submit {
            box.value = try CacheService(
                loop: loop,
                configuration: CacheConfiguration(
                    node: NodeConfiguration(
                        name: "node-1",
                        clusterID: "",
                        certificatePath: "",
                        keyPath: "",
                        authorityPath: ""
                    ),
                    postgresDSN: "",
                    objectServers: [:]
                ),
                endpoint: "\(server.endpoint)",
                store: store,
                identity: identity,
                logger: Self.logger
            )
        }.get()
        #expect(try await stamps().stamps.count == 1)
        await client.close()
        await server.shutdown(drain: .milliseconds(200))
        try await loop.submit { box.value = nil }.get()
        store.shutdown()
        try await group.shutdownGracefully()
    }
}
