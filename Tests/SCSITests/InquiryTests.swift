import AshlarCore
import NIOCore
import Testing

@testable import SCSI

@Suite struct InquiryTests {
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    /// SPC-5, table 145; version descriptors from table 151.
    @Test func standardData() throws {
        var expected = hex("00 00 06 12 5B 18 10 02")
        expected += Array("ASHLAR  VOLUME          0001".utf8)
        expected += [UInt8](repeating: 0, count: 22)
        expected += hex("00A0 0960 0460 04C0 0600")
        expected += [UInt8](repeating: 0, count: 28)
        #expect(expected.count == 96)
        #expect(try dataIn(plan("12 00 00 01 00 00", unit)) == expected)
    }

    @Test func allocationLengthCuts() throws {
        let whole = try dataIn(plan("12 00 00 FF FF 00", unit))
        for length in UInt8.min...UInt8.max {
            let part = try dataIn(plan("12 00 00 00 \(hexadecimal([length])) 00", unit))
            #expect(part == Array(whole.prefix(Int(length))))
        }
        #expect(transfer("12 00 00 01 02 00", unit) == .dataInAtMost(0x102))
        #expect(transfer("12 00 00 01 02 00", unit).impliedByteCount(dataInCount: 96) == 96)
    }

    /// SPC-5, 6.7.1: PAGE CODE without EVPD.
    @Test func pageCodeWithoutEVPD() {
        #expect(plan("12 00 01 00 FF 00", unit) == .field(2, 7))
        #expect(plan("12 00 80 00 FF 00", unit) == .field(2, 7))
    }

    /// SPC-5, table 147: qualifier 011b and type 1Fh.
    @Test func otherLUN() throws {
        let data = try dataIn(plan("12 00 00 00 FF 00", lun: 1 << 48, unit))
        #expect(data.count == 96)
        #expect(data[0] == 0x7F)
        #expect(try dataIn(plan("12 01 00 00 FF 00", lun: 1 << 48, unit)) == hex("7F 00 00 01 00"))
        #expect(plan("12 01 83 00 FF 00", lun: 1 << 48, unit) == .field(2, 7))
    }

    @Test func revisionIsFourPrintableCharacters() throws {
        var other = unit
        for (text, expected) in [("1", "1   "), ("12345", "1234"), ("a\u{7}é", "a   "), ("", "    ")] {
            other.productRevision = text
            let data = try dataIn(plan("12 00 00 00 FF 00", other))
            #expect(Array(data[32..<36]) == Array(expected.utf8))
        }
    }

    // MARK: Vital product data

    /// SPC-5, 7.7.16: ascending order.
    @Test func supportedPages() throws {
        let data = try dataIn(plan("12 01 00 00 FF 00", unit))
        #expect(data == hex("00 00 00 0A 00 80 83 86 87 88 8F B0 B1 B2"))
        for code in data[4...] {
            let page = try dataIn(plan("12 01 \(hexadecimal([code])) 04 00 00", unit))
            #expect(page[1] == code)
            #expect(Int(page[2]) << 8 | Int(page[3]) == page.count - 4)
        }
    }

    @Test func otherPagesAreRefused() throws {
        let known: Set<UInt8> = [0x00, 0x80, 0x83, 0x86, 0x87, 0x88, 0x8F, 0xB0, 0xB1, 0xB2]
        for code in UInt8.min...UInt8.max where !known.contains(code) {
            #expect(plan("12 01 \(hexadecimal([code])) 00 FF 00", unit) == .field(2, 7))
        }
    }

    /// SPC-5, 7.7.17.
    @Test func unitSerialNumber() throws {
        let expected = hex("00 80 00 20") + Array("0123456789abcdef0f1e2d3c4b5a6978".utf8)
        #expect(try dataIn(plan("12 01 80 00 FF 00", unit)) == expected)
    }

    /// SPC-5, 7.7.6 with table 592.
    @Test func deviceIdentification() throws {
        var expected = hex("00 83 00 C2")
        expected += hex("01 03 00 08 3E 3D 68 5B C2 F1 A4 97")
        expected += hex("02 01 00 28") + Array("ASHLAR  0123456789abcdef0f1e2d3c4b5a6978".utf8)
        expected += hex("01 0A 00 12 10 00") + goldenUUID
        expected += hex("03 08 00 18") + Array("naa.3e3d685bc2f1a497".utf8) + hex("00 00 00 00")
        expected += hex("51 94 00 04 00 00 02 03")
        expected += hex("51 95 00 04 00 00 00 01")
        expected += hex("53 98 00 24") + Array("iqn.2026-01.org.ashlar:v1,t,0x0001".utf8) + hex("00 00")
        expected += hex("53 A8 00 1C") + Array("iqn.2026-01.org.ashlar:v1".utf8) + hex("00 00 00")
        #expect(try dataIn(plan("12 01 83 04 00 00", unit)) == expected)
    }

    /// I9: every target names the volume in the same words.
    @Test func designatorsOfTheUnitDoNotDependOnTheTarget_I9() throws {
        var other = unit
        other.targetName = "iqn.2026-01.org.ashlar:elsewhere"
        other.portalGroupTag = 0xABCD
        other.relativePortIdentifier = 9
        let first = try dataIn(plan("12 01 83 04 00 00", unit))
        let second = try dataIn(plan("12 01 83 04 00 00", other))
        #expect(Array(first[4..<110]) == Array(second[4..<110]))
        #expect(Array(second[110..<126]) == hex("51 94 00 04 00 00 00 09 51 95 00 04 00 00 AB CD"))
    }

    @Test func longNamesAndShortIdentifiersStayWellFormed() throws {
        var other = unit
        other.targetName = "iqn." + String(repeating: "x", count: 400)
        other.volume.uuid = [1, 2, 3]
        let page = try dataIn(plan("12 01 83 FF FF 00", other))
        var offset = 4
        while offset < page.count {
            let length = Int(page[offset + 3])
            #expect(page[offset + 1] & 0x0F != 8 || length % 4 == 0)
            offset += 4 + length
        }
        #expect(offset == page.count)
        #expect(Int(page[2]) << 8 | Int(page[3]) == page.count - 4)
    }

    /// SPC-5, table 600.
    @Test func extendedInquiry() throws {
        let expected = hex("00 86 00 3C 00 07 00 01") + [UInt8](repeating: 0, count: 56)
        #expect(try dataIn(plan("12 01 86 00 FF 00", unit)) == expected)
    }

    /// SPC-5, 7.7: all mode pages and subpages are shared.
    @Test func modePagePolicy() throws {
        #expect(try dataIn(plan("12 01 87 00 FF 00", unit)) == hex("00 87 00 04 3F FF 00 00"))
    }

    /// SPC-5, 7.7: the ports' descriptors, each with designation descriptors as page 83h has them.
    @Test func ports() throws {
        var expected = hex("00 88 00 3C 00 00 02 03 00 00 00 00 00 00 00 30 51 94 00 04 00 00 02 03")
        expected += hex("53 98 00 24") + Array("iqn.2026-01.org.ashlar:v1,t,0x0001".utf8) + hex("00 00")
        #expect(try dataIn(plan("12 01 88 01 00 00", unit)) == expected)

        let second = TargetPort(portalGroupTag: 0xABCD, relativePortIdentifier: 9)
        let two = try makeUnit(targetPorts: [unit.targetPort, second])
        expected[3] = 0x78
        expected += hex("00 00 00 09 00 00 00 00 00 00 00 30 51 94 00 04 00 00 00 09")
        expected += hex("53 98 00 24") + Array("iqn.2026-01.org.ashlar:v1,t,0xabcd".utf8) + hex("00 00")
        #expect(try dataIn(plan("12 01 88 01 00 00", two)) == expected)
        #expect(try dataIn(plan("12 01 88 00 11 00", two)) == Array(expected.prefix(17)))
    }

    @Test func portsAtTheirLimit() throws {
        let ports = (1...200).map { TargetPort(portalGroupTag: UInt16($0), relativePortIdentifier: UInt16($0)) }
        var many = try makeUnit(targetPorts: ports)
        many.targetName = "iqn." + String(repeating: "x", count: 400)
        let page = try dataIn(plan("12 01 88 FF FF 00", many))
        #expect(page.count == 4 + SCSILimits.reportedPortsMaximum * (12 + 8 + 4 + SCSINames.nameStringMaximumBytes))
        #expect(Int(page[2]) << 8 | Int(page[3]) == page.count - 4)
    }

    /// SBC-4, table 186, 512-byte logical blocks.
    @Test func blockLimits() throws {
        let expected = hex(
            """
            00 B0 00 3C 00 FF 0008 00004000 00000800 00000000 00100000 00000100 00000008 80000000
            0000000000004000 00004000 00000008 00000008 00000000 00000000
            """
        )
        #expect(expected.count == 64)
        #expect(try dataIn(plan("12 01 B0 00 FF 00", unit)) == expected)
    }

    /// SBC-4, table 186, 4,096-byte logical blocks and 64 KiB data blocks.
    @Test func blockLimitsOfLargeBlocks() throws {
        let expected = hex(
            """
            00 B0 00 3C 00 20 0010 00000800 00000100 00000000 00040000 00000100 00000010 80000000
            0000000000000800 00000800 00000010 00000010 00000000 00000000
            """
        )
        let other = try makeUnit(blockSizeBytes: 65_536, logicalBlockSizeBytes: 4_096)
        #expect(try dataIn(plan("12 01 B0 00 FF 00", other)) == expected)
    }

    /// SBC-4, tables 183 and 191.
    @Test func characteristicsAndProvisioning() throws {
        let characteristics = hex("00 B1 00 3C 00 01 00 50") + [UInt8](repeating: 0, count: 56)
        #expect(try dataIn(plan("12 01 B1 00 FF 00", unit)) == characteristics)
        #expect(try dataIn(plan("12 01 B2 00 FF 00", unit)) == hex("00 B2 00 04 03 E4 02 00"))
        // THRESHOLD EXPONENT zero would say that there are no threshold sets.
        let equal = try makeUnit(blockSizeBytes: 4_096, logicalBlockSizeBytes: 4_096)
        #expect(try dataIn(plan("12 01 B2 00 FF 00", equal)) == hex("00 B2 00 04 01 E4 02 00"))
    }

    @Test func limitsFitWhatTheyMustHold() {
        #expect(SCSILimits.writeSameMaximumBytes <= UInt64(Limits.batchMaximumBlocks) * 4_096)
        #expect(SCSILimits.writeSameMaximumBytes <= UInt64(Limits.transferMaximumBytes))
        #expect(SCSILimits.copyDevicesMaximum <= 0x0800)
        #expect(SCSILimits.copySegmentsMaximum <= Int(UInt16.max))
        #expect(SCSILimits.copyListMaximumBytes <= Int(UInt16.max))
        #expect(SCSILimits.copySegmentMaximumBytes <= UInt64(UInt32.max))
        #expect(SCSILimits.copiesMaximum <= Int(UInt8.max))
        #expect(SCSILimits.compareAndWriteMaximumBlocks <= UInt64(UInt8.max))
        #expect(2 * Limits.compareAndWriteMaximumBytes <= Limits.transferMaximumBytes)
        #expect(SCSILimits.transferOptimalBytes <= Limits.transferMaximumBytes)
        #expect(Limits.unmapDescriptorsMaximum * 16 + 8 <= Int(UInt16.max))
        #expect(SCSILimits.reportedPortsMaximum * (24 + SCSINames.nameStringMaximumBytes) <= Int(UInt16.max))
        #expect(Limits.identifyingInformationMaximumBytes <= Limits.identifyingTextMaximumBytes)
        #expect(Limits.commandDeadlineMilliseconds / 1_000 <= UInt32(UInt8.max))
    }
}
