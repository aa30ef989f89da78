import CLibPQ
import NIOCore
import Ownership

/// The result of one statement, in PostgreSQL's binary format. Rows are read by column number.
///
/// Immutable once made, so that it may cross threads; it frees libpq's memory when it goes.
final class QueryResult: @unchecked Sendable {
    private let raw: OpaquePointer

    /// Takes over the result.
    init(_ raw: OpaquePointer) { self.raw = raw }

    deinit { PQclear(raw) }

    /// Number of rows returned.
    var count: Int { Int(PQntuples(raw)) }

    /// Number of rows inserted, updated or deleted.
    var affected: Int { Int(String(cString: PQcmdTuples(raw))) ?? 0 }

    /// Whether a value is NULL.
    func isNull(_ row: Int, _ column: Int) -> Bool { PQgetisnull(raw, Int32(row), Int32(column)) == 1 }

    /// The bytes of a value, valid as long as the result.
    func bytes(_ row: Int, _ column: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: PQgetvalue(raw, Int32(row), Int32(column)),
            count: Int(PQgetlength(raw, Int32(row), Int32(column)))
        )
    }

    /// An int8 that is not NULL.
    func int(_ row: Int, _ column: Int) throws(StoreFailure) -> Int64 {
        let bytes = bytes(row, column)
        guard bytes.count == 8, !isNull(row, column) else { throw unexpected(column) }
        return Int64(bigEndian: bytes.loadUnaligned(as: Int64.self))
    }

    /// An int8 that is not NULL and not negative.
    func unsigned(_ row: Int, _ column: Int) throws(StoreFailure) -> UInt64 {
        guard let value = UInt64(exactly: try int(row, column)) else { throw unexpected(column) }
        return value
    }

    /// An int8 that is not NULL and fits `T`.
    func exactly<T: FixedWidthInteger>(_ row: Int, _ column: Int, as type: T.Type) throws(StoreFailure) -> T {
        guard let value = T(exactly: try int(row, column)) else { throw unexpected(column) }
        return value
    }

    /// A bool that is not NULL.
    func bool(_ row: Int, _ column: Int) throws(StoreFailure) -> Bool {
        let bytes = bytes(row, column)
        guard bytes.count == 1, !isNull(row, column) else { throw unexpected(column) }
        return bytes[0] != 0
    }

    /// A text; empty where NULL.
    func string(_ row: Int, _ column: Int) -> String { String(decoding: bytes(row, column), as: UTF8.self) }

    /// A bytea, copied.
    func buffer(_ row: Int, _ column: Int) -> ByteBuffer {
        let bytes = bytes(row, column)
        var buffer = ByteBuffer()
        buffer.reserveCapacity(bytes.count)
        buffer.writeBytes(bytes)
        return buffer
    }

    /// An int8[] without NULLs; empty where the value is NULL.
    func ints(_ row: Int, _ column: Int) throws(StoreFailure) -> [Int64] {
        var result: [Int64] = []
        for element in try elements(row, column) {
            guard element.count == 8 else { throw unexpected(column) }
            result.append(Int64(bigEndian: element.loadUnaligned(as: Int64.self)))
        }
        return result
    }

    /// A text[] without NULLs; empty where the value is NULL.
    func strings(_ row: Int, _ column: Int) throws(StoreFailure) -> [String] {
        try elements(row, column).map { String(decoding: $0, as: UTF8.self) }
    }

    private func elements(_ row: Int, _ column: Int) throws(StoreFailure) -> [UnsafeRawBufferPointer] {
        if isNull(row, column) { return [] }
        let bytes = bytes(row, column)
        func word(_ offset: Int) throws(StoreFailure) -> Int {
            guard offset + 4 <= bytes.count else { throw unexpected(column) }
            return Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self)))
        }
        let dimensions = try word(0)
        if dimensions == 0 { return [] }
        guard dimensions == 1, try word(4) == 0 else { throw unexpected(column) }
        let count = try word(12)
        var result: [UnsafeRawBufferPointer] = []
        result.reserveCapacity(count)
        var offset = 20
        for _ in 0..<count {
            let length = try word(offset)
            guard length >= 0, offset + 4 + length <= bytes.count else { throw unexpected(column) }
            result.append(UnsafeRawBufferPointer(rebasing: bytes[(offset + 4)..<(offset + 4 + length)]))
            offset += 4 + length
        }
        return result
    }

    private func unexpected(_ column: Int) -> StoreFailure {
        .broken("column \(column) of a result does not have the expected form")
    }
}
