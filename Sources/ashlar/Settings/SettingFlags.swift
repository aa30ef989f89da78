import ArgumentParser

/// Flags that set keys; each group names its keys.
protocol SettingFlags: ParsableArguments {
    /// The values of the command line, by key.
    var flags: [String: [String]] { get }
}

/// Values that were given, by key.
private func given(_ values: [(String, String?)], lists: [(String, [String])] = []) -> [String: [String]] {
    var result: [String: [String]] = [:]
    for case (let key, let value?) in values { result[key] = [value] }
    for (key, value) in lists where !value.isEmpty { result[key] = value }
    return result
}

/// Keys of every role.
struct NodeFlags: SettingFlags {
    @Option(help: "Configuration file (JSON); see docs/configuration.md.")
    var config: String?

    @Option(name: .customLong("cluster-id"), help: "UUID of the cluster.") var cluster: String?
    @Option(help: "Name of this node.") var nodeName: String?
    @Option(help: "PEM file with the certificate.") var tlsCertificate: String?
    @Option(help: "PEM file with the key.") var tlsKey: String?
    @Option(help: "PEM file with the authority's certificate.") var tlsAuthority: String?
    @Option(help: "HOST:PORT of metrics and health.") var metricsListen: String?
    @Option(help: "trace, debug, info, notice, warning, error or critical.") var logLevel: String?

    var flags: [String: [String]] {
        given([
            ("cluster.id", cluster), ("node.name", nodeName), ("tls.certificate", tlsCertificate), ("tls.key", tlsKey),
            ("tls.authority", tlsAuthority), ("metrics.listen", metricsListen), ("log.level", logLevel),
        ])
    }
}

/// Keys of roles that listen.
struct ListenFlags: SettingFlags {
    @Option(help: "Address to listen on.") var listenAddress: String?
    @Option(help: "Port to listen on; 0 for any.") var listenPort: String?

    var flags: [String: [String]] { given([("listen.address", listenAddress), ("listen.port", listenPort)]) }
}

/// Keys of roles that use cache servers.
struct CacheEndpointFlags: SettingFlags {
    @Option(help: "Cache servers, HOST:PORT; may be repeated or separated by commas.") var cacheEndpoints: [String] = []

    var flags: [String: [String]] { given([], lists: [("cache.endpoints", cacheEndpoints)]) }
}

/// Keys of roles that use object servers.
struct ObjectEndpointFlags: SettingFlags {
    @Option(help: "Object servers, NUMBER=HOST:PORT; may be repeated or separated by commas.")
    var objectsEndpoints: [String] = []

    var flags: [String: [String]] { given([], lists: [("objects.endpoints", objectsEndpoints)]) }
}

/// Keys of roles that use PostgreSQL.
struct PostgresFlags: SettingFlags {
    @Option(help: "Connection string of libpq, without a password.") var postgresDsn: String?
    @Option(help: "File with the password.") var postgresPasswordFile: String?
    @Option(help: "yes: use a server that may lose acknowledged writes.") var postgresAllowUnsafeDurability: String?

    var flags: [String: [String]] {
        given([
            ("postgres.dsn", postgresDsn), ("postgres.password-file", postgresPasswordFile),
            ("postgres.allow-unsafe-durability", postgresAllowUnsafeDurability),
        ])
    }
}

/// Keys of the cache server.
struct CacheFlags: SettingFlags {
    @Option(help: "HOST:PORT at which others reach this server.") var cacheAdvertise: String?
    @Option(help: "Block data kept in memory, as in 256M.") var cacheMemory: String?
    @Option(help: "Unmoved bytes from which on writes are slowed down.") var cacheUnmovedHighWatermark: String?
    @Option(help: "Unmoved bytes from which on writes wait.") var cacheUnmovedHardLimit: String?
    @Option(help: "Directory in the file system of PostgreSQL's log.") var cacheWalDirectory: String?
    @Option(help: "Room for PostgreSQL's log on another host.") var cacheWalCapacity: String?
    @Option(help: "Room for the log below which writes are slowed down.") var cacheWalSlowBelow: String?
    @Option(help: "Room for the log below which writes wait.") var cacheWalWaitBelow: String?
    @Option(help: "Directory that remembers the PostgreSQL server.") var cacheStateDirectory: String?

    var flags: [String: [String]] {
        given([
            ("cache.advertise", cacheAdvertise), ("cache.memory", cacheMemory),
            ("cache.unmoved-high-watermark", cacheUnmovedHighWatermark),
            ("cache.unmoved-hard-limit", cacheUnmovedHardLimit),
            ("cache.wal-directory", cacheWalDirectory), ("cache.wal-capacity", cacheWalCapacity),
            ("cache.wal-slow-below", cacheWalSlowBelow), ("cache.wal-wait-below", cacheWalWaitBelow),
            ("cache.state-directory", cacheStateDirectory),
        ])
    }
}

/// Keys of the object server.
struct ObjectsFlags: SettingFlags {
    @Option(name: .customLong("objects-id"), help: "Number of this object server.") var objectsNumber: String?
    @Option(help: "Directories, PATH[=WEIGHT]; may be repeated or separated by commas.") var objectsRoots: [String] = []

    var flags: [String: [String]] { given([("objects.id", objectsNumber)], lists: [("objects.roots", objectsRoots)]) }
}

/// Keys of the target.
struct TargetFlags: SettingFlags {
    @Option(help: "HOST:PORT that SendTargets returns.") var targetAdvertise: String?
    @Option(help: "Tag of the portal group.") var targetPortalGroupTag: String?
    @Option(help: "Relative target port identifier.") var targetRelativePortIdentifier: String?
    @Option(help: "JSON file with the access rules of discovery.") var targetDiscoveryAccessFile: String?
    @Option(help: "HOST[:PORT] of the iSNS server.") var targetIsnsServer: String?
    @Option(help: "Port for inquiries of the iSNS server.") var targetIsnsListenPort: String?
    @Option(help: "Whether logins are sent to other targets: never, temporarily, permanently.")
    var targetRedirect: String?
    @Option(help: "Addresses or prefixes of initiators that may connect; may be repeated or separated by commas.")
    var targetAllowedAddresses: [String] = []
    @Option(help: "off, or required: connections begin with a PROXY header, version 2.")
    var targetProxyProtocol: String?
    @Option(help: "Addresses or prefixes of the proxies; may be repeated or separated by commas.")
    var targetProxyProtocolFrom: [String] = []
    @Option(help: "Memory for blocks read from objects, as in 256M; 0 for none.") var targetReadCache: String?
    @Option(help: "Event loops that connections are spread over.") var targetLoops: String?

    var flags: [String: [String]] {
        given(
            [
                ("target.advertise", targetAdvertise), ("target.portal-group-tag", targetPortalGroupTag),
                ("target.relative-port-identifier", targetRelativePortIdentifier),
                ("target.discovery-access-file", targetDiscoveryAccessFile), ("target.isns-server", targetIsnsServer),
                ("target.isns-listen-port", targetIsnsListenPort), ("target.redirect", targetRedirect),
                ("target.proxy-protocol", targetProxyProtocol), ("target.read-cache", targetReadCache),
                ("target.loops", targetLoops),
            ],
            lists: [
                ("target.allowed-addresses", targetAllowedAddresses),
                ("target.proxy-protocol-from", targetProxyProtocolFrom),
            ]
        )
    }
}

/// Keys of the agent.
struct AgentFlags: SettingFlags {
    @Option(help: "Rest when there is nothing to do.") var agentIdleMilliseconds: String?
    @Option(help: "Objects being moved at once.") var agentMovesInFlight: String?
    @Option(help: "Age at which intended objects are given up.") var agentIntentAgeSeconds: String?
    @Option(help: "How long dead objects are kept.") var agentGraceSeconds: String?
    @Option(help: "How often object servers are scanned; 0 for never.") var agentScanSeconds: String?

    var flags: [String: [String]] {
        given([
            ("agent.idle-milliseconds", agentIdleMilliseconds), ("agent.moves-in-flight", agentMovesInFlight),
            ("agent.intent-age-seconds", agentIntentAgeSeconds), ("agent.grace-seconds", agentGraceSeconds),
            ("agent.scan-seconds", agentScanSeconds),
        ])
    }
}

/// Keys of the control role.
struct ControlFlags: SettingFlags {
    @Option(help: "File with the token of the API.") var controlTokenFile: String?

    var flags: [String: [String]] { given([("control.token-file", controlTokenFile)]) }
}
