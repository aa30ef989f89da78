import AshlarCore
import BlockObjects
import NIOCore
import Testing

@Suite struct CorruptionTests {
    private func flipped(_ buffer: ByteBuffer, bit: Int) throws -> ByteBuffer {
        var copy = buffer
        let byte = try #require(copy.getInteger(at: bit / 8, as: UInt8.self))
        copy.setInteger(byte ^ (1 << UInt8(bit % 8)), at: bit / 8)
        return copy
    }

    /// The object with its prefix and header checksums made right again, after a field was changed.
    private func resealed(_ object: ByteBuffer, at offset: Int, as value: [UInt8]) throws -> ByteBuffer {
        var copy = object
        let headerBytes = Int(try #require(object.getInteger(at: 12, as: UInt32.self)))
        copy.setBytes(value, at: offset)
        copy.setInteger(Fixtures.checksum(try #require(copy.getSlice(at: 0, length: 60))).rawValue, at: 60)
        let covered = try #require(copy.getSlice(at: 0, length: headerBytes - 4))
        copy.setInteger(Fixtures.checksum(covered).rawValue, at: headerBytes - 4)
        return copy
    }

    @Test func I11_everyLengthThatIsCutOffIsDetected() throws {
        let object = GoldenTests.object
        for length in 0..<object.readableBytes {
            let cut = try #require(object.getSlice(at: 0, length: length))
            #expect(Fixtures.code { _ = try BlockObjectReader(decoding: cut) } == .truncated, "\(length) bytes")
        }
        var longer = object
        longer.writeInteger(UInt8(0))
        #expect(Fixtures.code { _ = try BlockObjectReader(decoding: longer) } == .badHeader)
    }

    @Test func I11_everyFlippedBitIsDetected() throws {
        let object = GoldenTests.object
        for bit in 0..<object.readableBytes * 8 {
            let bad = try flipped(object, bit: bit)
            let code = Fixtures.code { try BlockObjectReader(decoding: bad).verifyStored() }
            #expect(code != nil, "bit \(bit)")
            if bit >= 176 * 8 { #expect(code == .blockChecksum, "bit \(bit)") }
        }
    }

    @Test func I11_aBadSlotIsNamed() throws {
        let inflater = try BlockInflater()
        let bad = try flipped(GoldenTests.object, bit: (688 + 5) * 8)
        let reader = try BlockObjectReader(decoding: bad)
        _ = try reader.plain(SlotIndex(0), using: inflater)
        let error = #expect(throws: BlockObjectError.self) { try reader.verify(using: inflater) }
        #expect(error?.slot == SlotIndex(2))
        #expect(error?.description.contains("slot 2") == true)
    }

    @Test func aRightChecksumDoesNotExcuseAWrongField() throws {
        let object = GoldenTests.object
        let slot = BlockObjectHeader.prefixBytes
        let lies: [(String, Int, [UInt8], BlockObjectError.Code)] = [
            ("magic", 0, [0x42], .notAnObject),
            ("format version", 8, [0, 2], .unsupportedVersion),
            ("reserved", 10, [0, 1], .badHeader),
            ("slot count 0", 16, [0, 0, 0, 0], .badHeader),
            ("slot count above the limit", 16, [0, 0, 0x10, 1], .badHeader),
            ("slot count that contradicts the header length", 16, [0, 0, 0, 2], .badHeader),
            ("block size 0", 20, [0, 0, 0, 0], .badHeader),
            ("block size 513", 20, [0, 0, 2, 1], .badHeader),
            ("block size 131072", 20, [0, 2, 0, 0], .badHeader),
            ("block size 1024", 20, [0, 0, 4, 0], .badSlot),
            ("object shorter than its header", 56, [0, 0, 0, 175], .badHeader),
            ("object above the limit", 56, [0, 0x50, 0, 1], .badHeader),
            ("object shorter than its slots", 56, [0, 0, 2, 0xC3], .badSlot),
            ("object longer than its slots", 56, [0, 0, 2, 0xC5], .badHeader),
            ("block behind every volume", slot, [0, 0x02, 0, 0, 0, 0, 0, 0], .badSlot),
            ("version 0", slot + 8, [0, 0, 0, 0, 0, 0, 0, 0], .badSlot),
            ("plain and stored checksum differ", slot + 16, [0, 0, 0, 0], .badSlot),
            ("offset inside the header", slot + 24, [0, 0, 0, 0xAF], .badSlot),
            ("offset behind a gap", slot + 24, [0, 0, 0, 0xB1], .badSlot),
            ("offset at the end of all numbers", slot + 24, [0xFF, 0xFF, 0xFF, 0xFF], .badSlot),
            ("plain length too short", slot + 28, [0, 0, 1, 0xFF], .badSlot),
            ("length at the end of all numbers", slot + 28, [0xFF, 0xFF, 0xFF, 0xFF], .badSlot),
            ("unknown encoding", slot + 32, [3], .badSlot),
            ("reserved of a slot", slot + 35, [1], .badSlot),
            ("zlib as long as a block", slot + 32, [1], .badSlot),
            ("zeros with bytes", slot + 32, [2], .badSlot),
            ("zeros with another checksum", slot + 36 + 16, [0, 0, 0, 0], .badSlot),
            ("zeros with a stored checksum", slot + 36 + 20, [0, 0, 0, 1], .badSlot),
            ("overlap of two slots", slot + 72 + 24, [0, 0, 2, 0xAF], .badSlot),
            ("zlib of no bytes", slot + 72 + 28, [0, 0, 0, 0], .badSlot),
            ("the same block and version twice", slot + 36 + 7, [5, 0, 0, 0, 0, 0, 0, 0, 100], .duplicateBlock),
        ]
        for (name, offset, value, code) in lies {
            let bad = try resealed(object, at: offset, as: value)
            #expect(Fixtures.code { _ = try BlockObjectReader(decoding: bad) } == code, "\(name)")
        }
    }

    @Test func aHeaderLengthThatLiesIsDetected() throws {
        var bad = GoldenTests.object
        bad.setInteger(UInt32(0xFFFF_FFFF), at: 12)
        bad.setInteger(Fixtures.checksum(try #require(bad.getSlice(at: 0, length: 60))).rawValue, at: 60)
        #expect(Fixtures.code { _ = try BlockObjectHeader.headerByteCount(prefix: bad) } == .badHeader)
        #expect(Fixtures.code { _ = try BlockObjectReader(decoding: bad) } == .badHeader)
    }

    @Test func theSameBlockWithTwoVersionsIsAllowed() throws {
        let good = try resealed(GoldenTests.object, at: BlockObjectHeader.prefixBytes + 36 + 7, as: [5])
        #expect(try BlockObjectReader(decoding: good).header.slots[1].block == BlockID(5))
    }

    @Test func I11_aStoredSlotFromTheWireIsNotTrusted() throws {
        let inflater = try BlockInflater()
        func code(_ slot: StoredSlot, size: UInt32 = 512, expected: Checksum? = nil) -> BlockObjectError.Code? {
            Fixtures.code {
                _ = try slot.decoded(blockSizeBytes: size, slot: SlotIndex(4), expected: expected, using: inflater)
            }
        }
        let text = Fixtures.checksum(Fixtures.text(512))
        let good = StoredSlot(encoding: .zlib, bytes: Fixtures.bytes(GoldenTests.zlibBody), checksum: text)
        #expect(code(good) == nil)
        #expect(code(good, expected: text) == nil)
        #expect(code(good, expected: Checksum(1)) == .blockChecksum)
        #expect(code(good, size: 1_024) == .badCompression)
        #expect(code(good, size: 513) == .badArgument)
        #expect(code(StoredSlot(encoding: .zlib, bytes: good.bytes, checksum: Checksum(1))) == .blockChecksum)
        #expect(code(StoredSlot(encoding: .plain, bytes: good.bytes, checksum: text)) == .badSlot)
        #expect(code(StoredSlot(encoding: .zlib, bytes: ByteBuffer(), checksum: text)) == .badSlot)
        #expect(code(StoredSlot(encoding: .zlib, bytes: Fixtures.zeros(512), checksum: text)) == .badSlot)
        #expect(code(StoredSlot(encoding: .zlib, bytes: Fixtures.zeros(20), checksum: text)) == .badCompression)
        #expect(code(StoredSlot(encoding: .zeros, bytes: good.bytes, checksum: text)) == .badSlot)
        #expect(code(StoredSlot(encoding: .zeros, bytes: ByteBuffer(), checksum: text)) == .blockChecksum)
        // Bytes behind the end of the stream, and a stream that is cut off.
        var longer = good.bytes
        longer.writeInteger(UInt8(0))
        #expect(code(StoredSlot(encoding: .zlib, bytes: longer, checksum: text)) == .badCompression)
        let shorter = try #require(good.bytes.getSlice(at: 0, length: 19))
        #expect(code(StoredSlot(encoding: .zlib, bytes: shorter, checksum: text)) == .badCompression)
        #expect(code(good) == nil, "an inflater works on after an error")
    }

    /// Random bytes, and random changes under right checksums: whatever is accepted must be whole.
    @Test func theDecoderSurvivesNoise() throws {
        var generator = SeededGenerator(seed: 0xA5B1)
        let inflater = try BlockInflater()
        let object = try Fixtures.mixed(blockSize: 512).object
        var accepted = 0
        for round in 0..<4_000 {
            var bad = object
            if round % 4 == 0 {
                let count = Int.random(in: 0..<600, using: &generator)
                bad = Fixtures.noise(count, seed: generator.next())
                if count >= 8, round % 8 == 0 { bad.setInteger(BlockObjectHeader.magic, at: 0) }
            } else {
                for _ in 0..<Int.random(in: 1...4, using: &generator) {
                    let offset = Int.random(in: 8..<object.readableBytes - 8, using: &generator)
                    let value = UInt8.random(in: 0...255, using: &generator)
                    bad = try round % 2 == 0 ? changed(bad, offset, value) : resealedIfPossible(bad, offset, value)
                }
            }
            if Fixtures.code({ try BlockObjectReader(decoding: bad).verify(using: inflater) }) == nil { accepted += 1 }
        }
        #expect(accepted < 4_000, "seed 0xA5B1")
    }

    private func changed(_ object: ByteBuffer, _ offset: Int, _ value: UInt8) -> ByteBuffer {
        var copy = object
        copy.setInteger(value, at: offset)
        return copy
    }

    private func resealedIfPossible(_ object: ByteBuffer, _ offset: Int, _ value: UInt8) throws -> ByteBuffer {
        guard !(12..<16).contains(offset), object.getInteger(at: 12, as: UInt32.self) == 212 else {
            return changed(object, offset, value)
        }
        return try resealed(object, at: offset, as: [value])
    }
}
