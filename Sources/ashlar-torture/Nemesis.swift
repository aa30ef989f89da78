import AshlarTestSupport
import Dispatch
import Foundation

/// What is done to a cluster.
struct Fault: Hashable, Sendable {
    enum Kind: String {
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
        /// A server hands everything over to the other one, and gets its share again.
        case drain
    }

    var kind: Kind
    /// Whom it befalls; nil where it has no role of its own.
    var role: String?

    /// "kill-target", "move".
    var name: String { role.map { "\(kind.rawValue)-\($0)" } ?? kind.rawValue }

    /// All there are, and how often each is drawn in comparison with the others.
    static let weights: [(fault: Fault, weight: Int)] = [
        (.init(kind: .kill, role: "target"), 7), (.init(kind: .kill, role: "cache"), 7),
        (.init(kind: .kill, role: "objects"), 3), (.init(kind: .kill, role: "agent"), 4),
        (.init(kind: .kill, role: "control"), 2), (.init(kind: .kill, role: "postgres"), 3),
        (.init(kind: .pause, role: "target"), 9), (.init(kind: .pause, role: "cache"), 9),
        (.init(kind: .pause, role: "objects"), 3), (.init(kind: .pause, role: "agent"), 4),
        (.init(kind: .stutter, role: "target"), 3), (.init(kind: .stutter, role: "cache"), 3),
        (.init(kind: .stutter, role: "objects"), 1), (.init(kind: .stutter, role: "agent"), 1),
        (.init(kind: .stutter, role: "postgres"), 2), (.init(kind: .cut), 20),
        (.init(kind: .terminate, role: "postgres"), 8), (.init(kind: .restart, role: "postgres"), 3),
        (.init(kind: .move), 8), (.init(kind: .drain, role: "cache"), 8),
    ]

    /// The fault with a name.
    static func named(_ name: String) -> Fault? {
        weights.first { $0.fault.name == name }?.fault
    }
}

/// A fault that was done.
struct FaultDone: Sendable {
    /// Its name, or that of the connection that was cut.
    var name: String
    /// When it began, in microseconds of CLOCK_MONOTONIC.
    var time: UInt64

    /// Now, on the clock of the clients.
    static func now() -> UInt64 {
        DispatchTime.now().uptimeNanoseconds / 1_000
    }
}

/// Does things to a cluster that `ashlar up` runs, one after the other, drawn from a seed.
struct Nemesis {
    /// Longest pause. Leases last 4 s.
    static let pauseMaximumMilliseconds = 9_000
    /// Longest time for which a server is drained.
    static let drainMaximumMilliseconds = 5_000
    /// How long a process may take until it runs again.
    static let patience = Duration.seconds(90)

    let cluster: TorturedCluster
    private let weights: [(fault: Fault, weight: Int)]
    private let gapMaximumMilliseconds: Int
    private var random: SeededGenerator
    /// What was done, in order.
    private(set) var done: [FaultDone] = []

    /// - Parameters:
    ///   - faults: Those that may be drawn; all where empty.
    ///   - gapMaximumMilliseconds: Longest time between the end of a fault and the next one.
    init(cluster: TorturedCluster, seed: UInt64, faults: [Fault], gapMaximumMilliseconds: Int) {
        self.cluster = cluster
        self.gapMaximumMilliseconds = gapMaximumMilliseconds
        weights = Fault.weights.filter { faults.isEmpty || faults.contains($0.fault) }
        random = SeededGenerator(seed: seed)
    }

    /// Does faults until the time is over. What it stopped goes on again.
    mutating func run(until deadline: ContinuousClock.Instant, say: (String) -> Void) async throws {
        while ContinuousClock.now < deadline {
            try await Task.sleep(for: .milliseconds(random.below(gapMaximumMilliseconds) + 1))
            let fault = draw()
            let time = FaultDone.now()
            guard let name = try await perform(fault) else { continue }
            done.append(FaultDone(name: name, time: time))
            say(name)
        }
    }

    private mutating func draw() -> Fault {
        var left = random.below(weights.reduce(0) { $0 + $1.weight })
        for (fault, weight) in weights {
            if left < weight { return fault }
            left -= weight
        }
        preconditionFailure("the weights do not add up")
    }

    /// Does a fault and returns its name; nil where there was nothing to do it to.
    private mutating func perform(_ fault: Fault) async throws -> String? {
        switch fault.kind {
        case .kill:
            guard let role = fault.role, let pid = try process(role) else { return nil }
            kill(pid, SIGKILL)
            try await cluster.waitUntilRunning(role: role, without: pid, timeout: Self.patience)
        case .pause:
            guard let role = fault.role, let pid = try process(role) else { return nil }
            kill(pid, SIGSTOP)
            defer { kill(pid, SIGCONT) }
            try await Task.sleep(for: .milliseconds(200 + random.below(Self.pauseMaximumMilliseconds)))
        case .stutter:
            guard let role = fault.role, let pid = try process(role) else { return nil }
            for _ in 0..<10 {
                kill(pid, SIGSTOP)
                try await Task.sleep(for: .milliseconds(20 + random.below(300)))
                kill(pid, SIGCONT)
                try await Task.sleep(for: .milliseconds(10 + random.below(60)))
            }
        case .cut:
            return try await cut()
        case .terminate:
            let own = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ashlar%'"
            try await cluster.sql(own + " ORDER BY md5(pid::text || '\(random.next())') LIMIT 1")
        case .restart:
            guard let role = fault.role, let pid = try process(role) else { return nil }
            // Fast shutdown.
            kill(pid, SIGINT)
            try await cluster.waitUntilRunning(role: role, without: pid, timeout: Self.patience)
        case .move:
            try await cluster.move()
        case .drain:
            let name = "cache-\(1 + random.below(TorturedCluster.caches))"
            guard try await cluster.drain(name, undo: false) else { return nil }
            try await Task.sleep(for: .milliseconds(random.below(Self.drainMaximumMilliseconds)))
            // Until it has come through: a server that stays drained would never be given anything again.
            let cluster = cluster
            _ = try await ProcessRunner.eventually("\(name) is drained no more", timeout: Self.patience) {
                () -> Bool? in try await cluster.drain(name, undo: true) ? true : nil
            }
        }
        return fault.name
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
        return "cut-\(connection.name)"
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
