import AshlarCore
import NIOCore
import Testing

@testable import SCSI

private func fixed(_ sense: SenseData) -> [UInt8] { Array(sense.encode().readableBytesView) }
private func descriptors(_ sense: SenseData) -> [UInt8] {
    Array(sense.encode(descriptorFormat: true).readableBytesView)
}

@Suite struct SenseTests {
    /// SPC-5, table 56: fixed format.
    @Test func fixedFormat() {
        #expect(fixed(.noSense) == hex("70 00 00 00000000 0A 00000000 00 00 00 00 00 00"))
        #expect(fixed(.invalidOperationCode) == hex("70 00 05 00000000 0A 00000000 20 00 00 C0 00 00"))
        #expect(fixed(.invalidFieldInCDB(byte: 2, bit: 5)) == hex("70 00 05 00000000 0A 00000000 24 00 00 CD 00 02"))
        #expect(
            fixed(.invalidFieldInParameterList(byte: 0x0102, bit: 7))
                == hex("70 00 05 00000000 0A 00000000 26 00 00 8F 01 02")
        )
        #expect(
            fixed(.addressOutOfRange(LBA(0x1234_5678))) == hex("F0 00 05 12345678 0A 00000000 21 00 00 00 00 00")
        )
        #expect(fixed(.miscompare(offset: 513)) == hex("F0 00 0E 00000201 0A 00000000 1D 00 00 00 00 00"))
    }

    /// SPC-5, 4.4.3: VALID is zero where the information has more than 32 bits.
    @Test func fixedFormatWithLongInformation() {
        #expect(
            fixed(.mediumError(unrecoveredReadAt: LBA(1 << 32))) == hex("70 00 03 00000000 0A 00000000 11 00 00 000000")
        )
        #expect(
            fixed(.mediumError(unrecoveredReadAt: LBA(1 << 32 - 1)))
                == hex("F0 00 03 FFFFFFFF 0A 00000000 11 00 00 000000")
        )
    }

    /// SPC-5, tables 44, 46 and 49: descriptor format with its information and sense key specific descriptors.
    @Test func descriptorFormat() {
        #expect(descriptors(.noSense) == hex("72 00 00 00 00 00 00 00"))
        #expect(
            descriptors(.mediumError(unrecoveredReadAt: LBA(0x1_0000_0002)))
                == hex("72 03 11 00 00 00 00 0C 00 0A 80 00 0000000100000002")
        )
        #expect(
            descriptors(.invalidFieldInCDB(byte: 9, bit: 0)) == hex("72 05 24 00 00 00 00 08 02 06 00 00 C8 00 09 00")
        )
    }

    /// SPC-5, 4.4.2.4.4: SKSV and the progress indication, where the field pointer would stand.
    @Test func progressIndication() {
        #expect(
            fixed(.sanitizeInProgress(progress: 0x1234)) == hex("70 00 02 00000000 0A 00000000 04 1B 00 80 12 34")
        )
        #expect(fixed(.formatInProgress(progress: 0)) == hex("70 00 02 00000000 0A 00000000 04 04 00 80 00 00"))
        #expect(
            descriptors(.sanitizeInProgress(progress: 0xFFFE))
                == hex("72 02 04 1B 00 00 00 08 02 06 00 00 80 FF FE 00")
        )
        let none = SenseData(.noSense, .none, progress: 1)
        #expect(fixed(none) == hex("70 00 00 00000000 0A 00000000 00 00 00 80 00 01"))
        #expect(descriptors(none) == hex("72 00 00 00 00 00 00 08 02 06 00 00 80 00 01 00"))
    }

    /// REQUEST SENSE returns them as they are pending.
    @Test func progressIsPendingSense() throws {
        let pending = CommandSet.block.plan(
            cdb: hex("03 00 00 00 FC 00"),
            lun: 0,
            dataOut: nil,
            unit: try makeUnit(),
            pendingSense: .formatInProgress(progress: 0x8000)
        )
        #expect(try dataIn(pending) == hex("70 00 02 00000000 0A 00000000 04 04 00 80 80 00"))
    }

    @Test func theModePageChoosesTheFormat() throws {
        let response = SCSIResponse.checkCondition(.abortedCommand)
        let mode = ModeParameters(isSenseInDescriptorFormat: true)
        #expect(response.encodedSense(for: try makeUnit())?.readableBytes == 18)
        #expect(response.encodedSense(for: try makeUnit(mode: mode))?.readableBytes == 8)
        #expect(SCSIResponse.good.encodedSense(for: try makeUnit()) == nil)
    }

    @Test(arguments: [
        (BackEndFailure.unreadable(LBA(7)), SCSIStatus.checkCondition, "03 11 00"),
        (.unwritable(LBA(7)), .checkCondition, "03 0C 00"),
        (.miscompare(offset: 7), .checkCondition, "0E 1D 00"),
        (.aborted, .checkCondition, "0B 00 00"),
        (.deadlinePassed, .checkCondition, "0B 08 01"),
        (.becomingReady, .checkCondition, "02 04 01"),
        (.unreachable, .checkCondition, "02 08 00"),
        (.busy, .busy, ""),
        (.taskSetFull, .taskSetFull, ""),
        (.reservationConflict, .reservationConflict, ""),
        (.taskAborted, .taskAborted, ""),
        (.insufficientRegistrationResources, .checkCondition, "05 55 04"),
        (.invalidReleaseOfReservation, .checkCondition, "05 26 04"),
        (.invalidParameter(byte: 18, bit: 7), .checkCondition, "05 26 00"),
        (.writeProtected, .checkCondition, "07 27 00"),
        (.softwareWriteProtected, .checkCondition, "07 27 02"),
        (.spaceExhausted, .checkCondition, "07 27 07"),
        (.outOfRange(LBA(7)), .checkCondition, "05 21 00"),
        (.internalError, .checkCondition, "04 44 00"),
    ])
    func failuresOfTheBackEnd(_ failure: BackEndFailure, _ status: SCSIStatus, _ codes: String) {
        let response = failure.response
        let sense = response.sense.map { [$0.key.rawValue, $0.additional.code, $0.additional.qualifier] }
        #expect(response.status == status)
        #expect(sense ?? [] == hex(codes))
        #expect(response.dataIn == nil)
    }

    @Test func invalidParametersPointAtTheirField() {
        let field = BackEndFailure.invalidParameter(byte: 18, bit: 7).response.sense?.field
        #expect(field == .parameters(byte: 18, bit: 7))
        let whole = BackEndFailure.invalidParameter(byte: 8, bit: nil).response.sense?.field
        #expect(whole == .parameters(byte: 8))
    }

    /// SPC-5, annex F.2.
    @Test func unitAttentions() {
        let codes = UnitAttention.allCases.map { hexadecimal([$0.additional.code, $0.additional.qualifier]) }
        #expect(
            codes == [
                "2900", "2903", "2a01", "2a03", "2a04", "2a05", "2a09", "2f00", "3f03", "2a06", "3f05",
            ]
        )
        for attention in UnitAttention.allCases {
            let response = SCSIResponse.unitAttention(attention)
            #expect(response.status == .checkCondition)
            #expect(response.sense?.key == .unitAttention)
        }
    }

    @Test func statusCodes() {
        let codes: [SCSIStatus] = [
            .good, .checkCondition, .conditionMet, .busy, .reservationConflict, .taskSetFull, .acaActive, .taskAborted,
        ]
        #expect(codes.map(\.rawValue) == hex("00 02 04 08 18 28 30 40"))
    }

    @Test func errorsDescribeThemselves() {
        #expect(SCSIError(.writeProtected).description == "sense 7/27/0")
    }
}
