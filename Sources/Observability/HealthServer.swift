public import Logging
import NIOConcurrencyHelpers
public import NIOCore
import NIOHTTP1
import NIOPosix

/// Whether a role can do its work now.
public enum HealthReadiness: Sendable, Hashable {
    /// It can.
    case ready
    /// It cannot, for this reason.
    case notReady(String)
}

/// Why the health endpoint could not be opened; a sentence with the remedy.
public struct HealthServerError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The sentence.
    public let description: String
}

/// The plain HTTP endpoint of every role: `/metrics`, `/health/live`, `/health/ready`.
///
/// It lives on the event loops of its role; a request costs what the text costs. Bodies of requests are ignored.
public final class HealthServer: Sendable {
    /// `address:port` that was bound.
    public let endpoint: String
    private let channel: any Channel

    private init(channel: any Channel, endpoint: String) {
        self.channel = channel
        self.endpoint = endpoint
    }

    /// Opens the endpoint.
    ///
    /// - Parameters:
    ///   - listen: `address:port`; port 0 for any.
    ///   - readiness: asked at each request for `/health/ready`, on an event loop: must not block.
    /// - Throws: ``HealthServerError``.
    public static func start(
        listen: String,
        group: any EventLoopGroup,
        registry: MetricsRegistry = .shared,
        logger: Logger,
        readiness: @escaping @Sendable () -> HealthReadiness
    ) async throws -> HealthServer {
        guard let (host, port) = hostAndPort(listen) else {
            throw HealthServerError(
                description: "metrics.listen \"\(listen)\" is not ADDRESS:PORT; give one such as 127.0.0.1:9100."
            )
        }
        let connections = ConnectionCount()
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.backlog, value: 16)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard connections.enter() else {
                        throw HealthServerError(description: "too many connections")
                    }
                    channel.closeFuture.whenComplete { _ in connections.leave() }
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
                    try pipeline.addHandler(
                        IdleStateHandler(allTimeout: .seconds(ObservabilityLimits.healthIdleSeconds))
                    )
                    try pipeline.addHandler(HealthHandler(registry: registry, readiness: readiness))
                }
            }
        do {
            let channel = try await bootstrap.bind(host: host, port: port).get()
            let bound = channel.localAddress?.port ?? port
            let endpoint = host.contains(":") ? "[\(host)]:\(bound)" : "\(host):\(bound)"
            logger.debug("health endpoint open", metadata: ["endpoint": "\(endpoint)"])
            return HealthServer(channel: channel, endpoint: endpoint)
        } catch {
            throw HealthServerError(
                description: "metrics.listen \(listen) cannot be opened (\(error)); choose another address or port."
            )
        }
    }

    /// Closes the endpoint to new connections; open ones end with their event loop or their idle time.
    public func shutdown() async {
        // The only way in which a close fails is that the channel is closed already.
        try? await channel.close()
    }

    /// The parts of `host:port`; `[v6]:port` as well.
    static func hostAndPort(_ text: String) -> (host: String, port: Int)? {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (0...65_535).contains(port)
        else { return nil }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = host.dropFirst().dropLast()
        } else if host.contains(":") {
            return nil
        }
        return host.isEmpty ? nil : (String(host), port)
    }
}

private final class ConnectionCount: Sendable {
    private let count = NIOLockedValueBox(0)

    func enter() -> Bool {
        count.withLockedValue {
            $0 += 1
            return $0 <= ObservabilityLimits.healthConnectionsMaximum
        }
    }

    func leave() { count.withLockedValue { $0 -= 1 } }
}

/// Answers the requests of one connection, which the pipeline hands over one at a time.
final class HealthHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let registry: MetricsRegistry
    private let readiness: @Sendable () -> HealthReadiness
    private var head: HTTPRequestHead?

    init(registry: MetricsRegistry, readiness: @escaping @Sendable () -> HealthReadiness) {
        self.registry = registry
        self.readiness = readiness
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): self.head = head
        case .body: break
        case .end:
            guard let head else { return }
            self.head = nil
            let (status, type, text) = answer(head)
            write(text, status: status, type: type, to: head, context: context)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent {
            context.close(promise: nil)
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }

    private func answer(_ head: HTTPRequestHead) -> (HTTPResponseStatus, String, String) {
        let plain = "text/plain; charset=utf-8"
        guard head.uri.utf8.count <= ObservabilityLimits.healthTargetMaximumBytes else {
            return (.uriTooLong, plain, "too long\n")
        }
        guard head.method == .GET || head.method == .HEAD else {
            return (.methodNotAllowed, plain, "only GET is served here\n")
        }
        switch head.uri.prefix(while: { $0 != "?" }) {
        case "/metrics":
            return (.ok, "text/plain; version=0.0.4; charset=utf-8", registry.exposition())
        case "/health/live":
            return (.ok, plain, "live\n")
        case "/health/ready":
            switch readiness() {
            case .ready: return (.ok, plain, "ready\n")
            case .notReady(let reason): return (.serviceUnavailable, plain, "not ready: \(reason)\n")
            }
        default:
            return (.notFound, plain, "served here: /metrics, /health/live, /health/ready\n")
        }
    }

    private func write(
        _ text: String,
        status: HTTPResponseStatus,
        type: String,
        to head: HTTPRequestHead,
        context: ChannelHandlerContext
    ) {
        let body = context.channel.allocator.buffer(string: text)
        var headers = HTTPHeaders()
        headers.add(name: "content-type", value: type)
        headers.add(name: "content-length", value: String(body.readableBytes))
        if !head.isKeepAlive { headers.add(name: "connection", value: "close") }
        let response = HTTPResponseHead(version: head.version, status: status, headers: headers)
        context.write(wrapOutboundOut(.head(response)), promise: nil)
        if head.method != .HEAD { context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        let context = NIOLoopBound(context, eventLoop: context.eventLoop)
        let done = context.value.writeAndFlush(wrapOutboundOut(.end(nil)))
        if !head.isKeepAlive { done.whenComplete { _ in context.value.close(promise: nil) } }
    }
}
