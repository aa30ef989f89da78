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

    /// Connects, checks and sets up; blocks for at most the connect time-out and two round trips.
    ///
    /// - Throws: ``PostgresError``; nothing stays open then.
    static func open(
        _ configuration: PostgresConfiguration,
        purpose: Purpose
    ) throws(PostgresError) -> OpaquePointer {
        let connection = try connect(configuration)
        do {
            try check(connection, configuration)
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

    private static func connect(_ configuration: PostgresConfiguration) throws(PostgresError) -> OpaquePointer {
        // What stands behind the connection string overrides it; what stands before gives defaults.
        var options: [(String, String)] = [
            ("connect_timeout", String(max(2, configuration.connectTimeoutSeconds))),
            ("keepalives_idle", "10"), ("keepalives_interval", "5"), ("keepalives_count", "3"),
            ("tcp_user_timeout", "15000"),
            ("fallback_application_name", configuration.applicationName),
            ("dbname", configuration.dsn),
            ("client_encoding", "UTF8"),
        ]
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
        _ configuration: PostgresConfiguration
    ) throws(PostgresError) {
        let version = Int(PQserverVersion(connection))
        guard version >= PostgresStoreLimits.serverVersionMinimum else {
            throw PostgresError(.unsuitableServer, "PostgreSQL 15 or newer is needed, the server has \(version)")
        }
        let sql = """
            SELECT pg_is_in_recovery()::text, current_setting('fsync'), current_setting('full_page_writes'), \
            current_setting('synchronous_commit')
            """
        guard let result = PQexec(connection, sql) else { throw lost(connection) }
        defer { PQclear(result) }
        guard PQresultStatus(result) == PGRES_TUPLES_OK, PQntuples(result) == 1 else {
            throw PostgresError(StatementFailure(result))
        }
        let values = (0..<4).map { String(cString: PQgetvalue(result, 0, $0)) }
        guard values[0] == "false" else {
            throw PostgresError(.unsuitableServer, "the server is a standby: connect to the primary")
        }
        if configuration.allowUnsafeDurability { return }
        for (name, value) in zip(["fsync", "full_page_writes", "synchronous_commit"], values.dropFirst())
        where value == "off" {
            throw PostgresError(.unsuitableServer, "\(name) is off on the server: acknowledged writes could be lost")
        }
    }

    static func settings(_ purpose: Purpose) -> String {
        let common = """
            SET client_min_messages = error; SET timezone = 'UTC'; SET datestyle = 'ISO';
            SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;
            SET default_transaction_deferrable = off; SET standard_conforming_strings = on;
            """
        switch purpose {
        case .administration:
            let timeout = PostgresStoreLimits.administrationIdleTimeoutMilliseconds
            return common + "SET idle_in_transaction_session_timeout = \(timeout);"
        case .store(let statementTimeoutMilliseconds):
            // Plans are made once, perhaps while the tables are empty: whatever would read a whole table is switched off.
            return common + """
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
