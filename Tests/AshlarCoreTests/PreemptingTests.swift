import AshlarCore
import AshlarTestSupport
import Testing

@Suite("Preempting and moving persistent reservations (SPC-5, 5.14.8 and 5.14.11)")
struct PreemptingTests {
    typealias Fixture = ReservationFixture
    typealias Key = ReservationKey

    private func preempt(
        _ victim: Key,
        _ type: ReservationType,
        by ports: InitiatorTargetNexus,
        on state: PersistentReservations,
        aborts: Bool = false
    ) -> Fixture.Outcome {
        let action = ReservationAction.preempt(Fixture.key(of: ports), type, victim: victim, aborts: aborts)
        return Fixture.run(action, from: ports, on: state)
    }

    // MARK: PREEMPT

    @Test("the holder's key: the reservation goes over", arguments: ReservationType.allCases, ReservationType.allCases)
    func takeOver(_ held: ReservationType, _ wanted: ReservationType) throws {
        guard !held.isOfAllRegistrants else { return }
        let change = try preempt(Fixture.keyA, wanted, by: Fixture.d, on: Fixture.state(held), aborts: true).get()
        #expect(change.reservations.registrations.map(\.ports) == [Fixture.b, Fixture.c, Fixture.d])
        #expect(change.reservations.type == wanted)
        #expect(change.reservations.holder == (wanted.isOfAllRegistrants ? nil : Fixture.d))
        #expect(change.reservations.generation == 8)
        var told = Fixture.told(.registrationsPreempted, Fixture.a)
        if held != wanted {
            for other in [Fixture.b, Fixture.c] { told[other] = .reservationsReleased }
        }
        #expect(change.attentions == told)
        #expect(change.aborted == [Fixture.a])
    }

    @Test("whoever shares the holder's key goes with it, but for the nexus of the command")
    func sharedKey() throws {
        var state = Fixture.state(.writeExclusive)
        state.holder = Fixture.b
        let byOther = try preempt(Fixture.keyBC, .exclusiveAccess, by: Fixture.d, on: state, aborts: true).get()
        #expect(byOther.reservations.registrations.map(\.ports) == [Fixture.a, Fixture.d])
        #expect(byOther.aborted == [Fixture.b, Fixture.c])
        #expect(byOther.attentions[Fixture.a] == .reservationsReleased)
        let byOne = try preempt(Fixture.keyBC, .writeExclusive, by: Fixture.c, on: state, aborts: true).get()
        #expect(byOne.reservations.registrations.map(\.ports) == [Fixture.a, Fixture.c, Fixture.d])
        #expect(byOne.reservations.holder == Fixture.c)
        #expect(byOne.attentions == Fixture.told(.registrationsPreempted, Fixture.b))
        #expect(byOne.aborted == [Fixture.b])
    }

    @Test("the holder's own key: it holds on, with another type", arguments: ReservationType.allCases)
    func ownKeyOfHolder(_ wanted: ReservationType) throws {
        let state = Fixture.state(.writeExclusive)
        let change = try preempt(Fixture.keyA, wanted, by: Fixture.a, on: state, aborts: true).get()
        #expect(change.reservations.registrations == state.registrations)
        #expect(change.reservations.type == wanted && change.reservations.isHolder(Fixture.a))
        let told = Fixture.told(.reservationsReleased, Fixture.b, Fixture.c, Fixture.d)
        #expect(change.attentions == (wanted == .writeExclusive ? [:] : told))
        #expect(change.aborted.isEmpty)
    }

    @Test("another key: registrations go, the reservation stays", arguments: ReservationFixture.types)
    func removeRegistrations(_ type: ReservationType?) throws {
        let state = Fixture.state(type)
        for aborts in [false, true] {
            let change = try preempt(Fixture.keyBC, .exclusiveAccess, by: Fixture.d, on: state, aborts: aborts).get()
            #expect(change.reservations.registrations.map(\.ports) == [Fixture.a, Fixture.d])
            #expect(change.reservations.type == type && change.reservations.holder == state.holder)
            #expect(change.reservations.generation == 8)
            #expect(change.attentions == Fixture.told(.registrationsPreempted, Fixture.b, Fixture.c))
            #expect(change.aborted == (aborts ? [Fixture.b, Fixture.c] : []))
        }
    }

    @Test("the own key of who does not hold it: its registration goes, and nobody tells it so")
    func ownKey() throws {
        for type in ReservationFixture.types {
            let change = try preempt(
                Fixture.keyD,
                .writeExclusive,
                by: Fixture.d,
                on: Fixture.state(type),
                aborts: true
            )
            .get()
            #expect(change.reservations.registrations.map(\.ports) == [Fixture.a, Fixture.b, Fixture.c])
            #expect(change.reservations.type == type)
            #expect(change.attentions.isEmpty && change.aborted.isEmpty)
        }
        // The last of all registrants takes the reservation with it.
        var state = Fixture.state(.exclusiveAccessAllRegistrants)
        state.registrations = state.registrations.filter { $0.ports == Fixture.d }
        let last = try preempt(Fixture.keyD, .writeExclusive, by: Fixture.d, on: state).get()
        #expect(last.reservations.registrations.isEmpty && last.reservations.type == nil)
    }

    @Test("no key: all others of all registrants", arguments: ReservationFixture.types)
    func noVictim(_ type: ReservationType?) throws {
        for wanted in ReservationType.allCases {
            let outcome = preempt(Fixture.none, wanted, by: Fixture.d, on: Fixture.state(type), aborts: true)
            guard let type, type.isOfAllRegistrants else {
                #expect(outcome == .failure(.invalidParameter(byte: 8)))
                continue
            }
            let change = try outcome.get()
            #expect(change.reservations.registrations.map(\.ports) == [Fixture.d])
            #expect(change.reservations.type == wanted && change.reservations.isHolder(Fixture.d))
            #expect(change.attentions == Fixture.told(.registrationsPreempted, Fixture.a, Fixture.b, Fixture.c))
            #expect(change.aborted == [Fixture.a, Fixture.b, Fixture.c])
        }
    }

    @Test("a key that nobody has", arguments: ReservationFixture.types)
    func unknownVictim(_ type: ReservationType?) {
        let outcome = preempt(Fixture.unknown, .writeExclusive, by: Fixture.d, on: Fixture.state(type))
        #expect(outcome == .failure(.conflict))
    }

    // MARK: REGISTER AND MOVE

    private func move(
        _ new: Key = Key(5),
        unregisters: Bool = false,
        to port: InitiatorPort = InitiatorPort(name: "n", isid: 9),
        through target: TargetPort = ReservationFixture.second
    ) -> ReservationAction {
        .move(Fixture.keyA, new: new, unregisters: unregisters, to: port, through: target)
    }

    @Test("REGISTER AND MOVE gives the reservation to another nexus", arguments: [false, true])
    func move(unregisters: Bool) throws {
        let destination = InitiatorTargetNexus(initiatorName: "n", isid: 9, portalGroupTag: 2)
        for type in ReservationType.allCases where !type.isOfAllRegistrants {
            let state = Fixture.state(type)
            let change = try Fixture.run(move(unregisters: unregisters), from: Fixture.a, on: state).get()
            #expect(change.reservations.type == type && change.reservations.holder == destination)
            let added = change.reservations.registration(of: destination)
            #expect(added?.key == Key(5) && added?.relativePortIdentifier == 12)
            #expect((change.reservations.registration(of: Fixture.a) == nil) == unregisters)
            #expect(change.reservations.generation == 8)
            #expect(change.attentions.isEmpty && change.aborted.isEmpty)
        }
    }

    @Test("REGISTER AND MOVE to a registered nexus gives it the new key")
    func moveToRegistered() throws {
        let port = InitiatorPort(name: "b", isid: 1)
        let state = Fixture.state(.writeExclusive)
        let change = try Fixture.run(move(to: port, through: Fixture.first), from: Fixture.a, on: state).get()
        #expect(change.reservations.holder == Fixture.b)
        #expect(change.reservations.registration(of: Fixture.b)?.key == Key(5))
        #expect(change.reservations.registrations.count == 4)
    }

    @Test("REGISTER AND MOVE is refused to who does not hold the reservation, and without a destination")
    func moveRefused() {
        let port = InitiatorPort(name: "n", isid: 9)
        for type in ReservationFixture.types {
            let state = Fixture.state(type)
            let byOther = ReservationAction.move(
                Fixture.keyD,
                new: Key(5),
                unregisters: false,
                to: port,
                through: Fixture.first
            )
            #expect(Fixture.run(byOther, from: Fixture.d, on: state) == .failure(.conflict))
            if type?.isOfAllRegistrants ?? true {
                #expect(Fixture.run(move(), from: Fixture.a, on: state) == .failure(.conflict))
            }
        }
        let state = Fixture.state(.writeExclusive)
        #expect(Fixture.run(move(Fixture.none), from: Fixture.a, on: state) == .failure(.invalidParameter(byte: 8)))
        let anyPort = move(to: InitiatorPort(name: "n", isid: nil))
        #expect(Fixture.run(anyPort, from: Fixture.a, on: state) == .failure(.invalidParameter(byte: 24)))
        let itself = move(to: InitiatorPort(name: "a", isid: 1), through: Fixture.first)
        #expect(Fixture.run(itself, from: Fixture.a, on: state) == .failure(.invalidParameter(byte: 24)))
    }

    // MARK: Limits

    @Test("there is room for so many registrations")
    func limits() throws {
        var state = Fixture.state(.writeExclusive)
        for number in state.registrations.count..<Limits.registrationsMaximum {
            let ports = Fixture.nexus("n\(number)")
            state.registrations.append(Registration(ports: ports, relativePortIdentifier: 11, key: Key(5)))
        }
        let one = Fixture.register(new: Key(6))
        #expect(Fixture.run(one, from: Fixture.stranger, on: state) == .failure(.noRoom))
        #expect(Fixture.run(move(), from: Fixture.a, on: state) == .failure(.noRoom))
        // What is there may change, and who goes makes room.
        let changed = Fixture.run(Fixture.register(Fixture.keyA, new: Key(6)), from: Fixture.a, on: state)
        #expect(try changed.get().reservations.registrations.count == Limits.registrationsMaximum)
        let moved = Fixture.run(move(unregisters: true), from: Fixture.a, on: state)
        #expect(try moved.get().reservations.registrations.count == Limits.registrationsMaximum)
        state.registrations.removeLast()
        #expect(try Fixture.run(one, from: Fixture.stranger, on: state).get().reservations.generation == 8)
        let two = Fixture.register(new: Key(6), through: [Fixture.first, Fixture.second])
        #expect(Fixture.run(two, from: Fixture.stranger, on: state) == .failure(.noRoom))
    }

    @Test("PRGENERATION wraps")
    func generationWraps() throws {
        var state = Fixture.state()
        state.generation = .max
        #expect(try Fixture.run(.clear(Fixture.keyA), from: Fixture.a, on: state).get().reservations.generation == 0)
    }

    // MARK: Whatever comes

    static let nexuses = ["a", "b", "c"].flatMap { name in [1, 2].map { ReservationFixture.nexus(name, $0) } }

    private func randomAction(
        _ generator: inout SeededGenerator,
        from ports: InitiatorTargetNexus,
        on state: PersistentReservations
    ) -> ReservationAction {
        let own = state.registration(of: ports)?.key ?? Fixture.none
        let key = generator.chance(85) ? own : Key(UInt64(generator.below(4)))
        let other = Key(UInt64(generator.below(4)))
        let type = ReservationType.allCases[generator.below(6)]
        let target = generator.chance(50) ? Fixture.first : Fixture.second
        let named = Self.nexuses[generator.below(Self.nexuses.count)]
        let port = InitiatorPort(name: named.initiatorName, isid: generator.chance(80) ? 1 : nil)
        switch generator.below(10) {
        case 0..<4:
            let ports = TargetPort(portalGroupTag: ports.portalGroupTag, relativePortIdentifier: ports.portalGroupTag)
            return .register(
                key,
                new: other,
                ignoresExisting: generator.chance(30),
                others: generator.chance(20) ? [port] : [],
                targetPorts: generator.chance(20) ? [Fixture.first, Fixture.second] : [ports]
            )
        case 4, 5: return .reserve(key, type)
        case 6: return .release(key, generator.chance(80) ? state.type ?? type : type)
        case 7: return .preempt(key, type, victim: other, aborts: generator.chance(50))
        case 8: return .move(key, new: other, unregisters: generator.chance(50), to: port, through: target)
        default:
            return generator.chance(30)
                ? .clear(key) : .preempt(key, type, victim: other, aborts: generator.chance(50))
        }
    }

    /// What must hold of a state, whatever led to it.
    private func violation(of state: PersistentReservations) -> String? {
        if Set(state.registrations.map(\.ports)).count != state.registrations.count { return "a nexus is there twice" }
        if state.registrations.contains(where: { $0.key == Fixture.none }) { return "a registration without a key" }
        if let holder = state.holder, state.registration(of: holder) == nil { return "the holder is not registered" }
        if state.type != nil, state.registrations.isEmpty { return "a reservation without registrations" }
        let hasHolder = state.type.map { !$0.isOfAllRegistrants } ?? false
        if (state.holder != nil) != hasHolder { return "a holder where there is none, or none where there is one" }
        return nil
    }

    @Test("no sequence of commands breaks a rule", arguments: UInt64(1)...20)
    func sequence(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var state = PersistentReservations()
        var done = 0
        for step in 0..<600 {
            let ports = Self.nexuses[generator.below(Self.nexuses.count)]
            let action = randomAction(&generator, from: ports, on: state)
            let outcome = Fixture.run(action, from: ports, on: state, open: Self.nexuses)
            #expect(Fixture.run(action, from: ports, on: state, open: Self.nexuses) == outcome)
            guard case .success(let change) = outcome else { continue }
            done += 1
            let new = change.reservations
            if let violation = violation(of: new) {
                Issue.record("seed \(seed), step \(step): \(violation) after \(action)")
                return
            }
            let counts: Bool
            switch action {
            case .reserve, .release: counts = false
            case .register, .clear, .preempt, .move: counts = true
            }
            #expect(new.generation == state.generation + (counts ? 1 : 0))
            let before = Set(state.registrations.map(\.ports))
            let after = Set(new.registrations.map(\.ports))
            #expect(change.attentions[ports] == nil && Set(change.attentions.keys).isSubset(of: before))
            #expect(change.aborted.isSubset(of: before.subtracting(after).subtracting([ports])))
            for (told, attention) in change.attentions where attention == .registrationsPreempted {
                #expect(!after.contains(told), "seed \(seed), step \(step)")
            }
            state = new
        }
        #expect(done > 100)
    }
}
