import Dispatch

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
        /// What goes over a connection is lost for a time, in one direction or both, all or most of it, and comes later.
        case delay
        /// PostgreSQL ends a connection (57P01).
        case terminate
        /// PostgreSQL is restarted in order (57P01, 57P03).
        case restart
        /// Everything is moved to block objects, now.
        case move
        /// A server hands everything over to the other one, and gets its share again.
        case drain
        /// A file system is full for a time.
        case fill
        /// A bit of an object's file is another one from now on.
        case flip
        /// A client sends LOGICAL UNIT RESET.
        case reset
        /// A client sends ABORT TASK SET.
        case abort
        /// A client sends CLEAR TASK SET.
        case clear
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
        (.init(kind: .move), 8), (.init(kind: .drain, role: "cache"), 8), (.init(kind: .delay), 12),
        (.init(kind: .delay, role: "postgres"), 3), (.init(kind: .fill, role: "objects"), 3),
        (.init(kind: .fill, role: "postgres"), 2), (.init(kind: .fill, role: "wal"), 2), (.init(kind: .flip), 4),
        (.init(kind: .reset), 7), (.init(kind: .abort), 5), (.init(kind: .clear), 6),
    ]

    /// The fault with a name.
    static func named(_ name: String) -> Fault? {
        weights.first { $0.fault.name == name }?.fault
    }
}

/// A fault that was done.
struct FaultDone: Sendable {
    /// Its name, with the connection that was cut, or what was paused beside it.
    var name: String
    /// When it began, in microseconds of CLOCK_MONOTONIC.
    var time: UInt64

    /// Now, on the clock of the clients.
    static func now() -> UInt64 {
        DispatchTime.now().uptimeNanoseconds / 1_000
    }
}
