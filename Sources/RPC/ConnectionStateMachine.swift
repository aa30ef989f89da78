public import AshlarCore
import DequeModule
import NIOCore

/// One end of an RPC connection: events in, actions out. The same machine serves both ends.
///
/// | phase | client | server | frames taken |
/// | --- | --- | --- | --- |
/// | `idle` | not started | not started | none |
/// | `handshaking` | hello is out | waits for hello | hello, its answer, goaway |
/// | `established` | either end may send requests | | all but hello |
/// | `closed` | a reason is known | | none |
///
/// Invariants:
/// - `sendWindow` is what the peer has granted and this end has not used; a frame of the application leaves only
///   where it fits. Frames of the connection itself (hello, ping, credit, goaway) use no window.
/// - `receiveWindow + unfinished + pendingCredit == windowBytes`, where unfinished are the bytes of frames that the
///   application has not finished with. Credit moves bytes from `pendingCredit` to `receiveWindow`.
/// - What waits leaves in the order in which it came. Every queue has a bound (see ``RPCConnectionConfiguration``).
/// - Request ids grow; the low bits name a slot that one request uses at a time, from `beginRequest` until its answer
///   came (also where its deadline passed before), so that a late answer is told from a wrong one.
///
/// A shell writes what `nextFrame(now:)` gives until it gives nothing, after every event. It may put an application's
/// frame on the wire itself where `requestEncoded` or `answerEncoded` returned its header.
public struct RPCConnectionStateMachine: ~Copyable {
    enum Phase: Hashable {
        case idle
        case handshaking
        case established
        case closed
    }

    let configuration: RPCConnectionConfiguration
    var phase = Phase.idle
    var certified: NodeIdentity?
    var startedAt = MonotonicTime(0)
    var lastReceivedAt = MonotonicTime(0)

    // Flow control.
    var sendWindow = 0
    var peerWindow = 0
    var receiveWindow: Int
    var pendingCredit = 0
    var waiting = Deque<WaitingFrame>()
    var waitingRequestBytes = 0
    var waitingAnswerBytes = 0

    // Frames of the connection: at most one of each sort waits.
    var outgoingHandshake: RPCOutboundFrame?
    var outgoingPing: UInt64?
    var outgoingPong: UInt64?
    var outgoingGoaway: RPCGoaway?
    var awaitedPong: UInt64?
    var pingCounter: UInt64 = 0

    // Requests of this end.
    var outboundSlots: [OutboundSlot] = []
    var outboundFree: [UInt16] = []
    var outboundSequence: UInt64 = 0
    var outboundInFlight = 0
    var earliestDeadline = MonotonicTime(.max)

    // Requests of the peer.
    var inboundSlots: [InboundSlot] = []
    var inboundFree: [UInt32] = []
    var inboundInFlight = 0
    var lastAcceptedID: UInt64 = 0
    var parked = Deque<RPCRequest>()

    var isDraining = false
    var isPeerDraining = false

    /// An end that has not started.
    public init(_ configuration: RPCConnectionConfiguration) {
        configuration.validate()
        self.configuration = configuration
        receiveWindow = Int(configuration.windowBytes)
    }

    // MARK: - State

    /// Whether requests may be sent and are taken.
    public var isEstablished: Bool { phase == .established }

    /// Whether a request may be begun now, as far as the state goes.
    public var canSendRequests: Bool { phase == .established && !isDraining && !isPeerDraining }

    /// Whether the connection has ended.
    public var isClosed: Bool { phase == .closed }

    /// Requests of this end that have no answer yet.
    public var requestsInFlight: Int { outboundInFlight }

    /// Requests of the peer that are not answered yet.
    public var requestsToAnswer: Int { inboundInFlight }

    /// Bytes that this end may send now.
    public var sendWindowBytes: Int { sendWindow }

    /// Bytes that the peer may send now.
    public var receiveWindowBytes: Int { receiveWindow }

    /// Bytes of frames that wait for credit.
    public var waitingBytes: Int { waitingRequestBytes + waitingAnswerBytes }

    /// Whether a drain, by either end, has nothing left to wait for: the connection can be closed.
    public var isDrained: Bool {
        guard phase == .established, outboundInFlight == 0, waiting.isEmpty, outgoingGoaway == nil else { return false }
        return isPeerDraining || (isDraining && inboundInFlight == 0)
    }

    // MARK: - Start

    /// The transport is there; the handshake begins, and its time-out.
    public mutating func start(now: MonotonicTime) {
        precondition(phase == .idle, "a connection starts once")
        phase = .handshaking
        startedAt = now
        lastReceivedAt = now
        guard case .client = configuration.side else { return }
        var body = ByteBuffer()
        helloOfThisEnd(versions: configuration.versions).encode(into: &body)
        outgoingHandshake = Self.frame(.hello, body: body)
    }

    /// TLS has verified the peer's certificate, and this is whom it names; `nil` where it names no node. To be called
    /// before the first frame is handed in.
    public mutating func peerCertified(_ identity: NodeIdentity?) {
        certified = identity
    }

    func helloOfThisEnd(versions: ClosedRange<UInt16>) -> RPCHello {
        RPCHello(
            versionMinimum: versions.lowerBound,
            versionMaximum: versions.upperBound,
            node: configuration.node,
            windowBytes: configuration.windowBytes,
            features: configuration.features
        )
    }

    static func frame(
        _ type: RPCMessageType,
        isAnswer: Bool = false,
        id: UInt64 = 0,
        body: ByteBuffer = ByteBuffer()
    ) -> RPCOutboundFrame {
        RPCOutboundFrame(
            header: RPCFrameHeader(
                length: UInt32(RPCFrameHeader.byteCount + body.readableBytes),
                type: type,
                flags: isAnswer ? RPCFrameHeader.answerFlag : 0,
                id: id,
                word: 0,
                credit: 0
            ),
            body: body,
            payload: []
        )
    }

    // MARK: - Output

    /// The next frame to write, in order; `nil` where nothing may leave now.
    public mutating func nextFrame(now: MonotonicTime) -> RPCOutboundFrame? {
        if let frame = outgoingHandshake {
            outgoingHandshake = nil
            return frame
        }
        if let id = outgoingPong {
            outgoingPong = nil
            return withCredit(Self.frame(.ping, isAnswer: true, id: id))
        }
        if let id = outgoingPing {
            outgoingPing = nil
            return withCredit(Self.frame(.ping, id: id))
        }
        if let goaway = outgoingGoaway {
            outgoingGoaway = nil
            var body = ByteBuffer()
            goaway.encode(into: &body)
            return withCredit(Self.frame(.goaway, body: body))
        }
        guard phase == .established else { return nil }
        if let frame = nextWaitingFrame(now: now) { return frame }
        guard pendingCredit >= configuration.creditThreshold else { return nil }
        return withCredit(Self.frame(.credit))
    }

    /// Takes the credit that the next frame is to carry.
    mutating func takeCredit() -> UInt32 {
        guard pendingCredit > 0, phase == .established else { return 0 }
        let credit = pendingCredit
        pendingCredit = 0
        receiveWindow += credit
        return UInt32(credit)
    }

    private mutating func withCredit(_ frame: RPCOutboundFrame) -> RPCOutboundFrame {
        var frame = frame
        frame.header.credit = takeCredit()
        return frame
    }

    // MARK: - Time

    /// What the passing of time has brought.
    public struct TickAction: Sendable {
        /// Requests of this end whose deadline has passed, and whether they may have been executed.
        public var expired: [(id: RPCRequestID, mayHaveExecuted: Bool)] = []
        /// Why the connection must be closed; after what `nextFrame(now:)` still gives was written.
        public var close: RPCCloseReason?
    }

    /// To be called every ``RPCLimits/tickNanoseconds`` or so.
    public mutating func tick(now: MonotonicTime) -> TickAction {
        var action = TickAction()
        switch phase {
        case .idle, .closed:
            break
        case .handshaking:
            if now.nanoseconds(since: startedAt) >= configuration.handshakeTimeoutNanoseconds {
                let seconds = configuration.handshakeTimeoutNanoseconds / 1_000_000_000
                action.close = fail(RPCCloseReason(.handshakeTimeout, "no hello within \(seconds) s"))
            }
        case .established:
            let silence = now.nanoseconds(since: lastReceivedAt)
            if silence >= configuration.keepAliveTimeoutNanoseconds {
                action.close = fail(
                    RPCCloseReason(.keepAliveTimeout, "nothing received for \(silence / 1_000_000) ms")
                )
            } else if silence >= configuration.keepAliveIdleNanoseconds, awaitedPong == nil {
                pingCounter += 1
                awaitedPong = pingCounter
                outgoingPing = pingCounter
            }
            if now >= earliestDeadline { action.expired = expireRequests(now: now) }
        }
        return action
    }

    // MARK: - End

    /// Takes no more requests of the peer and asks it for none; what was accepted is answered. Close when `isDrained`.
    public mutating func drain(_ text: String = "going out of service") {
        guard phase == .established, !isDraining else { return }
        isDraining = true
        outgoingGoaway = RPCGoaway(code: .none, lastAcceptedID: lastAcceptedID, text: text)
    }

    /// Ends the connection from this side: the peer is told with a goaway that `nextFrame(now:)` gives once more.
    @discardableResult
    public mutating func fail(_ reason: RPCCloseReason) -> RPCCloseReason {
        guard phase != .closed else { return reason }
        if phase != .idle, !reason.isFromPeer, outgoingHandshake == nil {
            outgoingGoaway = RPCGoaway(code: reason.code, lastAcceptedID: lastAcceptedID, text: reason.text)
        }
        phase = .closed
        return reason
    }

    /// The transport is gone, or about to be closed: every request of this end that has no answer, oldest slot first.
    ///
    /// Requests whose deadline has passed before are not among them.
    public mutating func closed() -> [(id: RPCRequestID, mayHaveExecuted: Bool)] {
        phase = .closed
        var requests: [(id: RPCRequestID, mayHaveExecuted: Bool)] = []
        for slot in outboundSlots {
            switch slot.state {
            case .free, .dropped, .abandoned: continue
            case .encoding, .waiting: requests.append((RPCRequestID(slot.id), false))
            case .sent: requests.append((RPCRequestID(slot.id), true))
            }
        }
        outboundSlots = []
        outboundFree = []
        outboundInFlight = 0
        inboundSlots = []
        inboundFree = []
        inboundInFlight = 0
        waiting = []
        waitingRequestBytes = 0
        waitingAnswerBytes = 0
        parked = []
        return requests
    }
}
