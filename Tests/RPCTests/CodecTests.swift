import AshlarCore
import NIOCore
import Testing

@testable import RPC

struct CodecTests {
    @Test func fieldsAreBigEndian() throws {
        var buffer = ByteBuffer()
        buffer.writeRPC(UInt16(0x0102))
        buffer.writeRPC(UInt32(0x0304_0506))
        buffer.writeRPCBool(true)
        buffer.writeRPCBool(false)
        buffer.writeRPCIdentifier(Epoch(7))
        buffer.writeRPCIdentifier(SlotIndex(9))
        buffer.writeRPCIdentifier(VolumeID(-1))
        buffer.writeRPCString("né")
        buffer.writeRPCArray([UInt8(1), 2]) { $0.writeRPC($1) }
        buffer.writeRPCOptional(UInt8(5)) { $0.writeRPC($1) }
        buffer.writeRPCOptional(UInt8?.none) { $0.writeRPC($1) }
        buffer.writeRPCData(ByteBuffer(bytes: [0xAA]))
        let expected: [UInt8] =
            [1, 2, 3, 4, 5, 6, 1, 0] + [0, 0, 0, 0, 0, 0, 0, 7] + [0, 0, 0, 9]
            + [UInt8](repeating: 0xFF, count: 8) + [0, 3, 0x6E, 0xC3, 0xA9] + [0, 0, 0, 2, 1, 2] + [1, 5, 0]
            + [0, 0, 0, 1, 0xAA]
        #expect(Array(buffer.readableBytesView) == expected)
        #expect(try buffer.readRPC(UInt16.self) == 0x0102)
        #expect(try buffer.readRPC(UInt32.self) == 0x0304_0506)
        #expect(try buffer.readRPCBool())
        #expect(try !buffer.readRPCBool())
        #expect(try buffer.readRPCIdentifier(Epoch.self) == Epoch(7))
        #expect(try buffer.readRPCIdentifier(SlotIndex.self) == SlotIndex(9))
        #expect(try buffer.readRPCIdentifier(VolumeID.self) == VolumeID(-1))
        #expect(try buffer.readRPCString() == "né")
        let array = try buffer.readRPCArray(minimumElementBytes: 1) { buffer throws(RPCDecodingError) -> UInt8 in
            try buffer.readRPC()
        }
        #expect(array == [1, 2])
        let some = try buffer.readRPCOptional { buffer throws(RPCDecodingError) -> UInt8 in try buffer.readRPC() }
        #expect(some == 5)
        let none = try buffer.readRPCOptional { buffer throws(RPCDecodingError) -> UInt8 in try buffer.readRPC() }
        #expect(none == nil)
        #expect(try buffer.readRPCData(maximumBytes: 1) == ByteBuffer(bytes: [0xAA]))
        #expect(buffer.readableBytes == 0)
    }

    @Test func rangesAndStamps() throws {
        var buffer = ByteBuffer()
        let stamp = Stamp(epoch: Epoch(3), time: MonotonicTime(4))
        let blocks = BlockRange(first: BlockID(5), count: 6)
        let bytes = ByteRange(offset: 7, count: 8)
        buffer.writeRPCStamp(stamp)
        buffer.writeRPCBlockRange(blocks)
        buffer.writeRPCByteRange(bytes)
        #expect(try buffer.readRPCStamp() == stamp)
        #expect(try buffer.readRPCBlockRange() == blocks)
        #expect(try buffer.readRPCByteRange() == bytes)
        for first in [UInt64.max, 2] {
            var lie = ByteBuffer()
            lie.writeRPC(first)
            lie.writeRPC(UInt64.max)
            var other = lie
            #expect(throws: RPCDecodingError.self) { try lie.readRPCBlockRange() }
            #expect(throws: RPCDecodingError.self) { try other.readRPCByteRange() }
        }
    }

    @Test func lyingLengthsAreRefusedBeforeAnythingIsAllocated() {
        var array = ByteBuffer()
        array.writeRPC(UInt32.max)
        array.writeRPC(UInt64(0))
        #expect(throws: RPCDecodingError.countTooLarge(count: Int(UInt32.max), maximum: 1)) {
            try array.readRPCArray(minimumElementBytes: 8) { buffer throws(RPCDecodingError) -> UInt64 in
                try buffer.readRPC()
            }
        }
        var many = ByteBuffer(bytes: [0, 0, 0, 3, 1, 2, 3])
        #expect(throws: RPCDecodingError.countTooLarge(count: 3, maximum: 2)) {
            try many.readRPCArray(minimumElementBytes: 1, maximumCount: 2) {
                buffer throws(RPCDecodingError) -> UInt8 in try buffer.readRPC()
            }
        }
        var string = ByteBuffer(bytes: [0, 5, 0x61])
        #expect(throws: RPCDecodingError.truncated(neededBytes: 5, availableBytes: 1)) {
            try string.readRPCString()
        }
        var long = ByteBuffer(bytes: [0, 2, 0x61, 0x61])
        #expect(throws: RPCDecodingError.stringTooLong(bytes: 2, maximumBytes: 1)) {
            try long.readRPCString(maximumBytes: 1)
        }
        var data = ByteBuffer(bytes: [0xFF, 0xFF, 0xFF, 0xFF])
        #expect(throws: RPCDecodingError.self) { try data.readRPCData(maximumBytes: 10) }
        var negative = ByteBuffer(bytes: [1])
        #expect(throws: RPCDecodingError.self) { try negative.readRPCBytes(count: -1) }
    }

    @Test func valuesWithoutMeaning() {
        var bool = ByteBuffer(bytes: [2])
        #expect(throws: RPCDecodingError.invalidValue(field: "bool")) { try bool.readRPCBool() }
        var text = ByteBuffer(bytes: [0, 1, 0xFF])
        #expect(throws: RPCDecodingError.notUTF8) { try text.readRPCString() }
        var empty = ByteBuffer()
        #expect(throws: RPCDecodingError.truncated(neededBytes: 4, availableBytes: 0)) {
            try empty.readRPC(UInt32.self)
        }
    }

    @Test func textsAreCutAtAWholeCharacter() throws {
        var buffer = ByteBuffer()
        buffer.writeRPCString("aé", maximumBytes: 2)
        #expect(try buffer.readRPCString() == "a")
        buffer.writeRPCString("abc", maximumBytes: 2)
        #expect(try buffer.readRPCString() == "ab")
        buffer.writeRPCString("é", maximumBytes: 1)
        #expect(try buffer.readRPCString() == "")
    }

    @Test func identities() throws {
        let cluster = try #require(ClusterID("00112233-4455-6677-8899-AABBCCDDEEFF"))
        #expect(cluster == testCluster)
        #expect(cluster.description == "00112233-4455-6677-8899-aabbccddeeff")
        let node = try node(.cache, "cache_1.rack-2")
        #expect(node.uri == "ashlar://00112233-4455-6677-8899-aabbccddeeff/cache/cache_1.rack-2")
        #expect(NodeIdentity(uri: node.uri) == node)
        for text in [
            "", "00112233445566778899aabbccddeeff", "0011223-34455-6677-8899-aabbccddeeff",
            "+0112233-4455-6677-8899-aabbccddeeff",
        ] {
            #expect(ClusterID(text) == nil)
        }
        let prefix = "ashlar://00112233-4455-6677-8899-aabbccddeeff/"
        for uri in [
            prefix + "cache", prefix + "king/x", prefix + "cache/", prefix + "cache/a/b", prefix + "cache/a b",
            "http://x/cache/a",
        ] {
            #expect(NodeIdentity(uri: uri) == nil, "\(uri)")
        }
        #expect(NodeIdentity(cluster: cluster, role: .cache, name: String(repeating: "x", count: 65)) == nil)
    }

    @Test func errorsRoundTrip() throws {
        let error = RPCError.notOwner(current: Epoch(9), owner: "c:1", "no")
        var body = ByteBuffer()
        error.encode(into: &body)
        let read = RPCError(status: .notOwner, decoding: body)
        #expect(read == error)
        #expect(read.ownerHint == RPCOwnerHint(epoch: Epoch(9), endpoint: "c:1"))
        #expect(RPCError(.busy, "x").ownerHint == nil)
        // A body that cannot be read leaves the status.
        #expect(RPCError(status: .busy, decoding: ByteBuffer(bytes: [9])) == RPCError(.busy, ""))
        #expect(RPCStatus.internalError.description == "internal error")
        #expect(RPCStatus(rawValue: 999).description == "status 999")
        #expect(RPCStatus(rawValue: .max).description == "status 4294967295")
    }
}

struct RPCLimitsTests {
    @Test func relations() {
        #expect(Int(Limits.rpcWindowBytes) >= Limits.frameMaximumBytes)
        #expect(Limits.frameMaximumBytes > Int(Limits.transferMaximumBytes) + RPCFrameHeader.byteCount)
        #expect(Limits.frameMaximumBytes > Limits.objectMaximumBytes + RPCFrameHeader.byteCount)
        // The command window of a session, all of it reads of the largest size, whose answers wait.
        let blocks = Int(Limits.transferMaximumBytes / Limits.blockSizeMinimumBytes)
        let answer = Int(Limits.transferMaximumBytes + 2 * Limits.blockSizeMaximumBytes) + 24 * blocks
        #expect(answer < Limits.frameMaximumBytes)
        #expect(Int(Limits.commandWindow) * answer < RPCLimits.waitingAnswerBytesMaximum)
        #expect(Limits.rpcRequestsInFlightMaximum <= 1 << RPCLimits.slotBits)
        #expect(RPCLimits.handshakeFrameMaximumBytes <= Limits.frameMaximumBytes)
        let hello =
            RPCFrameHeader.byteCount + 2 + 4 + 4 + 2 + RPCLimits.roleMaximumBytes + 16 + 2
            + RPCLimits.nodeNameMaximumBytes + 4 + 8
        #expect(hello <= RPCLimits.handshakeFrameMaximumBytes)
        #expect(
            RPCFrameHeader.byteCount + 8 + RPCLimits.refusalTextMaximumBytes <= RPCLimits.handshakeFrameMaximumBytes
        )
        #expect(RPCLimits.keepAliveIdleNanoseconds * 2 < RPCLimits.keepAliveTimeoutNanoseconds)
        #expect(RPCLimits.tickNanoseconds < RPCLimits.keepAliveIdleNanoseconds)
        #expect(RPCLimits.waitingAnswerBytesHighWater < RPCLimits.waitingAnswerBytesMaximum)
        #expect(RPCLimits.versionMinimum <= RPCLimits.versionMaximum)
        for role in Role.allCases { #expect(role.rawValue.utf8.count <= RPCLimits.roleMaximumBytes) }
        #expect(Role.allCases.count == 5)
    }
}
