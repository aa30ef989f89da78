import AshlarCore
package import NIOCore

/// Cuts a stream of bytes into PDUs (RFC 7143, 11.1), in whatever portions the bytes come.
///
/// A frame's buffers are slices of what was fed in; bytes are copied only where a PDU straddles two portions. After an
/// error the stream has lost its frames and the decoder stays failed.
package struct FrameDecoder: Sendable {
    /// What can be wrong with a frame.
    package enum Failure: Error, Hashable, Sendable {
        /// The header digest does not match: the length cannot be trusted.
        case headerDigest
        /// The data digest does not match; the header is that of the PDU.
        case dataDigest(BasicHeader)
        /// DataSegmentLength is above the limit.
        case tooLong(BasicHeader)
    }

    /// Whether header digests follow the headers.
    package var headerDigest = false
    /// Whether data digests follow data segments that are not empty.
    package var dataDigest = false
    /// Largest data segment taken, in bytes.
    package var dataSegmentMaximumBytes: UInt32

    private var buffer = ByteBuffer()
    /// Whether `buffer`'s storage is ours alone, so that appending does not copy what slices refer to.
    private var isExclusive = false
    /// Bytes of the frame at hand, once its header is there.
    private var frameBytes: Int?
    private var failure: Failure?

    /// A decoder without digests.
    package init(dataSegmentMaximumBytes: UInt32) {
        self.dataSegmentMaximumBytes = dataSegmentMaximumBytes
    }

    /// Bytes held that are no whole frame yet.
    package var pendingBytes: Int { buffer.readableBytes }

    /// Takes all readable bytes.
    package mutating func feed(_ bytes: inout ByteBuffer) {
        guard failure == nil else {
            bytes.moveReaderIndex(to: bytes.writerIndex)
            return
        }
        if buffer.readableBytes == 0 {
            buffer = bytes
            isExclusive = false
            bytes.moveReaderIndex(to: bytes.writerIndex)
            return
        }
        if !isExclusive {
            var fresh = ByteBuffer()
            fresh.reserveCapacity(max(frameBytes ?? 0, buffer.readableBytes + bytes.readableBytes))
            fresh.writeBuffer(&buffer)
            buffer = fresh
            isExclusive = true
        }
        buffer.writeBuffer(&bytes)
    }

    /// The next whole frame; `nil` where more bytes are needed.
    package mutating func next() throws(Failure) -> Frame? {
        if let failure { throw failure }
        do throws(Failure) {
            return try cut()
        } catch {
            failure = error
            buffer = ByteBuffer()
            throw error
        }
    }

    private mutating func cut() throws(Failure) -> Frame? {
        guard let header = BasicHeader(peeking: buffer) else { return nil }
        guard header.dataLength <= dataSegmentMaximumBytes else { throw .tooLong(header) }
        let additionalBytes = Int(header.additionalWords) * 4
        let dataBytes = Int(header.dataLength)
        let paddedBytes = (dataBytes + 3) & ~3
        let headBytes = ISCSILimits.headerBytes + additionalBytes
        let total =
            headBytes + (headerDigest ? 4 : 0) + paddedBytes + (dataDigest && dataBytes > 0 ? 4 : 0)
        frameBytes = total
        guard buffer.readableBytes >= total else {
            // Bytes behind a header that lies are not waited for: its digest is tested as soon as it is there.
            try checkHeaderDigest(headBytes: headBytes)
            return nil
        }
        try checkHeaderDigest(headBytes: headBytes)
        frameBytes = nil
        isExclusive = false
        buffer.moveReaderIndex(forwardBy: ISCSILimits.headerBytes)
        let additional = additionalBytes > 0 ? buffer.readSlice(length: additionalBytes) : nil
        if headerDigest { buffer.moveReaderIndex(forwardBy: 4) }
        let hasDigest = dataDigest && dataBytes > 0
        if hasDigest, !matches(from: buffer.readerIndex, count: paddedBytes) { throw .dataDigest(header) }
        guard let data = buffer.readSlice(length: dataBytes) else { return nil }
        buffer.moveReaderIndex(forwardBy: paddedBytes - dataBytes + (hasDigest ? 4 : 0))
        if buffer.readableBytes == 0 { buffer = ByteBuffer() }
        return Frame(header: header, additional: additional, data: data)
    }

    private func checkHeaderDigest(headBytes: Int) throws(Failure) {
        guard headerDigest, buffer.readableBytes >= headBytes + 4 else { return }
        guard matches(from: buffer.readerIndex, count: headBytes) else { throw .headerDigest }
    }

    /// Whether the four bytes behind the run are its CRC-32C, least significant byte first (RFC 7143, 13.1).
    private func matches(from start: Int, count: Int) -> Bool {
        let checksum = buffer.withVeryUnsafeBytes { bytes in
            Checksum(of: UnsafeRawBufferPointer(rebasing: bytes[start..<(start + count)]))
        }
        return buffer.getInteger(at: start + count, endianness: .little, as: UInt32.self) == checksum.rawValue
    }
}
