import AshlarCore
import SCSI
import Testing

@testable import TargetNode

@Suite("What is done at once of an EXTENDED COPY")
struct CopyStepTests {
    private static let block: UInt64 = 4_096
    private static let most = UInt64(Limits.transferMaximumBytes)

    private static func step(_ from: UInt64, _ to: UInt64, _ count: UInt64, inVolume: Bool = true) -> CopyStep {
        CopyStep(
            from: ByteRange(offset: from, count: count),
            to: ByteRange(offset: to, count: count),
            blockBytes: inVolume ? block : nil
        )
    }

    /// How a whole copy is cut: bytes, and whether the owner does it.
    private static func steps(_ from: UInt64, _ to: UInt64, _ count: UInt64) -> [String] {
        var result: [String] = []
        var done: UInt64 = 0
        while done < count {
            let step = step(from + done, to + done, count - done)
            result.append("\(step.count)\(step.isInside ? " inside" : "")")
            done += step.count
        }
        return result
    }

    @Test("Between volumes everything is read and written, a transfer at a time")
    func betweenVolumes() {
        #expect(Self.step(0, 0, 3 * Self.most, inVolume: false).count == Self.most)
        #expect(!Self.step(0, 1 << 20, Self.block, inVolume: false).isInside)
    }

    @Test("Inside a volume the whole data blocks are the owner's, what is around them is not")
    func inside() {
        #expect(Self.steps(0, 1 << 30, 2 * Self.most) == ["\(Self.most) inside", "\(Self.most) inside"])
        #expect(Self.steps(512, (1 << 30) + 512, 2 * Self.block) == ["3584", "4096 inside", "512"])
        #expect(Self.steps(512, (1 << 30) + 512, 1_024) == ["1024"])
        #expect(Self.steps(0, 1 << 30, 512) == ["512"])
    }

    @Test("Blocks that are shifted against each other are read and written")
    func shifted() {
        #expect(Self.steps(512, 1 << 30, 3 * Self.block) == ["12288"])
        #expect(Self.steps(0, (1 << 30) + 512, Self.block) == ["4096"])
    }

    @Test("A copy that overlaps itself goes on in steps that do not; onto itself it is read and written")
    func overlapping() {
        #expect(Self.steps(0, 2 * Self.block, 5 * Self.block) == ["8192 inside", "8192 inside", "4096 inside"])
        #expect(Self.steps(2 * Self.block, 0, 5 * Self.block) == ["8192 inside", "8192 inside", "4096 inside"])
        #expect(Self.steps(Self.block, Self.block, 2 * Self.block) == ["8192"])
    }
}

@Suite("What a session remembers of its copies")
struct CopyRecordsTests {
    private static func record(_ identifier: UInt32, _ progress: CopyRecord.Progress) -> CopyRecord {
        CopyRecord(listIdentifier: identifier, progress: progress, segmentsDone: 0, bytesWritten: 0)
    }

    @Test("Copies that have ended are forgotten, oldest first, those that run never")
    func bounds() {
        var records = CopyRecords()
        records.put(Self.record(1, .inProgress))
        for identifier in 2...UInt32(SCSILimits.copiesMaximum + 3) { records.put(Self.record(identifier, .done)) }
        #expect(records.isRunning(1))
        #expect(records.record(2) == nil && records.record(3) == nil && records.record(4)?.progress == .done)
        records.put(Self.record(1, .done))
        #expect(!records.isRunning(1) && records.record(1)?.progress == .done)
    }
}
