/// What a supervisor has to know of a process that it keeps alive.
public struct SupervisedProcess: Sendable, Hashable {
    /// One signal of an orderly end, and how long to wait before the next one is sent.
    public struct StopStep: Sendable, Hashable {
        /// The signal.
        public var signal: Int32
        /// How long the process has before the next step.
        public var patience: Duration

        /// A signal and the time it is given.
        public init(signal: Int32, patience: Duration) {
            self.signal = signal
            self.patience = patience
        }
    }

    /// Its name, unique among the processes of a supervisor.
    public var name: String
    /// Processes that must be ready at *every* start of this one.
    public var needs: [String]
    /// Processes that must be ready at its *first* start only: later it finds them again by itself.
    public var startsAfter: [String]
    /// Whether something it held is to be released after its end and before its next start.
    public var needsCleanUp: Bool
    /// Processes with a lower stage are stopped, and have ended, before this one is asked to stop.
    public var stopStage: Int
    /// The signals of an orderly end, in order; the last one is repeated.
    public var stopSteps: [StopStep]
    /// How long the first start may take.
    public var startTimeout: Duration

    /// A process with each of its properties named.
    public init(
        name: String,
        needs: [String] = [],
        startsAfter: [String] = [],
        needsCleanUp: Bool = false,
        stopStage: Int,
        stopSteps: [StopStep],
        startTimeout: Duration
    ) {
        self.name = name
        self.needs = needs
        self.startsAfter = startsAfter
        self.needsCleanUp = needsCleanUp
        self.stopStage = stopStage
        self.stopSteps = stopSteps
        self.startTimeout = startTimeout
    }
}

/// How a process ended.
public enum ProcessEnd: Sendable, Hashable, CustomStringConvertible {
    /// By itself, with this code.
    case exited(Int32)
    /// By a signal.
    case signalled(Int32)

    /// The end that a status word of `waitpid` tells of.
    public init(waitStatus: Int32) {
        let signal = waitStatus & 0x7F
        self = signal == 0 ? .exited((waitStatus >> 8) & 0xFF) : .signalled(signal)
    }

    /// "exit code 1", "signal 9".
    public var description: String {
        switch self {
        case .exited(let code): "exit code \(code)"
        case .signalled(let signal): "signal \(signal)"
        }
    }
}
