import AshlarCore
import Glibc
import NIOConcurrencyHelpers
import Ownership
import PostgresStore
import Testing

/// PostgreSQL that fails over to a standby, or stops waiting for one (D30).
@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"), .serialized)
struct FailoverTests {
    /// A primary with a store on it and a standby that follows it.
    private struct Pair {
        let primary: TestCluster
        let standby: TestCluster
        let fixture: Fixture
        /// A store that knows both hosts.
        let store: PostgresBlockStore
        let server: CacheServerID
        /// Where it remembers the server.
        let memory: ServerMemoryFile
        let configuration: PostgresConfiguration
        var epoch: Epoch

        init(isSynchronous: Bool) async throws {
            primary = try TestCluster(settings: ["fsync=on"])
            fixture = try await Fixture(cluster: primary)
            standby = try TestCluster(settings: ["fsync=on"], primary: primary)
            let admin = try PostgresConnection(primary.configuration("postgres"))
            if isSynchronous {
                try admin.script("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
                try admin.script("SELECT pg_reload_conf()")
            }
            let state = isSynchronous ? "sync" : "async"
            try await until("the standby follows") {
                let sql = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = $1"
                return try !admin.query(sql, [.text(state)]).isEmpty
            }
            var configuration = fixture.configuration
            configuration.dsn = configuration.dsn.replacing(
                "host=\(primary.directory)",
                with: "host=\(primary.directory),\(standby.directory) target_session_attrs=read-write"
            )
            configuration.allowUnsafeDurability = false
            configuration.connectTimeoutSeconds = 10
            memory = ServerMemoryFile(directory: primary.directory)
            configuration.memory = memory
            self.configuration = configuration
            let store = PostgresBlockStore(configuration, logger: quiet)
            self.store = store
            let server = try await ask {
                store.registerServer(name: "a", endpoint: "a:7401", leaseMilliseconds: 600_000, completion: $0)
            }
            self.server = server
            let old = fixture
            try await ask { old.store.releaseLeases(name: "a", except: server, completion: $0) }
            epoch = try await Fixture.own(store, fixture.volume, server).epoch
        }

        func commit(_ change: (inout VolumeCommit) -> Void) async -> Result<[VolumeCommitResult], StoreFailure> {
            var part = VolumeCommit(volume: fixture.volume, epoch: epoch)
            change(&part)
            let commits = [part]
            return await withCheckedContinuation { continuation in
                store.commit(commits) { continuation.resume(returning: $0) }
            }
        }

        /// Takes the volume over as often as it takes, as the owner does.
        mutating func takeOver() async throws {
            var epoch: Epoch?
            try await until("the volume is taken over") {
                do {
                    epoch = try await Fixture.own(store, fixture.volume, server).epoch
                    return true
                } catch is StoreFailure {
                    return false
                }
            }
            self.epoch = try #require(epoch)
        }

        /// A connection to the standby once it is a primary.
        func promoted() throws -> PostgresConnection {
            var configuration = fixture.configuration
            configuration.dsn = configuration.dsn.replacing(primary.directory, with: standby.directory)
            return try PostgresConnection(configuration)
        }
    }

    @Test("I1: a synchronous standby that is promoted has every acknowledged write, and the old primary is refused")
    func synchronous() async throws {
        var pair = try await Pair(isSynchronous: true)
        defer { pair.store.shutdown() }
        var acknowledged: [UInt64: UInt64] = [:]
        var next: UInt64 = 1
        func write(_ count: Int) async {
            for _ in 0..<count {
                let (block, version) = (next % 64, next)
                next += 1
                let result = await pair.commit { $0.writes = [PostgresStoreTests.write(block, version)] }
                if case .success(let parts) = result, case .committed? = parts.first { acknowledged[block] = version }
            }
        }
        await write(100)
        #expect(acknowledged.count == 64)
        // Others are on their way when the primary ends.
        let primary = pair.primary
        let crash = Task.detached {
            try await Task.sleep(for: .milliseconds(30))
            primary.crash()
        }
        await write(50)
        try await crash.value
        try pair.standby.promote()
        try await pair.takeOver()
        let range = BlockRange(first: BlockID(0), count: 64)
        func check() async throws {
            let store = pair.store
            let volume = pair.fixture.volume
            let region = try await ask { store.loadRegion(volume: volume, range: range, completion: $0) }
            let found = Dictionary(uniqueKeysWithValues: region.items.map { ($0.block.rawValue, $0.version.rawValue) })
            for (block, version) in acknowledged {
                // One that was not acknowledged may have been done all the same.
                #expect(found[block, default: 0] >= version, "block \(block)")
            }
        }
        try await check()
        await write(64)
        try await check()

        // The old primary is back, and first in the connection string.
        try pair.primary.start()
        let admin = try pair.promoted()
        try admin.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        try await pair.takeOver()
        await write(64)
        try await check()
        let sql = "SELECT count(*) AS n FROM block_items WHERE (item ->> 'Version')::bigint >= $1"
        #expect(try admin.query(sql, [.int(Int64(next) - 64)]).first?.int64("n") == 64)
        // Restarted, it knows the old primary as one.
        let again = PostgresBlockStore(pair.configuration, logger: quiet)
        defer { again.shutdown() }
        try await until("the promoted server is found") {
            (try? await ask { again.volumes(after: nil, limit: 9, completion: $0) }.count) == 1
        }
        #expect(try pair.memory.remembered()?.contains("on timeline 2") == true)
    }

    @Test("I1: a standby that is behind what was acknowledged is refused, however much it has written since")
    func asynchronous() async throws {
        let pair = try await Pair(isSynchronous: false)
        defer { pair.store.shutdown() }
        func isAcknowledged(_ result: Result<[VolumeCommitResult], StoreFailure>) -> Bool {
            if case .success(let parts) = result, case .committed? = parts.first { true } else { false }
        }
        #expect(isAcknowledged(await pair.commit { $0.writes = [write(1, 1)] }))
        pair.standby.crash()
        for version in 2..<10 as Range<UInt64> {
            #expect(isAcknowledged(await pair.commit { $0.writes = [write(1, version)] }))
        }
        pair.primary.crash()
        try pair.standby.start()
        try pair.standby.promote()

        func refusal(_ words: String) async throws {
            try await until("the server is refused") {
                guard case .failure = await pair.commit({ $0.writes = [write(2, 20)] }) else {
                    Issue.record("a server that lost writes is used")
                    return true
                }
                return pair.store.refusal?.contains(words) == true
            }
        }
        try await refusal("lost")
        // Its log grows beyond what was acknowledged: its history still tells.
        let admin = try pair.promoted()
        try admin.script("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
        try await refusal("left timeline 1")
        #expect(try admin.query("SELECT 1 FROM block_items WHERE block_id = 2").isEmpty)
        // Restarted, it refuses the server as before.
        func volumes(_ store: PostgresBlockStore) async -> Int? {
            try? await ask { store.volumes(after: nil, limit: 9, completion: $0) }.count
        }
        let again = PostgresBlockStore(pair.configuration, logger: quiet)
        defer { again.shutdown() }
        try await until("the server is refused after a restart") {
            #expect(await volumes(again) == nil)
            return again.refusal?.contains("left timeline 1") == true
        }
        // A process that remembers nothing takes it, and so does one that was told to forget.
        var configuration = pair.configuration
        configuration.memory = nil
        let other = PostgresBlockStore(configuration, logger: quiet)
        defer { other.shutdown() }
        try await until("who knows nothing takes it") { await volumes(other) == 1 }
        #expect(try pair.memory.remembered()?.contains("on timeline 1") == true)
        try pair.memory.forget()
        let accepting = PostgresBlockStore(pair.configuration, logger: quiet)
        defer { accepting.shutdown() }
        try await until("who was told to forget takes it") { await volumes(accepting) == 1 }
        try await until("it is remembered") { try pair.memory.remembered()?.contains("on timeline 2") == true }
    }

    /// One after the other: both change what their server waits for, and one would wait with what the other has set.
    @Test(
        "D30: a COMMIT that stopped waiting for its standby is of unknown outcome",
        .serialized,
        arguments: ["pg_cancel_backend", "pg_terminate_backend"]
    )
    func abandonedWait(function: String) async throws {
        let cluster = try Self.lonely.get()
        let fixture = try await Fixture(cluster: cluster)
        let admin = try PostgresConnection(cluster.configuration("postgres"))
        // Gives the connection its segment of the journal.
        try await fixture.commit { $0.writes = [write(2, 1)] }
        try await setStandbys("missing", admin)
        let part = fixture.part()
        let result = Task {
            // Sessions have the setting before the checkpointer has, and only then does a commit wait: until then it is done at once.
            for version: UInt64 in 2... {
                let outcome = await withCheckedContinuation { continuation in
                    var part = part
                    part.writes = [write(1, version)]
                    fixture.store.commit([part]) { continuation.resume(returning: $0) }
                }
                guard case .success = outcome, !Task.isCancelled else { return outcome }
            }
            preconditionFailure("there is always another version")
        }
        let observer = try fixture.connect()
        do {
            try await until("the commit waits") {
                let sql = """
                    SELECT \(function)(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event = 'SyncRep'
                    """
                return try !observer.query(sql).isEmpty
            }
        } catch {
            // The other case has the same server.
            result.cancel()
            try await setStandbys("", admin)
            throw error
        }
        let outcome = await result.value
        try await setStandbys("", admin)
        guard case .failure(.unknownOutcome) = outcome else {
            Issue.record("unexpected \(outcome)")
            return
        }
        // Taking the volume over settles it: its own commit is replicated, and all that lies before it.
        _ = try await Fixture.own(fixture.store, fixture.volume, fixture.server)
        #expect(try await fixture.counts().unmovedItems == 2)
    }

    private static let lonely = Result { try TestCluster(settings: ["fsync=off"]) }

    private func setStandbys(_ names: String, _ admin: PostgresConnection) async throws {
        try admin.script("ALTER SYSTEM SET synchronous_standby_names = '\(names)'")
        try admin.script("SELECT pg_reload_conf()")
        try await until("the setting is in force") {
            try admin.query("SHOW synchronous_standby_names").first?.string("synchronous_standby_names") == names
        }
    }
}

/// Waits until something holds, for two minutes: a machine may be busy.
func until(_ what: Comment, _ condition: () async throws -> Bool) async throws {
    for _ in 0..<6_000 {
        if try await condition() { return }
        try await Task.sleep(for: .milliseconds(20))
    }
    Issue.record("not within two minutes: \(what)")
    throw StoreFailure.refused("\(what)")
}

/// What the database does when a volume shrinks, and what the store makes of it.
@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"))
struct ShrunkVolumeTests {
    private func resize(_ fixture: Fixture, _ blocks: Int) throws {
        try fixture.connect().query(
            "UPDATE volumes SET size_bytes = $1 WHERE id = $2",
            [.int(Int64(blocks * Fixture.blockBytes)), .int(fixture.volume.rawValue)]
        )
    }

    @Test("I3: a shrink ends the epoch, and what is behind the smallest end is remembered until it is gone")
    func shrink() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve()
        try await fixture.commit { $0.writes = (0..<40).map { write($0, $0 + 1) } }
        try await fixture.commit {
            $0.maps = [map(objects[0], (10..<30).map { ($0, $0 + 1) }, .itemHasVersion)]
        }
        try resize(fixture, 2_000)
        try resize(fixture, 20)
        try resize(fixture, 30)
        try resize(fixture, 4_000)
        let late = fixture.part()
        guard case .fenced? = try await ask({ fixture.store.commit([late], completion: $0) }).first else {
            Issue.record("a commit of before the shrink was made behind it")
            return
        }
        let ownership = try await Fixture.own(fixture.store, fixture.volume, fixture.server)
        let end = UInt64(20 * Fixture.blockBytes)
        #expect(ownership.description.zeroFromBytes == end)
        #expect(ownership.description.geometry.sizeBytes == UInt64(4_000 * Fixture.blockBytes))
        #expect(try await fixture.counts() == VolumeCounts(unmovedItems: 10, items: 20, objectBlocks: 10))
        var part = VolumeCommit(volume: fixture.volume, epoch: ownership.epoch)
        part.zeros = [BlockRange(from: BlockID(20), to: BlockID(1 << 41))]
        part.isRidOfRemains = true
        let commits = [part]
        guard case .committed? = try await ask({ fixture.store.commit(commits, completion: $0) }).first else {
            Issue.record("fenced")
            return
        }
        let region = try await fixture.region()
        #expect(region.items.map(\.block.rawValue) == Array(0..<20))
        #expect(region.extents.map(\.blocks) == [BlockRange(first: BlockID(10), count: 10)])
        #expect(try fixture.number("SELECT live_slots FROM block_objects") == 10)
        let again = try await Fixture.own(fixture.store, fixture.volume, fixture.server)
        #expect(again.description.zeroFromBytes == nil)
        let listed = try await ask { fixture.store.volumes(after: nil, limit: 9, completion: $0) }
        #expect(listed.map(\.zeroFromBytes) == [nil])
    }

    @Test("a growth is no shrink")
    func growth() async throws {
        let fixture = try await Fixture()
        try resize(fixture, 1 << 22)
        try await fixture.commit { $0.writes = [write(1, 1)] }
        #expect(try fixture.number("SELECT count(*) FROM volume_epochs WHERE zero_from IS NOT NULL") == 0)
    }
}
