import ArgumentParser
import AshlarCore
import PostgresStore

/// `ashlar cache accept-loss`.
struct CacheAcceptLossCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "accept-loss",
        abstract: "Forget which PostgreSQL server was worked with, so that one that has lost writes is used.",
        discussion: """
            Stop the cache server first, and start it again afterwards; do this for each one that refuses the server. \
            What was acknowledged and is not in the database is lost then: detach the initiators, and check their file systems.
            """
    )

    @Option(help: "Configuration file (JSON) of the cache server.") var config: String?
    @OptionGroup(title: "Cache") var cache: CacheFlags
    @Flag(help: "Do it; else it is only shown.") var force = false

    func run() async throws {
        try await reportingFailures("cache accept-loss") {
            let settings = try await RoleRunner.load(.cache, config: config, flags: [cache])
            guard let directory = settings.optionalText("cache.state-directory") else {
                throw CommandFailure(
                    "cache.state-directory is not set: the cache server remembers nothing; restart it.",
                    exitCode: ExitCodes.configuration
                )
            }
            print(try Self.run(ServerMemoryFile(directory: directory), force: force))
        }
    }

    /// What is remembered is shown, and forgotten where `force` says so; a sentence for whoever asked.
    static func run(_ file: ServerMemoryFile, force: Bool) throws -> String {
        guard let remembered = try file.remembered() else { return "Nothing is remembered in \(file.path)." }
        guard force else { return "Remembered: \(remembered). Give --force to forget it." }
        try file.forget()
        return "Forgotten: \(remembered). The cache server begins with the server that it finds."
    }
}
