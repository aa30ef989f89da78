import AshlarCore
import NIOCore
import Testing

@testable import SCSI

/// The CDB of each supported command, bit by bit, as the tables of SPC-5 clause 6 and SBC-4 clause 5 have it: a one for each bit
/// that may be one. Service actions stand in their field.
struct CommandLayout: Sendable, CustomTestStringConvertible {
    let name: String
    let usage: [UInt8]
    let hasServiceAction: Bool
    let answersOnAnyLUN: Bool

    init(_ name: String, _ usage: String, serviceAction: Bool = false, anyLUN: Bool = false) {
        self.name = name
        self.usage = hex(usage)
        self.hasServiceAction = serviceAction
        self.answersOnAnyLUN = anyLUN
    }

    var testDescription: String { name }

    /// A CDB with nothing but its operation code and service action.
    var bare: [UInt8] {
        var cdb = [UInt8](repeating: 0, count: usage.count)
        cdb[0] = usage[0]
        if hasServiceAction { cdb[1] = usage[1] & 0x1F }
        return cdb
    }

    static let all: [CommandLayout] = [
        CommandLayout("TEST UNIT READY", "00 00 00 00 00 00"),
        CommandLayout("REQUEST SENSE", "03 01 00 00 FF 00", anyLUN: true),
        CommandLayout("FORMAT UNIT", "04 3F 00 00 00 00"),
        CommandLayout("READ (6)", "08 1F FF FF FF 00"),
        CommandLayout("WRITE (6)", "0A 1F FF FF FF 00"),
        CommandLayout("INQUIRY", "12 01 FF FF FF 00", anyLUN: true),
        CommandLayout("MODE SELECT (6)", "15 11 00 00 FF 00"),
        CommandLayout("RESERVE (6)", "16 00 00 00 00 00"),
        CommandLayout("RELEASE (6)", "17 00 00 00 00 00"),
        CommandLayout("MODE SENSE (6)", "1A 08 FF FF FF 00"),
        CommandLayout("START STOP UNIT", "1B 01 00 00 F7 00"),
        CommandLayout("PREVENT ALLOW MEDIUM REMOVAL", "1E 00 00 00 01 00"),
        CommandLayout("READ CAPACITY (10)", "25 00 00 00 00 00 00 00 00 00"),
        CommandLayout("READ (10)", "28 FA FF FF FF FF 3F FF FF 00"),
        CommandLayout("WRITE (10)", "2A FA FF FF FF FF 3F FF FF 00"),
        CommandLayout("WRITE AND VERIFY (10)", "2E F6 FF FF FF FF 3F FF FF 00"),
        CommandLayout("VERIFY (10)", "2F F6 FF FF FF FF 3F FF FF 00"),
        CommandLayout("PRE-FETCH (10)", "34 02 FF FF FF FF 3F FF FF 00"),
        CommandLayout("SYNCHRONIZE CACHE (10)", "35 02 FF FF FF FF 3F FF FF 00"),
        CommandLayout("READ DEFECT DATA (10)", "37 00 1F 00 00 00 00 FF FF 00"),
        CommandLayout("WRITE SAME (10)", "41 E8 FF FF FF FF 3F FF FF 00"),
        CommandLayout("UNMAP", "42 00 00 00 00 00 3F FF FF 00"),
        CommandLayout("SANITIZE, OVERWRITE", "48 A1 00 00 00 00 00 FF FF 00", serviceAction: true),
        CommandLayout("SANITIZE, BLOCK ERASE", "48 A2 00 00 00 00 00 00 00 00", serviceAction: true),
        CommandLayout("SANITIZE, CRYPTOGRAPHIC ERASE", "48 A3 00 00 00 00 00 00 00 00", serviceAction: true),
        CommandLayout("SANITIZE, EXIT FAILURE MODE", "48 BF 00 00 00 00 00 00 00 00", serviceAction: true),
        CommandLayout("LOG SENSE", "4D 00 FF FF 00 FF FF FF FF 00"),
        CommandLayout("MODE SELECT (10)", "55 11 00 00 00 00 00 FF FF 00"),
        CommandLayout("RESERVE (10)", "56 00 00 00 00 00 00 00 00 00"),
        CommandLayout("RELEASE (10)", "57 00 00 00 00 00 00 00 00 00"),
        CommandLayout("MODE SENSE (10)", "5A 18 FF FF 00 00 00 FF FF 00"),
        CommandLayout("READ KEYS", "5E 00 00 00 00 00 00 FF FF 00", serviceAction: true),
        CommandLayout("READ RESERVATION", "5E 01 00 00 00 00 00 FF FF 00", serviceAction: true),
        CommandLayout("REPORT CAPABILITIES", "5E 02 00 00 00 00 00 FF FF 00", serviceAction: true),
        CommandLayout("READ FULL STATUS", "5E 03 00 00 00 00 00 FF FF 00", serviceAction: true),
        CommandLayout("REGISTER", "5F 00 FF 00 00 FF FF FF FF 00", serviceAction: true),
        CommandLayout("RESERVE", "5F 01 FF 00 00 FF FF FF FF 00", serviceAction: true),
        CommandLayout("RELEASE", "5F 02 FF 00 00 FF FF FF FF 00", serviceAction: true),
        CommandLayout("CLEAR", "5F 03 FF 00 00 FF FF FF FF 00", serviceAction: true),
        CommandLayout("PREEMPT", "5F 04 FF 00 00 FF FF FF FF 00", serviceAction: true),
        CommandLayout("PREEMPT AND ABORT", "5F 05 FF 00 00 FF FF FF FF 00", serviceAction: true),
        CommandLayout("REGISTER AND IGNORE EXISTING KEY", "5F 06 FF 00 00 FF FF FF FF 00", serviceAction: true),
        CommandLayout("REGISTER AND MOVE", "5F 07 FF 00 00 FF FF FF FF 00", serviceAction: true),
        CommandLayout("EXTENDED COPY (LID1)", "83 00 00 00 00 00 00 00 00 00 FF FF FF FF 00 00", serviceAction: true),
        CommandLayout("EXTENDED COPY (LID4)", "83 01 00 00 00 00 00 00 00 00 FF FF FF FF 00 00", serviceAction: true),
        CommandLayout("COPY STATUS (LID1)", "84 00 FF 00 00 00 00 00 00 00 FF FF FF FF 00 00", serviceAction: true),
        CommandLayout("RECEIVE DATA (LID1)", "84 01 FF 00 00 00 00 00 00 00 FF FF FF FF 00 00", serviceAction: true),
        CommandLayout("OPERATING PARAMETERS", "84 03 00 00 00 00 00 00 00 00 FF FF FF FF 00 00", serviceAction: true),
        CommandLayout(
            "FAILED SEGMENT DETAILS (LID1)",
            "84 04 FF 00 00 00 00 00 00 00 FF FF FF FF 00 00",
            serviceAction: true
        ),
        CommandLayout(
            "RECEIVE COPY STATUS (LID4)",
            "84 05 FF FF FF FF 00 00 00 00 FF FF FF FF 00 00",
            serviceAction: true
        ),
        CommandLayout("READ (16)", "88 FA FF FF FF FF FF FF FF FF FF FF FF FF 3F 00"),
        CommandLayout("COMPARE AND WRITE", "89 FA FF FF FF FF FF FF FF FF 00 00 00 FF 3F 00"),
        CommandLayout("WRITE (16)", "8A FA FF FF FF FF FF FF FF FF FF FF FF FF 3F 00"),
        CommandLayout("ORWRITE (16)", "8B FA FF FF FF FF FF FF FF FF FF FF FF FF 3F 00"),
        CommandLayout("WRITE AND VERIFY (16)", "8E F6 FF FF FF FF FF FF FF FF FF FF FF FF 3F 00"),
        CommandLayout("VERIFY (16)", "8F F6 FF FF FF FF FF FF FF FF FF FF FF FF 3F 00"),
        CommandLayout("PRE-FETCH (16)", "90 02 FF FF FF FF FF FF FF FF FF FF FF FF 3F 00"),
        CommandLayout("SYNCHRONIZE CACHE (16)", "91 02 FF FF FF FF FF FF FF FF FF FF FF FF 3F 00"),
        CommandLayout("WRITE SAME (16)", "93 E9 FF FF FF FF FF FF FF FF FF FF FF FF 3F 00"),
        CommandLayout("WRITE ATOMIC (16)", "9C F8 FF FF FF FF FF FF FF FF 00 00 FF FF 3F 00"),
        CommandLayout("READ CAPACITY (16)", "9E 10 00 00 00 00 00 00 00 00 FF FF FF FF 00 00", serviceAction: true),
        CommandLayout("GET LBA STATUS (16)", "9E 12 FF FF FF FF FF FF FF FF FF FF FF FF FF 00", serviceAction: true),
        CommandLayout("REPORT LUNS", "A0 00 FF 00 00 00 FF FF FF FF 00 00", anyLUN: true),
        CommandLayout("REPORT IDENTIFYING INFORMATION", "A3 05 00 00 00 00 FF FF FF FF FE 00", serviceAction: true),
        CommandLayout("REPORT TARGET PORT GROUPS", "A3 EA 00 00 00 00 FF FF FF FF 00 00", serviceAction: true),
        CommandLayout("REPORT SUPPORTED OPERATION CODES", "A3 0C 87 FF FF FF FF FF FF FF 00 00", serviceAction: true),
        CommandLayout(
            "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
            "A3 0D 80 00 00 00 FF FF FF FF 00 00",
            serviceAction: true
        ),
        CommandLayout("SET IDENTIFYING INFORMATION", "A4 06 00 00 00 00 FF FF FF FF FE 00", serviceAction: true),
        CommandLayout("READ (12)", "A8 FA FF FF FF FF FF FF FF FF 3F 00"),
        CommandLayout("WRITE (12)", "AA FA FF FF FF FF FF FF FF FF 3F 00"),
        CommandLayout("WRITE AND VERIFY (12)", "AE F6 FF FF FF FF FF FF FF FF 3F 00"),
        CommandLayout("VERIFY (12)", "AF F6 FF FF FF FF FF FF FF FF 3F 00"),
        CommandLayout("READ DEFECT DATA (12)", "B7 1F FF FF FF FF FF FF FF FF 00 00"),
    ]
}

@Suite struct CommandTableTests {
    private let set = CommandSet.block

    @Test func theTableIsWhatTheLayoutsSay() {
        #expect(set.commands.map(\.usage) == CommandLayout.all.map(\.usage))
        #expect(set.commands.map { $0.serviceAction != nil } == CommandLayout.all.map(\.hasServiceAction))
        #expect(set.commands.map(\.isForAnyLUN) == CommandLayout.all.map(\.answersOnAnyLUN))
    }

    @Test func lengthsAreThoseOfTheOperationCodesGroup() {
        for command in set.commands {
            #expect(CommandDescriptorBlock(command.usage).nominalLength == command.usage.count)
        }
    }

    /// SPC-5, 4.2.1: a reserved bit that is one is INVALID FIELD IN CDB; 4.4.2.4.2: the pointer names it.
    @Test(arguments: CommandLayout.all)
    func everyReservedBitIsRefusedWithItsPlace(_ layout: CommandLayout) throws {
        let unit = try makeUnit()
        for byte in 1..<layout.usage.count {
            let isServiceActionByte = layout.hasServiceAction && byte == 1
            let allowed = isServiceActionByte ? layout.usage[byte] | 0x1F : layout.usage[byte]
            for bit in UInt8(0)..<8 where allowed >> bit & 1 == 0 {
                var cdb = layout.bare
                cdb[byte] |= 1 << bit
                let plan = set.plan(cdb: cdb, lun: 0, dataOut: filled(0, 512), unit: unit)
                #expect(plan == .field(byte, bit), "byte \(byte) bit \(bit)")
            }
        }
    }

    /// The bit pointer is the most significant wrong bit, the field pointer the first wrong byte.
    @Test func theFirstWrongByteIsNamed() throws {
        #expect(plan("00 00 06 FF 00 00", try makeUnit()) == .field(2, 2))
    }

    /// NACA is a reserved bit: INQUIRY says NORMACA zero.
    @Test func acaIsRefused() throws {
        #expect(plan("00 00 00 00 00 04", try makeUnit()) == .field(5, 2))
    }

    @Test(arguments: CommandLayout.all)
    func truncatedAtEveryLengthIsRefused(_ layout: CommandLayout) throws {
        let unit = try makeUnit()
        for length in 0..<layout.usage.count {
            let plan = set.plan(cdb: Array(layout.bare.prefix(length)), lun: 0, dataOut: nil, unit: unit)
            guard case .complete(let response) = plan else {
                Issue.record("planned at length \(length)")
                continue
            }
            #expect(response.sense?.key == .illegalRequest)
            #expect(set.transfer(cdb: Array(layout.bare.prefix(length)), lun: 0, unit: unit) == .none)
        }
    }

    @Test func unknownOperationCodesAreRefused() throws {
        let unit = try makeUnit()
        let known = Set(CommandLayout.all.map { $0.usage[0] })
        for code in UInt8.min...UInt8.max where !known.contains(code) {
            let cdb = [code] + [UInt8](repeating: 0, count: 15)
            #expect(set.plan(cdb: cdb, lun: 0, dataOut: nil, unit: unit) == .refused(.invalidOperationCode))
        }
        #expect(set.plan(cdb: [], lun: 0, dataOut: nil, unit: unit) == .refused(.invalidOperationCode))
    }

    @Test func unknownServiceActionsAreRefused() throws {
        let unit = try makeUnit()
        #expect(plan("9E 13", unit) == .field(1, 4))
        #expect(plan("83 02", unit) == .field(1, 4))
        #expect(plan("84 02", unit) == .field(1, 4))
        for action in UInt8(0)...0x1F where ![0x01, 0x02, 0x03, 0x1F].contains(action) {
            #expect(plan("48 \(hexadecimal([action]))", unit) == .field(1, 4))
        }
        #expect(plan("A3 00", unit) == .field(1, 4))
        #expect(plan("A3 1F", unit) == .field(1, 4))
        #expect(plan("A4 05", unit) == .field(1, 4))
        for action in UInt8(4)...31 {
            #expect(plan("5E \(hexadecimal([action]))", unit) == .field(1, 4))
        }
        for action in UInt8(8)...31 {
            #expect(plan("5F \(hexadecimal([action]))", unit) == .field(1, 4))
        }
    }

    /// SAM-6, 4.7 and SPC-5, 5.x: what a LUN without a logical unit answers.
    @Test(arguments: CommandLayout.all)
    func otherLUNsAreNotSupported(_ layout: CommandLayout) throws {
        let unit = try makeUnit()
        for lun: UInt64 in [1 << 48, 0x4001 << 48, 0xC101 << 48, 1, .max] {
            let plan = set.plan(cdb: layout.bare, lun: lun, dataOut: nil, unit: unit)
            if layout.answersOnAnyLUN {
                #expect(plan != .refused(.logicalUnitNotSupported))
            } else {
                #expect(plan == .refused(.logicalUnitNotSupported))
            }
        }
    }

    @Test func flatAddressingOfLUNZeroIsLUNZero() throws {
        #expect(plan("00", lun: 0x4000_0000_0000_0000, try makeUnit()) == .good)
        #expect(plan("FF", lun: 1 << 48, try makeUnit()) == .refused(.logicalUnitNotSupported))
    }

    /// SBC-4 and SPC-5: the tables of commands allowed in the presence of persistent reservations.
    @Test func accessRules() {
        let any: Set<UInt8> = [0x84]
        let reads: Set<UInt8> = [0x2F, 0x34, 0x37, 0x8F, 0x90, 0xAF, 0xB7]
        let writes: Set<UInt8> = [0x04, 0x2E, 0x41, 0x42, 0x48, 0x83, 0x8B, 0x8E, 0x93, 0x9C, 0xAE]
        for layout in CommandLayout.all {
            let access = set.rules(cdb: layout.bare, lun: 0).access
            if any.contains(layout.usage[0]) { #expect(access == .any, "\(layout.name)") }
            if reads.contains(layout.usage[0]) { #expect(access == .read, "\(layout.name)") }
            if writes.contains(layout.usage[0]) { #expect(access == .write, "\(layout.name)") }
        }
        #expect(set.rules(cdb: hex("9E 12"), lun: 0).access == .read)
        #expect(set.rules(cdb: hex("9E 10"), lun: 0).access == .any)
        // PREVENT ALLOW MEDIUM REMOVAL conflicts only where it prevents.
        #expect(set.rules(cdb: hex("1E 00 00 00 00 00"), lun: 0).access == .any)
        #expect(set.rules(cdb: hex("1E 00 00 00 01 00"), lun: 0).access == .write)
    }

    /// SAM-6, 5.14.5.
    @Test func unitAttentionRules() {
        let expected: [UInt8: UnitAttentionRule] = [0x12: .bypass, 0xA0: .bypass, 0x03: .deliver]
        for layout in CommandLayout.all {
            #expect(set.rules(cdb: layout.bare, lun: 0).attention == expected[layout.usage[0]] ?? .report)
        }
        #expect(set.rules(cdb: [0xFF], lun: 0) == .information)
    }
}

@Suite struct ReportSupportedOperationCodesTests {
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    /// SPC-5, tables 230 and 231.
    @Test func allCommands() throws {
        let data = try dataIn(plan("A3 0C 00 00 00 00 00 00 FF FF 00 00", unit))
        var expected = hex("00 00") + bigEndian(CommandLayout.all.count * 8)
        for layout in CommandLayout.all {
            let action = layout.hasServiceAction ? layout.usage[1] & 0x1F : 0
            let flags: UInt8 = layout.hasServiceAction ? 1 : 0
            expected += [layout.usage[0], 0, 0, action, 0, flags, 0, UInt8(layout.usage.count)]
        }
        #expect(data == expected)
    }

    /// SPC-5, table 235: each descriptor is followed by its command timeouts descriptor.
    @Test func allCommandsWithTimeouts() throws {
        let data = try dataIn(plan("A3 0C 80 00 00 00 00 00 FF FF 00 00", unit))
        #expect(data.count == 4 + 20 * CommandLayout.all.count)
        #expect(Array(data[..<4]) == hex("00 00") + bigEndian(CommandLayout.all.count * 20))
        #expect(Array(data[4..<24]) == hex("00 00 00 00 00 02 00 06 00 0A 00 00 00 00 00 01 00 00 00 1E"))
        for start in stride(from: 4, to: data.count, by: 20) {
            #expect(data[start + 5] & 0x02 == 0x02)
            #expect(Array(data[(start + 8)..<(start + 10)]) == [0x00, 0x0A])
        }
    }

    /// The time of these depends on the volume, or on the list.
    @Test func commandsWithoutTimeouts() throws {
        let untimed: Set<[UInt8]> = [[0x04, 0], [0x48, 1], [0x48, 2], [0x48, 3], [0x83, 0], [0x83, 1]]
        let data = try dataIn(plan("A3 0C 80 00 00 00 00 00 FF FF 00 00", unit))
        for start in stride(from: 4, to: data.count, by: 20) {
            let isTimed = !untimed.contains([data[start], data[start + 3]])
            let times = hex(isTimed ? "00000001 0000001E" : "00000000 00000000")
            #expect(Array(data[(start + 12)..<(start + 20)]) == times)
        }
    }

    /// SPC-5, table 233.
    @Test(arguments: CommandLayout.all)
    func oneCommand(_ layout: CommandLayout) throws {
        let code = hexadecimal([layout.usage[0]])
        let action = layout.hasServiceAction ? hexadecimal([layout.usage[1] & 0x1F]) : "00"
        let expected = [0x00, 0x03, 0x00, UInt8(layout.usage.count)] + layout.usage
        let right = layout.hasServiceAction ? "02" : "01"
        let wrong = layout.hasServiceAction ? "01" : "02"
        #expect(try dataIn(plan("A3 0C \(right) \(code) 00 \(action) 00 00 FF FF", unit)) == expected)
        #expect(try dataIn(plan("A3 0C 03 \(code) 00 \(action) 00 00 FF FF", unit)) == expected)
        #expect(plan("A3 0C \(wrong) \(code) 00 \(action) 00 00 FF FF", unit) == .field(2, 2))
    }

    @Test func oneCommandWithTimeouts() throws {
        let data = try dataIn(plan("A3 0C 81 00 00 00 00 00 FF FF", unit))
        #expect(data == hex("00 83 00 06 00 00 00 00 00 00 00 0A 00 00 00 00 00 01 00 00 00 1E"))
    }

    /// SUPPORT 001b: not supported.
    @Test func unknownCommands() throws {
        let no = hex("00 01 00 00")
        #expect(try dataIn(plan("A3 0C 01 FF 00 00 00 00 FF FF", unit)) == no)
        #expect(try dataIn(plan("A3 0C 02 FF 00 01 00 00 FF FF", unit)) == no)
        #expect(try dataIn(plan("A3 0C 02 A3 00 1F 00 00 FF FF", unit)) == no)
        #expect(try dataIn(plan("A3 0C 03 A3 00 1F 00 00 FF FF", unit)) == no)
        #expect(try dataIn(plan("A3 0C 03 12 00 01 00 00 FF FF", unit)) == no)
        #expect(try dataIn(plan("A3 0C 02 A3 01 0C 00 00 FF FF", unit)) == no)
    }

    @Test func reservedReportingOptions() {
        for option in 4...7 {
            #expect(plan("A3 0C 0\(option) 00 00 00 00 00 FF FF", unit) == .field(2, 2))
        }
    }

    @Test func allocationLengthCuts() throws {
        let whole = try dataIn(plan("A3 0C 80 00 00 00 FF FF FF FF", unit))
        for length in 0..<UInt8(255) {
            let part = try dataIn(plan("A3 0C 80 00 00 00 00 00 00 \(hexadecimal([length]))", unit))
            #expect(part == Array(whole.prefix(Int(length))))
        }
    }

    /// SPC-5, tables 238 and 239: ATS, ATSS, CTSS and LURS are bits 7, 6, 4 and 3 of byte 0; ITNRS is bit 0 of byte 1.
    @Test func taskManagementFunctions() throws {
        #expect(try dataIn(plan("A3 0D 00 00 00 00 00 00 00 FF", unit)) == hex("D8 00 00 00"))
        let extended = hex("D8 00 00 0C 00 00 00 00 00 00 00 00 00 00 00 00")
        #expect(try dataIn(plan("A3 0D 80 00 00 00 00 00 00 FF", unit)) == extended)
        #expect(try dataIn(plan("A3 0D 80 00 00 00 00 00 00 02", unit)) == hex("D8 00"))
    }
}
