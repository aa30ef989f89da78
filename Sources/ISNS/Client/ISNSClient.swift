public import AshlarCore
public import NIOCore

/// Keeps a target registered with an iSNS server (RFC 4171): events in, actions out.
///
/// One request is in flight at a time. What is registered is made equal to the last list of volumes in the order: new
/// nodes, then removals, then notifications, so that the node in whose name requests are made (the *source*) is always
/// one that the server knows.
///
/// | phase | connection | goes on by |
/// | --- | --- | --- |
/// | idle | none | `start` |
/// | connecting | asked for | `connected`, `connectionClosed` |
/// | waiting | none | time: connects again, after longer and longer waits |
/// | connected | yes | responses, lists, time |
/// | stopping | yes | responses, time |
/// | stopped | none | nothing |
///
/// Invariants:
/// - `registered` and `source` hold what the server has confirmed on this connection; both are empty without one.
/// - While `source` is set the portal is registered.
/// - Targets of a cluster share an entity, since a server has a node in one entity only. The last one that ends takes
///   the entity away; each takes away its own portal.
/// - Nodes that the server has of this entity are removed only after a list that was begun after the server said so:
///   a volume that another target had registered before is on that list.
public struct ISNSClient: Sendable {
    enum Phase: Hashable, Sendable {
        case idle
        case connecting
        case waiting(until: MonotonicTime)
        case connected
        case stopping(StopStep, deadline: MonotonicTime)
        case stopped
    }

    enum StopStep: Hashable, Sendable {
        case portal
        case othersAsked
        case entity
        case done
    }

    enum Request: Hashable, Sendable {
        case inspect(includesNames: Bool)
        case register([ISNSTarget], withPortal: Bool)
        case removeNodes([String])
        case removeEntity
        case subscribe(String)
        case removePortal
        case askForOthers
    }

    struct InFlight: Sendable {
        var transactionID: UInt16
        var request: Request
        var deadline: MonotonicTime
    }

    let configuration: ISNSClientConfiguration
    var phase = Phase.idle
    var actions: [ISNSAction] = []
    private var jitter: UInt64
    private var failures = 0
    private var lastReason: String?

    // Of the volumes.
    var wanted: [String: ISNSTarget]?
    private var isListing = false
    private var listsBegun: UInt64 = 0
    private var nextList = MonotonicTime(0)

    // Of the connection.
    private var decoder = ISNSMessageDecoder()
    var inFlight: InFlight?
    private var nextTransactionID: UInt16 = 1
    var registered: [String: ISNSTarget] = [:]
    var source: String?
    var additions: [ISNSTarget] = []
    var removals: [String] = []
    var refused: Set<String> = []
    var refusalsInRow = 0
    /// Nodes at the front of `additions` that are registered one by one, since they were refused together.
    var singly = 0
    var subscribed: String?
    var isInspected = false
    /// Names that the server has, and how many lists had been begun when it said so.
    private var visible: (names: Set<String>, listsBegun: UInt64)?
    var inquiriesAreRefused = false
    private var renewalNanoseconds = ISNSLimits.renewalMaximumNanoseconds
    private var nextInspection = MonotonicTime(.max)
    var isChangeUntold = false

    /// A client that does nothing until ``start(now:)``.
    public init(configuration: ISNSClientConfiguration) {
        self.configuration = configuration
        jitter = configuration.seed
    }

    // MARK: Events

    /// Begins.
    public mutating func start(now: MonotonicTime) -> [ISNSAction] {
        guard phase == .idle else { return [] }
        phase = .connecting
        actions.append(.connect)
        return take()
    }

    /// The connection is there.
    public mutating func connected(now: MonotonicTime) -> [ISNSAction] {
        guard phase == .connecting else { return [] }
        phase = .connected
        nextList = now
        isInspected = wanted == nil
        advance(now)
        return take()
    }

    /// There is no connection, or none any more.
    public mutating func connectionClosed(reason: String, now: MonotonicTime) -> [ISNSAction] {
        switch phase {
        case .connecting, .connected: wait(reason, now)
        case .stopping: finish()
        case .idle, .waiting, .stopped: return []
        }
        return take()
    }

    /// Bytes have come from the server.
    public mutating func received(_ bytes: inout ByteBuffer, now: MonotonicTime) -> [ISNSAction] {
        guard isOpen else {
            bytes.moveReaderIndex(to: bytes.writerIndex)
            return []
        }
        decoder.feed(&bytes)
        do {
            while isOpen, let message = try decoder.next() { received(message, now) }
        } catch {
            fail("the server's answer is not understood: \(error)", now)
        }
        return take()
    }

    /// The volumes have been listed; `nil` where that failed.
    public mutating func targetsListed(_ targets: [ISNSTarget]?, now: MonotonicTime) -> [ISNSAction] {
        isListing = false
        guard let targets else {
            nextList = now.advanced(byNanoseconds: ISNSLimits.listRetryNanoseconds)
            return []
        }
        nextList = now.advanced(byNanoseconds: configuration.listIntervalNanoseconds)
        let isFirst = wanted == nil
        let list = Dictionary(targets.map { ($0.name, $0) }) { first, _ in first }
        wanted = list
        guard phase == .connected else { return [] }
        if isFirst { isInspected = false }
        var stale: Set<String> = []
        if let visible {
            if listsBegun > visible.listsBegun {
                stale = visible.names.filter { list[$0] == nil }
                self.visible = nil
            } else {
                nextList = now
            }
        }
        plan(stale: stale)
        advance(now)
        return take()
    }

    /// Time has passed; to be called every quarter of a second or so.
    public mutating func timePassed(now: MonotonicTime) -> [ISNSAction] {
        switch phase {
        case .idle, .connecting, .stopped: return []
        case .waiting(let until):
            guard now >= until else { return [] }
            phase = .connecting
            actions.append(.connect)
        case .connected:
            if let inFlight, now >= inFlight.deadline {
                fail("the server does not answer", now)
            } else {
                if now >= nextInspection, source != nil {
                    isInspected = false
                    nextInspection = now.advanced(byNanoseconds: renewalNanoseconds)
                }
                advance(now)
            }
        case .stopping(_, let deadline):
            if now >= deadline { finish() }
        }
        return take()
    }

    /// The target ends: takes away what is this target's alone, then says ``ISNSAction/stopped``.
    public mutating func stop(now: MonotonicTime) -> [ISNSAction] {
        switch phase {
        case .stopping, .stopped: return []
        case .connected where (source != nil || inFlight != nil) && !configuration.isPortalShared:
            phase = .stopping(.portal, deadline: now.advanced(byNanoseconds: ISNSLimits.stopTimeoutNanoseconds))
            advance(now)
        case .connected, .connecting, .waiting, .idle: finish()
        }
        return take()
    }

    // MARK: Connection

    private var isOpen: Bool {
        switch phase {
        case .connected, .stopping: true
        case .idle, .connecting, .waiting, .stopped: false
        }
    }

    private mutating func take() -> [ISNSAction] {
        defer { actions = [] }
        return actions
    }

    mutating func note(_ severity: ISNSNote.Severity, _ message: String) {
        actions.append(.note(ISNSNote(severity: severity, message: message)))
    }

    /// Gives the connection up, for a while.
    mutating func fail(_ reason: String, _ now: MonotonicTime) {
        actions.append(.close)
        if case .stopping = phase {
            phase = .stopped
            actions.append(.stopped)
        } else {
            wait(reason, now)
        }
    }

    private mutating func wait(_ reason: String, _ now: MonotonicTime) {
        let doubled = ISNSLimits.backoffMinimumNanoseconds << UInt64(min(failures, 16))
        let ceiling = min(doubled, ISNSLimits.backoffMaximumNanoseconds)
        failures += 1
        // Targets that lose a server at the same time do not come back at the same time.
        let delay = ceiling / 2 + random() % (ceiling / 2 + 1)
        note(
            reason == lastReason ? .debug : .warning,
            "iSNS server not available: \(reason); again in \(delay / 1_000_000) ms"
        )
        lastReason = reason
        phase = .waiting(until: now.advanced(byNanoseconds: delay))
        forget()
        decoder = ISNSMessageDecoder()
        inFlight = nil
        refused = []
        refusalsInRow = 0
        inquiriesAreRefused = false
        visible = nil
    }

    /// Ends for good.
    mutating func finish() {
        switch phase {
        case .connected, .connecting, .stopping: actions.append(.close)
        case .idle, .waiting, .stopped: break
        }
        phase = .stopped
        inFlight = nil
        actions.append(.stopped)
    }

    /// The server has nothing of this target, or is thought to have nothing.
    mutating func forget() {
        registered = [:]
        source = nil
        subscribed = nil
        singly = 0
        additions = []
        removals = []
        nextInspection = MonotonicTime(.max)
    }

    private mutating func random() -> UInt64 {
        jitter &+= 0x9E37_79B9_7F4A_7C15
        let mixed = (jitter ^ (jitter >> 30)) &* 0xBF58_476D_1CE4_E5B9
        return mixed ^ (mixed >> 27)
    }

    // MARK: Requests

    mutating func send(_ request: Request, _ now: MonotonicTime, _ message: (UInt16) -> ISNSMessage) {
        let transactionID = nextTransactionID
        nextTransactionID = nextTransactionID == .max ? 1 : nextTransactionID + 1
        inFlight = InFlight(
            transactionID: transactionID,
            request: request,
            deadline: now.advanced(byNanoseconds: ISNSLimits.requestTimeoutNanoseconds)
        )
        actions.append(.send(message(transactionID).encoded()))
    }

    private mutating func received(_ message: ISNSMessage, _ now: MonotonicTime) {
        guard message.function.isResponse else {
            let (answer, line) = ISNSResponder.answer(
                to: message,
                entity: configuration.entity,
                portal: configuration.portal
            )
            actions += [.note(line), .send(answer.encoded())]
            return
        }
        guard let current = inFlight, current.transactionID == message.transactionID else {
            return note(.debug, "iSNS response to no request")
        }
        inFlight = nil
        answered(current.request, message, now)
        if inFlight == nil { advance(now) }
    }

    /// Asks for a list where one is due.
    mutating func listWhereDue(_ now: MonotonicTime) {
        guard phase == .connected, !isListing, now >= nextList else { return }
        isListing = true
        listsBegun += 1
        actions.append(.listTargets)
    }

    /// The server has said which names it has; those that no volume has any more go after the next list.
    mutating func seen(_ names: Set<String>, _ now: MonotonicTime) {
        visible = (names, listsBegun)
        nextList = now
    }

    /// The server has confirmed a registration.
    mutating func confirmed(periodSeconds: UInt32?, _ now: MonotonicTime) {
        failures = 0
        lastReason = nil
        refusalsInRow = 0
        if let periodSeconds, periodSeconds > 0 {
            let third = UInt64(periodSeconds) * 1_000_000_000 / ISNSLimits.renewalsInPeriod
            renewalNanoseconds = min(
                max(third, ISNSLimits.renewalMinimumNanoseconds),
                ISNSLimits.renewalMaximumNanoseconds
            )
        }
        nextInspection = now.advanced(byNanoseconds: renewalNanoseconds)
    }
}
