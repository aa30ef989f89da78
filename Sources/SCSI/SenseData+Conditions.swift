public import AshlarCore

extension SenseData {
    /// Nothing to report.
    public static let noSense = SenseData(.noSense, .none)
    /// The operation code is not in the table.
    public static let invalidOperationCode = SenseData(
        .illegalRequest,
        .invalidOperationCode,
        field: .command(byte: 0)
    )
    /// No logical unit has that LUN.
    public static let logicalUnitNotSupported = SenseData(.illegalRequest, .logicalUnitNotSupported)
    /// The volume is read-only.
    public static let writeProtected = SenseData(.dataProtect, .writeProtected)
    /// SWP of the control mode page is one.
    public static let softwareWriteProtected = SenseData(.dataProtect, .softwareWriteProtected)
    /// No room for so many registrations.
    public static let insufficientRegistrationResources = SenseData(
        .illegalRequest,
        .insufficientRegistrationResources
    )
    /// The persistent reservation has another scope or type than the one to be released.
    public static let invalidReleaseOfReservation = SenseData(.illegalRequest, .invalidReleaseOfReservation)
    /// The data-out have not the length that the CDB implies.
    public static let wrongDataOutLength = SenseData(.illegalRequest, .invalidFieldInInformationUnit)
    /// The parameter list is shorter than what it must hold.
    public static let parameterListLengthError = SenseData(.illegalRequest, .parameterListLength)
    /// The command was not done, or its outcome is not known; it may be sent again.
    public static let abortedCommand = SenseData(.abortedCommand, .none)
    /// The data-out came out of order: nothing was written.
    public static let dataPhaseError = SenseData(.abortedCommand, .dataPhaseError)
    /// The back end did not answer in time.
    public static let communicationTimeout = SenseData(.abortedCommand, .communicationTimeout)
    /// The logical unit will be ready soon.
    public static let becomingReady = SenseData(.notReady, .becomingReady)
    /// The logical unit cannot be reached.
    public static let communicationFailure = SenseData(.notReady, .communicationFailure)
    /// No room to store a block.
    public static let spaceExhausted = SenseData(.dataProtect, .spaceAllocationFailed)
    /// Something inside the target is wrong.
    public static let internalTargetFailure = SenseData(.hardwareError, .internalTargetFailure)

    /// A field of the CDB, by its first byte and most significant bit.
    public static func invalidFieldInCDB(byte: Int, bit: UInt8? = nil) -> SenseData {
        SenseData(.illegalRequest, .invalidFieldInCDB, field: .command(byte: byte, bit: bit))
    }

    /// A field of the parameter list, by its first byte and most significant bit.
    public static func invalidFieldInParameterList(byte: Int, bit: UInt8? = nil) -> SenseData {
        SenseData(.illegalRequest, .invalidFieldInParameterList, field: .parameters(byte: byte, bit: bit))
    }

    /// A block outside the volume; `address` is the first one.
    public static func addressOutOfRange(_ address: LBA) -> SenseData {
        SenseData(.illegalRequest, .addressOutOfRange, information: address.rawValue)
    }

    /// The bytes of a block are lost, or do not fit their checksum (I11).
    public static func mediumError(unrecoveredReadAt address: LBA) -> SenseData {
        SenseData(.mediumError, .unrecoveredRead, information: address.rawValue)
    }

    /// A block cannot be written.
    public static func mediumError(writeAt address: LBA) -> SenseData {
        SenseData(.mediumError, .writeError, information: address.rawValue)
    }

    /// The data-out differ from the medium from byte `offset` of the data-out on.
    public static func miscompare(offset: UInt64) -> SenseData {
        SenseData(.miscompare, .miscompareDuringVerify, information: offset)
    }

    /// The sense data of a unit attention condition.
    public static func unitAttention(_ attention: UnitAttention) -> SenseData {
        SenseData(.unitAttention, attention.additional)
    }
}

extension UnitAttention {
    /// The additional sense code.
    public var additional: AdditionalSense {
        switch self {
        case .powerOnOrReset: .powerOnOrReset
        case .deviceReset: .deviceReset
        case .modeParametersChanged: .modeParametersChanged
        case .reservationsPreempted: .reservationsPreempted
        case .reservationsReleased: .reservationsReleased
        case .registrationsPreempted: .registrationsPreempted
        case .capacityChanged: .capacityChanged
        case .commandsCleared: .commandsCleared
        case .inquiryDataChanged: .inquiryDataChanged
        case .asymmetricAccessChanged: .asymmetricAccessChanged
        case .deviceIdentifierChanged: .deviceIdentifierChanged
        }
    }
}
