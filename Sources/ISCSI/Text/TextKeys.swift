package import NIOCore

/// What can be wrong with the text of a request.
package enum TextFailure: Error, Hashable, Sendable {
    /// Not `key=value` behind each other, each closed by a zero byte.
    case malformed
    /// A key, a value or the whole is too long, or there are too many keys.
    case tooLong
    /// A key came twice.
    case duplicate(String)
}

/// One `key=value`.
package struct TextKey: Hashable, Sendable {
    package var name: String
    package var value: String

    package init(_ name: String, _ value: String) {
        self.name = name
        self.value = value
    }
}

/// Lists of `key=value` (RFC 7143, 6.1).
package enum TextKeys {
    /// Decodes the text of a whole request.
    package static func decode(_ text: ByteBuffer) throws(TextFailure) -> [TextKey] {
        guard text.readableBytes <= ISCSILimits.textMaximumBytes else { throw .tooLong }
        let bytes = text.readableBytesView
        guard bytes.last ?? 0 == 0 else { throw .malformed }
        var keys: [TextKey] = []
        var names: Set<String> = []
        for pair in bytes.split(separator: 0, omittingEmptySubsequences: true) {
            let key = try decode(pair: pair)
            guard keys.count < ISCSILimits.keysMaximum else { throw .tooLong }
            guard names.insert(key.name).inserted else { throw .duplicate(key.name) }
            keys.append(key)
        }
        return keys
    }

    private static func decode(pair: ByteBufferView) throws(TextFailure) -> TextKey {
        guard let equals = pair.firstIndex(of: UInt8(ascii: "=")) else { throw .malformed }
        let name = pair[..<equals]
        let value = pair[(equals + 1)...]
        guard !name.isEmpty, name.allSatisfy(isNameByte) else { throw .malformed }
        guard name.count <= ISCSILimits.keyNameMaximumBytes, value.count <= ISCSILimits.valueMaximumBytes else {
            throw .tooLong
        }
        guard let text = String(validating: value, as: UTF8.self), !value.contains(where: { $0 < 0x20 || $0 == 0x7F })
        else { throw .malformed }
        return TextKey(String(decoding: name, as: UTF8.self), text)
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        case UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "+"), UInt8(ascii: "@"), UInt8(ascii: "_"),
            UInt8(ascii: "#"), UInt8(ascii: ":"), UInt8(ascii: "/"):
            true
        default:
            false
        }
    }

    /// Encodes, each pair closed by a zero byte.
    package static func encode(_ keys: [TextKey]) -> ByteBuffer {
        var buffer = ByteBuffer()
        for key in keys {
            buffer.writeString(key.name)
            buffer.writeStaticString("=")
            buffer.writeString(key.value)
            buffer.writeInteger(UInt8(0))
        }
        return buffer
    }
}

/// Text that comes over several PDUs with the C bit set in all but the last.
package struct TextGatherer: Sendable {
    private var text = ByteBuffer()

    package init() {}

    /// Adds the text of a PDU; returns all of it where `continues` is false.
    package mutating func add(_ data: ByteBuffer, continues: Bool) throws(TextFailure) -> ByteBuffer? {
        guard text.readableBytes + data.readableBytes <= ISCSILimits.textMaximumBytes else { throw .tooLong }
        if text.readableBytes == 0 && !continues { return data }
        text.writeImmutableBuffer(data)
        guard !continues else { return nil }
        let whole = text
        text = ByteBuffer()
        return whole
    }
}
