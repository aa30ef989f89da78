import AshlarCore
import Foundation
import NIOCore
import NIOPosix
import NIOSSL
import RPC
import Testing

@testable import Transport

/// Who must not get in does not, and both ends say why.
@Suite(.timeLimit(.minutes(2)))
struct RefusalTests {
    /// Both ends' reasons when `client` connects to `server`.
    private func reasons(
        server identity: TLSIdentity,
        client clientIdentity: TLSIdentity,
        expecting role: Role = .cache,
        accepting roles: Set<Role> = [.target],
        configure: (inout RPCClient.Configuration) -> Void = { _ in }
    ) async throws -> (server: String, client: String) {
        let server = try await TestServer.start(identity, accepting: roles)
        let client = TestClient(clientIdentity, to: server.server.endpoint, expecting: role, configure: configure)
        let clientReason = try await client.disconnection()
        let serverReason = try await server.refusal()
        let failure = try await #require(throws: RPCFailure.self) {
            try await client.call(1, deadlineMilliseconds: 50)
        }
        #expect(!failure.mayHaveExecuted)
        await client.handle.close()
        await server.stop()
        return (serverReason, clientReason)
    }

    @Test func roleThatMayNotConnect() async throws {
        let cluster = try TestCluster()
        let reasons = try await reasons(server: cluster.identity(.cache), client: cluster.identity(.objects))
        for reason in [reasons.server, reasons.client] {
            #expect(reason.contains("wrong role"), "\(reason)")
            #expect(reason.contains("objects"), "\(reason)")
        }
        #expect(reasons.client.contains("peer says"), "\(reasons.client)")
    }

    @Test func serverOfAnotherRole() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.objects))
        let client = TestClient(try cluster.identity(.target), to: server.server.endpoint, expecting: .cache)
        let reason = try await client.disconnection()
        #expect(reason.contains("wrong role: expected role cache, peer is objects"), "\(reason)")
        let closed = try await server.events.first { event in
            if case .closed(_, let reason) = event { reason } else { nil }
        }
        #expect(closed.contains("peer says: wrong role"), "\(closed)")
        await client.handle.close()
        await server.stop()
    }

    @Test func serverOfAnotherName() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.objects, "objects-1"))
        let client = TestClient(try cluster.identity(.target), to: server.server.endpoint, expecting: .objects) {
            $0.expectedName = "objects-2"
        }
        let reason = try await client.disconnection()
        #expect(reason.contains("expected node objects-2, peer is objects-1"), "\(reason)")
        await client.handle.close()
        await server.stop()
    }

    @Test func anotherCluster() async throws {
        let reasons = try await reasons(
            server: TestCluster(1).identity(.cache),
            client: TestCluster(2).identity(.target)
        )
        // The client's verification fails first: the server hears of it by an alert.
        #expect(reasons.client.contains("not of this cluster's authority"), "\(reasons.client)")
        #expect(reasons.server.contains("TLS"), "\(reasons.server)")
        #expect(reasons.server.contains("peer does not"), "\(reasons.server)")
    }

    @Test func expiredClientCertificate() async throws {
        let cluster = try TestCluster()
        let longAgo = TestCluster.present.addingTimeInterval(-90 * 86_400)
        let reasons = try await reasons(
            server: cluster.identity(.cache),
            client: cluster.identity(.target, now: longAgo)
        )
        #expect(reasons.client.contains("has expired"), "\(reasons.client)")
        #expect(reasons.server.contains("not accepted: expired"), "\(reasons.server)")
    }

    @Test func expiredServerCertificate() async throws {
        let cluster = try TestCluster()
        let longAgo = TestCluster.present.addingTimeInterval(-90 * 86_400)
        let reasons = try await reasons(
            server: cluster.identity(.cache, now: longAgo),
            client: cluster.identity(.target)
        )
        #expect(reasons.client.contains("not accepted: expired"), "\(reasons.client)")
        #expect(reasons.server.contains("has expired"), "\(reasons.server)")
    }

    @Test func noCommonVersion() async throws {
        let cluster = try TestCluster()
        let reasons = try await reasons(server: cluster.identity(.cache), client: cluster.identity(.target)) {
            $0.versions = 2...3
        }
        for reason in [reasons.server, reasons.client] {
            #expect(reason.contains("no common version: peer speaks 2 to 3, cache speaks 1 to 1"), "\(reason)")
        }
    }

    @Test func helloThatBeliesTheCertificate() async throws {
        let cluster = try TestCluster()
        let other = try cluster.node(.target, "somebody-else")
        let reasons = try await reasons(server: cluster.identity(.cache), client: cluster.identity(.target)) {
            $0.adjust = { $0.node = other }
        }
        for reason in [reasons.server, reasons.client] {
            #expect(reason.contains("identity mismatch"), "\(reason)")
        }
    }

    @Test func plainText() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.cache))
        for text in ["GET / HTTP/1.1\r\n\r\n", "\u{0}\u{0}\u{0}\u{30}\u{0}\u{1}\u{0}\u{0}plain frame without TLS"] {
            let received = Recorder<Int>()
            let channel = try await connect(server.server.endpoint, received: received)
            try await channel.writeAndFlush(ByteBuffer(string: text)).get()
            try await channel.closeFuture.get()
        }
        try await eventually { server.events.all.count == 2 }
        let reasons = server.events.all.compactMap { event in
            if case .refused(_, let reason) = event { reason } else { nil }
        }
        #expect(reasons.contains { $0.contains("plain HTTP") }, "\(reasons)")
        #expect(reasons.contains { $0.contains("does not speak TLS") }, "\(reasons)")
        await server.stop()
    }

    @Test func tls12Client() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.cache))
        let issued = try cluster.authority.issue(
            CertificateRequest(node: cluster.node(.target)),
            now: TestCluster.present
        )
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.maximumTLSVersion = .tlsv12
        tls.certificateVerification = .none
        tls.certificateChain = [
            .certificate(try NIOSSLCertificate(bytes: Array(issued.certificatePEM.utf8), format: .pem))
        ]
        tls.privateKey = .privateKey(try NIOSSLPrivateKey(bytes: Array(issued.keyPEM.utf8), format: .pem))
        let context = try NIOSSLContext(configuration: tls)
        let received = Recorder<Int>()
        let channel = try await connect(server.server.endpoint, received: received, context: context)
        try await channel.closeFuture.get()
        let reason = try await server.refusal()
        #expect(reason.contains("TLS 1.3"), "\(reason)")
        #expect(received.all.isEmpty)
        await server.stop()
    }

    @Test func clientWithoutCertificate() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.cache))
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv13
        tls.certificateVerification = .none
        let context = try NIOSSLContext(configuration: tls)
        let channel = try await connect(server.server.endpoint, received: Recorder<Int>(), context: context)
        try await channel.closeFuture.get()
        let reason = try await server.refusal()
        #expect(reason.contains("no certificate"), "\(reason)")
        await server.stop()
    }

    @Test func silentClientIsRefusedInTime() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.cache)) {
            $0.adjust = { $0.handshakeTimeoutNanoseconds = 100_000_000 }
        }
        let channel = try await connect(server.server.endpoint, received: Recorder<Int>())
        try await channel.closeFuture.get()
        #expect(try await server.refusal().contains("handshake timeout"))
        await server.stop()
    }

    private func connect(
        _ endpoint: RPCEndpoint,
        received: Recorder<Int>,
        context: NIOSSLContext? = nil
    ) async throws -> any Channel {
        try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let context {
                        try channel.pipeline.syncOperations.addHandler(
                            NIOSSLClientHandler(context: context, serverHostname: nil)
                        )
                    }
                    try channel.pipeline.syncOperations.addHandler(Sink(received))
                }
            }
            .connect(host: endpoint.host, port: endpoint.port)
            .get()
    }
}

/// Counts bytes, closes on errors.
private final class Sink: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let received: Recorder<Int>

    init(_ received: Recorder<Int>) { self.received = received }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        received.record(unwrapInboundIn(data).readableBytes)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
