import AshlarCore
import NIOCore
import Testing

@testable import RPC

/// The vectors of `proto/vectors` against what this module writes and reads.
struct FrameVectorTests {
    private func body(_ encode: (inout ByteBuffer) -> Void) -> ByteBuffer {
        var buffer = ByteBuffer()
        encode(&buffer)
        return buffer
    }

    private func check(
        _ name: String,
        type: RPCMessageType,
        flags: UInt16 = 0,
        id: UInt64 = 0,
        word: UInt32 = 0,
        credit: UInt32 = 0,
        body: ByteBuffer = ByteBuffer()
    ) throws {
        let expected = frame(type: type, flags: flags, id: id, word: word, credit: credit, body: body)
        let bytes = try vector(name)
        var written = ByteBuffer()
        expected.header.encode(into: &written)
        written.writeImmutableBuffer(body)
        #expect(written == bytes, "\(name)")
        var overwritten = ByteBuffer(repeating: 0xEE, count: RPCFrameHeader.byteCount)
        expected.header.set(in: &overwritten, at: 0)
        overwritten.writeImmutableBuffer(body)
        #expect(overwritten == bytes, "\(name)")
        var decoder = RPCFrameDecoder(frameMaximumBytes: Limits.frameMaximumBytes)
        decoder.append(bytes)
        let read = try decoder.next(windowBytes: 1_000)
        #expect(read == expected, "\(name)")
        #expect(try decoder.next(windowBytes: 1_000) == nil)
    }

    @Test func hello() throws {
        let hello = RPCHello(
            versionMinimum: 1,
            versionMaximum: 3,
            node: try node(.target, "target-1"),
            windowBytes: 32 << 20,
            features: 5
        )
        let encoded = body { hello.encode(into: &$0) }
        try check("hello", type: .hello, body: encoded)
        var reading = encoded
        #expect(try RPCHello(decoding: &reading) == hello)
        #expect(reading.readableBytes == 0)
    }

    @Test func helloAnswers() throws {
        let hello = RPCHello(
            versionMinimum: 1,
            versionMaximum: 1,
            node: try node(.cache, "cache-1"),
            windowBytes: 32 << 20,
            features: 4
        )
        let answers: [(String, RPCHelloAnswer)] = [
            ("hello-answer-accepted", .accepted(hello)),
            ("hello-answer-refused", .refused(.wrongRole, text: "no", versionMinimum: 1, versionMaximum: 1)),
        ]
        for (name, answer) in answers {
            let encoded = body { answer.encode(into: &$0) }
            try check(name, type: .hello, flags: 1, body: encoded)
            var reading = encoded
            #expect(try RPCHelloAnswer(decoding: &reading) == answer)
        }
    }

    @Test func framesOfTheConnection() throws {
        try check("ping", type: .ping, id: 9, credit: 4_096)
        try check("ping-answer", type: .ping, flags: 1, id: 9)
        try check("credit", type: .credit, credit: 8 << 20)
        let goaway = RPCGoaway(code: .none, lastAcceptedID: 0x70002, text: "stop")
        let encoded = body { goaway.encode(into: &$0) }
        try check("goaway", type: .goaway, body: encoded)
        var reading = encoded
        #expect(try RPCGoaway(decoding: &reading) == goaway)
    }

    @Test func framesOfTheApplication() throws {
        let type = RPCMessageType(0x10)
        try check("request", type: type, id: 0x10000, word: 20_000, body: ByteBuffer(bytes: [1, 2, 3]))
        try check("answer-ok", type: type, flags: 1, id: 0x10000, credit: 27, body: ByteBuffer(bytes: [4, 5]))
        let error = RPCError.wrongEpoch(current: Epoch(7), owner: "c2:7401", "epoch")
        try check(
            "answer-wrong-epoch",
            type: type,
            flags: 1,
            id: 0x10000,
            word: RPCStatus.wrongEpoch.rawValue,
            credit: 27,
            body: body { error.encode(into: &$0) }
        )
    }

    @Test(arguments: ["bad-length-short", "bad-length-long"])
    func lengthsThatCannotBe(_ name: String) throws {
        var decoder = RPCFrameDecoder(frameMaximumBytes: Limits.frameMaximumBytes)
        decoder.append(try vector(name))
        let error = #expect(throws: RPCCloseReason.self) { try decoder.next(windowBytes: .max) }
        #expect(error?.code == .protocolViolation)
    }

    @Test(arguments: ["hello", "hello-answer-accepted", "hello-answer-refused", "goaway"])
    func bodiesTruncatedAtEveryLength(_ name: String) throws {
        let whole = try vector(name)
        let bodyBytes = whole.readableBytes - RPCFrameHeader.byteCount
        for length in 0..<bodyBytes {
            var part = try #require(whole.getSlice(at: RPCFrameHeader.byteCount, length: length))
            #expect(throws: RPCDecodingError.self, "\(name) of \(length) bytes") {
                switch name {
                case "hello": _ = try RPCHello(decoding: &part)
                case "goaway": _ = try RPCGoaway(decoding: &part)
                default: _ = try RPCHelloAnswer(decoding: &part)
                }
            }
        }
    }

    @Test func helloThatIsNone() throws {
        var bytes = try vector("hello")
        bytes.moveReaderIndex(forwardBy: RPCFrameHeader.byteCount)
        var magic = bytes.slice()
        magic.setInteger(UInt32(0x5353_482D), at: 0)
        #expect(throws: RPCDecodingError.invalidValue(field: "magic")) { try RPCHello(decoding: &magic) }
        var versions = bytes.slice()
        versions.setInteger(UInt16(9), at: 4)
        #expect(throws: RPCDecodingError.invalidValue(field: "version range")) { try RPCHello(decoding: &versions) }
        var role = bytes.slice()
        role.setInteger(UInt8(ascii: "x"), at: 10)
        #expect(throws: RPCDecodingError.invalidValue(field: "role")) { try RPCHello(decoding: &role) }
        // A later version may say more.
        var longer = bytes.slice()
        longer.writeInteger(UInt64(1))
        #expect(throws: Never.self) { try RPCHello(decoding: &longer) }
    }
}

struct FrameDecoderTests {
    private func stream(_ count: Int) -> (bytes: ByteBuffer, frames: [RPCFrame]) {
        var bytes = ByteBuffer()
        var frames: [RPCFrame] = []
        for index in 0..<count {
            let body = ByteBuffer(repeating: UInt8(truncatingIfNeeded: index), count: index * 37 % 300)
            let next = frame(id: UInt64(index + 1), word: UInt32(index), credit: UInt32(index), body: body)
            next.header.encode(into: &bytes)
            bytes.writeImmutableBuffer(body)
            frames.append(next)
        }
        return (bytes, frames)
    }

    private func decode(_ bytes: ByteBuffer, piece: (Int) -> Int) throws -> [RPCFrame] {
        var decoder = RPCFrameDecoder(frameMaximumBytes: 1_024)
        var frames: [RPCFrame] = []
        var rest = bytes
        var index = 0
        while rest.readableBytes > 0 {
            let length = min(rest.readableBytes, max(1, piece(index)))
            index += 1
            // Each piece in a storage of its own, as reads are.
            let piece = rest.readBytes(length: length)
            decoder.append(ByteBuffer(bytes: try #require(piece)))
            while let frame = try decoder.next(windowBytes: 1_024) { frames.append(frame) }
        }
        #expect(decoder.pendingBytes == 0)
        return frames
    }

    @Test func dripFedByteByByte() throws {
        let (bytes, frames) = stream(20)
        #expect(try decode(bytes) { _ in 1 } == frames)
    }

    @Test func manyAtOnce() throws {
        let (bytes, frames) = stream(200)
        #expect(try decode(bytes) { _ in .max } == frames)
    }

    @Test(arguments: [2, 3, 7, 23, 24, 25, 100, 333, 1_000])
    func piecesOfEverySize(_ size: Int) throws {
        let (bytes, frames) = stream(60)
        #expect(try decode(bytes) { _ in size } == frames)
        #expect(try decode(bytes) { ($0 * 7919) % size } == frames)
    }

    @Test func framesThatWereHandedOutStayWhatTheyAre() throws {
        let (bytes, frames) = stream(3)
        var decoder = RPCFrameDecoder(frameMaximumBytes: 1_024)
        let cut = bytes.readableBytes - 5
        decoder.append(try #require(bytes.getSlice(at: 0, length: cut)))
        let first = try decoder.next(windowBytes: 1_024)
        let second = try decoder.next(windowBytes: 1_024)
        #expect(try decoder.next(windowBytes: 1_024) == nil)
        decoder.append(try #require(bytes.getSlice(at: cut, length: 5)))
        let third = try decoder.next(windowBytes: 1_024)
        #expect([first, second, third] == frames)
    }

    @Test func truncatedStreamGivesNoFrame() throws {
        let (bytes, _) = stream(2)
        for length in 24..<bytes.readableBytes {
            var decoder = RPCFrameDecoder(frameMaximumBytes: 1_024)
            decoder.append(try #require(bytes.getSlice(at: 0, length: length)))
            var count = 0
            while try decoder.next(windowBytes: 1_024) != nil { count += 1 }
            #expect(count == 1)
        }
    }

    @Test func lengthsAreRefusedBeforeTheBodyIsKept() throws {
        for length in [0, 1, 23, 1_025, .max] as [UInt32] {
            var decoder = RPCFrameDecoder(frameMaximumBytes: 1_024)
            var bytes = ByteBuffer()
            RPCFrameHeader(length: length, type: RPCMessageType(0x10), flags: 0, id: 1, word: 0, credit: 0)
                .encode(into: &bytes)
            decoder.append(bytes)
            #expect(throws: RPCCloseReason.self) { try decoder.next(windowBytes: .max) }
        }
        // A frame of the application that the window does not hold; one of the connection needs no window.
        var decoder = RPCFrameDecoder(frameMaximumBytes: 1_024)
        var bytes = ByteBuffer()
        frame(type: .ping, id: 1).header.encode(into: &bytes)
        RPCFrameHeader(length: 101, type: RPCMessageType(0x10), flags: 0, id: 1, word: 0, credit: 0)
            .encode(into: &bytes)
        decoder.append(bytes)
        #expect(try decoder.next(windowBytes: 0)?.header.type == .ping)
        let error = #expect(throws: RPCCloseReason.self) { try decoder.next(windowBytes: 100) }
        #expect(error?.code == .flowControlViolation)
    }
}
