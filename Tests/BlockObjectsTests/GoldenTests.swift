import AshlarCore
import BlockObjects
import NIOCore
import Testing

/// Bytes written by hand from the table at the head of `BlockObjectHeader.swift`.
@Suite struct GoldenTests {
    static let prefix = """
        4153484c4152424f 0001 0000 000000b0 00000003 00000200
        0102030405060708 000000000000002a 000102030405060708090a0b0c0d0e0f
        000002c4 6c84b0ec
        """
    /// Block 5, version 100, 512 bytes of 7i+3, plain at 176.
    static let plainSlot = "0000000000000005 0000000000000064 e44a1db5 e44a1db5 000000b0 00000200 00 000000"
    /// Block 6, version 101, zeros at 688.
    static let zerosSlot = "0000000000000006 0000000000000065 30fcedc0 00000000 000002b0 00000000 02 000000"
    /// Block 9, version 102, "ashlar ashlar ...", 20 bytes of zlib at 688.
    static let zlibSlot = "0000000000000009 0000000000000066 24f61d93 40f1e59e 000002b0 00000014 01 000000"
    static let headerChecksum = "08ee5faa"
    static let zlibBody = "78da4b2ccec8492c52481ca54626050038f1be95"

    static var plainBlock: ByteBuffer {
        ByteBuffer(bytes: (0..<512).map { UInt8(truncatingIfNeeded: 7 * $0 + 3) })
    }

    static var object: ByteBuffer {
        var object = Fixtures.bytes(prefix + plainSlot + zerosSlot + zlibSlot + headerChecksum)
        object.writeImmutableBuffer(plainBlock)
        object.writeImmutableBuffer(Fixtures.bytes(zlibBody))
        return object
    }

    @Test func theGoldenObjectIsDecoded() throws {
        let reader = try BlockObjectReader(decoding: Self.object)
        let header = reader.header
        #expect(header.objectID == ObjectID(0x0102_0304_0506_0708))
        #expect(header.volumeID == VolumeID(42))
        #expect(header.volumeUUID == Array(0..<16))
        #expect(header.blockSizeBytes == 512)
        #expect(header.objectBytes == 708)
        #expect(header.headerBytes == 176)
        #expect(header.slots.map(\.block) == [BlockID(5), BlockID(6), BlockID(9)])
        #expect(header.slots.map(\.version) == [Version(100), Version(101), Version(102)])
        #expect(header.slots.map(\.encoding) == [.plain, .zeros, .zlib])
        #expect(header.slots.map(\.storedOffset) == [176, 688, 688])
        #expect(header.slots.map(\.storedCount) == [512, 0, 20])
        let inflater = try BlockInflater()
        #expect(try reader.plain(SlotIndex(0), using: inflater) == Self.plainBlock)
        #expect(try reader.plain(SlotIndex(1), using: inflater) == Fixtures.zeros(512))
        #expect(try reader.plain(SlotIndex(2), using: inflater) == Fixtures.text(512))
        try reader.verify(using: inflater)
        try reader.verifyStored()
    }

    @Test func theGoldenObjectIsBuilt() throws {
        let inflater = try BlockInflater()
        var builder = try BlockObjectBuilder(
            objectID: ObjectID(0x0102_0304_0506_0708),
            volumeID: VolumeID(42),
            volumeUUID: Array(0..<16),
            blockSizeBytes: 512,
            compressor: nil
        )
        try builder.add(
            block: BlockID(5),
            version: Version(100),
            checksum: Checksum(0xE44A_1DB5),
            bytes: Self.plainBlock
        )
        try builder.add(
            block: BlockID(6),
            version: Version(101),
            checksum: Checksum(0x30FC_EDC0),
            bytes: Fixtures.zeros(512)
        )
        let stored = StoredSlot(
            encoding: .zlib,
            bytes: Fixtures.bytes(Self.zlibBody),
            checksum: Checksum(0x24F6_1D93)
        )
        try builder.add(block: BlockID(9), version: Version(102), stored: stored, using: inflater)
        #expect(builder.byteCount == 708)
        #expect(try builder.finish() == Self.object)
    }

    @Test func aRangeReadFetchesTheHeaderAndThenTheSlots() throws {
        let object = Self.object
        let prefix = try #require(object.getSlice(at: 0, length: BlockObjectHeader.prefixBytes))
        let count = try BlockObjectHeader.headerByteCount(prefix: prefix)
        #expect(count == 176)
        let header = try BlockObjectHeader(decoding: try #require(object.getSlice(at: 0, length: count)))
        let slot = try header.slot(SlotIndex(2))
        let run = try #require(object.getSlice(at: Int(slot.storedOffset), length: Int(slot.storedCount)))
        let stored = try header.stored(SlotIndex(2), from: run, startingAt: slot.storedOffset)
        let plain = try stored.decoded(blockSizeBytes: 512, slot: SlotIndex(2), using: BlockInflater())
        #expect(plain == Fixtures.text(512))
        #expect(Fixtures.code { _ = try header.stored(SlotIndex(1), from: run, startingAt: 689) } == .truncated)
        #expect(Fixtures.code { _ = try header.stored(SlotIndex(0), from: run, startingAt: 176) } == .truncated)
        #expect(Fixtures.code { _ = try header.slot(SlotIndex(3)) } == .badSlot)
    }
}

@Suite struct BlockObjectsLimitsTests {
    @Test func limitsFitTogether() {
        #expect(BlockObjectsLimits.headerBytes(slotCount: 3) == 176)
        let largestBlock = Int(Limits.blockSizeMaximumBytes)
        #expect(BlockObjectsLimits.headerMaximumBytes + largestBlock < Limits.objectMaximumBytes)
        // A move's worth of blocks fits into one object, whatever their size.
        let slots = Int(Limits.objectSlotsMaximum)
        #expect(
            BlockObjectsLimits.headerBytes(slotCount: slots) + Limits.objectTargetBytes <= Limits.objectMaximumBytes
        )
        #expect(Limits.objectMaximumBytes <= Int(UInt32.max))
        #expect(BlockObjectsLimits.compressedMaximumBytes(blockSizeBytes: 4_096) == 3_584)
    }
}
