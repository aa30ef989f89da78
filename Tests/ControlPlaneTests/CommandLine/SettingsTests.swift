import ArgumentParser
import AshlarCore
import CacheServer
import ControlPlane
import Foundation
import TargetNode
import Testing

@testable import ashlar

@Suite struct SettingsTests {
    private static let cluster = "6f1c9b0e-3f0a-4a53-9f6e-0d7a3a2f6b11"

    /// A value for every key, good for its kind.
    static func sample(_ setting: Setting) -> String {
        switch setting.kind {
        case .text: "10.0.0.1"
        case .path: "/etc/ashlar/file"
        case .uuid: cluster
        case .nodeName: "node-1"
        case .endpoint, .endpoints: "10.0.0.1:7401"
        case .host: "10.0.0.1"
        case .choice(let words): words[0]
        case .number(let range): String(range.lowerBound)
        case .size:
            switch setting.name {
            case "cache.unmoved-hard-limit": "4G"
            case "cache.wal-wait-below": "1G"
            default: "2G"
            }
        case .numberedEndpoints: "1=10.0.0.1:7501"
        case .roots: "/srv/blocks=10"
        case .prefixes: "10.0.0.0/8"
        }
    }

    /// The required keys of a role, as a file would have them.
    private func required(_ role: Role) -> [String: Any] {
        var object: [String: [String: Any]] = [:]
        for setting in Setting.of(role) where setting.isRequired(by: role) {
            let parts = setting.name.split(separator: ".").map(String.init)
            let value = Self.sample(setting)
            object[parts[0], default: [:]][parts[1]] = setting.kind.isList ? [value] : value
        }
        return object
    }

    private func file(_ object: Any) throws -> String {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("ashlar-\(UUID().uuidString).json")
        try JSONSerialization.data(withJSONObject: object).write(to: path)
        return path.path
    }

    private func load(
        _ role: Role,
        _ object: [String: Any],
        flags: [String: [String]] = [:],
        environment: [String: String] = [:]
    ) async throws -> Settings {
        let path = try file(object)
        defer { try? FileManager.default.removeItem(atPath: path) }
        return try await Settings.load(role: role, file: path, flags: flags, environment: environment)
    }

    /// The sentence with which a configuration of the control role is refused, where `key` has `value`.
    private func refusal(_ role: Role, _ key: String, _ value: Any?) async throws -> String {
        var object = required(role)
        let parts = key.split(separator: ".", maxSplits: 1).map(String.init)
        var inner = object[parts[0]] as? [String: Any] ?? [:]
        inner[parts[1]] = value
        object[parts[0]] = inner
        let refused = object
        let error = await #expect(throws: SettingsError.self) { try await load(role, refused) }
        return error?.description ?? ""
    }

    @Test(arguments: Role.allCases)
    func everyRoleStartsWithWhatIsRequired(role: Role) async throws {
        let settings = try await load(role, required(role))
        #expect(settings.node.clusterID == Self.cluster)
        #expect(settings.text("log.level") == "info")
        if Setting.of(role).contains(where: { $0.name == "listen.port" }) {
            #expect([3_260, 7_401, 7_501, 7_443].contains(settings.number("listen.port")))
        }
    }

    @Test(arguments: Role.allCases)
    func everyMissingKeyIsNamedWithItsFlagAndVariable(role: Role) async throws {
        for setting in Setting.of(role) where setting.isRequired(by: role) {
            let text = try await refusal(role, setting.name, nil)
            #expect(text.contains(setting.name) && text.contains("--\(setting.flag)"))
            #expect(text.contains(setting.environmentVariable))
        }
    }

    @Test func flagsGoBeforeEnvironmentBeforeFileBeforeDefault() async throws {
        var object = required(.cache)
        let variables = [
            "ASHLAR_LISTEN_PORT": "2", "ASHLAR_OBJECTS_ENDPOINTS": "3=a:1,4=b:2", "ASHLAR_TOKEN_FILE": "x",
        ]
        #expect(try await load(.cache, object).number("listen.port") == 7_401)
        object["listen"] = ["port": 1]
        #expect(try await load(.cache, object).number("listen.port") == 1)
        let second = try await load(.cache, object, environment: variables)
        #expect(second.number("listen.port") == 2)
        #expect(second.cacheServer().objectServers == [3: "a:1", 4: "b:2"])
        let third = try await load(.cache, object, flags: ["listen.port": ["3"]], environment: variables)
        #expect(third.number("listen.port") == 3)
        #expect(third.entries.first { $0.setting == "listen.port" }?.source == "the command line")
    }

    @Test(
        arguments: [
            ("listen.port", "abc"), ("listen.port", 65_536), ("listen.port", -1), ("listen.port", [1]),
            ("listen.address", ""),
            ("log.level", "loud"), ("cluster.id", "none"), ("node.name", "a b"), ("metrics.listen", "9100"),
            ("objects.endpoints", ["10.0.0.1:7501"]), ("objects.endpoints", ["0=a:1"]),
            ("objects.endpoints", ["1=a:1", "1=b:1"]),
            ("objects.endpoints", "1=a:1"), ("cache.memory", "256X"), ("cache.memory", "1K"),
            ("cache.unmoved-hard-limit", "8G"), ("cache.wal-wait-below", "1G"), ("cache.advertise", "host"),
            ("tls.key", 7.5), ("postgres.dsn", ""),
        ] as [(String, any Sendable)]
    )
    func everyWrongValueIsNamed(key: String, value: any Sendable) async throws {
        #expect(try await refusal(.cache, key, value).contains(key))
    }

    @Test(
        arguments: [
            ("objects.id", 0), ("objects.roots", ["/a=x"]), ("objects.roots", [String]()),
            ("objects.roots", ["/a", "/a=2"]),
        ] as [(String, any Sendable)]
    )
    func wrongValuesOfObjectServersAreNamed(key: String, value: any Sendable) async throws {
        #expect(try await refusal(.objects, key, value).contains(key))
    }

    @Test(
        arguments: [
            ("target.allowed-addresses", ["10.0.0.1/8"]), ("target.allowed-addresses", ["host"]),
            ("target.allowed-addresses", [String]()), ("target.allowed-addresses", ["10.0.0.1", "10.0.0.1"]),
            ("target.allowed-addresses", "10.0.0.1"), ("target.proxy-protocol", "v2"),
            ("target.proxy-protocol-from", ["::1/129"]), ("target.proxy-protocol", "required"),
        ] as [(String, any Sendable)]
    )
    func wrongValuesOfTargetsAreNamed(key: String, value: any Sendable) async throws {
        #expect(try await refusal(.target, key, value).contains(key))
    }

    @Test func addressesReachTheTarget() async throws {
        var object = required(.target)
        #expect(try await load(.target, object).target().portalAccess.proxyProtocol == .off)
        object["target"] = [
            "allowed-addresses": ["10.1.0.0/16", "::1"], "proxy-protocol": "required",
            "proxy-protocol-from": ["10.0.0.7"],
        ]
        let access = try await load(.target, object).target().portalAccess
        #expect(access.proxyProtocol == .required)
        #expect(access.initiators.map(\.description) == ["10.1.0.0/16", "::1"])
        #expect(access.proxies.map(\.description) == ["10.0.0.7"])
        let flags = ["target.allowed-addresses": ["10.2.0.0/16,10.3.0.0/16", "10.4.0.1"]]
        #expect(try await load(.target, object, flags: flags).target().portalAccess.initiators.count == 3)
    }

    @Test func theReadCacheReachesTheTargetAndNoneIsPossible() async throws {
        var object = required(.target)
        #expect(try await load(.target, object).target().readCacheBytes == 256 << 20)
        object["target"] = ["read-cache": "0"]
        #expect(try await load(.target, object).target().readCacheBytes == 0)
        #expect(
            try await load(.target, object, flags: ["target.read-cache": ["1G"]]).target().readCacheBytes == 1 << 30
        )
    }

    @Test func theLoopsReachTheTarget() async throws {
        var object = required(.target)
        #expect(try await load(.target, object).target().loops == TargetConfiguration.loopsDefault)
        object["target"] = ["loops": 2]
        #expect(try await load(.target, object).target().loops == 2)
        #expect(try await load(.target, object, flags: ["target.loops": ["3"]]).target().loops == 3)
        for wrong in ["0", "33", "two"] {
            await #expect(throws: SettingsError.self) {
                try await load(.target, object, flags: ["target.loops": [wrong]])
            }
        }
    }

    /// Block data in memory is a quarter of what a machine has, where that is not very little.
    @Test func upSharesAQuarterOfTheMemoryAmongCacheServersAndTargets() throws {
        for gibibytes in [4, 23, 512] {
            for (caches, targets) in [(1, 2), (3, 1), (2, 8)] {
                let bytes = gibibytes << 30
                let cache = try #require(ByteSize.parse(UpLimits.cacheMemory(caches: caches, physicalBytes: bytes)))
                let read = try #require(ByteSize.parse(UpLimits.readCache(targets: targets, physicalBytes: bytes)))
                let sum = Int(cache) * caches + Int(read) * targets
                #expect(sum <= bytes / 4 && sum > bytes / 5, "\(gibibytes) GiB: \(cache), \(read)")
            }
        }
        #expect(UpLimits.cacheMemory(caches: 1, physicalBytes: 0) == "64M")
        #expect(UpLimits.readCache(targets: 1, physicalBytes: 0) == "16M")
    }

    @Test func unknownKeysAreRefusedWithASuggestion() async throws {
        #expect(try await refusal(.cache, "listen.prot", 1).contains("did you mean listen.port?"))
        #expect(try await refusal(.cache, "wholly.different", 1).contains("remove it"))
        #expect(try await refusal(.cache, "target.advertise", "a:1").contains("has no meaning for role cache"))
    }

    @Test func filesThatAreNoConfigurationAreNamed() async throws {
        for (text, word) in [("{", "not JSON"), ("[]", "not one JSON object")] {
            let path = FileManager.default.temporaryDirectory.appendingPathComponent("ashlar-\(UUID().uuidString)")
            try Data(text.utf8).write(to: path)
            defer { try? FileManager.default.removeItem(at: path) }
            let error = await #expect(throws: SettingsError.self) {
                try await Settings.load(role: .cache, file: path.path, flags: [:], environment: [:])
            }
            #expect(error?.description.contains(word) == true)
        }
        let error = await #expect(throws: SettingsError.self) {
            try await Settings.load(role: .cache, file: "/nowhere.json", flags: [:], environment: [:])
        }
        #expect(error?.description.contains("/nowhere.json") == true)
    }

    @Test func wrongValuesNeverShowSecrets() async throws {
        let text = try await refusal(.cache, "postgres.dsn", "")
        #expect(text.contains("postgres.dsn"))
        #expect(Redaction.dsn("host=a password=hunter2 user=b") == "host=a password=<hidden> user=b")
        #expect(Redaction.dsn("host=a password = 'hun ter2'") == "host=a password = <hidden>")
        #expect(Redaction.dsn("postgresql://u:hunter2@h/d?x=1") == "postgresql://u:<hidden>@h/d?x=1")
    }

    @Test(arguments: Role.allCases)
    func everyKeyHasAFlag(role: Role) throws {
        for setting in Setting.of(role) {
            let arguments = ["--" + setting.flag, Self.sample(setting)]
            let flags: [any SettingFlags] =
                switch role {
                case .target: try TargetCommand.parse(arguments).settingFlags
                case .cache: try CacheCommand.parse(arguments).settingFlags
                case .objects: try ObjectsCommand.parse(arguments).settingFlags
                case .agent: try AgentCommand.parse(arguments).settingFlags
                case .control: try ControlCommand.parse(arguments).settingFlags
                }
            let values = flags.compactMap { $0.flags[setting.name] }
            #expect(values == [[Self.sample(setting)]], "\(setting.name)")
        }
    }

    @Test func everyKeyIsDocumented() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let text = try String(contentsOf: root.appendingPathComponent("docs/configuration.md"), encoding: .utf8)
        for setting in Setting.all {
            let row = text.split(separator: "\n").first { $0.hasPrefix("| `\(setting.name)` |") }
            #expect(row != nil, "\(setting.name) has no row in docs/configuration.md")
            for role in setting.roles {
                guard let standard = setting.standard(for: role) else { continue }
                #expect(row?.contains(standard) == true, "the default of \(setting.name) is not documented")
            }
        }
    }
}
