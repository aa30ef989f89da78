import AshlarCore
import NIOCore
import Testing

@testable import SCSI

@Suite struct ModeSelectTests {
    private let unit: LogicalUnit

    /// SPC-5, tables 445, 446 and 448; SBC-4, table 176: as MODE SENSE reports them, but for PS.
    private let caching = hex("08 12") + [UInt8](repeating: 0, count: 18)
    private let control = hex("0A 0A 02 10 00 40 00 00 FF FF 00 00")
    private let controlExtension = hex("4A 01 00 1C") + [UInt8](repeating: 0, count: 28)
    private let exceptions = hex("1C 0A") + [UInt8](repeating: 0, count: 10)

    init() throws {
        unit = try makeUnit()
    }

    private func short(_ list: [UInt8], flags: UInt8 = 0x10, length: Int? = nil) -> SCSICommandPlan {
        let cdb = [0x15, flags, 0, 0, UInt8(length ?? list.count), 0]
        return plan(hexadecimal(cdb), dataOut: ByteBuffer(bytes: list), unit)
    }

    private func long(_ list: [UInt8], flags: UInt8 = 0x10, length: Int? = nil) -> SCSICommandPlan {
        let cdb = [0x55, flags, 0, 0, 0, 0, 0] + bigEndian(length ?? list.count) + [0]
        return plan(hexadecimal(cdb), dataOut: ByteBuffer(bytes: list), unit)
    }

    // MARK: Parameters

    @Test func changes() {
        let protected = hex("0A 0A 02 10 08 40 00 00 FF FF 00 00")
        let descriptors = hex("0A 0A 06 10 00 40 00 00 FF FF 00 00")
        let reported = hex("1C 0A 08 06 00 00 00 00 00 00 00 00")
        let header = hex("00 00 00 00")
        #expect(
            short(header + protected)
                == .modeSelect(ModeParameters(isSoftwareWriteProtected: true), isSaved: false)
        )
        #expect(
            short(header + descriptors, flags: 0x11)
                == .modeSelect(ModeParameters(isSenseInDescriptorFormat: true), isSaved: true)
        )
        let exceptions = ModeParameters(isExceptionReportingDisabled: true, exceptionReportingMethod: 6)
        #expect(long(hex("00 00 00 00 00 00 00 00") + reported) == .modeSelect(exceptions, isSaved: false))
        var both = exceptions
        both.isSenseInDescriptorFormat = true
        let all = caching + descriptors + controlExtension + reported
        #expect(short(header + all, flags: 0x11) == .modeSelect(both, isSaved: true))
    }

    /// What is in force stays where its page is not in the list, and goes where the page says so.
    @Test func parametersInForce() throws {
        let mode = ModeParameters(isSoftwareWriteProtected: true, exceptionReportingMethod: 3)
        let other = try makeUnit(mode: mode)
        let list = ByteBuffer(bytes: hex("00 00 00 00") + control)
        let expected = ModeParameters(exceptionReportingMethod: 3)
        #expect(plan("15 10 00 00 10 00", dataOut: list, other) == .modeSelect(expected, isSaved: false))
        let nothing = ByteBuffer(bytes: hex("00 00 00 00"))
        #expect(plan("15 11 00 00 04 00", dataOut: nothing, other) == .modeSelect(mode, isSaved: true))
    }

    /// What MODE SENSE reports may be sent as it is: MODE DATA LENGTH, WP, DPOFUA and PS are ignored.
    @Test func whatWasReadMayBeSent() throws {
        let list = try dataIn(plan("1A 00 3F FF FF 00", unit))
        #expect(short(list) == .modeSelect(ModeParameters(), isSaved: false))
        for cdb in ["5A 00 3F FF 00 00 00 00 FF 00", "5A 10 3F FF 00 00 00 00 FF 00"] {
            #expect(long(try dataIn(plan(cdb, unit))) == .modeSelect(ModeParameters(), isSaved: false))
        }
    }

    /// Each bit of each page: it changes what it stands for, or its place is named.
    @Test func everyBitOfEveryPage() throws {
        let pages = [(caching, 2), (control, 2), (controlExtension, 4), (exceptions, 2)]
        let masks: [[Int: UInt8]] = [[:], [2: 0x04, 4: 0x08], [:], [2: 0x08, 3: 0x07]]
        for ((page, header), mask) in zip(pages, masks) {
            for byte in header..<page.count {
                for bit in UInt8(0)..<8 {
                    var changed = page
                    changed[byte] ^= 1 << bit
                    let plan = short(hex("00 00 00 00") + changed)
                    if (mask[byte] ?? 0) >> bit & 1 == 1 {
                        guard case .modeSelect(let mode, isSaved: false) = plan else {
                            Issue.record("page \(page[0]) byte \(byte) bit \(bit): \(plan)")
                            continue
                        }
                        #expect(mode != ModeParameters())
                    } else {
                        #expect(plan == .parameter(4 + byte, bit), "page \(page[0]) byte \(byte) bit \(bit)")
                    }
                }
            }
        }
    }

    /// The most significant wrong bit of the first wrong byte.
    @Test func theFirstWrongBitIsNamed() {
        #expect(short(hex("00 00 00 00") + hex("0A 0A 06 13 00 FF 00 00 FF FF 00 00")) == .parameter(7, 1))
    }

    /// MRIE 7h to Fh are reserved or vendor specific.
    @Test func reportingMethods() {
        for method in UInt8(0)...15 {
            let list = hex("00 00 00 00 1C 0A 00") + [method] + [UInt8](repeating: 0, count: 8)
            let expected = ModeParameters(exceptionReportingMethod: method)
            #expect(short(list) == (method <= 6 ? .modeSelect(expected, isSaved: false) : .parameter(7, 3)))
        }
    }

    /// All pages or none: the second one is wrong.
    @Test func onePageSpoilsAll() {
        var wrong = exceptions
        wrong[11] = 1
        #expect(short(hex("00 00 00 00 0A 0A 06 10 00 40 00 00 FF FF 00 00") + wrong) == .parameter(27, 0))
    }

    // MARK: Pages

    @Test func unknownPages() {
        let header = hex("00 00 00 00")
        #expect(short(header + hex("01 0A") + [UInt8](repeating: 0, count: 10)) == .parameter(4, 5))
        #expect(short(header + control + hex("3F 0A") + [UInt8](repeating: 0, count: 10)) == .parameter(16, 5))
        #expect(short(header + hex("4A 02 00 1C") + [UInt8](repeating: 0, count: 28)) == .parameter(5, 7))
        #expect(short(header + hex("4A 00 00 0A") + [UInt8](repeating: 0, count: 10)) == .parameter(5, 7))
        #expect(short(header + hex("48 01 00 12") + [UInt8](repeating: 0, count: 18)) == .parameter(5, 7))
    }

    @Test func pageLengths() {
        let header = hex("00 00 00 00")
        for length in UInt8.min...UInt8.max where length != 0x0A {
            #expect(short(header + [0x0A, length] + control[2...]) == .parameter(5, 7))
        }
        #expect(short(header + hex("4A 01 00 1B") + controlExtension[4...]) == .parameter(6, 7))
        #expect(short(header + hex("4A 01 01 1C") + controlExtension[4...]) == .parameter(6, 7))
    }

    @Test func truncatedListsAtEveryLength() {
        let list = hex("00 00 00 08 00 00 80 00 00 00 02 00") + control + controlExtension
        let ends = [12, 24]
        for length in 1..<list.count where !ends.contains(length) {
            #expect(short(Array(list.prefix(length))) == .refused(.parameterListLengthError), "\(length)")
            #expect(short(list, length: length) == .refused(.parameterListLengthError), "\(length)")
        }
        let longList = hex("00 00 00 00 01 00 00 10 00 00 00 00 00 00 80 00 00 00 00 00 00 00 02 00") + control
        for length in 1..<longList.count where length != 24 {
            #expect(long(longList, length: length) == .refused(.parameterListLengthError), "\(length)")
        }
        #expect(short(Array(list.prefix(20)), length: 24) == .refused(.parameterListLengthError))
        #expect(plan("15 10 00 00 10 00", unit) == .refused(.parameterListLengthError))
    }

    // MARK: Header and block descriptor

    @Test func emptyLists() {
        #expect(short([]) == .good)
        #expect(short([], flags: 0x00) == .good)
        #expect(long([], flags: 0x01) == .good)
        #expect(short(hex("00 00 00 00")) == .good)
        #expect(long(hex("00 00 00 00 00 00 00 00")) == .good)
        #expect(transfer("15 10 00 00 18 00", unit) == .dataOut(0x18))
        #expect(transfer("55 10 00 00 00 00 00 01 18 00", unit) == .dataOut(0x118))
    }

    /// PF zero is the format of a vendor; RTD is not supported.
    @Test func flags() {
        #expect(short(hex("00 00 00 00"), flags: 0x00) == .field(1, 4))
        #expect(long(hex("00 00 00 00 00 00 00 00"), flags: 0x01) == .field(1, 4))
        #expect(short(hex("00 00 00 00"), flags: 0x12) == .field(1, 1))
    }

    @Test func headers() {
        #expect(short(hex("00 01 00 00")) == .parameter(1, 7))
        #expect(long(hex("00 00 01 00 00 00 00 00")) == .parameter(2, 7))
        #expect(short(hex("FF 00 FF 00")) == .good)
        let room = [UInt8](repeating: 0, count: 32)
        for length: UInt8 in [1, 7, 9, 16, 24, 0xFF] {
            #expect(short(hex("00 00 00") + [length] + room) == .parameter(3, 7))
            #expect(long(hex("00 00 00 00 00 00 00") + [length] + room) == .parameter(6, 7))
        }
        #expect(long(hex("00 00 00 00 01 00 00 08") + room) == .parameter(6, 7))
        #expect(long(hex("00 00 00 00 00 00 01 08") + room) == .parameter(6, 7))
    }

    /// SBC-4, tables 171 and 172.
    @Test func blockDescriptors() {
        for count in ["00 00 00 00", "00 00 80 00", "FF FF FF FF"] {
            #expect(short(hex("00 00 00 08 \(count) 00 00 02 00")) == .good)
            #expect(long(hex("00 00 00 00 00 00 00 08 \(count) 00 00 02 00")) == .good)
        }
        #expect(short(hex("00 00 00 08 00 00 7F FF 00 00 02 00")) == .parameter(4, 7))
        #expect(short(hex("00 00 00 08 00 00 80 00 00 00 10 00")) == .parameter(9, 7))
        #expect(short(hex("00 00 00 08 00 00 80 00 00 00 00 00")) == .parameter(9, 7))
        #expect(long(hex("00 00 00 00 00 00 00 08 00 00 80 01 00 00 02 00")) == .parameter(8, 7))
        for count in ["0000000000000000", "0000000000008000", "FFFFFFFFFFFFFFFF"] {
            #expect(long(hex("00 00 00 00 01 00 00 10 \(count) 00000000 00 00 02 00")) == .good)
        }
        #expect(long(hex("00 00 00 00 01 00 00 10 00000000FFFFFFFF 00000000 00000200")) == .parameter(8, 7))
        #expect(long(hex("00 00 00 00 01 00 00 10 0000000000008000 00000000 01000200")) == .parameter(20, 7))
    }

    @Test func blockDescriptorsOfLargeVolumes() throws {
        let large = try makeUnit(sizeBytes: 1 << 42)
        let list = ByteBuffer(bytes: hex("00 00 00 08 FF FF FF FF 00 00 02 00"))
        #expect(plan("15 10 00 00 0C 00", dataOut: list, large) == .good)
    }
}
