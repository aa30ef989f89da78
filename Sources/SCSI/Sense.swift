public import NIOCore

/// The sense keys (SPC-5, table 48).
public enum SenseKey: UInt8, Sendable, Hashable {
    /// Nothing to report.
    case noSense = 0x0
    /// Done, with some recovery.
    case recoveredError = 0x1
    /// The logical unit cannot be accessed now.
    case notReady = 0x2
    /// Data are lost or damaged.
    case mediumError = 0x3
    /// The device failed in a way that cannot be recovered.
    case hardwareError = 0x4
    /// The CDB or its parameters are wrong.
    case illegalRequest = 0x5
    /// Something happened that the initiator must know of.
    case unitAttention = 0x6
    /// A protected block was to be written.
    case dataProtect = 0x7
    /// Blank medium.
    case blankCheck = 0x8
    /// Third-party copy failed.
    case copyAborted = 0xA
    /// The device server ended the command; it may be sent again.
    case abortedCommand = 0xB
    /// Data of the initiator and of the medium differ.
    case miscompare = 0xE
    /// Done, as asked for (SPC-5).
    case completed = 0xF
}

/// An additional sense code with its qualifier (SPC-5, annex F.2).
public struct AdditionalSense: Sendable, Hashable {
    /// ADDITIONAL SENSE CODE.
    public var code: UInt8
    /// ADDITIONAL SENSE CODE QUALIFIER.
    public var qualifier: UInt8

    /// A code with its qualifier.
    public init(_ code: UInt8, _ qualifier: UInt8) {
        self.code = code
        self.qualifier = qualifier
    }

    /// NO ADDITIONAL SENSE INFORMATION.
    public static let none = AdditionalSense(0x00, 0x00)
    /// LOGICAL UNIT IS IN PROCESS OF BECOMING READY.
    public static let becomingReady = AdditionalSense(0x04, 0x01)
    /// LOGICAL UNIT NOT READY, CAUSE NOT REPORTABLE.
    public static let notReady = AdditionalSense(0x04, 0x00)
    /// LOGICAL UNIT COMMUNICATION TIME-OUT.
    public static let communicationTimeout = AdditionalSense(0x08, 0x01)
    /// LOGICAL UNIT COMMUNICATION FAILURE.
    public static let communicationFailure = AdditionalSense(0x08, 0x00)
    /// WRITE ERROR.
    public static let writeError = AdditionalSense(0x0C, 0x00)
    /// INVALID FIELD IN COMMAND INFORMATION UNIT: the data-out have not the length that the CDB implies.
    public static let invalidFieldInInformationUnit = AdditionalSense(0x0E, 0x03)
    /// UNRECOVERED READ ERROR.
    public static let unrecoveredRead = AdditionalSense(0x11, 0x00)
    /// PARAMETER LIST LENGTH ERROR.
    public static let parameterListLength = AdditionalSense(0x1A, 0x00)
    /// MISCOMPARE DURING VERIFY OPERATION.
    public static let miscompareDuringVerify = AdditionalSense(0x1D, 0x00)
    /// INVALID COMMAND OPERATION CODE.
    public static let invalidOperationCode = AdditionalSense(0x20, 0x00)
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    public static let addressOutOfRange = AdditionalSense(0x21, 0x00)
    /// INVALID FIELD IN CDB.
    public static let invalidFieldInCDB = AdditionalSense(0x24, 0x00)
    /// LOGICAL UNIT NOT SUPPORTED.
    public static let logicalUnitNotSupported = AdditionalSense(0x25, 0x00)
    /// INVALID FIELD IN PARAMETER LIST.
    public static let invalidFieldInParameterList = AdditionalSense(0x26, 0x00)
    /// INVALID RELEASE OF PERSISTENT RESERVATION.
    public static let invalidReleaseOfReservation = AdditionalSense(0x26, 0x04)
    /// WRITE PROTECTED.
    public static let writeProtected = AdditionalSense(0x27, 0x00)
    /// LOGICAL UNIT SOFTWARE WRITE PROTECTED.
    public static let softwareWriteProtected = AdditionalSense(0x27, 0x02)
    /// SPACE ALLOCATION FAILED WRITE PROTECT.
    public static let spaceAllocationFailed = AdditionalSense(0x27, 0x07)
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
    public static let powerOnOrReset = AdditionalSense(0x29, 0x00)
    /// POWER ON OCCURRED.
    public static let powerOn = AdditionalSense(0x29, 0x01)
    /// BUS DEVICE RESET FUNCTION OCCURRED.
    public static let deviceReset = AdditionalSense(0x29, 0x03)
    /// I_T NEXUS LOSS OCCURRED.
    public static let nexusLoss = AdditionalSense(0x29, 0x07)
    /// MODE PARAMETERS CHANGED.
    public static let modeParametersChanged = AdditionalSense(0x2A, 0x01)
    /// RESERVATIONS PREEMPTED.
    public static let reservationsPreempted = AdditionalSense(0x2A, 0x03)
    /// RESERVATIONS RELEASED.
    public static let reservationsReleased = AdditionalSense(0x2A, 0x04)
    /// REGISTRATIONS PREEMPTED.
    public static let registrationsPreempted = AdditionalSense(0x2A, 0x05)
    /// ASYMMETRIC ACCESS STATE CHANGED.
    public static let asymmetricAccessChanged = AdditionalSense(0x2A, 0x06)
    /// CAPACITY DATA HAS CHANGED.
    public static let capacityChanged = AdditionalSense(0x2A, 0x09)
    /// COMMANDS CLEARED BY ANOTHER INITIATOR.
    public static let commandsCleared = AdditionalSense(0x2F, 0x00)
    /// INQUIRY DATA HAS CHANGED.
    public static let inquiryDataChanged = AdditionalSense(0x3F, 0x03)
    /// DEVICE IDENTIFIER CHANGED.
    public static let deviceIdentifierChanged = AdditionalSense(0x3F, 0x05)
    /// REPORTED LUNS DATA HAS CHANGED.
    public static let reportedLUNsChanged = AdditionalSense(0x3F, 0x0E)
    /// DATA PHASE ERROR.
    public static let dataPhaseError = AdditionalSense(0x4B, 0x00)
    /// INTERNAL TARGET FAILURE.
    public static let internalTargetFailure = AdditionalSense(0x44, 0x00)
    /// INSUFFICIENT REGISTRATION RESOURCES.
    public static let insufficientRegistrationResources = AdditionalSense(0x55, 0x04)
}

/// Where the field in error lies (SPC-5, 4.4.2.4.2).
public struct FieldPointer: Sendable, Hashable {
    /// Whether the field lies in the CDB; else in the parameter list of the data-out.
    public var isInCommand: Bool
    /// Offset of the field's first byte.
    public var byte: UInt16
    /// The most significant bit of the field, 0 to 7; `nil` for the byte as a whole.
    public var bit: UInt8?

    /// A field of the CDB.
    public static func command(byte: Int, bit: UInt8? = nil) -> FieldPointer {
        FieldPointer(isInCommand: true, byte: UInt16(clamping: byte), bit: bit)
    }

    /// A field of the parameter list.
    public static func parameters(byte: Int, bit: UInt8? = nil) -> FieldPointer {
        FieldPointer(isInCommand: false, byte: UInt16(clamping: byte), bit: bit)
    }

    /// The three sense key specific bytes.
    var bytes: (UInt8, UInt8, UInt8) {
        var flags: UInt8 = 0x80
        if isInCommand { flags |= 0x40 }
        if let bit { flags |= 0x08 | (bit & 0x07) }
        return (flags, UInt8(byte >> 8), UInt8(byte & 0xFF))
    }
}

/// Sense data, before they are put in one of the two formats (SPC-5, 4.4).
public struct SenseData: Sendable, Hashable {
    /// Bytes of sense data in fixed format (SPC-5, 4.4.3).
    public static let fixedFormatBytes = 18

    /// What kind of condition.
    public var key: SenseKey
    /// Which condition.
    public var additional: AdditionalSense
    /// The INFORMATION field: a logical block address, or the offset of the first byte that differs.
    public var information: UInt64?
    /// The field in error.
    public var field: FieldPointer?
    /// PROGRESS INDICATION of NOT READY or NO SENSE, in 65,536ths; it stands where the field pointer does.
    public var progress: UInt16?

    /// Sense data with each part named.
    public init(
        _ key: SenseKey,
        _ additional: AdditionalSense,
        information: UInt64? = nil,
        field: FieldPointer? = nil,
        progress: UInt16? = nil
    ) {
        self.key = key
        self.additional = additional
        self.information = information
        self.field = field
        self.progress = progress
    }

    /// The three sense key specific bytes (SPC-5, 4.4.2.4): the field pointer, or SKSV and the progress indication.
    private var specificBytes: [UInt8]? {
        if let field {
            let (flags, high, low) = field.bytes
            return [flags, high, low]
        }
        return progress.map { [0x80, UInt8($0 >> 8), UInt8($0 & 0xFF)] }
    }

    /// The bytes in fixed format (70h), or in descriptor format (72h) where the control mode page's D_SENSE bit asks
    /// for it.
    ///
    /// Information above 32 bits does not fit the fixed format: its VALID bit is then zero (SPC-5, 4.4.3).
    public func encode(descriptorFormat: Bool = false) -> ByteBuffer {
        descriptorFormat ? encodeDescriptors() : encodeFixed()
    }

    private func encodeFixed() -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(Self.fixedFormatBytes)
        let narrow = information.flatMap { UInt32(exactly: $0) }
        buffer.writeInteger(UInt8(narrow == nil ? 0x70 : 0xF0))
        buffer.writeInteger(UInt8(0))
        buffer.writeInteger(key.rawValue)
        buffer.writeInteger(narrow ?? 0)
        buffer.writeInteger(UInt8(Self.fixedFormatBytes - 8))
        buffer.writeInteger(UInt32(0))
        buffer.writeInteger(additional.code)
        buffer.writeInteger(additional.qualifier)
        buffer.writeInteger(UInt8(0))
        buffer.writeBytes(specificBytes ?? [0, 0, 0])
        return buffer
    }

    private func encodeDescriptors() -> ByteBuffer {
        var buffer = ByteBuffer()
        let length = (information == nil ? 0 : 12) + (specificBytes == nil ? 0 : 8)
        buffer.writeInteger(UInt8(0x72))
        buffer.writeInteger(key.rawValue)
        buffer.writeInteger(additional.code)
        buffer.writeInteger(additional.qualifier)
        buffer.writeRepeatingByte(0, count: 3)
        buffer.writeInteger(UInt8(length))
        if let information {
            buffer.writeBytes([0x00, 0x0A, 0x80, 0x00])
            buffer.writeInteger(information)
        }
        if let specificBytes {
            buffer.writeBytes([0x02, 0x06, 0x00, 0x00])
            buffer.writeBytes(specificBytes)
            buffer.writeInteger(UInt8(0))
        }
        return buffer
    }
}
