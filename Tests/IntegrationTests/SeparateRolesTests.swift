import AshlarCore
import AshlarTestSupport
import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1
import NIOSSL
import Testing

/// Roles as an operator with five hosts would start them: each alone, from its own configuration file and certificate.
private final class SeparateRoles {
    let directory: String
    let postgres: ExternalPostgres
    let cluster = UUID().uuidString.lowercased()
    let ports: [String: Int]
    private(set) var processes: [String: BackgroundProcess] = [:]

    init(postgres: ExternalPostgres) throws {
        directory = try TestEnvironment.temporaryDirectory()
        self.postgres = postgres
        let first = try TestEnvironment.freePorts(10)
        let purposes = [
            "target", "cache", "objects", "control", "target.health", "cache.health", "objects.health", "agent.health",
            "control.health",
        ]
        ports = Dictionary(uniqueKeysWithValues: zip(purposes, first...))
    }

    func port(_ purpose: String) -> Int { ports[purpose] ?? 0 }

    /// Runs a command of the program that must succeed.
    @discardableResult
    func ashlar(_ arguments: [String]) async throws -> String {
        try await ProcessRunner.check(TestEnvironment.program(), arguments)
    }

    /// Applies the migrations and writes the cluster's name into the database.
    func migrate() async throws {
        try await ashlar([
            "migrate", "up", "--postgres-dsn", postgres.dsn, "--postgres-password-file", postgres.passwordFile,
            "--migrations", TestEnvironment.sources + "/migrations",
        ])
        try await ProcessRunner.check(
            "psql",
            ["-X", "-q", "-d", postgres.dsn, "-c", "UPDATE cluster SET uuid = '\(cluster)'"],
            environment: ["PGPASSWORD": ExternalPostgres.password]
        )
    }

    /// Issues a certificate for each role and writes its configuration file.
    func configure() async throws {
        let authority = directory + "/authority"
        try await ashlar(["certs", "init", "--authority", authority, "--cluster", cluster])
        try Data((String(repeating: "5a", count: 32) + "\n").utf8).write(to: URL(fileURLWithPath: directory + "/token"))
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: directory + "/token")
        for role in Role.allCases {
            let host = "\(directory)/\(role.rawValue)"
            try FileManager.default.createDirectory(atPath: host + "/blocks", withIntermediateDirectories: true)
            try await ashlar([
                "certs", "issue", "--authority", authority, "--role", role.rawValue, "--name", "\(role.rawValue)-a",
                "--host", "127.0.0.1", "--out", host,
            ])
            try FileManager.default.copyItem(atPath: authority + "/certificate.pem", toPath: host + "/authority.pem")
            let file = try JSONSerialization.data(
                withJSONObject: configuration(role, host: host),
                options: [.prettyPrinted]
            )
            try file.write(to: URL(fileURLWithPath: host + "/config.json"))
        }
    }

    private func configuration(_ role: Role, host: String) -> [String: Any] {
        let caches = ["endpoints": ["127.0.0.1:\(port("cache"))"]]
        let objects: [String: Any] = ["endpoints": ["1=127.0.0.1:\(port("objects"))"]]
        let database = ["dsn": postgres.dsn, "password-file": postgres.passwordFile]
        var result: [String: Any] = [
            "cluster": ["id": cluster],
            "node": ["name": "\(role.rawValue)-a"],
            "tls": [
                "certificate": host + "/certificate.pem", "key": host + "/key.pem",
                "authority": host + "/authority.pem",
            ],
            "metrics": ["listen": "127.0.0.1:\(port(role.rawValue + ".health"))"],
            "listen": ["address": "127.0.0.1", "port": port(role.rawValue)] as [String: Any],
        ]
        switch role {
        case .target:
            result["cache"] = caches
            result["objects"] = objects
            result["target"] = ["portal-group-tag": 1, "advertise": "127.0.0.1:\(port("target"))"] as [String: Any]
        case .cache:
            result["objects"] = objects
            result["postgres"] = database
        case .objects:
            result["objects"] = ["id": 1, "roots": [host + "/blocks"]] as [String: Any]
        case .agent:
            result["cache"] = caches
            result["objects"] = objects
            result["listen"] = nil
        case .control:
            result["cache"] = caches
            result["objects"] = objects
            result["postgres"] = database
            result["control"] = ["token-file": directory + "/token"]
        }
        return result
    }

    /// Starts a role and waits until its health endpoint says that it is ready.
    func start(_ role: Role) async throws {
        let process = try BackgroundProcess(
            TestEnvironment.program(),
            [role.rawValue, "--config", "\(directory)/\(role.rawValue)/config.json"],
            environment: ["ASHLAR_MIGRATIONS": TestEnvironment.sources + "/migrations"],
            directory: "\(directory)/\(role.rawValue)"
        )
        processes[role.rawValue] = process
        let url = "http://127.0.0.1:\(port(role.rawValue + ".health"))/health/ready"
        _ = try await ProcessRunner.eventually("\(role) is ready", timeout: .seconds(60)) { () -> Bool? in
            guard process.isRunning else { throw ProcessFailure("\(role) ended: \(process.errors)") }
            let answer = try? await HTTPClient.shared.execute(HTTPClientRequest(url: url), timeout: .seconds(2))
            return answer?.status == .ok ? true : nil
        }
    }

    /// Creates a volume through the API and returns its iSCSI name.
    func createVolume(_ name: String, sizeBytes: Int) async throws -> String {
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(directory + "/control/authority.pem"))
        let client = HTTPClient(
            eventLoopGroupProvider: .singleton,
            configuration: HTTPClient.Configuration(tlsConfiguration: tls)
        )
        defer { client.shutdown { _ in } }
        var request = HTTPClientRequest(url: "https://127.0.0.1:\(port("control"))/v1/volumes")
        request.method = .POST
        request.headers.add(name: "Authorization", value: "Bearer \(String(repeating: "5a", count: 32))")
        request.headers.add(name: "Content-Type", value: "application/json")
        request.body = .bytes(ByteBuffer(string: "{\"name\":\"\(name)\",\"sizeBytes\":\(sizeBytes)}"))
        let response = try await client.execute(request, timeout: .seconds(30))
        let body = String(buffer: try await response.body.collect(upTo: 1 << 20))
        guard (200..<300).contains(Int(response.status.code)) else {
            throw ProcessFailure("\(response.status): \(body)")
        }
        struct Volume: Decodable { var iqn: String }
        return try JSONDecoder().decode(Volume.self, from: Data(body.utf8)).iqn
    }

    /// Asks a role to end, and returns how it did.
    func stop(_ role: Role) async throws -> ProcessResult? {
        guard let process = processes.removeValue(forKey: role.rawValue) else { return nil }
        process.send(SIGTERM)
        return try await process.wait(timeout: .seconds(30))
    }

    func logs() -> String {
        processes.map { "--- \($0.key)\n\($0.value.errors.suffix(3_000))" }.joined(separator: "\n")
    }

    func remove() {
        for process in processes.values { process.send(SIGKILL) }
        try? FileManager.default.removeItem(atPath: directory)
    }
}

extension IntegrationTests {
    @Suite(.serialized) struct SeparateRolesTests {
        private static let order: [Role] = [.objects, .cache, .control, .agent, .target]

        @Test func eachRoleStartsAloneAgainstAnExternalDatabase() async throws {
            let postgres = try await ExternalPostgres.start()
            let roles = try SeparateRoles(postgres: postgres)
            do {
                try await run(roles)
            } catch {
                let logs = roles.logs()
                roles.remove()
                await postgres.stop()
                throw ProcessFailure("\(error)\n\(logs)")
            }
            roles.remove()
            await postgres.stop()
        }

        private func run(_ roles: SeparateRoles) async throws {
            try await roles.migrate()
            try await roles.configure()
            for role in Self.order { try await roles.start(role) }
            let iqn = try await roles.createVolume("demo", sizeBytes: 16 << 20)
            let url = "iscsi://127.0.0.1:\(roles.port("target"))/\(iqn)/0"
            let writes = Initiator.Writes(
                url: url,
                journal: roles.directory + "/journal",
                milliseconds: 2_000,
                sectors: 8_192
            )
            let report = try await Initiator.shared.finish(try await Initiator.shared.start(writes))
            #expect(report.acknowledged > 10)
            try await Initiator.shared.verify([writes], through: url)
            // Whichever host is restarted, in whatever order, the volume is served again.
            for role in [Role.objects, .target, .cache] {
                let end = try await roles.stop(role)
                #expect(end?.isSuccess == true, "\(role): \(end?.summary ?? "did not run")")
                try await roles.start(role)
            }
            try await Initiator.shared.verify([writes], through: url)
            for role in Self.order.reversed() {
                let end = try await roles.stop(role)
                #expect(end?.isSuccess == true, "\(role): \(end?.summary ?? "did not run")")
                #expect(
                    end?.errors.contains(ExternalPostgres.password) == false,
                    "the password is in the log of \(role)"
                )
            }
        }

        @Test func aRoleRefusesTheCertificateOfAnother() async throws {
            let postgres = try await ExternalPostgres.start()
            let roles = try SeparateRoles(postgres: postgres)
            do {
                try await roles.migrate()
                try await roles.configure()
                for (name, host) in [("cache", "target"), ("control", "agent")] {
                    for file in ["certificate.pem", "key.pem"] {
                        let path = "\(roles.directory)/\(name)/\(file)"
                        try FileManager.default.removeItem(atPath: path)
                        try FileManager.default.copyItem(atPath: "\(roles.directory)/\(host)/\(file)", toPath: path)
                    }
                    let result = try await ProcessRunner.run(
                        TestEnvironment.program(),
                        [name, "--config", "\(roles.directory)/\(name)/config.json"],
                        environment: ["ASHLAR_MIGRATIONS": TestEnvironment.sources + "/migrations"],
                        timeout: .seconds(30)
                    )
                    #expect(!result.isSuccess, "\(name) ran with the certificate of \(host)")
                    #expect(result.errors.contains("certificate"), "\(result.summary)")
                }
            } catch {
                roles.remove()
                await postgres.stop()
                throw error
            }
            roles.remove()
            await postgres.stop()
        }
    }
}
