import AshlarTestSupport
import Foundation

/// Does things to a cluster that `ashlar up` runs, one after the other, drawn from a seed.
struct Nemesis {
    /// Longest pause. Leases last 4 s.
    static let pauseMaximumMilliseconds = 9_000
    /// Longest time for which a server is drained.
    static let drainMaximumMilliseconds = 5_000
    /// How long a process may take until it runs again.
    static let patience = Duration.seconds(90)

    /// Longest time for which a connection is held back. TCP sends again after up to as long once more.
    static let delayMaximumMilliseconds = 7_000
    /// Longest time for which a disk is full, and one that is longer than the deadline of commands, once in a few times.
    static let fillMaximumMilliseconds = 8_000
    static let longFillMilliseconds = 23_000
    /// Most room that a full disk still has: less than a segment of PostgreSQL's log, an object, a few pages of tables.
    static let slackMaximumBytes = ["wal": 15 << 20, "objects": 2 << 20, "postgres": 128 << 10]
    /// Segments that are begun where the log's disk is full, as by somebody else who writes much.
    static let segmentsMaximum = 8
    /// Bits that are flipped when the clients have come to their end.
    static let lastFlips = 3
    /// The signals by which a client is asked for a function; see torture.c.
    static let functionSignals: [Fault.Kind: Int32] = [.reset: 40, .abort: 41, .clear: 42]
    /// What deafen.c ends with where its means are not to be had.
    static let notPermitted: Int32 = 3

    let cluster: TorturedCluster
    /// The program that holds connections back, compiled from deafen.c.
    let deafen: String
    /// The clients' process numbers, and their histories, which they create when they are ready.
    let clients: [(pid: Int32, history: String)]
    private var weights: [(fault: Fault, weight: Int)]
    private var first: [Fault]
    private let gapMaximumMilliseconds: Int
    private var random: SeededGenerator
    /// More about the fault that is being done, for who looks on.
    private var detail: String?
    /// What was done, in order.
    private(set) var done: [FaultDone] = []
    /// What cannot be done here, and why.
    private(set) var impossible: [Fault: String] = [:]
    /// What flipped bits may have damaged.
    private(set) var damaged = DamagedBlocks()

    /// - Parameters:
    ///   - faults: Those that may be drawn; all where empty.
    ///   - first: Those that are done first, in this order.
    ///   - gapMaximumMilliseconds: Longest time between the end of a fault and the next one.
    init(
        cluster: TorturedCluster,
        deafen: String,
        clients: [(pid: Int32, history: String)],
        seed: UInt64,
        faults: [Fault],
        first: [Fault],
        gapMaximumMilliseconds: Int
    ) {
        self.cluster = cluster
        self.deafen = deafen
        self.clients = clients
        self.first = first
        self.gapMaximumMilliseconds = gapMaximumMilliseconds
        weights = Fault.weights.filter { faults.isEmpty || faults.contains($0.fault) }
        random = SeededGenerator(seed: seed)
        if let reason = cluster.whyNoDisks {
            for (fault, _) in weights where fault.kind == .fill { giveUp(fault, reason) }
        }
    }

    /// Does faults until the time is over. What it stopped goes on again.
    ///
    /// - Throws: `ProcessFailure`, also where none of the faults is possible.
    mutating func run(until deadline: ContinuousClock.Instant, say: (String) -> Void) async throws {
        while ContinuousClock.now < deadline {
            guard !weights.isEmpty else { throw ProcessFailure("none of these faults can be done here: \(impossible)") }
            try await Task.sleep(for: .milliseconds(random.below(gapMaximumMilliseconds) + 1))
            let fault = first.isEmpty ? draw() : first.removeFirst()
            guard impossible[fault] == nil else { continue }
            let time = FaultDone.now()
            detail = nil
            guard let name = try await perform(fault) else { continue }
            done.append(FaultDone(name: name, time: time))
            say(detail.map { "\(name): \($0)" } ?? name)
        }
    }

    /// Flips some bits of objects that hold everything, where it may: nobody writes any more.
    mutating func flipLast() async throws {
        guard weights.contains(where: { $0.fault.kind == .flip }) else { return }
        try await cluster.moveAll()
        for _ in 0..<Self.lastFlips {
            guard let object = try await liveObject() else { return }
            _ = try flip(object, inHeader: false)
        }
    }

    /// Notes that a fault cannot be done here, and draws it no more.
    private mutating func giveUp(_ fault: Fault, _ reason: String) {
        impossible[fault] = reason
        weights.removeAll { $0.fault == fault }
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
        case .delay:
            return try await fault.role == nil ? delay(fault) : delayBackend(fault)
        case .fill:
            return try await fill(fault)
        case .flip:
            guard let object = try await liveObject(), try flip(object, inHeader: random.chance(10)) else { return nil }
        case .reset, .abort, .clear:
            return try await manage(fault)
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

    private mutating func connection() async throws -> Connection? {
        let state = try cluster.state()
        var roles: [Int32: String] = [:]
        for process in state.roles { roles[process.pid] = process.role }
        let listed = try await ProcessRunner.check("ss", ["-Htnp", "state", "established"])
        let connections = Connection.parse(listed, roles: roles)
        return connections.isEmpty ? nil : connections[random.below(connections.count)]
    }

    /// Resets a connection between two of the cluster's processes, or between a client and a target.
    private mutating func cut() async throws -> String? {
        guard let connection = try await connection() else { return nil }
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

    /// Has what goes over a connection lost for a time: TCP sends it again, later and later.
    private mutating func delay(_ fault: Fault) async throws -> String? {
        guard let connection = try await connection(), !connection.sockets.isEmpty else { return nil }
        var sockets = connection.sockets
        if random.chance(66) { sockets = [sockets[random.below(sockets.count)]] }
        let milliseconds = 100 + random.below(Self.delayMaximumMilliseconds)
        let percent = random.chance(50) ? 100 : 60
        let words = [milliseconds, percent].map(String.init) + sockets.map { "\($0.pid):\($0.descriptor)" }
        detail = "\(percent) % for \(milliseconds) ms at \(sockets.count) ends"
        let result = try await ProcessRunner.run(deafen, words)
        if result.status == Self.notPermitted {
            giveUp(fault, "sockets of other processes cannot be borrowed here: \(result.reason)")
        }
        return result.isSuccess ? "delay-\(connection.name)" : nil
    }

    /// Has the server process of one of Ashlar's connections to PostgreSQL stand still, with whatever it holds.
    private mutating func delayBackend(_ fault: Fault) async throws -> String? {
        let statement =
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'ashlar%' ORDER BY md5(pid::text || '\(random.next())') LIMIT 1"
        guard let rows = try await cluster.rows(statement), let pid = rows.first.flatMap({ Int32($0) }) else {
            return nil
        }
        kill(pid, SIGSTOP)
        defer { kill(pid, SIGCONT) }
        try await Task.sleep(for: .milliseconds(100 + random.below(Self.delayMaximumMilliseconds)))
        return fault.name
    }

    /// Has a client send a function; more often than not while a target or cache server stands still, with what others have sent to it.
    ///
    /// - Returns: The fault's name, with what stood still, for then the clients do as well; nil where nothing was done.
    private mutating func manage(_ fault: Fault) async throws -> String? {
        guard let signal = Self.functionSignals[fault.kind] else { return nil }
        let client = clients[random.below(clients.count)]
        // Until it listens, a signal would end it.
        guard FileManager.default.fileExists(atPath: client.history) else { return nil }
        let role = ["target", "cache"][random.below(2)]
        guard random.chance(60), let still = try process(role) else {
            kill(client.pid, signal)
            return fault.name
        }
        kill(still, SIGSTOP)
        defer { kill(still, SIGCONT) }
        try await Task.sleep(for: .milliseconds(50 + random.below(500)))
        kill(client.pid, signal)
        try await Task.sleep(for: .milliseconds(100 + random.below(Self.delayMaximumMilliseconds)))
        return "\(fault.name)-paused-\(role)"
    }

    /// Has a file system full for a time.
    private mutating func fill(_ fault: Fault) async throws -> String? {
        guard let small = cluster.disks else { return nil }
        let disks = small.disks.filter { $0.role == fault.role }
        let disk = disks[random.below(disks.count)]
        let milliseconds =
            random.chance(20) ? Self.longFillMilliseconds : 500 + random.below(Self.fillMaximumMilliseconds)
        let slack = random.below(Self.slackMaximumBytes[disk.role] ?? 1)
        detail = "\(milliseconds) ms, but for \(slack) bytes"
        try await small.fill(disk, slackBytes: UInt64(slack))
        if disk.role == "wal", random.chance(50) {
            // Else Ashlar, which watches it, leaves PostgreSQL what room there is.
            detail?.append(", and the log goes on")
            for _ in 0..<Self.segmentsMaximum where try await !cluster.switchLog() { break }
        }
        try await Task.sleep(for: .milliseconds(milliseconds))
        try await small.empty(disk)
        return fault.name
    }

    /// An object that is live, and the blocks that lie there.
    ///
    /// What is flipped then is in these blocks: no extent is ever made for an object that is live already.
    private mutating func liveObject() async throws -> LiveObject? {
        let statement = """
            SELECT o.object_id, o.server_id, string_agg(x.first_block || '+' || x.block_count, ',')
            FROM block_objects o JOIN block_extents x USING (object_id) WHERE o.state = 'live'
            GROUP BY 1, 2 ORDER BY md5(o.object_id::text || '\(random.next())') LIMIT 1
            """
        var rows = try await cluster.rows(statement)
        if rows?.isEmpty ?? false {
            // Nothing has been moved yet.
            try await cluster.move()
            rows = try await cluster.rows(statement)
        }
        return rows?.first.flatMap(LiveObject.init)
    }

    /// Flips a bit of an object's file: in what a block holds, or in what says where the blocks are.
    private mutating func flip(_ object: LiveObject, inHeader: Bool) throws -> Bool {
        guard let path = object.path(below: cluster.data), let file = FileHandle(forUpdatingAtPath: path) else {
            return false
        }
        defer { try? file.close() }
        let size = try file.seekToEnd()
        try file.seek(toOffset: LiveObject.headerBytesOffset)
        let bytes = try file.read(upToCount: 4) ?? Data()
        let header = bytes.reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard bytes.count == 4, header > 0, header <= size else { return false }
        // Zeros take no bytes: there may be no others.
        let range = inHeader || header == size ? 0..<header : header..<size
        let place = range.lowerBound + UInt64(random.below(range.count))
        damaged.add(object.blocks, from: FaultDone.now())
        try file.seek(toOffset: place)
        guard let byte = try file.read(upToCount: 1)?.first else { return false }
        try file.seek(toOffset: place)
        try file.write(contentsOf: [byte ^ 1 << UInt8(random.below(8))])
        detail = "byte \(place) of object \(object.id) with \(object.blocks.reduce(0) { $0 + $1.count }) blocks"
        return true
    }
}

/// An object that extents refer to.
struct LiveObject: Equatable {
    /// Where a file says how long its header is, in four bytes.
    static let headerBytesOffset: UInt64 = 12

    var id: UInt64
    var server: Int
    /// The blocks that lie there.
    var blocks: [Range<UInt64>]

    /// Reads "12|1|0+8,100+1": the object, its server, and its blocks.
    init?(row: String) {
        let words = row.split(separator: "|")
        guard words.count == 3, let id = UInt64(words[0]), let server = Int(words[1]) else { return nil }
        self.id = id
        self.server = server
        blocks = []
        for run in words[2].split(separator: ",") {
            let numbers = run.split(separator: "+").compactMap { UInt64($0) }
            guard numbers.count == 2 else { return nil }
            blocks.append(numbers[0]..<numbers[0] + numbers[1])
        }
    }

    /// Its file; nil where there is none.
    func path(below data: String) -> String? {
        let directory = "\(data)/objects-\(server)/blocks/objects"
        let digits = String(id, radix: 16)
        let name = String(repeating: "0", count: 16 - digits.count) + digits + ".object"
        guard let files = FileManager.default.enumerator(atPath: directory) else { return nil }
        for case let file as String in files where file.hasSuffix(name) { return "\(directory)/\(file)" }
        return nil
    }
}
