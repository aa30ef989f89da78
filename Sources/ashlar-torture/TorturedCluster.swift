import AshlarTestSupport
import Foundation

/// An `ashlar up` that is to be tortured.
final class TorturedCluster {
    /// What is needed of `state.json`.
    struct State: Decodable {
        struct Portal: Decodable {
            var address: String
            var port: Int
            var iqn: String
        }

        struct RoleProcess: Decodable {
            var role: String
            var pid: Int32
        }

        var ready: Bool
        var portals: [Portal]
        var roles: [RoleProcess]
        var postgres: String

        /// The process numbers of a role's processes that run.
        func pids(_ role: String) -> [Int32] {
            roles.filter { $0.role == role && $0.pid > 0 }.map(\.pid)
        }
    }

    static let volume = "torture"
    static let volumeSize = "64M"
    static let caches = 2
    static let startTimeout = Duration.seconds(180)
    static let moveTime = Duration.seconds(4)
    static let stopTimeout = Duration.seconds(120)

    let program: String
    let data: String
    private let process: BackgroundProcess

    private init(program: String, data: String, process: BackgroundProcess) {
        self.program = program
        self.data = data
        self.process = process
    }

    /// Starts three targets, two cache servers, two object servers and two agents, and waits until they are ready.
    ///
    /// - Throws: `ProcessFailure`.
    static func start(program: String, data: String, port: Int) async throws -> TorturedCluster {
        let process = try BackgroundProcess(
            program,
            [
                "up", "--json", "--data", data, "--iscsi-port", String(port), "--targets", "3", "--caches", "\(caches)",
                "--objects", "2", "--agents", "2", "--volume", "\(volume):\(volumeSize)",
            ]
        )
        let cluster = TorturedCluster(program: program, data: data, process: process)
        do {
            _ = try await ProcessRunner.eventually("ashlar up is ready", timeout: startTimeout) { () -> Bool? in
                guard process.isRunning else { throw ProcessFailure("it ended") }
                return process.output.contains("\"ready\":true") ? true : nil
            }
        } catch {
            process.send(SIGKILL)
            throw ProcessFailure("ashlar up: \(error)\n\(process.errors.suffix(4_000))")
        }
        return cluster
    }

    /// `state.json`, as it is now.
    func state() throws -> State {
        guard let bytes = FileManager.default.contents(atPath: data + "/state.json") else {
            throw ProcessFailure("there is no \(data)/state.json")
        }
        return try JSONDecoder().decode(State.self, from: bytes)
    }

    /// The volume's URLs, one a target.
    func urls() throws -> [String] {
        try state().portals.map { "iscsi://\($0.address):\($0.port)/\($0.iqn)/0" }
    }

    /// Waits until a process that has ended has a successor.
    func waitUntilRunning(role: String, without pid: Int32, timeout: Duration) async throws {
        _ = try await ProcessRunner.eventually("\(role) runs again", timeout: timeout) { () -> Bool? in
            guard self.process.isRunning else { throw ProcessFailure("ashlar up ended: \(self.process.errors)") }
            let state = try self.state()
            return state.ready && !state.pids(role).contains(pid) ? true : nil
        }
    }

    /// Runs a statement, which the faults may keep from coming through.
    func sql(_ statement: String) async throws {
        _ = try await ProcessRunner.run("psql", ["-X", "-q", "-d", state().postgres, "-c", statement])
    }

    /// Has a cache server hand everything over, or take its share again; `false` where that did not come through.
    func drain(_ name: String, undo: Bool) async throws -> Bool {
        let words = ["cache", "drain", name] + (undo ? ["--undo"] : [])
        return try await ProcessRunner.run(program, words + ["--data", data]).isSuccess
    }

    /// Has everything moved for a while. While clients write, moving has no end.
    func move() async throws {
        let process = try BackgroundProcess(program, ["move", Self.volume, "--data", data])
        try await Task.sleep(for: Self.moveTime)
        process.send(SIGKILL)
        _ = try await process.wait(timeout: .seconds(10))
    }

    /// Has the map and the objects checked against one another.
    ///
    /// - Throws: `ProcessFailure` with what was found.
    func fsck() async throws {
        try await ProcessRunner.check(program, ["fsck", "--data", data], timeout: .seconds(300))
    }

    /// Processes that ended by a fault of their own: traps and failed checks show as these signals.
    func crashes() -> [String] {
        let signals = [SIGILL, SIGTRAP, SIGABRT, SIGSEGV, SIGBUS, SIGFPE].map { "signal \($0)" }
        return process.errors.split(separator: "\n").map(String.init).filter { line in
            signals.contains { signal in
                line.ranges(of: signal).contains { $0.upperBound == line.endIndex || !line[$0.upperBound].isNumber }
            }
        }
    }

    /// Stops everything in order.
    ///
    /// - Throws: `ProcessFailure` where it did not end well.
    func stop() async throws {
        process.send(SIGINT)
        let result = try await process.wait(timeout: Self.stopTimeout)
        guard result.isSuccess else { throw ProcessFailure("ashlar up: \(result.summary)") }
    }

    /// Ends everything at once.
    func abandon() {
        process.send(SIGKILL)
    }
}
