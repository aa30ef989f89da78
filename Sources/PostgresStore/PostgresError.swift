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

/// Field codes of the protocol; macros of characters are not imported.
enum ErrorField {
    static let sqlState = Int32(UInt8(ascii: "C"))
    static let severity = Int32(UInt8(ascii: "V"))
    static let messagePrimary = Int32(UInt8(ascii: "M"))
    static let constraint = Int32(UInt8(ascii: "n"))
    static let function = Int32(UInt8(ascii: "R"))

    /// A field of an error or notice.
    static func text(_ result: OpaquePointer, _ code: Int32) -> String? {
        PQresultErrorField(result, code).map { String(cString: $0) }
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
        func field(_ code: Int32) -> String? { ErrorField.text(result, code) }
        sqlState = field(ErrorField.sqlState)
        severity = field(ErrorField.severity) ?? "FATAL"
        message = field(ErrorField.messagePrimary) ?? "connection lost"
        constraint = field(ErrorField.constraint)
    }

    /// A failure by its fields.
    init(sqlState: String?, severity: String, message: String) {
        self.sqlState = sqlState
        self.severity = severity
        self.message = message
    }

    /// Whether the same transaction has a chance when it is sent again at once.
    var isWorthRepeating: Bool { sqlState == SQLState.deadlock || sqlState == SQLState.serialization }

    /// Whether the server takes no changes: another one has to be looked for.
    var isReadOnly: Bool { sqlState == SQLState.readOnlyTransaction }

    /// What this means for a request.
    func storeFailure(_ stage: CommitStage) -> StoreFailure {
        let text = sqlState.map { "\(message) (SQLSTATE \($0))" } ?? message
        switch Outcome(sqlState: sqlState, isError: severity == "ERROR", stage) {
        case .nothingDone: return .refused(text)
        case .impossible: return .broken(text)
        case .unknown: return .unknownOutcome(text)
        }
    }
}

/// Which part of a transaction failed.
enum CommitStage: Sendable, CaseIterable {
    /// A statement before the COMMIT: it was rolled back.
    case before
    /// The COMMIT itself: an error rolled it back, the end of the session leaves it open.
    case during
    /// A statement behind the COMMIT: what came before is durable, but the answer is incomplete.
    case after
}

/// What is known of a transaction that failed.
enum Outcome: Sendable, Hashable {
    /// It was rolled back, and may succeed later.
    case nothingDone
    /// It was rolled back, and never will succeed.
    case impossible
    /// It may be durable or not.
    case unknown

    /// | failed | SQLSTATE | |
    /// | --- | --- | --- |
    /// | behind the COMMIT | any | unknown: it is durable, what it answered is lost |
    /// | in the COMMIT | none, or with the end of the session (FATAL, PANIC), or 40003 | unknown |
    /// | in the COMMIT | else | as before it: an error rolls back |
    /// | before the COMMIT | none: the connection broke | nothing done |
    /// | before the COMMIT | 40003 | unknown: the server says so |
    /// | before the COMMIT | classes 08, 40, 53, 55, 57, 58; 25006, 25P02 | nothing done |
    /// | before the COMMIT | else | impossible |
    init(sqlState: String?, isError: Bool, _ stage: CommitStage) {
        if stage == .after {
            self = .unknown
        } else if stage == .during, sqlState == nil || !isError {
            self = .unknown
        } else if sqlState == SQLState.completionUnknown {
            self = .unknown
        } else {
            self = sqlState.map(SQLState.isTransient) ?? true ? .nothingDone : .impossible
        }
    }
}

/// A notice or warning of the server.
struct ServerNotice: Sendable {
    /// Five characters.
    var sqlState = ""
    /// Untranslated severity.
    var severity = ""
    /// Primary message.
    var message = ""
    /// The function of the server that made it; not translated.
    var function = ""

    /// Nothing known.
    init() {}

    /// Reads the fields of a notice, which stays with libpq.
    init(_ result: OpaquePointer) {
        sqlState = ErrorField.text(result, ErrorField.sqlState) ?? ""
        severity = ErrorField.text(result, ErrorField.severity) ?? ""
        message = ErrorField.text(result, ErrorField.messagePrimary) ?? ""
        function = ErrorField.text(result, ErrorField.function) ?? ""
    }

    /// Whether it says that a commit waits for its synchronous standbys no longer: it is durable on the server, and COMMIT will be
    /// answered as if all was well, but after a failover it may be gone. Any of the signs will do; spurious ones cost a takeover.
    var leavesReplicationOpen: Bool {
        guard severity == "WARNING" else { return false }
        return function == "SyncRepWaitForLSN" || sqlState == SQLState.administratorShutdown
            || message.contains("synchronous replication")
    }
}

/// SQLSTATEs that decide what a failure means (PostgreSQL documentation, appendix A).
enum SQLState {
    static let serialization = "40001"
    static let completionUnknown = "40003"
    static let deadlock = "40P01"
    static let lockNotAvailable = "55P03"
    static let readOnlyTransaction = "25006"
    static let inFailedTransaction = "25P02"
    static let administratorShutdown = "57P01"
    static let insufficientPrivilege = "42501"

    /// Classes whose failures pass: connection, rollback, resources, object state, operator intervention, system.
    private static let transientClasses: Set<String> = ["08", "40", "53", "55", "57", "58"]

    /// Whether the statement changed nothing and may succeed later.
    static func isTransient(_ state: String) -> Bool {
        transientClasses.contains(String(state.prefix(2))) || state == readOnlyTransaction
            || state == inFailedTransaction
    }
}
