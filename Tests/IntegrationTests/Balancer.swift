import AshlarTestSupport
import Foundation

/// HAProxy in front of the targets of a cluster, from `docs/haproxy.cfg` as it stands but for its addresses.
final class Balancer: Sendable {
    let port: Int
    private let socket: String
    private let directory: String
    private let process: BackgroundProcess

    private init(port: Int, socket: String, directory: String, process: BackgroundProcess) {
        self.port = port
        self.socket = socket
        self.directory = directory
        self.process = process
    }

    /// Starts it, and waits until both targets are up.
    static func start(
        _ cluster: TestCluster,
        port: Int,
        balance: String = "roundrobin",
        sendsProxyHeader: Bool = false
    ) async throws -> Balancer {
        let directory = try TestEnvironment.temporaryDirectory()
        let socket = directory + "/haproxy.sock"
        var changes = [
            ("bind 10.0.0.30:3260", "bind 127.0.0.1:\(port)"), ("/run/haproxy/ashlar.sock", socket),
            ("balance roundrobin", "balance \(balance)"),
        ]
        for target in 1...2 {
            let health = try healthPort(cluster, target: target)
            changes.append(
                (
                    "server target-\(target) 10.0.0.3\(target):3260 check port 9100",
                    "server target-\(target) 127.0.0.1:\(cluster.port + target - 1) check port \(health)"
                )
            )
        }
        if sendsProxyHeader {
            changes.append(("# default-server send-proxy-v2", "default-server send-proxy-v2"))
        }
        var text = try String(contentsOfFile: TestEnvironment.sources + "/docs/haproxy.cfg", encoding: .utf8)
        for (old, new) in changes {
            guard text.components(separatedBy: old).count == 2 else {
                throw ProcessFailure("docs/haproxy.cfg does not have \"\(old)\" once")
            }
            text = text.replacingOccurrences(of: old, with: new)
        }
        let file = directory + "/haproxy.cfg"
        try text.write(toFile: file, atomically: true, encoding: .utf8)
        // A warning about the file is a fault, too.
        let check = try await ProcessRunner.run(program(), ["-c", "-dW", "-f", file])
        guard check.isSuccess else { throw ProcessFailure("docs/haproxy.cfg: \(check.summary)") }
        let balancer = Balancer(
            port: port,
            socket: socket,
            directory: directory,
            process: try BackgroundProcess(program(), ["-db", "-f", file])
        )
        for target in 1...2 { try await balancer.wait(target: target, isUp: true) }
        return balancer
    }

    /// A port that is free now, apart from those that clusters take meanwhile.
    static func freePort() throws -> Int { try TestEnvironment.freePorts(1, in: 19_000..<20_000) }

    /// Runs a body with a cluster of two targets and a balancer in front of them.
    static func with(
        volumes: [String] = ["demo:64M"],
        balance: String = "roundrobin",
        _ body: (TestCluster, Balancer) async throws -> Void
    ) async throws {
        let port = try freePort()
        try await TestCluster.with(volumes: volumes, extra: ["--balanced-portal", "127.0.0.1:\(port)"]) { cluster in
            let balancer = try await start(cluster, port: port, balance: balance)
            do {
                try await body(cluster, balancer)
            } catch {
                let log = balancer.process.errors.suffix(4_000)
                await balancer.stop()
                throw ProcessFailure("\(error)\n--- haproxy\n\(log)")
            }
            await balancer.stop()
        }
    }

    func stop() async {
        process.send(SIGTERM)
        _ = try? await process.wait(timeout: .seconds(10))
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// The program lies where only root looks for programs.
    private static func program() -> String {
        ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"].first { FileManager.default.isExecutableFile(atPath: $0) }
            ?? "haproxy"
    }

    private static func healthPort(_ cluster: TestCluster, target: Int) throws -> Int {
        struct Document: Decodable {
            struct Metrics: Decodable { var listen: String }
            var metrics: Metrics
        }
        let data = FileManager.default.contents(atPath: "\(cluster.data)/target-\(target)/config.json") ?? Data()
        let listen = try JSONDecoder().decode(Document.self, from: data).metrics.listen
        guard let port = listen.split(separator: ":").last.flatMap({ Int($0) }) else {
            throw ProcessFailure("\(listen) has no port")
        }
        return port
    }

    // MARK: Its socket

    /// Sends a command to the socket for administrators; returns the answer.
    @discardableResult
    func command(_ text: String) throws -> String {
        let descriptor = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw ProcessFailure("no socket") }
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        guard socket.utf8.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw ProcessFailure("\(socket) is too long")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: socket.utf8) }
        let status = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        let line = Array((text + "\n").utf8)
        guard status == 0, send(descriptor, line, line.count, Int32(MSG_NOSIGNAL)) == line.count else {
            throw ProcessFailure("haproxy's socket: errno \(errno)")
        }
        var answer: [UInt8] = []
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = recv(descriptor, &bytes, bytes.count, 0)
            guard count > 0 else { return String(decoding: answer, as: UTF8.self) }
            answer += bytes[..<count]
        }
    }

    /// Waits until a target, counted from 1, is up or down.
    func wait(target: Int, isUp: Bool) async throws {
        _ = try await ProcessRunner.eventually("target-\(target) is \(isUp ? "up" : "down")", timeout: .seconds(60)) {
            () -> Bool? in
            guard self.process.isRunning else { throw ProcessFailure("haproxy ended: \(self.process.errors)") }
            // The first socket commands may come before it is there.
            let answer = (try? self.command("show stat")) ?? ""
            let row = answer.split(separator: "\n").first { $0.hasPrefix("targets,target-\(target),") }
            let fields = row?.split(separator: ",", omittingEmptySubsequences: false) ?? []
            guard fields.count > 18 else { return nil }
            return (fields[17] == "UP") == isUp ? true : nil
        }
    }

    /// Cuts all sessions to a target.
    func cut(target: Int) throws { try command("shutdown sessions server targets/target-\(target)") }
}
