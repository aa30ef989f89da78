import AshlarCore
import NIOCore
import Testing

@testable import SCSI

@Suite struct ReadDefectDataTests {
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    /// SBC-4, READ DEFECT DATA (10): both lists are there, and empty.
    @Test func tenBytes() throws {
        #expect(try dataIn(plan("37 00 00 00 00 00 00 00 20 00", unit)) == hex("00 00 00 00"))
        #expect(try dataIn(plan("37 00 18 00 00 00 00 00 20 00", unit)) == hex("00 18 00 00"))
        #expect(try dataIn(plan("37 00 0D 00 00 00 00 00 20 00", unit)) == hex("00 0D 00 00"))
        #expect(try dataIn(plan("37 00 15 00 00 00 00 00 02 00", unit)) == hex("00 15"))
        #expect(transfer("37 00 00 00 00 00 00 01 20 00", unit) == .dataInAtMost(0x120))
    }

    /// SBC-4, READ DEFECT DATA (12): eight bytes of header, whatever the ADDRESS DESCRIPTOR INDEX.
    @Test func twelveBytes() throws {
        #expect(try dataIn(plan("B7 00 00 00 00 00 00 00 00 20 00 00", unit)) == hex("00 00 00 00 00 00 00 00"))
        #expect(try dataIn(plan("B7 18 00 00 01 00 00 00 00 20 00 00", unit)) == hex("00 18 00 00 00 00 00 00"))
        #expect(try dataIn(plan("B7 0C 00 00 00 00 00 00 00 05 00 00", unit)) == hex("00 0C 00 00 00"))
        #expect(transfer("B7 00 00 00 00 00 00 01 02 03 00 00", unit) == .dataInAtMost(0x1_0203))
    }

    /// 110b is vendor specific, 111b reserved.
    @Test func unknownFormats() {
        #expect(plan("37 00 06 00 00 00 00 00 20 00", unit) == .field(2, 2))
        #expect(plan("37 00 1F 00 00 00 00 00 20 00", unit) == .field(2, 2))
        #expect(plan("B7 06 00 00 00 00 00 00 00 20 00 00", unit) == .field(1, 2))
        #expect(plan("B7 07 00 00 00 00 00 00 00 20 00 00", unit) == .field(1, 2))
    }
}

@Suite struct LBAStatusTests {
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    private func query(_ address: UInt64 = 0, allocation: UInt64 = 65_536) -> LBAStatusQuery {
        LBAStatusQuery(
            range: ByteRange(offset: address * 512, count: (0x8000 - address) * 512),
            allocationLength: allocation
        )
    }

    private func run(_ address: UInt64, _ blocks: UInt64, mapped: Bool) -> MapRun {
        MapRun(range: ByteRange(offset: address * 512, count: blocks * 512), isMapped: mapped)
    }

    private func bytes(_ response: SCSIResponse) -> [UInt8] {
        response.dataIn.map { Array($0.readableBytesView) } ?? []
    }

    /// SBC-4, GET LBA STATUS (16): STARTING LOGICAL BLOCK ADDRESS, ALLOCATION LENGTH, REPORT TYPE.
    @Test func plans() {
        #expect(
            plan("9E 12 00 00 00 00 00 00 01 02 00 00 01 00 00 00", unit)
                == .lbaStatus(query(0x102, allocation: 256))
        )
        #expect(plan("9E 12 00 00 00 00 00 00 00 00 00 00 00 00 00 00", unit) == .lbaStatus(query(allocation: 0)))
        #expect(
            plan("9E 12 00 00 00 00 00 00 7F FF 00 00 00 18 00 00", unit)
                == .lbaStatus(query(0x7FFF, allocation: 24))
        )
        #expect(plan("9E 12 00 00 00 00 00 00 80 00 00 00 00 18 00 00", unit) == .outOfRange(0x8000))
        #expect(plan("9E 12 80 00 00 00 00 00 00 00 00 00 00 18 00 00", unit) == .outOfRange(1 << 63))
        #expect(plan("9E 12 FF FF FF FF FF FF FF FF 00 00 00 18 00 00", unit) == .outOfRange(.max))
        #expect(transfer("9E 12 00 00 00 00 00 00 00 00 00 01 00 18 00 00", unit) == .dataInAtMost(0x1_0018))
        for type in ["01", "02", "03", "04", "10", "FF"] {
            #expect(plan("9E 12 00 00 00 00 00 00 00 00 00 00 00 18 \(type) 00", unit) == .field(14, 7))
        }
    }

    /// SBC-4, GET LBA STATUS parameter data: PROVISIONING STATUS 0h mapped, 1h deallocated.
    @Test func descriptors() {
        let runs = [run(0, 8, mapped: true), run(8, 0x10, mapped: false), run(0x18, 0x7FE8, mapped: true)]
        let expected = hex(
            """
            00000034 00000000
            0000000000000000 00000008 00 000000
            0000000000000008 00000010 01 000000
            0000000000000018 00007FE8 00 000000
            """
        )
        #expect(bytes(query().response(runs, unit: unit)) == expected)
        for length in 0..<expected.count {
            let part = query(allocation: UInt64(length)).response(runs, unit: unit)
            #expect(bytes(part) == Array(expected.prefix(length)))
        }
        #expect(bytes(query().response([], unit: unit)) == hex("00000004 00000000"))
    }

    @Test func neighboursOfOneStateAreJoined() {
        let runs = [
            run(0, 8, mapped: true), run(8, 8, mapped: true), run(16, 8, mapped: false), run(24, 8, mapped: false),
        ]
        let expected = hex("00000024 00000000 0000000000000000 00000010 00000000 0000000000000010 00000010 01000000")
        #expect(bytes(query().response(runs, unit: unit)) == expected)
    }

    /// A run of a data block may begin before the address that was asked for.
    @Test func theFirstDescriptorBeginsAtTheStartingAddress() {
        let expected = hex("00000014 00000000 0000000000000009 00000007 00000000")
        #expect(bytes(query(9).response([run(8, 8, mapped: true)], unit: unit)) == expected)
        #expect(bytes(query(9).response([run(0, 8, mapped: true)], unit: unit)) == hex("00000004 00000000"))
    }

    /// NUMBER OF LOGICAL BLOCKS has 32 bits.
    @Test func longRunsAreSplit() throws {
        let large = try makeUnit(sizeBytes: 1 << 50)
        let query = LBAStatusQuery(range: ByteRange(offset: 0, count: 1 << 50), allocationLength: 40)
        let response = query.response(
            [MapRun(range: ByteRange(offset: 0, count: (1 << 33) * 512), isMapped: false)],
            unit: large
        )
        let expected = hex("00000034 00000000 0000000000000000 FFFFFFFF 01000000 00000000FFFFFFFF FFFFFFFF 01000000")
        #expect(bytes(response) == expected)
    }

    @Test func thereIsAMostOfDescriptors() {
        let count = UInt64(SCSILimits.lbaStatusDescriptorsMaximum)
        let runs = (0...count).map { run($0, 1, mapped: $0 % 2 == 0) }
        let data = bytes(query(allocation: .max).response(runs, unit: unit))
        #expect(data.count == 8 + 16 * Int(count))
        #expect(Array(data[..<8]) == hex("00010004 00000000"))
    }
}
