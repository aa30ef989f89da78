import NIOCore

/// A statement that every connection prepares once; its parameters carry their types as casts.
struct Statement: Sendable {
    /// Name of the prepared statement.
    let name: String
    /// Its text.
    let sql: String
}

/// One execution of a prepared statement with parameters in PostgreSQL's binary format.
///
/// All values lie one behind the other in one buffer, so that the pointers which libpq wants can be made in one go.
struct Call: Sendable {
    let statement: Statement
    private(set) var storage: ByteBuffer
    /// Offset and length of each value.
    private(set) var bounds: [(offset: Int, count: Int)] = []

    private static let int8OID: UInt32 = 20
    private static let byteaOID: UInt32 = 17
    private static let arrayHeaderBytes = 20

    init(_ statement: Statement, capacity: Int = 256) {
        self.statement = statement
        storage = ByteBuffer()
        storage.reserveCapacity(capacity)
    }

    /// Adds an int8.
    mutating func add(_ value: Int64) {
        begin(8)
        storage.writeInteger(value)
    }

    /// Adds a text.
    mutating func add(_ value: String) {
        let offset = storage.writerIndex
        storage.writeString(value)
        bounds.append((offset, storage.writerIndex - offset))
    }

    /// Adds an int8[].
    mutating func add(array values: some Collection<Int64>) {
        let count = values.count
        begin(Self.arrayHeaderBytes + 12 * count)
        writeArrayHeader(Self.int8OID, count)
        for value in values {
            storage.writeInteger(Int32(8))
            storage.writeInteger(value)
        }
    }

    /// Adds a bytea[].
    mutating func add(array values: some Collection<ByteBuffer>) {
        let total = values.reduce(Self.arrayHeaderBytes) { $0 + 4 + $1.readableBytes }
        begin(total)
        writeArrayHeader(Self.byteaOID, values.count)
        for value in values {
            storage.writeInteger(Int32(value.readableBytes))
            storage.writeImmutableBuffer(value)
        }
    }

    /// Adds a bytea[] of the bytes of all buffers, one behind the other, cut into frames of which only the last may be shorter.
    mutating func add(frames buffers: [ByteBuffer], frameBytes: Int) {
        var left = buffers.reduce(0) { $0 + $1.readableBytes }
        let count = (left + frameBytes - 1) / frameBytes
        begin(Self.arrayHeaderBytes + 4 * count + left)
        writeArrayHeader(Self.byteaOID, count)
        var room = 0
        for var buffer in buffers {
            while buffer.readableBytes > 0 {
                if room == 0 {
                    room = min(frameBytes, left)
                    storage.writeInteger(Int32(room))
                }
                let part = min(room, buffer.readableBytes)
                buffer.readWithUnsafeReadableBytes { bytes in
                    storage.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[..<part]))
                    return part
                }
                room -= part
                left -= part
            }
        }
    }

    private mutating func begin(_ count: Int) {
        bounds.append((storage.writerIndex, count))
        storage.reserveCapacity(minimumWritableBytes: count)
    }

    /// An empty array has the header of one dimension with no elements, which PostgreSQL reads as empty.
    private mutating func writeArrayHeader(_ elementOID: UInt32, _ count: Int) {
        storage.writeInteger(Int32(1))
        storage.writeInteger(Int32(0))
        storage.writeInteger(elementOID)
        storage.writeInteger(Int32(count))
        storage.writeInteger(Int32(1))
    }
}
