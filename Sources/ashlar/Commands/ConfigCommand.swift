import ArgumentParser
import AshlarCore
import Foundation

/// `ashlar config`: the configuration of a role, without starting it.
struct ConfigCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config",
        abstract: "Show or check the configuration that a role would start with.",
        subcommands: [ConfigShowCommand.self, ConfigCheckCommand.self, ConfigKeysCommand.self],
        defaultSubcommand: ConfigShowCommand.self
    )
}

/// The role and where its configuration comes from.
struct ConfigArguments: ParsableArguments {
    @Argument(help: "target, cache, objects, agent or control.") var role: String
    @Option(help: "Configuration file (JSON).") var config: String?

    func settings() async throws -> Settings {
        try await RoleRunner.load(try Self.role(role), config: config, flags: [])
    }

    static func role(_ text: String) throws -> Role {
        guard let role = Role(rawValue: text) else {
            throw CommandFailure(
                "\"\(text)\" is not a role; give one of \(Role.allCases.map(\.rawValue).joined(separator: ", ")).",
                exitCode: ExitCodes.usage
            )
        }
        return role
    }
}

/// `ashlar config show ROLE`, also `ashlar config ROLE`.
struct ConfigShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Print the effective configuration; secrets are hidden."
    )

    @OptionGroup var arguments: ConfigArguments
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        try await reportingFailures("config") {
            let settings = try await arguments.settings()
            if json {
                print(try Self.json(settings))
            } else {
                var table = Table(["KEY", "VALUE", "FROM"])
                for entry in settings.entries { table.add([entry.setting, Self.shown(entry), entry.source]) }
                print(table.text, terminator: "")
            }
        }
    }

    /// The value without secrets.
    static func shown(_ entry: Settings.Entry) -> String {
        let isSecret = Setting.all.contains { $0.name == entry.setting && $0.isSecret }
        let text = entry.values.joined(separator: ", ")
        return isSecret ? Redaction.dsn(text) : text
    }

    private static func json(_ settings: Settings) throws -> String {
        var values: [String: [String: String]] = [:]
        for entry in settings.entries { values[entry.setting] = ["value": shown(entry), "from": entry.source] }
        return try JSONText.text(values)
    }
}

/// `ashlar config check ROLE`.
struct ConfigCheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Check the configuration; exit code 78 where the role would refuse it."
    )

    @OptionGroup var arguments: ConfigArguments

    func run() async throws {
        try await reportingFailures("config check") {
            let settings = try await arguments.settings()
            if settings.role == .target { _ = try settings.target() }
            let manager = FileManager.default
            for entry in settings.entries {
                guard let setting = Setting.all.first(where: { $0.name == entry.setting }), case .path = setting.kind,
                    let path = entry.values.first, !manager.isReadableFile(atPath: path)
                else { continue }
                throw SettingsError(
                    "\(entry.setting) names \(path), which cannot be read; create it or correct the key."
                )
            }
            print("The configuration of role \(settings.role.rawValue) is good.")
        }
    }
}

/// `ashlar config keys [ROLE]`.
struct ConfigKeysCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "keys", abstract: "List the keys there are.")

    @Argument(help: "Only the keys of this role.") var role: String?

    func run() async throws {
        try await reportingFailures("config keys") {
            let only = try role.map(ConfigArguments.role)
            var table = Table(["KEY", "ROLES", "DEFAULT", "MEANING"])
            for setting in Setting.all where only.map(setting.roles.contains) ?? true {
                table.add([setting.name, Self.roles(setting), Self.standard(setting), setting.summary])
            }
            print(table.text, terminator: "")
        }
    }

    private static func roles(_ setting: Setting) -> String {
        setting.roles == Set(Role.allCases) ? "all" : setting.roles.map(\.rawValue).sorted().joined(separator: ", ")
    }

    private static func standard(_ setting: Setting) -> String {
        let values = setting.roles.map { role in
            setting.standard(for: role) ?? (setting.isRequired(by: role) ? "required" : "none")
        }
        return Set(values).count == 1 ? values.first ?? "" : "by role"
    }
}

/// Hides secrets in what is shown.
enum Redaction {
    /// A connection string without its password, in both of libpq's forms.
    static func dsn(_ text: String) -> String {
        var result = text
        for pattern in [#"(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)"#, #"(://[^:/@\s]+:)([^@\s]+)(?=@)"#] {
            guard let expression = try? NSRegularExpression(pattern: pattern, options: .caseInsensitive) else {
                continue
            }
            let range = NSRange(result.startIndex..., in: result)
            result = expression.stringByReplacingMatches(in: result, range: range, withTemplate: "$1<hidden>")
        }
        return result
    }
}
