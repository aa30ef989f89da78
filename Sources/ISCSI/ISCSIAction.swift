public import NIOCore

/// What a connection asks its shell to do, in order.
public enum ISCSIAction: Sendable {
    /// Write a header, padding and digests, or a whole small PDU. Flush once, when there are no more actions.
    case send(ByteBuffer)
    /// Write a slice of the payload that was handed in. Flush as with ``send(_:)``.
    case sendData(ByteBuffer)
    /// Look the target up; answer by `targetResolved`, `loginRefused` or `loginRedirected`.
    case resolveTarget(LoginIdentity)
    /// Open the session at the back end (a nexus; nothing for discovery); answer by `sessionOpened`, `loginRefused` or
    /// `loginRedirected`.
    case openSession(SessionParameters)
    /// Run the command; answer by `complete`.
    case execute(ISCSICommand)
    /// Abort or reset; answer by `taskManagementCompleted`.
    case manageTasks(TaskManagementRequest)
    /// List targets; answer by `targetsListed`.
    case listTargets(TargetListRequest)
    /// The initiator has shown that it received a PDU sent after `stampArrived` of this token (R1).
    case proved(UInt64)
    /// The session is over; its commands are gone from the machine. Comes at most once, after `sessionOpened`.
    case sessionEnded(SessionEndReason)
    /// Write out what was sent, then close. Nothing follows but ``sessionEnded(_:)``, where the session was opened too
    /// late.
    case close
    /// Log a line. It holds no secret and no data.
    case note(ISCSINote)
}

/// Why a session ended.
public enum SessionEndReason: String, Sendable, Hashable {
    /// The initiator logged out.
    case loggedOut
    /// The connection broke or was closed by the initiator.
    case connectionClosed
    /// A ping stayed unanswered.
    case pingTimeout
    /// The initiator broke the protocol.
    case protocolError
    /// A digest did not match: with ErrorRecoveryLevel 0 the session is recovered by a new login.
    case digestError
    /// TARGET COLD RESET.
    case reset
    /// The initiator opened the session again elsewhere.
    case reinstated
    /// The target goes away.
    case shutdown
}

/// A line for the log.
public struct ISCSINote: Sendable, Hashable {
    /// How much it matters.
    public enum Severity: Sendable, Hashable {
        /// For who looks for a fault in an initiator.
        case debug
        /// The course of things.
        case info
        /// Something that an operator should know.
        case warning
        /// Something that must not be.
        case error
    }

    /// How much it matters.
    public var severity: Severity
    /// The line, with the initiator's name where it is known.
    public var message: String

    /// A line of a severity.
    public init(severity: Severity, message: String) {
        self.severity = severity
        self.message = message
    }
}

/// Task attributes (RFC 7143, 11.3.1; SAM-6, 8.6).
public enum TaskAttribute: UInt8, Sendable, Hashable {
    /// None given: like SIMPLE.
    case untagged = 0
    /// SIMPLE.
    case simple = 1
    /// ORDERED: released when all older commands of the logical unit are done, and before all newer ones.
    case ordered = 2
    /// HEAD OF QUEUE: released at once.
    case headOfQueue = 3
    /// ACA.
    case aca = 4
}

/// A SCSI command with all of its data.
public struct ISCSICommand: Sendable {
    /// Initiator task tag: the name of the command until it is completed.
    public var tag: UInt32
    /// Logical unit number: the eight bytes as they came, big-endian.
    public var lun: UInt64
    /// 16 bytes, or more where an extended CDB came.
    public var cdb: [UInt8]
    /// Task attribute; ORDERED and HEAD OF QUEUE have already been honoured.
    public var attribute: TaskAttribute
    /// Bytes that the initiator expects to be moved (to the target, where the command is bidirectional).
    public var expectedDataTransferLength: UInt32
    /// Data go to the initiator.
    public var isRead: Bool
    /// Data come from the initiator.
    public var isWrite: Bool
    /// The command was not numbered.
    public var isImmediate: Bool
    /// Bytes that the initiator expects to read, of a bidirectional command.
    public var bidirectionalReadLength: UInt32?
    /// The data of a write, as long as ``expectedDataTransferLength``; `nil` where there are none.
    public var dataOut: ByteBuffer?
    /// The write announced more than a transfer may hold; its data were not taken.
    public var dataOutTooLong: Bool
    /// A Data-Out of the write was numbered out of order, so that others may be missing; its data were thrown away.
    public var isDataOutBroken = false

    /// A command with each part named.
    public init(
        tag: UInt32,
        lun: UInt64,
        cdb: [UInt8],
        attribute: TaskAttribute = .simple,
        expectedDataTransferLength: UInt32 = 0,
        isRead: Bool = false,
        isWrite: Bool = false,
        isImmediate: Bool = false,
        bidirectionalReadLength: UInt32? = nil,
        dataOut: ByteBuffer? = nil,
        dataOutTooLong: Bool = false
    ) {
        self.tag = tag
        self.lun = lun
        self.cdb = cdb
        self.attribute = attribute
        self.expectedDataTransferLength = expectedDataTransferLength
        self.isRead = isRead
        self.isWrite = isWrite
        self.isImmediate = isImmediate
        self.bidirectionalReadLength = bidirectionalReadLength
        self.dataOut = dataOut
        self.dataOutTooLong = dataOutTooLong
    }
}

/// How a command ended.
public struct CommandCompletion: Sendable {
    /// SCSI status (SAM-6, 5.3.1).
    public var status: UInt8
    /// Sense data without their length.
    public var sense: ByteBuffer?
    /// Data for the initiator, to be sent in order without copying; what exceeds the expected length is left out.
    public var dataIn: [ByteBuffer]
    /// Bytes that the CDB implies, after its allocation length; `nil`: as many as ``dataIn`` for a read, all for a
    /// write.
    public var impliedLength: UInt64?
    /// The command did not complete: response 01h, target failure.
    public var isTargetFailure: Bool

    /// A completion with a SCSI status.
    public init(status: UInt8, sense: ByteBuffer? = nil, dataIn: [ByteBuffer] = [], impliedLength: UInt64? = nil) {
        self.status = status
        self.sense = sense
        self.dataIn = dataIn
        self.impliedLength = impliedLength
        self.isTargetFailure = false
    }

    /// GOOD, with data where the command reads.
    public static func good(dataIn: [ByteBuffer] = [], impliedLength: UInt64? = nil) -> CommandCompletion {
        CommandCompletion(status: 0, dataIn: dataIn, impliedLength: impliedLength)
    }

    /// The target failed outside of SCSI.
    public static var targetFailure: CommandCompletion {
        var completion = CommandCompletion(status: 0)
        completion.isTargetFailure = true
        return completion
    }
}

/// Task management functions (RFC 7143, 11.5.1).
public enum TaskManagementFunction: UInt8, Sendable, Hashable, CaseIterable {
    /// One task.
    case abortTask = 1
    /// All tasks of this nexus.
    case abortTaskSet = 2
    /// Auto contingent allegiance; not supported.
    case clearACA = 3
    /// All tasks of the task set.
    case clearTaskSet = 4
    /// The logical unit.
    case logicalUnitReset = 5
    /// All logical units.
    case targetWarmReset = 6
    /// All logical units and all connections.
    case targetColdReset = 7
    /// Take over a task from another connection; not supported.
    case taskReassign = 8
}

/// A task management request for the shell.
public struct TaskManagementRequest: Sendable, Hashable {
    /// Initiator task tag of the request itself.
    public var tag: UInt32
    /// What to do.
    public var function: TaskManagementFunction
    /// Logical unit; without meaning for target resets.
    public var lun: UInt64
    /// Tags of commands of this session that were given out, are not completed, and are hit. Sorted.
    public var tasks: [UInt32]

    /// A request with each part named.
    public init(tag: UInt32, function: TaskManagementFunction, lun: UInt64, tasks: [UInt32]) {
        self.tag = tag
        self.function = function
        self.lun = lun
        self.tasks = tasks
    }
}

/// Outcomes of task management (RFC 7143, 11.6.1).
public enum TaskManagementResponse: UInt8, Sendable, Hashable {
    /// Done.
    case functionComplete = 0
    /// There is no such task.
    case taskDoesNotExist = 1
    /// There is no such logical unit.
    case lunDoesNotExist = 2
    /// The task still belongs to a connection.
    case taskStillAllegiant = 3
    /// Tasks cannot change connections.
    case reassignmentNotSupported = 4
    /// Not supported.
    case functionNotSupported = 5
    /// Not allowed.
    case authorizationFailed = 6
    /// Rejected.
    case functionRejected = 255
}

/// Which targets an initiator asks for.
public enum TargetListScope: Sendable, Hashable {
    /// All that it may see.
    case all
    /// The one of this name.
    case named(String)
}

/// A SendTargets request (RFC 7143, appendix C).
public struct TargetListRequest: Sendable, Hashable {
    /// Initiator task tag of the request.
    public var tag: UInt32
    /// Which targets.
    public var scope: TargetListScope
    /// Who asks.
    public var initiatorName: String

    /// A request with each part named.
    public init(tag: UInt32, scope: TargetListScope, initiatorName: String) {
        self.tag = tag
        self.scope = scope
        self.initiatorName = initiatorName
    }
}

/// A target in the answer to SendTargets.
public struct ListedTarget: Sendable, Hashable {
    /// iSCSI name.
    public var name: String
    /// `host:port,tag`, with IPv6 addresses in brackets.
    public var addresses: [String]

    /// A target with the addresses to reach it at.
    public init(name: String, addresses: [String]) {
        self.name = name
        self.addresses = addresses
    }
}
