import AshlarCore
import Testing

@Suite("Geometry and limits")
struct GeometryTests {
    @Test("a geometry outside its bounds is refused, and the dimension is named")
    func refusals() {
        #expect(throws: GeometryError.blockSize(3_000)) { try Geometry(sizeBytes: 1 << 20, blockSizeBytes: 3_000) }
        #expect(throws: GeometryError.blockSize(256)) { try Geometry(sizeBytes: 1 << 20, blockSizeBytes: 256) }
        #expect(throws: GeometryError.blockSize(131_072)) { try Geometry(sizeBytes: 1 << 20, blockSizeBytes: 131_072) }
        #expect(throws: GeometryError.logicalBlockSize(4_096)) {
            try Geometry(sizeBytes: 1 << 20, blockSizeBytes: 512, logicalBlockSizeBytes: 4_096)
        }
        #expect(throws: GeometryError.logicalBlockSize(1_024)) {
            try Geometry(sizeBytes: 1 << 20, logicalBlockSizeBytes: 1_024)
        }
        #expect(throws: GeometryError.size(0)) { try Geometry(sizeBytes: 0) }
        #expect(throws: GeometryError.size(4_097)) { try Geometry(sizeBytes: 4_097) }
        #expect(throws: GeometryError.size((1 << 50) + 4_096)) { try Geometry(sizeBytes: (1 << 50) + 4_096) }
    }

    @Test("blocks that a run of bytes touches, and blocks inside it")
    func blocks() throws {
        let geometry = try Geometry(sizeBytes: 1 << 20)
        let range = ByteRange(offset: 512, count: 8_192)
        #expect(geometry.blocks(touching: range) == BlockRange(first: BlockID(0), count: 3))
        #expect(geometry.blocks(inside: range) == BlockRange(first: BlockID(1), count: 1))
        let small = ByteRange(offset: 512, count: 512)
        #expect(geometry.blocks(touching: small) == BlockRange(first: BlockID(0), count: 1))
        #expect(geometry.blocks(inside: small).isEmpty)
        let whole = ByteRange(offset: 4_096, count: 4_096)
        #expect(geometry.blocks(touching: whole) == geometry.blocks(inside: whole))
        #expect(geometry.blocks(touching: ByteRange(offset: 0, count: 0)).isEmpty)
    }

    @Test("a run of bytes beyond the end, or one whose end overflows, is outside")
    func containment() throws {
        let geometry = try Geometry(sizeBytes: 1 << 20)
        #expect(geometry.contains(ByteRange(offset: 0, count: 1 << 20)))
        #expect(geometry.contains(ByteRange(offset: 1 << 20, count: 0)))
        #expect(!geometry.contains(ByteRange(offset: 1 << 20, count: 1)))
        #expect(!geometry.contains(ByteRange(offset: .max, count: 2)))
    }

    @Test("the limits fit each other (I10)")
    func limits() {
        #expect(Int(Limits.transferMaximumBytes) + 1_024 * 1_024 < Limits.frameMaximumBytes)
        #expect(Limits.frameMaximumBytes < Int(Limits.rpcWindowBytes))
        #expect(Int(Limits.transferMaximumBytes) <= Limits.batchMaximumBytes)
        #expect(Limits.transferMaximumBytes / Limits.blockSizeMinimumBytes <= UInt32(Limits.batchMaximumBlocks))
        #expect(Limits.objectTargetBytes < Limits.objectMaximumBytes)
        #expect(Limits.objectMaximumBytes < Limits.frameMaximumBytes)
        #expect(Limits.commandDeadlineMilliseconds < 30_000, "Linux gives a command 30 s")
        #expect(Limits.nexusTimeToLiveMilliseconds < Limits.commandDeadlineMilliseconds)
        #expect(Limits.compareAndWriteMaximumBytes * 2 <= Limits.transferMaximumBytes)
        #expect(Limits.zeroStepMaximumBytes % UInt64(Limits.blockSizeMaximumBytes) == 0)
    }
}
