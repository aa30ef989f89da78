import AshlarCore
import NIOCore
import Testing

@testable import SCSI

@Suite struct UnitCommandTests {
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    /// SPC-5, 6.47.
    @Test func testUnitReady() {
        #expect(plan("00 00 00 00 00 00", unit) == .good)
        #expect(transfer("00 00 00 00 00 00", unit) == .none)
        #expect(transfer("00 00 00 00 00 00", unit).impliedByteCount(dataInCount: 4) == 0)
    }

    /// SPC-5, 6.39: both formats, and what is pending.
    @Test func requestSense() throws {
        #expect(
            try dataIn(plan("03 00 00 00 FC 00", unit)) == hex("70 00 00 00000000 0A 00000000 00 00 00 00 00 00")
        )
        #expect(try dataIn(plan("03 01 00 00 FC 00", unit)) == hex("72 00 00 00 00 00 00 00"))
        #expect(try dataIn(plan("03 00 00 00 04 00", unit)) == hex("70 00 00 00"))
        let pending = CommandSet.block.plan(
            cdb: hex("03 00 00 00 FC 00"),
            lun: 0,
            dataOut: nil,
            unit: unit,
            pendingSense: .unitAttention(.capacityChanged)
        )
        #expect(try dataIn(pending) == hex("70 00 06 00000000 0A 00000000 2A 09 00 00 00 00"))
    }

    @Test func requestSenseOfAnotherLUN() throws {
        let data = try dataIn(plan("03 00 00 00 FC 00", lun: 1 << 48, unit))
        #expect(data == hex("70 00 05 00000000 0A 00000000 25 00 00 00 00 00"))
    }

    /// SPC-5, 6.34 with tables 220 and 221.
    @Test func reportLUNs() throws {
        let one = hex("00 00 00 08 00 00 00 00 00 00 00 00 00 00 00 00")
        let none = hex("00 00 00 00 00 00 00 00")
        for lun: UInt64 in [0, 1 << 48, 0xC101 << 48] {
            #expect(try dataIn(plan("A0 00 00 00 00 00 00 00 01 00", lun: lun, unit)) == one)
            #expect(try dataIn(plan("A0 00 02 00 00 00 00 00 01 00", lun: lun, unit)) == one)
            for select in ["01", "10", "11", "12"] {
                #expect(try dataIn(plan("A0 00 \(select) 00 00 00 00 00 01 00", lun: lun, unit)) == none)
            }
        }
        #expect(try dataIn(plan("A0 00 00 00 00 00 00 00 00 09", unit)) == Array(one.prefix(9)))
        #expect(plan("A0 00 03 00 00 00 00 00 01 00", unit) == .field(2, 7))
        #expect(plan("A0 00 FF 00 00 00 00 00 01 00", unit) == .field(2, 7))
    }

    /// SBC-4, 5.31.
    @Test func startStopUnit() {
        #expect(plan("1B 00 00 00 01 00", unit) == .good)
        #expect(plan("1B 01 00 00 05 00", unit) == .good)
        #expect(plan("1B 00 00 00 00 00", unit) == .field(4, 0))
        #expect(plan("1B 00 00 00 03 00", unit) == .field(4, 1))
        #expect(plan("1B 00 00 00 11 00", unit) == .field(4, 7))
    }

    /// SPC-5, PREVENT ALLOW MEDIUM REMOVAL: 00b and 01b are GOOD, 10b and 11b obsolete.
    @Test func preventAllowMediumRemoval() {
        #expect(plan("1E 00 00 00 00 00", unit) == .good)
        #expect(plan("1E 00 00 00 01 00", unit) == .good)
        #expect(plan("1E 00 00 00 02 00", unit) == .field(4, 1))
        #expect(plan("1E 00 00 00 03 00", unit) == .field(4, 1))
        #expect(transfer("1E 00 00 00 01 00", unit) == .none)
    }

    // MARK: Capacity

    /// SBC-4, table 65.
    @Test func readCapacity10() throws {
        #expect(try dataIn(plan("25", unit)) == hex("00 00 7F FF 00 00 02 00"))
        let large = try makeUnit(logicalBlockSizeBytes: 4_096)
        #expect(try dataIn(plan("25", large)) == hex("00 00 0F FF 00 00 10 00"))
        #expect(transfer("25 00 00 00 00 00 00 00 00 00", unit) == .dataIn(8))
    }

    /// SBC-4, 5.20.2: FFFFFFFFh from the first address on that does not fit.
    @Test func readCapacity10AtItsEdge() throws {
        let sizes: [(UInt64, String)] = [
            ((1 << 41) - 4_096, "FF FF FF F7"),
            (1 << 41, "FF FF FF FF"),
            ((1 << 41) + 4_096, "FF FF FF FF"),
            (1 << 50, "FF FF FF FF"),
        ]
        for (size, expected) in sizes {
            #expect(try dataIn(plan("25", try makeUnit(sizeBytes: size))) == hex(expected + "00 00 02 00"))
        }
    }

    /// SBC-4, table 67.
    @Test func readCapacity16() throws {
        var expected = hex("00 00 00 00 00 00 7F FF 00 00 02 00 00 03 C0 00")
        expected += [UInt8](repeating: 0, count: 16)
        #expect(try dataIn(plan("9E 10 00 00 00 00 00 00 00 00 00 00 00 20", unit)) == expected)
        for length in UInt8(0)...40 {
            let cdb = "9E 10 00 00 00 00 00 00 00 00 00 00 00 \(hexadecimal([length]))"
            #expect(try dataIn(plan(cdb, unit)) == Array(expected.prefix(Int(length))))
        }
    }

    @Test func readCapacity16OfLargeVolumes() throws {
        let cdb = "9E 10 00 00 00 00 00 00 00 00 00 00 00 10"
        let petabyte = try makeUnit(sizeBytes: 1 << 50, blockSizeBytes: 65_536)
        #expect(try dataIn(plan(cdb, petabyte)) == hex("00 00 01 FF FF FF FF FF 00 00 02 00 00 07 C0 00"))
        let plain = try makeUnit(sizeBytes: 1 << 43, logicalBlockSizeBytes: 4_096)
        #expect(try dataIn(plan(cdb, plain)) == hex("00 00 00 00 7F FF FF FF 00 00 10 00 00 00 C0 00"))
    }
}

@Suite struct ModeSenseTests {
    private let unit: LogicalUnit

    /// SBC-4, table 176; SPC-5, tables 445, 446 and 448.
    private let caching = hex("88 12") + [UInt8](repeating: 0, count: 18)
    private let control = hex("8A 0A 02 10 00 40 00 00 FF FF 00 00")
    private let controlExtension = hex("CA 01 00 1C") + [UInt8](repeating: 0, count: 28)
    private let exceptions = hex("9C 0A") + [UInt8](repeating: 0, count: 10)

    init() throws {
        unit = try makeUnit()
    }

    /// SPC-5, table 442 and SBC-4, table 171.
    @Test func allPagesOfTheShortForm() throws {
        let expected = hex("37 00 10 08 00 00 80 00 00 00 02 00") + caching + control + exceptions
        #expect(try dataIn(plan("1A 00 3F 00 FF 00", unit)) == expected)
        #expect(try dataIn(plan("1A 08 3F 00 FF 00", unit)) == hex("2F 00 10 00") + caching + control + exceptions)
    }

    @Test func allSubpages() throws {
        let expected = hex("4F 00 10 00") + caching + control + controlExtension + exceptions
        #expect(try dataIn(plan("1A 08 3F FF FF 00", unit)) == expected)
        #expect(try dataIn(plan("1A 08 0A FF FF 00", unit)) == hex("2F 00 10 00") + control + controlExtension)
    }

    @Test func singlePages() throws {
        #expect(try dataIn(plan("1A 08 08 00 FF 00", unit)) == hex("17 00 10 00") + caching)
        #expect(try dataIn(plan("1A 08 0A 00 FF 00", unit)) == hex("0F 00 10 00") + control)
        #expect(try dataIn(plan("1A 08 0A 01 FF 00", unit)) == hex("23 00 10 00") + controlExtension)
        #expect(try dataIn(plan("1A 08 1C 00 FF 00", unit)) == hex("0F 00 10 00") + exceptions)
        #expect(try dataIn(plan("1A 08 08 FF FF 00", unit)) == hex("17 00 10 00") + caching)
    }

    /// SPC-5, table 443; the long descriptor: SBC-4, table 172.
    @Test func theLongForm() throws {
        #expect(try dataIn(plan("5A 08 08 00 00 00 00 01 00 00", unit)) == hex("00 1A 00 10 00 00 00 00") + caching)
        let short = hex("00 22 00 10 00 00 00 08 00 00 80 00 00 00 02 00") + caching
        #expect(try dataIn(plan("5A 00 08 00 00 00 00 01 00 00", unit)) == short)
        let long = hex("00 2A 00 10 01 00 00 10 00 00 00 00 00 00 80 00 00 00 00 00 00 00 02 00") + caching
        #expect(try dataIn(plan("5A 10 08 00 00 00 00 01 00 00", unit)) == long)
        #expect(try dataIn(plan("5A 18 08 00 00 00 00 01 00 00", unit)) == hex("00 1A 00 10 00 00 00 00") + caching)
    }

    @Test func blockDescriptorsOfLargeVolumes() throws {
        let large = try makeUnit(sizeBytes: 1 << 42)
        let short = try dataIn(plan("1A 00 08 00 FF 00", large))
        #expect(Array(short[4..<12]) == hex("FF FF FF FF 00 00 02 00"))
        let long = try dataIn(plan("5A 10 08 00 00 00 00 01 00 00", large))
        #expect(Array(long[8..<24]) == hex("00 00 00 02 00 00 00 00 00 00 00 00 00 00 02 00"))
    }

    /// SPC-5, table 181: the masks of what can be changed, and the values of a fresh volume.
    @Test func pageControl() throws {
        let changeable = try dataIn(plan("1A 08 7F FF FF 00", unit))
        var expected = hex("4F 00 10 00 88 12") + [UInt8](repeating: 0, count: 18)
        expected += hex("8A 0A 04 00 08 00 00 00 00 00 00 00 CA 01 00 1C") + [UInt8](repeating: 0, count: 28)
        expected += hex("9C 0A 08 0F 00 00 00 00 00 00 00 00")
        #expect(changeable == expected)
        #expect(try dataIn(plan("1A 08 8A 00 FF 00", unit)) == hex("0F 00 10 00") + control)
    }

    @Test func savedValues() throws {
        let saved = ModeParameters(
            isSoftwareWriteProtected: true,
            isSenseInDescriptorFormat: true,
            isExceptionReportingDisabled: true,
            exceptionReportingMethod: 6
        )
        let other = try makeUnit(savedMode: saved)
        #expect(try dataIn(plan("1A 08 CA 00 FF 00", other)) == hex("0F 00 10 00 8A 0A 06 10 08 40 00 00 FF FF 00 00"))
        #expect(try dataIn(plan("1A 08 DC 00 FF 00", other)) == hex("0F 00 10 00 9C 0A 08 06 00 00 00 00 00 00 00 00"))
        #expect(try dataIn(plan("1A 08 C8 00 FF 00", other)) == hex("17 00 10 00") + caching)
        #expect(try dataIn(plan("1A 08 0A 00 FF 00", other)) == hex("0F 00 10 00") + control)
        let all = try dataIn(plan("5A 08 FF FF 00 00 00 00 FF 00", unit))
        #expect(all == hex("00 52 00 10 00 00 00 00") + caching + control + controlExtension + exceptions)
    }

    @Test func modeParametersInForce() throws {
        let mode = ModeParameters(isSoftwareWriteProtected: true, isSenseInDescriptorFormat: true)
        let other = try makeUnit(mode: mode)
        let current = try dataIn(plan("1A 08 0A 00 FF 00", other))
        #expect(current == hex("0F 00 90 00 8A 0A 06 10 08 40 00 00 FF FF 00 00"))
        #expect(try dataIn(plan("1A 08 8A 00 FF 00", other)) == hex("0F 00 90 00") + control)
    }

    @Test func writeProtectBit() throws {
        let readOnly = try makeUnit(isReadOnly: true)
        #expect(try dataIn(plan("1A 08 0A 00 FF 00", readOnly))[2] == 0x90)
        #expect(try dataIn(plan("5A 08 0A 00 00 00 00 00 FF 00", readOnly))[3] == 0x90)
    }

    @Test func unknownPages() {
        #expect(plan("1A 08 00 00 FF 00", unit) == .field(2, 5))
        #expect(plan("1A 08 01 00 FF 00", unit) == .field(2, 5))
        #expect(plan("1A 08 08 01 FF 00", unit) == .field(3, 7))
        #expect(plan("1A 08 0A 02 FF 00", unit) == .field(3, 7))
        #expect(plan("1A 08 3F 01 FF 00", unit) == .field(3, 7))
        #expect(plan("5A 08 3E 00 00 00 00 00 FF 00", unit) == .field(2, 5))
    }

    @Test func allocationLengthCuts() throws {
        let short = try dataIn(plan("1A 00 3F FF FF 00", unit))
        let long = try dataIn(plan("5A 10 3F FF 00 00 00 FF FF 00", unit))
        for length in UInt8.min...UInt8.max {
            let text = hexadecimal([length])
            #expect(try dataIn(plan("1A 00 3F FF \(text) 00", unit)) == Array(short.prefix(Int(length))))
            #expect(try dataIn(plan("5A 10 3F FF 00 00 00 00 \(text) 00", unit)) == Array(long.prefix(Int(length))))
        }
        #expect(transfer("1A 00 3F FF 20 00", unit).impliedByteCount(dataInCount: 20) == 20)
        #expect(transfer("5A 00 3F FF 00 00 00 01 20 00", unit) == .dataInAtMost(0x120))
    }
}
