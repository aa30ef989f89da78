public import AshlarCore
public import NIOCore

/// How a command ended (SAM-6, table 43).
public enum SCSIStatus: UInt8, Sendable, Hashable {
    /// Done.
    case good = 0x00
    /// Sense data say what is the matter.
    case checkCondition = 0x02
    /// Done, and what was asked for is so.
    case conditionMet = 0x04
    /// Not accepted now; try again.
    case busy = 0x08
    /// A reservation of another nexus is in the way.
    case reservationConflict = 0x18
    /// No room for the command in the task set.
    case taskSetFull = 0x28
    /// An ACA condition is in the way.
    case acaActive = 0x30
    /// Another nexus aborted the command.
    case taskAborted = 0x40
}

/// The end of a command: status, sense data and data-in.
public struct SCSIResponse: Sendable, Hashable {
    /// SAM-6 status.
    public var status: SCSIStatus
    /// With CHECK CONDITION.
    public var sense: SenseData?
    /// Already cut to the allocation length.
    public var dataIn: ByteBuffer?

    /// A response with each part named.
    public init(status: SCSIStatus, sense: SenseData? = nil, dataIn: ByteBuffer? = nil) {
        self.status = status
        self.sense = sense
        self.dataIn = dataIn
    }

    /// GOOD without data.
    public static let good = SCSIResponse(status: .good)

    /// GOOD with data.
    public static func good(_ dataIn: ByteBuffer) -> SCSIResponse {
        SCSIResponse(status: .good, dataIn: dataIn)
    }

    /// CHECK CONDITION with sense data.
    public static func checkCondition(_ sense: SenseData) -> SCSIResponse {
        SCSIResponse(status: .checkCondition, sense: sense)
    }

    /// CHECK CONDITION for a unit attention.
    public static func unitAttention(_ attention: UnitAttention) -> SCSIResponse {
        checkCondition(.unitAttention(attention))
    }

    /// The sense bytes in the format that the logical unit's control mode page asks for; `nil` without sense data.
    public func encodedSense(for unit: LogicalUnit) -> ByteBuffer? {
        sense?.encode(descriptorFormat: unit.mode.isSenseInDescriptorFormat)
    }
}

/// What the back end can answer other than success, in the words of SCSI: the one place where failures become sense data.
public enum BackEndFailure: Error, Sendable, Hashable {
    /// Bytes of a block are lost or damaged (I11).
    case unreadable(LBA)
    /// A block cannot be written.
    case unwritable(LBA)
    /// COMPARE AND WRITE or VERIFY found a difference at this byte of the data-out.
    case miscompare(offset: UInt64)
    /// The command was not done, or it is unknown whether it was (R6).
    case aborted
    /// No answer inside the command's deadline.
    case deadlinePassed
    /// The volume is being taken over by another owner.
    case becomingReady
    /// No owner can be reached.
    case unreachable
    /// The owner has no room for the command now.
    case busy
    /// The command window is full.
    case taskSetFull
    /// A reservation of another nexus is in the way.
    case reservationConflict
    /// Another nexus aborted the command (TAS of the control mode page).
    case taskAborted
    /// No room for so many registrations.
    case insufficientRegistrationResources
    /// The persistent reservation has another scope or type than the one to be released.
    case invalidReleaseOfReservation
    /// A field of the parameter list, by its first byte and most significant bit, does not fit the state of the unit.
    case invalidParameter(byte: Int, bit: UInt8?)
    /// The volume became read-only.
    case writeProtected
    /// SWP of the control mode page became one.
    case softwareWriteProtected
    /// The store has no room.
    case spaceExhausted
    /// The range is outside the volume, which has another size by now.
    case outOfRange(LBA)
    /// A unit attention condition is reported instead.
    case attention(UnitAttention)
    /// The unit is being erased; 65,536ths done.
    case erasing(Erasure.Kind, progress: UInt16)
    /// A rule was broken inside the target.
    case internalError

    /// The response that the initiator gets.
    public var response: SCSIResponse {
        switch self {
        case .unreadable(let address): .checkCondition(.mediumError(unrecoveredReadAt: address))
        case .unwritable(let address): .checkCondition(.mediumError(writeAt: address))
        case .miscompare(let offset): .checkCondition(.miscompare(offset: offset))
        case .aborted: .checkCondition(.abortedCommand)
        case .deadlinePassed: .checkCondition(.communicationTimeout)
        case .becomingReady: .checkCondition(.becomingReady)
        case .unreachable: .checkCondition(.communicationFailure)
        case .busy: SCSIResponse(status: .busy)
        case .taskSetFull: SCSIResponse(status: .taskSetFull)
        case .reservationConflict: SCSIResponse(status: .reservationConflict)
        case .taskAborted: SCSIResponse(status: .taskAborted)
        case .insufficientRegistrationResources: .checkCondition(.insufficientRegistrationResources)
        case .invalidReleaseOfReservation: .checkCondition(.invalidReleaseOfReservation)
        case .invalidParameter(let byte, let bit): .checkCondition(.invalidFieldInParameterList(byte: byte, bit: bit))
        case .writeProtected: .checkCondition(.writeProtected)
        case .softwareWriteProtected: .checkCondition(.softwareWriteProtected)
        case .spaceExhausted: .checkCondition(.spaceExhausted)
        case .outOfRange(let address): .checkCondition(.addressOutOfRange(address))
        case .attention(let attention): .unitAttention(attention)
        case .erasing(.format, let progress): .checkCondition(.formatInProgress(progress: progress))
        case .erasing(_, let progress): .checkCondition(.sanitizeInProgress(progress: progress))
        case .internalError: .checkCondition(.internalTargetFailure)
        }
    }
}

/// A command that ends before it reaches the back end.
public struct SCSIError: Error, Hashable, CustomStringConvertible {
    /// What the initiator is told.
    public let sense: SenseData

    /// An error that ends the command with CHECK CONDITION.
    public init(_ sense: SenseData) {
        self.sense = sense
    }

    /// Sense key and codes in hexadecimal.
    public var description: String {
        let codes = [sense.key.rawValue, sense.additional.code, sense.additional.qualifier]
        return "sense " + codes.map { String($0, radix: 16) }.joined(separator: "/")
    }
}
