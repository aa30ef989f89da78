import Failpoints
import Foundation
import Glibc
import Supervision

/// The PostgreSQL cluster that `ashlar up` creates and runs: reachable through a Unix socket only, by the operating system's
/// word on who connects (peer authentication).
struct EmbeddedPostgres: Sendable {
    /// The port, which only names the socket.
    static let port = 5432
    /// The role and the database that the cluster's tables belong to.
    static let databaseName = "ashlar"

    /// PostgreSQL's programs.
    var binaries: Binaries
    /// Its data directory.
    var dataDirectory: String
    /// Where its socket is.
    var socketDirectory: String
    /// As whom it runs.
    var user: SystemUser

    /// A directory of PostgreSQL's server programs, and their major version.
    struct Binaries: Sendable {
        var directory: String
        var majorVersion: Int

        var postgres: String { directory + "/postgres" }
        var initdb: String { directory + "/initdb" }
    }

    /// How roles connect.
    var dsn: String {
        "host=\(socketDirectory) port=\(Self.port) dbname=\(Self.databaseName) user=\(Self.databaseName)"
    }

    private var pidFile: String { dataDirectory + "/postmaster.pid" }
    private var socketLockFile: String { "\(socketDirectory)/.s.PGSQL.\(Self.port).lock" }

    // MARK: Finding

    /// Finds PostgreSQL's programs: of the version that made `dataDirectory` where there is one, else the newest.
    static func findBinaries(for dataDirectory: String) async throws -> Binaries {
        var candidates: [String] = []
        if let pgConfig = Command.find("pg_config"),
            let said = try? await Command(path: pgConfig, arguments: ["--bindir"]).check(timeout: .seconds(10))
        {
            candidates.append(said.trimmingCharacters(in: .whitespacesAndNewlines))
        }
        let versions = (try? FileManager.default.contentsOfDirectory(atPath: "/usr/lib/postgresql")) ?? []
        candidates += versions.map { "/usr/lib/postgresql/\($0)/bin" }
        candidates += ["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"]
        let made = Files.text(dataDirectory + "/PG_VERSION").flatMap {
            Int($0.trimmingCharacters(in: .whitespacesAndNewlines))
        }
        var found: [Binaries] = []
        for directory in candidates where access(directory + "/initdb", X_OK) == 0 {
            guard let version = await majorVersion(directory + "/postgres") else { continue }
            found.append(Binaries(directory: directory, majorVersion: version))
        }
        if let made {
            if let match = found.first(where: { $0.majorVersion == made }) { return match }
            throw UpError(
                "\(dataDirectory) was made by PostgreSQL \(made), which is not installed here.",
                remedy: "Install it (apt-get install postgresql-\(made))."
            )
        }
        guard let newest = found.max(by: { $0.majorVersion < $1.majorVersion }) else {
            throw UpError("PostgreSQL's server is not installed.", remedy: "Install it (apt-get install postgresql).")
        }
        return newest
    }

    private static func majorVersion(_ postgres: String) async -> Int? {
        let command = Command(path: postgres, arguments: ["--version"])
        guard let said = try? await command.check(timeout: .seconds(10)) else { return nil }
        // "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"
        let words = said.split(separator: " ")
        guard words.count > 2 else { return nil }
        return Int(words[2].prefix { $0.isNumber })
    }

    // MARK: Creating

    /// Creates the cluster where there is none. It appears under its name when it is complete.
    func createIfMissing() async throws {
        guard !Files.exists(dataDirectory) else { return }
        let draft = dataDirectory + ".new"
        if Files.exists(draft) { try FileManager.default.removeItem(atPath: draft) }
        try Files.makeDirectory(draft, mode: 0o700, owner: user)
        do {
            try await initialize(draft)
            Failpoint.upPostgresFilled.reach()
            try Files.replace(draft + "/pg_hba.conf", with: Self.accessRules, mode: 0o600, owner: user)
            try Files.replace(draft + "/pg_ident.conf", with: userMap(), mode: 0o600, owner: user)
            let settings = (Files.text(draft + "/postgresql.conf") ?? "") + "\ninclude_if_exists = 'ashlar.conf'\n"
            try Files.replace(draft + "/postgresql.conf", with: settings, mode: 0o600, owner: user)
            Failpoint.upPostgresComplete.reach()
            try Files.rename(draft, dataDirectory)
            Failpoint.upPostgresNamed.reach()
        } catch {
            try? FileManager.default.removeItem(atPath: draft)
            throw error
        }
    }

    private func initialize(_ draft: String) async throws {
        try await Command(
            path: binaries.initdb,
            arguments: [
                "--pgdata", draft, "--username", "postgres", "--data-checksums", "--encoding", "UTF8", "--no-locale",
                "--auth", "peer",
            ],
            directory: draft,
            user: user
        ).check(timeout: UpLimits.createTimeout)
        Failpoint.upPostgresMade.reach()
        // A stand-alone backend needs no socket and no password; a line is a statement.
        let statements = [
            "CREATE ROLE \(Self.databaseName) LOGIN CREATEROLE",
            "CREATE DATABASE \(Self.databaseName) OWNER \(Self.databaseName)",
        ]
        let script = #"printf '%s\n' "$3" | "$1" --single -c exit_on_error=on -D "$2" postgres"#
        try await Command(
            path: "/bin/sh",
            arguments: ["-c", script, "sh", binaries.postgres, draft, statements.joined(separator: "\n")],
            directory: draft,
            user: user
        ).check(timeout: UpLimits.createTimeout)
    }

    /// Only those whom the map names, by the operating system's word.
    private static let accessRules = """
        # type  database  user  method
        local   all       all   peer map=ashlar

        """

    private func userMap() -> String {
        var lines = ["# map  system-user  database-user"]
        for system in Set([SystemUser.ownName(), user.name]).sorted() {
            for database in [Self.databaseName, "postgres"] {
                lines.append("ashlar \"\(system)\" \(database)")
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    // MARK: Starting

    /// Settings for a cluster whose tables are written by group commits of whole blocks; renewed at each start. What the
    /// operator sets with ALTER SYSTEM wins over them.
    func writeSettings() throws {
        let path = socketDirectory + "/.s.PGSQL.\(Self.port)"
        guard path.utf8.count <= SupervisionLimits.socketPathMaximumBytes else {
            throw UpError("The path of PostgreSQL's socket is too long: \(path).", remedy: "Choose a shorter --data.")
        }
        let settings = """
            # Written by ashlar up at each start. To change a setting use ALTER SYSTEM.
            listen_addresses = ''
            port = \(Self.port)
            unix_socket_directories = '\(socketDirectory.replacingOccurrences(of: "'", with: "''"))'
            unix_socket_permissions = 0700
            max_connections = 100
            shared_buffers = 256MB
            max_wal_size = 4GB
            min_wal_size = 512MB
            checkpoint_timeout = 15min
            checkpoint_completion_target = 0.9
            fsync = on
            synchronous_commit = on
            full_page_writes = on
            wal_level = replica
            max_wal_senders = 3
            commit_delay = 0
            jit = off
            max_parallel_workers_per_gather = 0
            autovacuum = on
            autovacuum_naptime = 1s
            autovacuum_vacuum_cost_delay = 0
            logging_collector = off
            log_destination = stderr
            log_line_prefix = '%m [%p] '
            log_timezone = 'UTC'
            timezone = 'UTC'
            log_min_messages = warning
            log_min_error_statement = panic

            """
        try Files.replace(dataDirectory + "/ashlar.conf", with: settings, mode: 0o600, owner: user)
    }

    /// The program to be started.
    func program(output: Int32) -> Program {
        Program(
            path: binaries.postgres,
            arguments: ["-D", dataDirectory],
            environment: Spawner.environment(adding: ["LC_ALL": "C"]),
            directory: dataDirectory,
            output: output,
            user: user,
            parentDeathSignal: SIGQUIT
        )
    }

    /// Waits until nothing is left of an earlier postmaster, which it ends where it still runs, and removes its lock files.
    ///
    /// A postmaster that was killed leaves `postmaster.pid` behind, and its children live for a moment. The file is removed
    /// only when its process is gone, or is another one under the same number, and nobody is attached to its shared memory.
    func clearRemains() async throws {
        let clock = ContinuousClock()
        let started = clock.now
        var signal: Int32?
        while let text = Files.text(pidFile) {
            guard let file = PostmasterFile(text) else {
                try remove(pidFile)
                break
            }
            let table = Files.text("/proc/sysvipc/shm") ?? ""
            let attachments = file.sharedMemoryID.map {
                PostmasterFile.attachments(sharedMemoryID: $0, table: table)
            }
            switch file.verdict(isPostmasterAlive: isPostmaster(file.pid), attachments: attachments ?? 0) {
            case .stale:
                try remove(pidFile)
                try remove(socketLockFile)
                return
            case .running:
                let next = clock.now - started < UpLimits.lingerTimeout / 2 ? SIGINT : SIGQUIT
                if signal != next {
                    kill(file.pid, next)
                    signal = next
                }
            case .lingering:
                break
            }
            guard clock.now - started < UpLimits.lingerTimeout else {
                throw UpError(
                    "An earlier PostgreSQL of \(dataDirectory) does not end (process \(file.pid)).",
                    remedy: "End it, then start again."
                )
            }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    /// Whether a process is a postmaster of this data directory, which is then its working directory.
    private func isPostmaster(_ pid: Int32) -> Bool {
        guard kill(pid, 0) == 0 || errno == EPERM else { return false }
        guard let directory = Files.link("/proc/\(pid)/cwd") else { return false }
        return directory == dataDirectory
    }

    private func remove(_ path: String) throws {
        if unlink(path) != 0, errno != ENOENT { throw UpError.system("remove", path, errno: errno) }
    }

    /// Whether the postmaster of this number accepts connections.
    func isReady(pid: Int32) -> Bool {
        guard let text = Files.text(pidFile), let file = PostmasterFile(text) else { return false }
        return file.pid == pid && file.isReady
    }
}
