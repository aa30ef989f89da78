import AshlarCore
import BlockObjects
import NIOCore

let objectBenchmarks = [
    // Blocks that cannot be compressed, and are not tried to be: one operation is a block.
    Benchmark("object/build-block", step: 64, counted: 1_024) {
        { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations / 64 {
                var builder = try emptyObject()
                for index in 0..<64 {
                    try builder.add(
                        block: BlockID(UInt64(index)),
                        version: Version(1),
                        checksum: blockChecksum,
                        bytes: block
                    )
                }
                sum &+= UInt64(try builder.finish().readableBytes)
            }
            return sum
        }
    },
    // The header of an object of 1,024 slots of zeros, which has nothing else.
    Benchmark("object/encode-header", counted: 64) {
        let builder = try objectOfZeros()
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations { sum &+= UInt64(try builder.finish().readableBytes) }
            return sum
        }
    },
    Benchmark("object/decode-header", counted: 64) {
        let bytes = try objectOfZeros().finish()
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations { sum &+= UInt64(try BlockObjectHeader(decoding: bytes).slots.count) }
            return sum
        }
    },
]

private func emptyObject() throws -> BlockObjectBuilder {
    try BlockObjectBuilder(
        objectID: ObjectID(1),
        volumeID: VolumeID(1),
        volumeUUID: Array(0..<16),
        blockSizeBytes: UInt32(blockBytes),
        compressor: nil
    )
}

private func objectOfZeros() throws -> BlockObjectBuilder {
    var builder = try emptyObject()
    let zeros = ByteBuffer(repeating: 0, count: blockBytes)
    for index in 0..<1_024 {
        try builder.add(
            block: BlockID(UInt64(index)),
            version: Version(1),
            checksum: .zeros(count: blockBytes),
            bytes: zeros
        )
    }
    return builder
}
