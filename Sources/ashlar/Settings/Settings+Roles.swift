import Agent
import AshlarCore
import CacheServer
import ControlPlane
import Foundation
import Logging
import ObjectServer
import PostgresStore
import TargetNode

// What each role is given, made of its settings.
extension Settings {
    var logLevel: Logger.Level { Logger.Level(rawValue: text("log.level")) ?? .info }

    var node: NodeConfiguration {
        NodeConfiguration(
            name: text("node.name"),
            clusterID: text("cluster.id").lowercased(),
            certificatePath: text("tls.certificate"),
            keyPath: text("tls.key"),
            authorityPath: text("tls.authority"),
            metricsListen: optionalText("metrics.listen")
        )
    }

    private var objectServers: [Int32: String] {
        Dictionary(list("objects.endpoints").compactMap(Self.numberedEndpoint)) { first, _ in first }
    }

    private var allowsUnsafeDurability: Bool { text("postgres.allow-unsafe-durability") == "yes" }

    func target() throws -> TargetConfiguration {
        TargetConfiguration(
            node: node,
            listenAddress: text("listen.address"),
            listenPort: number("listen.port"),
            advertisedPortal: optionalText("target.advertise"),
            portalGroupTag: UInt16(clamping: number("target.portal-group-tag")),
            relativePortIdentifier: UInt16(clamping: number("target.relative-port-identifier")),
            cacheEndpoints: list("cache.endpoints"),
            objectServers: objectServers,
            discoveryAccess: try optionalText("target.discovery-access-file").map(Self.access) ?? AccessRules(),
            redirect: LoginRedirect(rawValue: text("target.redirect")) ?? .never,
            isnsServer: optionalText("target.isns-server"),
            isnsListenPort: number("target.isns-listen-port"),
            portalAccess: PortalAccess(
                proxyProtocol: ProxyProtocol(rawValue: text("target.proxy-protocol")) ?? .off,
                proxies: list("target.proxy-protocol-from").compactMap(AddressPrefix.init),
                initiators: list("target.allowed-addresses").compactMap(AddressPrefix.init)
            ),
            readCacheBytes: Int(clamping: size("target.read-cache")),
            loops: number("target.loops")
        )
    }

    func cacheServer() -> CacheConfiguration {
        CacheConfiguration(
            node: node,
            listenAddress: text("listen.address"),
            listenPort: number("listen.port"),
            advertisedEndpoint: optionalText("cache.advertise"),
            postgresDSN: text("postgres.dsn"),
            postgresPasswordFile: optionalText("postgres.password-file"),
            allowUnsafeDurability: allowsUnsafeDurability,
            objectServers: objectServers,
            memoryBytes: Int(clamping: size("cache.memory")),
            unmovedHighWatermarkBytes: size("cache.unmoved-high-watermark"),
            unmovedHardLimitBytes: size("cache.unmoved-hard-limit"),
            log: CacheConfiguration.LogRoom(
                directory: optionalText("cache.wal-directory"),
                capacityBytes: optionalText("cache.wal-capacity").map { _ in size("cache.wal-capacity") },
                slowBelowBytes: size("cache.wal-slow-below"),
                waitBelowBytes: size("cache.wal-wait-below")
            ),
            stateDirectory: optionalText("cache.state-directory")
        )
    }

    func objectServer() -> ObjectServerConfiguration {
        ObjectServerConfiguration(
            node: node,
            listenAddress: text("listen.address"),
            listenPort: number("listen.port"),
            serverID: ObjectServerID(Int32(clamping: number("objects.id"))),
            roots: list("objects.roots").compactMap(Self.root).map {
                ObjectServerConfiguration.Root(path: $0.path, weight: $0.weight)
            }
        )
    }

    func agent() -> AgentConfiguration {
        AgentConfiguration(
            node: node,
            cacheEndpoints: list("cache.endpoints"),
            objectServers: objectServers,
            idleMilliseconds: UInt32(clamping: number("agent.idle-milliseconds")),
            movesInFlight: number("agent.moves-in-flight"),
            intentAgeSeconds: UInt32(clamping: number("agent.intent-age-seconds")),
            graceSeconds: UInt32(clamping: number("agent.grace-seconds")),
            scanSeconds: UInt32(clamping: number("agent.scan-seconds"))
        )
    }

    func control() -> ControlConfiguration {
        ControlConfiguration(
            node: node,
            listenAddress: text("listen.address"),
            listenPort: number("listen.port"),
            tokenFile: text("control.token-file"),
            postgres: PostgresConfiguration(
                dsn: text("postgres.dsn"),
                passwordFile: optionalText("postgres.password-file"),
                allowUnsafeDurability: allowsUnsafeDurability
            ),
            cacheEndpoints: list("cache.endpoints"),
            objectServers: objectServers
        )
    }

    /// Reads the access rules of discovery sessions.
    ///
    /// - Throws: ``SettingsError``.
    static func access(file: String) throws -> AccessRules {
        struct Document: Decodable {
            var initiators: [String]?
            var credentials: [CredentialDocument]?
            var mutual: CredentialDocument?
        }
        guard let data = FileManager.default.contents(atPath: file) else {
            throw SettingsError("target.discovery-access-file \(file) cannot be read; create it or leave the key out.")
        }
        guard let document = try? JSONDecoder().decode(Document.self, from: data) else {
            throw SettingsError(
                "target.discovery-access-file \(file) is not {\"initiators\":[…],\"credentials\":[{\"name\",\"secret\"}],"
                    + "\"mutual\":{\"name\",\"secret\"}}; correct it."
            )
        }
        var request = ChangeVolumeRequest()
        request.initiators = document.initiators
        request.credentials = document.credentials
        request.mutual = document.mutual
        do {
            let checked = try VolumeRules.checked(request)
            return AccessRules(
                initiators: checked.initiators ?? [],
                credentials: (checked.credentials ?? []).map { CHAPCredential(name: $0.name, secret: $0.secret) },
                mutual: checked.mutual.map { CHAPCredential(name: $0.name, secret: $0.secret) }
            )
        } catch {
            throw SettingsError("target.discovery-access-file \(file): \(error)")
        }
    }
}
