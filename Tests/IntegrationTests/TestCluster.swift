import AshlarTestSupport
import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1
import NIOSSL
import Testing

/// All integration tests: they start servers and take turns.
@Suite(.serialized) struct IntegrationTests {}

/// What `ashlar up --json` prints, and keeps in `state.json`.
struct ClusterState: Decodable, Sendable {
    struct Portal: Decodable, Sendable {
        var volume: String
        var address: String
        var port: Int
        var iqn: String
        var pid: Int32
    }

    struct RoleProcess: Decodable, Sendable {
        var role: String
        var pid: Int32
        var endpoint: String
    }

    var ready: Bool
    var portals: [Portal]
    var postgres: String
    var api: String
    var roles: [RoleProcess]
    var data: String
    var token: String
    var authority: String

    func pids(_ role: String) -> [Int32] {
        roles.filter { $0.role == role }.map(\.pid)
    }
}

/// Directories, ports and programs of the tests.
enum TestEnvironment {
    /// The built program: named by `ASHLAR_PROGRAM`, else beside the test bundle.
    static func program() throws -> String {
        if let named = ProcessInfo.processInfo.environment["ASHLAR_PROGRAM"] { return named }
        var candidates = [Bundle.main.bundlePath, Bundle.main.executablePath ?? ""]
        candidates += CommandLine.arguments.filter { $0.hasPrefix("/") }
        if let own = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") {
            candidates.append(own)
        }
        for candidate in candidates {
            for folder in [candidate, URL(fileURLWithPath: candidate).deletingLastPathComponent().path] {
                let path = folder + "/ashlar"
                var isDirectory: ObjCBool = false
                if FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory), !isDirectory.boolValue,
                    FileManager.default.isExecutableFile(atPath: path)
                {
                    return path
                }
            }
        }
        throw ProcessFailure("the program ashlar is not beside the tests; name it in ASHLAR_PROGRAM")
    }

    /// The root of the source tree.
    static let sources = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

    /// A new directory that every system user can reach.
    static func temporaryDirectory() throws -> String {
        let path = "/tmp/ashlar-it-\(UUID().uuidString.prefix(8).lowercased())"
        try FileManager.default.createDirectory(
            atPath: path,
            withIntermediateDirectories: false,
            attributes: [.posixPermissions: 0o755]
        )
        return path
    }

    /// The first of `count` neighbouring ports that are free now.
    static func freePorts(_ count: Int, in range: Range<Int> = 12_000..<19_000) throws -> Int {
        for _ in 0..<200 {
            let first = Int.random(in: range)
            if (first..<first + count).allSatisfy(isFree) { return first }
        }
        throw ProcessFailure("no free ports")
    }

    private static func isFree(_ port: Int) -> Bool {
        let socket = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard socket >= 0 else { return false }
        defer { close(socket) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port)).bigEndian
        address.sin_addr = in_addr(s_addr: UInt32(0x7F00_0001).bigEndian)
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }
}

/// A cluster that `ashlar up` runs for a test.
final class TestCluster: Sendable {
    let data: String
    let port: Int
    let targets: Int
    private let process: BackgroundProcess

    private init(data: String, port: Int, targets: Int, process: BackgroundProcess) {
        self.data = data
        self.port = port
        self.targets = targets
        self.process = process
    }

    /// Starts a cluster and waits until it is ready.
    ///
    /// - Parameter directWrites: Large writes go straight to objects, as they do by default; else all are items first.
    static func start(
        volumes: [String] = ["demo:64M"],
        targets: Int = 2,
        directWrites: Bool = false,
        data: String? = nil,
        port: Int? = nil,
        extra: [String] = []
    ) async throws -> TestCluster {
        let directory = try data ?? TestEnvironment.temporaryDirectory() + "/data"
        let first = try port ?? TestEnvironment.freePorts(targets)
        var arguments = [
            "up", "--json", "--data", directory, "--iscsi-port", String(first), "--targets", String(targets),
        ]
        arguments += volumes.flatMap { ["--volume", $0] } + extra
        let process = try BackgroundProcess(
            TestEnvironment.program(),
            arguments,
            environment: ["ASHLAR_MIGRATIONS": TestEnvironment.sources + "/migrations"]
        )
        let cluster = TestCluster(data: directory, port: first, targets: targets, process: process)
        do {
            _ = try await ProcessRunner.eventually("ashlar up is ready", timeout: .seconds(120)) { () -> Bool? in
                guard process.isRunning else {
                    throw ProcessFailure("ashlar up ended: \(process.output)\(process.errors)")
                }
                return process.output.contains("\"ready\":true") ? true : nil
            }
            for volume in directWrites ? [] : volumes {
                let name = volume.prefix { $0 != ":" }
                let policy = #"{"policy":{"directWriteMinimumBytes":0}}"#
                let answer = try await cluster.api("PATCH", "/v1/volumes/\(name)", policy)
                // A cluster that is started again may have lost the volume meanwhile.
                guard (200..<300).contains(answer.status) || answer.status == 404 else {
                    throw ProcessFailure("\(policy): \(answer)")
                }
            }
        } catch {
            process.send(SIGKILL)
            throw ProcessFailure("\(error)\n\(cluster.logs())")
        }
        return cluster
    }

    /// Runs a body with a cluster, which is stopped, and its data removed, in every case. A failure shows the logs.
    static func with(
        volumes: [String] = ["demo:64M"],
        targets: Int = 2,
        directWrites: Bool = false,
        extra: [String] = [],
        _ body: (TestCluster) async throws -> Void
    ) async throws {
        try await start(volumes: volumes, targets: targets, directWrites: directWrites, extra: extra).end(after: body)
    }

    /// Runs a body, and stops the cluster and removes its data in every case. A failure shows the logs.
    func end(after body: (TestCluster) async throws -> Void) async throws {
        do {
            try await body(self)
        } catch {
            let logs = logs()
            _ = try? await stop()
            remove()
            throw ProcessFailure("\(error)\n\(logs)")
        }
        let result = try await stop()
        #expect(result.isSuccess, "ashlar up: \(result.summary)")
        remove()
    }

    /// Stops everything in order, as Ctrl-C does.
    func stop() async throws -> ProcessResult {
        process.send(SIGINT)
        return try await process.wait(timeout: .seconds(90))
    }

    /// Kills `ashlar up` itself; its children end with it.
    func killAll() async throws {
        process.send(SIGKILL)
        _ = try await process.wait(timeout: .seconds(10))
    }

    /// Removes the data; after ``stop()``.
    func remove() {
        try? FileManager.default.removeItem(atPath: URL(fileURLWithPath: data).deletingLastPathComponent().path)
    }

    /// The ends of all logs.
    func logs() -> String {
        let directory = data + "/log"
        let names = ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).sorted()
        let parts = names.filter { $0.hasSuffix(".log") }.map { name -> String in
            let text = String(
                decoding: FileManager.default.contents(atPath: "\(directory)/\(name)") ?? Data(),
                as: UTF8.self
            )
            return "--- \(name)\n" + text.split(separator: "\n").suffix(15).joined(separator: "\n")
        }
        return "--- ashlar up\n\(process.errors.suffix(2_000))\n" + parts.joined(separator: "\n")
    }

    // MARK: What runs

    /// `state.json`, as it is now.
    func state() throws -> ClusterState {
        guard let data = FileManager.default.contents(atPath: data + "/state.json") else {
            throw ProcessFailure("there is no state.json")
        }
        return try JSONDecoder().decode(ClusterState.self, from: data)
    }

    /// Kills a process of a role with SIGKILL and waits until `ashlar up` has started it again.
    func killAndWait(_ role: String, _ index: Int = 0) async throws {
        let old = try kill(role, index)
        _ = try await ProcessRunner.eventually("\(role) runs again", timeout: .seconds(90)) { () -> Bool? in
            let state = try self.state()
            return state.ready && !state.pids(role).contains(old) ? true : nil
        }
    }

    /// Kills a process of a role with SIGKILL and returns its number.
    @discardableResult
    func kill(_ role: String, _ index: Int = 0) throws -> Int32 {
        let pids = try state().pids(role)
        guard index < pids.count, pids[index] > 0 else { throw ProcessFailure("no \(role) \(index) runs") }
        _ = Foundation.kill(pids[index], SIGKILL)
        return pids[index]
    }

    /// The iSCSI URL of a volume through a target, which is counted from 1.
    func url(target: Int = 1, volume: String = "demo", login: String = "") throws -> String {
        guard let portal = try state().portals.first(where: { $0.volume == volume && $0.port == port + target - 1 })
        else {
            throw ProcessFailure("no portal for \(volume) through target \(target)")
        }
        return "iscsi://\(login)\(portal.address):\(portal.port)/\(portal.iqn)/0"
    }

    // MARK: SQL and API

    /// Runs a statement and returns what psql prints, unaligned and without heads.
    func sql(_ statement: String) async throws -> String {
        try await ProcessRunner.check(
            "psql",
            ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", state().postgres, "-c", statement]
        ).trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// A request to the control role; returns the answer's status and body.
    @discardableResult
    func api(_ method: String, _ path: String, _ body: String? = nil) async throws -> (status: Int, body: String) {
        let state = try state()
        let token = String(decoding: FileManager.default.contents(atPath: state.token) ?? Data(), as: UTF8.self)
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(state.authority))
        let client = HTTPClient(
            eventLoopGroupProvider: .singleton,
            configuration: HTTPClient.Configuration(tlsConfiguration: tls)
        )
        do {
            var request = HTTPClientRequest(url: state.api + path)
            request.method = HTTPMethod(rawValue: method)
            request.headers.add(name: "Authorization", value: "Bearer \(token.trimmingCharacters(in: .newlines))")
            if let body {
                request.headers.add(name: "Content-Type", value: "application/json")
                request.body = .bytes(ByteBuffer(string: body))
            }
            let response = try await client.execute(request, timeout: .seconds(30))
            let answer = String(buffer: try await response.body.collect(upTo: 4 << 20))
            try await client.shutdown()
            return (Int(response.status.code), answer)
        } catch {
            try? await client.shutdown()
            throw error
        }
    }

    /// The sum of a metric of a process over its labels that contain a text.
    func metric(_ node: String, _ name: String, _ labels: String = "") async throws -> Int {
        struct Document: Decodable {
            struct Metrics: Decodable { var listen: String }
            var metrics: Metrics
        }
        let bytes = FileManager.default.contents(atPath: "\(data)/\(node)/config.json") ?? Data()
        let listen = try JSONDecoder().decode(Document.self, from: bytes).metrics.listen
        let request = HTTPClientRequest(url: "http://\(listen)/metrics")
        let response = try await HTTPClient.shared.execute(request, timeout: .seconds(30))
        let text = String(buffer: try await response.body.collect(upTo: 4 << 20))
        return text.split(separator: "\n").reduce(0) { sum, line in
            guard line.hasPrefix(name), !line.hasPrefix("#"), labels.isEmpty || line.contains(labels) else {
                return sum
            }
            return sum + (line.split(separator: " ").last.flatMap { Int($0) } ?? 0)
        }
    }

    /// Has everything moved to block objects and, with a limit, evicted down to it; waits for both.
    func drain(volume: String = "demo", cachedBytesMaximum: UInt64? = nil) async throws {
        _ = try await ProcessRunner.eventually("nothing is unmoved", timeout: .seconds(120)) { () -> Bool? in
            // Asked again and again: what was written since the last time is moved, too.
            let moved = try await self.api("POST", "/v1/volumes/\(volume)/move")
            #expect((200..<300).contains(moved.status), "\(moved)")
            try await Task.sleep(for: .milliseconds(300))
            return try await self.sql("SELECT count(*) FROM ashlar_inspect.unmoved_queue WHERE volume = '\(volume)'")
                == "0" ? true : nil
        }
        guard let cachedBytesMaximum else { return }
        let changed = try await api(
            "PATCH",
            "/v1/volumes/\(volume)",
            "{\"policy\":{\"cachedBytesMaximum\":\(cachedBytesMaximum)}}"
        )
        #expect((200..<300).contains(changed.status), "\(changed)")
        _ = try await ProcessRunner.eventually("evicted to \(cachedBytesMaximum)", timeout: .seconds(120)) {
            () -> Bool? in
            let cached = try await self.sql("SELECT cached_bytes FROM ashlar_inspect.space WHERE volume = '\(volume)'")
            return (UInt64(cached) ?? .max) <= cachedBytesMaximum ? true : nil
        }
    }
}
