public import AshlarCore
import DequeModule
public import NIOCore

/// The target's side of one iSCSI connection, which is also a session (MaxConnections = 1, ErrorRecoveryLevel 0; RFC
/// 7143).
///
/// Events are mutating methods, and after each of them the shell takes actions until there are none. What a peer sends
/// never traps and never throws: it ends in actions. The value belongs to one event loop.
///
/// | phase | holds | left by |
/// | --- | --- | --- |
/// | `login` | a ``LoginMachine`` | `sessionOpened` → `fullFeature`; refusal, time-out → `closed` |
/// | `fullFeature` | tasks, text, task management | logout, error, time-out → `closed` |
/// | `closed` | nothing; input is thrown away | never |
///
/// - `expectedCommand` is the next CmdSN in order; numbers above it wait in `waiting`, bounded by the window.
/// - A task lives in `tasks` from the arrival of its command to its completion; phases are listed at ``ISCSITask``.
/// - `statusNumber` is the next StatSN; `acknowledgedStatus` the highest ExpStatSN the initiator has shown.
public struct ISCSIConnection: ~Copyable {
    enum Phase {
        case login
        case fullFeature
        case closed
    }

    let configuration: ISCSIConfiguration
    var phase = Phase.login
    var actions = Deque<ISCSIAction>()
    var decoder: FrameDecoder
    var encoder = FrameEncoder()
    var login: LoginMachine?
    var parameters: SessionParameters?
    /// Set by `openSession` and cleared by its answer.
    var isOpening = false
    var hasSession = false
    /// Who the log lines are about.
    var peerName = "an unknown initiator"

    // Numbers.
    var statusNumber: UInt32 = 1
    var acknowledgedStatus: UInt32 = 1
    var expectedCommand: UInt32 = 0
    var hasCommandNumber = false
    var nextTransferTag: UInt32 = 1

    // Tasks.
    var tasks: [UInt32: ISCSITask] = [:]
    /// Requests that came before their turn, by CmdSN.
    var waiting: [UInt32: Frame] = [:]
    /// Numbered tasks whose CmdSN has had its turn: they take room in the window.
    var numberedTasks: UInt32 = 0
    var immediateTasks = 0
    var nextOrder: UInt64 = 0
    var orderedTasks = 0
    /// Tasks with all their data that wait for older ones, oldest first.
    var held = Deque<UInt32>()
    var solicitedBytes = 0
    var heldBytes = 0
    /// Tasks that wait for room to solicit data, oldest first.
    var bufferQueue = Deque<UInt32>()
    var managements: [UInt32: TaskManagementRequest] = [:]
    var text = TextExchange()

    // Liveness.
    let started: MonotonicTime
    var now: MonotonicTime
    var lastHeard: MonotonicTime
    var lastProof: MonotonicTime
    var pingTag: UInt32?
    var pingSent = MonotonicTime(0)
    var isPingWanted = false
    var proof = ProofTracker()

    /// A connection that was just accepted.
    ///
    /// - Parameters:
    ///   - configuration: Rules of the portal.
    ///   - randomBytes: At least 33 bytes that nobody can foresee, fresh for this connection: CHAP identifier and
    /// challenge.
    ///   - now: The present.
    ///   - hash: The digest of bytes by a CHAP algorithm.
    public init(
        configuration: ISCSIConfiguration,
        randomBytes: [UInt8],
        now: MonotonicTime,
        hash: @escaping @Sendable (CHAPAlgorithm, [UInt8]) -> [UInt8]
    ) {
        precondition(
            (1...ISCSILimits.commandWindowMaximum).contains(configuration.commandWindow),
            "window out of range"
        )
        precondition(randomBytes.count > ISCSILimits.chapChallengeBytes, "a challenge needs random bytes")
        self.configuration = configuration
        self.decoder = FrameDecoder(dataSegmentMaximumBytes: UInt32(ISCSILimits.loginDataSegmentBytes))
        self.login = LoginMachine(configuration: configuration, randomBytes: randomBytes, hash: hash)
        self.started = now
        self.now = now
        self.lastHeard = now
        self.lastProof = now
    }

    /// The next thing to do; `nil` when all is done. Flush then.
    public mutating func nextAction() -> ISCSIAction? {
        actions.popFirst()
    }

    // MARK: To look at

    /// Whether commands may come.
    public var isFullFeature: Bool { phase == .fullFeature }
    /// Whether nothing will come any more.
    public var isClosed: Bool { phase == .closed }
    /// What was agreed on, from the time the session was opened.
    public var session: SessionParameters? { hasSession ? parameters : nil }
    /// Commands that are known and not completed.
    public var outstandingCommands: Int { tasks.count }
    /// Write data that are held or room for which is reserved, in bytes.
    public var bufferedBytes: Int { heldBytes + solicitedBytes }

    // MARK: Network

    /// Takes all readable bytes of what came from the socket.
    public mutating func received(_ bytes: inout ByteBuffer, now: MonotonicTime) {
        self.now = now
        guard phase != .closed else {
            bytes.moveReaderIndex(to: bytes.writerIndex)
            return
        }
        decoder.feed(&bytes)
        while phase != .closed {
            do throws(FrameDecoder.Failure) {
                guard let frame = try decoder.next() else { return }
                lastHeard = now
                handle(frame)
            } catch {
                handle(error)
            }
        }
    }

    /// The socket is at its end, or failed.
    public mutating func inputClosed() {
        finish(.connectionClosed)
    }

    private mutating func handle(_ frame: Frame) {
        switch phase {
        case .login: handleLogin(frame)
        case .fullFeature: handleFullFeature(frame)
        case .closed: break
        }
    }

    private mutating func handle(_ failure: FrameDecoder.Failure) {
        switch failure {
        case .headerDigest:
            note(.warning, "a header digest is wrong")
            finish(.digestError)
        case .dataDigest(let header):
            note(.warning, "a data digest is wrong")
            reject(header, .dataDigestError)
            finish(.digestError)
        case .tooLong(let header):
            note(.warning, "a data segment of \(header.dataLength) bytes is too long")
            if phase == .fullFeature { reject(header, .protocolError) }
            finish(.protocolError)
        }
    }

    // MARK: Our initiative

    /// Drops the session at once. Where the target goes away, it says so before (Asynchronous Message 3).
    public mutating func terminate(_ reason: SessionEndReason) {
        // What was in flight is not kept: with ErrorRecoveryLevel 0 there is no Time2Retain.
        if reason == .shutdown { sendEvent(.sessionDropped) }
        finish(reason)
    }

    /// Asks the initiator to log out (Asynchronous Message 1); the shell drops it when the time has passed.
    public mutating func requestLogout(withinSeconds seconds: UInt16) {
        sendEvent(.logoutRequested, parameter3: seconds)
    }

    private mutating func sendEvent(_ event: AsyncEvent, parameter3: UInt16 = 0) {
        guard phase == .fullFeature else { return }
        var message = AsyncMessagePDU()
        message.event = event.rawValue
        message.parameter3 = parameter3
        message.numbers = numbers(consumingStatus: true)
        send(encoder.frame(message.header))
    }

    // MARK: For all extensions

    /// Ends whatever there is and closes.
    mutating func finish(_ reason: SessionEndReason) {
        guard phase != .closed else { return }
        phase = .closed
        login = nil
        tasks = [:]
        waiting = [:]
        held = []
        bufferQueue = []
        managements = [:]
        text = TextExchange()
        solicitedBytes = 0
        heldBytes = 0
        pingTag = nil
        if hasSession {
            note(.debug, "session ended: \(reason.rawValue)")
            actions.append(.sessionEnded(reason))
        }
        actions.append(.close)
    }

    /// The initiator broke the protocol: says so, and ends the session (level 0 knows no other recovery).
    mutating func fail(_ header: BasicHeader, _ message: String, reason: RejectReason = .protocolError) {
        note(.warning, "protocol error: \(message)")
        reject(header, reason)
        finish(.protocolError)
    }

    mutating func reject(_ header: BasicHeader, _ reason: RejectReason) {
        guard phase == .fullFeature else { return }
        var rejected = ByteBuffer()
        header.write(into: &rejected)
        var reject = RejectPDU()
        reject.reason = reason.rawValue
        reject.numbers = numbers(consumingStatus: true)
        send(encoder.frame(reject.header, data: rejected))
    }

    mutating func send(_ buffer: ByteBuffer) {
        actions.append(.send(buffer))
    }

    mutating func note(_ severity: ISCSINote.Severity, _ message: String) {
        actions.append(.note(ISCSINote(severity: severity, message: "\(peerName): \(message)")))
    }

    /// StatSN, ExpCmdSN and MaxCmdSN of the next PDU.
    mutating func numbers(consumingStatus: Bool) -> TargetNumbers {
        let numbers = TargetNumbers(
            status: statusNumber,
            expectedCommand: expectedCommand,
            maximumCommand: maximumCommand
        )
        if consumingStatus { statusNumber &+= 1 }
        return numbers
    }

    /// The last CmdSN that may be sent. Never goes back: a command that takes its turn moves both terms.
    var maximumCommand: UInt32 {
        expectedCommand &+ (configuration.commandWindow - min(numberedTasks, configuration.commandWindow)) &- 1
    }

    /// A tag for an R2T or a ping; they only grow, which the proof relies on.
    mutating func takeTransferTag() -> UInt32 {
        let tag = nextTransferTag
        nextTransferTag &+= 1
        if nextTransferTag == reservedTag { nextTransferTag = 0 }
        return tag
    }

    /// Sense data behind their length (RFC 7143, 11.4.7).
    static func senseSegment(_ sense: ByteBuffer) -> ByteBuffer {
        var buffer = ByteBuffer()
        let count = min(sense.readableBytes, Int(UInt16.max))
        buffer.reserveCapacity(count + 2)
        buffer.writeInteger(UInt16(count))
        buffer.writeBytes(sense.readableBytesView.prefix(count))
        return buffer
    }
}
