import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOEmbedded
import NIOHTTP1
import NIOPosix
import Testing

@testable import Observability

@Suite struct HealthServerTests {
    private let logger = Logger(label: "tests") { _ in SwiftLogNoOpLogHandler() }

    /// Sends one request through the handler and returns status and text.
    private func answer(
        _ uri: String,
        _ method: HTTPMethod = .GET,
        readiness: HealthReadiness = .ready,
        registry: MetricsRegistry = MetricsRegistry()
    ) throws -> (HTTPResponseStatus, String) {
        let channel = EmbeddedChannel(handler: HealthHandler(registry: registry) { readiness })
        try channel.writeInbound(
            HTTPServerRequestPart.head(HTTPRequestHead(version: .http1_1, method: method, uri: uri))
        )
        try channel.writeInbound(HTTPServerRequestPart.end(nil))
        var status = HTTPResponseStatus.internalServerError
        var text = ""
        while let part = try channel.readOutbound(as: HTTPServerResponsePart.self) {
            switch part {
            case .head(let head): status = head.status
            case .body(.byteBuffer(let bytes)): text += String(buffer: bytes)
            case .body, .end: break
            }
        }
        _ = try channel.finish()
        return (status, text)
    }

    @Test func paths() throws {
        let registry = MetricsRegistry()
        registry.counter("a").increment()
        #expect(try answer("/metrics", registry: registry) == (.ok, "# TYPE a counter\na 1\n"))
        #expect(try answer("/health/live", readiness: .notReady("x")) == (.ok, "live\n"))
        #expect(try answer("/health/ready?x=1") == (.ok, "ready\n"))
        #expect(
            try answer("/health/ready", readiness: .notReady("no owner")) == (
                .serviceUnavailable, "not ready: no owner\n"
            )
        )
        #expect(try answer("/other").0 == .notFound)
        #expect(try answer("/metrics", .POST).0 == .methodNotAllowed)
        #expect(try answer("/health/live", .HEAD) == (.ok, ""))
        #expect(try answer("/" + String(repeating: "x", count: 2_000)).0 == .uriTooLong)
    }

    @Test func servesOverASocketAndNamesThePortThatIsTaken() async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let server = try await HealthServer.start(
            listen: "127.0.0.1:0",
            group: group,
            registry: MetricsRegistry(),
            logger: logger
        ) { .ready }
        let (_, port) = try #require(HealthServer.hostAndPort(server.endpoint))
        #expect(port > 0)
        let received = NIOLockedValueBox("")
        // The request is sent from the event loop: this task may get its turn only when the connection was idle for too long.
        let request = ByteBuffer(string: "GET /health/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        let channel = try await ClientBootstrap(group: group)
            .channelInitializer { channel in
                channel.pipeline.addHandler(Collector(request: request, received: received))
            }
            .connect(host: "127.0.0.1", port: port).get()
        try await channel.closeFuture.get()
        let text = received.withLockedValue { $0 }
        #expect(text.hasPrefix("HTTP/1.1 200 OK\r\n"))
        #expect(text.hasSuffix("\r\n\r\nready\n"))
        await #expect(throws: HealthServerError.self) {
            _ = try await HealthServer.start(
                listen: server.endpoint,
                group: group,
                registry: MetricsRegistry(),
                logger: logger
            ) { .ready }
        }
        await server.shutdown()
    }

    @Test(arguments: ["", "127.0.0.1", ":80", "a:b", "a:70000", "1::2:80"])
    func addressesThatAreNone(text: String) {
        #expect(HealthServer.hostAndPort(text) == nil)
    }

    private final class Collector: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        let request: ByteBuffer
        let received: NIOLockedValueBox<String>

        init(request: ByteBuffer, received: NIOLockedValueBox<String>) {
            self.request = request
            self.received = received
        }

        func channelActive(context: ChannelHandlerContext) {
            context.writeAndFlush(wrapOutboundOut(request), promise: nil)
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let text = String(buffer: unwrapInboundIn(data))
            received.withLockedValue { $0 += text }
        }
    }
}
