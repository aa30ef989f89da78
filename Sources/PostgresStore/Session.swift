import CLibPQ

/// Opens libpq connections, refuses servers that blocks must not be entrusted to, and sets what a session needs.
enum Session {
    /// What a session is for.
    enum Purpose: Sendable {
        /// Statements as people write them.
        case administration
        /// Prepared statements of the store, with the longest time one may take in milliseconds.
        case store(statementTimeoutMilliseconds: Int)
    }

    /// Connects to the first host of the connection string that answers and can be used; blocks for at most the connect time-out of each
    /// and three round trips.
    ///
    /// - Throws: ``PostgresError``; nothing stays open then.
    static func open(
        _ configuration: PostgresConfiguration,
        purpose: Purpose,
        watch: ServerWatch? = nil
    ) throws(PostgresError) -> OpaquePointer {
        var failures: [PostgresError] = []
        let hosts = ConnectionHost.of(configuration.dsn)
        for host in hosts {
            do {
                return try open(host, configuration, purpose, watch)
            } catch {
                failures.append(error)
            }
        }
        watch?.found(refusal: failures.first { $0.code == .unsuitableServer }?.message)
        if let failure = failures.first, failures.count == 1 { throw failure }
        // One that may come back, or be promoted, is waited for.
        let isHopeless = failures.allSatisfy { $0.code == .unsuitableServer || $0.code == .configuration }
        let messages = zip(hosts, failures).map { "\($0.name): \($1.description)" }
        throw PostgresError(isHopeless ? .unsuitableServer : .connection, messages.joined(separator: "; "))
    }

    private static func open(
        _ host: ConnectionHost,
        _ configuration: PostgresConfiguration,
        _ purpose: Purpose,
        _ watch: ServerWatch?
    ) throws(PostgresError) -> OpaquePointer {
        let connection = try connect(host, configuration)
        do throws(PostgresError) {
            try check(connection, configuration, watch)
            try execute(connection, settings(purpose))
            return connection
        } catch {
            PQfinish(connection)
            throw error
        }
    }

    /// Runs statements without parameters and drops their results.
    static func execute(_ connection: OpaquePointer, _ sql: String) throws(PostgresError) {
        guard let result = PQexec(connection, sql) else { throw lost(connection) }
        defer { PQclear(result) }
        let status = PQresultStatus(result)
        guard status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_EMPTY_QUERY else {
            throw PostgresError(StatementFailure(result))
        }
    }

    /// The failure of a connection that is gone.
    static func lost(_ connection: OpaquePointer) -> PostgresError {
        let message = String(cString: PQerrorMessage(connection)).split(separator: "\n").first.map(String.init)
        return PostgresError(.connection, message ?? "connection lost")
    }

    private static func connect(
        _ host: ConnectionHost,
        _ configuration: PostgresConfiguration
    ) throws(PostgresError) -> OpaquePointer {
        // What stands behind the connection string overrides it; what stands before gives defaults.
        var options: [(String, String)] = [
            ("connect_timeout", String(max(2, configuration.connectTimeoutSeconds))),
            ("keepalives_idle", "10"), ("keepalives_interval", "5"), ("keepalives_count", "3"),
            ("tcp_user_timeout", "15000"),
            ("fallback_application_name", configuration.applicationName),
            ("dbname", configuration.dsn),
            ("client_encoding", "UTF8"),
        ]
        options += host.options
        if let password = try configuration.password() { options.append(("password", password)) }
        let keywords = CStrings(options.map(\.0))
        let values = CStrings(options.map(\.1))
        let opened = withExtendedLifetime((keywords, values)) {
            PQconnectdbParams(keywords.pointers, values.pointers, 1)
        }
        guard let connection = opened else {
            throw PostgresError(.connection, "out of memory")
        }
        guard PQstatus(connection) == CONNECTION_OK else {
            let failure = lost(connection)
            PQfinish(connection)
            throw failure
        }
        PQsetNoticeProcessor(connection, { _, _ in }, nil)
        return connection
    }

    private static func check(
        _ connection: OpaquePointer,
        _ configuration: PostgresConfiguration,
        _ watch: ServerWatch?
    ) throws(PostgresError) {
        let version = Int(PQserverVersion(connection))
        guard version >= PostgresStoreLimits.serverVersionMinimum else {
            throw PostgresError(.unsuitableServer, "PostgreSQL 15 or newer is needed, the server has \(version)")
        }
        let server = try state(connection)
        if let obstacle = server.obstacle(allowUnsafeDurability: configuration.allowUnsafeDurability) {
            throw PostgresError(.unsuitableServer, obstacle)
        }
        guard let watch else { return }
        let branches = watch.needsBranches(of: server) ? try branches(connection, server.timeline) : nil
        let refusal = watch.refusal(
            of: server,
            branches: branches,
            allowsLoss: configuration.allowUnsafeDurability
        )
        if let refusal { throw PostgresError(.unsuitableServer, refusal) }
    }

    private static func state(_ connection: OpaquePointer) throws(PostgresError) -> ServerState {
        // The timeline of what is written now stands in the names of the log's files; that of the control file may be older.
        let sql = """
            SELECT pg_is_in_recovery()::text, current_setting('transaction_read_only'), current_setting('fsync'),
                current_setting('full_page_writes'), current_setting('synchronous_commit'),
                (SELECT system_identifier FROM pg_control_system()),
                CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END,
                CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() END
            """
        guard let result = PQexec(connection, sql) else { throw lost(connection) }
        defer { PQclear(result) }
        guard PQresultStatus(result) == PGRES_TUPLES_OK, PQntuples(result) == 1 else {
            throw PostgresError(StatementFailure(result))
        }
        let values = (0..<8).map { PQgetvalue(result, 0, $0).map { String(cString: $0) } ?? "" }
        return ServerState(
            isInRecovery: values[0] == "true",
            isReadOnly: values[1] == "on",
            durability: Dictionary(uniqueKeysWithValues: zip(ServerState.durabilitySettings, values[2...4])),
            systemIdentifier: Int64(values[5]) ?? 0,
            timeline: UInt32(values[6], radix: 16) ?? 0,
            flushed: WALPosition(text: values[7]) ?? WALPosition(0)
        )
    }

    /// The history of a timeline; nil where the user may not read it.
    private static func branches(
        _ connection: OpaquePointer,
        _ timeline: UInt32
    ) throws(PostgresError) -> [TimelineBranch]? {
        let digits = String(timeline, radix: 16, uppercase: true)
        let name = String(repeating: "0", count: 8 - digits.count) + digits
        let bytes = PostgresStoreLimits.timelineHistoryMaximumBytes
        let sql = "SELECT pg_read_file('pg_wal/\(name).history', 0, \(bytes), true)"
        guard let result = PQexec(connection, sql) else { throw lost(connection) }
        defer { PQclear(result) }
        guard PQresultStatus(result) == PGRES_TUPLES_OK, PQntuples(result) == 1 else {
            let failure = StatementFailure(result)
            if failure.sqlState == SQLState.insufficientPrivilege { return nil }
            throw PostgresError(failure)
        }
        guard PQgetisnull(result, 0, 0) == 0, let text = PQgetvalue(result, 0, 0) else { return nil }
        return TimelineBranch.parse(String(cString: text))
    }

    static func settings(_ purpose: Purpose) -> String {
        let common = """
            SET timezone = 'UTC'; SET datestyle = 'ISO';
            SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;
            SET default_transaction_deferrable = off; SET standard_conforming_strings = on;
            """
        switch purpose {
        case .administration:
            let timeout = PostgresStoreLimits.administrationIdleTimeoutMilliseconds
            return common + "SET client_min_messages = error; SET idle_in_transaction_session_timeout = \(timeout);"
        case .store(let statementTimeoutMilliseconds):
            // A warning may say that a commit is not on its standbys, and the setting must not change under a session that relies on it.
            // Plans are made once, perhaps while the tables are empty: whatever would read a whole table is switched off.
            return common + """
                SET client_min_messages = warning;
                SELECT set_config('synchronous_commit', current_setting('synchronous_commit'), false);
                SET plan_cache_mode = force_generic_plan; SET jit = off; SET max_parallel_workers_per_gather = 0;
                SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;
                SET enable_mergejoin = off; SET enable_material = off; SET enable_memoize = off;
                SET idle_in_transaction_session_timeout = \(PostgresStoreLimits.idleInTransactionTimeoutMilliseconds);
                SET work_mem = '\(PostgresStoreLimits.workMemory)';
                SET statement_timeout = \(statementTimeoutMilliseconds);
                """
        }
    }
}

extension PostgresError {
    init(_ failure: StatementFailure) {
        self.init(
            failure.sqlState == nil ? .connection : .statement,
            failure.message,
            sqlState: failure.sqlState,
            constraint: failure.constraint
        )
    }
}

/// A null-terminated array of C strings that lives as long as the object.
final class CStrings {
    let pointers: UnsafeMutablePointer<UnsafePointer<CChar>?>
    private let count: Int

    init(_ strings: [String]) {
        count = strings.count
        pointers = .allocate(capacity: strings.count + 1)
        for (index, string) in strings.enumerated() {
            let bytes = Array(string.utf8CString)
            let copy = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count)
            copy.initialize(from: bytes, count: bytes.count)
            (pointers + index).initialize(to: UnsafePointer(copy))
        }
        (pointers + strings.count).initialize(to: nil)
    }

    deinit {
        for index in 0..<count { pointers[index]?.deallocate() }
        pointers.deallocate()
    }
}
