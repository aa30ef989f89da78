/// Why a PERSISTENT RESERVE OUT command is not done.
public enum ReservationRefusal: Error, Sendable, Hashable {
    /// RESERVATION CONFLICT.
    case conflict
    /// INVALID RELEASE OF PERSISTENT RESERVATION.
    case invalidRelease
    /// INSUFFICIENT REGISTRATION RESOURCES.
    case noRoom
    /// INVALID FIELD IN PARAMETER LIST, with the offset of the field.
    case invalidParameter(byte: UInt16)
}

/// What a PERSISTENT RESERVE OUT command makes of the registrations and the reservation.
public struct ReservationChange: Sendable, Hashable {
    /// The state behind it.
    public var reservations: PersistentReservations
    /// What each of these nexuses has to be told.
    public var attentions: [InitiatorTargetNexus: UnitAttention] = [:]
    /// The nexuses whose commands have to be aborted.
    public var aborted: Set<InitiatorTargetNexus> = []
}

/// The rules of persistent reservations (SPC-5, 5.14), without a side effect: state and command in, state and what follows from it
/// out.
extension PersistentReservations {
    /// The registration of a nexus.
    public func registration(of ports: InitiatorTargetNexus) -> Registration? {
        registrations.first { $0.ports == ports }
    }

    /// Whether a nexus holds the reservation.
    public func isHolder(_ ports: InitiatorTargetNexus) -> Bool {
        guard let type else { return false }
        return type.isOfAllRegistrants ? registration(of: ports) != nil : holder == ports
    }

    /// Whether the reservation keeps a command of a nexus out (SPC-5, table 52).
    public func conflicts(with access: CommandAccess, from ports: InitiatorTargetNexus) -> Bool {
        guard let type, access != .any, !isHolder(ports) else { return false }
        if type.admitsRegistrants, registration(of: ports) != nil { return false }
        return access == .write || !type.admitsReaders
    }

    /// What a command makes of the state.
    ///
    /// - Parameters:
    ///   - action: what is asked for.
    ///   - ports: the nexus that it came through.
    ///   - open: the nexuses that are logged in, for TransportIDs that name all ports of an initiator.
    public func applying(
        _ action: ReservationAction,
        from ports: InitiatorTargetNexus,
        open: [InitiatorTargetNexus]
    ) throws(ReservationRefusal) -> ReservationChange {
        var change = ReservationChange(reservations: self)
        switch action {
        case .register(let key, let new, let ignoresExisting, let others, let targetPorts, let isForAllPorts):
            if !ignoresExisting {
                guard (registration(of: ports)?.key ?? ReservationKey(0)) == key else { throw .conflict }
            }
            if !others.isEmpty, new == ReservationKey(0) || registration(of: ports) != nil {
                // SPEC_I_PT is for a nexus that registers anew (SPC-5, 5.14.7); its offset.
                throw .invalidParameter(byte: 20)
            }
            if new == ReservationKey(0) {
                change.unregister(ports, through: isForAllPorts ? nil : targetPorts)
            } else {
                let others = try Self.initiators(others, open: open)
                if isForAllPorts { change.replaceKeys(of: ports, by: new) }
                try change.register(ports, others, through: targetPorts, key: new)
            }
        case .reserve(let key, let type):
            try require(key, of: ports)
            guard self.type == nil || (self.type == type && isHolder(ports)) else { throw .conflict }
            change.reservations.reserve(type, for: ports)
            return change
        case .release(let key, let type):
            try require(key, of: ports)
            guard isHolder(ports) else { return change }
            guard self.type == type else { throw .invalidRelease }
            change.release(except: ports)
            return change
        case .clear(let key):
            try require(key, of: ports)
            for other in registrations where other.ports != ports {
                change.attentions[other.ports] = .reservationsPreempted
            }
            change.reservations.registrations = []
            change.reservations.dropReservation()
        case .preempt(let key, let type, let victim, let aborts):
            try require(key, of: ports)
            try change.preempt(victim, type, from: ports)
            if aborts {
                let left = Set(change.reservations.registrations.map(\.ports))
                change.aborted = Set(registrations.map(\.ports)).subtracting(left).subtracting([ports])
            }
        case .move(let key, let new, let unregisters, let initiator, let target):
            try require(key, of: ports)
            try change.move(from: ports, key: new, unregisters: unregisters, to: initiator, through: target)
        }
        change.reservations.generation &+= 1
        return change
    }

    private func require(_ key: ReservationKey, of ports: InitiatorTargetNexus) throws(ReservationRefusal) {
        guard let registration = registration(of: ports), registration.key == key else { throw .conflict }
    }

    /// Initiator ports by name and ISID; a name alone stands for the ports that are logged in, however often it is given.
    private static func initiators(
        _ list: [InitiatorPort],
        open: [InitiatorTargetNexus]
    ) throws(ReservationRefusal) -> [(name: String, isid: UInt64)] {
        guard !list.isEmpty else { return [] }
        let loggedIn = Dictionary(grouping: open, by: \.initiatorName).mapValues { Set($0.map(\.isid)).sorted() }
        var result: [(name: String, isid: UInt64)] = []
        var seen: Set<InitiatorPort> = []
        for port in list where seen.insert(port).inserted {
            if let isid = port.isid {
                result.append((port.name, isid))
                continue
            }
            // Offset of the TransportID list (SPC-5, table 228).
            guard let known = loggedIn[port.name] else { throw .invalidParameter(byte: 28) }
            result += known.map { (port.name, $0) }
        }
        return result
    }

    fileprivate mutating func reserve(_ type: ReservationType, for ports: InitiatorTargetNexus) {
        self.type = type
        holder = type.isOfAllRegistrants ? nil : ports
    }

    fileprivate mutating func dropReservation() {
        type = nil
        holder = nil
    }

    fileprivate mutating func put(_ registration: Registration) {
        if let index = registrations.firstIndex(where: { $0.ports == registration.ports }) {
            registrations[index] = registration
        } else {
            registrations.append(registration)
        }
    }
}

extension InitiatorTargetNexus {
    fileprivate func isOfSameInitiatorPort(as other: InitiatorTargetNexus) -> Bool {
        isid == other.isid && initiatorName == other.initiatorName
    }
}

extension ReservationChange {
    fileprivate init(reservations: PersistentReservations) { self.reservations = reservations }

    /// REGISTER with a key: the nexus of the command through each target port, and with SPEC_I_PT others that are not registered
    /// (SPC-5, 5.14.7).
    fileprivate mutating func register(
        _ ports: InitiatorTargetNexus,
        _ others: [(name: String, isid: UInt64)],
        through targetPorts: [TargetPort],
        key: ReservationKey
    ) throws(ReservationRefusal) {
        var places: [InitiatorTargetNexus: Int] = [:]
        for (place, known) in reservations.registrations.enumerated() { places[known.ports] = place }
        for (name, isid) in [(ports.initiatorName, ports.isid)] + others {
            let isOwn = name == ports.initiatorName && isid == ports.isid
            for target in targetPorts {
                let nexus = InitiatorTargetNexus(
                    initiatorName: name,
                    isid: isid,
                    portalGroupTag: target.portalGroupTag
                )
                let registration = Registration(
                    ports: nexus,
                    relativePortIdentifier: target.relativePortIdentifier,
                    key: key
                )
                if let place = places[nexus] {
                    if isOwn { reservations.registrations[place] = registration }
                    continue
                }
                guard reservations.registrations.count < Limits.registrationsMaximum else { throw .noRoom }
                places[nexus] = reservations.registrations.count
                reservations.registrations.append(registration)
            }
        }
    }

    /// ALL_TG_PT: an initiator port's registrations get a new key, through whatever target port they were made; nodes that are down
    /// just now are among them.
    fileprivate mutating func replaceKeys(of ports: InitiatorTargetNexus, by key: ReservationKey) {
        for (place, known) in reservations.registrations.enumerated() where known.ports.isOfSameInitiatorPort(as: ports)
        {
            reservations.registrations[place].key = key
        }
    }

    /// REGISTER with key 0: the initiator port's registrations through the target ports named go, the nexus' own among them, or
    /// through all target ports (SPC-5, 5.14.11.3).
    fileprivate mutating func unregister(_ ports: InitiatorTargetNexus, through targetPorts: [TargetPort]?) {
        let tags = targetPorts.map { Set($0.map(\.portalGroupTag)) }
        for known in reservations.registrations.map(\.ports) where known.isOfSameInitiatorPort(as: ports) {
            if tags?.contains(known.portalGroupTag) ?? true { remove(known, by: ports) }
        }
    }

    /// Removes one registration; a reservation that it alone held goes with it.
    private mutating func remove(_ nexus: InitiatorTargetNexus, by ports: InitiatorTargetNexus) {
        guard reservations.registration(of: nexus) != nil else { return }
        let wasHolder = reservations.isHolder(nexus)
        reservations.registrations.removeAll { $0.ports == nexus }
        guard wasHolder, let type = reservations.type else { return }
        if type.isOfAllRegistrants {
            if reservations.registrations.isEmpty { reservations.dropReservation() }
        } else {
            release(except: ports)
        }
    }

    /// The reservation goes; those that it concerned are told, except the nexus that did it (SPC-5, 5.14.11.2.2).
    fileprivate mutating func release(except ports: InitiatorTargetNexus) {
        if reservations.type?.admitsRegistrants == true { tellRegistrants(.reservationsReleased, except: ports) }
        reservations.dropReservation()
    }

    private mutating func tellRegistrants(_ attention: UnitAttention, except ports: InitiatorTargetNexus) {
        for other in reservations.registrations where other.ports != ports { attentions[other.ports] = attention }
    }

    /// PREEMPT (SPC-5, 5.14.11.2.3 to 5.14.11.2.5).
    fileprivate mutating func preempt(
        _ victim: ReservationKey,
        _ type: ReservationType,
        from ports: InitiatorTargetNexus
    ) throws(ReservationRefusal) {
        let old = reservations
        let isOfAll = old.type?.isOfAllRegistrants == true
        let holderKey = old.holder.flatMap { old.registration(of: $0) }?.key
        if victim == ReservationKey(0) {
            // Only a reservation of all registrants can be meant by no key. Offset of SERVICE ACTION RESERVATION KEY.
            guard isOfAll else { throw .invalidParameter(byte: 8) }
            takeOver(type, from: ports) { _ in true }
        } else if old.type != nil, !isOfAll, holderKey == victim {
            takeOver(type, from: ports) { $0.key == victim }
        } else {
            let victims = old.registrations.filter { $0.key == victim }
            guard !victims.isEmpty else { throw .conflict }
            for registration in victims {
                remove(registration.ports, by: ports)
                if registration.ports != ports { attentions[registration.ports] = .registrationsPreempted }
            }
        }
    }

    /// The reservation is taken away from its holder: victims lose their registrations, the nexus of the command holds it now.
    private mutating func takeOver(
        _ type: ReservationType,
        from ports: InitiatorTargetNexus,
        where isVictim: (Registration) -> Bool
    ) {
        let oldType = reservations.type
        let victims = reservations.registrations.filter { $0.ports != ports && isVictim($0) }
        let gone = Set(victims.map(\.ports))
        reservations.registrations.removeAll { gone.contains($0.ports) }
        reservations.reserve(type, for: ports)
        if oldType != type { tellRegistrants(.reservationsReleased, except: ports) }
        for nexus in gone { attentions[nexus] = .registrationsPreempted }
    }

    /// REGISTER AND MOVE (SPC-5, 5.14.8).
    fileprivate mutating func move(
        from ports: InitiatorTargetNexus,
        key: ReservationKey,
        unregisters: Bool,
        to initiator: InitiatorPort,
        through target: TargetPort
    ) throws(ReservationRefusal) {
        guard let type = reservations.type, !type.isOfAllRegistrants, reservations.holder == ports else {
            throw .conflict
        }
        // Offsets of SERVICE ACTION RESERVATION KEY and of the TransportID (SPC-5, table 230).
        guard key != ReservationKey(0) else { throw .invalidParameter(byte: 8) }
        guard let isid = initiator.isid else { throw .invalidParameter(byte: 24) }
        let destination = InitiatorTargetNexus(
            initiatorName: initiator.name,
            isid: isid,
            portalGroupTag: target.portalGroupTag
        )
        guard destination != ports else { throw .invalidParameter(byte: 24) }
        reservations.put(
            Registration(
                ports: destination,
                relativePortIdentifier: target.relativePortIdentifier,
                key: key
            )
        )
        if unregisters { reservations.registrations.removeAll { $0.ports == ports } }
        guard reservations.registrations.count <= Limits.registrationsMaximum else { throw .noRoom }
        reservations.holder = destination
    }
}
