public import AshlarCore
public import NIOCore

extension BlockObjectHeader {
    /// A slot, cut out of a run of the object's bytes that begins at `offset`; its stored checksum is verified.
    ///
    /// - Parameters:
    ///   - index: The slot.
    ///   - bytes: Bytes of the object, the first of which lies `offset` bytes from the start of the object.
    ///   - offset: Offset in bytes of the run.
    /// - Throws: `.badSlot`, `.truncated` where the run does not hold the whole slot, `.blockChecksum`.
    public func stored(
        _ index: SlotIndex,
        from bytes: ByteBuffer,
        startingAt offset: UInt32
    ) throws(BlockObjectError) -> StoredSlot {
        let slot = try slot(index)
        guard slot.storedOffset >= offset else {
            throw BlockObjectError(.truncated, "the bytes begin behind the slot", slot: index)
        }
        let start = bytes.readerIndex + Int(slot.storedOffset - offset)
        guard let body = bytes.getSlice(at: start, length: Int(slot.storedCount)) else {
            throw BlockObjectError(.truncated, "the bytes end before the slot does", slot: index)
        }
        guard body.checksum == slot.storedChecksum else {
            throw BlockObjectError(.blockChecksum, "the stored bytes do not match their checksum", slot: index)
        }
        return StoredSlot(encoding: slot.encoding, bytes: body, checksum: slot.checksum)
    }
}

/// A whole block object in memory.
public struct BlockObjectReader: Sendable {
    /// The object's header.
    public let header: BlockObjectHeader
    private let object: ByteBuffer

    /// Decodes the header of `object`, whose readable bytes are the object and nothing else.
    ///
    /// - Throws: As ``BlockObjectHeader/init(decoding:)``; `.truncated` or `.badHeader` for a wrong length.
    public init(decoding object: ByteBuffer) throws(BlockObjectError) {
        header = try BlockObjectHeader(decoding: object)
        self.object = object
        let count = object.readableBytes
        guard count >= Int(header.objectBytes) else {
            throw BlockObjectError(.truncated, "\(count) bytes of an object of \(header.objectBytes)")
        }
        guard count == Int(header.objectBytes) else {
            throw BlockObjectError(.badHeader, "\(count) bytes for an object of \(header.objectBytes)")
        }
    }

    /// A slot as it is stored, its stored checksum verified; its bytes are a slice of the object.
    ///
    /// - Throws: `.badSlot`, `.blockChecksum`; each names the slot.
    public func stored(_ slot: SlotIndex) throws(BlockObjectError) -> StoredSlot {
        try header.stored(slot, from: object, startingAt: 0)
    }

    /// The plain bytes of a slot, verified (I11).
    ///
    /// - Throws: `.badSlot`, `.blockChecksum`, `.badCompression`; each names the slot.
    public func plain(_ slot: SlotIndex, using inflater: BlockInflater) throws(BlockObjectError) -> ByteBuffer {
        try stored(slot).decoded(blockSizeBytes: header.blockSizeBytes, slot: slot, using: inflater)
    }

    /// Verifies the stored bytes of every slot, without inflating any.
    ///
    /// - Throws: `.blockChecksum` that names the first bad slot.
    public func verifyStored() throws(BlockObjectError) {
        for index in 0..<UInt32(header.slots.count) {
            _ = try stored(SlotIndex(index))
        }
    }

    /// Verifies the plain bytes of every slot.
    ///
    /// - Throws: `.blockChecksum` or `.badCompression` that names the first bad slot.
    public func verify(using inflater: BlockInflater) throws(BlockObjectError) {
        for index in 0..<UInt32(header.slots.count) {
            _ = try plain(SlotIndex(index), using: inflater)
        }
    }
}
