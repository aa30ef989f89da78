public import AshlarCore
public import NIOCore

/// Packs blocks of one volume into a block object.
///
/// Every block is verified against its checksum before it is taken (I11), since an object is never written again.
///
/// - Warning: With a compressor it belongs to the thread that the compressor belongs to.
public struct BlockObjectBuilder {
    /// The key that the object gets.
    public let objectID: ObjectID
    /// The volume whose blocks it takes.
    public let volumeID: VolumeID
    /// Bytes of a plain block.
    public let blockSizeBytes: UInt32

    private let volumeUUID: [UInt8]
    private let compressor: BlockCompressor?
    private var trials = CompressionTrials()
    private let zerosChecksum: Checksum
    /// Their offsets count from the end of the header until the object is finished.
    private var slots: [BlockObjectHeader.Slot] = []
    private var bodies = ByteBuffer()
    /// Bodies that lie before `bodies`, as they were handed in.
    private var pieces: [ByteBuffer] = []
    private var pieceBytes = 0

    /// An empty object.
    ///
    /// - Parameters:
    ///   - objectID: An id that was handed out for this object alone (M9).
    ///   - volumeID: The volume.
    ///   - volumeUUID: The 16 bytes of ``AshlarCore/VolumeDescription/uuid``.
    ///   - blockSizeBytes: The volume's block size in bytes.
    ///   - compressor: A stream of this thread; nil to store blocks as they are (zeros are left out all the same).
    /// - Throws: `.badArgument`.
    public init(
        objectID: ObjectID,
        volumeID: VolumeID,
        volumeUUID: [UInt8],
        blockSizeBytes: UInt32,
        compressor: BlockCompressor?
    ) throws(BlockObjectError) {
        guard volumeUUID.count == BlockObjectsLimits.uuidBytes else {
            throw BlockObjectError(.badArgument, "a uuid of \(volumeUUID.count) bytes")
        }
        guard BlockObjectsLimits.isBlockSize(blockSizeBytes) else {
            throw BlockObjectError(.badArgument, "\(blockSizeBytes) bytes is no block size")
        }
        self.objectID = objectID
        self.volumeID = volumeID
        self.volumeUUID = volumeUUID
        self.blockSizeBytes = blockSizeBytes
        self.compressor = compressor
        zerosChecksum = .zeros(count: Int(blockSizeBytes))
    }

    /// Number of blocks taken so far.
    public var slotCount: Int { slots.count }

    /// Bytes that the object would have if it were finished now.
    public var byteCount: Int { BlockObjectsLimits.headerBytes(slotCount: slots.count) + bodyBytes }

    private var bodyBytes: Int { pieceBytes + bodies.readableBytes }

    /// Whether one more block fits even if it cannot be compressed.
    public var hasRoom: Bool { hasRoom(forBodyBytes: Int(blockSizeBytes)) }

    private func hasRoom(forBodyBytes count: Int) -> Bool { hasRoom(forSlots: 1, bodyBytes: count) }

    private func hasRoom(forSlots count: Int, bodyBytes: Int) -> Bool {
        slots.count + count <= Int(Limits.objectSlotsMaximum)
            && byteCount + count * BlockObjectsLimits.slotEntryBytes + bodyBytes <= Limits.objectMaximumBytes
    }

    /// Takes one block, compressed if that saves at least an eighth. Of blocks that look like noise most are not tried.
    ///
    /// - Parameters:
    ///   - block: The data block.
    ///   - version: Its version; not 0.
    ///   - checksum: CRC-32C of `bytes`, made when the block was received; verified here.
    ///   - bytes: The whole plain block.
    /// - Returns: The block's slot.
    /// - Throws: `.badArgument`, `.blockChecksum`, or `.tooLarge` where ``hasRoom`` is false; then nothing was taken.
    @discardableResult
    public mutating func add(
        block: BlockID,
        version: Version,
        checksum: Checksum,
        bytes: ByteBuffer
    ) throws(BlockObjectError) -> SlotIndex {
        try checkArguments(block: block, version: version)
        let slot = SlotIndex(UInt32(slots.count))
        guard bytes.readableBytes == Int(blockSizeBytes) else {
            throw BlockObjectError(.badArgument, "a block of \(bytes.readableBytes) bytes", slot: slot)
        }
        guard bytes.checksum == checksum else {
            throw BlockObjectError(.blockChecksum, "block \(block) does not match its checksum", slot: slot)
        }
        guard hasRoom else { throw BlockObjectError(.tooLarge, "the object is full", slot: slot) }
        let start = bodyBytes
        let encoding: SlotEncoding
        if checksum == zerosChecksum, bytes.isAllZeros {
            encoding = .zeros
        } else if appendCompressed(bytes) {
            encoding = .zlib
        } else {
            bodies.writeImmutableBuffer(bytes)
            encoding = .plain
        }
        append(block: block, version: version, checksum: checksum, encoding: encoding, from: start)
        return slot
    }

    /// Takes a slot of another object as it is stored there, after it was verified; it is not compressed anew.
    ///
    /// - Parameters:
    ///   - block: The data block.
    ///   - version: Its version; not 0.
    ///   - stored: The slot.
    ///   - inflater: A stream of this thread.
    /// - Returns: The block's slot in this object.
    /// - Throws: As ``add(block:version:checksum:bytes:)`` and ``StoredSlot/decoded(blockSizeBytes:slot:expected:using:)``.
    @discardableResult
    public mutating func add(
        block: BlockID,
        version: Version,
        stored: StoredSlot,
        using inflater: BlockInflater
    ) throws(BlockObjectError) -> SlotIndex {
        try checkArguments(block: block, version: version)
        let slot = SlotIndex(UInt32(slots.count))
        _ = try stored.decoded(blockSizeBytes: blockSizeBytes, slot: slot, using: inflater)
        guard hasRoom(forBodyBytes: stored.bytes.readableBytes) else {
            throw BlockObjectError(.tooLarge, "the object is full", slot: slot)
        }
        let start = bodyBytes
        bodies.writeImmutableBuffer(stored.bytes)
        append(block: block, version: version, checksum: stored.checksum, encoding: stored.encoding, from: start)
        return slot
    }

    /// Takes blocks that follow one another as they are, without copying them; they get slots and versions that follow one another.
    ///
    /// - Parameters:
    ///   - first: The first data block.
    ///   - firstVersion: Its version; not 0.
    ///   - checksums: CRC-32C of each block, made when it was received; verified here.
    ///   - bytes: The plain blocks. Those that are all zeros are left out.
    /// - Throws: As ``add(block:version:checksum:bytes:)``; then nothing was taken.
    public mutating func add(
        run first: BlockID,
        firstVersion: Version,
        checksums: [Checksum],
        bytes: ByteBuffer
    ) throws(BlockObjectError) {
        let size = Int(blockSizeBytes)
        guard !checksums.isEmpty, bytes.readableBytes == checksums.count * size else {
            throw BlockObjectError(.badArgument, "\(checksums.count) blocks of \(bytes.readableBytes) bytes")
        }
        try checkArguments(block: first, version: firstVersion)
        try checkArguments(block: first + UInt64(checksums.count - 1), version: firstVersion)
        guard hasRoom(forSlots: checksums.count, bodyBytes: bytes.readableBytes) else {
            throw BlockObjectError(.tooLarge, "the object is full", slot: SlotIndex(UInt32(slots.count)))
        }
        var isZeros = [Bool](repeating: false, count: checksums.count)
        for (index, checksum) in checksums.enumerated() {
            guard let block = bytes.getSlice(at: bytes.readerIndex + index * size, length: size),
                block.checksum == checksum
            else {
                let slot = SlotIndex(UInt32(slots.count + index))
                throw BlockObjectError(
                    .blockChecksum,
                    "block \(first + UInt64(index)) does not match its checksum",
                    slot: slot
                )
            }
            isZeros[index] = checksum == zerosChecksum && block.isAllZeros
        }
        if bodies.readableBytes > 0 {
            takePiece(bodies)
            bodies = ByteBuffer()
        }
        var rest = bytes
        var index = 0
        while index < checksums.count {
            // As many as are zeros, or are not.
            let isLeftOut = isZeros[index]
            let end = isZeros[index...].firstIndex(of: !isLeftOut) ?? checksums.count
            let start = bodyBytes
            guard let piece = rest.readSlice(length: (end - index) * size) else {
                preconditionFailure("the length was tested")
            }
            if !isLeftOut { takePiece(piece) }
            for position in index..<end {
                slots.append(
                    BlockObjectHeader.Slot(
                        block: first + UInt64(position),
                        version: Version(firstVersion.rawValue + UInt64(position)),
                        checksum: checksums[position],
                        storedChecksum: isLeftOut ? Checksum(0) : checksums[position],
                        storedOffset: UInt32(isLeftOut ? start : start + (position - index) * size),
                        storedCount: isLeftOut ? 0 : blockSizeBytes,
                        encoding: isLeftOut ? .zeros : .plain
                    )
                )
            }
            index = end
        }
    }

    private mutating func takePiece(_ piece: ByteBuffer) {
        pieces.append(piece)
        pieceBytes += piece.readableBytes
    }

    /// The object, header and bodies, ready to be put.
    ///
    /// - Throws: `.badArgument` for an object without blocks, `.duplicateBlock`.
    public func finish() throws(BlockObjectError) -> ByteBuffer {
        var object = try header(capacity: byteCount)
        for piece in pieces { object.writeImmutableBuffer(piece) }
        object.writeImmutableBuffer(bodies)
        return object
    }

    /// The object as ``finish()`` makes it, in pieces that were not copied where they were handed in as they are.
    public func finishInPieces() throws(BlockObjectError) -> [ByteBuffer] {
        [try header(capacity: BlockObjectsLimits.headerBytes(slotCount: slots.count))] + pieces + [bodies]
    }

    private func header(capacity: Int) throws(BlockObjectError) -> ByteBuffer {
        guard !slots.isEmpty else { throw BlockObjectError(.badArgument, "an object without blocks") }
        if let double = BlockObjectHeader.firstDouble(in: slots) {
            throw BlockObjectError(.duplicateBlock, "a block is there twice with one version", slot: double)
        }
        let headerBytes = UInt32(BlockObjectsLimits.headerBytes(slotCount: slots.count))
        precondition(byteCount <= Limits.objectMaximumBytes, "add() took a block for which there was no room")
        var object = ByteBufferAllocator().buffer(capacity: capacity)
        let prefix = Prefix(
            slotCount: slots.count,
            blockSizeBytes: blockSizeBytes,
            objectID: objectID,
            volumeID: volumeID,
            volumeUUID: volumeUUID,
            objectBytes: UInt32(byteCount)
        )
        prefix.encode(into: &object)
        for slot in slots {
            slot.moved(by: headerBytes).encode(into: &object)
        }
        object.writeChecksum(since: 0)
        return object
    }

    private func checkArguments(block: BlockID, version: Version) throws(BlockObjectError) {
        guard version.rawValue != 0 else {
            throw BlockObjectError(.badArgument, "version 0 means never written")
        }
        guard block.rawValue < Limits.volumeSizeMaximumBytes / UInt64(blockSizeBytes) else {
            throw BlockObjectError(.badArgument, "block \(block) lies behind the end of every volume")
        }
    }

    private mutating func appendCompressed(_ bytes: ByteBuffer) -> Bool {
        guard let compressor else { return false }
        let maximum = Int(BlockObjectsLimits.compressedMaximumBytes(blockSizeBytes: blockSizeBytes))
        return trials.compress(bytes) { compressor.compress(bytes, maximum: maximum, into: &bodies) != nil }
    }

    private mutating func append(
        block: BlockID,
        version: Version,
        checksum: Checksum,
        encoding: SlotEncoding,
        from start: Int
    ) {
        let count = bodyBytes - start
        let storedChecksum =
            switch encoding {
            case .plain: checksum
            case .zeros: Checksum(0)
            case .zlib: bodies.getSlice(at: start - pieceBytes, length: count)?.checksum ?? Checksum(0)
            }
        slots.append(
            BlockObjectHeader.Slot(
                block: block,
                version: version,
                checksum: checksum,
                storedChecksum: storedChecksum,
                storedOffset: UInt32(start),
                storedCount: UInt32(count),
                encoding: encoding
            )
        )
    }
}

extension BlockObjectHeader.Slot {
    /// The slot with its stored bytes `distance` bytes further on.
    fileprivate func moved(by distance: UInt32) -> BlockObjectHeader.Slot {
        BlockObjectHeader.Slot(
            block: block,
            version: version,
            checksum: checksum,
            storedChecksum: storedChecksum,
            storedOffset: storedOffset + distance,
            storedCount: storedCount,
            encoding: encoding
        )
    }
}
