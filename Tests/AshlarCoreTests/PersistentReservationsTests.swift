import AshlarCore
import Testing

/// Registrations, reservations and commands of the tests: `a` holds where there is a holder; `b` and `c` share a key; nobody
/// knows `stranger`.
enum ReservationFixture {
    typealias Outcome = Result<ReservationChange, ReservationRefusal>

    static let a = nexus("a")
    static let b = nexus("b")
    static let c = nexus("c")
    static let d = nexus("d")
    static let stranger = nexus("s")
    static let first = TargetPort(portalGroupTag: 1, relativePortIdentifier: 11)
    static let second = TargetPort(portalGroupTag: 2, relativePortIdentifier: 12)
    static let keyA = ReservationKey(0xA)
    static let keyBC = ReservationKey(0xBC)
    static let keyD = ReservationKey(0xD)
    static let none = ReservationKey(0)
    static let unknown = ReservationKey(0xFFFF)
    static let registered = [a, b, c, d]
    /// Each type of reservation, and none.
    static let types: [ReservationType?] = [nil] + ReservationType.allCases.map { $0 }

    static func nexus(_ name: String, _ tag: UInt16 = 1) -> InitiatorTargetNexus {
        InitiatorTargetNexus(initiatorName: name, isid: 1, portalGroupTag: tag)
    }

    static func key(of nexus: InitiatorTargetNexus) -> ReservationKey {
        switch nexus {
        case a: keyA
        case b, c: keyBC
        case d: keyD
        default: none
        }
    }

    /// `a` to `d` are registered; where a type is given, `a` has reserved.
    static func state(_ type: ReservationType? = nil) -> PersistentReservations {
        var state = PersistentReservations()
        state.generation = 7
        state.registrations = registered.map {
            Registration(ports: $0, relativePortIdentifier: 11, key: key(of: $0))
        }
        state.type = type
        if let type, !type.isOfAllRegistrants { state.holder = a }
        return state
    }

    static func run(
        _ action: ReservationAction,
        from ports: InitiatorTargetNexus,
        on state: PersistentReservations,
        open: [InitiatorTargetNexus] = []
    ) -> Outcome {
        do throws(ReservationRefusal) {
            return .success(try state.applying(action, from: ports, open: open))
        } catch {
            return .failure(error)
        }
    }

    static func register(
        _ key: ReservationKey = none,
        new: ReservationKey,
        ignoring: Bool = false,
        others: [InitiatorPort] = [],
        through ports: [TargetPort] = [first],
        isForAll: Bool = false
    ) -> ReservationAction {
        .register(
            key,
            new: new,
            ignoresExisting: ignoring,
            others: others,
            targetPorts: ports,
            isForAllPorts: isForAll
        )
    }

    static func told(
        _ attention: UnitAttention,
        _ nexuses: InitiatorTargetNexus...
    ) -> [InitiatorTargetNexus: UnitAttention] {
        Dictionary(uniqueKeysWithValues: nexuses.map { ($0, attention) })
    }
}

@Suite("Persistent reservations (SPC-5, 5.14)")
struct PersistentReservationsTests {
    typealias Fixture = ReservationFixture
    typealias Key = ReservationKey

    private func keys(_ state: PersistentReservations) -> [InitiatorTargetNexus: Key] {
        Dictionary(uniqueKeysWithValues: state.registrations.map { ($0.ports, $0.key) })
    }

    // MARK: Conflicts

    struct Conflicts {
        var type: ReservationType
        /// What is kept out of those who are registered and do not hold it, and of all others.
        var registrant: Set<CommandAccess>
        var stranger: Set<CommandAccess>
    }

    static let conflicts = [
        Conflicts(type: .writeExclusive, registrant: [.write], stranger: [.write]),
        Conflicts(type: .exclusiveAccess, registrant: [.read, .write], stranger: [.read, .write]),
        Conflicts(type: .writeExclusiveRegistrantsOnly, registrant: [], stranger: [.write]),
        Conflicts(type: .exclusiveAccessRegistrantsOnly, registrant: [], stranger: [.read, .write]),
        Conflicts(type: .writeExclusiveAllRegistrants, registrant: [], stranger: [.write]),
        Conflicts(type: .exclusiveAccessAllRegistrants, registrant: [], stranger: [.read, .write]),
    ]

    @Test("each type keeps out what table 52 says", arguments: conflicts)
    func conflict(_ row: Conflicts) {
        let state = Fixture.state(row.type)
        for access in [CommandAccess.any, .read, .write] {
            #expect(!state.conflicts(with: access, from: Fixture.a))
            #expect(state.conflicts(with: access, from: Fixture.b) == row.registrant.contains(access))
            #expect(state.conflicts(with: access, from: Fixture.stranger) == row.stranger.contains(access))
            // Another port of the holder is another nexus.
            let elsewhere = Fixture.nexus("a", 2)
            #expect(state.conflicts(with: access, from: elsewhere) == row.stranger.contains(access))
            for ports in Fixture.registered + [Fixture.stranger] {
                #expect(!Fixture.state().conflicts(with: access, from: ports))
            }
        }
    }

    @Test("the holder is who reserved, or each registrant", arguments: ReservationType.allCases)
    func holders(_ type: ReservationType) {
        let state = Fixture.state(type)
        #expect(state.isHolder(Fixture.a))
        #expect(state.isHolder(Fixture.b) == type.isOfAllRegistrants)
        #expect(!state.isHolder(Fixture.stranger))
        #expect(!Fixture.state().isHolder(Fixture.a))
    }

    // MARK: REGISTER

    struct Registering {
        var ports: InitiatorTargetNexus
        var key: Key
        var new: Key
        var ignoring = false
        /// The key that the nexus has then; `nil`: RESERVATION CONFLICT.
        var result: Key?
    }

    static let registering = [
        // Not registered: the key has to be 0.
        Registering(ports: Fixture.stranger, key: Fixture.none, new: Fixture.none, result: Fixture.none),
        Registering(ports: Fixture.stranger, key: Fixture.none, new: Key(5), result: Key(5)),
        Registering(ports: Fixture.stranger, key: Fixture.unknown, new: Key(5), result: nil),
        Registering(ports: Fixture.stranger, key: Fixture.unknown, new: Fixture.none, result: nil),
        // Registered: it has to be its own.
        Registering(ports: Fixture.b, key: Fixture.none, new: Key(5), result: nil),
        Registering(ports: Fixture.b, key: Fixture.keyA, new: Key(5), result: nil),
        Registering(ports: Fixture.b, key: Fixture.keyA, new: Fixture.none, result: nil),
        Registering(ports: Fixture.b, key: Fixture.keyBC, new: Key(5), result: Key(5)),
        Registering(ports: Fixture.b, key: Fixture.keyBC, new: Fixture.keyBC, result: Fixture.keyBC),
        Registering(ports: Fixture.b, key: Fixture.keyBC, new: Fixture.none, result: Fixture.none),
        // REGISTER AND IGNORE EXISTING KEY: whatever it is.
        Registering(ports: Fixture.stranger, key: Fixture.unknown, new: Key(5), ignoring: true, result: Key(5)),
        Registering(
            ports: Fixture.stranger,
            key: Fixture.unknown,
            new: Fixture.none,
            ignoring: true,
            result: Fixture.none
        ),
        Registering(ports: Fixture.b, key: Fixture.unknown, new: Key(5), ignoring: true, result: Key(5)),
        Registering(ports: Fixture.b, key: Fixture.unknown, new: Fixture.none, ignoring: true, result: Fixture.none),
    ]

    @Test("REGISTER in each state of the nexus", arguments: registering, ReservationFixture.types)
    func register(_ row: Registering, _ type: ReservationType?) throws {
        let state = Fixture.state(type)
        let action = Fixture.register(row.key, new: row.new, ignoring: row.ignoring)
        let outcome = Fixture.run(action, from: row.ports, on: state)
        guard let result = row.result else {
            #expect(outcome == .failure(.conflict))
            return
        }
        let change = try outcome.get()
        var expected = keys(state)
        expected[row.ports] = result == Fixture.none ? nil : result
        #expect(keys(change.reservations) == expected)
        #expect(change.reservations.generation == 8)
        // The reservation is not theirs, or not theirs alone.
        #expect(change.reservations.type == type)
        #expect(change.reservations.holder == state.holder)
        #expect(change.attentions.isEmpty && change.aborted.isEmpty)
    }

    @Test("registering keeps the order and the port of the registrations, and a holder that takes a new key holds on")
    func changeKey() throws {
        let state = Fixture.state(.writeExclusive)
        let change = try Fixture.run(Fixture.register(Fixture.keyA, new: Key(9)), from: Fixture.a, on: state).get()
        #expect(change.reservations.registrations.map(\.ports) == Fixture.registered)
        #expect(change.reservations.registrations[0].relativePortIdentifier == 11)
        #expect(change.reservations.isHolder(Fixture.a))
        let again = Fixture.run(.release(Fixture.keyA, .writeExclusive), from: Fixture.a, on: change.reservations)
        #expect(again == .failure(.conflict))
    }

    @Test("ALL_TG_PT registers and unregisters through every target port")
    func allTargetPorts() throws {
        let ports = [Fixture.first, Fixture.second]
        var state = PersistentReservations()
        let registered = Fixture.run(Fixture.register(new: Key(5), through: ports), from: Fixture.stranger, on: state)
        state = try registered.get().reservations
        let other = Fixture.nexus("s", 2)
        #expect(keys(state) == [Fixture.stranger: Key(5), other: Key(5)])
        #expect(state.registrations.map(\.relativePortIdentifier) == [11, 12])
        #expect(state.generation == 1)
        // One of them by itself.
        let one = try Fixture.run(Fixture.register(Key(5), new: Fixture.none), from: Fixture.stranger, on: state).get()
        #expect(keys(one.reservations) == [other: Key(5)])
        let gone = Fixture.register(Key(5), new: Fixture.none, through: ports)
        #expect(try Fixture.run(gone, from: other, on: state).get().reservations.registrations.isEmpty)
    }

    @Test("ALL_TG_PT also means registrations through target ports that are not known just now")
    func unknownTargetPorts() throws {
        let other = Fixture.nexus("s", 2)
        let foreign = Fixture.nexus("t", 2)
        var state = PersistentReservations()
        for (nexus, port) in [(Fixture.stranger, Fixture.first), (other, Fixture.second), (foreign, Fixture.second)] {
            let register = Fixture.register(new: Key(5), through: [port])
            state = try Fixture.run(register, from: nexus, on: state).get().reservations
        }
        let replaced = Fixture.register(Key(5), new: Key(6), isForAll: true)
        state = try Fixture.run(replaced, from: Fixture.stranger, on: state).get().reservations
        #expect(keys(state) == [Fixture.stranger: Key(6), other: Key(6), foreign: Key(5)])
        let gone = Fixture.register(Key(6), new: Fixture.none, isForAll: true)
        state = try Fixture.run(gone, from: Fixture.stranger, on: state).get().reservations
        #expect(keys(state) == [foreign: Key(5)])
    }

    @Test("I10: SPEC_I_PT with as many names as a message takes costs little, and is refused beyond the registrations")
    func manySpecifiedPorts() throws {
        let open = (0..<4_096).map {
            InitiatorTargetNexus(initiatorName: "i\($0 % 8)", isid: UInt64($0), portalGroupTag: 1)
        }
        let ports = (1...1_024).map { TargetPort(portalGroupTag: UInt16($0), relativePortIdentifier: UInt16($0)) }
        let others = (0..<1_024).map { InitiatorPort(name: "i\($0 % 8)", isid: nil) }
        let action = Fixture.register(new: Key(5), others: others, through: ports)
        let outcome = Fixture.run(action, from: Fixture.stranger, on: PersistentReservations(), open: open)
        #expect(outcome == .failure(.noRoom))
        // A name that is given twice is registered once.
        let twice = Fixture.register(new: Key(5), others: [others[0], others[8]])
        let few = Array(open.prefix(16))
        let change = try Fixture.run(twice, from: Fixture.stranger, on: PersistentReservations(), open: few).get()
        #expect(change.reservations.registrations.count == 3)
    }

    @Test("SPEC_I_PT registers the ports named, by their ISID or all that are logged in")
    func specifiedPorts() throws {
        let open = [
            InitiatorTargetNexus(initiatorName: "o", isid: 3, portalGroupTag: 1),
            InitiatorTargetNexus(initiatorName: "o", isid: 2, portalGroupTag: 2),
            InitiatorTargetNexus(initiatorName: "p", isid: 4, portalGroupTag: 1),
        ]
        let others = [InitiatorPort(name: "n", isid: 9), InitiatorPort(name: "o", isid: nil)]
        let action = Fixture.register(new: Key(5), others: others)
        let change = try Fixture.run(action, from: Fixture.stranger, on: PersistentReservations(), open: open).get()
        #expect(
            change.reservations.registrations.map(\.ports) == [
                Fixture.stranger, InitiatorTargetNexus(initiatorName: "n", isid: 9, portalGroupTag: 1),
                InitiatorTargetNexus(initiatorName: "o", isid: 2, portalGroupTag: 1),
                InitiatorTargetNexus(initiatorName: "o", isid: 3, portalGroupTag: 1),
            ]
        )
        #expect(change.reservations.registrations.allSatisfy { $0.key == Key(5) })
        #expect(change.reservations.generation == 1)
        // Nobody of that name is there.
        let nobody = Fixture.register(new: Key(5), others: [InitiatorPort(name: "q", isid: nil)])
        let outcome = Fixture.run(nobody, from: Fixture.stranger, on: PersistentReservations(), open: open)
        #expect(outcome == .failure(.invalidParameter(byte: 28)))
        // Through all target ports.
        let all = Fixture.register(
            new: Key(5),
            others: [InitiatorPort(name: "n", isid: 9)],
            through: [Fixture.first, Fixture.second]
        )
        let many = try Fixture.run(all, from: Fixture.stranger, on: PersistentReservations()).get()
        #expect(many.reservations.registrations.count == 4)
    }

    @Test("SPEC_I_PT leaves those alone that are registered, and is for a nexus that is not")
    func specifiedAgain() throws {
        let named = [InitiatorPort(name: "b", isid: 1), InitiatorPort(name: "n", isid: 9)]
        let state = Fixture.state()
        let change = try Fixture.run(
            Fixture.register(new: Key(5), others: named),
            from: Fixture.stranger,
            on: state
        ).get()
        var expected = keys(state)
        expected[Fixture.stranger] = Key(5)
        expected[InitiatorTargetNexus(initiatorName: "n", isid: 9, portalGroupTag: 1)] = Key(5)
        #expect(keys(change.reservations) == expected)
        // Offset of SPEC_I_PT.
        for new in [Key(5), Fixture.none] {
            let action = Fixture.register(Fixture.keyA, new: new, others: named)
            #expect(Fixture.run(action, from: Fixture.a, on: state) == .failure(.invalidParameter(byte: 20)))
        }
        let nothing = Fixture.register(new: Fixture.none, others: named)
        #expect(Fixture.run(nothing, from: Fixture.stranger, on: state) == .failure(.invalidParameter(byte: 20)))
    }

    // MARK: Unregistering

    @Test("the reservation goes with the registration of its holder, and registrants are told where they were admitted")
    func unregisterHolder() throws {
        for type in ReservationType.allCases where !type.isOfAllRegistrants {
            let action = Fixture.register(Fixture.keyA, new: Fixture.none)
            let change = try Fixture.run(action, from: Fixture.a, on: Fixture.state(type)).get()
            #expect(change.reservations.type == nil && change.reservations.holder == nil)
            #expect(change.reservations.registrations.map(\.ports) == [Fixture.b, Fixture.c, Fixture.d])
            let told = Fixture.told(.reservationsReleased, Fixture.b, Fixture.c, Fixture.d)
            #expect(change.attentions == (type.admitsRegistrants ? told : [:]))
        }
    }

    @Test("a reservation of all registrants goes with the last of them")
    func unregisterLast() throws {
        for type in [ReservationType.writeExclusiveAllRegistrants, .exclusiveAccessAllRegistrants] {
            var state = Fixture.state(type)
            for ports in Fixture.registered {
                #expect(state.type == type)
                let action = Fixture.register(Fixture.key(of: ports), new: Fixture.none)
                let change = try Fixture.run(action, from: ports, on: state).get()
                #expect(change.attentions.isEmpty)
                state = change.reservations
            }
            #expect(state.type == nil && state.holder == nil && state.registrations.isEmpty)
            #expect(state.generation == 11)
        }
    }

    // MARK: RESERVE and RELEASE

    @Test("RESERVE where there is no reservation", arguments: ReservationType.allCases)
    func reserve(_ type: ReservationType) throws {
        let change = try Fixture.run(.reserve(Fixture.keyBC, type), from: Fixture.b, on: Fixture.state()).get()
        #expect(change.reservations.type == type)
        #expect(change.reservations.holder == (type.isOfAllRegistrants ? nil : Fixture.b))
        #expect(change.reservations.generation == 7)
        #expect(change.attentions.isEmpty && change.aborted.isEmpty)
    }

    @Test("RESERVE where there is one", arguments: ReservationType.allCases, ReservationType.allCases)
    func reserveAgain(_ held: ReservationType, _ wanted: ReservationType) {
        let state = Fixture.state(held)
        let same = Fixture.Outcome.success(change(state))
        #expect(
            Fixture.run(.reserve(Fixture.keyA, wanted), from: Fixture.a, on: state)
                == (held == wanted ? same : .failure(.conflict))
        )
        #expect(
            Fixture.run(.reserve(Fixture.keyD, wanted), from: Fixture.d, on: state)
                == (held == wanted && held.isOfAllRegistrants ? same : .failure(.conflict))
        )
    }

    /// A change that leaves the state as it is.
    private func change(_ state: PersistentReservations) -> ReservationChange {
        // RELEASE without a reservation changes nothing: the only way to such a value from outside.
        var plain = Fixture.state()
        plain.type = nil
        plain.holder = nil
        guard
            case .success(var change) = Fixture.run(.release(Fixture.keyA, .writeExclusive), from: Fixture.a, on: plain)
        else { preconditionFailure("a release without a reservation is done") }
        change.reservations = state
        return change
    }

    @Test("every service action but REGISTER needs the key of the nexus", arguments: ReservationFixture.types)
    func wrongKey(_ type: ReservationType?) {
        let state = Fixture.state(type)
        let senders = [
            (Fixture.a, Fixture.keyBC), (Fixture.a, Fixture.none), (Fixture.stranger, Fixture.keyA),
            (Fixture.stranger, Fixture.none),
        ]
        for (ports, key) in senders {
            let actions: [ReservationAction] = [
                .reserve(key, .writeExclusive), .release(key, type ?? .writeExclusive), .clear(key),
                .preempt(key, .writeExclusive, victim: Fixture.keyBC, aborts: false),
                .preempt(key, .writeExclusive, victim: Fixture.keyBC, aborts: true),
                .move(
                    key,
                    new: Key(5),
                    unregisters: false,
                    to: InitiatorPort(name: "n", isid: 9),
                    through: Fixture.first
                ),
            ]
            for action in actions { #expect(Fixture.run(action, from: ports, on: state) == .failure(.conflict)) }
        }
    }

    @Test("RELEASE", arguments: ReservationType.allCases, ReservationType.allCases)
    func release(_ held: ReservationType, _ named: ReservationType) throws {
        let state = Fixture.state(held)
        let byHolder = Fixture.run(.release(Fixture.keyA, named), from: Fixture.a, on: state)
        if held == named {
            let change = try byHolder.get()
            #expect(change.reservations.type == nil && change.reservations.holder == nil)
            #expect(change.reservations.registrations == state.registrations && change.reservations.generation == 7)
            let told = Fixture.told(.reservationsReleased, Fixture.b, Fixture.c, Fixture.d)
            #expect(change.attentions == (held.admitsRegistrants ? told : [:]))
        } else {
            #expect(byHolder == .failure(.invalidRelease))
        }
        // Who does not hold it does nothing; of all registrants each holds it.
        let byOther = Fixture.run(.release(Fixture.keyD, named), from: Fixture.d, on: state)
        if held.isOfAllRegistrants {
            if held == named {
                #expect(try byOther.get().reservations.type == nil)
            } else {
                #expect(byOther == .failure(.invalidRelease))
            }
        } else {
            #expect(byOther == .success(change(state)))
        }
        #expect(
            Fixture.run(.release(Fixture.keyA, named), from: Fixture.a, on: Fixture.state())
                == .success(change(Fixture.state()))
        )
    }

    // MARK: CLEAR

    @Test("CLEAR by any registrant", arguments: ReservationFixture.types)
    func clear(_ type: ReservationType?) throws {
        let change = try Fixture.run(.clear(Fixture.keyD), from: Fixture.d, on: Fixture.state(type)).get()
        #expect(change.reservations.registrations.isEmpty)
        #expect(change.reservations.type == nil && change.reservations.holder == nil)
        #expect(change.reservations.generation == 8)
        #expect(change.attentions == Fixture.told(.reservationsPreempted, Fixture.a, Fixture.b, Fixture.c))
        #expect(change.aborted.isEmpty)
    }
}
