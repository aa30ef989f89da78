package import NIOCore

/// Tags of attributes (RFC 4171, 6.1).
package struct ISNSTag: RawRepresentable, Hashable, Sendable {
    /// The number.
    package var rawValue: UInt32
    /// Wraps a number.
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Between message key and operating attributes.
    package static let delimiter = ISNSTag(rawValue: 0)
    /// Entity Identifier.
    package static let entityIdentifier = ISNSTag(rawValue: 1)
    /// Entity Protocol.
    package static let entityProtocol = ISNSTag(rawValue: 2)
    /// Timestamp.
    package static let timestamp = ISNSTag(rawValue: 4)
    /// Registration Period, in seconds.
    package static let registrationPeriod = ISNSTag(rawValue: 6)
    /// Portal IP Address.
    package static let portalAddress = ISNSTag(rawValue: 16)
    /// Portal TCP/UDP Port.
    package static let portalPort = ISNSTag(rawValue: 17)
    /// ESI Port.
    package static let inquiryPort = ISNSTag(rawValue: 20)
    /// SCN Port.
    package static let notificationPort = ISNSTag(rawValue: 23)
    /// iSCSI Name.
    package static let iscsiName = ISNSTag(rawValue: 32)
    /// iSCSI Node Type.
    package static let iscsiNodeType = ISNSTag(rawValue: 33)
    /// iSCSI Alias.
    package static let iscsiAlias = ISNSTag(rawValue: 34)
    /// iSCSI SCN Bitmap.
    package static let notificationBitmap = ISNSTag(rawValue: 35)
    /// PG iSCSI Name.
    package static let portalGroupName = ISNSTag(rawValue: 48)
    /// PG Portal IP Address.
    package static let portalGroupAddress = ISNSTag(rawValue: 49)
    /// PG Portal TCP/UDP Port.
    package static let portalGroupPort = ISNSTag(rawValue: 50)
    /// Portal Group Tag.
    package static let portalGroupTag = ISNSTag(rawValue: 51)
}

/// A tag, a length and a value (RFC 4171, 5.3). The length is a multiple of four.
package struct ISNSAttribute: Hashable, Sendable {
    /// What it is.
    package var tag: ISNSTag
    /// The value with its padding.
    package var value: ByteBuffer

    /// Appends tag, length and value.
    package func encode(into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(tag.rawValue, UInt32(value.readableBytes))
        buffer.writeImmutableBuffer(value)
    }

    /// Reads one attribute.
    package init(decoding buffer: inout ByteBuffer) throws(ISNSError) {
        guard let (tag, length) = buffer.readMultipleIntegers(as: (UInt32, UInt32).self) else { throw .truncated }
        guard length % 4 == 0 else { throw .lengthNotAligned(Int(length)) }
        guard let value = buffer.readSlice(length: Int(length)) else { throw .truncated }
        self.init(tag: ISNSTag(rawValue: tag), value: value)
    }

    /// An attribute with its value as it is sent.
    package init(tag: ISNSTag, value: ByteBuffer) {
        self.tag = tag
        self.value = value
    }

    // MARK: Making

    /// The delimiter.
    package static let delimiter = ISNSAttribute.asked(.delimiter)

    /// An attribute without a value: in a query, one that is asked for.
    package static func asked(_ tag: ISNSTag) -> ISNSAttribute { ISNSAttribute(tag: tag, value: ByteBuffer()) }

    /// A text, terminated and padded with NUL.
    package static func text(_ tag: ISNSTag, _ text: String) -> ISNSAttribute {
        var value = ByteBuffer(string: text)
        value.writeRepeatingByte(0, count: 4 - value.readableBytes % 4)
        return ISNSAttribute(tag: tag, value: value)
    }

    /// Four bytes.
    package static func number(_ tag: ISNSTag, _ number: UInt32) -> ISNSAttribute {
        ISNSAttribute(tag: tag, value: ByteBuffer(integer: number))
    }

    /// A TCP port (RFC 4171, 6.3.2): bit 16, which says UDP, is clear.
    package static func port(_ tag: ISNSTag, _ port: UInt16) -> ISNSAttribute { number(tag, UInt32(port)) }

    /// An IPv6 address of 16 bytes.
    package static func address(_ tag: ISNSTag, _ portal: ISNSPortal) -> ISNSAttribute {
        ISNSAttribute(tag: tag, value: ByteBuffer(bytes: portal.address))
    }

    // MARK: Reading

    /// The text before the first NUL; `nil` where it is not UTF-8.
    package var text: String? {
        let bytes = value.readableBytesView.prefix { $0 != 0 }
        return String(validating: bytes, as: UTF8.self)
    }

    /// The value of four bytes.
    package var number: UInt32? {
        value.readableBytes == 4 ? value.getInteger(at: value.readerIndex) : nil
    }
}

/// Address and TCP port at which targets are reached.
public struct ISNSPortal: Hashable, Sendable {
    /// 16 bytes; an IPv4 address is mapped into IPv6 (RFC 4171, 6.3.1).
    public let address: [UInt8]
    /// The TCP port.
    public let port: UInt16

    private static let mappedPrefix: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]

    /// A portal at an address of 4 or 16 bytes; `nil` for other lengths.
    public init?(address: [UInt8], port: UInt16) {
        switch address.count {
        case 4: self.address = Self.mappedPrefix + address
        case 16: self.address = address
        default: return nil
        }
        self.port = port
    }

    /// A portal of two attributes; `nil` where they are not of their kind, or where the port is one of UDP.
    package init?(address: ISNSAttribute, port: ISNSAttribute) {
        guard let number = port.number, number >> 16 & 1 == 0 else { return nil }
        self.init(address: Array(address.value.readableBytesView), port: UInt16(truncatingIfNeeded: number))
        guard address.value.readableBytes == 16 else { return nil }
    }
}
