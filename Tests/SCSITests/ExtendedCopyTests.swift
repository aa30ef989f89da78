import AshlarCore
import NIOCore
import Testing

@testable import SCSI

/// The NAA designator of the golden volume.
private let goldenIdentifier = hex("3E 3D 68 5B C2 F1 A4 97")

/// Parameter lists of EXTENDED COPY, with lengths that may lie.
private struct CopyList {
    var isLong = false
    var identifier: UInt32 = 1
    var flags: UInt8 = 0
    var options: UInt8 = 0
    var devices = [Self.device()]
    var segments = [Self.segment()]
    var inlineBytes: UInt16 = 0

    /// An identification CSCD descriptor (SPC-4, 6.4.5.6).
    static func device(
        type: UInt8 = 0xE4,
        kind: UInt8 = 0x00,
        designatorType: UInt8 = 0x03,
        designator: [UInt8] = goldenIdentifier,
        blockBytes: UInt32 = 512
    ) -> [UInt8] {
        let filled = designator + [UInt8](repeating: 0, count: max(0, 20 - designator.count))
        return [type, kind, 0, 0, 0x01, designatorType, 0, UInt8(designator.count)] + filled.prefix(20)
            + [0, UInt8(blockBytes >> 16), UInt8(blockBytes >> 8 & 0xFF), UInt8(blockBytes & 0xFF)]
    }

    /// A block device to block device segment descriptor (SPC-4, 6.4.6.5).
    static func segment(
        type: UInt8 = 0x02,
        flags: UInt8 = 0,
        from source: UInt16 = 0,
        to destination: UInt16 = 0,
        blocks: UInt16 = 0x0102,
        sourceAddress: UInt64 = 0x10,
        destinationAddress: UInt64 = 0x2000
    ) -> [UInt8] {
        var data = ByteBuffer(bytes: [type, flags, 0x00, 0x18])
        data.writeInteger(source)
        data.writeInteger(destination)
        data.writeInteger(UInt16(0))
        data.writeInteger(blocks)
        data.writeInteger(sourceAddress)
        data.writeInteger(destinationAddress)
        return Array(data.readableBytesView)
    }

    var bytes: [UInt8] {
        let deviceBytes = devices.flatMap { $0 }
        let segmentBytes = segments.flatMap { $0 }
        var data = ByteBuffer()
        if isLong {
            data.writeBytes([0x01, flags, 0x00, 0x20])
            data.writeRepeatingByte(0, count: 11)
            data.writeBytes([options, 0xFF, 0, 0, 0])
            data.writeInteger(identifier)
            data.writeRepeatingByte(0, count: 18)
            data.writeInteger(UInt16(deviceBytes.count))
            data.writeInteger(UInt16(segmentBytes.count))
            data.writeInteger(inlineBytes)
        } else {
            data.writeBytes([UInt8(identifier), flags])
            data.writeInteger(UInt16(deviceBytes.count))
            data.writeInteger(UInt32(0))
            data.writeInteger(UInt32(segmentBytes.count))
            data.writeInteger(UInt32(inlineBytes))
        }
        return Array(data.readableBytesView) + deviceBytes + segmentBytes
    }

    func plan(length: Int? = nil, _ unit: LogicalUnit) -> SCSICommandPlan {
        copy(bytes, isLong: isLong, length: length, unit)
    }
}

private func copy(_ list: [UInt8], isLong: Bool = false, length: Int? = nil, _ unit: LogicalUnit) -> SCSICommandPlan {
    var cdb: [UInt8] = [0x83, isLong ? 1 : 0, 0, 0, 0, 0, 0, 0, 0, 0]
    let count = UInt32(length ?? list.count)
    cdb += [UInt8(count >> 24), UInt8(count >> 16 & 0xFF), UInt8(count >> 8 & 0xFF), UInt8(count & 0xFF), 0, 0]
    return CommandSet.block.plan(cdb: cdb, lun: 0, dataOut: ByteBuffer(bytes: list), unit: unit)
}

private func field(_ byte: Int, _ bit: UInt8) -> SCSICommandPlan {
    .refused(.invalidFieldInParameterList(byte: byte, bit: bit))
}

private func refused(_ plan: SCSICommandPlan, _ key: SenseKey, _ additional: AdditionalSense) -> Bool {
    guard case .complete(let response) = plan, let sense = response.sense else { return false }
    return sense.key == key && sense.additional == additional
}

@Suite struct ExtendedCopyTests {
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    private func expected(_ identifier: UInt32?, isImmediate: Bool = false) -> SCSICommandPlan {
        .extendedCopy(
            ExtendedCopy(
                listIdentifier: identifier,
                isImmediate: isImmediate,
                devices: [
                    CopyDevice(designatorType: 3, designator: goldenIdentifier, logicalBlockSizeBytes: 512)
                ],
                segments: [
                    CopySegment(
                        source: 0,
                        destination: 0,
                        sourceAddress: LBA(0x10),
                        destinationAddress: LBA(0x2000),
                        blockCount: 0x102,
                        countsDestination: false
                    )
                ]
            )
        )
    }

    /// SPC-4, 6.4: the whole list, byte by byte.
    @Test func goldenShortList() {
        let list = hex(
            """
            07 10 0020 00000000 0000001C 00000000
            E4 00 0000 01 03 00 08 3E3D685BC2F1A497 000000000000000000000000 00 000200
            02 00 0018 0000 0000 0000 0102 0000000000000010 0000000000002000
            """
        )
        #expect(copy(list, unit) == expected(7))
        #expect(CopyList(identifier: 7, flags: 0x10).bytes == list)
        #expect(transfer("83 00 00 00 00 00 00 00 00 00 00 01 02 03 00 00", unit) == .dataOut(0x1_0203))
    }

    /// SPC-5, 6.6.
    @Test func goldenLongList() {
        let list = hex(
            """
            01 00 0020 0000000000000000000000 01 FF 000000 A1B2C3D4 000000000000000000000000000000000000
            0020 001C 0000
            E4 00 0000 01 03 00 08 3E3D685BC2F1A497 000000000000000000000000 00 000200
            02 00 0018 0000 0000 0000 0102 0000000000000010 0000000000002000
            """
        )
        #expect(list.count == 48 + 32 + 28)
        #expect(copy(list, isLong: true, unit) == expected(0xA1B2_C3D4, isImmediate: true))
        #expect(CopyList(isLong: true, identifier: 0xA1B2_C3D4, options: 1).bytes == list)
    }

    // MARK: Lengths

    @Test func noListIsNoError() {
        #expect(copy([], unit) == .good)
        #expect(copy([], isLong: true, unit) == .good)
    }

    /// The cases of libiscsi's ExtendedCopy.ParamHdr, at every length.
    @Test(arguments: [false, true])
    func truncatedLists(_ isLong: Bool) {
        let list = CopyList(isLong: isLong)
        for length in 1..<list.bytes.count {
            #expect(list.plan(length: length, unit) == .refused(.parameterListLengthError))
            let part = Array(list.bytes.prefix(length))
            #expect(copy(part, isLong: isLong, length: list.bytes.count, unit) == .refused(.parameterListLengthError))
        }
        #expect(copy(list.bytes + [1, 2, 3], isLong: isLong, unit) == expected(1))
    }

    /// The cases of libiscsi's ExtendedCopy.DescrLimits.
    @Test func limits() {
        var list = CopyList()
        list.devices = Array(repeating: CopyList.device(), count: 65)
        #expect(refused(list.plan(unit), .illegalRequest, AdditionalSense(0x26, 0x06)))
        list.segments = Array(repeating: CopyList.segment(), count: 257)
        #expect(list.plan(unit) == .refused(.parameterListLengthError))
        list.devices = [CopyList.device()]
        #expect(refused(list.plan(unit), .illegalRequest, AdditionalSense(0x26, 0x08)))
        list.segments.removeLast()
        list.devices = Array(repeating: CopyList.device(), count: 64)
        guard case .extendedCopy(let most) = list.plan(unit) else {
            Issue.record("the most is refused")
            return
        }
        #expect(most.devices.count == 64)
        #expect(most.segments.count == 256)
    }

    @Test(arguments: [false, true])
    func inlineDataAreRefused(_ isLong: Bool) {
        let list = CopyList(isLong: isLong, inlineBytes: 1)
        #expect(refused(list.plan(unit), .illegalRequest, AdditionalSense(0x26, 0x0B)))
    }

    @Test func descriptorsThatAreNotWhole() {
        var list = CopyList()
        list.devices = [Array(CopyList.device().prefix(31))]
        #expect(list.plan(unit) == field(2, 7))
        list = CopyList(isLong: true)
        list.devices = [CopyList.device(), Array(CopyList.device().prefix(1))]
        #expect(list.plan(unit) == field(42, 7))
        list = CopyList()
        list.segments = [Array(CopyList.segment().prefix(27))]
        #expect(list.plan(unit) == .refused(.parameterListLengthError))
        list.segments = [CopyList.segment()]
        list.segments[0][3] = 0x17
        #expect(list.plan(unit) == field(16 + 32 + 2, 7))
    }

    /// A length that says more than there is.
    @Test func lyingLengths() {
        var bytes = CopyList().bytes
        bytes[8] = 0xFF
        #expect(copy(bytes, unit) == .refused(.parameterListLengthError))
        bytes = CopyList().bytes
        bytes[2] = 0xFF
        #expect(copy(bytes, unit) == .refused(.parameterListLengthError))
        #expect(copy(CopyList().bytes, length: Int(UInt32.max), unit) == .refused(.parameterListLengthError))
    }

    // MARK: Headers

    /// LIST ID USAGE: 01b is reserved; with 11b there is no identifier.
    @Test func listIdentifiers() {
        #expect(CopyList(flags: 0x00).plan(unit) == expected(1))
        #expect(CopyList(flags: 0x08).plan(unit) == field(1, 4))
        #expect(CopyList(flags: 0x18).plan(unit) == field(0, 7))
        #expect(CopyList(identifier: 0, flags: 0x18).plan(unit) == expected(nil))
        #expect(CopyList(isLong: true, flags: 0x18).plan(unit) == field(20, 7))
        #expect(CopyList(isLong: true, identifier: 0, flags: 0x18).plan(unit) == expected(nil))
        #expect(CopyList(isLong: true, identifier: 0, flags: 0x18, options: 1).plan(unit) == field(15, 0))
        // STR and PRIORITY are hints.
        #expect(CopyList(flags: 0x27).plan(unit) == expected(1))
    }

    /// Bytes 4 to 7 are reserved in LID1.
    @Test func shortHeaders() {
        for offset in 4..<8 {
            var bytes = CopyList().bytes
            bytes[offset] = 0x20
            #expect(copy(bytes, unit) == field(offset, 5))
        }
    }

    @Test func longHeaders() {
        for (offset, value, bit) in [(0, UInt8(0), UInt8(7)), (3, 0x1F, 7), (15, 0x02, 1), (16, 0xE4, 7)] {
            var bytes = CopyList(isLong: true).bytes
            bytes[offset] = value
            #expect(copy(bytes, isLong: true, unit) == field(offset == 3 ? 2 : offset, bit))
        }
    }

    // MARK: Devices

    /// The cases of libiscsi's ExtendedCopy.DescrType.
    @Test func unknownTypes() {
        for type: UInt8 in [0x00, 0xE0, 0xEA, 0xFE, 0xFF] {
            var list = CopyList()
            list.devices = [CopyList.device(), CopyList.device(type: type)]
            let sense = SenseData(.illegalRequest, AdditionalSense(0x26, 0x07), field: .parameters(byte: 48))
            #expect(list.plan(unit) == .refused(sense))
        }
        for type: UInt8 in [0x00, 0x03, 0x07, 0xBE] {
            var list = CopyList()
            list.segments = [Array(CopyList.segment(type: type).prefix(20))]
            let sense = SenseData(.illegalRequest, AdditionalSense(0x26, 0x09), field: .parameters(byte: 48))
            #expect(list.plan(unit) == .refused(sense))
        }
    }

    /// LU ID TYPE, NUL and PAD change nothing (libiscsi's ExtendedCopy.ValidTgtDescr).
    @Test func ignoredFieldsOfDevices() {
        var list = CopyList()
        list.devices = [CopyList.device(kind: 0xA0)]
        list.devices[0][28] = 0x04
        #expect(list.plan(unit) == expected(1))
    }

    @Test func fieldsOfDevices() {
        var list = CopyList()
        list.devices = [CopyList.device(kind: 0x01)]
        #expect(refused(list.plan(unit), .copyAborted, AdditionalSense(0x0D, 0x03)))
        list.devices = [CopyList.device(designatorType: 0x13)]
        #expect(list.plan(unit) == field(16 + 5, 5))
        list.devices = [CopyList.device()]
        list.devices[0][7] = 21
        #expect(list.plan(unit) == field(16 + 7, 7))
    }

    // MARK: Segments

    /// The first case of libiscsi's ExtendedCopy.ValidSegDescr: UNREACHABLE COPY TARGET.
    @Test func identifiersWithoutDevice() {
        for (source, destination) in [(UInt16(1), UInt16(0)), (0, 1), (0x07FF, 0), (0, 0xC000), (0, 0xF800)] {
            var list = CopyList()
            list.segments = [CopyList.segment(from: source, to: destination)]
            #expect(refused(list.plan(unit), .copyAborted, AdditionalSense(0x08, 0x04)))
        }
    }

    /// FFFFh: the logical unit that got the command.
    @Test func theOwnLogicalUnit() {
        var list = CopyList()
        list.devices = [CopyList.device(designator: [1, 2, 3])]
        list.segments = [CopyList.segment(from: 0, to: 0xFFFF), CopyList.segment(from: 0xFFFF, to: 0xFFFF)]
        guard case .extendedCopy(let copy) = list.plan(unit) else {
            Issue.record("refused")
            return
        }
        #expect(copy.devices.count == 2)
        #expect(copy.segments.map(\.source) == [0, 1])
        #expect(copy.segments.map(\.destination) == [1, 1])
        #expect(unit.isDesignated(by: copy.devices[1]))
        #expect(!unit.isDesignated(by: copy.devices[0]))
    }

    @Test func fieldsOfSegments() {
        var list = CopyList()
        list.segments = [CopyList.segment(flags: 0x03, blocks: 0)]
        guard case .extendedCopy(let copy) = list.plan(unit) else {
            Issue.record("refused")
            return
        }
        #expect(copy.segments[0].countsDestination)
        #expect(copy.segments[0].blockCount == 0)
        list.segments = [CopyList.segment(flags: 0x04)]
        #expect(list.plan(unit) == field(16 + 32 + 1, 2))
    }

    /// MAXIMUM SEGMENT LENGTH is 16 MiB, in the blocks of the device that is counted.
    @Test func segmentLengths() {
        var list = CopyList()
        list.devices = [CopyList.device(), CopyList.device(blockBytes: 4_096), CopyList.device(blockBytes: 0)]
        list.segments = [CopyList.segment(from: 0, to: 1, blocks: 0x8000)]
        guard case .extendedCopy = list.plan(unit) else {
            Issue.record("refused")
            return
        }
        list.segments = [CopyList.segment(from: 0, to: 1, blocks: 0x8001)]
        #expect(list.plan(unit) == field(16 + 96 + 10, 7))
        list.segments = [CopyList.segment(flags: 0x02, from: 0, to: 1, blocks: 0x1001)]
        #expect(list.plan(unit) == field(16 + 96 + 10, 7))
        list.segments = [CopyList.segment(from: 2, to: 1, blocks: 0x8001)]
        #expect(list.plan(unit) == field(16 + 96 + 10, 7))
    }

    /// VPD page 83h: designators of the logical unit, not of its port or target.
    @Test func designators() {
        func device(_ type: UInt8, _ bytes: [UInt8]) -> CopyDevice {
            CopyDevice(designatorType: type, designator: bytes, logicalBlockSizeBytes: 512)
        }
        #expect(unit.isDesignated(by: device(3, goldenIdentifier)))
        #expect(unit.isDesignated(by: device(0xA, [0x10, 0x00] + goldenUUID)))
        #expect(!unit.isDesignated(by: device(2, goldenIdentifier)))
        #expect(!unit.isDesignated(by: device(3, goldenIdentifier.dropLast())))
        #expect(!unit.isDesignated(by: device(4, hex("00 00 02 03"))))
        #expect(!unit.isDesignated(by: device(0, [])))
    }
}

@Suite struct CopyResultsTests {
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    private func query(
        _ action: CopyResultsQuery.ServiceAction,
        _ identifier: UInt32 = 1,
        allocation: UInt64 = 1_024
    ) -> CopyResultsQuery {
        CopyResultsQuery(action: action, listIdentifier: identifier, allocationLength: allocation)
    }

    private func record(_ progress: CopyRecord.Progress, segments: Int = 3, bytes: UInt64 = 0x10_0000) -> CopyRecord {
        CopyRecord(listIdentifier: 1, progress: progress, segmentsDone: segments, bytesWritten: bytes)
    }

    private func bytes(_ query: CopyResultsQuery, _ record: CopyRecord?) throws -> [UInt8] {
        try dataIn(.complete(query.response(record)))
    }

    /// SPC-4, 6.24 and SPC-5, 6.22: LIST IDENTIFIER has one byte, or four.
    @Test func plans() {
        let template = "84 %% AB 00 00 00 00 00 00 00 00 00 04 00 00 00"
        #expect(plan(template.replacing("%%", with: "00"), unit) == .copyResults(query(.copyStatus, 0xAB)))
        #expect(plan(template.replacing("%%", with: "01"), unit) == .copyResults(query(.receiveData, 0xAB)))
        #expect(plan(template.replacing("%%", with: "04"), unit) == .copyResults(query(.failedSegmentDetails, 0xAB)))
        #expect(
            plan("84 05 A1 B2 C3 D4 00 00 00 00 00 00 04 00 00 00", unit)
                == .copyResults(query(.copyStatusLong, 0xA1B2_C3D4))
        )
        #expect(transfer("84 00 00 00 00 00 00 00 00 00 00 01 02 03 00 00", unit) == .dataInAtMost(0x1_0203))
    }

    /// OPERATING PARAMETERS, SPC-4, 6.24.
    @Test func operatingParameters() throws {
        let expected = hex(
            """
            0000002A 01000000 0040 0100 00002400 01000000 00000000 00000000 00000000 0000
            0010 10 09 00 00 000000 02 02 E4
            """
        )
        #expect(expected.count == 46)
        #expect(try dataIn(plan("84 03 00 00 00 00 00 00 00 00 00 00 04 00 00 00", unit)) == expected)
        #expect(try dataIn(plan("84 03 00 00 00 00 00 00 00 00 00 00 00 05 00 00", unit)) == hex("0000002A 01"))
        let large = try makeUnit(logicalBlockSizeBytes: 4_096)
        #expect(try dataIn(plan("84 03 00 00 00 00 00 00 00 00 00 00 04 00 00 00", large))[37] == 12)
    }

    @Test func unknownListsAreRefused() {
        for action: CopyResultsQuery.ServiceAction in [
            .copyStatus, .receiveData, .failedSegmentDetails, .copyStatusLong,
        ] {
            #expect(query(action).response(nil) == .checkCondition(.invalidFieldInCDB(byte: 2, bit: 7)))
        }
        let running = query(.failedSegmentDetails).response(record(.inProgress))
        #expect(running == .checkCondition(.invalidFieldInCDB(byte: 2, bit: 7)))
    }

    /// COPY STATUS: available data, status, segments, units and count.
    @Test func shortStatus() throws {
        #expect(try bytes(query(.copyStatus), record(.inProgress)) == hex("00000008 00 0003 00 00100000"))
        #expect(try bytes(query(.copyStatus), record(.done)) == hex("00000008 01 0003 00 00100000"))
        #expect(try bytes(query(.copyStatus), record(.failed(.copyAborted))) == hex("00000008 02 0003 00 00100000"))
        let much = record(.done, segments: 70_000, bytes: 1 << 32)
        #expect(try bytes(query(.copyStatus), much) == hex("00000008 01 FFFF 02 00001000"))
        #expect(try bytes(query(.copyStatus, allocation: 5), record(.done)) == hex("00000008 01"))
    }

    @Test func nothingIsHeld() throws {
        #expect(try bytes(query(.receiveData), record(.done)) == hex("00000000"))
        #expect(try bytes(query(.failedSegmentDetails), record(.done)) == hex("00000000"))
    }

    /// FAILED SEGMENT DETAILS: status in byte 56, length of the sense data in 58 and 59, sense data from 60 on.
    @Test func failureDetails() throws {
        let expected =
            hex("0000004A") + [UInt8](repeating: 0, count: 52) + hex("02 00 0012")
            + hex("70 00 0A 00000000 0A 00000000 08 04 00 00 00 00")
        let failed = record(.failed(.unreachableCopyTarget))
        #expect(try bytes(query(.failedSegmentDetails), failed) == expected)
        #expect(try bytes(query(.failedSegmentDetails, allocation: 60), failed) == Array(expected.prefix(60)))
    }

    /// RECEIVE COPY STATUS (LID4): 32 bytes, then the sense data.
    @Test func longStatus() throws {
        #expect(
            try bytes(query(.copyStatusLong), record(.inProgress))
                == hex("0000001C 01 10 0003 FFFFFFFF 00 00 00 00 0000000000100000 0003 000000000000")
        )
        #expect(
            try bytes(query(.copyStatusLong), record(.done))
                == hex("0000001C 01 01 0003 FFFFFFFF 00 00 00 00 0000000000100000 0003 000000000000")
        )
        #expect(
            try bytes(query(.copyStatusLong), record(.failed(.copyAborted)))
                == hex("0000002E 01 02 0003 FFFFFFFF 02 12 12 00 0000000000100000 0003 000000000000")
                + hex("70 00 0A 00000000 0A 00000000 00 00 00 00 00 00")
        )
    }

    /// VPD page 8Fh: supported commands, parameter data, supported descriptors and CSCD descriptor IDs, general copy operations.
    @Test func thirdPartyCopyPage() throws {
        let expected = hex(
            """
            00 8F 0064
            0001 000C 0B 83 02 00 01 84 05 00 01 03 04 05
            0004 001C 00000000 0040 0100 00002400 00000000 000000000000000000000000
            0008 0004 02 02 E4 00
            000C 0004 0002 FFFF
            8001 0020 00000010 00000010 01000000 09 00 000000000000000000000000000000000000
            """
        )
        #expect(try dataIn(plan("12 01 8F 01 00 00", unit)) == expected)
        #expect(expected.count == 0x64 + 4)
    }
}
