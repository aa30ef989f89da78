import AshlarCore
import Configuration
import ControlPlane
import Foundation
import RPC
import TargetNode
import Transport

/// Why a configuration is refused; one sentence with the key and the remedy.
struct SettingsError: Error, Sendable, Hashable, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }
}

/// The effective configuration of a role: flags before environment before file before defaults, everything checked.
struct Settings: Sendable {
    /// A value and where it comes from.
    struct Entry: Sendable, Hashable {
        var setting: String
        var values: [String]
        var source: String
    }

    let role: Role
    /// By key, in the order of the document.
    private(set) var entries: [Entry] = []

    // MARK: Loading

    /// Reads and checks the configuration of a role.
    ///
    /// - Parameters:
    ///   - file: JSON; nil for none.
    ///   - flags: values of the command line by key.
    ///   - environment: variables that begin with `ASHLAR_` count.
    /// - Throws: ``SettingsError`` for the first thing that is not as it must be.
    static func load(
        role: Role,
        file: String?,
        flags: [String: [String]],
        environment: [String: String]
    ) async throws -> Settings {
        var layers: [(name: String, provider: any ConfigProvider)] = [
            ("the command line", flagProvider(flags, role: role)),
            (
                "the environment",
                EnvironmentVariablesProvider(environmentVariables: environment).prefixKeys(with: "ashlar")
            ),
        ]
        if let file {
            try checkKeys(file: file, role: role)
            do {
                let path = InMemoryProvider(values: [
                    AbsoluteConfigKey(["filePath"], context: [:]): .init(.string(file), isSecret: false)
                ])
                layers.append((file, try await FileProvider<JSONSnapshot>(config: ConfigReader(provider: path))))
            } catch {
                throw SettingsError("\(file) cannot be read as configuration (\(error)); correct it.")
            }
        }
        var settings = Settings(role: role)
        for setting in Setting.of(role) {
            if let entry = try entry(of: setting, role: role, layers) { settings.entries.append(entry) }
        }
        try settings.checkTogether()
        return settings
    }

    private static func entry(
        of setting: Setting,
        role: Role,
        _ layers: [(name: String, provider: any ConfigProvider)]
    ) throws -> Entry? {
        for layer in layers {
            guard let values = try values(of: setting, layer) else { continue }
            try check(values, setting, source: source(layer.name, setting))
            return Entry(setting: setting.name, values: values, source: layer.name)
        }
        if let standard = setting.standard(for: role) {
            return Entry(setting: setting.name, values: [standard], source: "default")
        }
        guard !setting.isRequired(by: role) else {
            throw SettingsError(
                "\(setting.name) is missing: \(setting.summary) Set it in the file of --config, with --\(setting.flag) or "
                    + "with \(setting.environmentVariable); it must be \(setting.kind.rule)."
            )
        }
        return nil
    }

    /// "listen.port (--listen-port)".
    private static func source(_ layer: String, _ setting: Setting) -> String {
        switch layer {
        case "the command line": "--\(setting.flag)"
        case "the environment": setting.environmentVariable
        default: "\(setting.name) in \(layer)"
        }
    }

    private static func flagProvider(_ flags: [String: [String]], role: Role) -> InMemoryProvider {
        var values: [AbsoluteConfigKey: Configuration.ConfigValue] = [:]
        for setting in Setting.of(role) {
            guard let given = flags[setting.name], let last = given.last else { continue }
            let content: ConfigContent = setting.kind.isList ? .stringArray(given.flatMap(split)) : .string(last)
            values[key(setting)] = Configuration.ConfigValue(content, isSecret: setting.isSecret)
        }
        return InMemoryProvider(name: "flags", values: values)
    }

    /// Elements of a list that is given as one text.
    private static func split(_ text: String) -> [String] {
        text.split(separator: ",", omittingEmptySubsequences: false).map {
            String($0).trimmingCharacters(in: .whitespaces)
        }
    }

    private static func key(_ setting: Setting) -> AbsoluteConfigKey {
        AbsoluteConfigKey(setting.name.split(separator: ".").map(String.init), context: [:])
    }

    /// The value of a layer as text: numbers of a file may be written as numbers.
    private static func values(
        of setting: Setting,
        _ layer: (name: String, provider: any ConfigProvider)
    ) throws -> [String]? {
        let types: [ConfigType] = setting.kind.isList ? [.stringArray] : [.string, .int]
        for type in types {
            guard let found = try? layer.provider.value(forKey: key(setting), type: type) else { continue }
            guard let content = found.value?.content else { return nil }
            switch content {
            case .string(let text): return [text]
            case .int(let number): return [String(number)]
            case .stringArray(let texts): return texts.map { $0.trimmingCharacters(in: .whitespaces) }
            default: continue
            }
        }
        throw SettingsError(
            "\(source(layer.name, setting)) has a value of the wrong kind; it must be \(setting.kind.rule)."
        )
    }

    // MARK: Checking

    /// Refuses keys that the role does not have.
    private static func checkKeys(file: String, role: Role) throws {
        guard let data = FileManager.default.contents(atPath: file) else {
            throw SettingsError("\(file) cannot be read; name a readable file with --config.")
        }
        let object: Any
        do {
            object = try JSONSerialization.jsonObject(with: data)
        } catch {
            throw SettingsError("\(file) is not JSON; correct it (one object, keys and texts in quotation marks).")
        }
        guard let root = object as? [String: Any] else {
            throw SettingsError("\(file) is not one JSON object; write { … } around its keys.")
        }
        let known = Dictionary(Setting.all.map { ($0.name, $0) }) { first, _ in first }
        for key in leaves(root, prefix: "").sorted() {
            guard let setting = known[key] else {
                let near = nearest(key, to: Setting.of(role).map(\.name))
                throw SettingsError(
                    "\(key) in \(file) is not a key of role \(role.rawValue); "
                        + (near.map { "did you mean \($0)?" } ?? "remove it.")
                )
            }
            guard setting.roles.contains(role) else {
                throw SettingsError("\(key) in \(file) has no meaning for role \(role.rawValue); remove it.")
            }
        }
    }

    private static func leaves(_ object: [String: Any], prefix: String) -> [String] {
        object.flatMap { key, value in
            (value as? [String: Any]).map { leaves($0, prefix: prefix + key + ".") } ?? [prefix + key]
        }
    }

    /// The name that differs in the fewest letters, where that is at most three.
    static func nearest(_ name: String, to names: [String]) -> String? {
        let best = names.map { (distance(name, $0), $0) }.min { $0.0 < $1.0 }
        return best.flatMap { $0.0 <= 3 ? $0.1 : nil }
    }

    /// Letters to insert, delete or replace (Levenshtein).
    private static func distance(_ first: String, _ second: String) -> Int {
        let (a, b) = (Array(first.utf8), Array(second.utf8))
        var row = Array(0...b.count)
        for i in a.indices {
            var previous = row[0]
            row[0] = i + 1
            for j in b.indices {
                let next = min(row[j + 1] + 1, row[j] + 1, previous + (a[i] == b[j] ? 0 : 1))
                previous = row[j + 1]
                row[j + 1] = next
            }
        }
        return row[b.count]
    }

    private static func check(_ values: [String], _ setting: Setting, source: String) throws {
        guard !values.isEmpty, values.allSatisfy({ isValid($0, setting.kind) }) else {
            let bad = values.first { !isValid($0, setting.kind) } ?? ""
            let shown = setting.isSecret ? "not usable" : "\"\(bad.prefix(200))\""
            throw SettingsError("\(source) is \(shown); it must be \(setting.kind.rule).")
        }
        let names = setting.kind.isList ? values.map { $0.split(separator: "=").first ?? "" } : []
        if let twice = names.first(where: { name in names.count { $0 == name } > 1 }) {
            throw SettingsError("\(source) names \(twice) twice; name it once.")
        }
    }

    private static func isValid(_ value: String, _ kind: Setting.Kind) -> Bool {
        switch kind {
        case .text, .path: !value.isEmpty && !value.contains("\0")
        case .uuid: ClusterID(value) != nil
        case .nodeName:
            NodeIdentity(cluster: ClusterID(high: 0, low: 0), role: .control, name: value) != nil
        case .endpoint, .endpoints: isEndpoint(value)
        case .host(let port): RPCEndpoint(value, defaultPort: port) != nil
        case .choice(let words): words.contains(value)
        case .number(let range): Int(value).map(range.contains) ?? false
        case .size(let range): ByteSize.parse(value).map(range.contains) ?? false
        case .numberedEndpoints: numberedEndpoint(value) != nil
        case .roots: root(value) != nil
        case .prefixes: AddressPrefix(value) != nil
        }
    }

    private static func isEndpoint(_ value: String) -> Bool { RPCEndpoint(value) != nil }

    static func numberedEndpoint(_ value: String) -> (Int32, String)? {
        guard let equals = value.firstIndex(of: "="), let number = Int32(value[..<equals]), number > 0 else {
            return nil
        }
        let endpoint = String(value[value.index(after: equals)...])
        return isEndpoint(endpoint) ? (number, endpoint) : nil
    }

    static func root(_ value: String) -> (path: String, weight: UInt32)? {
        guard let equals = value.lastIndex(of: "=") else { return value.isEmpty ? nil : (value, 100) }
        guard let weight = UInt32(value[value.index(after: equals)...]), weight <= 1_000_000, equals > value.startIndex
        else { return nil }
        return (String(value[..<equals]), weight)
    }

    /// Checks that concern more than one key.
    private func checkTogether() throws {
        if role == .target, optionalText("target.isns-server") != nil, optionalText("target.advertise") == nil,
            ["0.0.0.0", "::"].contains(text("listen.address"))
        {
            throw SettingsError(
                "target.isns-server needs an address to register, and listen.address is any; name one with "
                    + "target.advertise."
            )
        }
        if role == .target, text("target.proxy-protocol") == ProxyProtocol.required.rawValue {
            guard !list("target.proxy-protocol-from").isEmpty else {
                throw SettingsError(
                    "target.proxy-protocol is required, yet target.proxy-protocol-from is missing; name the addresses of the "
                        + "proxies there, as whoever speaks the protocol can say any address."
                )
            }
        }
        if role == .cache {
            let high = size("cache.unmoved-high-watermark")
            let hard = size("cache.unmoved-hard-limit")
            guard hard > high else {
                throw SettingsError(
                    "cache.unmoved-hard-limit (\(SizeText.text(hard))) is not above cache.unmoved-high-watermark "
                        + "(\(SizeText.text(high))); raise the one or lower the other."
                )
            }
            let (slow, wait) = (size("cache.wal-slow-below"), size("cache.wal-wait-below"))
            guard wait < slow else {
                throw SettingsError(
                    "cache.wal-wait-below (\(SizeText.text(wait))) is not below cache.wal-slow-below (\(SizeText.text(slow))); "
                        + "lower the one or raise the other."
                )
            }
        }
    }

    // MARK: Reading

    /// The value of a key that is there; the loader has seen to it.
    func text(_ key: String) -> String { optionalText(key) ?? "" }

    func optionalText(_ key: String) -> String? { entries.first { $0.setting == key }?.values.first }

    func number(_ key: String) -> Int { Int(text(key)) ?? 0 }

    func size(_ key: String) -> UInt64 { ByteSize.parse(text(key)) ?? 0 }

    func list(_ key: String) -> [String] { entries.first { $0.setting == key }?.values ?? [] }
}
