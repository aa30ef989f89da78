public import AshlarCore
public import RPC

/// Why an agent cannot start, or gave a piece of work up.
public struct AgentError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The sorts of error; more may be added.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        private enum Base: String {
            case configuration, unanswered, refused, badWork, stopping, databaseIsOlder
        }

        private let base: Base
        private init(_ base: Base) { self.base = base }

        /// A value that was configured is not allowed.
        public static let configuration = Code(.configuration)
        /// A request has no answer.
        public static let unanswered = Code(.unanswered)
        /// A request was answered with another status than ok.
        public static let refused = Code(.refused)
        /// What a peer sent contradicts itself, or bytes do not match their checksum (I11).
        public static let badWork = Code(.badWork)
        /// The database is older than the objects: nothing may be deleted (M8).
        public static let databaseIsOlder = Code(.databaseIsOlder)
        /// The agent stops.
        public static let stopping = Code(.stopping)

        /// The name of the code.
        public var description: String { base.rawValue }
    }

    /// The sort of error.
    public let code: Code
    /// One sentence for people; holds ids, never bytes of a block.
    public let message: String
    /// The status of the answer, where there is one.
    public let status: RPCStatus?
    /// Whether the peer may have done what was asked all the same.
    public let mayHaveExecuted: Bool
    /// The slot that an object server calls damaged, where it names one.
    public let damagedSlot: SlotIndex?

    /// An error with each part named.
    public init(
        _ code: Code,
        _ message: String,
        status: RPCStatus? = nil,
        mayHaveExecuted: Bool = false,
        damagedSlot: SlotIndex? = nil
    ) {
        self.code = code
        self.message = message
        self.status = status
        self.mayHaveExecuted = mayHaveExecuted
        self.damagedSlot = damagedSlot
    }

    /// The error for a request without an answer.
    package init(_ failure: RPCFailure, asking peer: String) {
        self.init(.unanswered, "\(peer): \(failure)", mayHaveExecuted: failure.mayHaveExecuted)
    }

    /// The error for an answer with another status than ok, or one that cannot be decoded.
    package init(_ error: RPCError, asking peer: String) {
        // An answer that cannot be read, and a failure that was not foreseen, say nothing about what was done.
        let isUncertain = error.status == .invalidMessage || error.status == .internalError
        self.init(
            .refused,
            "\(peer): \(error)",
            status: error.status,
            mayHaveExecuted: isUncertain,
            damagedSlot: error.damagedSlot
        )
    }

    /// The code and the sentence.
    public var description: String { "\(code): \(message)" }
}
