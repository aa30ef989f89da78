package import NIOCore

/// Functions (RFC 4171, 5.1.2); a response is its request with the highest bit.
package struct ISNSFunction: RawRepresentable, Hashable, Sendable {
    /// FUNCTION ID.
    package var rawValue: UInt16
    /// Wraps a number.
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    /// DevAttrReg.
    package static let deviceAttributeRegistration = ISNSFunction(rawValue: 0x0001)
    /// DevAttrQry.
    package static let deviceAttributeQuery = ISNSFunction(rawValue: 0x0002)
    /// DevDereg.
    package static let deviceDeregistration = ISNSFunction(rawValue: 0x0004)
    /// SCNReg.
    package static let stateChangeRegistration = ISNSFunction(rawValue: 0x0005)
    /// SCN.
    package static let stateChangeNotification = ISNSFunction(rawValue: 0x0008)
    /// ESI.
    package static let entityStatusInquiry = ISNSFunction(rawValue: 0x000D)

    /// Whether it is a response.
    package var isResponse: Bool { rawValue & 0x8000 != 0 }
    /// The response to this request.
    package var response: ISNSFunction { ISNSFunction(rawValue: rawValue | 0x8000) }
}

/// FLAGS of a PDU (RFC 4171, 5.1.4).
package struct ISNSFlags: OptionSet, Hashable, Sendable {
    /// The 16 bits.
    package var rawValue: UInt16
    /// Wraps the bits.
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    /// The sender is a client.
    package static let client = ISNSFlags(rawValue: 0x8000)
    /// The sender is a server.
    package static let server = ISNSFlags(rawValue: 0x4000)
    /// An authentication block follows the payload.
    package static let authentication = ISNSFlags(rawValue: 0x2000)
    /// DevAttrReg replaces what the message key names.
    package static let replace = ISNSFlags(rawValue: 0x1000)
    /// Last PDU of a message.
    package static let last = ISNSFlags(rawValue: 0x0800)
    /// First PDU of a message.
    package static let first = ISNSFlags(rawValue: 0x0400)
}

/// The 12 bytes before each payload (RFC 4171, 5.1).
package struct ISNSHeader: Hashable, Sendable {
    /// The one version there is.
    package static let version: UInt16 = 1

    /// FUNCTION ID.
    package var function: ISNSFunction
    /// PDU LENGTH: bytes of the payload.
    package var length: UInt16
    /// FLAGS.
    package var flags: ISNSFlags
    /// TRANSACTION ID: the same for all PDUs of a request and of its response.
    package var transactionID: UInt16
    /// SEQUENCE ID: counts the PDUs of a message from 0.
    package var sequenceID: UInt16

    /// A header with each part named.
    package init(
        function: ISNSFunction,
        length: UInt16,
        flags: ISNSFlags,
        transactionID: UInt16,
        sequenceID: UInt16
    ) {
        self.function = function
        self.length = length
        self.flags = flags
        self.transactionID = transactionID
        self.sequenceID = sequenceID
    }

    /// Reads a header without moving the reader index; `nil` where more bytes are needed.
    package init?(peeking buffer: ByteBuffer) throws(ISNSError) {
        var buffer = buffer
        guard
            let (version, function, length, flags, transaction, sequence) = buffer.readMultipleIntegers(
                as: (UInt16, UInt16, UInt16, UInt16, UInt16, UInt16).self
            )
        else { return nil }
        guard version == Self.version else { throw .unsupportedVersion(version) }
        guard length % 4 == 0 else { throw .lengthNotAligned(Int(length)) }
        self.init(
            function: ISNSFunction(rawValue: function),
            length: length,
            flags: ISNSFlags(rawValue: flags),
            transactionID: transaction,
            sequenceID: sequence
        )
        guard !self.flags.contains(.authentication) else { throw .authenticated }
    }

    /// Appends the 12 bytes.
    package func encode(into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(
            Self.version,
            function.rawValue,
            length,
            flags.rawValue,
            transactionID,
            sequenceID
        )
    }
}
