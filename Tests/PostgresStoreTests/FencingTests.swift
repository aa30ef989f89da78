import AshlarCore
import Ownership
import PostgresStore
import Testing

/// Leases, takeovers, and the guard of epochs.
@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"))
struct FencingTests {
    /// Another process with its own registration, to which the fixture's server has left its leases; see
    /// ``Fixture/secondStore(lockTimeoutMilliseconds:)``.
    private func successor(
        of fixture: Fixture,
        lockTimeoutMilliseconds: Int? = nil
    ) async throws -> (store: PostgresBlockStore, server: CacheServerID) {
        let store = fixture.secondStore(lockTimeoutMilliseconds: lockTimeoutMilliseconds)
        let server = try await ask {
            store.registerServer(name: "b", endpoint: "b:7401", leaseMilliseconds: 600_000, completion: $0)
        }
        try await ask { fixture.store.releaseLeases(name: "a", except: nil, completion: $0) }
        return (store, server)
    }

    @Test func i3FenceFirstThenWriteChangesNothing() async throws {
        let fixture = try await Fixture()
        let object = try await fixture.reserve()[0]
        try await fixture.commit {
            $0.writes = [write(1, 1)]
            $0.versionCeiling = Version(100)
        }
        let (store, server) = try await successor(of: fixture)
        defer { store.shutdown() }
        let ownership = try await Fixture.own(store, fixture.volume, server)
        #expect(ownership.epoch > fixture.epoch)
        #expect(ownership.firstVersion == Version(100))

        var late = fixture.part()
        late.zeros = [BlockRange(first: BlockID(0), count: 64)]
        late.writes = [write(2, 2)]
        late.maps = [map(object, [(3, 3)], .always)]
        late.evictions = [Eviction(block: BlockID(1), version: Version(1))]
        late.fills = [write(4, 4)]
        late.versionCeiling = Version(1_000)
        let commits = [late]
        let results = try await ask { fixture.store.commit(commits, completion: $0) }
        guard case .fenced = results[0] else {
            Issue.record("a write of the old epoch was not fenced")
            return
        }
        let region = try await fixture.region()
        #expect(region.items.map(\.block) == [BlockID(1)])
        #expect(region.extents.isEmpty)
        #expect(try fixture.number("SELECT first_version FROM volume_epochs") == 100)
        #expect(try fixture.number("SELECT count(*) FROM block_objects WHERE state = 'intended'") == 1)
    }

    @Test func i3WriteFirstThenFenceWaitsForIt() async throws {
        let fixture = try await Fixture()
        // However slow the machine is, the transaction is not ended because of it.
        let (store, server) = try await successor(of: fixture, lockTimeoutMilliseconds: 110_000)
        defer { store.shutdown() }
        // A transaction of the old epoch that has its lock and has checked its epoch, but is not finished.
        let old = try fixture.connect()
        try old.script("BEGIN; SELECT pg_advisory_xact_lock_shared(\(fixture.volume) * 2)")
        try old.query(
            """
            INSERT INTO block_items (volume_id, block_id, unmoved_since, item, segment, frame, frame_offset, data_bytes)
            SELECT volume_id, 5, now(), '{"Version": 7, "Checksum": 1}', 0, 0, 0, 0 FROM volume_epochs
            WHERE volume_id = $1 AND epoch = $2
            """,
            [.int(fixture.volume.rawValue), .int(Int64(fixture.epoch.rawValue))]
        )
        async let ownership = Fixture.own(store, fixture.volume, server)
        try await until("the takeover waits for the lock") {
            let waiting =
                "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
                + "WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted"
            return try fixture.number(waiting) == 1
        }
        #expect(try fixture.number("SELECT epoch FROM volume_epochs") == Int64(fixture.epoch.rawValue))
        try old.script("COMMIT")
        #expect(try await ownership.epoch > fixture.epoch)
        #expect(try await fixture.counts().unmovedItems == 1)
        #expect(try await fixture.region().items.map(\.block) == [BlockID(5)])
    }

    @Test func i3AStoppedOwnersTransactionIsEnded() async throws {
        let fixture = try await Fixture()
        let (store, server) = try await successor(of: fixture)
        defer { store.shutdown() }
        let old = try fixture.connect()
        try old.script("BEGIN; SELECT pg_advisory_xact_lock_shared(\(fixture.volume) * 2)")
        let ownership = try await Fixture.own(store, fixture.volume, server)
        #expect(ownership.epoch > fixture.epoch)
        #expect(throws: PostgresError.self) { try old.script("COMMIT") }
    }

    @Test func aLivingOwnerIsNotDisturbed() async throws {
        let fixture = try await Fixture()
        let store = fixture.secondStore()
        defer { store.shutdown() }
        let server = try await ask {
            store.registerServer(name: "b", endpoint: "b:7401", leaseMilliseconds: 600_000, completion: $0)
        }
        let result = try await ask { store.takeOver(volume: fixture.volume, server: server, completion: $0) }
        guard case .heldBy(let holder, let endpoint, let left) = result else {
            Issue.record("unexpected \(result)")
            return
        }
        #expect(holder == fixture.server && endpoint == "a:7401" && left > 0 && left <= 600_000)
        try await fixture.commit { $0.writes = [write(1, 1)] }
    }

    @Test func anEndedLeaseIsNeitherRenewedNorUsed() async throws {
        let fixture = try await Fixture()
        func renew(_ milliseconds: UInt32) async throws -> Bool {
            try await ask {
                fixture.store.renewLease(server: fixture.server, leaseMilliseconds: milliseconds, completion: $0)
            }
        }
        #expect(try await renew(1))
        try await Task.sleep(for: .milliseconds(20))
        #expect(try await !renew(60_000))
        let result = try await ask {
            fixture.store.takeOver(volume: fixture.volume, server: fixture.server, completion: $0)
        }
        guard case .leaseEnded = result else {
            Issue.record("unexpected \(result)")
            return
        }
    }

    @Test func aProcessTakesItsOwnVolumeOverAgain() async throws {
        let fixture = try await Fixture()
        let again = try await Fixture.own(fixture.store, fixture.volume, fixture.server)
        #expect(again.epoch.rawValue == fixture.epoch.rawValue + 1)
        let missing = try await ask {
            fixture.store.takeOver(volume: VolumeID(999), server: fixture.server, completion: $0)
        }
        guard case .noSuchVolume = missing else {
            Issue.record("unexpected \(missing)")
            return
        }
    }

    @Test func releasingSparesTheOneThatIsNamed() async throws {
        let fixture = try await Fixture()
        let newer = try await ask {
            fixture.store.registerServer(name: "a", endpoint: "a:7401", leaseMilliseconds: 60_000, completion: $0)
        }
        try await ask { fixture.store.releaseLeases(name: "a", except: newer, completion: $0) }
        #expect(try await ask { fixture.store.renewLease(server: newer, leaseMilliseconds: 1_000, completion: $0) })
        #expect(
            try await !ask {
                fixture.store.renewLease(server: fixture.server, leaseMilliseconds: 1_000, completion: $0)
            }
        )
    }

    // MARK: Nexuses

    private func nexus(_ number: UInt64, isid: UInt64 = 1, lowWater: UInt64 = 0, done: [UInt64] = []) -> NexusRow {
        NexusRow(
            number: NexusNumber(number),
            ports: InitiatorTargetNexus(initiatorName: "iqn.2026-01.host:a", isid: isid, portalGroupTag: 3),
            node: "t\(number)",
            mark: NexusMark(
                nexus: NexusNumber(number),
                lowWater: CommandID(lowWater),
                done: done.map { CommandID($0) }
            )
        )
    }

    @Test func r3OpeningANexusClosesOlderOnesOfTheSamePorts() async throws {
        let fixture = try await Fixture()
        let store = fixture.store
        for row in [nexus(1), nexus(2, isid: 9), nexus(5)] {
            #expect(
                try await ask {
                    store.openNexus(volume: fixture.volume, epoch: fixture.epoch, nexus: row, completion: $0)
                }
            )
        }
        let ownership = try await Fixture.own(store, fixture.volume, fixture.server)
        #expect(ownership.nexuses == [nexus(2, isid: 9), nexus(5)])
        #expect(ownership.firstNexus == NexusNumber(6))
        let old = nexus(8)
        #expect(
            try await !ask { store.openNexus(volume: fixture.volume, epoch: fixture.epoch, nexus: old, completion: $0) }
        )
        #expect(
            try await ask {
                store.closeNexus(volume: fixture.volume, epoch: ownership.epoch, nexus: NexusNumber(2), completion: $0)
            }
        )
        #expect(
            try await !ask {
                store.closeNexus(volume: fixture.volume, epoch: fixture.epoch, nexus: NexusNumber(5), completion: $0)
            }
        )
        #expect(try fixture.number("SELECT count(*) FROM nexuses") == 1)
    }

    @Test func r4MarksAreKeptAsUnionAboveTheLowWaterMark() async throws {
        let fixture = try await Fixture()
        let row = nexus(1, lowWater: 2, done: [2, 4])
        _ = try await ask {
            fixture.store.openNexus(volume: fixture.volume, epoch: fixture.epoch, nexus: row, completion: $0)
        }
        let marks: [(UInt64, [UInt64])] = [(3, [5, 6]), (3, [9]), (6, [7, 8]), (6, [])]
        for (low, done) in marks {
            try await fixture.commit { part in
                part.marks = [
                    NexusMark(nexus: NexusNumber(1), lowWater: CommandID(low), done: done.map { CommandID($0) }),
                    // A nexus that has been closed leaves nothing behind.
                    NexusMark(nexus: NexusNumber(77), lowWater: CommandID(1), done: [CommandID(1)]),
                ]
            }
        }
        let ownership = try await Fixture.own(fixture.store, fixture.volume, fixture.server)
        #expect(ownership.nexuses == [nexus(1, lowWater: 6, done: [6, 7, 8, 9])])
        #expect(try fixture.number("SELECT count(*) FROM nexus_marks WHERE nexus = 77") == 0)
    }

    @Test func updatesOfMarksAreHeapOnly() async throws {
        let fixture = try await Fixture()
        let row = nexus(1)
        _ = try await ask {
            fixture.store.openNexus(volume: fixture.volume, epoch: fixture.epoch, nexus: row, completion: $0)
        }
        for command in 1...200 as ClosedRange<UInt64> {
            try await fixture.commit { part in
                part.marks = [
                    NexusMark(nexus: NexusNumber(1), lowWater: CommandID(command), done: [CommandID(command)])
                ]
            }
        }
        fixture.store.shutdown()
        var updates: Int64 = 0
        for _ in 0..<50 where updates < 190 {
            try await Task.sleep(for: .milliseconds(100))
            updates = try fixture.number("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'nexus_marks'")
        }
        let hot = try fixture.number("SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'nexus_marks'")
        #expect(updates >= 190 && hot * 100 >= updates * 95, "\(hot) of \(updates) updates were heap-only")
    }
}
