import AshlarTestSupport
import Foundation

/// What is done to a cluster.
enum Fault: String, CaseIterable {
    /// `kill -9` of a process; `ashlar up` starts it again.
    case kill
    /// A process stands still for a time, past any lease too, with what was sent to it left in its sockets.
    case pause
    /// A process stands still again and again for a short time.
    case stutter
    /// A connection between two processes is reset.
    case cut
    /// PostgreSQL ends a connection (57P01).
    case terminate
    /// PostgreSQL is restarted in order (57P01, 57P03).
    case restart
    /// Everything is moved to block objects, now.
    case move
}

/// Does things to a cluster that `ashlar up` runs, one after the other, drawn from a seed.
struct Nemesis {
    /// Longest pause. Leases last 4 s.
    static let pauseMaximumMilliseconds = 9_000
    /// Longest time between two faults.
    static let gapMaximumMilliseconds = 3_000
    /// How long a process may take until it runs again.
    static let patience = Duration.seconds(90)

    let cluster: TorturedCluster
    private var random: SeededGenerator
    /// How often each fault was done, by fault and role.
    private(set) var counts: [String: Int] = [:]

    init(cluster: TorturedCluster, seed: UInt64) {
        self.cluster = cluster
        random = SeededGenerator(seed: seed)
    }

    /// Does faults until the time is over. What it stopped goes on again.
    mutating func run(until deadline: ContinuousClock.Instant, say: (String) -> Void) async throws {
        while ContinuousClock.now < deadline {
            try await Task.sleep(for: .milliseconds(random.below(Self.gapMaximumMilliseconds)))
            let fault = draw()
            guard let name = try await perform(fault) else { continue }
            counts[name, default: 0] += 1
            say(name)
        }
    }

    private mutating func draw() -> Fault {
        let weights: [(Fault, Int)] = [
            (.kill, 25), (.pause, 25), (.stutter, 10), (.cut, 20), (.terminate, 8), (.restart, 4), (.move, 8),
        ]
        var left = random.below(weights.reduce(0) { $0 + $1.1 })
        for (fault, weight) in weights {
            if left < weight { return fault }
            left -= weight
        }
        return .kill
    }

    private mutating func role() -> String {
        let roles = ["target", "target", "target", "cache", "cache", "cache", "objects", "agent", "agent", "control"]
        return roles[random.below(roles.count)]
    }

    /// Does a fault; nil where there was nothing to do it to.
    private mutating func perform(_ fault: Fault) async throws -> String? {
        switch fault {
        case .kill:
            let role = random.chance(8) ? "postgres" : role()
            guard let pid = try process(role) else { return nil }
            kill(pid, SIGKILL)
            try await cluster.waitUntilRunning(role: role, without: pid, timeout: Self.patience)
            return "kill \(role)"
        case .pause:
            let role = role()
            guard let pid = try process(role) else { return nil }
            let milliseconds = 200 + random.below(Self.pauseMaximumMilliseconds)
            kill(pid, SIGSTOP)
            defer { kill(pid, SIGCONT) }
            try await Task.sleep(for: .milliseconds(milliseconds))
            return "pause \(role)"
        case .stutter:
            let role = random.chance(10) ? "postgres" : role()
            guard let pid = try process(role) else { return nil }
            for _ in 0..<10 {
                kill(pid, SIGSTOP)
                try await Task.sleep(for: .milliseconds(20 + random.below(300)))
                kill(pid, SIGCONT)
                try await Task.sleep(for: .milliseconds(10 + random.below(60)))
            }
            return "stutter \(role)"
        case .cut:
            return try await cut()
        case .terminate:
            let own = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ashlar%'"
            try await cluster.sql(own + " ORDER BY md5(pid::text || '\(random.next())') LIMIT 1")
            return "terminate postgres"
        case .restart:
            guard let pid = try process("postgres") else { return nil }
            // Fast shutdown.
            kill(pid, SIGINT)
            try await cluster.waitUntilRunning(role: "postgres", without: pid, timeout: Self.patience)
            return "restart postgres"
        case .move:
            try await cluster.move()
            return "move"
        }
    }

    private mutating func process(_ role: String) throws -> Int32? {
        let pids = try cluster.state().pids(role)
        return pids.isEmpty ? nil : pids[random.below(pids.count)]
    }

    /// Resets a connection between two of the cluster's processes, or between a client and a target.
    private mutating func cut() async throws -> String? {
        let state = try cluster.state()
        var roles: [Int32: String] = [:]
        for process in state.roles { roles[process.pid] = process.role }
        let listed = try await ProcessRunner.check("ss", ["-Htnp", "state", "established"])
        let connections = Connection.parse(listed, roles: roles)
        guard !connections.isEmpty else { return nil }
        let connection = connections[random.below(connections.count)]
        // Both ends: a reset that one end alone sees would leave the other one to its time-outs.
        for (source, destination) in [
            (connection.local, connection.peer), (connection.peer, connection.local),
        ] {
            try await ProcessRunner.check(
                "ss",
                ["-K", "src", source.host, "sport", "=", ":\(source.port)"]
                    + ["dst", destination.host, "dport", "=", ":\(destination.port)"]
            )
        }
        return "cut \(connection.name)"
    }
}

/// A TCP connection in which a process of the cluster takes part.
struct Connection: Equatable {
    /// An address and a port as `ss` writes them.
    struct End: Equatable, Hashable {
        var host: String
        var port: Int
    }

    var local: End
    var peer: End
    /// The roles of its ends, in alphabetical order.
    var name: String

    /// The connections of which at least one end belongs to a role, from what `ss -Htnp state established` prints: receive
    /// queue, send queue, local address, peer's address, processes.
    static func parse(_ text: String, roles: [Int32: String]) -> [Connection] {
        var owners: [[End]: String] = [:]
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ", omittingEmptySubsequences: true)
            guard words.count >= 4, let local = end(words[2]), let peer = end(words[3]) else { continue }
            let pids = words.dropFirst(4).joined().split(separator: ",").compactMap { part in
                part.hasPrefix("pid=") ? Int32(part.dropFirst(4)) : nil
            }
            owners[[local, peer]] = pids.lazy.compactMap { roles[$0] }.first ?? "client"
        }
        var result: [Connection] = []
        for (ends, role) in owners {
            guard let other = owners[[ends[1], ends[0]]], role != "client" || other != "client" else { continue }
            // Each connection is there twice, once for each end.
            guard (ends[0].host, ends[0].port) < (ends[1].host, ends[1].port) else { continue }
            let name = [role, other].sorted().joined(separator: "-")
            result.append(Connection(local: ends[0], peer: ends[1], name: name))
        }
        // Dictionaries have no order of their own, and a seed must give the same run.
        return result.sorted { ($0.name, $0.local.port, $0.peer.port) < ($1.name, $1.local.port, $1.peer.port) }
    }

    private static func end(_ text: Substring) -> End? {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]) else { return nil }
        return End(host: String(text[..<colon]), port: port)
    }
}
