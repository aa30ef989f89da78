import AshlarCore
import Foundation
import NIOCore
import Testing

@testable import RPC

/// Messages against the bytes that stand in `proto/vectors`, which were written from the specification.
struct MessageVectorTests {
    @Test(arguments: MessageVector.all)
    func readsAndWritesTheVector(_ vector: MessageVector) throws {
        let bytes = try vector.bytes()
        var body = bytes
        let decoded = try vector.decodeWhole(&body)
        #expect(body.readableBytes == 0)
        #expect(decoded.dumped == vector.expected.dumped)
        #expect(vector.expected.encoded == bytes)
        #expect(decoded.encoded == bytes)
    }

    @Test(arguments: MessageVector.all)
    func hasTheTypeOfTheSpecification(_ vector: MessageVector) {
        #expect(Swift.type(of: vector.expected).type == RPCMessageType(vector.type))
    }

    @Test func everyVectorFileIsUsed() throws {
        let folder = URL(fileURLWithPath: #filePath)
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("proto/vectors")
        let files = try FileManager.default.contentsOfDirectory(atPath: folder.path)
            .filter { $0.hasPrefix("message-") }
        #expect(files.sorted() == MessageVector.all.map { "message-\($0.name).hex" }.sorted())
        let types = Set(MessageVector.all.map(\.type))
        #expect(
            types == Set([0x10...0x19, 0x20...0x2E, 0x30...0x3B, 0x40...0x47, 0x50...0x53].joined().map(UInt16.init))
        )
    }

    @Test(arguments: MessageVector.withFields)
    func isRefusedWhenCutAtAnyLength(_ vector: MessageVector) throws {
        let bytes = try vector.bytes()
        for count in 0..<bytes.readableBytes {
            var cut = try #require(bytes.getSlice(at: bytes.readerIndex, length: count))
            #expect(throws: RPCDecodingError.self, "cut after \(count) bytes") { try vector.decode(&cut) }
        }
    }

    /// Whatever comes behind the fields is the payload, and none where the message has to be the whole body.
    @Test(arguments: MessageVector.all)
    func leavesWhatFollows(_ vector: MessageVector) throws {
        var bytes = try vector.bytes()
        bytes.writeBytes([0xDE, 0xAD])
        var payload = bytes
        #expect(try vector.decode(&payload).encoded.readableBytes == bytes.readableBytes - 2)
        #expect(Array(payload.readableBytesView) == [0xDE, 0xAD])
        var whole = bytes
        #expect(throws: RPCDecodingError.trailingBytes(2)) { try vector.decodeWhole(&whole) }
    }

    @Test(arguments: MessageVector.all)
    func arrivesByteByByte(_ vector: MessageVector) throws {
        let body = try vector.bytes()
        var stream = ByteBuffer()
        RPCFrameHeader(
            length: UInt32(RPCFrameHeader.byteCount + body.readableBytes),
            type: RPCMessageType(vector.type),
            flags: 0,
            id: 1,
            word: 0,
            credit: 0
        ).encode(into: &stream)
        stream.writeImmutableBuffer(body)
        var decoder = RPCFrameDecoder(frameMaximumBytes: Limits.frameMaximumBytes)
        var arrived: RPCFrame?
        for (index, byte) in stream.readableBytesView.enumerated() {
            decoder.append(ByteBuffer(bytes: [byte]))
            arrived = try decoder.next(windowBytes: Limits.frameMaximumBytes)
            #expect((arrived != nil) == (index == stream.readableBytes - 1))
        }
        var received = try #require(arrived).body
        #expect(try vector.decodeWhole(&received).dumped == vector.expected.dumped)
    }

    @Test func aRefusalCarriesACommandAnswer() throws {
        let detail = try vector("message-command-answer")
        var body = ByteBuffer()
        RPCError(.miscompare, "no", detail: detail).encode(into: &body)
        var read = RPCError(status: .miscompare, decoding: body).detail
        #expect(try CommandAnswer(decoding: &read).detail == 1_024)
        #expect(read.readableBytes == 0)
    }
}

/// What peers may send and must not.
struct MessageRefusalTests {
    /// Every count and every length, one at a time, says more than there is.
    @Test(arguments: MessageVector.withFields)
    func lyingCountsAndLengthsAreRefused(_ vector: MessageVector) throws {
        let bytes = try vector.bytes()
        for (offset, width, what) in try vector.lengths() {
            var lie = bytes
            lie.setRepeatingByte(0xFF, count: width, at: lie.readerIndex + offset)
            #expect(throws: RPCDecodingError.self, "\(what)") { try vector.decode(&lie) }
        }
    }

    @Test func theFilesNameCountsAndLengths() throws {
        let counts = try MessageVector.all.reduce(0) { try $0 + $1.lengths().count }
        #expect(counts > 50)
    }

    /// Arrays with a bound of their own: one element more than allowed, and the bytes for it.
    static let bounds: [(name: String, what: String, elementBytes: Int, maximum: Int)] = [
        ("list-volumes-answer", "volumes", 99, RPCMessageLimits.volumesInListMaximum),
        ("look-up-volume-answer", "initiators", 2, RPCMessageLimits.accessRulesMaximum),
        ("look-up-volume-answer", "credentials", 4, RPCMessageLimits.accessRulesMaximum),
        ("resume-nexus-answer", "done", 8, RPCMessageLimits.outcomesMaximum),
        ("stamps", "volumes", 8, RPCMessageLimits.stampsMaximum),
        ("stamps-answer", "entries", 1, RPCMessageLimits.stampsMaximum),
        ("target-report-answer", "nodes", 16, RPCMessageLimits.targetNodesMaximum),
        ("nexus-states", "nexuses", 8, RPCMessageLimits.stampsMaximum),
        ("read-answer", "runs", 5, RPCMessageLimits.readRunsMaximum),
        ("zero", "ranges", 16, Limits.unmapDescriptorsMaximum),
        ("fence", "commands", 8, RPCMessageLimits.outcomesMaximum),
        ("map-status-answer", "runs", 17, RPCMessageLimits.mapRunsMaximum),
        ("check-unit-answer", "registrations", 22, Limits.registrationsMaximum),
        ("change-unit-register", "others", 3, RPCMessageLimits.registrationPortsMaximum),
        ("change-unit-unregister", "target ports", 4, RPCMessageLimits.registrationPortsMaximum),
        ("begin-direct-answer", "grants", 20, RPCMessageLimits.directGrantsMaximum),
        ("map-direct", "writes", 56, RPCMessageLimits.directWritesMaximum),
        ("map-through", "writes", 56, RPCMessageLimits.directWritesMaximum),
        ("map-direct-answer", "outcomes", 28, RPCMessageLimits.directWritesMaximum),
        ("move-work-answer", "blocks", 20, RPCMessageLimits.slotsMaximum),
        ("map-move", "slots", 16, RPCMessageLimits.slotsMaximum),
        ("compaction-work-answer", "runs", 33, RPCMessageLimits.slotsMaximum),
        ("map-compaction", "slots", 28, RPCMessageLimits.slotsMaximum),
        ("collect-answer", "objects", 12, RPCMessageLimits.objectsMaximum),
        ("forget-objects", "objects", 8, RPCMessageLimits.objectsMaximum),
        ("known-objects", "objects", 8, RPCMessageLimits.objectsMaximum),
        ("database-age", "marks", 20, RPCMessageLimits.objectServersMaximum),
        ("scrub-work-answer", "objects", 24, RPCMessageLimits.objectsMaximum),
        ("report-objects", "objects", 13, RPCMessageLimits.objectsReportedMaximum),
        ("report-objects", "slots", 4, RPCMessageLimits.slotsMaximum),
        ("draining-servers-answer", "servers", 4, RPCMessageLimits.objectServersMaximum),
        ("object-header-answer", "slots", 16, RPCMessageLimits.slotsMaximum),
        ("get-slots-answer", "slots", 25, RPCMessageLimits.slotsMaximum),
        ("list-objects-answer", "objects", 8, RPCMessageLimits.objectsMaximum),
    ]

    @Test func arraysHaveTheirBounds() throws {
        for (name, what, elementBytes, maximum) in Self.bounds {
            let vector = try #require(MessageVector.all.first { $0.name == name })
            let count = try #require(try vector.lengths().first { $0.what == "count of \(what)" })
            var bytes = try vector.bytes()
            bytes.moveWriterIndex(to: bytes.readerIndex + count.offset)
            bytes.writeInteger(UInt32(maximum + 1))
            bytes.writeRepeatingByte(0, count: (maximum + 1) * elementBytes)
            #expect(throws: RPCDecodingError.countTooLarge(count: maximum + 1, maximum: maximum), "\(name)") {
                try vector.decode(&bytes)
            }
        }
    }

    /// A value that the specification does not have, put over a field of a vector.
    static let senseless: [(name: String, find: [UInt8], replace: [UInt8], field: String)] = [
        ("look-up-volume-answer", [0, 4] + Array("fifo".utf8), [0, 4] + Array("none".utf8), "move policy"),
        ("look-up-volume-answer", [0, 5] + Array("never".utf8), [0, 5] + Array("maybe".utf8), "read-fill policy"),
        ("look-up-volume-answer", [0, 0, 0x10, 0, 0, 0, 2, 0], [0, 0, 0x10, 1, 0, 0, 2, 0], "geometry"),
        ("look-up-volume-answer", [0, 0, 0x10, 0, 0, 0, 2, 0], [0, 0, 2, 0, 0, 0, 0x10, 0], "geometry"),
        ("look-up-volume-answer", [0, 0, 2, 0, 0, 0, 4], [0, 0, 2, 0, 2, 0, 4], "bool"),
        ("read-answer", [4, 1, 0, 0, 0, 2], [4, 4, 0, 0, 0, 2], "run"),
        (
            "read", [0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0],
            [UInt8](repeating: 0xFF, count: 16), "byte range"
        ),
        (
            "compaction-work-answer", [0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 2],
            [UInt8](repeating: 0xFF, count: 16), "block range"
        ),
        ("list-objects", [0, 0, 0, 0x27, 0x10], [2, 0, 0, 0x27, 0x10], "bool"),
    ]

    @Test func valuesWithoutMeaningAreRefused() throws {
        for (name, find, replace, field) in Self.senseless {
            let vector = try #require(MessageVector.all.first { $0.name == name })
            var bytes = Array(try vector.bytes().readableBytesView)
            let starts = bytes.indices.filter { bytes[$0...].starts(with: find) }
            #expect(starts.count == 1, "\(name) holds \(field) once")
            let start = try #require(starts.first)
            bytes.replaceSubrange(start..<start + find.count, with: replace)
            var buffer = ByteBuffer(bytes: bytes)
            #expect(throws: RPCDecodingError.invalidValue(field: field), "\(name)") { try vector.decode(&buffer) }
        }
    }

    @Test func namesThatAreNotUTF8AreRefused() throws {
        let vector = try #require(MessageVector.all.first { $0.name == "move-work" })
        var bytes = try vector.bytes()
        bytes.setInteger(UInt8(0xFF), at: bytes.readerIndex + 2)
        #expect(throws: RPCDecodingError.notUTF8) { try vector.decode(&bytes) }
    }

    @Test func anInitiatorNameHasItsOwnBound() throws {
        var bytes = ByteBuffer()
        bytes.writeRPC(Int64(7))
        bytes.writeRPC(UInt16(256))
        bytes.writeRepeatingByte(0x61, count: 300)
        #expect(throws: RPCDecodingError.stringTooLong(bytes: 256, maximumBytes: 255)) {
            try OpenNexus(decoding: &bytes)
        }
    }
}

/// Bytes from a seed: a decoder ends with an error or with a message, which then has exactly the bytes that were read.
struct MessageFuzzTests {
    private static let seed: UInt64 = 0x41_5348_4C41_52

    private func check(_ bytes: [UInt8], _ vector: MessageVector) throws {
        var buffer = ByteBuffer(bytes: bytes)
        let message: any RPCMessage
        do {
            message = try vector.decode(&buffer)
        } catch is RPCDecodingError {
            return
        }
        let read = bytes.count - buffer.readableBytes
        guard Array(message.encoded.readableBytesView) == Array(bytes[..<read]) else {
            throw Failure("\(vector.name): a message of \(read) bytes is written in another way: \(bytes)")
        }
    }

    @Test(arguments: MessageVector.withFields)
    func randomBytes(_ vector: MessageVector) throws {
        var generator = MessageGenerator(state: Self.seed)
        for _ in 0..<300 {
            let count = Int.random(in: 0...256, using: &generator)
            // Small values reach further than large ones: counts and flags are mostly zeros.
            let mask = UInt8.random(in: 0...3, using: &generator) == 0 ? UInt8.max : 3
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) & mask }
            try check(bytes, vector)
        }
    }

    @Test(arguments: MessageVector.withFields)
    func changedVectors(_ vector: MessageVector) throws {
        var generator = MessageGenerator(state: Self.seed)
        let original = Array(try vector.bytes().readableBytesView)
        for _ in 0..<300 {
            var bytes = original
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                guard !bytes.isEmpty else { break }
                let index = Int.random(in: 0..<bytes.count, using: &generator)
                switch UInt8.random(in: 0...3, using: &generator) {
                case 0: bytes[index] = UInt8.random(in: 0...255, using: &generator)
                case 1: bytes[index] ^= 1 << UInt8.random(in: 0...7, using: &generator)
                case 2: bytes.remove(at: index)
                default: bytes.insert(UInt8.random(in: 0...255, using: &generator), at: index)
                }
            }
            try check(bytes, vector)
        }
    }

    /// The harness can fail: a message that is not written as it is read is found.
    @Test func theCheckFindsAWrongEncoder() {
        struct Crooked: RPCMessage {
            static let type = RPCMessageType(0xFFFF)
            var value: UInt16
            init(value: UInt16) { self.value = value }
            init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { value = try buffer.readRPC() }
            func encode(into buffer: inout ByteBuffer) { buffer.writeInteger(value, endianness: .little) }
        }
        let vector = MessageVector("crooked", 0xFFFF, Crooked(value: 1))
        #expect(throws: Failure.self) { try check([0, 1], vector) }
    }
}
