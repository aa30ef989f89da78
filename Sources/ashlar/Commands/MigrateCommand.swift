import ArgumentParser
import Foundation
import Logging
import PostgresStore

/// `ashlar migrate`.
struct MigrateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "migrate",
        abstract: "Bring the schema of PostgreSQL forward or back, and look at it.",
        subcommands: [
            MigrateUpCommand.self, MigrateDownCommand.self, MigrateStatusCommand.self, MigrateCheckCommand.self,
            MigrateNewCommand.self,
        ]
    )
}

/// Where the database and the migrations are.
struct MigrateOptions: ParsableArguments {
    @Option(help: "Connection string of libpq (ASHLAR_POSTGRES_DSN; with --data: that of ashlar up).") var postgresDsn:
        String?
    @Option(help: "File with the password (ASHLAR_POSTGRES_PASSWORD_FILE).") var postgresPasswordFile: String?
    @Flag(help: "Use a server that may lose acknowledged writes (ASHLAR_POSTGRES_ALLOW_UNSAFE_DURABILITY=yes).")
    var postgresAllowUnsafeDurability = false
    @Option(help: "Data directory of ashlar up.") var data: String?
    @Option(help: "Directory of the migrations (ASHLAR_MIGRATIONS).") var migrations: String?

    private struct State: Decodable {
        var postgres: String
    }

    func directory() throws -> String { try migrations ?? MigrationFiles.locate() }

    func configuration() throws -> PostgresConfiguration {
        let environment = ProcessInfo.processInfo.environment
        var dsn = postgresDsn ?? environment["ASHLAR_POSTGRES_DSN"]
        if dsn == nil, let data, let state = FileManager.default.contents(atPath: data + "/state.json") {
            dsn = try? JSONDecoder().decode(State.self, from: state).postgres
        }
        guard let dsn, !dsn.isEmpty else {
            throw CommandFailure(
                "The database is not known; name it with --postgres-dsn, or the directory of ashlar up with --data.",
                exitCode: ExitCodes.usage
            )
        }
        return PostgresConfiguration(
            dsn: dsn,
            passwordFile: postgresPasswordFile ?? environment["ASHLAR_POSTGRES_PASSWORD_FILE"],
            applicationName: "ashlar migrate",
            allowUnsafeDurability: postgresAllowUnsafeDurability
                || environment["ASHLAR_POSTGRES_ALLOW_UNSAFE_DURABILITY"] == "yes"
        )
    }

    /// Runs `body` with a connection and a runner, and reports its failures.
    func run(_ command: String, _ body: (MigrationRunner, PostgresConnection) throws -> Void) async throws {
        try await reportingFailures(command) {
            let runner = MigrationRunner(
                try Migrations(directory: try directory()),
                release: AshlarRelease.version,
                logger: Logger(label: "ashlar.migrate", factory: { _ in SwiftLogNoOpLogHandler() })
            )
            let connection: PostgresConnection
            do {
                connection = try PostgresConnection(try configuration())
            } catch let error as PostgresError {
                throw CommandFailure(
                    "PostgreSQL cannot be used (\(error.message)); see that it runs and that the connection string is right.",
                    exitCode: ExitCodes.unreachable
                )
            }
            defer { connection.close() }
            try body(runner, connection)
        }
    }
}

/// `ashlar migrate up`.
struct MigrateUpCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "up", abstract: "Apply what is missing.")

    @Option(help: "Go no further than this version.") var to: Int?
    @OptionGroup var options: MigrateOptions

    func run() async throws {
        try await options.run("migrate up") { runner, connection in
            let applied = try runner.up(connection, to: to)
            print(applied.isEmpty ? "Nothing to apply." : "Applied \(MigrateText.list(applied)).")
        }
    }
}

/// `ashlar migrate down --to VERSION`.
struct MigrateDownCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "down",
        abstract: "Undo what was applied above a version; data of these tables is lost."
    )

    @Option(help: "The version that stays; 0 for none.") var to: Int
    @OptionGroup var options: MigrateOptions

    func validate() throws {
        guard to >= 0 else { throw ValidationError("--to is negative; give 0 or a version.") }
    }

    func run() async throws {
        try await options.run("migrate down") { runner, connection in
            let undone = try runner.down(connection, to: to)
            print(undone.isEmpty ? "Nothing to undo." : "Undid \(MigrateText.list(undone)).")
        }
    }
}

/// `ashlar migrate status`.
struct MigrateStatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "status", abstract: "Show each migration.")

    @Flag(help: "Print JSON.") var json = false
    @OptionGroup var options: MigrateOptions

    private struct Row: Encodable {
        var version: Int
        var name: String
        var state: String
        var appliedAt: String?
    }

    func run() async throws {
        try await options.run("migrate status") { runner, connection in
            let rows = try runner.status(connection)
            if json {
                let documents = rows.map {
                    Row(version: $0.version, name: $0.name, state: $0.state.rawValue, appliedAt: $0.appliedAt)
                }
                return print(try JSONText.text(documents))
            }
            var table = Table(["VERSION", "NAME", "STATE", "APPLIED"], right: [0])
            for row in rows { table.add(["\(row.version)", row.name, row.state.rawValue, row.appliedAt ?? "-"]) }
            print(table.text, terminator: "")
        }
    }
}

/// `ashlar migrate check`.
struct MigrateCheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Check that what was applied is what lies in the directory, and that nothing is missing."
    )

    @OptionGroup var options: MigrateOptions

    func run() async throws {
        try await options.run("migrate check") { runner, connection in
            try runner.check(connection)
            try MigrationRunner.verify(
                connection,
                try Migrations(directory: try options.directory()),
                release: AshlarRelease.version
            )
            print("The schema is the one of this release.")
        }
    }
}

/// `ashlar migrate new NAME`.
struct MigrateNewCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "new", abstract: "Write the files of a new migration.")

    @Argument(help: "What it does, as in add_snapshots.") var name: String
    @Option(help: "Directory of the migrations (ASHLAR_MIGRATIONS).") var migrations: String?

    func run() async throws {
        try await reportingFailures("migrate new") {
            let files = try Migrations.new(name: name, directory: try migrations ?? MigrationFiles.locate())
            print(files.up)
            print(files.down)
        }
    }
}

private enum MigrateText {
    static func list(_ versions: [Int]) -> String { versions.map(String.init).joined(separator: ", ") }
}
