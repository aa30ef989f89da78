package import NIOCore

/// A request or a response, whole: what the PDUs of one transaction and direction hold.
package struct ISNSMessage: Hashable, Sendable {
    /// FUNCTION ID.
    package var function: ISNSFunction
    /// FLAGS but those of the first and last PDU.
    package var flags: ISNSFlags
    /// TRANSACTION ID.
    package var transactionID: UInt16
    /// The status of a response.
    package var status: ISNSStatus?
    /// All attributes in their order.
    package var attributes: [ISNSAttribute]

    /// A message with each part named.
    package init(
        function: ISNSFunction,
        flags: ISNSFlags = .client,
        transactionID: UInt16,
        status: ISNSStatus? = nil,
        attributes: [ISNSAttribute]
    ) {
        self.function = function
        self.flags = flags
        self.transactionID = transactionID
        self.status = status
        self.attributes = attributes
    }

    /// Reads a message from the payloads of its PDUs.
    package init(header: ISNSHeader, payload: ByteBuffer) throws(ISNSError) {
        var payload = payload
        var status: ISNSStatus?
        if header.function.isResponse {
            guard let code = payload.readInteger(as: UInt32.self) else { throw .truncated }
            status = ISNSStatus(rawValue: code)
        }
        var attributes: [ISNSAttribute] = []
        while payload.readableBytes > 0 {
            guard attributes.count < ISNSLimits.attributesMaximum else { throw .tooManyAttributes }
            attributes.append(try ISNSAttribute(decoding: &payload))
        }
        self.init(
            function: header.function,
            flags: header.flags.subtracting([.first, .last]),
            transactionID: header.transactionID,
            status: status,
            attributes: attributes
        )
    }

    /// The bytes of all PDUs.
    package func encoded() -> ByteBuffer {
        var payload = ByteBuffer()
        if let status { payload.writeInteger(status.rawValue) }
        for attribute in attributes { attribute.encode(into: &payload) }
        var result = ByteBuffer()
        result.reserveCapacity(ISNSLimits.headerBytes + payload.readableBytes)
        var sequence: UInt16 = 0
        repeat {
            let partBytes = min(payload.readableBytes, ISNSLimits.payloadMaximumBytes)
            let part = payload.readSlice(length: partBytes) ?? ByteBuffer()
            var flags = flags
            if sequence == 0 { flags.insert(.first) }
            if payload.readableBytes == 0 { flags.insert(.last) }
            ISNSHeader(
                function: function,
                length: UInt16(partBytes),
                flags: flags,
                transactionID: transactionID,
                sequenceID: sequence
            ).encode(into: &result)
            result.writeImmutableBuffer(part)
            sequence &+= 1
        } while payload.readableBytes > 0
        return result
    }

    /// The attributes behind the delimiter; none where there is no delimiter.
    package var operatingAttributes: ArraySlice<ISNSAttribute> {
        guard let index = attributes.firstIndex(where: { $0.tag == .delimiter }) else { return [] }
        return attributes[(index + 1)...]
    }
}

/// Cuts a stream of bytes into messages, in whatever portions the bytes come.
///
/// After an error the stream has lost its frames and the decoder stays failed.
package struct ISNSMessageDecoder: Sendable {
    private struct Partial {
        var header: ISNSHeader
        var payload: ByteBuffer
    }

    private var buffer = ByteBuffer()
    private var partial: Partial?
    private var failure: ISNSError?

    /// A decoder at the beginning of a stream.
    package init() {}

    /// Takes all readable bytes.
    package mutating func feed(_ bytes: inout ByteBuffer) {
        guard failure == nil else {
            bytes.moveReaderIndex(to: bytes.writerIndex)
            return
        }
        if buffer.readableBytes == 0 { buffer.clear() }
        buffer.writeBuffer(&bytes)
    }

    /// The next whole message; `nil` where more bytes are needed.
    package mutating func next() throws(ISNSError) -> ISNSMessage? {
        if let failure { throw failure }
        do throws(ISNSError) {
            while let header = try ISNSHeader(peeking: buffer) {
                guard buffer.readableBytes >= ISNSLimits.headerBytes + Int(header.length) else { break }
                buffer.moveReaderIndex(forwardBy: ISNSLimits.headerBytes)
                guard let payload = buffer.readSlice(length: Int(header.length)) else { break }
                if let message = try joined(header, payload) { return message }
            }
            buffer.discardReadBytes()
            return nil
        } catch {
            failure = error
            buffer = ByteBuffer()
            partial = nil
            throw error
        }
    }

    private mutating func joined(_ header: ISNSHeader, _ payload: ByteBuffer) throws(ISNSError) -> ISNSMessage? {
        var whole: Partial
        if header.flags.contains(.first) {
            guard partial == nil else { throw .sequenceBroken }
            whole = Partial(header: header, payload: payload)
        } else {
            guard let begun = partial, begun.header.function == header.function,
                begun.header.transactionID == header.transactionID,
                header.sequenceID == begun.header.sequenceID &+ 1
            else { throw .sequenceBroken }
            whole = begun
            whole.header.sequenceID = header.sequenceID
            guard whole.payload.readableBytes + payload.readableBytes <= ISNSLimits.messageMaximumBytes else {
                throw .messageTooLong
            }
            whole.payload.writeImmutableBuffer(payload)
        }
        guard header.flags.contains(.last) else {
            partial = whole
            return nil
        }
        partial = nil
        return try ISNSMessage(header: whole.header, payload: whole.payload)
    }
}
