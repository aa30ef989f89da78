import AshlarCore
import TargetNode

/// One key of a role's configuration: its name, what its value must be, and what it is for.
///
/// The same name is a path in the JSON file (`listen.port`), a flag (`--listen-port`) and an environment variable
/// (`ASHLAR_LISTEN_PORT`).
struct Setting: Sendable {
    /// What a value must be.
    enum Kind: Sendable {
        /// Any text but an empty one.
        case text
        /// A file or directory.
        case path
        /// 8-4-4-4-12 hexadecimal digits.
        case uuid
        /// 1 to 64 of letters, digits, dot, hyphen, underscore.
        case nodeName
        /// `host:port`.
        case endpoint
        /// `host` or `host:port`.
        case host(defaultPort: Int)
        /// One of some words.
        case choice([String])
        /// A whole number.
        case number(ClosedRange<Int>)
        /// Bytes, with an optional suffix.
        case size(ClosedRange<UInt64>)
        /// `host:port`, several.
        case endpoints
        /// `number=host:port`, several.
        case numberedEndpoints
        /// `path[=weight]`, several.
        case roots
        /// Addresses, or prefixes of addresses in CIDR form, several.
        case prefixes

        /// Whether there can be several values.
        var isList: Bool {
            switch self {
            case .endpoints, .numberedEndpoints, .roots, .prefixes: true
            default: false
            }
        }

        /// What a value must be, as the end of a sentence.
        var rule: String {
            switch self {
            case .text: "a text that is not empty"
            case .path: "a path"
            case .uuid: "a UUID, as in 6f1c9b0e-3f0a-4a53-9f6e-0d7a3a2f6b11"
            case .nodeName: "1 to 64 of letters, digits, dot, hyphen and underscore"
            case .endpoint: "HOST:PORT, as in 127.0.0.1:7401 or [::1]:7401"
            case .host(let port): "HOST or HOST:PORT, as in 10.0.0.9 or 10.0.0.9:\(port)"
            case .choice(let words): "one of \(words.joined(separator: ", "))"
            case .number(let range): "a whole number from \(range.lowerBound) to \(range.upperBound)"
            case .size(let range):
                "a size from \(SizeText.text(range.lowerBound)) to \(SizeText.text(range.upperBound)), as in 512M or 8G"
            case .endpoints: "a list of HOST:PORT, as in 10.0.0.5:7401"
            case .numberedEndpoints: "a list of NUMBER=HOST:PORT, as in 1=10.0.0.7:7501"
            case .roots: "a list of PATH or PATH=WEIGHT with weights from 0 to 1000000, as in /srv/blocks=100"
            case .prefixes:
                "a list of ADDRESS or ADDRESS/LENGTH, as in 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32, with no bits behind the length"
            }
        }
    }

    /// What happens where no value is given.
    enum Presence: Sendable {
        /// The start is refused.
        case required
        /// There is none.
        case optional
        /// This one holds, by role; the key nil stands for all other roles.
        case standard([Role?: String])
    }

    let name: String
    let kind: Kind
    let roles: Set<Role>
    let presence: Presence
    /// Roles that need a value although others do not.
    var requiredBy: Set<Role> = []
    /// Whether its value may hold a secret.
    var isSecret = false
    let summary: String

    /// `listen.port` as a flag: `listen-port`.
    var flag: String { String(name.map { $0 == "." ? "-" : $0 }) }

    /// `listen.port` as an environment variable.
    var environmentVariable: String {
        "ASHLAR_" + String(name.map { $0 == "." || $0 == "-" ? "_" : $0 }).uppercased()
    }

    /// The value that holds where none is given.
    func standard(for role: Role) -> String? {
        guard case .standard(let values) = presence else { return nil }
        return values[role] ?? values[nil]
    }

    /// Whether a role cannot start without a value.
    func isRequired(by role: Role) -> Bool {
        if requiredBy.contains(role) { return true }
        if case .required = presence { return true }
        return false
    }
}

extension Setting {
    private static let every = Set(Role.allCases)
    private static let serving: Set<Role> = [.target, .cache, .objects, .control]
    private static let logLevels = ["trace", "debug", "info", "notice", "warning", "error", "critical"]

    /// All keys there are.
    static let all: [Setting] = node + listening + peers + postgres + cache + objects + target + agent + control

    /// The keys of one role.
    static func of(_ role: Role) -> [Setting] { all.filter { $0.roles.contains(role) } }

    private static let node: [Setting] = [
        Setting(
            name: "cluster.id",
            kind: .uuid,
            roles: every,
            presence: .required,
            summary: "UUID of the cluster, as in the certificates."
        ),
        Setting(
            name: "node.name",
            kind: .nodeName,
            roles: every,
            presence: .required,
            summary: "Name of this node, as in its certificate."
        ),
        Setting(
            name: "tls.certificate",
            kind: .path,
            roles: every,
            presence: .required,
            summary: "PEM file with the certificate of this node."
        ),
        Setting(
            name: "tls.key",
            kind: .path,
            roles: every,
            presence: .required,
            summary: "PEM file with the key of this node's certificate."
        ),
        Setting(
            name: "tls.authority",
            kind: .path,
            roles: every,
            presence: .required,
            summary: "PEM file with the certificate of the cluster's authority."
        ),
        Setting(
            name: "metrics.listen",
            kind: .endpoint,
            roles: every,
            presence: .optional,
            summary: "Address and port of the metrics and health endpoint (plain HTTP); without it there is none."
        ),
        Setting(
            name: "log.level",
            kind: .choice(logLevels),
            roles: every,
            presence: .standard([nil: "info"]),
            summary: "What is logged to standard error, and everything graver."
        ),
    ]

    private static let listening: [Setting] = [
        Setting(
            name: "listen.address",
            kind: .text,
            roles: serving,
            presence: .standard([nil: "127.0.0.1"]),
            summary: "Address to listen on: of the iSCSI portal, of the RPC server, or of the API."
        ),
        Setting(
            name: "listen.port",
            kind: .number(0...65_535),
            roles: serving,
            presence: .standard([.target: "3260", .cache: "7401", .objects: "7501", .control: "7443"]),
            summary: "Port to listen on; 0 for any that is free."
        ),
    ]

    private static let peers: [Setting] = [
        Setting(
            name: "cache.endpoints",
            kind: .endpoints,
            roles: [.target, .agent, .control],
            presence: .required,
            summary: "The cache servers."
        ),
        Setting(
            name: "objects.endpoints",
            kind: .numberedEndpoints,
            roles: [.target, .cache, .agent, .control],
            presence: .optional,
            requiredBy: [.target, .cache, .agent],
            summary: "The object servers, each with its objects.id."
        ),
    ]

    private static let postgres: [Setting] = [
        Setting(
            name: "postgres.dsn",
            kind: .text,
            roles: [.cache, .control],
            presence: .required,
            isSecret: true,
            summary:
                "Connection string of libpq, as key words or URI; sslmode=verify-full with sslrootcert for other hosts."
        ),
        Setting(
            name: "postgres.password-file",
            kind: .path,
            roles: [.cache, .control],
            presence: .optional,
            summary: "File whose content is the password of PostgreSQL."
        ),
        Setting(
            name: "postgres.allow-unsafe-durability",
            kind: .choice(["no", "yes"]),
            roles: [.cache, .control],
            presence: .standard([nil: "no"]),
            summary:
                "yes: use a PostgreSQL that may lose acknowledged writes (fsync, full_page_writes, synchronous_commit off)."
        ),
    ]

    private static let cache: [Setting] = [
        Setting(
            name: "cache.advertise",
            kind: .endpoint,
            roles: [.cache],
            presence: .optional,
            summary: "Where other roles reach this cache server; without it, the address that it listens on."
        ),
        Setting(
            name: "cache.memory",
            kind: .size(16 << 20...1 << 44),
            roles: [.cache],
            presence: .standard([nil: "256M"]),
            summary: "Block data kept in memory."
        ),
        Setting(
            name: "cache.unmoved-high-watermark",
            kind: .size(1 << 20...1 << 50),
            roles: [.cache],
            presence: .standard([nil: "8G"]),
            summary: "Unmoved bytes from which on writes are slowed down."
        ),
        Setting(
            name: "cache.unmoved-hard-limit",
            kind: .size(1 << 20...1 << 50),
            roles: [.cache],
            presence: .standard([nil: "16G"]),
            summary: "Unmoved bytes from which on writes wait; above the high watermark."
        ),
        Setting(
            name: "cache.wal-directory",
            kind: .path,
            roles: [.cache],
            presence: .optional,
            summary: "Directory of this host in the file system of PostgreSQL's log, whose free room is watched."
        ),
        Setting(
            name: "cache.wal-capacity",
            kind: .size(64 << 20...1 << 50),
            roles: [.cache],
            presence: .optional,
            summary: "Room for PostgreSQL's log on another host; its user needs the role pg_monitor."
        ),
        Setting(
            name: "cache.wal-slow-below",
            kind: .size(1 << 20...1 << 50),
            roles: [.cache],
            presence: .standard([nil: "1G"]),
            summary: "Room for PostgreSQL's log below which writes are slowed down."
        ),
        Setting(
            name: "cache.wal-wait-below",
            kind: .size(1 << 20...1 << 50),
            roles: [.cache],
            presence: .standard([nil: "256M"]),
            summary: "Room for PostgreSQL's log below which writes wait; less than the former."
        ),
        Setting(
            name: "cache.state-directory",
            kind: .path,
            roles: [.cache],
            presence: .optional,
            summary: "Directory for the file by which a restarted server knows a PostgreSQL that has lost writes."
        ),
    ]

    private static let objects: [Setting] = [
        Setting(
            name: "objects.id",
            kind: .number(1...Int(Int32.max)),
            roles: [.objects],
            presence: .required,
            summary: "Number of this object server; recorded with every object, never to be changed."
        ),
        Setting(
            name: "objects.roots",
            kind: .roots,
            roles: [.objects],
            presence: .required,
            summary: "Directories that hold the objects, each with its weight (100); 0: no new objects."
        ),
    ]

    private static let target: [Setting] = [
        Setting(
            name: "target.advertise",
            kind: .endpoint,
            roles: [.target],
            presence: .optional,
            summary: "Portal that SendTargets returns; without it, the address that it listens on."
        ),
        Setting(
            name: "target.portal-group-tag",
            kind: .number(1...65_535),
            roles: [.target],
            presence: .standard([nil: "1"]),
            summary: "Portal group; the same for all targets behind one balanced address, else each its own."
        ),
        Setting(
            name: "target.relative-port-identifier",
            kind: .number(1...65_535),
            roles: [.target],
            presence: .standard([nil: "1"]),
            summary: "Relative target port identifier (SPC-5); one for each portal group."
        ),
        Setting(
            name: "target.discovery-access-file",
            kind: .path,
            roles: [.target],
            presence: .optional,
            summary:
                "JSON file with initiators, credentials and mutual for discovery sessions; without it everyone may discover."
        ),
        Setting(
            name: "target.isns-server",
            kind: .host(defaultPort: 3_205),
            roles: [.target],
            presence: .optional,
            summary: "iSNS server with which targets and portal are registered; without it they are not."
        ),
        Setting(
            name: "target.isns-listen-port",
            kind: .number(0...65_535),
            roles: [.target],
            presence: .standard([nil: "0"]),
            summary: "Port for inquiries and notifications of the iSNS server; 0 for any that is free."
        ),
        Setting(
            name: "target.redirect",
            kind: .choice(LoginRedirect.allCases.map(\.rawValue)),
            roles: [.target],
            presence: .standard([nil: LoginRedirect.never.rawValue]),
            summary: "Whether logins are sent to the target with the fewest sessions: never, temporarily, permanently."
        ),
        Setting(
            name: "target.allowed-addresses",
            kind: .prefixes,
            roles: [.target],
            presence: .optional,
            summary: "Addresses of initiators that may connect, or prefixes; without it all may."
        ),
        Setting(
            name: "target.proxy-protocol",
            kind: .choice(ProxyProtocol.allCases.map(\.rawValue)),
            roles: [.target],
            presence: .standard([nil: ProxyProtocol.off.rawValue]),
            summary:
                "Whether each connection begins with a header of the PROXY protocol, version 2, with the initiator's address."
        ),
        Setting(
            name: "target.proxy-protocol-from",
            kind: .prefixes,
            roles: [.target],
            presence: .optional,
            summary: "Addresses of the proxies, or prefixes; with target.proxy-protocol required no others may connect."
        ),
        Setting(
            name: "target.read-cache",
            kind: .size(0...1 << 44),
            roles: [.target],
            presence: .standard([nil: "256M"]),
            summary: "Block data read from objects that is kept in memory; 0 for none, and for reading nothing ahead."
        ),
        Setting(
            name: "target.loops",
            kind: .number(TargetConfiguration.loopsAllowed),
            roles: [.target],
            presence: .standard([nil: String(TargetConfiguration.loopsDefault)]),
            summary: "Event loops that connections are spread over; without it a quarter of the machine's processors."
        ),
    ]

    private static let agent: [Setting] = [
        Setting(
            name: "agent.idle-milliseconds",
            kind: .number(10...60_000),
            roles: [.agent],
            presence: .standard([nil: "500"]),
            summary: "Rest when there is nothing to do."
        ),
        Setting(
            name: "agent.moves-in-flight",
            kind: .number(1...64),
            roles: [.agent],
            presence: .standard([nil: "2"]),
            summary: "Objects being moved at once."
        ),
        Setting(
            name: "agent.intent-age-seconds",
            kind: .number(60...604_800),
            roles: [.agent],
            presence: .standard([nil: "600"]),
            summary: "Intended objects older than this are given up."
        ),
        Setting(
            name: "agent.grace-seconds",
            kind: .number(1...604_800),
            roles: [.agent],
            presence: .standard([nil: "60"]),
            summary: "How long the bytes of a dead object are kept."
        ),
        Setting(
            name: "agent.scan-seconds",
            kind: .number(0...31_536_000),
            roles: [.agent],
            presence: .standard([nil: "3600"]),
            summary: "How often object servers are scanned for objects without a row; 0 for never."
        ),
    ]

    private static let control: [Setting] = [
        Setting(
            name: "control.token-file",
            kind: .path,
            roles: [.control],
            presence: .required,
            summary: "File with the token of the API, readable by its owner alone."
        )
    ]
}
