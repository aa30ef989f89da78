import AshlarCore
import BlockObjects
import NIOCore
import Testing

@Suite struct BuilderTests {
    private func builder(_ size: UInt32, compressor: BlockCompressor? = nil) throws -> BlockObjectBuilder {
        try BlockObjectBuilder(
            objectID: ObjectID(1),
            volumeID: VolumeID(1),
            volumeUUID: Fixtures.uuid,
            blockSizeBytes: size,
            compressor: compressor
        )
    }

    @Test(arguments: [512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536] as [UInt32])
    func everyBlockSizeGoesThereAndBack(size: UInt32) throws {
        let inflater = try BlockInflater()
        for compressed in [true, false] {
            let (object, blocks) = try Fixtures.mixed(blockSize: size, compressed: compressed)
            let reader = try BlockObjectReader(decoding: object)
            let text: SlotEncoding = compressed ? .zlib : .plain
            #expect(reader.header.slots.map(\.encoding) == [text, .plain, .zeros, text])
            for (index, block) in blocks.enumerated() {
                let slot = SlotIndex(UInt32(index))
                #expect(try reader.plain(slot, using: inflater) == block)
                #expect(reader.header.slots[index].checksum == Fixtures.checksum(block))
            }
            #expect(Int(reader.header.objectBytes) == object.readableBytes)
            if compressed { #expect(object.readableBytes < Int(size) + Int(size) / 2 + 300) }
        }
    }

    /// Runs in pieces make the same object, byte for byte, as their blocks one by one; zeros are left out of them wherever they lie.
    @Test(arguments: 1...12 as ClosedRange<UInt64>)
    func runsAreTakenAsTheirBlocksAre(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let size = 512
        var single = try builder(UInt32(size))
        var inRuns = try builder(UInt32(size))
        var next: UInt64 = 0
        for _ in 0..<Int(random.next() % 6) + 1 {
            let count = Int(random.next() % 7) + 1
            let blocks = (0..<count).map { _ in
                ByteBuffer(repeating: Int(random.next() % 3) == 0 ? 0 : UInt8(random.next() % 255 + 1), count: size)
            }
            let checksums = blocks.map { Fixtures.checksum($0) }
            let first = BlockID(next)
            let version = Version(next + 100)
            for (index, block) in blocks.enumerated() {
                try single.add(
                    block: first + UInt64(index),
                    version: Version(version.rawValue + UInt64(index)),
                    checksum: checksums[index],
                    bytes: block
                )
            }
            if count == 1 {
                try inRuns.add(block: first, version: version, checksum: checksums[0], bytes: blocks[0])
            } else {
                var bytes = ByteBuffer(string: "what lies before")
                bytes.moveReaderIndex(to: bytes.writerIndex)
                for block in blocks { bytes.writeImmutableBuffer(block) }
                try inRuns.add(run: first, firstVersion: version, checksums: checksums, bytes: bytes)
            }
            next += UInt64(count + Int(random.next() % 3))
        }
        let object = try single.finish()
        #expect(try inRuns.finish() == object && inRuns.byteCount == object.readableBytes)
        var joined = ByteBuffer()
        for piece in try inRuns.finishInPieces() { joined.writeImmutableBuffer(piece) }
        #expect(joined == object)
    }

    @Test func I11_aRunOfWhichABlockDoesNotMatchIsNotTaken() throws {
        var builder = try builder(512)
        let blocks = ByteBuffer(repeating: 7, count: 3 * 512)
        let good = Fixtures.checksum(ByteBuffer(repeating: 7, count: 512))
        func code(_ checksums: [Checksum], _ bytes: ByteBuffer, version: UInt64 = 1) -> BlockObjectError.Code? {
            do throws(BlockObjectError) {
                try builder.add(run: BlockID(0), firstVersion: Version(version), checksums: checksums, bytes: bytes)
                return nil
            } catch {
                return error.code
            }
        }
        #expect(code([good, Checksum(1), good], blocks) == .blockChecksum)
        #expect(code([good, good], blocks) == .badArgument)
        #expect(code([], ByteBuffer()) == .badArgument)
        #expect(code([good, good, good], blocks, version: 0) == .badArgument)
        let many = Int(Limits.objectSlotsMaximum) + 1
        let tooMany = ByteBuffer(repeating: 7, count: many * 512)
        #expect(code([Checksum](repeating: good, count: many), tooMany) == .tooLarge)
        #expect(builder.slotCount == 0)
        #expect(code([good, good, good], blocks) == nil && builder.slotCount == 3)
    }

    @Test func anObjectInTheMiddleOfABufferIsRead() throws {
        let object = try Fixtures.mixed(blockSize: 512).object
        var buffer = ByteBuffer(repeating: 0xEE, count: 13)
        buffer.writeImmutableBuffer(object)
        buffer.moveReaderIndex(forwardBy: 13)
        try BlockObjectReader(decoding: buffer).verify(using: BlockInflater())
    }

    /// A block of which `noise` bytes do not compress: the form is kept only from an eighth of saving on.
    @Test func compressionIsKeptOnlyWhereItSavesAnEighth() throws {
        let compressor = try BlockCompressor()
        var kept: [Int: SlotEncoding] = [:]
        for noise in [3_000, 3_400, 3_700, 4_000] {
            var block = Fixtures.noise(noise, seed: 3)
            block.writeRepeatingByte(7, count: 4_096 - noise)
            var builder = try builder(4_096, compressor: compressor)
            try builder.add(
                block: BlockID(0),
                version: Version(1),
                checksum: Fixtures.checksum(block),
                bytes: block
            )
            let reader = try BlockObjectReader(decoding: builder.finish())
            kept[noise] = reader.header.slots[0].encoding
            #expect(reader.header.slots[0].storedCount <= 3_584 || reader.header.slots[0].storedCount == 4_096)
        }
        #expect(kept == [3_000: .zlib, 3_400: .zlib, 3_700: .plain, 4_000: .plain])
    }

    @Test func compactionTakesSlotsAsTheyAre() throws {
        let inflater = try BlockInflater()
        let source = try BlockObjectReader(decoding: Fixtures.mixed(blockSize: 4_096).object)
        var target = try builder(4_096)
        for index in [2, 0, 1] as [UInt32] {
            let slot = source.header.slots[Int(index)]
            try target.add(
                block: slot.block,
                version: slot.version,
                stored: try source.stored(SlotIndex(index)),
                using: inflater
            )
        }
        let copy = try BlockObjectReader(decoding: target.finish())
        #expect(copy.header.slots.map(\.encoding) == [.zeros, .zlib, .plain])
        #expect(try copy.plain(SlotIndex(1), using: inflater) == Fixtures.text(4_096))
        #expect(copy.header.slots[1].storedChecksum == source.header.slots[0].storedChecksum)
        var bad = try source.stored(SlotIndex(0))
        bad.checksum = Checksum(0)
        let before = target.byteCount
        #expect(
            Fixtures.code { try target.add(block: BlockID(50), version: Version(9), stored: bad, using: inflater) }
                == .blockChecksum
        )
        #expect(target.byteCount == before)
    }

    @Test func I11_aBlockThatDoesNotMatchItsChecksumIsNotTaken() throws {
        var builder = try builder(512)
        let block = Fixtures.text(512)
        let right = Fixtures.checksum(block)
        func code(_ block: UInt64, _ version: UInt64, _ checksum: Checksum, _ bytes: ByteBuffer) -> BlockObjectError
            .Code?
        {
            Fixtures.code {
                try builder.add(block: BlockID(block), version: Version(version), checksum: checksum, bytes: bytes)
            }
        }
        #expect(code(1, 1, Checksum(right.rawValue ^ 1), block) == .blockChecksum)
        #expect(code(1, 0, right, block) == .badArgument)
        #expect(code(1 << 41, 1, right, block) == .badArgument)
        #expect(code(1, 1, right, Fixtures.text(511)) == .badArgument)
        #expect(builder.slotCount == 0)
        #expect(Fixtures.code { _ = try builder.finish() } == .badArgument)
        #expect(code(1, 1, right, block) == nil)
        #expect(code(0, 1, right, block) == nil)
        #expect(code(1, 1, right, block) == nil)
        #expect(Fixtures.code { _ = try builder.finish() } == .duplicateBlock)
    }

    @Test func I10_anObjectIsFullAtItsLimitOfSlots() throws {
        var builder = try builder(512)
        let block = Fixtures.zeros(512)
        let checksum = Fixtures.checksum(block)
        for index in 0..<UInt64(Limits.objectSlotsMaximum) {
            #expect(builder.hasRoom)
            try builder.add(block: BlockID(index), version: Version(1), checksum: checksum, bytes: block)
        }
        #expect(!builder.hasRoom)
        let code = Fixtures.code {
            try builder.add(block: BlockID(9_999), version: Version(1), checksum: checksum, bytes: block)
        }
        #expect(code == .tooLarge)
        let object = try builder.finish()
        #expect(object.readableBytes == BlockObjectsLimits.headerMaximumBytes)
        #expect(try BlockObjectReader(decoding: object).header.slots.count == 4_096)
    }

    @Test func I10_anObjectIsFullAtItsLimitOfBytes() throws {
        var builder = try builder(65_536)
        let block = Fixtures.noise(65_536, seed: 9)
        let checksum = Fixtures.checksum(block)
        var count: UInt64 = 0
        while builder.hasRoom {
            try builder.add(block: BlockID(count), version: Version(1), checksum: checksum, bytes: block)
            count += 1
        }
        #expect(count == 79)
        let code = Fixtures.code {
            try builder.add(block: BlockID(count), version: Version(1), checksum: checksum, bytes: block)
        }
        #expect(code == .tooLarge)
        let object = try builder.finish()
        #expect(object.readableBytes == builder.byteCount)
        #expect(object.readableBytes <= Limits.objectMaximumBytes)
        try BlockObjectReader(decoding: object).verifyStored()
    }

    @Test func aBuilderRefusesWhatNoVolumeHas() throws {
        #expect(Fixtures.code { _ = try builder(513) } == .badArgument)
        #expect(Fixtures.code { _ = try builder(131_072) } == .badArgument)
        let code = Fixtures.code {
            _ = try BlockObjectBuilder(
                objectID: ObjectID(1),
                volumeID: VolumeID(1),
                volumeUUID: [1, 2, 3],
                blockSizeBytes: 512,
                compressor: nil
            )
        }
        #expect(code == .badArgument)
    }
}
