import AshlarCore
import Glibc
import Ownership
import PostgresStore
import Testing

/// What a failure means for a request: refused, broken, or an unknown outcome.
@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"))
struct FailureTests {
    /// Commits without waiting; the result is awaited later.
    private func commit(
        _ fixture: Fixture,
        _ part: VolumeCommit
    ) -> Task<Result<[VolumeCommitResult], StoreFailure>, Never> {
        Task {
            await withCheckedContinuation { continuation in
                fixture.store.commit([part]) { continuation.resume(returning: $0) }
            }
        }
    }

    /// The process number of the session that commits and waits as `condition` says.
    private func waiting(_ fixture: Fixture, _ condition: String) async throws -> Int64 {
        for _ in 0..<100 {
            let rows = try fixture.connect().query(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND \(condition)"
            )
            if let pid = try rows.first?.int64("pid") { return pid }
            try await Task.sleep(for: .milliseconds(20))
        }
        throw StoreFailure.broken("no session waits")
    }

    @Test func aBackendThatEndsBeforeTheCommitHasChangedNothing() async throws {
        let fixture = try await Fixture()
        let blocker = try fixture.connect()
        try blocker.script("BEGIN; SELECT pg_advisory_xact_lock(\(fixture.volume) * 2 + 1)")
        var part = fixture.part()
        part.zeros = [BlockRange(first: BlockID(9), count: 1)]
        part.writes = [write(1, 1)]
        let result = commit(fixture, part)
        let pid = try await waiting(fixture, "wait_event = 'advisory'")
        try fixture.connect().query("SELECT pg_terminate_backend($1)", [.int(pid)])
        guard case .failure(.refused) = await result.value else {
            Issue.record("unexpected \(await result.value)")
            return
        }
        try blocker.script("ROLLBACK")
        // The lane connects again.
        try await fixture.commit { $0.writes = [write(2, 2)] }
        #expect(try await fixture.region().items.map(\.block) == [BlockID(2)])
    }

    @Test func i3ABackendThatEndsInTheCommitLeavesTheOutcomeOpen() async throws {
        let fixture = try await Fixture()
        try fixture.connect().script(
            """
            CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(5); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER pause AFTER INSERT ON block_items DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION pause();
            """
        )
        var part = fixture.part()
        part.writes = [write(1, 1)]
        let result = commit(fixture, part)
        let pid = try await waiting(fixture, "wait_event = 'PgSleep'")
        try fixture.connect().query("SELECT pg_terminate_backend($1)", [.int(pid)])
        guard case .failure(.unknownOutcome) = await result.value else {
            Issue.record("unexpected \(await result.value)")
            return
        }
        // Taking the volume over tells what was committed.
        _ = try await Fixture.own(fixture.store, fixture.volume, fixture.server)
        #expect(try await fixture.counts().unmovedItems == 0)
    }

    @Test func aServerThatCrashesLeavesTheOutcomeOpenAndIsFoundAgain() async throws {
        let cluster = try TestCluster()
        let fixture = try await Fixture(cluster: cluster)
        try await fixture.commit { $0.writes = [write(7, 7)] }
        let blocker = try fixture.connect()
        try blocker.script("BEGIN; SELECT pg_advisory_xact_lock(\(fixture.volume) * 2 + 1)")
        var part = fixture.part()
        part.zeros = [BlockRange(first: BlockID(7), count: 1)]
        let result = commit(fixture, part)
        let pid = try await waiting(fixture, "wait_event = 'advisory'")
        kill(pid_t(pid), SIGKILL)
        switch await result.value {
        case .failure(.unknownOutcome): break
        default: Issue.record("unexpected \(await result.value)")
        }
        for attempt in 0..<100 {
            do {
                _ = try await Fixture.own(fixture.store, fixture.volume, fixture.server)
                #expect(try await fixture.counts().unmovedItems == 1)
                return
            } catch {
                #expect(attempt < 99, "the store does not find the server again: \(error)")
                try await Task.sleep(for: .milliseconds(50))
            }
        }
    }

    @Test func withoutAServerEverythingIsRefused() async throws {
        let store = PostgresBlockStore(
            PostgresConfiguration(dsn: "host=/nonexistent dbname=none user=nobody"),
            logger: quiet
        )
        defer { store.shutdown() }
        await #expect(throws: StoreFailure.self) {
            try await ask { store.volumes(after: nil, limit: 1, completion: $0) }
        }
        let result = await withCheckedContinuation { continuation in
            store.commit([VolumeCommit(volume: VolumeID(1), epoch: Epoch(1))]) { continuation.resume(returning: $0) }
        }
        guard case .failure(.refused) = result else {
            Issue.record("unexpected \(result)")
            return
        }
    }

    @Test func requestsAfterTheShutdownAreRefused() async throws {
        let fixture = try await Fixture()
        fixture.store.shutdown()
        fixture.store.shutdown()
        guard case .failure(.refused) = await commit(fixture, fixture.part()).value else {
            Issue.record("a store that was shut down took a request")
            return
        }
    }

    @Test func aShutdownCompletesWhatWaits() async throws {
        let fixture = try await Fixture()
        let blocker = try fixture.connect()
        try blocker.script("BEGIN; SELECT pg_advisory_xact_lock(\(fixture.volume) * 2 + 1)")
        var part = fixture.part()
        part.zeros = [BlockRange(first: BlockID(7), count: 1)]
        let results = (0..<8).map { _ in commit(fixture, part) }
        _ = try await waiting(fixture, "wait_event = 'advisory'")
        fixture.store.shutdown()
        var unknown = 0
        for result in results {
            switch await result.value {
            case .failure(.unknownOutcome): unknown += 1
            case .failure(.refused): break
            default: Issue.record("unexpected \(await result.value)")
            }
        }
        #expect(unknown == 2, "one for each connection that commits")
    }

    @Test func damageIsToldApartFromTrouble() async throws {
        let fixture = try await Fixture()
        try await fixture.commit { $0.writes = [write(1, 1)] }
        try fixture.connect().script(#"UPDATE block_items SET item = item || '{"Version": "x"}'"#)
        let result = await withCheckedContinuation { continuation in
            fixture.store.loadRegion(
                volume: fixture.volume,
                range: BlockRange(first: BlockID(0), count: 9)
            ) { continuation.resume(returning: $0) }
        }
        guard case .failure(.broken) = result else {
            Issue.record("unexpected \(result)")
            return
        }
        try await fixture.commit { $0.writes = [write(2, 2)] }
    }

    @Test func aFailedCommitLeavesTheConnectionUsable() async throws {
        let fixture = try await Fixture()
        var part = fixture.part()
        // The same block twice breaks the contract, and PostgreSQL refuses it.
        part.writes = [write(1, 1), write(1, 2)]
        for _ in 0..<4 {
            guard case .failure(.broken) = await commit(fixture, part).value else {
                Issue.record("a block was written twice")
                return
            }
        }
        for version in 3..<9 as Range<UInt64> { try await fixture.commit { $0.writes = [write(1, version)] } }
    }

    // MARK: Servers that are not to be trusted

    @Test func aServerThatMayLoseWritesIsRefused() throws {
        let safe = try TestCluster.shared.get().configuration("postgres")
        var strict = safe
        strict.allowUnsafeDurability = false
        let error = #expect(throws: PostgresError.self) { try PostgresConnection(strict) }
        #expect(error?.code == .unsuitableServer && error?.message.hasPrefix("fsync is off") == true)
    }

    @Test func aStandbyIsRefused() throws {
        let standby = try TestCluster(settings: ["hot_standby=on"], isStandby: true)
        let error = #expect(throws: PostgresError.self) { try PostgresConnection(standby.configuration("postgres")) }
        #expect(error?.code == .unsuitableServer && error?.message.contains("standby") == true)
    }

    @Test func asynchronousCommitIsRefused() throws {
        let cluster = try TestCluster(settings: ["fsync=on", "synchronous_commit=off"])
        var strict = cluster.configuration("postgres")
        strict.allowUnsafeDurability = false
        let error = #expect(throws: PostgresError.self) { try PostgresConnection(strict) }
        #expect(error?.message.hasPrefix("synchronous_commit is off") == true)
    }
}
