import Foundation
import Logging
import NIOCore
import NIOPosix
import PostgresStore

/// What `ashlar up` itself does with the database: the schema, the cluster's name in it, and the leases of dead servers.
///
/// Each call uses a connection of its own, on a thread that may block.
struct ClusterDatabase: Sendable {
    var dsn: String
    var logger: Logger

    private func connected<Value: Sendable>(
        _ body: @escaping @Sendable (PostgresConnection) throws -> Value
    ) async throws -> Value {
        var configuration = PostgresConfiguration(dsn: dsn, applicationName: "ashlar up")
        configuration.connectTimeoutSeconds = UpLimits.connectTimeoutSeconds
        let settings = configuration
        return try await NIOThreadPool.singleton.runIfActive {
            let connection = try PostgresConnection(settings)
            defer { connection.close() }
            return try body(connection)
        }
    }

    /// Applies what is missing of the migrations and returns how many that were; refuses changed or unknown ones.
    func migrate(directory: String, release: String) async throws -> Int {
        let logger = logger
        do {
            return try await connected { connection in
                let migrations = try Migrations(directory: directory)
                return try MigrationRunner(migrations, release: release, logger: logger).up(connection, to: nil).count
            }
        } catch {
            throw UpError("The migrations in \(directory) cannot be applied: \(error)")
        }
    }

    /// Gives the database the cluster's UUID, or refuses one that belongs to another cluster.
    func claim(cluster: String, isNew: Bool) async throws {
        let found = try await connected { connection -> String? in
            if isNew {
                _ = try connection.query("UPDATE cluster SET uuid = $1::uuid", [.text(cluster)])
            }
            let rows = try connection.query("SELECT uuid::text AS uuid FROM cluster", [])
            return rows.count == 0 ? nil : try rows[0].string("uuid")
        }
        guard found?.lowercased() == cluster.lowercased() else {
            throw UpError(
                "The database belongs to cluster \(found ?? "(none)"), the data directory to \(cluster).",
                remedy: "Restore both from the same backup."
            )
        }
    }

    /// Ends the lease of a cache server whose process is gone, so that its successor need not wait it out.
    func releaseLease(of name: String) async throws {
        try await connected { connection in
            _ = try connection.query("SET statement_timeout = \(UpLimits.leaseReleaseMilliseconds)", [])
            _ = try connection.query(
                """
                UPDATE cache_servers SET lease_end = clock_timestamp()
                WHERE name = $1 AND lease_end > clock_timestamp()
                """,
                [.text(name)]
            )
        }
    }

    /// One row of one statement, as text by column; for the figures that `--once` waits for.
    func row(_ statement: String, _ columns: [String], parameter: String) async throws -> [String: String] {
        try await connected { connection in
            let rows = try connection.query(statement, [.text(parameter)])
            guard rows.count > 0 else { return [:] }
            var result: [String: String] = [:]
            for column in columns { result[column] = try rows[0].string(column) }
            return result
        }
    }
}

/// Where the migrations are.
enum MigrationFiles {
    /// The directory named by `ASHLAR_MIGRATIONS`, the one of the source tree that the program was built in, or the
    /// installed one.
    static func locate() throws -> String {
        var candidates: [String] = []
        if let named = ProcessInfo.processInfo.environment["ASHLAR_MIGRATIONS"] { candidates.append(named) }
        if let program = Files.link("/proc/self/exe") {
            var url = URL(fileURLWithPath: program).deletingLastPathComponent()
            while url.path != "/" {
                candidates.append(url.appendingPathComponent("migrations").path)
                candidates.append(url.appendingPathComponent("share/ashlar/migrations").path)
                url.deleteLastPathComponent()
            }
        }
        candidates.append(FileManager.default.currentDirectoryPath + "/migrations")
        candidates.append("/usr/share/ashlar/migrations")
        for candidate in candidates {
            let files = (try? FileManager.default.contentsOfDirectory(atPath: candidate)) ?? []
            if files.contains(where: { $0.hasPrefix("0001_") && $0.hasSuffix(".up.sql") }) { return candidate }
        }
        throw UpError(
            "The migrations were not found.",
            remedy: "Name their directory in the environment variable ASHLAR_MIGRATIONS."
        )
    }
}
