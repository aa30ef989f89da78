import AshlarCore
import NIOCore
import Testing

@testable import SCSI

/// Puts two bytes of hexadecimal in a CDB.
private func fill(_ template: String, _ flags: String, _ blocks: String = "02") -> String {
    template.replacing("%%", with: flags).replacing("##", with: blocks)
}

@Suite struct OrWriteTests {
    private let unit: LogicalUnit
    private let cdb = "8B %% 00 00 00 00 00 00 01 02 00 00 00 ## 00 00"

    init() throws {
        unit = try makeUnit()
    }

    /// SBC-4, ORWRITE (16): the fields of WRITE (16), with ORPROTECT for WRPROTECT.
    @Test func orWrite() {
        let range = ByteRange(offset: 0x102 * 512, count: 1_024)
        for flags in ["00", "08", "10", "18", "02"] {
            #expect(
                plan(fill(cdb, flags), dataOut: filled(0xA5, 1_024), unit)
                    == .orWrite(range: range, data: filled(0xA5, 1_024))
            )
        }
        #expect(transfer(fill(cdb, "00"), unit) == .dataOut(1_024))
        for flags in ["20", "40", "60", "80", "A0", "C0", "E0"] {
            #expect(plan(fill(cdb, flags), dataOut: filled(1, 1_024), unit) == .field(1, 7))
        }
    }

    @Test func shortTransfers() {
        let block = ByteRange(offset: 0x102 * 512, count: 512)
        #expect(
            plan(fill(cdb, "00"), dataOut: filled(1, 512), unit) == .orWrite(range: block, data: filled(1, 512))
        )
        #expect(plan(fill(cdb, "00"), dataOut: nil, unit) == .good)
        #expect(plan(fill(cdb, "00"), dataOut: filled(1, 700), unit) == .refused(.wrongDataOutLength))
    }

    @Test func limits() {
        #expect(plan(fill(cdb, "00", "00"), unit) == .good)
        #expect(plan("8B 00 00 00 00 00 00 00 80 01 00 00 00 00 00 00", unit) == .outOfRange(0x8001))
        #expect(plan("8B 00 80 00 00 00 00 00 00 00 00 00 00 00 00 00", unit) == .outOfRange(1 << 63))
        #expect(plan("8B 00 FF FF FF FF FF FF FF FF 00 00 00 01 00 00", unit) == .outOfRange(.max))
        #expect(plan("8B 00 00 00 00 00 00 00 7F FF 00 00 00 02 00 00", unit) == .outOfRange(0x8000))
        #expect(plan("8B 00 00 00 00 00 00 00 00 00 00 00 40 01 00 00", unit) == .field(10, 7))
    }
}

@Suite struct WriteAtomicTests {
    private let unit: LogicalUnit
    private let cdb = "9C %% 00 00 00 00 00 00 01 08 00 00 00 ## 3F 00"

    init() throws {
        unit = try makeUnit()
    }

    /// SBC-4, WRITE ATOMIC (16): ATOMIC BOUNDARY in bytes 10 and 11, TRANSFER LENGTH in 12 and 13, GROUP NUMBER in 14.
    @Test func writeAtomic() {
        let data = filled(7, 4_096)
        #expect(plan(fill(cdb, "00", "08"), dataOut: data, unit) == .write(0x108 * 512, data))
        #expect(plan(fill(cdb, "08", "08"), dataOut: data, unit) == .write(0x108 * 512, data, fua: true))
        #expect(plan(fill(cdb, "18", "08"), dataOut: data, unit) == .write(0x108 * 512, data, fua: true, dpo: true))
        #expect(transfer(fill(cdb, "00", "08"), unit) == .dataOut(4_096))
        #expect(transfer("9C 00 00 00 00 00 00 00 00 00 FF FF 01 02 00 00", unit) == .dataOut(0x102 * 512))
        #expect(plan(fill(cdb, "20", "08"), dataOut: data, unit) == .field(1, 7))
        #expect(plan(fill(cdb, "02", "08"), dataOut: data, unit) == .field(1, 1))
    }

    /// MAXIMUM ATOMIC BOUNDARY SIZE is zero.
    @Test func atomicBoundaryIsRefused() {
        #expect(
            plan("9C 00 00 00 00 00 00 00 00 00 00 01 00 01 00 00", dataOut: filled(1, 512), unit) == .field(11, 0)
        )
        #expect(
            plan("9C 00 00 00 00 00 00 00 00 00 80 00 00 01 00 00", dataOut: filled(1, 512), unit) == .field(10, 7)
        )
    }

    /// I12: all or nothing, also of what the initiator sent.
    @Test func aPartIsNotWritten_I12() {
        #expect(plan(fill(cdb, "00", "08"), dataOut: filled(1, 512), unit) == .refused(.wrongDataOutLength))
        #expect(plan(fill(cdb, "00", "08"), dataOut: nil, unit) == .refused(.wrongDataOutLength))
        #expect(plan(fill(cdb, "00", "08"), dataOut: filled(1, 8_192), unit) == .write(0x108 * 512, filled(1, 4_096)))
    }

    /// ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY are the data block.
    @Test func onlyWholeDataBlocksAreWritten() throws {
        let cdb = "9C 00 00 00 00 00 00 00 01 0%% 00 00 00 0## 00 00"
        #expect(plan(fill(cdb, "1", "8"), dataOut: filled(1, 4_096), unit) == .field(2, 7))
        #expect(plan(fill(cdb, "8", "1"), dataOut: filled(1, 512), unit) == .field(12, 7))
        let single = try makeUnit(blockSizeBytes: 512)
        #expect(plan(fill(cdb, "1", "1"), dataOut: filled(1, 512), single) == .write(0x101 * 512, filled(1, 512)))
    }

    @Test func limits() throws {
        #expect(plan(fill(cdb, "00", "00"), unit) == .good)
        #expect(plan("9C 00 00 00 00 00 00 00 80 01 00 00 00 00 00 00", unit) == .outOfRange(0x8001))
        #expect(plan("9C 00 FF FF FF FF FF FF FF FF 00 00 00 01 00 00", unit) == .outOfRange(.max))
        #expect(plan("9C 00 00 00 00 00 00 00 7F 00 00 00 02 00 00 00", unit) == .outOfRange(0x8000))
        #expect(plan("9C 00 00 00 00 00 00 00 00 00 00 00 40 01 00 00", unit) == .field(12, 7))
        #expect(
            plan("9C 00 00 00 00 00 00 00 00 00 00 00 40 00 00 00", dataOut: filled(1, 8 << 20), unit)
                == .write(0, filled(1, 8 << 20))
        )
        let large = try makeUnit(logicalBlockSizeBytes: 4_096)
        #expect(plan("9C 00 00 00 00 00 00 00 00 00 00 00 08 01 00 00", large) == .field(12, 7))
    }
}

@Suite struct WriteAndVerifyTests {
    private static let cdbs = [
        "2E %% 00 00 01 02 00 00 ## 00", "AE %% 00 00 01 02 00 00 00 ## 00 00",
        "8E %% 00 00 00 00 00 00 01 02 00 00 00 ## 00 00",
    ]
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    private func written(_ data: ByteBuffer, dpo: Bool = false, compares: Bool) -> SCSICommandPlan {
        .writeAndVerify(
            WritePlan(
                range: ByteRange(offset: 0x102 * 512, count: UInt64(data.readableBytes)),
                data: data,
                isForceUnitAccess: false,
                isPageOutDisabled: dpo
            ),
            compares: compares
        )
    }

    /// SBC-4, WRITE AND VERIFY: BYTCHK 00b and 01b.
    @Test(arguments: cdbs)
    func byteCheck(_ cdb: String) {
        let data = filled(3, 1_024)
        #expect(plan(fill(cdb, "00"), dataOut: data, unit) == written(data, compares: false))
        #expect(plan(fill(cdb, "02"), dataOut: data, unit) == written(data, compares: true))
        #expect(plan(fill(cdb, "12"), dataOut: data, unit) == written(data, dpo: true, compares: true))
        #expect(plan(fill(cdb, "04"), dataOut: data, unit) == .field(1, 2))
        #expect(plan(fill(cdb, "06"), dataOut: data, unit) == .field(1, 2))
        #expect(plan(fill(cdb, "22"), dataOut: data, unit) == .field(1, 7))
        #expect(transfer(fill(cdb, "00"), unit) == .dataOut(1_024))
        #expect(transfer(fill(cdb, "02"), unit) == .dataOut(1_024))
    }

    /// The cases of libiscsi's WriteVerify10Residuals, WriteVerify12Residuals and WriteVerify16Residuals.
    @Test(arguments: cdbs)
    func residuals(_ cdb: String) {
        #expect(plan(fill(cdb, "02", "01"), dataOut: nil, unit) == .good)
        #expect(
            plan(fill(cdb, "02", "01"), dataOut: filled(1, 10_000), unit) == written(filled(1, 512), compares: true)
        )
        #expect(plan(fill(cdb, "02", "01"), dataOut: filled(1, 200), unit) == .refused(.wrongDataOutLength))
        #expect(
            plan(fill(cdb, "02", "02"), dataOut: filled(1, 512), unit) == written(filled(1, 512), compares: true)
        )
    }

    @Test func limits() {
        #expect(plan("2E 00 00 00 00 00 00 00 00 00", unit) == .good)
        #expect(plan("2E 00 00 00 80 01 00 00 00 00", unit) == .outOfRange(0x8001))
        #expect(plan("2E 02 00 00 7F FF 00 00 02 00", dataOut: filled(1, 1_024), unit) == .outOfRange(0x8000))
        #expect(plan("AE 02 00 00 00 00 00 00 40 01 00 00", unit) == .field(6, 7))
        #expect(plan("8E 02 FF FF FF FF FF FF FF FF 00 00 00 00 00 00", unit) == .outOfRange(.max))
    }
}
