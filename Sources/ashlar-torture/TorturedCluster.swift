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

    /// What items of the volume the cache keeps: far less than clients write, so that they read objects.
    static let cachedBytes = "2M"
    static let objectServers = 2
    /// How long two passes of the scrub may take, or a last move: longer than the 120 s for which a piece stays with an agent that was
    /// killed with it.
    static let scrubTimeout = Duration.seconds(300)

    let program: String
    let data: String
    /// The file systems that can be filled; nil where there are none.
    let disks: SmallDisks?
    /// Why there are none.
    let whyNoDisks: String?
    private let process: BackgroundProcess

    private init(
        program: String,
        data: String,
        disks: SmallDisks?,
        whyNoDisks: String?,
        process: BackgroundProcess
    ) {
        self.program = program
        self.data = data
        self.disks = disks
        self.whyNoDisks = whyNoDisks
        self.process = process
    }

    /// Starts three targets, two cache servers, two object servers and two agents, and waits until they are ready.
    ///
    /// - Parameter whyNoDisks: Why there can be no file systems of its own; nil where there can.
    /// - Throws: `ProcessFailure`.
    static func start(program: String, data: String, port: Int, whyNoDisks: String?) async throws -> TorturedCluster {
        var disks: SmallDisks?
        if whyNoDisks == nil {
            // Directories can be moved when they are there, and nobody is in them.
            let process = try await up(program: program, data: data, port: port, roles: [])
            try await end(process)
            disks = try await SmallDisks.mount(data: data, objectServers: objectServers)
        }
        let process = try await up(
            program: program,
            data: data,
            port: port,
            roles: [
                "--targets", "3", "--caches", "\(caches)", "--objects", "\(objectServers)", "--agents", "2",
            ]
        )
        let cluster = TorturedCluster(
            program: program,
            data: data,
            disks: disks,
            whyNoDisks: whyNoDisks,
            process: process
        )
        try await ProcessRunner.check(
            program,
            ["volume", "set", volume, "--cached-bytes", cachedBytes, "--data", data]
        )
        try await cluster.giveFirstTargetTwoLoops()
        if disks != nil {
            // The log is in memory, and a full disk is to be felt.
            for statement in [
                "ALTER SYSTEM SET max_wal_size = '128MB'", "ALTER SYSTEM SET min_wal_size = '32MB'",
                "SELECT pg_reload_conf()",
            ] {
                guard try await cluster.superuser(statement) else { throw ProcessFailure("failed: \(statement)") }
            }
        }
        return cluster
    }

    /// Gives one target two event loops, however many processors there are; the others have one on a small machine.
    private func giveFirstTargetTwoLoops() async throws {
        let path = "\(data)/target-1/config.json"
        guard let bytes = FileManager.default.contents(atPath: path),
            var document = try JSONSerialization.jsonObject(with: bytes) as? [String: Any],
            var target = document["target"] as? [String: Any], let pid = try state().pids("target").first
        else { throw ProcessFailure("\(path) is no configuration of a target") }
        target["loops"] = 2
        document["target"] = target
        // In place: the file keeps its owner.
        try JSONSerialization.data(withJSONObject: document).write(to: URL(fileURLWithPath: path))
        kill(pid, SIGKILL)
        try await waitUntilRunning(role: "target", without: pid, timeout: Self.startTimeout)
    }

    private static func up(
        program: String,
        data: String,
        port: Int,
        roles: [String]
    ) async throws -> BackgroundProcess {
        let words = [
            "up", "--json", "--data", data, "--iscsi-port", String(port), "--volume", "\(volume):\(volumeSize)",
        ]
        let process = try BackgroundProcess(program, words + roles)
        do {
            _ = try await ProcessRunner.eventually("ashlar up is ready", timeout: startTimeout) { () -> Bool? in
                guard process.isRunning else { throw ProcessFailure("it ended") }
                return process.output.contains("\"ready\":true") ? true : nil
            }
        } catch {
            process.send(SIGKILL)
            throw ProcessFailure("ashlar up: \(error)\n\(process.errors.suffix(4_000))")
        }
        return process
    }

    private static func end(_ process: BackgroundProcess) async throws {
        process.send(SIGINT)
        let result = try await process.wait(timeout: Self.stopTimeout)
        guard result.isSuccess else { throw ProcessFailure("ashlar up: \(result.summary)") }
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

    /// The rows that a statement gives, columns parted by "|"; nil where it did not come through.
    func rows(_ statement: String) async throws -> [String]? {
        let result = try await ProcessRunner.run(
            "psql",
            ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", state().postgres, "-c", statement]
        )
        return result.isSuccess ? result.output.split(separator: "\n").map(String.init) : nil
    }

    /// Has PostgreSQL begin a new segment of its log; `false` where that did not come through.
    func switchLog() async throws -> Bool { try await superuser("SELECT pg_switch_wal()") }

    private func superuser(_ statement: String) async throws -> Bool {
        let connection = try state().postgres.replacing("user=ashlar", with: "user=postgres")
        return try await ProcessRunner.run("psql", ["-X", "-q", "-d", connection, "-c", statement]).isSuccess
    }

    /// Has everything verified that lies in objects, and returns the blocks that the database then says are damaged.
    ///
    /// - Throws: `ProcessFailure`, also where an item is damaged.
    func scrub() async throws -> Set<UInt64> {
        let words = ["cluster", "set", "--scrub-rate", "1G", "--scrub-interval", "1", "--data", data]
        try await eventually(words)
        let passes = "SELECT min(pass) FROM ashlar_inspect.scrub"
        let first = try await rows(passes)?.first.flatMap { Int($0) } ?? 0
        // One that begins after now has ended when the second one from now has.
        _ = try await ProcessRunner.eventually("everything is scrubbed", timeout: Self.scrubTimeout) { () -> Bool? in
            try await self.rows(passes)?.first.flatMap { Int($0) }.map { $0 >= first + 2 } == true ? true : nil
        }
        guard let found = try await rows("SELECT place, missing, block_id FROM ashlar_inspect.damage") else {
            throw ProcessFailure("the damaged blocks cannot be asked for")
        }
        var blocks: Set<UInt64> = []
        for row in found {
            guard row.hasPrefix("object|f|"), let block = row.split(separator: "|").last.flatMap({ UInt64($0) }) else {
                throw ProcessFailure("damage that nobody has done: \(row)")
            }
            blocks.insert(block)
        }
        return blocks
    }

    /// Has everything moved; nothing is being written.
    func moveAll() async throws {
        try await eventually(["move", Self.volume, "--data", data])
    }

    /// Runs a command of the program until it comes through.
    private func eventually(_ words: [String]) async throws {
        _ = try await ProcessRunner.eventually(words.joined(separator: " "), timeout: Self.scrubTimeout) {
            () -> Bool? in
            try await ProcessRunner.run(self.program, words, timeout: Self.scrubTimeout).isSuccess ? true : nil
        }
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
        try await Self.end(process)
        try await disks?.unmount()
    }

    /// Ends everything at once, and keeps what lay on file systems that end with this process.
    func abandon(keeping directory: String) async throws {
        process.send(SIGKILL)
        _ = try? await process.wait(timeout: .seconds(10))
        // Its children end with it, a moment later.
        try await Task.sleep(for: .seconds(1))
        try await disks?.keep(data, in: directory + "/kept")
    }
}
