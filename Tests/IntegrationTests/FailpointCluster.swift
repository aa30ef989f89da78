import AshlarCore
import AshlarTestSupport
import AsyncHTTPClient
import Failpoints
import Foundation
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1
import NIOSSL
import RPC
import Testing
import Transport

/// Every role as a process of its own on one PostgreSQL, so that a test can start any of them to end at a failpoint.
final class FailpointCluster: Sendable {
    /// A process of a role.
    enum Node: String, CaseIterable, Sendable {
        case target
        case cache
        /// Another cache server, which runs only where volumes are to be handed over.
        case successor
        case objects
        /// Another object server, which nobody asks.
        case spare
        case agent
        case control

        var role: Role {
            switch self {
            case .target: .target
            case .cache, .successor: .cache
            case .objects, .spare: .objects
            case .agent: .agent
            case .control: .control
            }
        }
    }

    let directory: String
    let postgres: ExternalPostgres
    private let id = UUID().uuidString.lowercased()
    private let firstPort: Int
    private let token = String(repeating: "5a", count: 32)
    private let processes = NIOLockedValueBox<[Node: BackgroundProcess]>([:])
    private let client: HTTPClient

    /// What a process may take to come to a point, to be ready, or to end.
    private static let patience: Duration = .seconds(90)

    init(postgres: ExternalPostgres) throws {
        self.postgres = postgres
        directory = try TestEnvironment.temporaryDirectory()
        firstPort = try TestEnvironment.freePorts(2 * Node.allCases.count)
        try Self.writeFiles(directory: directory, id: id, token: token)
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(directory + "/authority.pem"))
        client = HTTPClient(
            eventLoopGroupProvider: .singleton,
            configuration: HTTPClient.Configuration(tlsConfiguration: tls)
        )
        for node in Node.allCases {
            let data = try JSONSerialization.data(withJSONObject: configuration(node))
            try data.write(to: URL(fileURLWithPath: "\(home(node))/config.json"))
        }
    }

    func home(_ node: Node) -> String { "\(directory)/\(node.rawValue)" }

    private func port(_ node: Node, isHealth: Bool = false) -> Int {
        firstPort + 2 * (Node.allCases.firstIndex(of: node) ?? 0) + (isHealth ? 1 : 0)
    }

    private static func writeFiles(directory: String, id: String, token: String) throws {
        guard let cluster = ClusterID(id) else { throw ProcessFailure("\(id) is no cluster") }
        let authority = try CertificateAuthority.create(cluster: cluster, now: Date())
        try authority.write(certificatePath: directory + "/authority.pem", keyPath: directory + "/authority.key")
        try Data((token + "\n").utf8).write(to: URL(fileURLWithPath: directory + "/token"))
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: directory + "/token")
        for node in Node.allCases {
            let home = "\(directory)/\(node.rawValue)"
            try FileManager.default.createDirectory(atPath: home + "/blocks", withIntermediateDirectories: true)
            guard let identity = NodeIdentity(cluster: cluster, role: node.role, name: node.rawValue) else {
                throw ProcessFailure("\(node) is no name")
            }
            try authority.issue(CertificateRequest(node: identity, ipAddresses: ["127.0.0.1"]), now: Date())
                .write(certificatePath: home + "/certificate.pem", keyPath: home + "/key.pem")
        }
    }

    private func configuration(_ node: Node) -> [String: Any] {
        let objects: [String: Any] = ["endpoints": ["1=127.0.0.1:\(port(.objects))"]]
        let caches = ["endpoints": ["127.0.0.1:\(port(.cache))"]]
        let database = ["dsn": postgres.localDSN()]
        var result: [String: Any] = [
            "cluster": ["id": id],
            "node": ["name": node.rawValue],
            "tls": [
                "certificate": home(node) + "/certificate.pem", "key": home(node) + "/key.pem",
                "authority": directory + "/authority.pem",
            ],
            "metrics": ["listen": "127.0.0.1:\(port(node, isHealth: true))"],
            "listen": ["address": "127.0.0.1", "port": port(node)] as [String: Any],
        ]
        switch node {
        case .target:
            result["cache"] = ["endpoints": [Node.cache, .successor].map { "127.0.0.1:\(port($0))" }]
            result["objects"] = objects
        case .cache, .successor:
            result["objects"] = objects
            result["postgres"] = database
        case .objects, .spare:
            result["objects"] = ["id": node == .objects ? 1 : 2, "roots": [home(node) + "/blocks"]] as [String: Any]
        case .agent:
            result["cache"] = caches
            result["objects"] = objects
            result["listen"] = nil
            result["agent"] = ["idle-milliseconds": 20, "grace-seconds": 1, "scan-seconds": 1]
        case .control:
            result["cache"] = caches
            result["objects"] = objects
            result["postgres"] = database
            result["control"] = ["token-file": directory + "/token"]
        }
        return result
    }

    // MARK: Processes

    /// Runs a command of the program against the database.
    func migrate(_ arguments: [String], at point: Failpoint? = nil, count: Int = 1) async throws -> ProcessResult {
        try await ProcessRunner.run(
            TestEnvironment.program(),
            ["migrate"] + arguments
                + ["--postgres-dsn", postgres.localDSN(), "--migrations", TestEnvironment.sources + "/migrations"],
            environment: [ArmedFailpoint.variable: point.map { "\($0.rawValue):\(count)" } ?? ""]
        )
    }

    /// Gives the database this cluster's name.
    func claim() async throws { _ = try await sql("UPDATE cluster SET uuid = '\(id)'") }

    /// Starts a process, and returns at once.
    @discardableResult
    private func spawn(_ node: Node, at point: Failpoint? = nil) throws -> BackgroundProcess {
        let process = try BackgroundProcess(
            TestEnvironment.program(),
            [node.role.rawValue, "--config", home(node) + "/config.json"],
            environment: [
                ArmedFailpoint.variable: point?.rawValue ?? "",
                "ASHLAR_MIGRATIONS": TestEnvironment.sources + "/migrations",
            ],
            directory: home(node)
        )
        processes.withLockedValue { $0[node] = process }
        return process
    }

    /// Starts a process, and returns when it is ready or, with a point at which it ends, when it has ended.
    func start(_ node: Node, at point: Failpoint? = nil) async throws {
        let process = try spawn(node, at: point)
        let url = "http://127.0.0.1:\(port(node, isHealth: true))/health/ready"
        _ = try await ProcessRunner.eventually("\(node) is ready", timeout: Self.patience) { () -> Bool? in
            guard process.isRunning else {
                if point != nil { return true }
                throw ProcessFailure("\(node) ended: \(process.errors)")
            }
            let answer = try? await HTTPClient.shared.execute(HTTPClientRequest(url: url), timeout: .seconds(2))
            if let answer { _ = try? await answer.body.collect(upTo: 1 << 16) }
            return answer?.status == .ok ? true : nil
        }
    }

    func isRunning(_ node: Node) -> Bool { processes.withLockedValue { $0[node]?.isRunning ?? false } }

    func send(_ signal: Int32, to node: Node) { processes.withLockedValue { $0[node]?.send(signal) } }

    /// Waits for the end of a process.
    func end(of node: Node) async throws -> ProcessResult {
        guard let process = processes.withLockedValue({ $0.removeValue(forKey: node) }) else {
            throw ProcessFailure("\(node) was not started")
        }
        return try await process.wait(timeout: Self.patience)
    }

    /// Kills a process, if it runs, and lets what it had be taken at once.
    func kill(_ node: Node) async throws {
        if processes.withLockedValue({ $0[node] }) != nil {
            send(SIGKILL, to: node)
            _ = try await end(of: node)
        }
        // What sees a cache server end says so in PostgreSQL, as `ashlar up` does.
        guard node.role == .cache else { return }
        _ = try await sql("UPDATE cache_servers SET lease_end = clock_timestamp() WHERE name = '\(node.rawValue)'")
    }

    /// Waits until a process has ended at a point, and fails where it ended otherwise. `trigger` is done again and again.
    func death(of node: Node, at point: Failpoint, _ trigger: () async throws -> Void = {}) async throws {
        let clock = ContinuousClock()
        let deadline = clock.now + Self.patience
        while isRunning(node) {
            guard clock.now < deadline else {
                throw ProcessFailure("\(node) never came to \(point.rawValue)")
            }
            try await trigger()
            try await Task.sleep(for: .milliseconds(20))
        }
        Self.expectDeath(try await end(of: node), at: point)
        try await kill(node)
    }

    /// Starts the agent anew, unless it has come to its point.
    func restartAgent(at point: Failpoint?) async throws {
        guard let process = processes.withLockedValue({ $0[.agent] }) else { return }
        process.send(SIGKILL)
        let end = try await process.wait(timeout: Self.patience)
        if let point, end.errors.contains("failpoint \(point.rawValue) reached") { return }
        // It may wait for one that is dead now.
        try spawn(.agent, at: point)
    }

    /// A process that has ended at a point was killed, and has said where.
    static func expectDeath(_ end: ProcessResult, at point: Failpoint) {
        #expect(
            end.status == -SIGKILL && end.errors.contains("failpoint \(point.rawValue) reached"),
            "not at \(point.rawValue): \(end.summary)"
        )
    }

    func logs() -> String {
        let all = processes.withLockedValue { $0 }
        return all.map { "--- \($0.key)\n\($0.value.errors.suffix(2_000))" }.joined(separator: "\n")
    }

    /// What the database says of owners, and what its sessions do: where nothing moves, one of them tells why.
    func databaseState() async -> String {
        let queries = [
            """
            SELECT 'volume ' || v.name, e.epoch, e.owner, e.handed_to, clock_timestamp() - e.handed_at
            FROM volumes v JOIN volume_epochs e ON e.volume_id = v.id ORDER BY 1
            """,
            """
            SELECT 'server ' || id, name, endpoint, lease_end - clock_timestamp(), stopping
            FROM cache_servers ORDER BY id DESC LIMIT 8
            """,
            """
            SELECT 'session ' || pid, application_name, state, wait_event_type, wait_event,
                clock_timestamp() - xact_start, pg_blocking_pids(pid), left(regexp_replace(query, '\\s+', ' ', 'g'), 120)
            FROM pg_stat_activity WHERE backend_type = 'client backend' ORDER BY pid
            """,
        ]
        var lines: [String] = []
        for query in queries {
            do { lines.append(try await sql(query)) } catch { lines.append("\(error)") }
        }
        return lines.joined(separator: "\n")
    }

    /// Asks all processes to end, which they must do in order, and removes everything.
    func stop() async throws {
        for node in [Node.agent, .target, .control, .cache, .successor, .objects, .spare] where isRunning(node) {
            send(SIGTERM, to: node)
            let end = try await end(of: node)
            #expect(end.isSuccess, "\(node): \(end.summary)")
        }
    }

    func remove() async {
        let left = processes.withLockedValue { processes in
            defer { processes = [:] }
            return processes
        }
        for process in left.values {
            process.send(SIGKILL)
            _ = try? await process.wait(timeout: .seconds(10))
        }
        try? await client.shutdown()
        try? FileManager.default.removeItem(atPath: directory)
    }

    // MARK: Asking

    /// Runs statements as PostgreSQL's superuser; returns what psql prints, unaligned and without heads.
    func sql(_ statements: String) async throws -> String {
        try await ProcessRunner.check(
            "psql",
            [
                "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", postgres.localDSN(user: "postgres"), "-c",
                statements,
            ]
        ).trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// Has a session hold the lock that a reader of a table takes; see ``letGo(_:)``.
    func hold(_ table: String) async throws -> BackgroundProcess {
        let statements = "BEGIN; LOCK TABLE \(table) IN ACCESS SHARE MODE; SELECT pg_sleep(600)"
        let process = try BackgroundProcess(
            "psql",
            ["-X", "-q", "-d", postgres.localDSN(user: "postgres"), "-c", statements],
            environment: ["PGAPPNAME": Self.reader]
        )
        let held = """
            SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
            WHERE a.application_name = '\(Self.reader)' AND l.relation = '\(table)'::regclass AND l.granted
            """
        _ = try await ProcessRunner.eventually("\(table) is being read", timeout: Self.patience) { () -> Bool? in
            try await self.sql(held) == "1" ? true : nil
        }
        return process
    }

    /// Ends what ``hold(_:)`` has begun.
    func letGo(_ process: BackgroundProcess) async throws {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '\(Self.reader)'"
        _ = try await sql(end)
        _ = try await process.wait(timeout: Self.patience)
    }

    private static let reader = "reader"

    /// A request to the control role.
    func api(_ method: String, _ path: String, _ body: String? = nil) async throws -> (status: Int, body: String) {
        var request = HTTPClientRequest(url: "https://127.0.0.1:\(port(.control))\(path)")
        request.method = HTTPMethod(rawValue: method)
        request.headers.add(name: "Authorization", value: "Bearer \(token)")
        if let body {
            request.headers.add(name: "Content-Type", value: "application/json")
            request.body = .bytes(ByteBuffer(string: body))
        }
        let response = try await client.execute(request, timeout: .seconds(30))
        return (Int(response.status.code), String(buffer: try await response.body.collect(upTo: 4 << 20)))
    }

    /// A request that must be granted; returns the answer's body.
    @discardableResult
    func granted(_ method: String, _ path: String, _ body: String? = nil) async throws -> String {
        let answer = try await api(method, path, body)
        guard (200..<300).contains(answer.status) else { throw ProcessFailure("\(method) \(path): \(answer)") }
        return answer.body
    }

    /// Whether the cache server says itself that it serves a volume.
    func serves(_ volume: String) async throws -> Bool {
        let text = try await granted("GET", "/v1/caches")
        let list = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
        let volumes = (list?["caches"] as? [[String: Any]] ?? []).flatMap { $0["volumes"] as? [[String: Any]] ?? [] }
        return volumes.contains { $0["name"] as? String == volume }
    }

    /// Runs a job of the control role to its end; returns its document.
    func job(_ method: String, _ path: String, _ body: String? = nil) async throws -> [String: Any] {
        func document(_ text: String) throws -> [String: Any] {
            try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any] ?? [:]
        }
        let reference = try document(try await granted(method, path, body))
        guard let id = reference["job"] as? String else { throw ProcessFailure("\(path) begins no job") }
        while true {
            let job = try document(try await granted("GET", "/v1/jobs/\(id)"))
            if job["state"] as? String != "running" { return job }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    /// What a check finds, by kind.
    func findings(_ body: String = "{}") async throws -> [String: Int] {
        let job = try await job("POST", "/v1/fsck", body)
        guard job["state"] as? String == "done", let report = job["report"] as? [String: Any],
            let counts = report["counts"] as? [String: Int]
        else { throw ProcessFailure("the check failed: \(job)") }
        #expect((report["incomplete"] as? [String])?.isEmpty == true, "\(report)")
        return counts
    }

    /// Creates a volume that keeps nothing in the cache which has been moved; returns its iSCSI URL.
    @discardableResult
    func create(_ volume: String, mebibytes: Int) async throws -> String {
        let policy =
            #"{"cachedBytesMaximum":0,"readFill":"always","unmovedAgeMaximumSeconds":3600,"directWriteMinimumBytes":0}"#
        try await granted(
            "POST",
            "/v1/volumes",
            #"{"name":"\#(volume)","sizeBytes":\#(mebibytes << 20),"policy":\#(policy)}"#
        )
        return try await url(volume)
    }

    func iqn(_ volume: String) async throws -> String {
        let text = try await granted("GET", "/v1/volumes/\(volume)")
        let document = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
        guard let iqn = document?["iqn"] as? String else { throw ProcessFailure("\(volume) has no iqn") }
        return iqn
    }

    func url(_ volume: String) async throws -> String {
        "iscsi://127.0.0.1:\(port(.target))/\(try await iqn(volume))/0"
    }

    /// Commands of qemu-io, which must all be done. They are repeated, as hosts do and qemu-io does not, where the login is refused
    /// because nobody serves the volume just now, or commands are aborted because their owner was lost.
    func io(_ url: String, _ commands: [String]) async throws {
        let result = try await ProcessRunner.eventually("commands are done", timeout: Self.patience) {
            () -> ProcessResult? in
            let result = try await Images.io(url, commands)
            let isLost = ["can't open device", "COMMAND ABORTED"].contains { result.errors.contains($0) }
            return isLost ? nil : result
        }
        guard result.isSuccess, !result.output.contains("verification failed") else {
            throw ProcessFailure("\(commands): \(result.summary)")
        }
    }

    /// A session with a volume.
    func session(_ volume: String, name: String) async throws -> RawInitiator {
        let iqn = try await iqn(volume)
        return try await ProcessRunner.eventually("a login", timeout: Self.patience) { () -> RawInitiator? in
            let initiator = try RawInitiator(port: self.port(.target), iqn: iqn, name: name)
            return try initiator.tryLogIn() == nil ? initiator : nil
        }
    }

    /// Moves everything of a volume to objects and waits until it is there.
    func moveAll(_ volume: String) async throws {
        let unmoved = """
            SELECT count(*) FROM block_items i JOIN volumes v ON v.id = i.volume_id
            WHERE v.name = '\(volume)' AND NOT i.item ? 'Moved'
            """
        _ = try await ProcessRunner.eventually("\(volume) is moved", timeout: Self.patience) { () -> Bool? in
            _ = try await self.api("POST", "/v1/volumes/\(volume)/move")
            return try await self.sql(unmoved) == "0" ? true : nil
        }
    }

    /// A connection to an object server, with the certificate of an agent.
    func objectClient() throws -> (identity: TLSIdentity, endpoint: RPCEndpoint) {
        let identity = try TLSIdentity(
            certificatePath: home(.agent) + "/certificate.pem",
            keyPath: home(.agent) + "/key.pem",
            authorityPath: directory + "/authority.pem"
        )
        guard let endpoint = RPCEndpoint("127.0.0.1:\(port(.objects))", defaultPort: 0) else {
            throw ProcessFailure("no endpoint")
        }
        return (identity, endpoint)
    }
}
