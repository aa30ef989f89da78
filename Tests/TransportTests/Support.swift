import AshlarCore
import Foundation
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import RPC
import Testing

@testable import Transport

/// A request and its answer: a number, and whatever payload follows.
struct Number: RPCMessage, Equatable {
    static let type = RPCMessageType(0x7F01)
    var value: UInt64

    init(_ value: UInt64) { self.value = value }

    func encode(into buffer: inout ByteBuffer) { buffer.writeRPC(value) }

    init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { value = try buffer.readRPC() }
}

let quietLogger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// Answers with the same number and payload. Keeps what it is told to keep.
final class EchoHandler: RPCConnectionHandler {
    /// Requests with this number are never answered.
    static let unanswered: UInt64 = 404
    /// Requests with this number get an error.
    static let failing: UInt64 = 500
    /// Requests with this number are answered when the next one comes.
    static let late: UInt64 = 1_000
    private var kept: [RPCRequestHandle] = []
    /// The numbers that came.
    private let received: Recorder<UInt64>?

    init(received: Recorder<UInt64>? = nil) { self.received = received }

    func requestReceived(_ request: RPCRequest, connection: RPCServerConnection) {
        var body = request.body
        guard let number = try? Number(decoding: &body) else {
            connection.respond(to: request.handle, error: RPCError(.invalidMessage, "no number"))
            return
        }
        received?.record(number.value)
        switch number.value {
        case Self.unanswered:
            return
        case Self.failing:
            let error = RPCError.wrongEpoch(current: Epoch(7), owner: "cache-2:7401", "another epoch")
            connection.respond(to: request.handle, error: error)
        case Self.late:
            kept.append(request.handle)
        default:
            for handle in kept { connection.respond(to: handle, Number(Self.late)) }
            kept = []
            connection.respond(to: request.handle, number, payload: [body])
        }
    }

    func readCompleted(connection: RPCServerConnection) {}

    func connectionClosed(connection: RPCServerConnection) { kept = [] }
}

/// Everything that happened, for tests that wait for it.
final class Recorder<Value: Sendable>: Sendable {
    private let values = NIOLockedValueBox<[Value]>([])

    func record(_ value: Value) { values.withLockedValue { $0.append(value) } }

    var all: [Value] { values.withLockedValue { $0 } }

    /// Waits until a value fits, at most ten seconds.
    func first<Result>(_ transform: (Value) -> Result?) async throws -> Result {
        for _ in 0..<5_000 {
            if let found = all.lazy.compactMap(transform).first { return found }
            try await Task.sleep(nanoseconds: 2_000_000)
        }
        throw TransportError(.configuration, "nothing fits among \(all)")
    }
}

/// Waits until a condition holds, at most ten seconds.
func eventually(_ condition: () async throws -> Bool) async throws {
    for _ in 0..<5_000 {
        if try await condition() { return }
        try await Task.sleep(nanoseconds: 2_000_000)
    }
    throw TransportError(.configuration, "condition has not come true")
}

/// A cluster's authority and what it issues.
struct TestCluster {
    static let present = Date()
    let authority: CertificateAuthority

    init(_ number: UInt64 = 1) throws {
        authority = try CertificateAuthority.create(
            cluster: ClusterID(high: 0xA5A5, low: number),
            now: Self.present
        )
    }

    func node(_ role: Role, _ name: String = "node-1") throws -> NodeIdentity {
        try #require(NodeIdentity(cluster: authority.cluster, role: role, name: name))
    }

    func identity(_ role: Role, _ name: String = "node-1", now: Date = Self.present) throws -> TLSIdentity {
        let issued = try authority.issue(CertificateRequest(node: node(role, name), validityDays: 30), now: now)
        return try TLSIdentity(
            certificatePEM: issued.certificatePEM,
            keyPEM: issued.keyPEM,
            authorityPEM: authority.certificatePEM
        )
    }
}

/// A server on a free port of the loopback, and its events.
struct TestServer {
    let server: RPCServer
    let events: Recorder<RPCServer.Event>
    /// The numbers that its connections got.
    let received: Recorder<UInt64>

    static func start(
        _ identity: TLSIdentity,
        accepting roles: Set<Role> = [.target],
        port: Int = 0,
        configure: (inout RPCServer.Configuration) -> Void = { _ in }
    ) async throws -> TestServer {
        var configuration = RPCServer.Configuration(
            host: "127.0.0.1",
            port: port,
            identity: identity,
            acceptedRoles: roles
        )
        configure(&configuration)
        let events = Recorder<RPCServer.Event>()
        let received = Recorder<UInt64>()
        let server = try await RPCServer.start(
            configuration,
            group: MultiThreadedEventLoopGroup.singleton,
            logger: quietLogger,
            onEvent: { events.record($0) },
            makeHandler: { _ in EchoHandler(received: received) }
        )
        return TestServer(server: server, events: events, received: received)
    }

    func refusal() async throws -> String {
        try await events.first { event in
            if case .refused(_, let reason) = event { reason } else { nil }
        }
    }

    func stop() async { await server.shutdown(drain: .milliseconds(200)) }
}

/// A client and its states.
struct TestClient {
    let handle: RPCClientHandle
    let states: Recorder<RPCClient.State>

    init(
        _ identity: TLSIdentity,
        to endpoint: RPCEndpoint,
        expecting role: Role = .cache,
        configure: (inout RPCClient.Configuration) -> Void = { _ in }
    ) {
        var configuration = RPCClient.Configuration(
            endpoint: endpoint,
            identity: identity,
            expectedRole: role,
            seed: 1
        )
        configuration.backoffMinimum = .milliseconds(5)
        configuration.backoffMaximum = .milliseconds(20)
        configure(&configuration)
        let states = Recorder<RPCClient.State>()
        self.states = states
        handle = RPCClientHandle.connect(
            on: MultiThreadedEventLoopGroup.singleton.next(),
            configuration: configuration,
            logger: quietLogger,
            onStateChange: { states.record($0) }
        )
    }

    func call(_ value: UInt64, deadlineMilliseconds: UInt32 = 10_000) async throws -> UInt64 {
        try await handle.call(Number(value), answer: Number.self, deadlineMilliseconds: deadlineMilliseconds).0.value
    }

    func disconnection() async throws -> String {
        try await states.first { state in
            if case .disconnected(let reason) = state { reason } else { nil }
        }
    }
}
