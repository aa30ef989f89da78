import AshlarCore
import Foundation
import NIOCore
import Testing

@testable import RPC

let testCluster = ClusterID(high: 0x0011_2233_4455_6677, low: 0x8899_AABB_CCDD_EEFF)

func node(_ role: Role, _ name: String, cluster: ClusterID = testCluster) throws -> NodeIdentity {
    try #require(NodeIdentity(cluster: cluster, role: role, name: name))
}

/// The bytes of a file of `proto/vectors`.
func vector(_ name: String) throws -> ByteBuffer {
    let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let file = root.appendingPathComponent("proto/vectors/\(name).hex")
    let text = try String(contentsOf: file, encoding: .utf8)
    var bytes = ByteBuffer()
    for line in text.split(separator: "\n") {
        for digits in line.prefix(while: { $0 != "#" }).split(separator: " ") {
            bytes.writeInteger(try #require(UInt8(digits, radix: 16)))
        }
    }
    return bytes
}

func bytes(_ frame: RPCOutboundFrame) -> ByteBuffer {
    var buffer = ByteBuffer()
    frame.header.encode(into: &buffer)
    buffer.writeImmutableBuffer(frame.body)
    for piece in frame.payload { buffer.writeImmutableBuffer(piece) }
    return buffer
}

func arrived(_ frame: RPCOutboundFrame) -> RPCFrame {
    var body = frame.body
    for piece in frame.payload { body.writeImmutableBuffer(piece) }
    return RPCFrame(header: frame.header, body: body)
}

/// A frame of the application as a peer might send it.
func frame(
    type: RPCMessageType = RPCMessageType(0x10),
    flags: UInt16 = 0,
    id: UInt64,
    word: UInt32 = 0,
    credit: UInt32 = 0,
    body: ByteBuffer = ByteBuffer()
) -> RPCFrame {
    RPCFrame(
        header: RPCFrameHeader(
            length: UInt32(RPCFrameHeader.byteCount + body.readableBytes),
            type: type,
            flags: flags,
            id: id,
            word: word,
            credit: credit
        ),
        body: body
    )
}

extension MonotonicTime {
    static func milliseconds(_ value: UInt64) -> MonotonicTime { MonotonicTime(value * 1_000_000) }
}

/// Small bounds, so that tests reach them.
func configuration(
    _ side: RPCConnectionConfiguration.Side,
    _ node: NodeIdentity
) -> RPCConnectionConfiguration {
    var configuration = RPCConnectionConfiguration(node: node, side: side)
    configuration.windowBytes = 8_192
    configuration.frameMaximumBytes = 2_048
    configuration.requestsInFlightMaximum = 16
    configuration.waitingRequestBytesMaximum = 16_384
    configuration.waitingAnswerBytesHighWater = 4_096
    configuration.waitingAnswerBytesMaximum = 65_536
    return configuration
}

/// A machine in a box: the macros of the test library take no values that cannot be copied.
final class End {
    private var machine: RPCConnectionStateMachine

    init(_ configuration: RPCConnectionConfiguration) { machine = RPCConnectionStateMachine(configuration) }

    var isEstablished: Bool { machine.isEstablished }
    var isClosed: Bool { machine.isClosed }
    var isDrained: Bool { machine.isDrained }
    var canSendRequests: Bool { machine.canSendRequests }
    var requestsInFlight: Int { machine.requestsInFlight }
    var requestsToAnswer: Int { machine.requestsToAnswer }
    var sendWindowBytes: Int { machine.sendWindowBytes }
    var receiveWindowBytes: Int { machine.receiveWindowBytes }
    var waitingBytes: Int { machine.waitingBytes }

    func start(now: MonotonicTime) { machine.start(now: now) }
    func peerCertified(_ identity: NodeIdentity?) { machine.peerCertified(identity) }
    func nextFrame(now: MonotonicTime) -> RPCOutboundFrame? { machine.nextFrame(now: now) }
    func tick(now: MonotonicTime) -> RPCConnectionStateMachine.TickAction { machine.tick(now: now) }
    func drain() { machine.drain() }
    func closed() -> [(id: RPCRequestID, mayHaveExecuted: Bool)] { machine.closed() }
    func answerFinished(frameBytes: Int) { machine.answerFinished(frameBytes: frameBytes) }
    func nextParkedRequest() -> RPCRequest? { machine.nextParkedRequest() }
    func fitsFrame(_ bytes: Int) -> Bool { machine.fitsFrame(bytes) }

    func refusePeer(_ reason: RPCCloseReason) -> RPCConnectionStateMachine.ReceiveAction {
        machine.refusePeer(reason)
    }

    func received(_ frame: RPCFrame, now: MonotonicTime) -> RPCConnectionStateMachine.ReceiveAction {
        machine.received(frame, now: now)
    }

    func beginRequest(
        type: RPCMessageType,
        deadline: MonotonicTime?,
        now: MonotonicTime
    ) throws(RPCFailure) -> RPCRequestID {
        try machine.beginRequest(type: type, deadline: deadline, now: now)
    }

    func requestEncoded(
        _ id: RPCRequestID,
        frameBytes: Int,
        now: MonotonicTime
    ) -> RPCConnectionStateMachine.Admission {
        machine.requestEncoded(id, frameBytes: frameBytes, now: now)
    }

    func wait(_ id: RPCRequestID, body: ByteBuffer, payload: [ByteBuffer]) {
        machine.wait(id, body: body, payload: payload)
    }

    func answerEncoded(
        _ handle: RPCRequestHandle,
        status: RPCStatus,
        frameBytes: Int,
        now: MonotonicTime
    ) -> RPCConnectionStateMachine.Admission {
        machine.answerEncoded(handle, status: status, frameBytes: frameBytes, now: now)
    }

    func wait(_ handle: RPCRequestHandle, status: RPCStatus, body: ByteBuffer, payload: [ByteBuffer]) {
        machine.wait(handle, status: status, body: body, payload: payload)
    }
}

/// Two machines back to back.
final class Pair {
    let client: End
    let server: End
    let now = MonotonicTime.milliseconds(1)

    init(
        adjustClient: (inout RPCConnectionConfiguration) -> Void = { _ in },
        adjustServer: (inout RPCConnectionConfiguration) -> Void = { _ in }
    ) throws {
        let clientNode = try node(.target, "target-1")
        let serverNode = try node(.cache, "cache-1")
        var clientSide = configuration(.client(expectedRole: .cache, expectedName: nil), clientNode)
        var serverSide = configuration(.server(acceptedRoles: [.target, .agent]), serverNode)
        adjustClient(&clientSide)
        adjustServer(&serverSide)
        client = End(clientSide)
        server = End(serverSide)
        client.peerCertified(serverSide.node)
        server.peerCertified(clientSide.node)
        client.start(now: now)
        server.start(now: now)
    }

    /// Runs the handshake.
    func establish() throws {
        let hello = try #require(client.nextFrame(now: now))
        guard case .established = server.received(arrived(hello), now: now) else {
            throw Failure("server has not accepted")
        }
        let answer = try #require(server.nextFrame(now: now))
        guard case .established = client.received(arrived(answer), now: now) else {
            throw Failure("client has not accepted")
        }
    }

    /// A request that is written at once, as it arrives.
    func request(_ bodyBytes: Int = 0, deadline: MonotonicTime? = nil) throws -> RPCFrame {
        let id = try client.beginRequest(type: RPCMessageType(0x10), deadline: deadline, now: now)
        let length = RPCFrameHeader.byteCount + bodyBytes
        guard case .write(let header) = client.requestEncoded(id, frameBytes: length, now: now) else {
            throw Failure("request was not to be written")
        }
        return RPCFrame(header: header, body: ByteBuffer(repeating: 7, count: bodyBytes))
    }

    /// Hands a request to the server's application.
    func deliver(_ frame: RPCFrame) throws -> RPCRequest {
        guard case .request(let request) = server.received(frame, now: now) else {
            throw Failure("request was not delivered")
        }
        return request
    }

    /// An answer that is written at once, as it arrives.
    func answer(_ request: RPCRequest, _ bodyBytes: Int = 0) throws -> RPCFrame {
        let length = RPCFrameHeader.byteCount + bodyBytes
        guard
            case .write(let header) = server.answerEncoded(request.handle, status: .ok, frameBytes: length, now: now)
        else { throw Failure("answer was not to be written") }
        return RPCFrame(header: header, body: ByteBuffer(repeating: 8, count: bodyBytes))
    }
}

struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
