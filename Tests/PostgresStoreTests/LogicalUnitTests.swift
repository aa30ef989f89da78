import AshlarCore
import Ownership
import PostgresStore
import Testing

/// The state of logical units, from commit to takeover.
@Suite(.serialized, .enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"))
struct LogicalUnitTests {
    private static func ports(_ number: Int, name: String = "iqn.2026-01.host:\u{e4}\u{1f9f1}") -> InitiatorTargetNexus
    {
        InitiatorTargetNexus(
            initiatorName: name,
            isid: 0xFFFF_FFFE_0000 + UInt64(number),
            portalGroupTag: 0xFFFF
        )
    }

    private static func registration(_ number: Int, key: UInt64) -> Registration {
        Registration(ports: ports(number), relativePortIdentifier: 0xFFFF, key: ReservationKey(key))
    }

    /// A state in which no field is as in a fresh one.
    private static func fullState() -> LogicalUnitState {
        var unit = LogicalUnitState()
        unit.reservations.generation = .max
        // Neither ascending by port nor by key: the order is that in which they were made.
        unit.reservations.registrations = [
            registration(3, key: .max), registration(1, key: 1), registration(2, key: 1 << 63),
        ]
        unit.reservations.type = .exclusiveAccessRegistrantsOnly
        unit.reservations.holder = ports(1)
        unit.reservedBy = NexusNumber(5)
        unit.mode = ModeParameters(
            isSoftwareWriteProtected: true,
            isSenseInDescriptorFormat: false,
            isExceptionReportingDisabled: true,
            exceptionReportingMethod: 6
        )
        unit.savedMode = ModeParameters(isSenseInDescriptorFormat: true, exceptionReportingMethod: 3)
        unit.identifyingInformation = [UInt8](0..<64)
        unit.identifyingText = Array(String(repeating: "\u{e4}", count: 128).utf8)
        unit.erasure = Erasure(
            kind: .overwrite,
            pattern: (0..<4_096).map { UInt8(truncatingIfNeeded: $0 * 7) },
            position: 1 << 49
        )
        return unit
    }

    private func nexus(_ number: UInt64) -> NexusRow {
        NexusRow(
            number: NexusNumber(number),
            ports: InitiatorTargetNexus(initiatorName: "iqn.2026-01.host:a", isid: number, portalGroupTag: 1),
            node: "t1",
            mark: NexusMark(nexus: NexusNumber(number), lowWater: CommandID(0), done: [])
        )
    }

    private func open(_ numbers: [UInt64], _ fixture: Fixture) async throws {
        for number in numbers {
            let row = nexus(number)
            _ = try await ask {
                fixture.store.openNexus(volume: fixture.volume, epoch: fixture.epoch, nexus: row, completion: $0)
            }
        }
    }

    private func takeOver(_ fixture: Fixture) async throws -> Ownership {
        try await Fixture.own(fixture.store, fixture.volume, fixture.server)
    }

    @Test func aVolumeWithoutARowHasAFreshUnit() async throws {
        let fixture = try await Fixture()
        try await fixture.commit { $0.writes = [write(1, 1)] }
        #expect(try fixture.number("SELECT count(*) FROM logical_units") == 0)
        #expect(try await takeOver(fixture).unit == LogicalUnitState())
    }

    @Test func everyFieldSurvivesCommitAndTakeover() async throws {
        let fixture = try await Fixture()
        let state = Self.fullState()
        try await fixture.commit { $0.unit = state }
        #expect(try await takeOver(fixture).unit == state)
    }

    @Test func whatWasToldIsKeptBesideTheState() async throws {
        let fixture = try await Fixture()
        #expect(try await takeOver(fixture).told == nil)
        var part = fixture.part()
        for told in [
            ToldDescription(sizeBytes: 1 << 50, isReadOnly: true), ToldDescription(sizeBytes: 512, isReadOnly: false),
        ] {
            let ownership = try await takeOver(fixture)
            part.epoch = ownership.epoch
            part.told = told
            let change = part
            try await fixture.commit { $0 = change }
            let unit = try await takeOver(fixture)
            #expect(unit.told == told && unit.unit == LogicalUnitState())
        }
        part.epoch = try await takeOver(fixture).epoch
        part.told = nil
        part.unit = Self.fullState()
        let change = part
        try await fixture.commit { $0 = change }
        let ownership = try await takeOver(fixture)
        #expect(ownership.unit == Self.fullState() && ownership.told?.sizeBytes == 512)
    }

    @Test func anISIDHasFortyEightBits() async throws {
        let fixture = try await Fixture()
        var unit = Self.fullState()
        unit.reservations.registrations[0].ports.isid = 1 << 48
        let change = unit
        await #expect(throws: (any Error).self) { try await fixture.commit { $0.unit = change } }
        #expect(try await takeOver(fixture).unit == LogicalUnitState())
    }

    @Test func aStateIsReplacedWhole() async throws {
        let fixture = try await Fixture()
        try await fixture.commit { $0.unit = Self.fullState() }
        try await fixture.commit { $0.unit = LogicalUnitState() }
        #expect(try await takeOver(fixture).unit == LogicalUnitState())
        #expect(try fixture.number("SELECT count(*) FROM registrations") == 0)
    }

    @Test func everyTypeAndItsHolderComeBack() async throws {
        let fixture = try await Fixture()
        var part = fixture.part()
        for type in ReservationType.allCases {
            var state = Self.fullState()
            state.reservations.type = type
            if type.isOfAllRegistrants { state.reservations.holder = nil }
            part.unit = state
            let change = part
            try await fixture.commit { $0 = change }
            let ownership = try await takeOver(fixture)
            #expect(ownership.unit == state)
            part.epoch = ownership.epoch
        }
    }

    @Test func everyErasureComesBackAndEnds() async throws {
        let fixture = try await Fixture()
        var part = fixture.part()
        for kind in [.blockErase, .cryptographicErase, .overwrite, .format] as [Erasure.Kind] {
            for erasure in [Erasure(kind: kind, pattern: kind == .overwrite ? [0xA5] : [], position: 4_096), nil] {
                var state = LogicalUnitState()
                state.erasure = erasure
                part.unit = state
                let change = part
                try await fixture.commit { $0 = change }
                let ownership = try await takeOver(fixture)
                #expect(ownership.unit == state)
                part.epoch = ownership.epoch
            }
        }
    }

    @Test func registrationsAreReplacedAsAWhole() async throws {
        let fixture = try await Fixture()
        var state = LogicalUnitState()
        state.reservations.registrations = (0..<Limits.registrationsMaximum).map {
            Self.registration($0, key: 1 << 63 | UInt64($0) + 1)
        }
        try await fixture.commit { $0.unit = state }
        #expect(try fixture.number("SELECT count(*) FROM registrations") == Int64(Limits.registrationsMaximum))
        // Some go, some get another key, all stand in another order, and one is new.
        state.reservations.registrations = state.reservations.registrations.reversed().filter {
            $0.key.rawValue % 3 != 0
        }
        for index in stride(from: 0, to: 100, by: 7) { state.reservations.registrations[index].key = ReservationKey(9) }
        state.reservations.registrations.append(Self.registration(70_000, key: 70_000))
        state.reservations.generation = 2
        try await fixture.commit { $0.unit = state }
        #expect(try await takeOver(fixture).unit == state)
    }

    /// Registrations outlive the nexuses that made them (SPC-5, 5.14.1).
    @Test func registrationsNeedNoNexus() async throws {
        let fixture = try await Fixture()
        try await open([5], fixture)
        let state = Self.fullState()
        try await fixture.commit { $0.unit = state }
        _ = try await ask {
            fixture.store.closeNexus(
                volume: fixture.volume,
                epoch: fixture.epoch,
                nexus: NexusNumber(5),
                completion: $0
            )
        }
        let ownership = try await takeOver(fixture)
        #expect(ownership.nexuses.isEmpty && ownership.unit == state)
    }

    @Test func attentionsComeBackInOrderAndAreReplaced() async throws {
        let fixture = try await Fixture()
        try await open([1, 2, 3], fixture)
        let all = Array(UnitAttention.allCases.reversed())
        try await fixture.commit {
            $0.attentions = [
                NexusAttentions(nexus: NexusNumber(1), attentions: all),
                NexusAttentions(nexus: NexusNumber(2), attentions: [.deviceReset, .commandsCleared]),
                // A nexus that has been closed leaves nothing behind.
                NexusAttentions(nexus: NexusNumber(77), attentions: [.deviceReset]),
            ]
        }
        let first = try await takeOver(fixture)
        #expect(first.nexuses.map(\.attentions) == [all, [.deviceReset, .commandsCleared], []])
        var next = VolumeCommit(volume: fixture.volume, epoch: first.epoch)
        next.attentions = [
            NexusAttentions(nexus: NexusNumber(1), attentions: []),
            NexusAttentions(nexus: NexusNumber(3), attentions: [.capacityChanged]),
        ]
        try await fixture.commit { $0 = next }
        #expect(
            try await takeOver(fixture).nexuses.map(\.attentions) == [
                [], [.deviceReset, .commandsCleared], [.capacityChanged],
            ]
        )
    }

    /// R9: of aborts the newest counts, in whatever order commits come; an earlier epoch's is older than any of the next.
    @Test func abortsAreKept() async throws {
        let fixture = try await Fixture()
        try await open([1, 2, 3], fixture)
        func abort(_ epoch: Epoch, _ times: [(UInt64, UInt64)]) async throws {
            var part = VolumeCommit(volume: fixture.volume, epoch: epoch)
            part.aborts = times.map { NexusAbort(nexus: NexusNumber($0), time: MonotonicTime($1)) }
            try await fixture.commit { $0 = part }
        }
        func stamp(_ epoch: Epoch, _ time: UInt64) -> Stamp { Stamp(epoch: epoch, time: MonotonicTime(time)) }
        let old = fixture.epoch
        // A nexus that has been closed leaves nothing behind.
        try await abort(old, [(1, 500), (2, 700), (77, 900)])
        try await abort(old, [(1, 400), (2, 800)])
        let first = try await takeOver(fixture)
        #expect(first.nexuses.map(\.aborted) == [stamp(old, 500), stamp(old, 800), nil])
        try await abort(first.epoch, [(1, 3)])
        #expect(
            try await takeOver(fixture).nexuses.map(\.aborted) == [stamp(first.epoch, 3), stamp(old, 800), nil]
        )
    }

    /// A later release may know conditions that this one does not.
    @Test func unknownConditionsAreLeftOut() async throws {
        let fixture = try await Fixture()
        try await open([1], fixture)
        try fixture.connect().script("UPDATE nexuses SET attentions = '{3, 99, -1, 300, 5}'")
        #expect(try await takeOver(fixture).nexuses.map(\.attentions) == [[.deviceReset, .modeParametersChanged]])
    }

    /// I3: neither state nor registrations nor conditions change by a commit of an epoch that has ended.
    @Test func i3ACommitOfAnOldEpochChangesNoState() async throws {
        let fixture = try await Fixture()
        try await open([1], fixture)
        let state = Self.fullState()
        try await fixture.commit {
            $0.unit = state
            $0.attentions = [NexusAttentions(nexus: NexusNumber(1), attentions: [.modeParametersChanged])]
        }
        _ = try await takeOver(fixture)
        for unit in [LogicalUnitState(), changed(state)] {
            var late = fixture.part()
            late.unit = unit
            late.attentions = [NexusAttentions(nexus: NexusNumber(1), attentions: [.deviceReset])]
            let commits = [late]
            let results = try await ask { fixture.store.commit(commits, completion: $0) }
            guard case .fenced = results[0] else {
                Issue.record("a state of the old epoch was not fenced")
                return
            }
        }
        let ownership = try await takeOver(fixture)
        #expect(ownership.unit == state)
        #expect(ownership.nexuses.map(\.attentions) == [[.modeParametersChanged]])
    }

    private func changed(_ state: LogicalUnitState) -> LogicalUnitState {
        var unit = state
        unit.reservations.registrations = [Self.registration(3, key: 5), Self.registration(9, key: 6)]
        unit.mode = ModeParameters()
        return unit
    }

    @Test func volumesOfOneCommitKeepTheirOwnStates() async throws {
        let fixture = try await Fixture()
        let connection = try fixture.connect()
        var parts: [VolumeCommit] = []
        for number in 0..<6 {
            let volume = try Fixture.makeVolume(connection, "u\(number)")
            let epoch = try await Fixture.own(fixture.store, volume, fixture.server).epoch
            var part = VolumeCommit(volume: volume, epoch: number == 4 ? Epoch(epoch.rawValue + 1) : epoch)
            if number != 2 {
                var unit = Self.fullState()
                unit.reservations.registrations = (0..<(number * 5 + 2)).map {
                    Self.registration($0, key: UInt64(number + 1))
                }
                unit.identifyingInformation = [UInt8(number)]
                part.unit = unit
            }
            part.writes = [write(UInt64(number), 1)]
            parts.append(part)
        }
        let commits = parts
        let results = try await ask { fixture.store.commit(commits, completion: $0) }
        for (index, part) in parts.enumerated() {
            let ownership = try await Fixture.own(fixture.store, part.volume, fixture.server)
            if case .committed = results[index] {
                #expect(index != 4)
                #expect(ownership.unit == part.unit ?? LogicalUnitState(), "volume \(index)")
            } else {
                #expect(index == 4, "only the part of another epoch is fenced")
                #expect(ownership.unit == LogicalUnitState())
            }
        }
    }

    @Test func aStateGoesWithItsVolume() async throws {
        let fixture = try await Fixture()
        try await fixture.commit { $0.unit = Self.fullState() }
        try fixture.connect().script("UPDATE volumes SET state = 'deleting' WHERE id = \(fixture.volume)")
        var isGone = false
        for _ in 0..<10 where !isGone {
            isGone = try await ask {
                fixture.store.deleteVolumeStep(volume: fixture.volume, rowsMaximum: 100, completion: $0)
            }
        }
        #expect(isGone)
        #expect(
            try fixture.number("SELECT (SELECT count(*) FROM logical_units) + (SELECT count(*) FROM registrations)")
                == 0
        )
    }
}

/// What targets tell of themselves and of one another.
@Suite(.serialized, .enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"))
struct TargetReportTests {
    private func node(_ name: String, sessions: UInt32 = 0, port: UInt16 = 1, isDraining: Bool = false)
        -> TargetNodeState
    {
        TargetNodeState(
            name: name,
            portal: "[2001:db8::1]:3260",
            port: TargetPort(portalGroupTag: 0xFFFF, relativePortIdentifier: port),
            release: "1.0",
            sessions: sessions,
            isDraining: isDraining
        )
    }

    @Test func frontDoorsAreKnownAsSuch() async throws {
        let fixture = try await Fixture()
        var door = node("a")
        door.receivesLogins = false
        #expect(try await report(door, fixture) == [door])
        #expect(try await report(node("b"), fixture) == [door, node("b")])
        #expect(try await report(node("a"), fixture) == [node("a"), node("b")], "it has been configured anew")
    }

    private func report(_ node: TargetNodeState, _ fixture: Fixture) async throws -> [TargetNodeState] {
        try await ask { fixture.store.report(node, completion: $0) }
    }

    @Test func nodesAreToldByNameAndReplaceThemselves() async throws {
        let fixture = try await Fixture()
        #expect(try await report(node("b"), fixture) == [node("b")])
        #expect(try await report(node("a", port: 2), fixture) == [node("a", port: 2), node("b")])
        let newer = node("b", sessions: .max, port: 0xFFFF)
        #expect(try await report(newer, fixture) == [node("a", port: 2), newer])
        #expect(try fixture.number("SELECT count(*) FROM target_nodes") == 2)
    }

    @Test func whetherANodeDrainsIsWhatAnOperatorSet() async throws {
        let fixture = try await Fixture()
        #expect(try await report(node("a", isDraining: true), fixture) == [node("a")], "a node does not say it itself")
        try fixture.connect().script("UPDATE target_nodes SET draining = true")
        #expect(try await report(node("a"), fixture) == [node("a", isDraining: true)])
        #expect(try await report(node("b"), fixture) == [node("a", isDraining: true), node("b")])
        try fixture.connect().script("UPDATE target_nodes SET draining = false")
        #expect(try await report(node("b"), fixture) == [node("a"), node("b")])
    }

    @Test func nodesThatTellNothingAreLeftOut() async throws {
        let fixture = try await Fixture()
        for name in ["a", "b"] { _ = try await report(node(name), fixture) }
        let connection = try fixture.connect()
        try connection.script("UPDATE target_nodes SET last_seen = now() - interval '10 s' WHERE node = 'a'")
        #expect(try await report(node("c"), fixture).map(\.name) == ["a", "b", "c"])
        try connection.script("UPDATE target_nodes SET last_seen = now() - interval '16 s' WHERE node = 'a'")
        #expect(try await report(node("c"), fixture).map(\.name) == ["b", "c"])
        #expect(try await report(node("a"), fixture).map(\.name) == ["a", "b", "c"], "it is back")
    }

    /// The heartbeat of a target of an earlier release is a sign of life, too, and keeps what an operator set.
    @Test func heartbeatsOfEarlierReleasesCount() async throws {
        let fixture = try await Fixture()
        let beat = TargetHeartbeat(
            node: "a",
            portal: "10.0.0.1:3260",
            portalGroupTag: 7,
            release: "0.1.0",
            sessions: 2
        )
        try await ask { fixture.store.heartbeat(beat, completion: $0) }
        try fixture.connect().script("UPDATE target_nodes SET draining = true")
        try await ask { fixture.store.heartbeat(beat, completion: $0) }
        let old = try #require(try await report(node("b"), fixture).first)
        #expect(old.name == "a" && old.sessions == 2 && old.isDraining)
        #expect(old.port == TargetPort(portalGroupTag: 7, relativePortIdentifier: 0))
    }
}
