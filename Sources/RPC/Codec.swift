public import AshlarCore
public import NIOCore

/// Why the bytes of a message cannot be read. Never carries the bytes themselves.
public enum RPCDecodingError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A field needs more bytes than are left.
    case truncated(neededBytes: Int, availableBytes: Int)
    /// A string is longer than its field allows.
    case stringTooLong(bytes: Int, maximumBytes: Int)
    /// A string is not UTF-8.
    case notUTF8
    /// An array says that it has more elements than the bytes left can hold, or than its field allows.
    case countTooLarge(count: Int, maximum: Int)
    /// A field has a value without a meaning.
    case invalidValue(field: String)
    /// The message ended before its bytes did.
    case trailingBytes(Int)

    /// Names the rule that was broken.
    public var description: String {
        switch self {
        case .truncated(let needed, let available): "field of \(needed) bytes, \(available) left"
        case .stringTooLong(let bytes, let maximum): "string of \(bytes) bytes, at most \(maximum) allowed"
        case .notUTF8: "string is not UTF-8"
        case .countTooLarge(let count, let maximum): "array of \(count) elements, at most \(maximum) possible"
        case .invalidValue(let field): "field \(field) has no valid value"
        case .trailingBytes(let bytes): "\(bytes) bytes after the end of the message"
        }
    }
}

/// The number that says what the body of a frame is.
///
/// 1 to 15 belong to the connection (hello, keep-alive, credit, goaway); 0x10 and above to the application.
public struct RPCMessageType: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    /// The number on the wire.
    public let rawValue: UInt16

    /// Wraps a number; every number is accepted.
    @inlinable
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Wraps a number; every number is accepted.
    @inlinable
    public init(_ rawValue: UInt16) { self.rawValue = rawValue }

    /// The lowest number that the application may use.
    public static let firstOfApplication = RPCMessageType(0x10)

    /// Whether the application, not the connection, deals with this type.
    @inlinable
    public var belongsToApplication: Bool { rawValue >= 0x10 }

    /// The number in hexadecimal.
    public var description: String { "0x" + String(rawValue, radix: 16) }
}

/// A message of the application: the fixed part of a frame's body, before its payload.
public protocol RPCMessage: Sendable {
    /// The number of this message; an answer has the number of its request.
    static var type: RPCMessageType { get }

    /// Appends the fields.
    func encode(into buffer: inout ByteBuffer)

    /// Reads the fields and leaves `buffer` at the first byte after them, which is where a payload begins.
    ///
    /// - Throws: ``RPCDecodingError`` where a field is missing or has no valid value.
    init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError)
}

// MARK: - Reading

extension ByteBuffer {
    /// Reads a big-endian integer.
    @inlinable
    public mutating func readRPC<T: FixedWidthInteger>(_ type: T.Type = T.self) throws(RPCDecodingError) -> T {
        guard let value = readInteger(endianness: .big, as: T.self) else {
            throw RPCDecodingError.truncated(neededBytes: MemoryLayout<T>.size, availableBytes: readableBytes)
        }
        return value
    }

    /// Reads an identifier of its own width, big endian.
    @inlinable
    public mutating func readRPCIdentifier<I: Identifier>(_ type: I.Type = I.self) throws(RPCDecodingError) -> I {
        I(try readRPC(I.RawValue.self))
    }

    /// Reads one byte that must be 0 or 1.
    @inlinable
    public mutating func readRPCBool() throws(RPCDecodingError) -> Bool {
        switch try readRPC(UInt8.self) {
        case 0: return false
        case 1: return true
        default: throw RPCDecodingError.invalidValue(field: "bool")
        }
    }

    /// Reads a string with a length of two bytes before it.
    @inlinable
    public mutating func readRPCString(
        maximumBytes: Int = Limits.rpcStringMaximumBytes
    ) throws(RPCDecodingError) -> String {
        let count = Int(try readRPC(UInt16.self))
        guard count <= maximumBytes else {
            throw RPCDecodingError.stringTooLong(bytes: count, maximumBytes: maximumBytes)
        }
        guard readableBytes >= count else {
            throw RPCDecodingError.truncated(neededBytes: count, availableBytes: readableBytes)
        }
        guard let text = String(validating: readableBytesView.prefix(count), as: UTF8.self) else {
            throw RPCDecodingError.notUTF8
        }
        moveReaderIndex(forwardBy: count)
        return text
    }

    /// Takes the next `count` bytes as a slice, which keeps the whole storage alive and copies nothing.
    @inlinable
    public mutating func readRPCBytes(count: Int) throws(RPCDecodingError) -> ByteBuffer {
        guard count >= 0, let slice = readSlice(length: count) else {
            throw RPCDecodingError.truncated(neededBytes: count, availableBytes: readableBytes)
        }
        return slice
    }

    /// Takes bytes with a length of four bytes before them as a slice.
    @inlinable
    public mutating func readRPCData(maximumBytes: Int) throws(RPCDecodingError) -> ByteBuffer {
        let count = Int(try readRPC(UInt32.self))
        guard count <= maximumBytes else {
            throw RPCDecodingError.countTooLarge(count: count, maximum: maximumBytes)
        }
        return try readRPCBytes(count: count)
    }

    /// Reads an array with a count of four bytes before it.
    ///
    /// - Parameters:
    ///   - minimumElementBytes: the fewest bytes that one element takes; a count that the bytes left cannot hold
    ///     is refused before anything is allocated. At least 1.
    ///   - maximumCount: the most elements that the field allows.
    ///   - element: reads one element.
    @inlinable
    public mutating func readRPCArray<Element>(
        minimumElementBytes: Int,
        maximumCount: Int = .max,
        _ element: (inout ByteBuffer) throws(RPCDecodingError) -> Element
    ) throws(RPCDecodingError) -> [Element] {
        precondition(minimumElementBytes > 0, "an element takes at least one byte")
        let count = Int(try readRPC(UInt32.self))
        let maximum = Swift.min(maximumCount, readableBytes / minimumElementBytes)
        guard count <= maximum else {
            throw RPCDecodingError.countTooLarge(count: count, maximum: maximum)
        }
        var elements: [Element] = []
        elements.reserveCapacity(count)
        for _ in 0..<count {
            elements.append(try element(&self))
        }
        return elements
    }

    /// Reads a flag byte and, where it is 1, the value behind it.
    @inlinable
    public mutating func readRPCOptional<Value>(
        _ value: (inout ByteBuffer) throws(RPCDecodingError) -> Value
    ) throws(RPCDecodingError) -> Value? {
        try readRPCBool() ? try value(&self) : nil
    }

    /// Reads a stamp: epoch, then time in nanoseconds.
    @inlinable
    public mutating func readRPCStamp() throws(RPCDecodingError) -> Stamp {
        let epoch = try readRPCIdentifier(Epoch.self)
        return Stamp(epoch: epoch, time: try readRPCIdentifier(MonotonicTime.self))
    }

    /// Reads a run of blocks: first, then count. A run that ends beyond the range of block ids is refused.
    @inlinable
    public mutating func readRPCBlockRange() throws(RPCDecodingError) -> BlockRange {
        let first = try readRPCIdentifier(BlockID.self)
        let count = try readRPC(UInt64.self)
        guard !first.rawValue.addingReportingOverflow(count).overflow else {
            throw RPCDecodingError.invalidValue(field: "block range")
        }
        return BlockRange(first: first, count: count)
    }

    /// Reads a run of bytes: offset, then count. A run that ends beyond the range of offsets is refused.
    @inlinable
    public mutating func readRPCByteRange() throws(RPCDecodingError) -> ByteRange {
        let offset = try readRPC(UInt64.self)
        let count = try readRPC(UInt64.self)
        guard !offset.addingReportingOverflow(count).overflow else {
            throw RPCDecodingError.invalidValue(field: "byte range")
        }
        return ByteRange(offset: offset, count: count)
    }

    /// Decodes a message that has no payload: every byte must belong to it.
    @inlinable
    public mutating func readRPCWholeMessage<M: RPCMessage>(_ type: M.Type = M.self) throws(RPCDecodingError) -> M {
        let message = try M(decoding: &self)
        guard readableBytes == 0 else { throw RPCDecodingError.trailingBytes(readableBytes) }
        return message
    }
}

// MARK: - Writing

extension ByteBuffer {
    /// Appends a big-endian integer.
    @inlinable
    public mutating func writeRPC<T: FixedWidthInteger>(_ value: T) {
        writeInteger(value, endianness: .big, as: T.self)
    }

    /// Appends an identifier in its own width, big endian.
    @inlinable
    public mutating func writeRPCIdentifier<I: Identifier>(_ identifier: I) {
        writeInteger(identifier.rawValue, endianness: .big, as: I.RawValue.self)
    }

    /// Appends one byte: 1 for true, 0 for false.
    @inlinable
    public mutating func writeRPCBool(_ value: Bool) {
        writeInteger(value ? 1 : 0, as: UInt8.self)
    }

    /// Appends a string with a length of two bytes before it.
    ///
    /// A string above `maximumBytes` is cut at the last whole character scalar that fits; names are bounded by their
    /// own types, so that only texts for people are ever cut.
    @inlinable
    public mutating func writeRPCString(_ string: String, maximumBytes: Int = Limits.rpcStringMaximumBytes) {
        let utf8 = string.utf8
        let limit = Swift.min(maximumBytes, Int(UInt16.max))
        if utf8.count <= limit {
            writeInteger(UInt16(utf8.count), endianness: .big)
            writeBytes(utf8)
            return
        }
        var end = utf8.index(utf8.startIndex, offsetBy: limit)
        while end > utf8.startIndex, utf8[end] & 0xC0 == 0x80 { end = utf8.index(before: end) }
        let prefix = utf8[utf8.startIndex..<end]
        writeInteger(UInt16(prefix.count), endianness: .big)
        writeBytes(prefix)
    }

    /// Appends the readable bytes of `bytes` without a length.
    @inlinable
    public mutating func writeRPCBytes(_ bytes: ByteBuffer) {
        writeImmutableBuffer(bytes)
    }

    /// Appends the readable bytes of `data` with a length of four bytes before them.
    @inlinable
    public mutating func writeRPCData(_ data: ByteBuffer) {
        writeInteger(UInt32(data.readableBytes), endianness: .big)
        writeImmutableBuffer(data)
    }

    /// Appends a count of four bytes and then each element.
    @inlinable
    public mutating func writeRPCArray<Elements: Collection>(
        _ elements: Elements,
        _ write: (inout ByteBuffer, Elements.Element) -> Void
    ) {
        writeInteger(UInt32(elements.count), endianness: .big)
        for element in elements { write(&self, element) }
    }

    /// Appends a flag byte and, where there is a value, the value.
    @inlinable
    public mutating func writeRPCOptional<Value>(_ value: Value?, _ write: (inout ByteBuffer, Value) -> Void) {
        writeRPCBool(value != nil)
        if let value { write(&self, value) }
    }

    /// Appends a stamp: epoch, then time in nanoseconds.
    @inlinable
    public mutating func writeRPCStamp(_ stamp: Stamp) {
        writeRPCIdentifier(stamp.epoch)
        writeRPCIdentifier(stamp.time)
    }

    /// Appends a run of blocks: first, then count.
    @inlinable
    public mutating func writeRPCBlockRange(_ range: BlockRange) {
        writeRPCIdentifier(range.first)
        writeRPC(range.count)
    }

    /// Appends a run of bytes: offset, then count.
    @inlinable
    public mutating func writeRPCByteRange(_ range: ByteRange) {
        writeRPC(range.offset)
        writeRPC(range.count)
    }
}
