import AshlarCore
import NIOCore
import Testing

@testable import BlockObjects

@Suite struct CompressionTrialsTests {
    private func noise(_ generator: inout SeededGenerator, count: Int = 4_096) -> ByteBuffer {
        ByteBuffer(bytes: (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) })
    }

    @Test(arguments: [512, 4_096, 65_536]) func noiseIsToldFromTextAndRecords(count: Int) {
        var generator = SeededGenerator(seed: 7)
        for _ in 0..<200 { #expect(CompressionTrials.looksLikeNoise(noise(&generator, count: count))) }
        let text = Array(
            "It was the best of times, it was the worst of times, it was the age of wisdom; 0123456789 ".utf8
        )
        #expect(!CompressionTrials.looksLikeNoise(ByteBuffer(bytes: (0..<count).map { text[$0 % text.count] })))
        // Records of 16 bytes, of which four are random.
        let records = (0..<count).map { $0 % 16 < 4 ? UInt8.random(in: 0...255, using: &generator) : 0 }
        #expect(!CompressionTrials.looksLikeNoise(ByteBuffer(bytes: records)))
        #expect(!CompressionTrials.looksLikeNoise(ByteBuffer(repeating: 0, count: count)))
    }

    @Test func noiseInVainIsTriedSeldomAndAnythingElseAlways() {
        var generator = SeededGenerator(seed: 8)
        var trials = CompressionTrials()
        var tried: [Int] = []
        for number in 1...64 {
            #expect(
                !trials.compress(noise(&generator)) {
                    tried.append(number); return false
                }
            )
        }
        #expect(tried == [1, 2, 3, 4, 16, 32, 48, 64])
        var attempts = 0
        for _ in 0..<10 {
            #expect(
                !trials.compress(ByteBuffer(repeating: 1, count: 4_096)) {
                    attempts += 1; return false
                }
            )
        }
        #expect(attempts == 10)
        #expect(!trials.compress(noise(&generator)) { true }, "the 65th is not tried")
        for _ in 66..<80 { _ = trials.compress(noise(&generator)) { true } }
        #expect(trials.compress(noise(&generator)) { true }, "the 80th is")
        // What became smaller although it looks like noise has the next ones tried.
        for _ in 0..<10 { #expect(trials.compress(noise(&generator)) { true }) }
    }

    /// Text among noise still becomes smaller.
    @Test func textAmongNoiseIsCompressed() throws {
        var generator = SeededGenerator(seed: 9)
        var builder = try BlockObjectBuilder(
            objectID: ObjectID(1),
            volumeID: VolumeID(1),
            volumeUUID: [UInt8](repeating: 1, count: 16),
            blockSizeBytes: 4_096,
            compressor: BlockCompressor()
        )
        var plain = 0
        for number in 0..<100 as Range<UInt64> {
            let isText = number % 10 == 9
            let bytes = isText ? ByteBuffer(repeating: 65, count: 4_096) : noise(&generator)
            try builder.add(block: BlockID(number), version: Version(1), checksum: bytes.checksum, bytes: bytes)
            plain += isText ? 0 : 4_096
        }
        #expect(builder.byteCount - BlockObjectsLimits.headerBytes(slotCount: 100) < plain + 10 * 100)
    }
}
