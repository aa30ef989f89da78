import CLibPQ
import Ownership

/// What a blocking connection or the migration runner could not do.
///
/// The message is PostgreSQL's primary message: it holds no parameter values and no secret.
public struct PostgresError: Error, Sendable, CustomStringConvertible {
    /// The kinds of failure.
    public enum Code: Sendable, Hashable {
        /// The configuration cannot be used: unreadable password file, malformed DSN.
        case configuration
        /// No connection, or it broke.
        case connection
        /// The server is not one to trust with blocks: a standby, too old, or not durable.
        case unsuitableServer
        /// A statement failed; `sqlState` says why.
        case statement
        /// A result did not have the expected form.
        case result
        /// Migration files or the ledger are not as they should be.
        case migration
    }

    /// The kind of failure.
    public var code: Code
    /// What happened, in words.
    public var message: String
    /// The SQLSTATE, where the server gave one.
    public var sqlState: String?
    /// The constraint that was violated, where one was.
    public var constraint: String?

    /// A failure with its kind and words.
    public init(_ code: Code, _ message: String, sqlState: String? = nil, constraint: String? = nil) {
        self.code = code
        self.message = message
        self.sqlState = sqlState
        self.constraint = constraint
    }

    /// The message, with the SQLSTATE where there is one.
    public var description: String {
        sqlState.map { "\(message) (SQLSTATE \($0))" } ?? message
    }
}

/// The failure of one statement as libpq reports it.
struct StatementFailure: Error, Sendable {
    /// Five characters; nil where libpq itself made the error, which means that the connection is gone.
    var sqlState: String?
    /// Untranslated severity: ERROR, FATAL or PANIC.
    var severity: String
    /// Primary message.
    var message: String
    /// Violated constraint.
    var constraint: String?

    /// Reads the fields of an error result, which stays with the caller.
    init(_ result: OpaquePointer) {
        func field(_ code: Int32) -> String? { PQresultErrorField(result, code).map { String(cString: $0) } }
        sqlState = field(Field.sqlState)
        severity = field(Field.severity) ?? "FATAL"
        message = field(Field.messagePrimary) ?? "connection lost"
        constraint = field(Field.constraint)
    }

    /// Field codes of the protocol; macros of characters are not imported.
    private enum Field {
        static let sqlState = Int32(UInt8(ascii: "C"))
        static let severity = Int32(UInt8(ascii: "V"))
        static let messagePrimary = Int32(UInt8(ascii: "M"))
        static let constraint = Int32(UInt8(ascii: "n"))
    }

    /// Whether the same transaction has a chance when it is sent again at once.
    var isWorthRepeating: Bool { sqlState == SQLState.deadlock || sqlState == SQLState.serialization }

    /// What this means for a request.
    func storeFailure(_ stage: CommitStage) -> StoreFailure {
        if stage == .after { return .unknownOutcome(message) }
        guard let sqlState else { return stage == .before ? .refused(message) : .unknownOutcome(message) }
        let text = "\(message) (SQLSTATE \(sqlState))"
        if stage == .during && severity != "ERROR" || sqlState == SQLState.completionUnknown {
            return .unknownOutcome(text)
        }
        if SQLState.isTransient(sqlState) { return .refused(text) }
        return .broken(text)
    }
}

/// Which part of a transaction failed.
enum CommitStage: Sendable {
    /// A statement before the COMMIT: it was rolled back.
    case before
    /// The COMMIT itself: an error rolled it back, the end of the session leaves it open.
    case during
    /// A statement behind the COMMIT: what came before is durable, but the answer is incomplete.
    case after
}

/// SQLSTATEs that decide what a failure means (PostgreSQL documentation, appendix A).
enum SQLState {
    static let serialization = "40001"
    static let completionUnknown = "40003"
    static let deadlock = "40P01"
    static let lockNotAvailable = "55P03"
    static let readOnlyTransaction = "25006"
    static let inFailedTransaction = "25P02"

    /// Classes whose failures pass: connection, rollback, resources, object state, operator intervention, system.
    private static let transientClasses: Set<String> = ["08", "40", "53", "55", "57", "58"]

    /// Whether the statement changed nothing and may succeed later.
    static func isTransient(_ state: String) -> Bool {
        transientClasses.contains(String(state.prefix(2))) || state == readOnlyTransaction
            || state == inFailedTransaction
    }
}
