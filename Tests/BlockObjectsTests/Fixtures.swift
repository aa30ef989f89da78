import AshlarCore
import BlockObjects
import NIOCore

/// A generator with a seed, so that a failing test can be repeated.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

enum Fixtures {
    static let uuid: [UInt8] = Array(0..<16)

    static func checksum(_ buffer: ByteBuffer) -> Checksum {
        buffer.withUnsafeReadableBytes { Checksum(of: $0) }
    }

    static func bytes(_ hexadecimal: String) -> ByteBuffer {
        let digits = hexadecimal.filter { !$0.isWhitespace }.compactMap { $0.hexDigitValue }
        return ByteBuffer(
            bytes: stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
        )
    }

    static func zeros(_ size: Int) -> ByteBuffer { ByteBuffer(repeating: 0, count: size) }

    static func text(_ size: Int) -> ByteBuffer {
        ByteBuffer(bytes: (0..<size).map { Array("ashlar ".utf8)[$0 % 7] })
    }

    static func noise(_ size: Int, seed: UInt64) -> ByteBuffer {
        var generator = SeededGenerator(seed: seed)
        return ByteBuffer(bytes: (0..<size).map { _ in UInt8.random(in: 0...255, using: &generator) })
    }

    /// An object with a compressible, an incompressible and a zero block, and the plain blocks.
    static func mixed(blockSize: UInt32, compressed: Bool = true) throws -> (object: ByteBuffer, blocks: [ByteBuffer]) {
        let size = Int(blockSize)
        let blocks = [text(size), noise(size, seed: 1), zeros(size), text(size)]
        var builder = try BlockObjectBuilder(
            objectID: ObjectID(77),
            volumeID: VolumeID(5),
            volumeUUID: uuid,
            blockSizeBytes: blockSize,
            compressor: compressed ? BlockCompressor() : nil
        )
        for (index, block) in blocks.enumerated() {
            try builder.add(
                block: BlockID(UInt64(index) * 3),
                version: Version(UInt64(index) + 10),
                checksum: checksum(block),
                bytes: block
            )
        }
        return (try builder.finish(), blocks)
    }

    /// What an operation throws as an error of the module.
    static func code(_ body: () throws -> Void) -> BlockObjectError.Code? {
        do {
            try body()
            return nil
        } catch let error as BlockObjectError {
            return error.code
        } catch {
            return nil
        }
    }
}
