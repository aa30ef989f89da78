import AshlarCore
import Failpoints
import Foundation
import RPC
import Transport

/// One value of a configuration file.
enum ConfigValue: Sendable {
    case text(String)
    case number(Int)
    case list([String])

    var object: Any {
        switch self {
        case .text(let text): text
        case .number(let number): number
        case .list(let list): list
        }
    }
}

/// Writes what each role instance starts from: certificate, key and configuration file, exactly as an operator would on a
/// host of its own.
struct RoleFiles: Sendable {
    var layout: UpLayout
    var plan: UpPlan
    var record: ClusterRecord
    var postgresDSN: String

    // MARK: Certificates

    /// Creates the authority where there is none, and issues every certificate that is missing or ends soon.
    func writeCertificates(now: Date) throws {
        guard let cluster = ClusterID(record.cluster) else {
            throw UpError("\(layout.clusterFile) names no cluster.", remedy: "Restore it from a backup.")
        }
        try Files.makeDirectory(layout.authorityDirectory, mode: 0o700)
        let authority: CertificateAuthority
        if Files.exists(layout.authorityKey) {
            authority = try CertificateAuthority.load(
                certificatePath: layout.authorityCertificate,
                keyPath: layout.authorityKey
            )
        } else {
            authority = try CertificateAuthority.create(cluster: cluster, now: now)
            try authority.write(certificatePath: layout.authorityCertificate, keyPath: layout.authorityKey)
            Failpoint.upAuthorityWritten.reach()
        }
        guard authority.cluster == cluster else {
            throw UpError("The authority in \(layout.authorityDirectory) belongs to another cluster.")
        }
        for instance in plan.instances {
            try Files.makeDirectory(layout.directory(of: instance), mode: 0o700)
            guard needsCertificate(instance, now: now) else { continue }
            guard let node = NodeIdentity(cluster: cluster, role: instance.role, name: instance.name) else {
                throw UpError("\(instance.name) is no name for a node.")
            }
            let request = CertificateRequest(
                node: node,
                dnsNames: ["localhost"],
                ipAddresses: ["127.0.0.1", "::1"]
            )
            try authority.issue(request, now: now).write(
                certificatePath: layout.certificate(of: instance),
                keyPath: layout.key(of: instance)
            )
            Failpoint.upCertificateWritten.reach()
        }
    }

    private func needsCertificate(_ instance: RoleInstance, now: Date) -> Bool {
        guard Files.exists(layout.key(of: instance)), let pem = Files.text(layout.certificate(of: instance)),
            let description = try? CertificateDescription(certificatePEM: pem)
        else { return true }
        return description.daysLeft(now: now) < UpLimits.certificateDaysLeftMinimum
    }

    // MARK: Configuration files

    /// Writes the configuration file of every instance.
    func writeConfigurations() throws {
        for instance in plan.instances {
            let values = configuration(of: instance)
            let data = try JSONSerialization.data(
                withJSONObject: Self.nested(values),
                options: [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            )
            try Files.replace(
                layout.configuration(of: instance),
                with: String(decoding: data, as: UTF8.self) + "\n",
                mode: 0o600
            )
            Failpoint.upConfigurationWritten.reach()
            if instance.role == .objects { try Files.makeDirectory(layout.blocks(of: instance), mode: 0o700) }
        }
    }

    private func configuration(of instance: RoleInstance) -> [String: ConfigValue] {
        var values: [String: ConfigValue] = [
            "cluster.id": .text(record.cluster),
            "node.name": .text(instance.name),
            "tls.certificate": .text(layout.certificate(of: instance)),
            "tls.key": .text(layout.key(of: instance)),
            "tls.authority": .text(layout.authorityCertificate),
            "metrics.listen": .text("127.0.0.1:\(healthPort(of: instance))"),
            "log.level": .text(plan.logLevel),
        ]
        let caches = plan.instances(of: .cache).map { "127.0.0.1:\(port(of: $0))" }
        let objects = plan.instances(of: .objects).map { "\($0.number)=127.0.0.1:\(port(of: $0))" }
        switch instance.role {
        case .target:
            values["cache.endpoints"] = .list(caches)
            values["objects.endpoints"] = .list(objects)
            // Behind one balanced address all targets are one target port.
            let tag = plan.balancedPortal == nil ? instance.number : 1
            values["target.portal-group-tag"] = .number(tag)
            values["target.relative-port-identifier"] = .number(tag)
            values["target.advertise"] = .text(plan.balancedPortal ?? "127.0.0.1:\(port(of: instance))")
            if let server = plan.isnsServer { values["target.isns-server"] = .text(server) }
            if let loops = plan.targetLoops { values["target.loops"] = .number(loops) }
            values["target.read-cache"] = .text(UpLimits.readCache(targets: plan.instances(of: .target).count))
        case .cache:
            values["objects.endpoints"] = .list(objects)
            values["postgres.dsn"] = .text(postgresDSN)
            values["cache.wal-directory"] = .text(layout.postgresLogDirectory)
            values["cache.memory"] = .text(UpLimits.cacheMemory(caches: caches.count))
        case .objects:
            values["objects.id"] = .number(instance.number)
            values["objects.roots"] = .list([layout.blocks(of: instance)])
        case .agent:
            values["cache.endpoints"] = .list(caches)
            values["objects.endpoints"] = .list(objects)
        case .control:
            values["cache.endpoints"] = .list(caches)
            values["objects.endpoints"] = .list(objects)
            values["postgres.dsn"] = .text(postgresDSN)
            values["control.token-file"] = .text(layout.tokenFile)
        }
        if instance.role != .agent {
            values["listen.address"] = .text("127.0.0.1")
            values["listen.port"] = .number(port(of: instance))
        }
        return values
    }

    /// "a.b" and "a.c" become one object "a".
    private static func nested(_ values: [String: ConfigValue]) -> [String: Any] {
        var result: [String: [String: Any]] = [:]
        for (key, value) in values {
            let parts = key.split(separator: ".", maxSplits: 1).map(String.init)
            result[parts[0], default: [:]][parts[1]] = value.object
        }
        return result
    }

    // MARK: Addresses

    /// The port that the instance listens on; 0 for an agent, which only asks.
    func port(of instance: RoleInstance) -> Int {
        instance.role == .target ? plan.iscsiPort + instance.number - 1 : record.ports[instance.name] ?? 0
    }

    /// The port of its health endpoint.
    func healthPort(of instance: RoleInstance) -> Int {
        record.ports[instance.name + ".health"] ?? 0
    }

    /// What `state.json` says about where the instance is reached.
    func endpoint(of instance: RoleInstance) -> String {
        switch instance.role {
        case .control: "https://127.0.0.1:\(port(of: instance))"
        case .agent: "http://127.0.0.1:\(healthPort(of: instance))"
        case .target, .cache, .objects: "127.0.0.1:\(port(of: instance))"
        }
    }

    /// The URL of the control role's API.
    var apiURL: String {
        endpoint(of: RoleInstance(role: .control, number: 1))
    }
}
