public import AshlarCore
public import Logging
public import NIOCore
import NIOPosix
import NIOSSL
public import RPC

/// One connection to one endpoint, made again whenever it ends.
///
/// - warning: Bound to `eventLoop`: it must be made, used and closed there. Other threads use ``RPCClientHandle``.
///
/// Invariants:
/// - The completion of a request is called exactly once, on the loop, never from inside `send`.
/// - `completions[slot]` belongs to the request that the machine holds in that slot.
/// - A request is never sent again by itself: its failure says whether it may have been executed; the caller decides.
public final class RPCClient {
    /// Whom a client connects to, and how.
    public struct Configuration: Sendable {
        /// Where the server listens.
        public var endpoint: RPCEndpoint
        /// This node's certificate.
        public var identity: TLSIdentity
        /// The role that the server must have.
        public var expectedRole: Role
        /// The name that the server must have; `nil` for any.
        public var expectedName: String?
        /// Begins the generator that spreads reconnects; different for every client.
        public var seed: UInt64
        /// How long TCP may take to connect.
        public var connectTimeout: TimeAmount = .milliseconds(TransportLimits.connectTimeoutMilliseconds)
        /// The shortest wait before connecting again; doubles with every failure.
        public var backoffMinimum: TimeAmount = .milliseconds(TransportLimits.backoffMinimumMilliseconds)
        /// The longest wait before connecting again.
        public var backoffMaximum: TimeAmount = .milliseconds(TransportLimits.backoffMaximumMilliseconds)
        /// What this client can do beyond the protocol's version.
        public var features: UInt64 = 0
        /// Protocol versions that this client speaks.
        public var versions: ClosedRange<UInt16> = RPCLimits.versionMinimum...RPCLimits.versionMaximum
        /// Changes the other bounds of a connection, where a test or a benchmark needs it.
        public var adjust: (@Sendable (inout RPCConnectionConfiguration) -> Void)?

        /// The standard bounds.
        public init(
            endpoint: RPCEndpoint,
            identity: TLSIdentity,
            expectedRole: Role,
            expectedName: String? = nil,
            seed: UInt64
        ) {
            self.endpoint = endpoint
            self.identity = identity
            self.expectedRole = expectedRole
            self.expectedName = expectedName
            self.seed = seed
        }

        func connection() -> RPCConnectionConfiguration {
            var configuration = RPCConnectionConfiguration(
                node: identity.node,
                side: .client(expectedRole: expectedRole, expectedName: expectedName)
            )
            configuration.versions = versions
            configuration.features = features
            adjust?(&configuration)
            return configuration
        }
    }

    /// What the connection is up to.
    public enum State: Sendable, Hashable, CustomStringConvertible {
        /// Not started.
        case idle
        /// Connecting, or shaking hands.
        case connecting
        /// Requests can be sent.
        case connected(RPCPeer)
        /// Without a connection, for this reason; will connect again after a while.
        case disconnected(reason: String)
        /// Closed for good.
        case closed

        /// The name of the state with its peer or reason.
        public var description: String {
            switch self {
            case .idle: "idle"
            case .connecting: "connecting"
            case .connected(let peer): "connected to \(peer)"
            case .disconnected(let reason): "disconnected: \(reason)"
            case .closed: "closed"
            }
        }
    }

    /// What a request ends in.
    public typealias Completion = (Result<RPCAnswer, RPCFailure>) -> Void

    /// A request that waits for a connection.
    private struct Kept {
        let type: RPCMessageType
        let body: ByteBuffer
        let payload: [ByteBuffer]
        let deadline: MonotonicTime?
        let completion: Completion
        var timer: Scheduled<Void>?
    }

    /// A request on the connection. In a structure, the closure is kept as it came: as an array's element it would be wrapped
    /// anew each time that it is put in and taken out.
    private struct Waiting {
        let completion: Completion
    }

    /// The loop that everything happens on.
    public let eventLoop: any EventLoop
    /// Whom this client connects to.
    public let configuration: Configuration
    /// What the connection is up to.
    public private(set) var state = State.idle
    private let logger: Logger
    private let onStateChange: ((State) -> Void)?
    private var channel: RPCChannelHandler?
    private var completions: [Waiting?] = []
    private var kept: [UInt64: Kept] = [:]
    private var keptSequence: UInt64 = 0
    private var jitter: SplitMix
    private var failures = 0
    private var attempt: UInt64 = 0
    private var reconnect: Scheduled<Void>?
    private var lastReason: String?

    /// A client that does not connect until ``start()``. To be made on `eventLoop`.
    ///
    /// - Parameter onStateChange: called on the loop, after `state` has changed.
    public init(
        eventLoop: any EventLoop,
        configuration: Configuration,
        logger: Logger,
        onStateChange: ((State) -> Void)? = nil
    ) {
        eventLoop.preconditionInEventLoop()
        self.eventLoop = eventLoop
        self.configuration = configuration
        self.onStateChange = onStateChange
        jitter = SplitMix(state: configuration.seed)
        var logger = logger
        logger[metadataKey: "endpoint"] = "\(configuration.endpoint)"
        self.logger = logger
    }

    /// Whether a request would be sent now.
    public var isConnected: Bool { channel?.canSendRequests ?? false }

    /// Requests on the connection that have no answer yet.
    public var requestsInFlight: Int { channel?.machine.requestsInFlight ?? 0 }

    /// Bytes of requests that wait for the peer's credit.
    public var waitingBytes: Int { channel?.machine.waitingBytes ?? 0 }

    /// This client for any thread.
    public var handle: RPCClientHandle { RPCClientHandle(self) }

    // MARK: - Life

    /// Connects, and again whenever the connection ends, until ``close()``.
    public func start() {
        eventLoop.preconditionInEventLoop()
        guard state == .idle else { return }
        connect()
    }

    /// Closes for good. What is in flight fails, on this turn of the loop.
    public func close() {
        eventLoop.preconditionInEventLoop()
        guard state != .closed else { return }
        reconnect?.cancel()
        reconnect = nil
        attempt += 1
        change(.closed)
        channel?.close(RPCCloseReason(.none, "client closed"))
        channel = nil
        failKept("client closed")
    }

    /// Connects at once where the client waits to connect again.
    public func reconnectNow() {
        eventLoop.preconditionInEventLoop()
        guard let task = reconnect else { return }
        task.cancel()
        reconnect = nil
        connect()
    }

    private func change(_ next: State) {
        guard state != next else { return }
        state = next
        onStateChange?(next)
    }

    private func connect() {
        attempt += 1
        let attempt = attempt
        change(.connecting)
        guard state == .connecting else { return }
        let identity = configuration.identity
        let connection = configuration.connection()
        ClientBootstrap(group: eventLoop)
            .connectTimeout(configuration.connectTimeout)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try Self.initialize(channel, identity, connection) }
            }
            .connect(host: configuration.endpoint.host, port: configuration.endpoint.port)
            .assumeIsolated()
            .whenComplete { result in
                switch result {
                case .success(let channel):
                    self.connected(channel, attempt: attempt)
                case .failure(let error):
                    guard self.attempt == attempt else { return }
                    self.disconnected(ConnectionErrorText.text(of: error))
                }
            }
    }

    private static func initialize(
        _ channel: any Channel,
        _ identity: TLSIdentity,
        _ configuration: RPCConnectionConfiguration
    ) throws {
        let tls = try NIOSSLClientHandler(context: identity.clientContext, serverHostname: nil)
        let handler = RPCChannelHandler(
            configuration,
            tickInterval: .nanoseconds(Int64(RPCLimits.tickNanoseconds))
        )
        try channel.pipeline.syncOperations.addHandlers(tls, handler)
    }

    /// Of several addresses of the endpoint, one has won.
    private func connected(_ channel: any Channel, attempt: UInt64) {
        guard self.attempt == attempt else {
            channel.close(promise: nil)
            return
        }
        do {
            let handler = try channel.pipeline.syncOperations.handler(type: RPCChannelHandler.self)
            self.channel = handler
            if let reason = handler.adopt(by: self) { connectionClosed(reason) }
        } catch {
            channel.close(promise: nil)
            disconnected("connection ended at once")
        }
    }

    private func disconnected(_ reason: String) {
        attempt += 1
        channel = nil
        guard state != .closed else { return }
        let exponent = min(failures, 16)
        failures += 1
        let ceiling = min(
            configuration.backoffMaximum.nanoseconds,
            configuration.backoffMinimum.nanoseconds << Int64(exponent)
        )
        let delay = TimeAmount.nanoseconds(ceiling / 2 + Int64(jitter.next() % UInt64(max(1, ceiling / 2))))
        let level: Logger.Level = reason == lastReason ? .debug : .warning
        logger.log(
            level: level,
            "RPC connection not available",
            metadata: ["reason": "\(reason)", "retry-ms": "\(delay.nanoseconds / 1_000_000)"]
        )
        lastReason = reason
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        reconnect = eventLoop.scheduleTask(in: delay) {
            bound.value.reconnect = nil
            bound.value.connect()
        }
        change(.disconnected(reason: reason))
    }

    // MARK: - Sending

    /// Sends a request.
    ///
    /// - Parameters:
    ///   - message: the request's fields.
    ///   - payload: what follows the message, in order. Large buffers are not copied.
    ///   - deadlineMilliseconds: after so long without an answer the request fails; 0 for never.
    ///   - waitsForConnection: without a connection the request is kept, up to a bound, instead of failing at once.
    ///   - completion: called exactly once, on the loop, never from inside this call. The bytes of the answer count
    ///     against the window until it returns.
    @inlinable
    public func send<M: RPCMessage>(
        _ message: M,
        payload: [ByteBuffer] = [],
        deadlineMilliseconds: UInt32,
        waitsForConnection: Bool = false,
        completion: @escaping Completion
    ) {
        send(
            type: M.type,
            payload: payload,
            deadlineMilliseconds: deadlineMilliseconds,
            waitsForConnection: waitsForConnection,
            completion: completion
        ) { message.encode(into: &$0) }
    }

    /// Sends a request whose body is made already; otherwise as the other `send`.
    public func send(
        type: RPCMessageType,
        body: ByteBuffer,
        payload: [ByteBuffer] = [],
        deadlineMilliseconds: UInt32,
        waitsForConnection: Bool = false,
        completion: @escaping Completion
    ) {
        send(
            type: type,
            payload: payload,
            deadlineMilliseconds: deadlineMilliseconds,
            waitsForConnection: waitsForConnection,
            completion: completion
        ) { $0.writeImmutableBuffer(body) }
    }

    @usableFromInline
    func send(
        type: RPCMessageType,
        payload: [ByteBuffer],
        deadlineMilliseconds: UInt32,
        waitsForConnection: Bool,
        completion: @escaping Completion,
        encode: (inout ByteBuffer) -> Void
    ) {
        eventLoop.assertInEventLoop()
        precondition(type.belongsToApplication, "types below 0x10 belong to the connection")
        let deadline: MonotonicTime? =
            deadlineMilliseconds == 0
            ? nil : RPCClock.now.advanced(byNanoseconds: UInt64(deadlineMilliseconds) * 1_000_000)
        guard let channel, channel.canSendRequests else {
            guard waitsForConnection, state != .closed else {
                fail(completion, RPCFailure(.notSent, mayHaveExecuted: false, "not connected: \(state)"))
                return
            }
            var body = ByteBuffer()
            encode(&body)
            keep(Kept(type: type, body: body, payload: payload, deadline: deadline, completion: completion))
            return
        }
        send(on: channel, type: type, payload: payload, deadline: deadline, completion: completion, encode: encode)
    }

    private func send(
        on channel: RPCChannelHandler,
        type: RPCMessageType,
        payload: [ByteBuffer],
        deadline: MonotonicTime?,
        completion: @escaping Completion,
        encode: (inout ByteBuffer) -> Void
    ) {
        do {
            let id = try channel.sendRequest(type: type, deadline: deadline, payload: payload, encode: encode)
            while completions.count <= id.slot { completions.append(nil) }
            completions[id.slot] = Waiting(completion: completion)
        } catch {
            fail(completion, error)
        }
    }

    /// Sends what was written. Without it that happens at the end of the loop's turn.
    public func flush() {
        eventLoop.assertInEventLoop()
        channel?.flushNow()
    }

    /// Not from inside the caller's call: it may be in the middle of something.
    private func fail(_ completion: @escaping Completion, _ failure: RPCFailure) {
        eventLoop.assumeIsolated().execute { completion(.failure(failure)) }
    }

    // MARK: - Waiting for a connection

    private func keep(_ request: Kept) {
        guard kept.count < TransportLimits.requestsWaitingForConnectionMaximum else {
            fail(
                request.completion,
                RPCFailure(.notSent, mayHaveExecuted: false, "busy: \(kept.count) requests wait for a connection")
            )
            return
        }
        var request = request
        keptSequence += 1
        let sequence = keptSequence
        if let deadline = request.deadline {
            let bound = NIOLoopBound(self, eventLoop: eventLoop)
            request.timer = eventLoop.scheduleTask(deadline: .uptimeNanoseconds(deadline.rawValue)) {
                let client = bound.value
                let reason = "not connected in time: \(client.state)"
                client.kept.removeValue(forKey: sequence)?
                    .completion(.failure(RPCFailure(.deadline, mayHaveExecuted: false, reason)))
            }
        }
        kept[sequence] = request
    }

    private func sendKept() {
        guard let channel else { return }
        let requests = kept.sorted { $0.key < $1.key }.map(\.value)
        kept = [:]
        for request in requests {
            request.timer?.cancel()
            send(
                on: channel,
                type: request.type,
                payload: request.payload,
                deadline: request.deadline,
                completion: request.completion
            ) { $0.writeImmutableBuffer(request.body) }
        }
    }

    private func failKept(_ reason: String) {
        let requests = kept.sorted { $0.key < $1.key }.map(\.value)
        kept = [:]
        for request in requests {
            request.timer?.cancel()
            request.completion(.failure(RPCFailure(.notSent, mayHaveExecuted: false, reason)))
        }
    }
}

extension RPCClient: RPCChannelDelegate {
    func connectionEstablished(_ remote: RPCRemote) {
        guard let channel, state != .closed else { return }
        failures = 0
        lastReason = nil
        let peer = RPCPeer(remote, address: channel.remoteAddress)
        logger.info("RPC connected", metadata: ["peer": "\(peer)", "version": "\(peer.version)"])
        change(.connected(peer))
        sendKept()
    }

    func requestReceived(_ request: RPCRequest) {
        let error = RPCError(.unsupported, "a client takes no requests")
        channel?.respond(to: request.handle, status: error.status, payload: []) { error.encode(into: &$0) }
    }

    func answerReceived(_ id: RPCRequestID, _ answer: RPCAnswer) {
        take(id)?.completion(.success(answer))
    }

    func requestsFailed(_ requests: [RPCRequestID], _ failure: RPCFailure) {
        for id in requests { take(id)?.completion(.failure(failure)) }
    }

    private func take(_ id: RPCRequestID) -> Waiting? {
        guard completions.indices.contains(id.slot) else { return nil }
        let waiting = completions[id.slot]
        completions[id.slot] = nil
        return waiting
    }

    func connectionDraining(_ reason: RPCCloseReason) {
        logger.info("RPC peer drains", metadata: ["reason": "\(reason)"])
    }

    func readCompleted() {}

    func connectionClosed(_ reason: RPCCloseReason) {
        channel = nil
        disconnected(reason.description)
    }
}

/// Spreads reconnects; the same seed gives the same waits (SplitMix64).
struct SplitMix {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}
