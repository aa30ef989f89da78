public import NIOCore

/// The types of frames that the connection itself deals with.
extension RPCMessageType {
    /// First frame of the connecting end; its answer is the first of the other.
    public static let hello = RPCMessageType(1)
    /// Keep-alive; the answer carries the same id.
    public static let ping = RPCMessageType(2)
    /// Nothing but the credit in its header.
    public static let credit = RPCMessageType(3)
    /// The sender takes no more requests.
    public static let goaway = RPCMessageType(4)
}

/// The 24 bytes before every body, all big endian.
///
/// | offset | bytes | field |
/// | --- | --- | --- |
/// | 0 | 4 | length of the whole frame, these 24 bytes included |
/// | 4 | 2 | message type |
/// | 6 | 2 | flags: bit 0 answer; all others 0 |
/// | 8 | 8 | request id |
/// | 16 | 4 | in a request: milliseconds until its deadline (0: none); in an answer: status |
/// | 20 | 4 | credit: bytes that the receiver may send in addition |
public struct RPCFrameHeader: Hashable, Sendable {
    /// Bytes of a header.
    public static let byteCount = 24
    /// The flag of answers.
    public static let answerFlag: UInt16 = 1

    /// Bytes of the whole frame.
    public var length: UInt32
    /// What the body is.
    public var type: RPCMessageType
    /// Bit 0: answer.
    public var flags: UInt16
    /// The request that this is, or that this answers; 0 in frames that are neither.
    public var id: UInt64
    /// Deadline in milliseconds, or status.
    public var word: UInt32
    /// Bytes of window that the sender grants.
    public var credit: UInt32

    /// A header with each field named.
    @inlinable
    public init(length: UInt32, type: RPCMessageType, flags: UInt16, id: UInt64, word: UInt32, credit: UInt32) {
        self.length = length
        self.type = type
        self.flags = flags
        self.id = id
        self.word = word
        self.credit = credit
    }

    /// Whether this is an answer.
    @inlinable
    public var isAnswer: Bool { flags & Self.answerFlag != 0 }

    /// Bytes of the body.
    @inlinable
    public var bodyBytes: Int { Int(length) - Self.byteCount }

    /// Writes the header over 24 bytes that are there already, at `index`.
    @inlinable
    public func set(in buffer: inout ByteBuffer, at index: Int) {
        let first = UInt64(length) << 32 | UInt64(type.rawValue) << 16 | UInt64(flags)
        buffer.setInteger(first, at: index)
        buffer.setInteger(id, at: index + 8)
        buffer.setInteger(UInt64(word) << 32 | UInt64(credit), at: index + 16)
    }

    /// Appends the header.
    @inlinable
    public func encode(into buffer: inout ByteBuffer) {
        let first = UInt64(length) << 32 | UInt64(type.rawValue) << 16 | UInt64(flags)
        buffer.writeMultipleIntegers(first, id, UInt64(word) << 32 | UInt64(credit))
    }

    /// Reads the 24 bytes at the reader index without moving it; `nil` where fewer are there.
    @inlinable
    public init?(peeking buffer: ByteBuffer) {
        guard
            let (first, id, last) = buffer.peekMultipleIntegers(as: (UInt64, UInt64, UInt64).self)
        else { return nil }
        self.init(
            length: UInt32(truncatingIfNeeded: first >> 32),
            type: RPCMessageType(UInt16(truncatingIfNeeded: first >> 16)),
            flags: UInt16(truncatingIfNeeded: first),
            id: id,
            word: UInt32(truncatingIfNeeded: last >> 32),
            credit: UInt32(truncatingIfNeeded: last)
        )
    }
}

/// A frame that has arrived; the body is a slice of the buffer that it was read into.
public struct RPCFrame: Hashable, Sendable {
    /// The header.
    public var header: RPCFrameHeader
    /// The bytes behind it.
    public var body: ByteBuffer

    /// A frame of a header and its body.
    @inlinable
    public init(header: RPCFrameHeader, body: ByteBuffer) {
        self.header = header
        self.body = body
    }
}

/// A frame that is to leave.
public struct RPCOutboundFrame: Hashable, Sendable {
    /// The header, its length and credit filled in.
    public var header: RPCFrameHeader
    /// The first bytes of the body.
    public var body: ByteBuffer
    /// The other bytes of the body, in order, not copied.
    public var payload: [ByteBuffer]

    /// A frame with each part named.
    public init(header: RPCFrameHeader, body: ByteBuffer, payload: [ByteBuffer]) {
        self.header = header
        self.body = body
        self.payload = payload
    }
}

/// Cuts a stream of bytes into frames.
///
/// A body is sliced from the bytes that were appended, not copied; only a frame that arrives in several pieces is
/// gathered. A length that cannot be is refused as soon as the header is there, before anything more is kept.
public struct RPCFrameDecoder: Sendable {
    /// Largest frame that is taken; a shell raises it when the handshake is done.
    public var frameMaximumBytes: Int
    private var pending = ByteBuffer()
    /// Whether the storage of `pending` was made here: what was handed in is to go back to its owner, who fills it anew
    /// and would have to copy it while it is held here.
    private var isOwn = false
    private let allocator = ByteBufferAllocator()

    /// A decoder that takes frames up to `frameMaximumBytes`.
    public init(frameMaximumBytes: Int) {
        self.frameMaximumBytes = frameMaximumBytes
    }

    /// Bytes that are kept because their frame is not complete.
    public var pendingBytes: Int { pending.readableBytes }

    /// Takes bytes as they arrived.
    @inlinable
    public mutating func append(_ bytes: ByteBuffer) {
        if isEmpty {
            replacePending(bytes)
        } else {
            gather(bytes)
        }
    }

    /// The next complete frame; `nil` until more bytes arrive.
    ///
    /// - Parameter windowBytes: what the peer may send now; an application's frame above it is refused by its header.
    /// - Throws: ``RPCCloseReason`` where the connection must end.
    public mutating func next(windowBytes: Int) throws(RPCCloseReason) -> RPCFrame? {
        guard let header = RPCFrameHeader(peeking: pending) else {
            keepRest()
            return nil
        }
        let length = Int(header.length)
        guard length >= RPCFrameHeader.byteCount, length <= frameMaximumBytes else {
            throw RPCCloseReason(
                .protocolViolation,
                "frame of \(length) bytes, allowed are \(RPCFrameHeader.byteCount) to \(frameMaximumBytes)"
            )
        }
        guard !header.type.belongsToApplication || length <= windowBytes else {
            throw RPCCloseReason(.flowControlViolation, "frame of \(length) bytes into a window of \(windowBytes)")
        }
        guard pending.readableBytes >= length else {
            keepRest()
            return nil
        }
        pending.moveReaderIndex(forwardBy: RPCFrameHeader.byteCount)
        guard let body = pending.readSlice(length: header.bodyBytes) else { return nil }
        if pending.readableBytes == 0 { replacePending(ByteBuffer()) }
        return RPCFrame(header: header, body: body)
    }

    @usableFromInline
    var isEmpty: Bool { pending.readableBytes == 0 }

    @usableFromInline
    mutating func replacePending(_ bytes: ByteBuffer) {
        pending = bytes
        isOwn = false
    }

    @usableFromInline
    mutating func gather(_ bytes: ByteBuffer) {
        if pending.readerIndex > 0 || pending.storageCapacity < expectedBytes {
            // Slices of the old storage may be in use: a fresh buffer of the right size costs one copy, not two.
            move(capacity: max(expectedBytes, pending.readableBytes + bytes.readableBytes))
        }
        pending.writeImmutableBuffer(bytes)
    }

    /// What is left is the beginning of a frame.
    private mutating func keepRest() {
        guard !isOwn, pending.readableBytes > 0 else { return }
        move(capacity: max(expectedBytes, pending.readableBytes))
    }

    private mutating func move(capacity: Int) {
        var fresh = allocator.buffer(capacity: capacity)
        fresh.writeImmutableBuffer(pending)
        pending = fresh
        isOwn = true
    }

    private var expectedBytes: Int {
        guard let header = RPCFrameHeader(peeking: pending) else { return RPCFrameHeader.byteCount }
        return min(Int(header.length), frameMaximumBytes)
    }
}
