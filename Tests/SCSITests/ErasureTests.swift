import AshlarCore
import NIOCore
import Testing

@testable import SCSI

@Suite struct SanitizeTests {
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    private func overwrite(
        _ list: [UInt8],
        length: Int? = nil,
        flags: UInt8 = 0,
        _ other: LogicalUnit? = nil
    ) -> SCSICommandPlan {
        let count = length ?? list.count
        let cdb = [0x48, 0x01 | flags, 0, 0, 0, 0, 0, UInt8(count >> 8), UInt8(count & 0xFF), 0]
        return plan(hexadecimal(cdb), dataOut: ByteBuffer(bytes: list), other ?? unit)
    }

    private func erased(_ pattern: [UInt8], isImmediate: Bool = false) -> SCSICommandPlan {
        .erase(Erasure(kind: .overwrite, pattern: pattern), isImmediate: isImmediate)
    }

    private func listField(_ byte: Int, _ bit: UInt8) -> SCSICommandPlan {
        .refused(.invalidFieldInParameterList(byte: byte, bit: bit))
    }

    /// SBC-4, SANITIZE: IMMED is bit 7, AUSE bit 5.
    @Test func eraseWithoutParameters() {
        let block = Erasure(kind: .blockErase)
        let cryptographic = Erasure(kind: .cryptographicErase)
        #expect(plan("48 02 00 00 00 00 00 00 00 00", unit) == .erase(block, isImmediate: false))
        #expect(plan("48 82 00 00 00 00 00 00 00 00", unit) == .erase(block, isImmediate: true))
        #expect(plan("48 A2 00 00 00 00 00 00 00 00", unit) == .erase(block, isImmediate: true))
        #expect(plan("48 23 00 00 00 00 00 00 00 00", unit) == .erase(cryptographic, isImmediate: false))
        #expect(transfer("48 02 00 00 00 00 00 00 08 00", unit) == .none)
    }

    @Test func exitFailureMode() throws {
        #expect(plan("48 1F 00 00 00 00 00 00 00 00", unit) == .good)
        #expect(plan("48 1F 00 00 00 00 00 00 00 00", try makeUnit(isReadOnly: true)) == .good)
    }

    /// PARAMETER LIST LENGTH shall be zero but for OVERWRITE; ZNR is refused.
    @Test func refusals() {
        for action in ["02", "03", "1F"] {
            #expect(plan("48 \(action) 00 00 00 00 00 00 08 00", dataOut: filled(0, 8), unit) == .field(8, 3))
            #expect(plan("48 \(action) 00 00 00 00 00 80 00 00", unit) == .field(7, 7))
        }
        for action in ["41", "42", "43", "5F"] {
            #expect(plan("48 \(action) 00 00 00 00 00 00 00 00", unit) == .field(1, 6))
        }
    }

    /// SBC-4, OVERWRITE parameter list: the pattern is repeated from the start of each logical block.
    @Test func overwritePatterns() throws {
        let whole = [UInt8](repeating: 0xAA, count: 512)
        #expect(overwrite(hex("01 00 02 00") + whole) == erased(whole))
        #expect(overwrite(hex("01 00 02 00") + whole, flags: 0xA0) == erased(whole, isImmediate: true))
        #expect(overwrite(hex("01 00 01 00") + whole.prefix(256)) == erased(whole))
        #expect(overwrite(hex("1F 00 00 01 00")) == erased([UInt8](repeating: 0, count: 512)))
        let three = (0..<512).map { UInt8([1, 2, 3][$0 % 3]) }
        #expect(overwrite(hex("01 00 00 03 01 02 03")) == erased(three))
        // What follows the pattern is ignored, as are bytes beyond the parameter list.
        #expect(overwrite(hex("01 00 00 03 01 02 03 04")) == erased(three))
        #expect(overwrite(hex("01 00 00 03 01 02 03 04"), length: 7) == erased(three))
        let large = try makeUnit(logicalBlockSizeBytes: 4_096)
        #expect(overwrite(hex("01 00 00 01 55"), large) == erased([UInt8](repeating: 0x55, count: 4_096)))
        #expect(transfer("48 01 00 00 00 00 00 02 04 00", unit) == .dataOut(0x204))
    }

    /// INVERT: the second pass has the complement of the first, the third the pattern again.
    @Test func invertedPasses() {
        let pattern = [UInt8](repeating: 0x0F, count: 512)
        let complement = [UInt8](repeating: 0xF0, count: 512)
        #expect(overwrite(hex("81 00 00 01 0F")) == erased(pattern))
        #expect(overwrite(hex("82 00 00 01 0F")) == erased(complement))
        #expect(overwrite(hex("83 00 00 01 0F")) == erased(pattern))
        #expect(overwrite(hex("9E 00 00 01 0F")) == erased(complement))
        #expect(overwrite(hex("02 00 00 01 0F")) == erased(pattern))
    }

    /// The cases of libiscsi's Sanitize.Overwrite.
    @Test func overwriteLengths() {
        for length in 0..<5 {
            #expect(overwrite(hex("01 00 00 04 AA AA AA AA"), length: length) == .field(7, 7))
        }
        #expect(overwrite([UInt8](repeating: 0, count: 520), length: 517) == .field(7, 7))
        #expect(overwrite(hex("00 00 02 00") + [UInt8](repeating: 0, count: 512)) == listField(0, 4))
        #expect(overwrite(hex("01 00 00 00") + [UInt8](repeating: 0, count: 512)) == listField(2, 7))
        #expect(overwrite(hex("01 00 02 04") + [UInt8](repeating: 0, count: 512)) == listField(2, 7))
        #expect(overwrite(hex("01 00 FF FF 00")) == listField(2, 7))
    }

    @Test func overwriteFields() {
        #expect(overwrite(hex("21 00 00 01 00")) == listField(0, 6))
        #expect(overwrite(hex("41 00 00 01 00")) == listField(0, 6))
        #expect(overwrite(hex("01 01 00 01 00")) == listField(1, 7))
        #expect(overwrite(hex("01 00 00 02 00")) == .refused(.parameterListLengthError))
        #expect(overwrite(hex("01 00 00 01"), length: 5) == .refused(.parameterListLengthError))
        #expect(plan("48 01 00 00 00 00 00 00 05 00", unit) == .refused(.parameterListLengthError))
    }

    @Test func writeProtected() throws {
        let readOnly = try makeUnit(isReadOnly: true)
        #expect(overwrite(hex("01 00 00 01 00"), readOnly) == .refused(.writeProtected))
    }
}

@Suite struct FormatUnitTests {
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    private func format(_ cdb: String, _ list: String = "") -> SCSICommandPlan {
        plan(cdb, dataOut: list.isEmpty ? nil : ByteBuffer(bytes: hex(list)), unit)
    }

    private func listField(_ byte: Int, _ bit: UInt8) -> SCSICommandPlan {
        .refused(.invalidFieldInParameterList(byte: byte, bit: bit))
    }

    private func erased(isImmediate: Bool = false) -> SCSICommandPlan {
        .erase(Erasure(kind: .format), isImmediate: isImmediate)
    }

    /// SBC-4, FORMAT UNIT: FMTDATA and LONGLIST say whether there is a header, and which.
    @Test func headers() {
        #expect(format("04 00 00 00 00 00") == erased())
        #expect(format("04 10 00 00 00 00", "00 00 00 00") == erased())
        #expect(format("04 18 00 00 00 00", "00 82 00 00") == erased(isImmediate: true))
        #expect(format("04 18 00 00 00 00", "00 02 00 00") == erased(isImmediate: true))
        #expect(format("04 10 00 00 00 00", "00 F0 00 00") == erased())
        #expect(format("04 30 00 00 00 00", "00 82 00 00 00 00 00 00") == erased(isImmediate: true))
        #expect(transfer("04 00 00 00 00 00", unit) == .none)
        #expect(transfer("04 10 00 00 00 00", unit) == .dataOut(4))
        #expect(transfer("04 30 00 00 00 00", unit) == .dataOut(8))
    }

    @Test func fieldsOfTheCommand() {
        #expect(format("04 20 00 00 00 00") == .field(1, 5))
        #expect(format("04 08 00 00 00 00") == .field(1, 3))
        #expect(format("04 04 00 00 00 00") == .field(1, 2))
        #expect(format("04 15 00 00 00 00", "00 00 00 00") == .field(1, 2))
        #expect(format("04 50 00 00 00 00", "00 00 00 00") == .field(1, 6))
        #expect(format("04 80 00 00 00 00") == .field(1, 7))
        #expect(format("04 00 00 00 01 00") == .field(4, 0))
    }

    @Test func fieldsOfTheHeader() {
        let short = "04 10 00 00 00 00"
        #expect(format(short, "01 00 00 00") == listField(0, 0))
        #expect(format(short, "04 00 00 00") == listField(0, 2))
        // DPRY, DCRT, STPF and IP need FOV.
        #expect(format(short, "00 40 00 00") == listField(1, 6))
        #expect(format(short, "00 20 00 00") == listField(1, 5))
        #expect(format(short, "00 18 00 00") == listField(1, 4))
        #expect(format(short, "00 88 00 00") == listField(1, 3))
        #expect(format(short, "00 04 00 00") == listField(1, 2))
        #expect(format(short, "00 01 00 00") == listField(1, 0))
        #expect(format(short, "00 00 00 08") == listField(2, 7))
        let long = "04 30 00 00 00 00"
        #expect(format(long, "00 00 01 00 00 00 00 00") == listField(2, 7))
        #expect(format(long, "00 00 00 10 00 00 00 00") == listField(3, 7))
        #expect(format(long, "00 00 00 01 00 00 00 00") == listField(3, 3))
        #expect(format(long, "00 00 00 00 00 00 00 08") == listField(4, 7))
    }

    @Test func shortLists() {
        #expect(format("04 10 00 00 00 00") == .refused(.parameterListLengthError))
        #expect(format("04 10 00 00 00 00", "00 00 00") == .refused(.parameterListLengthError))
        #expect(format("04 30 00 00 00 00", "00 00 00 00 00 00 00") == .refused(.parameterListLengthError))
    }

    @Test func progressIsACountOfParts() {
        var erasure = Erasure(kind: .format)
        #expect(erasure.progress(ofBytes: 16 << 20) == 0)
        erasure.position = 8 << 20
        #expect(erasure.progress(ofBytes: 16 << 20) == 0x8000)
    }
}
