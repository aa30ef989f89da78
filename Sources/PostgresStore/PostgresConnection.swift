import CLibPQ

/// A value that goes with a statement of a blocking connection.
public enum PostgresParameter: Sendable, Hashable {
    /// SQL NULL.
    case null
    /// Text, or anything that PostgreSQL reads from text.
    case text(String)
    /// A number.
    case int(Int64)
    /// A truth value.
    case bool(Bool)
    /// A bytea.
    case bytes([UInt8])
}

/// A connection for those who may block: the control plane, tools, migrations.
///
/// Not for use by two threads at once. It does not reconnect: ``isUsable`` tells when to open another.
public final class PostgresConnection {
    private var connection: OpaquePointer?

    /// Connects and checks that the server is a primary, recent, and durable.
    ///
    /// - Throws: ``PostgresError``.
    public init(_ configuration: PostgresConfiguration) throws(PostgresError) {
        connection = try Session.open(configuration, purpose: .administration)
    }

    deinit { close() }

    /// Whether the connection has not been seen to break.
    public var isUsable: Bool { connection.map { PQstatus($0) == CONNECTION_OK } ?? false }

    /// Ends the connection; any number of times.
    public func close() {
        if let connection { PQfinish(connection) }
        connection = nil
    }

    /// Runs one statement with parameters `$1`, `$2`… and returns its rows.
    ///
    /// - Throws: ``PostgresError``; its code is `connection` where the outcome may be open.
    @discardableResult
    public func query(_ sql: String, _ parameters: [PostgresParameter] = []) throws(PostgresError) -> PostgresRows {
        let connection = try open()
        let values = TextParameters(parameters)
        let raw = withExtendedLifetime(values) {
            PQexecParams(
                connection,
                sql,
                Int32(parameters.count),
                nil,
                values.pointers,
                values.lengths,
                values.formats,
                0
            )
        }
        guard let raw else { throw Session.lost(connection) }
        defer { PQclear(raw) }
        switch PQresultStatus(raw) {
        case PGRES_TUPLES_OK, PGRES_COMMAND_OK, PGRES_EMPTY_QUERY: return PostgresRows(raw)
        default: throw PostgresError(StatementFailure(raw))
        }
    }

    /// Runs statements that are separated by semicolons, without parameters; their rows are dropped.
    ///
    /// - Throws: ``PostgresError``.
    public func script(_ sql: String) throws(PostgresError) {
        try Session.execute(try open(), sql)
    }

    /// Runs `body` between BEGIN and COMMIT, or ROLLBACK where it throws.
    ///
    /// - Throws: what `body` throws, or ``PostgresError``.
    public func transaction<Value>(_ body: (PostgresConnection) throws -> Value) throws -> Value {
        try script("BEGIN")
        let value: Value
        do {
            value = try body(self)
        } catch {
            // The first failure is the one to tell of; where the rollback fails too, the connection is unusable.
            do { try script("ROLLBACK") } catch { close() }
            throw error
        }
        try script("COMMIT")
        return value
    }

    private func open() throws(PostgresError) -> OpaquePointer {
        guard let connection else { throw PostgresError(.connection, "the connection has been closed") }
        return connection
    }
}

/// Rows of a result, in PostgreSQL's text format.
public struct PostgresRows: Sendable, RandomAccessCollection {
    /// Names of the columns.
    public let columns: [String]
    /// Number of rows inserted, updated or deleted.
    public let affected: Int
    private let values: [[String?]]

    init(_ raw: OpaquePointer) {
        let width = Int(PQnfields(raw))
        columns = (0..<width).map { PQfname(raw, Int32($0)).map { String(cString: $0) } ?? "" }
        affected = Int(String(cString: PQcmdTuples(raw))) ?? 0
        values = (0..<Int(PQntuples(raw))).map { row in
            (0..<width).map { column in
                if PQgetisnull(raw, Int32(row), Int32(column)) == 1 { return nil }
                return PQgetvalue(raw, Int32(row), Int32(column)).map { String(cString: $0) }
            }
        }
    }

    /// Always 0.
    public var startIndex: Int { 0 }
    /// Number of rows.
    public var endIndex: Int { values.count }
    /// A row.
    public subscript(index: Int) -> PostgresRow { PostgresRow(columns: columns, values: values[index]) }
}

/// One row of a result.
public struct PostgresRow: Sendable {
    let columns: [String]
    let values: [String?]

    /// The value as PostgreSQL writes it; nil for NULL.
    ///
    /// - Throws: ``PostgresError`` where there is no such column.
    public func string(_ column: String) throws(PostgresError) -> String? {
        guard let index = columns.firstIndex(of: column) else {
            throw PostgresError(.result, "there is no column \(column)")
        }
        return values[index]
    }

    /// The value as a number; nil for NULL.
    ///
    /// - Throws: ``PostgresError`` where there is no such column or it is no number.
    public func int64(_ column: String) throws(PostgresError) -> Int64? {
        guard let text = try string(column) else { return nil }
        guard let value = Int64(text) else { throw PostgresError(.result, "column \(column) is no whole number") }
        return value
    }

    /// The value as a floating-point number; nil for NULL.
    ///
    /// - Throws: ``PostgresError`` where there is no such column or it is no number.
    public func double(_ column: String) throws(PostgresError) -> Double? {
        guard let text = try string(column) else { return nil }
        guard let value = Double(text) else { throw PostgresError(.result, "column \(column) is no number") }
        return value
    }

    /// The value as a truth value; nil for NULL.
    ///
    /// - Throws: ``PostgresError`` where there is no such column or it is no truth value.
    public func bool(_ column: String) throws(PostgresError) -> Bool? {
        switch try string(column) {
        case nil: return nil
        case "t", "true": return true
        case "f", "false": return false
        default: throw PostgresError(.result, "column \(column) is no truth value")
        }
    }
}

/// Parameters in text format, and bytes in binary, as libpq wants them.
private final class TextParameters {
    private let storage: CStrings
    private let byteStorage: [UnsafeMutablePointer<CChar>]
    let pointers: [UnsafePointer<CChar>?]
    let lengths: [Int32]
    let formats: [Int32]

    init(_ parameters: [PostgresParameter]) {
        storage = CStrings(
            parameters.map { parameter in
                switch parameter {
                case .null, .bytes: ""
                case .text(let text): text
                case .int(let number): String(number)
                case .bool(let value): value ? "true" : "false"
                }
            }
        )
        var pointers: [UnsafePointer<CChar>?] = []
        var lengths: [Int32] = []
        var formats: [Int32] = []
        var copies: [UnsafeMutablePointer<CChar>] = []
        for (index, parameter) in parameters.enumerated() {
            switch parameter {
            case .null: pointers.append(nil)
            case .text, .int, .bool: pointers.append(storage.pointers[index])
            case .bytes(let bytes):
                let copy = UnsafeMutablePointer<CChar>.allocate(capacity: max(1, bytes.count))
                copy.initialize(repeating: 0, count: max(1, bytes.count))
                for (offset, byte) in bytes.enumerated() { copy[offset] = CChar(bitPattern: byte) }
                copies.append(copy)
                pointers.append(UnsafePointer(copy))
            }
            if case .bytes(let bytes) = parameter {
                lengths.append(Int32(bytes.count))
                formats.append(1)
            } else {
                lengths.append(0)
                formats.append(0)
            }
        }
        self.pointers = pointers
        self.lengths = lengths
        self.formats = formats
        byteStorage = copies
    }

    deinit {
        for pointer in byteStorage { pointer.deallocate() }
    }
}
