import AshlarCore
import AshlarTestSupport
import Ownership

/// What a command of an initiator does to reservations. Each key is used once, so that a key names a registration.
enum ClusterReservation: Hashable {
    case register(ReservationKey)
    case unregister
    case reserve
    case preempt(victim: ReservationKey)
    case clear
}

// Initiators register, reserve for registrants only, and preempt one another.
extension Cluster {
    /// Numbers of ports are an initiator's index times this, and the portal group tag.
    static let portsOfInitiator = 10

    func issueReservation(_ session: ClusterSession) {
        let type = ReservationType.writeExclusiveRegistrantsOnly
        guard let own = keys[session.ports] else { return register(session) }
        switch generator.below(100) {
        case 0..<35: send(.reserve, .reserve(own, type), session)
        case 35..<86:
            let victims = keys.filter { $0.key != session.ports }.sorted { $0.key < $1.key }.map(\.value)
            guard !victims.isEmpty else { return send(.reserve, .reserve(own, type), session) }
            let victim = victims[generator.below(victims.count)]
            let aborts = generator.chance(50)
            send(.preempt(victim: victim), .preempt(own, type, victim: victim, aborts: aborts), session)
        case 86..<94: register(session)
        case 94..<98:
            send(.unregister, registering(session, ReservationKey(0)), session)
        default: send(.clear, .clear(own), session)
        }
    }

    private func register(_ session: ClusterSession) {
        let key = ReservationKey(takeValue())
        send(.register(key), registering(session, key), session)
    }

    private func registering(_ session: ClusterSession, _ key: ReservationKey) -> ReservationAction {
        let tag = UInt16(session.ports % Self.portsOfInitiator)
        return .register(
            ReservationKey(0),
            new: key,
            ignoresExisting: true,
            others: [],
            targetPorts: [TargetPort(portalGroupTag: tag, relativePortIdentifier: tag)]
        )
    }

    private func send(_ reservation: ClusterReservation, _ action: ReservationAction, _ session: ClusterSession) {
        var operation = ClusterOperation(isRead: false, firstSector: 0, count: 0, values: [], begun: now)
        operation.reservation = reservation
        submit(operation, .unit(.reservation(action)), session)
    }

    /// A reservation is in the way of an initiator. Where nothing goes wrong any more it does away with it.
    func keptOut(_ session: ClusterSession) {
        keys[session.ports] = nil
        guard hasReservations, mood == .healthy, !session.isClearing else { return }
        session.isClearing = true
        register(session)
    }

    func done(_ reservation: ClusterReservation, _ session: ClusterSession) {
        count("reservations")
        switch reservation {
        case .register(let key):
            keys[session.ports] = key
            if mood != .rough { send(.clear, .clear(key), session) }
        case .unregister: keys[session.ports] = nil
        case .reserve: break
        case .preempt(let victim):
            count("preempted")
            keys = keys.filter { $0.value != victim }
        case .clear: keys = [:]
        }
    }
}

/// Checks a history for writes of nexuses that had been preempted, and tells the other checker by when they took effect.
///
/// A window begins with the answer to a PREEMPT, where a RESERVE had been answered by then: from its effect on the victim is not
/// registered, and there is a reservation for registrants only. It ends before anything that may register the victim's ports
/// anew or end the reservation (all keep its type) may take effect. Of what the victim sent and heard the last word of within
/// it, nothing takes effect in the window: what was sent before took effect before the answer to PREEMPT, or never; what was
/// sent in it never does.
enum ReservationChecker {
    private struct Span {
        var begun: UInt64
        var latest: UInt64
    }

    private struct Window {
        var ports: Int
        var start: UInt64
        var end: UInt64
    }

    static func violations(_ operations: inout [ClusterOperation]) -> [String] {
        let windows = windows(operations)
        guard !windows.isEmpty else { return [] }
        var writes: [Int: [(index: Int, span: Span)]] = [:]
        for (index, operation) in operations.enumerated()
        where !operation.isRead && operation.reservation == nil && operation.fate != .never {
            let span = Span(begun: operation.begun, latest: operation.latest)
            writes[operation.ports, default: []].append((index, span))
        }
        var result: [String] = []
        for window in windows {
            for (index, span) in writes[window.ports] ?? []
            where span.latest < window.end && span.latest > window.start {
                if span.begun <= window.start {
                    operations[index].latest = min(operations[index].latest, window.start)
                } else if operations[index].fate == .done {
                    let sent = "sent at \(span.begun)"
                    result.append("ports \(window.ports): preempted by \(window.start), but a write \(sent) was done")
                } else {
                    operations[index].fate = .never
                }
            }
        }
        return result
    }

    private static func windows(_ operations: [ClusterOperation]) -> [Window] {
        var registers: [Int: [Span]] = [:]
        var portsOfKey: [ReservationKey: Int] = [:]
        var reserves: [Span] = []
        var ends: [Span] = []
        for operation in operations where operation.fate != .never {
            let span = Span(begun: operation.begun, latest: operation.latest)
            switch operation.reservation {
            case .register(let key):
                registers[operation.ports, default: []].append(span)
                portsOfKey[key] = operation.ports
            case .reserve: if operation.fate == .done { reserves.append(span) }
            case .unregister, .clear: ends.append(span)
            case .preempt, nil: break
            }
        }
        var result: [Window] = []
        for operation in operations where operation.fate == .done {
            guard case .preempt(let victim)? = operation.reservation, let ports = portsOfKey[victim] else { continue }
            let start = operation.latest
            guard let reserve = reserves.filter({ $0.latest <= start }).max(by: { $0.begun < $1.begun }) else {
                continue
            }
            let again = (registers[ports] ?? []).filter { $0.latest >= operation.begun }.map(\.begun).min() ?? .max
            let gone = ends.filter { $0.latest >= reserve.begun }.map(\.begun).min() ?? .max
            let end = min(again, gone)
            if end > start { result.append(Window(ports: ports, start: start, end: end)) }
        }
        return result
    }
}
