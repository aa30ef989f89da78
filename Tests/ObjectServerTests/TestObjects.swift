import AshlarCore
import BlockObjects
import NIOCore

/// Bytes of a block: 0 gives zeros, odd seeds text that compresses, even ones noise that does not.
func block(seed: UInt64, count: Int = 4_096) -> ByteBuffer {
    var state = seed
    var buffer = ByteBuffer()
    for index in 0..<count {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        let byte: UInt8 =
            seed == 0 ? 0 : seed % 2 == 1 ? UInt8(truncatingIfNeeded: seed) &+ UInt8(index % 7) : UInt8(state >> 56)
        buffer.writeInteger(byte)
    }
    return buffer
}

extension ByteBuffer {
    var checksum: Checksum { withUnsafeReadableBytes { Checksum(of: $0) } }
}

/// An object whose slot n holds block 10 + n in version 100 + n, made of the n-th seed.
func object(_ id: UInt64, seeds: [UInt64]) throws -> ByteBuffer {
    var builder = try BlockObjectBuilder(
        objectID: ObjectID(id),
        volumeID: VolumeID(3),
        volumeUUID: [UInt8](repeating: 9, count: 16),
        blockSizeBytes: 4_096,
        compressor: try BlockCompressor()
    )
    for (index, seed) in seeds.enumerated() {
        let bytes = block(seed: seed)
        try builder.add(
            block: BlockID(10 + UInt64(index)),
            version: Version(100 + UInt64(index)),
            checksum: bytes.checksum,
            bytes: bytes
        )
    }
    return try builder.finish()
}
