import AshlarCore
import Foundation
import NIOConcurrencyHelpers
import Ownership
import PostgresStore
import Testing

@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"))
struct MigrationTests {
    /// All that makes up the schema, as PostgreSQL tells it.
    static let fingerprint = """
        SELECT string_agg(line, E'\\n' ORDER BY line) AS schema FROM (
            SELECT 'column ' || a.attrelid::regclass || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' '
                || a.attnotnull || a.attidentity::text || a.attstorage::text || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
                || coalesce(col_description(a.attrelid, a.attnum), '') AS line
            FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            WHERE n.nspname IN ('public', 'ashlar_inspect') AND a.attnum > 0 AND NOT a.attisdropped
            UNION ALL SELECT 'relation ' || c.oid::regclass || c.relkind::text || coalesce(c.reloptions::text, '')
                || coalesce(c.relacl::text, '') || coalesce(obj_description(c.oid), '')
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('public', 'ashlar_inspect')
            UNION ALL SELECT 'index ' || pg_get_indexdef(i.indexrelid) FROM pg_index i
            JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'public'::regnamespace
            UNION ALL SELECT 'constraint ' || conrelid::regclass || conname || pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
            UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
            UNION ALL SELECT 'view ' || c.oid::regclass || pg_get_viewdef(c.oid) FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'v' AND n.nspname = 'ashlar_inspect'
            UNION ALL SELECT 'function ' || pg_get_functiondef(p.oid) FROM pg_proc p
            JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('public', 'ashlar_inspect')
        ) lines
        """

    private func runner(_ directory: String = migrationsDirectory, release: String = "1.0") throws -> MigrationRunner {
        MigrationRunner(try Migrations(directory: directory), release: release, logger: quiet)
    }

    private func schema(_ connection: PostgresConnection) throws -> String? {
        try connection.query(Self.fingerprint).first?.string("schema")
    }

    /// A directory of its own with small migrations.
    private func directory(_ files: [String: String]) throws -> String {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        for (name, text) in files {
            try Data(text.utf8).write(to: directory.appendingPathComponent(name))
        }
        return directory.path
    }

    private let two = [
        "0001_a.up.sql": "CREATE TABLE a (x int);", "0001_a.down.sql": "DROP TABLE a;",
        "0002_b.up.sql": "-- ashlar: oldest-release 1.4\nCREATE TABLE b (x int);", "0002_b.down.sql": "DROP TABLE b;",
    ]

    @Test func forwardBackAndForwardGivesTheSameSchema() async throws {
        let fixture = try await Fixture()
        try await fixture.commit { $0.writes = [write(1, 1)] }
        let objects = try await fixture.reserve()
        try await fixture.commit { $0.maps = [map(objects[0], [(1, 1)], .itemHasVersion)] }
        fixture.store.shutdown()
        let connection = try fixture.connect()
        try connection.script("INSERT INTO chap_credentials (volume_id, name, secret) VALUES (1, 'a', 'b')")
        let first = try schema(connection)
        let runner = try runner()
        let count = try Migrations(directory: migrationsDirectory).all.count
        for version in (0..<count).reversed() {
            #expect(try runner.down(connection, to: version) == [version + 1])
        }
        #expect(try schema(connection)?.contains("block_") == false)
        #expect(try runner.up(connection) == Array(1...count))
        #expect(try schema(connection) == first)
        #expect(try runner.up(connection) == [])
    }

    @Test func everyStepBackKeepsTheDataOfEarlierOnes() async throws {
        let fixture = try await Fixture()
        try await fixture.commit { $0.writes = [write(1, 1)] }
        let connection = try fixture.connect()
        try runner().down(connection, to: 2)
        try runner().up(connection)
        #expect(try fixture.number("SELECT count(*) FROM ashlar_inspect.blocks") == 1)
    }

    @Test func M8_howFarAnOlderSchemaHasComeIsTakenOver_andWhatWaitsToBecomeZerosIsOfBefore() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(3)
        try await fixture.commit { $0.versionCeiling = Version(500) }
        let connection = try fixture.connect()
        try runner().down(connection, to: 9)
        try connection.script(
            "UPDATE volumes SET size_bytes = 40960 WHERE id = \(fixture.volume); SELECT nextval('database_clock')"
        )
        let epoch = try fixture.number("SELECT epoch FROM volume_epochs")
        let clock = try fixture.number("SELECT last_value FROM database_clock")
        try runner().up(connection)
        #expect(try fixture.number("SELECT epoch FROM volume_epochs") == epoch + 1)
        #expect(
            try fixture.number(
                "SELECT count(*) FROM volume_epochs WHERE zero_from = 40960 AND shrunk_to = 40960 AND shrunk_version = 500"
            ) == 1
        )
        #expect(try fixture.number("SELECT clock FROM database_age") > clock)
        #expect(try fixture.number("SELECT highest_object FROM database_age") == Int64(objects[2].rawValue))
        let ownership = try await Fixture.own(fixture.store, fixture.volume, fixture.server)
        #expect(ownership.firstVersion >= Version(500))
    }

    @Test func twoRunnersDoNotRace() throws {
        let configuration = try TestCluster.shared.get().emptyDatabase()
        let results = NIOLockedValueBox<[Result<[Int], any Error>]>([])
        let group = DispatchGroup()
        for _ in 0..<4 {
            group.enter()
            Thread.detachNewThread {
                let result = Result {
                    try MigrationRunner(Migrations(directory: migrationsDirectory), release: "1", logger: quiet)
                        .up(PostgresConnection(configuration))
                }
                results.withLockedValue { $0.append(result) }
                group.leave()
            }
        }
        group.wait()
        let counts = try results.withLockedValue { try $0.map { try $0.get().count } }
        #expect(counts.sorted() == [0, 0, 0, try Migrations(directory: migrationsDirectory).all.count])
    }

    @Test func aChangedOrUnknownFileIsRefusedByName() throws {
        let connection = try PostgresConnection(TestCluster.shared.get().emptyDatabase())
        try runner(directory(two)).up(connection)
        var changed = two
        changed["0001_a.down.sql"] = "DROP TABLE IF EXISTS a;"
        let other = try runner(directory(changed))
        for attempt in [{ _ = try other.up(connection) }, { try other.check(connection) }] {
            let error = #expect(throws: PostgresError.self) { try attempt() }
            #expect(error?.message == "migration 0001_a was changed after it had been applied")
        }
        #expect(try other.status(connection).map(\.state) == [.changed, .applied])

        let fewer = try runner(directory(two.filter { $0.key.hasPrefix("0001") }))
        let error = #expect(throws: PostgresError.self) { try fewer.down(connection, to: 0) }
        #expect(error?.message == "migration 0002_b has been applied, but there is no such file")
        #expect(try fewer.status(connection).map(\.state) == [.applied, .unknown])
    }

    @Test func aFailingMigrationLeavesNothingAndIsNamed() throws {
        let connection = try PostgresConnection(TestCluster.shared.get().emptyDatabase())
        var files = two
        files["0002_b.up.sql"] = "CREATE TABLE b (x int); SELECT * FROM nowhere;"
        let error = try #require(throws: PostgresError.self) { try runner(directory(files)).up(connection) }
        #expect(error.message.hasPrefix("migration 0002_b up:") && error.sqlState == "42P01")
        #expect(try runner(directory(files)).status(connection).map(\.state) == [.applied, .missing])
        #expect(try connection.query("SELECT to_regclass('b') AS b").first?.string("b") == nil)
        #expect(try runner(directory(two)).up(connection) == [2])
    }

    @Test func aServerStartsOnlyOnASchemaThatFits() throws {
        let connection = try PostgresConnection(TestCluster.shared.get().emptyDatabase())
        let migrations = try Migrations(directory: directory(two))
        let missing = #expect(throws: PostgresError.self) {
            try MigrationRunner.verify(connection, migrations, release: "1.4")
        }
        #expect(missing?.message.contains("0001_a has not been applied") == true)
        try runner(directory(two)).up(connection)
        try MigrationRunner.verify(connection, migrations, release: "1.4.0-beta")
        try MigrationRunner.verify(connection, migrations, release: "1.10")
        // An older release knows only the first migration.
        let older = try Migrations(directory: directory(two.filter { $0.key.hasPrefix("0001") }))
        let tooNew = #expect(throws: PostgresError.self) {
            try MigrationRunner.verify(connection, older, release: "1.3")
        }
        #expect(tooNew?.message.contains("too new: migration 0002_b needs release 1.4, this is 1.3") == true)
    }

    @Test func directoriesAreReadStrictly() throws {
        let faults: [[String: String]] = [
            ["0001_a.up.sql": ""], ["1_a.up.sql": "", "1_a.down.sql": ""], ["a.sql": ""],
            ["0002_a.up.sql": "", "0002_a.down.sql": ""],
            ["0001_a.up.sql": "", "0001_b.down.sql": ""],
            ["0001_a.up.sql": "-- ashlar: oldest-release x", "0001_a.down.sql": ""],
        ]
        for files in faults {
            let path = try directory(files)
            #expect(throws: PostgresError.self) { try Migrations(directory: path) }
        }
        #expect(throws: PostgresError.self) { try Migrations(directory: "/nonexistent") }
    }

    @Test func aNewPairGetsTheNextNumber() throws {
        let path = try directory(two)
        let pair = try Migrations.new(name: "add_c", directory: path)
        #expect(pair.up == path + "/0003_add_c.up.sql" && pair.down == path + "/0003_add_c.down.sql")
        #expect(try Migrations(directory: path).all.map(\.title) == ["0001_a", "0002_b", "0003_add_c"])
        #expect(throws: PostgresError.self) { try Migrations.new(name: "../x", directory: path) }
    }

    @Test func releasesCompareByNumber() throws {
        let texts = ["0.9", "1", "1.2", "1.10.1", "2.0"]
        let releases = try texts.map { try #require(Release($0)) }
        #expect(releases == releases.sorted() && Release("1.0") == Release("1"))
        for text in ["", "1..2", "a", "1.-2", "v1"] { #expect(Release(text) == nil, "\(text)") }
    }
}
