import Failpoints
public import Logging

/// What the ledger says of one migration.
public struct MigrationStatus: Sendable, Hashable {
    /// How files and ledger agree.
    public enum State: String, Sendable, Hashable {
        /// In the ledger, with the same files.
        case applied
        /// Not in the ledger.
        case missing
        /// In the ledger, but the files are others now.
        case changed
        /// In the ledger, but there are no such files.
        case unknown
    }

    /// Its number.
    public var version: Int
    /// Its name.
    public var name: String
    /// How files and ledger agree.
    public var state: State
    /// When it was applied, as PostgreSQL writes times.
    public var appliedAt: String?
}

/// Takes the schema forward and back, each migration in a transaction together with its row in `schema_migrations`.
///
/// An advisory lock lets one runner work at a time; another waits, then finds the work done.
public struct MigrationRunner: Sendable {
    private let migrations: Migrations
    private let release: String
    private let logger: Logger

    /// The key of the advisory lock; locks of volumes are positive.
    static let lockKey: Int64 = -7_223_371

    /// A runner for the migrations of a directory; `release` goes into the ledger.
    public init(_ migrations: Migrations, release: String, logger: Logger) {
        self.migrations = migrations
        self.release = release
        self.logger = logger
    }

    struct LedgerRow {
        var version: Int
        var name: String
        var checksum: String
        var appliedAt: String
        var oldestRelease: String?
    }

    // MARK: Forward and back

    /// Applies what is missing, up to version `to` (nil: all).
    ///
    /// - Returns: the versions that were applied.
    /// - Throws: ``PostgresError`` that names the migration; those before it stay applied.
    @discardableResult
    public func up(_ connection: PostgresConnection, to: Int? = nil) throws -> [Int] {
        try locked(connection) {
            try createLedger(connection)
            Failpoint.migrateLedgerCreated.reach()
            let applied = try checkedLedger(connection)
            var done: [Int] = []
            for migration in migrations.all.dropFirst(applied.count) where migration.version <= to ?? .max {
                try step(connection, migration, "up", migration.up) {
                    let parameters: [PostgresParameter] = [
                        .int(Int64(migration.version)), .text(migration.name), .text(migration.checksum),
                        .text(release),
                        migration.oldestRelease.map { .text($0.description) } ?? .null,
                    ]
                    try connection.query(
                        """
                        INSERT INTO schema_migrations (version, name, checksum, release, oldest_release)
                        VALUES ($1, $2, $3, $4, $5)
                        """,
                        parameters
                    )
                }
                Failpoint.migrateApplied.reach()
                done.append(migration.version)
            }
            return done
        }
    }

    /// Takes back what is above version `to`, newest first.
    ///
    /// - Returns: the versions that were taken back.
    /// - Throws: ``PostgresError`` that names the migration; those after it stay taken back.
    @discardableResult
    public func down(_ connection: PostgresConnection, to: Int) throws -> [Int] {
        try locked(connection) {
            guard try Self.hasLedger(connection) else { return [] }
            let applied = try checkedLedger(connection)
            var done: [Int] = []
            for migration in migrations.all.prefix(applied.count).reversed() where migration.version > to {
                try step(connection, migration, "down", migration.down) {
                    try connection.query(
                        "DELETE FROM schema_migrations WHERE version = $1",
                        [.int(Int64(migration.version))]
                    )
                }
                Failpoint.migrateTakenBack.reach()
                done.append(migration.version)
            }
            return done
        }
    }

    private func step(
        _ connection: PostgresConnection,
        _ migration: Migration,
        _ direction: String,
        _ sql: String,
        record: () throws -> Void
    ) throws {
        do {
            try connection.transaction { connection in
                try connection.script(sql)
                try record()
            }
        } catch let error as PostgresError {
            throw PostgresError(
                error.code == .connection ? .connection : .migration,
                "migration \(migration.title) \(direction): \(error.message)",
                sqlState: error.sqlState
            )
        }
        logger.notice("schema migrated", metadata: ["migration": "\(migration.title)", "direction": "\(direction)"])
    }

    private func locked<Value>(_ connection: PostgresConnection, _ body: () throws -> Value) throws -> Value {
        try connection.query("SELECT pg_advisory_lock($1)", [.int(Self.lockKey)])
        let value: Value
        do {
            value = try body()
        } catch {
            // Ending the session gives the lock back where it cannot be done otherwise.
            do { try unlock(connection) } catch { connection.close() }
            throw error
        }
        try unlock(connection)
        return value
    }

    private func unlock(_ connection: PostgresConnection) throws(PostgresError) {
        try connection.query("SELECT pg_advisory_unlock($1)", [.int(Self.lockKey)])
    }

    // MARK: Looking

    /// How files and ledger agree, by version.
    ///
    /// - Throws: ``PostgresError``.
    public func status(_ connection: PostgresConnection) throws(PostgresError) -> [MigrationStatus] {
        let ledger = try Self.ledger(connection)
        var result: [MigrationStatus] = []
        for migration in migrations.all {
            let row = ledger.first { $0.version == migration.version }
            let state: MigrationStatus.State
            switch row {
            case nil: state = .missing
            case .some(let row): state = Self.isSame(row, migration) ? .applied : .changed
            }
            result.append(
                MigrationStatus(
                    version: migration.version,
                    name: migration.name,
                    state: state,
                    appliedAt: row?.appliedAt
                )
            )
        }
        for row in ledger where !migrations.all.contains(where: { $0.version == row.version }) {
            result.append(
                MigrationStatus(version: row.version, name: row.name, state: .unknown, appliedAt: row.appliedAt)
            )
        }
        return result.sorted { $0.version < $1.version }
    }

    /// Tests that every applied migration has its files, unchanged, and that none was left out.
    ///
    /// - Throws: ``PostgresError`` that names the first one that has not.
    public func check(_ connection: PostgresConnection) throws(PostgresError) {
        _ = try checkedLedger(connection)
    }

    /// For a server that starts: tests that the schema has what this release needs, and admits it.
    ///
    /// A schema that is newer is accepted where its migrations admit this release.
    /// - Throws: ``PostgresError`` that names the missing migration, or the one that asks for a newer release.
    public static func verify(
        _ connection: PostgresConnection,
        _ migrations: Migrations,
        release: String
    ) throws(PostgresError) {
        guard let own = Release(release) else { throw PostgresError(.migration, "\(release) is no release number") }
        let ledger = try Self.ledger(connection)
        for migration in migrations.all {
            guard let row = ledger.first(where: { $0.version == migration.version }) else {
                throw PostgresError(
                    .migration,
                    "migration \(migration.title) has not been applied: run the migrations first"
                )
            }
            guard isSame(row, migration) else { throw changed(row) }
        }
        for row in ledger {
            guard let text = row.oldestRelease, let oldest = Release(text) else { continue }
            guard own >= oldest else {
                throw PostgresError(
                    .migration,
                    "the schema is too new: migration \(Migration.title(row.version, row.name)) needs release \(oldest), "
                        + "this is \(own)"
                )
            }
        }
    }

    // MARK: The ledger

    private func createLedger(_ connection: PostgresConnection) throws(PostgresError) {
        try connection.script(
            """
            CREATE TABLE IF NOT EXISTS schema_migrations (
                version bigint PRIMARY KEY,
                name text NOT NULL,
                checksum text NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT now(),
                release text NOT NULL,
                oldest_release text
            );
            COMMENT ON TABLE schema_migrations IS 'Which migrations have been applied, with the checksum of their files.';
            """
        )
    }

    private static func hasLedger(_ connection: PostgresConnection) throws(PostgresError) -> Bool {
        let rows = try connection.query("SELECT to_regclass('schema_migrations') IS NOT NULL AS found")
        return try rows.first?.bool("found") ?? false
    }

    static func ledger(_ connection: PostgresConnection) throws(PostgresError) -> [LedgerRow] {
        guard try hasLedger(connection) else { return [] }
        let rows = try connection.query(
            "SELECT version, name, checksum, applied_at, oldest_release FROM schema_migrations ORDER BY version"
        )
        var ledger: [LedgerRow] = []
        for row in rows {
            ledger.append(
                LedgerRow(
                    version: Int(try row.int64("version") ?? 0),
                    name: try row.string("name") ?? "",
                    checksum: try row.string("checksum") ?? "",
                    appliedAt: try row.string("applied_at") ?? "",
                    oldestRelease: try row.string("oldest_release")
                )
            )
        }
        return ledger
    }

    /// The ledger, which must be a beginning of the files.
    private func checkedLedger(_ connection: PostgresConnection) throws(PostgresError) -> [LedgerRow] {
        let ledger = try Self.ledger(connection)
        for (index, row) in ledger.enumerated() {
            let title = Migration.title(row.version, row.name)
            guard let migration = migrations.all.first(where: { $0.version == row.version }) else {
                throw PostgresError(.migration, "migration \(title) has been applied, but there is no such file")
            }
            guard Self.isSame(row, migration) else { throw Self.changed(row) }
            guard row.version == index + 1 else {
                throw PostgresError(.migration, "migration \(index + 1) was left out before \(title)")
            }
        }
        return ledger
    }

    private static func isSame(_ row: LedgerRow, _ migration: Migration) -> Bool {
        row.name == migration.name && row.checksum == migration.checksum
    }

    private static func changed(_ row: LedgerRow) -> PostgresError {
        PostgresError(
            .migration,
            "migration \(Migration.title(row.version, row.name)) was changed after it had been applied"
        )
    }
}
