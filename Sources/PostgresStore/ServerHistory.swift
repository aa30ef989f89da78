/// A position in the write-ahead log of PostgreSQL: bytes since the cluster was made.
struct WALPosition: Sendable, Hashable, Comparable, CustomStringConvertible {
    let rawValue: UInt64

    init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// As PostgreSQL writes it: two hexadecimal numbers with a slash between.
    init?(text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let high = UInt32(parts[0], radix: 16), let low = UInt32(parts[1], radix: 16) else {
            return nil
        }
        rawValue = UInt64(high) << 32 | UInt64(low)
    }

    static func < (left: WALPosition, right: WALPosition) -> Bool { left.rawValue < right.rawValue }

    var description: String {
        String(rawValue >> 32, radix: 16, uppercase: true) + "/"
            + String(rawValue & 0xFFFF_FFFF, radix: 16, uppercase: true)
    }
}

/// What a server says of itself when a connection is opened.
struct ServerState: Sendable, Hashable {
    var isInRecovery = false
    /// Whether transactions are read-only unless they say otherwise.
    var isReadOnly = false
    /// Settings by which acknowledged commits can be lost, with their values.
    var durability: [String: String] = [:]
    /// Made with the cluster, the same on all its standbys.
    var systemIdentifier: Int64 = 0
    /// Grows with each promotion.
    var timeline: UInt32 = 0
    /// Up to here its log is on disk.
    var flushed = WALPosition(0)

    /// Settings that must not be off.
    static let durabilitySettings = ["fsync", "full_page_writes", "synchronous_commit"]

    /// Why blocks must not be entrusted to it, with the remedy; nil: they may be.
    func obstacle(allowUnsafeDurability: Bool) -> String? {
        if isInRecovery {
            return
                "the server is a standby, whose map may be behind: name the primary in postgres.dsn, or all hosts that may become it"
        }
        if isReadOnly {
            return "default_transaction_read_only is on: set it off for the server, the database and the role, "
                + "or name a server in postgres.dsn that takes writes"
        }
        if allowUnsafeDurability { return nil }
        for name in Self.durabilitySettings where durability[name] == "off" {
            return "\(name) is off on the server: acknowledged writes could be lost. Set it on"
                + (name == "synchronous_commit" ? " for the server, the database and the role" : "")
                + ", or postgres.allow-unsafe-durability where losing them does not matter"
        }
        return nil
    }
}

/// Where a timeline was left for another one: a line of a timeline's history.
struct TimelineBranch: Sendable, Hashable {
    /// The timeline that was left.
    var timeline: UInt32
    /// What it has above this is not in the ones that follow.
    var position: WALPosition

    /// Reads a history file: a line for each timeline before, with its number, the position and a reason.
    static func parse(_ text: String) -> [TimelineBranch] {
        text.split(separator: "\n").compactMap { line in
            let fields = line.split(whereSeparator: { $0 == "\t" || $0 == " " })
            guard fields.count >= 2, let timeline = UInt32(fields[0]), let position = WALPosition(text: fields[1])
            else {
                return nil
            }
            return TimelineBranch(timeline: timeline, position: position)
        }
    }
}

/// What this process knows of the server that it has worked with, by which it notices that another one has lost what was acknowledged.
///
/// States: nothing known; or a server that was accepted. What is known only grows.
///
/// `acknowledged` is a position at or below the end of the newest commit that was acknowledged: each commit tells the position that its
/// log had just before its own record. So the loss of no more than the very last commits can escape here; what those held is compared
/// where the volumes are taken over again. It is at most what the server had on disk when it answered: after a crash, however the
/// server ended, it has at least that.
struct ServerHistory: Sendable {
    private(set) var server: ServerState?
    private(set) var acknowledged = WALPosition(0)

    /// Nothing is known.
    init() {}

    /// What an earlier process knew.
    init(_ memory: ServerMemory) {
        server = ServerState(systemIdentifier: memory.systemIdentifier, timeline: memory.timeline)
        acknowledged = memory.acknowledged
    }

    /// What a later process has to know; nil: nothing.
    var memory: ServerMemory? {
        server.map {
            ServerMemory(
                systemIdentifier: $0.systemIdentifier,
                timeline: $0.timeline,
                acknowledged: acknowledged
            )
        }
    }

    /// How far behind `acknowledged` a server may be that is not refused. Nothing is: see above. Named because it is the one number that
    /// would have to grow if positions were ever taken from what is not yet on disk.
    static let slackBytes: UInt64 = 0

    /// A commit was acknowledged.
    mutating func noteAcknowledged(_ position: WALPosition) { acknowledged = max(acknowledged, position) }

    /// Whether the history of the timelines decides about a server.
    func needsBranches(of state: ServerState) -> Bool {
        server.map { $0.systemIdentifier == state.systemIdentifier && $0.timeline < state.timeline } ?? false
    }

    /// Why a server is refused; nil: it is the one to work with from now on.
    ///
    /// `branches` is the history of its timeline; nil where that may not be read.
    /// `allowsLoss`: that a server has lost writes is no reason.
    mutating func refusal(of state: ServerState, branches: [TimelineBranch]?, allowsLoss: Bool = false) -> String? {
        guard let server else {
            self.server = state
            return nil
        }
        guard state.systemIdentifier == server.systemIdentifier else {
            return "it is another database system (\(state.systemIdentifier)) than the one worked with until now "
                + "(\(server.systemIdentifier))"
        }
        guard state.timeline >= server.timeline else {
            return "it is on timeline \(state.timeline), and timeline \(server.timeline) was seen already: "
                + "it is an old primary, and must not be written to"
        }
        if allowsLoss {
            self.server = state
            return nil
        }
        guard state.flushed.rawValue + Self.slackBytes >= acknowledged.rawValue else {
            return
                "its log ends at \(state.flushed), and writes up to \(acknowledged) were acknowledged: it has lost them"
        }
        if state.timeline > server.timeline, let branches {
            guard let branch = branches.last(where: { $0.timeline == server.timeline }) else {
                return "its timeline \(state.timeline) does not come from timeline \(server.timeline)"
            }
            guard branch.position.rawValue + Self.slackBytes >= acknowledged.rawValue else {
                return
                    "its timeline \(state.timeline) left timeline \(server.timeline) at \(branch.position), and writes up to "
                    + "\(acknowledged) were acknowledged: it has lost them"
            }
        }
        self.server = state
        return nil
    }
}
