public import AshlarCore
public import NIOCore

/// How the bytes of a slot are stored; the raw value is the byte in the header and on the wire.
public enum SlotEncoding: UInt8, Sendable, Hashable, CaseIterable {
    /// As they are.
    case plain = 0
    /// A zlib stream (RFC 1950) of exactly one block.
    case zlib = 1
    /// Not at all: the block is all zeros.
    case zeros = 2
}

/// A block in the form in which an object holds it, which is also the form in which it goes over the wire.
///
/// A type of its own, so that stored bytes cannot be taken for plain ones.
public struct StoredSlot: Sendable, Hashable {
    /// How ``bytes`` are to be read.
    public var encoding: SlotEncoding
    /// The stored bytes; none for ``SlotEncoding/zeros``.
    public var bytes: ByteBuffer
    /// CRC-32C of the plain block (I11).
    public var checksum: Checksum

    /// A slot with each part named; nothing is checked before ``decoded(blockSizeBytes:slot:expected:using:)``.
    public init(encoding: SlotEncoding, bytes: ByteBuffer, checksum: Checksum) {
        self.encoding = encoding
        self.bytes = bytes
        self.checksum = checksum
    }

    /// The plain block, verified (I11). For ``SlotEncoding/plain`` it is a slice of the stored bytes.
    ///
    /// - Parameters:
    ///   - blockSizeBytes: The volume's block size in bytes; the result has exactly as many.
    ///   - slot: The slot's number, to be named in errors.
    ///   - expected: The checksum that the owner's map has for the block, where it is known.
    ///   - inflater: A stream of this thread.
    /// - Throws: `.blockChecksum`, `.badCompression`, or `.badSlot` for a length that no slot can have; each names the slot.
    public func decoded(
        blockSizeBytes: UInt32,
        slot: SlotIndex,
        expected: Checksum? = nil,
        using inflater: BlockInflater
    ) throws(BlockObjectError) -> ByteBuffer {
        guard BlockObjectsLimits.isBlockSize(blockSizeBytes) else {
            throw BlockObjectError(.badArgument, "\(blockSizeBytes) bytes is no block size", slot: slot)
        }
        guard expected == nil || expected == checksum else {
            throw BlockObjectError(.blockChecksum, "the slot holds another block than the map says", slot: slot)
        }
        let size = Int(blockSizeBytes)
        let plain: ByteBuffer
        switch encoding {
        case .plain:
            guard bytes.readableBytes == size else {
                throw BlockObjectError(.badSlot, "\(bytes.readableBytes) bytes instead of \(size)", slot: slot)
            }
            plain = bytes
        case .zlib:
            let maximum = BlockObjectsLimits.compressedMaximumBytes(blockSizeBytes: blockSizeBytes)
            guard bytes.readableBytes > 0, bytes.readableBytes <= Int(maximum) else {
                throw BlockObjectError(.badSlot, "\(bytes.readableBytes) compressed bytes of a block", slot: slot)
            }
            guard let inflated = inflater.inflateExactly(bytes, count: size) else {
                throw BlockObjectError(.badCompression, "the bytes do not inflate to one block", slot: slot)
            }
            plain = inflated
        case .zeros:
            guard bytes.readableBytes == 0 else {
                throw BlockObjectError(.badSlot, "\(bytes.readableBytes) bytes of a block of zeros", slot: slot)
            }
            plain = ByteBuffer(repeating: 0, count: size)
        }
        guard plain.checksum == checksum else {
            throw BlockObjectError(.blockChecksum, "the bytes do not match their checksum", slot: slot)
        }
        return plain
    }
}

extension ByteBuffer {
    /// The CRC-32C of the readable bytes.
    var checksum: Checksum { withUnsafeReadableBytes { Checksum(of: $0) } }

    /// Whether all readable bytes are zero.
    var isAllZeros: Bool {
        withUnsafeReadableBytes { bytes in
            // Eight at a time; what does not fill a word is looked at byte by byte.
            let words = bytes.count / 8
            for word in 0..<words where bytes.loadUnaligned(fromByteOffset: word * 8, as: UInt64.self) != 0 {
                return false
            }
            return bytes[(words * 8)...].allSatisfy { $0 == 0 }
        }
    }
}
