import AshlarCore
import NIOCore
import Testing

@testable import SCSI

@Suite struct ReadTests {
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    /// SBC-4, tables 55, 57, 59 and 61.
    @Test func extents() throws {
        #expect(plan("08 00 01 02 03 00", unit) == .read(0x102 * 512, 3 * 512))
        #expect(plan("28 00 00 00 01 02 00 00 03 00", unit) == .read(0x102 * 512, 3 * 512))
        #expect(plan("A8 00 00 00 01 02 00 00 00 03 00 00", unit) == .read(0x102 * 512, 3 * 512))
        #expect(
            plan("88 00 00 00 00 00 00 00 01 02 00 00 00 03 00 00", unit) == .read(0x102 * 512, 3 * 512)
        )
        let large = try makeUnit(sizeBytes: 1 << 50, logicalBlockSizeBytes: 4_096)
        #expect(plan("08 1F FF FF 01 00", large) == .read(0x1F_FFFF * 4_096, 4_096))
        #expect(plan("28 00 FF FF FF FF 00 00 02 00", large) == .read(0xFFFF_FFFF * 4_096, 8_192))
        #expect(
            plan("88 00 00 00 00 3F FF FF FF FF 00 00 00 01 00 00", large) == .read((1 << 50) - 4_096, 4_096)
        )
    }

    /// SBC-4, 5.12: a TRANSFER LENGTH of zero means 256 in READ (6), and nothing in the others.
    @Test func zeroLength() {
        #expect(plan("08 00 00 00 00 00", unit) == .read(0, 256 * 512))
        #expect(plan("28 00 00 00 00 00 00 00 00 00", unit) == .good)
        #expect(plan("28 00 00 00 80 00 00 00 00 00", unit) == .good)
        #expect(plan("A8 00 00 00 00 00 00 00 00 00 00 00", unit) == .good)
        #expect(plan("88 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", unit) == .good)
        #expect(plan("28 00 00 00 80 01 00 00 00 00", unit) == .outOfRange(0x8001))
        #expect(plan("88 00 FF FF FF FF FF FF FF FF 00 00 00 00 00 00", unit) == .outOfRange(.max))
    }

    @Test func cacheControlBits() {
        #expect(plan("28 08 00 00 00 00 00 00 01 00", unit) == .read(0, 512, fua: true))
        #expect(plan("A8 10 00 00 00 00 00 00 00 01 00 00", unit) == .read(0, 512, dpo: true))
        #expect(
            plan("88 1A 00 00 00 00 00 00 00 00 00 00 00 01 3F 00", unit) == .read(0, 512, fua: true, dpo: true)
        )
    }

    /// SBC-4, 5.13: without protection information RDPROTECT must be zero.
    @Test func protectionIsRefused() {
        for value in 1..<8 {
            let byte = hexadecimal([UInt8(value << 5)])
            #expect(plan("28 \(byte) 00 00 00 00 00 00 01 00", unit) == .field(1, 7))
            #expect(plan("A8 \(byte) 00 00 00 00 00 00 00 01 00 00", unit) == .field(1, 7))
            #expect(plan("88 \(byte) 00 00 00 00 00 00 00 00 00 00 00 01 00 00", unit) == .field(1, 7))
        }
    }

    /// The INFORMATION field names the first block outside.
    @Test func outOfRange() throws {
        #expect(plan("28 00 00 00 7F FF 00 00 01 00", unit) == .read(0x7FFF * 512, 512))
        #expect(plan("28 00 00 00 7F FF 00 00 02 00", unit) == .outOfRange(0x8000))
        #expect(plan("28 00 00 00 80 00 00 00 01 00", unit) == .outOfRange(0x8000))
        #expect(plan("28 00 FF FF FF FF 00 00 01 00", unit) == .outOfRange(0xFFFF_FFFF))
        #expect(plan("08 1F FF FF 01 00", unit) == .outOfRange(0x1F_FFFF))
        #expect(plan("A8 00 00 00 00 00 FF FF FF FF 00 00", unit) == .outOfRange(0x8000))
        #expect(plan("88 00 FF FF FF FF FF FF FF FF FF FF FF FF 00 00", unit) == .outOfRange(.max))
    }

    /// I12: VPD page B0h, MAXIMUM TRANSFER LENGTH.
    @Test func transferLengthAtItsLimit_I12() throws {
        #expect(plan("28 00 00 00 00 00 00 40 00 00", unit) == .read(0, 8 << 20))
        #expect(plan("28 00 00 00 00 00 00 40 01 00", unit) == .field(7, 7))
        #expect(plan("A8 00 00 00 00 00 00 00 40 01 00 00", unit) == .field(6, 7))
        #expect(plan("88 00 00 00 00 00 00 00 00 00 00 00 40 01 00 00", unit) == .field(10, 7))
        let large = try makeUnit(logicalBlockSizeBytes: 4_096)
        #expect(plan("28 00 00 00 00 00 00 08 00 00", large) == .read(0, 8 << 20))
        #expect(plan("28 00 00 00 00 00 00 08 01 00", large) == .field(7, 7))
    }

    @Test func impliedTransfers() throws {
        #expect(transfer("08 00 00 00 00 00", unit) == .dataIn(256 * 512))
        #expect(transfer("28 00 00 00 00 00 00 FF FF 00", unit) == .dataIn(0xFFFF * 512))
        #expect(transfer("88 00 00 00 00 00 00 00 00 00 FF FF FF FF 00 00", unit) == .dataIn(0xFFFF_FFFF * 512))
        #expect(transfer("28 00 00 00 00 00 00 00 02 00", unit).impliedByteCount(dataInCount: 0) == 1_024)
    }

    @Test func readOnlyVolumesCanBeRead() throws {
        #expect(plan("28 00 00 00 00 00 00 00 01 00", try makeUnit(isReadOnly: true)) == .read(0, 512))
    }
}

@Suite struct WriteTests {
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    /// SBC-4, tables 107, 109, 111 and 113.
    @Test func extents() throws {
        let data = filled(0xA5, 1_536)
        #expect(plan("0A 00 01 02 03 00", dataOut: data, unit) == .write(0x102 * 512, data))
        #expect(plan("2A 00 00 00 01 02 00 00 03 00", dataOut: data, unit) == .write(0x102 * 512, data))
        #expect(
            plan("AA 08 00 00 01 02 00 00 00 03 00 00", dataOut: data, unit) == .write(0x102 * 512, data, fua: true)
        )
        #expect(
            plan("8A 10 00 00 00 00 00 00 01 02 00 00 00 03 00 00", dataOut: data, unit)
                == .write(0x102 * 512, data, dpo: true)
        )
        let large = try makeUnit(sizeBytes: 1 << 43)
        #expect(
            plan("8A 00 00 00 00 02 00 00 00 01 00 00 00 03 00 00", dataOut: data, large)
                == .write(0x2_0000_0001 * 512, data)
        )
        #expect(plan("0A 00 00 00 00 00", dataOut: filled(1, 131_072), unit) == .write(0, filled(1, 131_072)))
    }

    /// The cases of libiscsi's Write10Residuals, Write12Residuals and Write16Residuals: GOOD, and the blocks that both sides know of;
    /// a part of a block is refused, not dropped.
    @Test(arguments: [
        "2A 00 00 00 00 00 00 00 %% 00", "AA 00 00 00 00 00 00 00 00 %% 00 00",
        "8A 00 00 00 00 00 00 00 00 00 00 00 00 %% 00 00",
    ])
    func residuals(_ template: String) {
        func cdb(_ blocks: String) -> String {
            let parts = template.split(separator: "%%")
            return parts[0] + blocks + parts[1]
        }
        #expect(plan(cdb("01"), dataOut: nil, unit) == .good)
        #expect(plan(cdb("01"), dataOut: ByteBuffer(), unit) == .good)
        #expect(plan(cdb("01"), dataOut: filled(1, 1_024), unit) == .write(0, filled(1, 512)))
        #expect(plan(cdb("02"), dataOut: filled(1, 512), unit) == .write(0, filled(1, 512)))
        #expect(plan(cdb("01"), dataOut: filled(1, 10_000), unit) == .write(0, filled(1, 512)))
        #expect(plan(cdb("03"), dataOut: filled(1, 1_024), unit) == .write(0, filled(1, 1_024)))
        #expect(plan(cdb("01"), dataOut: filled(1, 200), unit) == .refused(.wrongDataOutLength))
        #expect(plan(cdb("03"), dataOut: filled(1, 1_535), unit) == .refused(.wrongDataOutLength))
        #expect(transfer(cdb("01"), unit) == .dataOut(512))
    }

    /// The cases of libiscsi's ProutReserve.Access*: 512 bytes for a block of 4,096 are written, and the others keep theirs.
    @Test(arguments: [
        "0A 00 00 02 %% 00", "2A 00 00 00 00 02 00 00 %% 00", "AA 00 00 00 00 02 00 00 00 %% 00 00",
        "8A 00 00 00 00 00 00 00 00 02 00 00 00 %% 00 00",
    ])
    func aPartOfALargeBlock(_ template: String) throws {
        let large = try makeUnit(logicalBlockSizeBytes: 4_096)
        let (one, two) = (template.replacing("%%", with: "01"), template.replacing("%%", with: "02"))
        #expect(plan(one, dataOut: filled(1, 512), large) == .write(2 * 4_096, filled(1, 512)))
        #expect(plan(one, dataOut: filled(1, 3_584), large) == .write(2 * 4_096, filled(1, 3_584)))
        #expect(plan(two, dataOut: filled(1, 4_608), large) == .write(2 * 4_096, filled(1, 4_608)))
        #expect(plan(one, dataOut: filled(1, 4_608), large) == .write(2 * 4_096, filled(1, 4_096)))
        for count in [1, 200, 511, 513, 4_095] {
            #expect(plan(one, dataOut: filled(1, count), large) == .refused(.wrongDataOutLength))
        }
        #expect(plan(one, dataOut: nil, large) == .good)
        #expect(transfer(one, large) == .dataOut(4_096))
    }

    /// What is read again to be verified, or merged, is in whole logical blocks.
    @Test func onlyAPlainWriteEndsInsideOfABlock() throws {
        let large = try makeUnit(logicalBlockSizeBytes: 4_096)
        for cdb in [
            "2E 00 00 00 00 00 00 00 01 00", "8B 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00",
            "9C 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00", "89 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00",
        ] {
            #expect(plan(cdb, dataOut: filled(1, 512), large) == .refused(.wrongDataOutLength), "\(cdb)")
        }
    }

    @Test func theDataOutMayBeASliceOfALargerBuffer() throws {
        var buffer = ByteBuffer(bytes: [9, 9, 9])
        buffer.writeRepeatingByte(7, count: 600)
        buffer.moveReaderIndex(forwardBy: 3)
        #expect(plan("2A 00 00 00 00 00 00 00 01 00", dataOut: buffer, unit) == .write(0, filled(7, 512)))
    }

    @Test func zeroLengthIsGood() {
        #expect(plan("2A 00 00 00 00 00 00 00 00 00", dataOut: filled(1, 512), unit) == .good)
        #expect(plan("8A 00 00 00 00 00 00 00 80 00 00 00 00 00 00 00", unit) == .good)
        #expect(plan("8A 00 00 00 00 00 00 00 80 01 00 00 00 00 00 00", unit) == .outOfRange(0x8001))
    }

    @Test func refusals() throws {
        let data = filled(1, 1_024)
        #expect(plan("2A 20 00 00 00 00 00 00 01 00", dataOut: data, unit) == .field(1, 7))
        #expect(plan("2A 00 00 00 7F FF 00 00 02 00", dataOut: data, unit) == .outOfRange(0x8000))
        #expect(plan("2A 00 00 00 00 00 00 40 01 00", dataOut: data, unit) == .field(7, 7))
        #expect(plan("8A 00 00 00 00 00 00 00 00 00 00 01 00 00 00 00", dataOut: data, unit) == .outOfRange(0x8000))
    }

    /// SBC-4, 4.12: DATA PROTECT for every command that writes, with WRITE PROTECTED or, where SWP is one, LOGICAL UNIT SOFTWARE
    /// WRITE PROTECTED.
    @Test(arguments: [
        "0A 00 00 00 01 00", "2A 00 00 00 00 00 00 00 01 00", "AA 00 00 00 00 00 00 00 00 01 00 00",
        "8A 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00", "89 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00",
        "41 00 00 00 00 00 00 00 01 00", "93 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00",
        "42 00 00 00 00 00 00 00 18 00", "8B 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00",
        "9C 00 00 00 00 00 00 00 00 00 00 00 00 08 00 00", "2E 00 00 00 00 00 00 00 01 00",
        "AE 00 00 00 00 00 00 00 00 01 00 00", "8E 02 00 00 00 00 00 00 00 00 00 00 00 01 00 00",
        "48 02 00 00 00 00 00 00 00 00", "48 83 00 00 00 00 00 00 00 00", "04 00 00 00 00 00",
    ])
    func writeProtected(_ cdb: String) throws {
        let readOnly = try makeUnit(isReadOnly: true)
        let software = try makeUnit(mode: ModeParameters(isSoftwareWriteProtected: true))
        let data =
            cdb.hasPrefix("42")
            ? ByteBuffer(bytes: hex("00 16 00 10 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00 00"))
            : filled(1, 512)
        #expect(plan(cdb, dataOut: data, readOnly) == .refused(.writeProtected))
        #expect(plan(cdb, dataOut: data, software) == .refused(.softwareWriteProtected))
    }

    // MARK: COMPARE AND WRITE

    /// SBC-4, table 33.
    @Test func compareAndWrite() throws {
        var data = filled(0x11, 1_024)
        data.writeImmutableBuffer(filled(0x22, 1_024))
        let expected = SCSICommandPlan.compareAndWrite(
            range: ByteRange(offset: 0x102 * 512, count: 1_024),
            compare: filled(0x11, 1_024),
            write: filled(0x22, 1_024)
        )
        let cdb = "89 18 00 00 00 00 00 00 01 02 00 00 00 02 00 00"
        #expect(plan(cdb, dataOut: data, unit) == expected)
        #expect(transfer(cdb, unit) == .dataOut(2_048))
        #expect(plan(cdb, dataOut: filled(1, 2_047), unit) == .refused(.wrongDataOutLength))
        #expect(plan(cdb, dataOut: filled(1, 2_049), unit) == .refused(.wrongDataOutLength))
        #expect(plan(cdb, dataOut: nil, unit) == .refused(.wrongDataOutLength))
    }

    @Test func compareAndWriteLimits() throws {
        #expect(plan("89 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", unit) == .good)
        let most = plan("89 00 00 00 00 00 00 00 00 00 00 00 00 FF 00 00", dataOut: filled(0, 510 * 512), unit)
        guard case .compareAndWrite(let range, _, _) = most else {
            Issue.record("refused: \(most)")
            return
        }
        #expect(range.count == 255 * 512)
        // 256 blocks do not fit the one byte of NUMBER OF LOGICAL BLOCKS.
        #expect(
            plan("89 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", dataOut: filled(0, 512 * 512), unit)
                == .field(13, 7)
        )
        let large = try makeUnit(logicalBlockSizeBytes: 4_096)
        #expect(
            plan("89 00 00 00 00 00 00 00 00 00 00 00 00 21 00 00", dataOut: filled(0, 66 * 4_096), large)
                == .field(13, 7)
        )
        #expect(plan("89 00 00 00 00 00 00 00 7F FF 00 00 00 02 00 00", unit) == .outOfRange(0x8000))
        #expect(plan("89 20 00 00 00 00 00 00 00 00 00 00 00 01 00 00", unit) == .field(1, 7))
    }
}

@Suite struct VerifyAndCacheTests {
    private let unit: LogicalUnit
    private let verifies = [
        "2F %% 00 00 01 02 00 00 02 00", "AF %% 00 00 01 02 00 00 00 02 00 00",
        "8F %% 00 00 00 00 00 00 01 02 00 00 00 02 00 00",
    ]

    init() throws {
        unit = try makeUnit()
    }

    private func fill(_ template: String, _ byte: String) -> String {
        let parts = template.split(separator: "%%")
        return parts[0] + byte + parts[1]
    }

    /// SBC-4, table 101: BYTCHK.
    @Test func verify() {
        let range = ByteRange(offset: 0x102 * 512, count: 1_024)
        for template in verifies {
            let mediumOnly = SCSICommandPlan.verify(range: range, mode: .mediumOnly)
            #expect(plan(fill(template, "00"), unit) == mediumOnly)
            #expect(plan(fill(template, "10"), dataOut: filled(1, 1_024), unit) == mediumOnly)
            #expect(
                plan(fill(template, "02"), dataOut: filled(1, 1_024), unit)
                    == .verify(range: range, mode: .compareData(filled(1, 1_024)))
            )
            #expect(
                plan(fill(template, "06"), dataOut: filled(2, 512), unit)
                    == .verify(range: range, mode: .compareOneBlock(filled(2, 512)))
            )
            #expect(plan(fill(template, "04"), dataOut: filled(1, 1_024), unit) == .field(1, 2))
            #expect(plan(fill(template, "E2"), dataOut: filled(1, 1_024), unit) == .field(1, 7))
            #expect(plan(fill(template, "02"), dataOut: filled(1, 1_023), unit) == .refused(.wrongDataOutLength))
            #expect(plan(fill(template, "06"), dataOut: filled(1, 511), unit) == .refused(.wrongDataOutLength))
            #expect(plan(fill(template, "02"), dataOut: nil, unit) == .refused(.wrongDataOutLength))
            #expect(transfer(fill(template, "00"), unit) == .none)
            #expect(transfer(fill(template, "02"), unit) == .dataOut(1_024))
            #expect(transfer(fill(template, "06"), unit) == .dataOut(512))
        }
    }

    @Test func verifyLimits() {
        #expect(plan("2F 02 00 00 00 00 00 00 00 00", unit) == .good)
        #expect(plan("2F 00 00 00 80 01 00 00 00 00", unit) == .outOfRange(0x8001))
        #expect(plan("2F 00 00 00 7F FF 00 00 02 00", unit) == .outOfRange(0x8000))
        #expect(plan("2F 00 00 00 00 00 00 40 01 00", unit) == .field(7, 7))
        #expect(transfer("2F 06 00 00 00 00 00 00 00 00", unit) == .dataOut(0))
    }

    /// SBC-4, 5.33: a count of zero means all blocks to the end.
    @Test func synchronizeCache() {
        #expect(
            plan("35 00 00 00 01 02 00 00 02 00", unit)
                == .synchronizeCache(range: ByteRange(offset: 0x102 * 512, count: 1_024))
        )
        #expect(
            plan("91 02 00 00 00 00 00 00 00 01 00 00 00 00 00 00", unit)
                == .synchronizeCache(range: ByteRange(offset: 512, count: (16 << 20) - 512))
        )
        #expect(
            plan("35 00 00 00 00 00 00 00 00 00", unit)
                == .synchronizeCache(range: ByteRange(offset: 0, count: 16 << 20))
        )
        #expect(plan("35 00 00 00 80 00 00 00 00 00", unit) == .good)
        #expect(plan("35 00 00 00 80 01 00 00 00 00", unit) == .outOfRange(0x8001))
        #expect(plan("35 00 00 00 7F FF 00 00 02 00", unit) == .outOfRange(0x8000))
    }

    /// SBC-4, 5.10 and 5.11: GOOD, never CONDITION MET.
    @Test func prefetch() {
        #expect(plan("34 02 00 00 00 00 03 00 01 00", unit) == .good)
        #expect(plan("34 00 00 00 00 00 00 00 00 00", unit) == .good)
        #expect(plan("90 00 00 00 00 00 00 00 7F FF 00 00 00 01 00 00", unit) == .good)
        #expect(plan("90 00 00 00 00 00 00 00 7F FF 00 00 00 02 00 00", unit) == .outOfRange(0x8000))
        #expect(plan("34 00 00 00 80 01 00 00 00 00", unit) == .outOfRange(0x8001))
    }
}
