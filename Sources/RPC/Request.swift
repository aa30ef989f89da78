public import AshlarCore
public import NIOCore

/// The id of a request on the wire: a sequence that only grows, and in the low 16 bits the asker's slot.
public struct RPCRequestID: Hashable, Sendable, CustomStringConvertible {
    /// The number on the wire.
    public let rawValue: UInt64

    /// Wraps a number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// The asker's slot: below `requestsInFlightMaximum`, and used by one request at a time.
    @inlinable
    public var slot: Int { Int(rawValue & 0xFFFF) }

    /// The number in decimal.
    public var description: String { String(rawValue) }
}

/// Names a request to the end that answers it; valid until it is answered.
public struct RPCRequestHandle: Hashable, Sendable {
    let id: UInt64
    let slot: UInt32
}

/// A request that has arrived.
public struct RPCRequest: Sendable {
    /// Names it in the answer.
    public let handle: RPCRequestHandle
    /// What the body is.
    public let type: RPCMessageType
    /// Message, then payload: a slice of the buffer that it was read into.
    public var body: ByteBuffer
    /// When the asker gives up, on the clock that `now` was read from; `nil` for never.
    public let deadline: MonotonicTime?
}

/// An answer that has arrived.
public struct RPCAnswer: Sendable {
    /// The type of the request that it answers.
    public let type: RPCMessageType
    /// The outcome.
    public let status: RPCStatus
    /// For ok the message and then the payload; otherwise the text and then the detail.
    public var body: ByteBuffer

    /// An answer with each part named.
    public init(type: RPCMessageType, status: RPCStatus, body: ByteBuffer) {
        self.type = type
        self.status = status
        self.body = body
    }

    /// Whether the request was done.
    @inlinable
    public var isOK: Bool { status == .ok }

    /// The error; `nil` where the status is ok.
    public var error: RPCError? { isOK ? nil : RPCError(status: status, decoding: body) }

    /// Decodes an ok answer and leaves `body` at the payload.
    ///
    /// - Throws: ``RPCError`` for any other status; `invalidMessage` where the body cannot be decoded.
    public mutating func decode<M: RPCMessage>(_ type: M.Type = M.self) throws(RPCError) -> M {
        if let error { throw error }
        do {
            return try M(decoding: &body)
        } catch {
            throw RPCError(.invalidMessage, "answer of type \(self.type): \(error)")
        }
    }
}

/// Why a request has no answer.
public struct RPCFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// The sorts of failure.
    public enum Kind: Hashable, Sendable {
        /// The request has not left this process.
        case notSent
        /// The connection ended before the answer came.
        case connectionLost
        /// The deadline passed before the answer came.
        case deadline
    }

    /// The sort of failure.
    public let kind: Kind
    /// False: the peer has not executed it and never will.
    public let mayHaveExecuted: Bool
    /// For people.
    public let reason: String

    /// A failure with each part named.
    public init(_ kind: Kind, mayHaveExecuted: Bool, _ reason: String) {
        self.kind = kind
        self.mayHaveExecuted = mayHaveExecuted
        self.reason = reason
    }

    /// The sort, the reason, and whether it may have been executed.
    public var description: String {
        let sort =
            switch kind {
            case .notSent: "not sent"
            case .connectionLost: "connection lost"
            case .deadline: "deadline exceeded"
            }
        return "\(sort): \(reason)" + (mayHaveExecuted ? " (may have been executed)" : "")
    }
}
