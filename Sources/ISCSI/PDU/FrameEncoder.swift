import AshlarCore
package import NIOCore

/// Puts digests and padding round PDUs (RFC 7143, 11.1).
package struct FrameEncoder: Sendable {
    /// Whether header digests follow the headers.
    package var headerDigest = false
    /// Whether data digests follow data segments that are not empty.
    package var dataDigest = false

    /// An encoder without digests.
    package init() {}

    /// The header with its digest, for a data segment of `dataBytes`.
    package func head(_ header: BasicHeader, additional: ByteBuffer? = nil, dataBytes: Int = 0) -> ByteBuffer {
        var header = header
        header.dataLength = UInt32(dataBytes)
        var buffer = ByteBuffer()
        buffer.reserveCapacity(ISCSILimits.headerBytes + (additional?.readableBytes ?? 0) + 4)
        if let additional {
            header.additionalWords = UInt8((additional.readableBytes + 3) / 4)
            header.write(into: &buffer)
            buffer.writeImmutableBuffer(additional)
            buffer.writeRepeatingByte(0, count: -additional.readableBytes & 3)
        } else {
            header.write(into: &buffer)
        }
        if headerDigest { buffer.appendChecksum(of: buffer) }
        return buffer
    }

    /// What follows a data segment that goes out in parts: padding and digest; `nil` where nothing does.
    package func tail(_ parts: [ByteBuffer], dataBytes: Int) -> ByteBuffer? {
        let padding = -dataBytes & 3
        guard dataBytes > 0, padding > 0 || dataDigest else { return nil }
        var buffer = ByteBuffer()
        buffer.reserveCapacity(8)
        buffer.writeRepeatingByte(0, count: padding)
        if dataDigest {
            var checksum = Checksum(0)
            for part in parts { checksum = part.withUnsafeReadableBytes { checksum.continued(by: $0) } }
            checksum = buffer.withUnsafeReadableBytes { checksum.continued(by: $0) }
            buffer.writeInteger(checksum.rawValue, endianness: .little)
        }
        return buffer
    }

    /// A whole PDU in one buffer, for small data segments.
    package func frame(_ header: BasicHeader, additional: ByteBuffer? = nil, data: ByteBuffer? = nil) -> ByteBuffer {
        guard let data, data.readableBytes > 0 else { return head(header, additional: additional) }
        var buffer = head(header, additional: additional, dataBytes: data.readableBytes)
        buffer.writeImmutableBuffer(data)
        if let tail = tail([data], dataBytes: data.readableBytes) { buffer.writeImmutableBuffer(tail) }
        return buffer
    }
}

extension ByteBuffer {
    /// Appends the CRC-32C of `bytes`, least significant byte first.
    fileprivate mutating func appendChecksum(of bytes: ByteBuffer) {
        let checksum = bytes.withUnsafeReadableBytes { Checksum(of: $0) }
        writeInteger(checksum.rawValue, endianness: .little)
    }
}
