import AshlarCore
import NIOCore
import RPC

let rpcBenchmarks = [
    Benchmark("rpc/decode-frame", counted: 8_192) {
        let bytes = frameBytes(WriteCommand.type, body(of: writeCommand), payload: block)
        var decoder = RPCFrameDecoder(frameMaximumBytes: Limits.frameMaximumBytes)
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations {
                decoder.append(bytes)
                guard let frame = try decoder.next(windowBytes: 1 << 20) else {
                    throw BenchmarkFailure("a frame is not cut")
                }
                sum &+= UInt64(frame.body.readableBytes)
            }
            return sum
        }
    },
    Benchmark("rpc/encode-write", counted: 8_192) {
        let message = writeCommand
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations { sum &+= UInt64(body(of: message).readableBytes) }
            return sum
        }
    },
    Benchmark("rpc/decode-write", counted: 8_192) {
        let bytes = body(of: writeCommand)
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations {
                var rest = bytes
                sum &+= try WriteCommand(decoding: &rest).offset
            }
            return sum
        }
    },
    Benchmark("rpc/encode-read-answer", counted: 8_192) {
        let message = readAnswer
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations { sum &+= UInt64(body(of: message).readableBytes) }
            return sum
        }
    },
    Benchmark("rpc/decode-read-answer", counted: 8_192) {
        let bytes = body(of: readAnswer)
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations {
                var rest = bytes
                sum &+= UInt64(try ReadCommand.Answer(decoding: &rest).runs.count)
            }
            return sum
        }
    },
    // A write leaves one end, arrives at the other, is answered, and the answer arrives: both ends of a connection, without TLS.
    Benchmark("rpc/exchange-write", counted: 4_096) {
        let connection = try ConnectedEnds()
        return { try connection.exchange($0) }
    },
]

private let stamp = Stamp(epoch: Epoch(3), time: MonotonicTime(1_000_000_000))

private let writeCommand = WriteCommand(
    header: CommandHeader(
        volume: VolumeID(1),
        nexus: NexusNumber(2),
        command: CommandID(1_000),
        lowWater: CommandID(990),
        proved: stamp
    ),
    offset: 1 << 20,
    checksums: [blockChecksum]
)

private let readAnswer = ReadCommand.Answer(stamp: stamp, runs: [.bytes(checksums: [blockChecksum])])

private func body(of message: some RPCMessage) -> ByteBuffer {
    var buffer = ByteBuffer()
    message.encode(into: &buffer)
    return buffer
}

private func frameBytes(_ type: RPCMessageType, _ body: ByteBuffer, payload: ByteBuffer) -> ByteBuffer {
    let header = RPCFrameHeader(
        length: UInt32(RPCFrameHeader.byteCount + body.readableBytes + payload.readableBytes),
        type: type,
        flags: 0,
        id: 1,
        word: 0,
        credit: 0
    )
    var buffer = ByteBuffer()
    header.encode(into: &buffer)
    buffer.writeImmutableBuffer(body)
    buffer.writeImmutableBuffer(payload)
    return buffer
}

/// The machines of a target and of a cache server, joined by nothing but calls.
private final class ConnectedEnds {
    private var client: RPCConnectionStateMachine
    private var server: RPCConnectionStateMachine
    private let now = MonotonicTime(1_000_000_000)

    init() throws {
        let cluster = ClusterID(high: 1, low: 2)
        guard
            let target = NodeIdentity(cluster: cluster, role: .target, name: "target-1"),
            let cache = NodeIdentity(cluster: cluster, role: .cache, name: "cache-1")
        else { throw BenchmarkFailure("a node's name is not valid") }
        client = RPCConnectionStateMachine(
            RPCConnectionConfiguration(node: target, side: .client(expectedRole: .cache, expectedName: "cache-1"))
        )
        server = RPCConnectionStateMachine(
            RPCConnectionConfiguration(node: cache, side: .server(acceptedRoles: [.target]))
        )
        client.start(now: now)
        server.start(now: now)
        client.peerCertified(cache)
        server.peerCertified(target)
        pass()
        try require(client.isEstablished && server.isEstablished, "the handshake is refused")
    }

    /// Hands over what the machines send by themselves.
    private func pass() {
        var isBusy = true
        while isBusy {
            isBusy = false
            while let frame = client.nextFrame(now: now) {
                isBusy = true
                _ = server.received(RPCFrame(header: frame.header, body: frame.body), now: now)
            }
            while let frame = server.nextFrame(now: now) {
                isBusy = true
                _ = client.received(RPCFrame(header: frame.header, body: frame.body), now: now)
            }
        }
    }

    func exchange(_ operations: Int) throws -> UInt64 {
        let message = writeCommand
        let answerBody = body(of: CommandAnswer(stamp: stamp))
        var sum: UInt64 = 0
        for _ in 0..<operations {
            let id = try client.beginRequest(
                type: WriteCommand.type,
                deadline: now.advanced(byNanoseconds: 20_000_000_000),
                now: now
            )
            var bytes = body(of: message)
            bytes.writeImmutableBuffer(block)
            let length = RPCFrameHeader.byteCount + bytes.readableBytes
            guard case .write(let header) = client.requestEncoded(id, frameBytes: length, now: now) else {
                throw BenchmarkFailure("a request does not leave at once")
            }
            guard case .request(let request) = server.received(RPCFrame(header: header, body: bytes), now: now) else {
                throw BenchmarkFailure("a request does not arrive")
            }
            sum &+= UInt64(request.body.readableBytes)
            let answerBytes = RPCFrameHeader.byteCount + answerBody.readableBytes
            guard
                case .write(let answerHeader) = server.answerEncoded(
                    request.handle,
                    status: .ok,
                    frameBytes: answerBytes,
                    now: now
                )
            else { throw BenchmarkFailure("an answer does not leave at once") }
            guard
                case .answer(_, _, let count) = client.received(
                    RPCFrame(header: answerHeader, body: answerBody),
                    now: now
                )
            else { throw BenchmarkFailure("an answer does not arrive") }
            client.answerFinished(frameBytes: count)
            pass()
        }
        return sum
    }
}
