import AshlarCore
import RPC
import SCSI
import Testing

@testable import TargetNode

@Suite("Where a read fails")
struct ReadAddressTests {
    /// A read of `count` bytes from `offset` on: 2 blocks of zeros, 3 in an object, 2 in the cache.
    private static func assembly(_ offset: UInt64, _ count: UInt64, logical: UInt32 = 512) throws -> ReadAssembly {
        let geometry = try Geometry(sizeBytes: 1 << 30, blockSizeBytes: 4_096, logicalBlockSizeBytes: logical)
        let range = ByteRange(offset: offset, count: count)
        let assembly = ReadAssembly(range: range, task: nil, geometry: geometry) { _ in }
        assembly.runs = [
            .zeros(count: 2),
            .object(ObjectID(1), server: ObjectServerID(1), firstSlot: SlotIndex(9), origin: nil, count: 3),
            .bytes(checksums: [Checksum(1), Checksum(2)]),
        ]
        return assembly
    }

    @Test("I11: the LBA is that of the damaged block, not of the run it lies in")
    func damagedBlock() throws {
        let read = try Self.assembly(10 * 4_096, 7 * 4_096)
        #expect(read.address(ofRun: 1) == LBA(12 * 8))
        #expect((0...2).map { read.address(ofRun: 1, block: $0) } == [12, 13, 14].map { LBA($0 * 8) })
        #expect((0...1).map { read.address(ofRun: 2, block: $0) } == [15, 16].map { LBA($0 * 8) })
        let large = try Self.assembly(10 * 4_096, 7 * 4_096, logical: 4_096)
        #expect(large.address(ofRun: 2, block: 1) == LBA(16))
    }

    @Test("A read that begins in a block fails there, if that block is damaged, and at the beginning of any other")
    func beginningInABlock() throws {
        let read = try Self.assembly(10 * 4_096 + 1_024, 6 * 4_096)
        #expect(read.address(ofRun: 0) == LBA(82))
        #expect(read.address(ofRun: 0, block: 1) == LBA(88))
        #expect(read.address(ofRun: 2, block: 1) == LBA(128))
    }
}
