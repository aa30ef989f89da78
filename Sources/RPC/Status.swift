public import AshlarCore
public import NIOCore

/// The outcome of a request, as a number that answers carry in their header.
public struct RPCStatus: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    /// The number on the wire.
    public let rawValue: UInt32

    /// Wraps a number; every number is accepted, so that a later version may have more of them.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Done.
    public static let ok = RPCStatus(rawValue: 0)
    /// The nexus has not proved itself lately (R1): not executed; prove, then send again under the same id.
    public static let unproved = RPCStatus(rawValue: 1)
    /// The request was made for another epoch (R5). Detail: the current epoch and the owner's endpoint.
    public static let wrongEpoch = RPCStatus(rawValue: 2)
    /// This server does not own the volume. Detail: the epoch and the owner's endpoint as far as known.
    public static let notOwner = RPCStatus(rawValue: 3)
    /// A newer nexus of the same initiator port has closed this one (R3).
    public static let nexusClosed = RPCStatus(rawValue: 4)
    /// The command's id is below the low-water mark (R4): never executed now.
    public static let belowLowWater = RPCStatus(rawValue: 5)
    /// The command was given up; a higher epoch serves, or a task management function ended it (R6).
    public static let aborted = RPCStatus(rawValue: 6)
    /// A persistent reservation forbids it.
    public static let reservationConflict = RPCStatus(rawValue: 7)
    /// COMPARE AND WRITE found other data.
    public static let miscompare = RPCStatus(rawValue: 8)
    /// The volume is read-only.
    public static let readOnly = RPCStatus(rawValue: 9)
    /// Beyond the end of the volume or the object.
    public static let outOfRange = RPCStatus(rawValue: 10)
    /// Stored bytes do not match their checksum (I11).
    public static let mediumError = RPCStatus(rawValue: 11)
    /// Not now: a bound is reached; not executed.
    public static let busy = RPCStatus(rawValue: 12)
    /// The deadline passed before the request was executed.
    public static let deadlineExceeded = RPCStatus(rawValue: 13)
    /// No such volume.
    public static let noSuchVolume = RPCStatus(rawValue: 14)
    /// No such object.
    public static let noSuchObject = RPCStatus(rawValue: 15)
    /// It exists already, with other contents.
    public static let exists = RPCStatus(rawValue: 16)
    /// No space is left.
    public static let noSpace = RPCStatus(rawValue: 17)
    /// A disk or the database failed.
    public static let inputOutput = RPCStatus(rawValue: 18)
    /// The message cannot be decoded, or its fields contradict each other.
    public static let invalidMessage = RPCStatus(rawValue: 19)
    /// The message type, or what it asks for, is not known here.
    public static let unsupported = RPCStatus(rawValue: 20)
    /// A bug or an unforeseen failure; it may or may not have been executed.
    public static let internalError = RPCStatus(rawValue: 21)

    /// A unit attention condition is reported instead (SAM-6, 5.14). Detail: its number.
    public static let unitAttention = RPCStatus(rawValue: 22)
    /// The unit is being erased. Detail: the kind in bits 16 to 23, 65,536ths done below.
    public static let erasing = RPCStatus(rawValue: 23)
    /// Another nexus had the command aborted.
    public static let taskAborted = RPCStatus(rawValue: 24)
    /// SWP of the control mode page is set.
    public static let softwareWriteProtected = RPCStatus(rawValue: 25)
    /// A release of another type than the persistent reservation has.
    public static let invalidRelease = RPCStatus(rawValue: 26)
    /// No room for another registration.
    public static let noRegistrationRoom = RPCStatus(rawValue: 27)
    /// A field of the parameter list has a value that does not fit the state. Detail: its offset.
    public static let invalidParameter = RPCStatus(rawValue: 28)
    /// A direct write cannot be done as such; not executed: send it as a write under the same id (M4).
    public static let stale = RPCStatus(rawValue: 29)

    /// The name, or the number where there is none.
    public var description: String {
        Self.names.indices.contains(Int(rawValue)) ? Self.names[Int(rawValue)] : "status \(rawValue)"
    }

    private static let names = [
        "ok", "unproved", "wrong epoch", "not owner", "nexus closed", "below low water", "aborted",
        "reservation conflict", "miscompare", "read only", "out of range", "medium error", "busy",
        "deadline exceeded", "no such volume", "no such object", "exists", "no space", "input/output",
        "invalid message", "unsupported", "internal error", "unit attention", "erasing", "task aborted",
        "software write protected", "invalid release", "no registration room", "invalid parameter", "stale",
    ]
}

/// Who serves a volume now: the detail of ``RPCStatus/wrongEpoch`` and ``RPCStatus/notOwner``.
public struct RPCOwnerHint: Hashable, Sendable {
    /// The epoch that is served; 0 where unknown.
    public var epoch: Epoch
    /// The owner's `host:port`; empty where unknown.
    public var endpoint: String

    /// A hint with both parts named.
    public init(epoch: Epoch, endpoint: String) {
        self.epoch = epoch
        self.endpoint = endpoint
    }
}

/// An answer other than ok: its body is a length-prefixed text for people and then the detail of its status.
public struct RPCError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What happened, for programs.
    public var status: RPCStatus
    /// What happened, for people. Holds no user data.
    public var message: String
    /// What the status carries beyond its text; empty for most.
    public var detail: ByteBuffer

    /// An error with each part named.
    public init(_ status: RPCStatus, _ message: String, detail: ByteBuffer = ByteBuffer()) {
        self.status = status
        self.message = message
        self.detail = detail
    }

    /// A refusal of a request that was made for another epoch (R5).
    public static func wrongEpoch(current: Epoch, owner: String, _ message: String) -> RPCError {
        RPCError(.wrongEpoch, message, detail: detail(of: RPCOwnerHint(epoch: current, endpoint: owner)))
    }

    /// A refusal by a server that does not own the volume.
    public static func notOwner(current: Epoch, owner: String, _ message: String) -> RPCError {
        RPCError(.notOwner, message, detail: detail(of: RPCOwnerHint(epoch: current, endpoint: owner)))
    }

    /// The epoch and the owner that ``RPCStatus/wrongEpoch`` and ``RPCStatus/notOwner`` carry; `nil` for other errors.
    public var ownerHint: RPCOwnerHint? {
        guard status == .wrongEpoch || status == .notOwner else { return nil }
        var buffer = detail
        guard
            let epoch = try? buffer.readRPCIdentifier(Epoch.self),
            let endpoint = try? buffer.readRPCString(maximumBytes: RPCLimits.endpointMaximumBytes)
        else { return nil }
        return RPCOwnerHint(epoch: epoch, endpoint: endpoint)
    }

    /// A refusal by an object server: this slot, or the object as a whole, is damaged (I11).
    public static func damaged(_ slot: SlotIndex?, _ message: String) -> RPCError {
        var detail = ByteBuffer()
        if let slot { detail.writeRPCIdentifier(slot) }
        return RPCError(.mediumError, message, detail: detail)
    }

    /// The slot that an object server names with ``RPCStatus/mediumError``; `nil` where it names none.
    public var damagedSlot: SlotIndex? {
        guard status == .mediumError else { return nil }
        var buffer = detail
        guard let slot = try? buffer.readRPCIdentifier(SlotIndex.self), buffer.readableBytes == 0 else { return nil }
        return slot
    }

    /// Appends the body of the answer: text, then detail.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCString(message, maximumBytes: RPCLimits.errorTextMaximumBytes)
        buffer.writeImmutableBuffer(detail)
    }

    /// Reads the body of an answer with a status other than ok. A body that cannot be read gives an empty text, since
    /// the status alone is what counts.
    public init(status: RPCStatus, decoding body: ByteBuffer) {
        var body = body
        let text = try? body.readRPCString(maximumBytes: RPCLimits.errorTextMaximumBytes)
        self.init(status, text ?? "", detail: text == nil ? ByteBuffer() : body.slice())
    }

    /// The status and the text.
    public var description: String { message.isEmpty ? status.description : "\(status): \(message)" }

    private static func detail(of hint: RPCOwnerHint) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeRPCIdentifier(hint.epoch)
        buffer.writeRPCString(hint.endpoint, maximumBytes: RPCLimits.endpointMaximumBytes)
        return buffer
    }
}
