public import AshlarCore
public import NIOCore

// The format, version 1. All numbers are big-endian; every byte is covered by a checksum.
//
// offset  bytes  prefix (64 bytes)
//      0      8  magic "ASHLARBO"
//      8      2  format version: 1
//     10      2  zero
//     12      4  bytes of the header: 64 + 36 * slots + 4
//     16      4  number of slots, 1 to Limits.objectSlotsMaximum
//     20      4  bytes of a data block
//     24      8  object id
//     32      8  volume id
//     40     16  volume uuid
//     56      4  bytes of the object, header and bodies
//     60      4  CRC-32C of bytes 0 to 59
//
// offset  bytes  slot i, at 64 + 36 * i
//      0      8  block id
//      8      8  version, not 0
//     16      4  CRC-32C of the plain block
//     20      4  CRC-32C of the stored bytes
//     24      4  offset of the stored bytes from the start of the object
//     28      4  number of the stored bytes
//     32      1  encoding: 0 plain, 1 zlib, 2 zeros
//     33      3  zero
//
// Then the CRC-32C of everything before it in the header, 4 bytes; then the stored bytes of the slots, in the order of
// the slots and without gaps. So there is exactly one header for a given content: a slot's offset is the end of the slot
// before it, and neither overlaps nor gaps can be expressed.

/// The header of a block object: what it is, what its slots hold and where they lie.
///
/// An object can be read in two steps: the prefix and header first, then exactly the slots that are wanted.
public struct BlockObjectHeader: Sendable, Hashable {
    /// What the header says of one slot.
    public struct Slot: Sendable, Hashable {
        /// The data block.
        public let block: BlockID
        /// Its version.
        public let version: Version
        /// CRC-32C of the plain block.
        public let checksum: Checksum
        /// CRC-32C of the stored bytes, so that they can be checked without inflating them.
        public let storedChecksum: Checksum
        /// Where the stored bytes begin, in bytes from the start of the object.
        public let storedOffset: UInt32
        /// Number of stored bytes.
        public let storedCount: UInt32
        /// How they are stored.
        public let encoding: SlotEncoding

        /// The offset behind the stored bytes.
        public var storedEnd: UInt32 { storedOffset + storedCount }
    }

    /// The first eight bytes of every object: "ASHLARBO".
    public static let magic: UInt64 = 0x4153_484C_4152_424F
    /// The format version that this build writes and reads.
    public static let formatVersion: UInt16 = 1
    /// Bytes that tell how long the header is.
    public static let prefixBytes = BlockObjectsLimits.prefixBytes

    /// The object's own key.
    public let objectID: ObjectID
    /// The volume whose blocks it holds.
    public let volumeID: VolumeID
    /// The 16 bytes that name that volume to the world.
    public let volumeUUID: [UInt8]
    /// Bytes of a plain block.
    public let blockSizeBytes: UInt32
    /// Bytes of the whole object, header and bodies.
    public let objectBytes: UInt32
    /// The slots; slot i is element i.
    public let slots: [Slot]

    /// Bytes of the header itself.
    public var headerBytes: Int { BlockObjectsLimits.headerBytes(slotCount: slots.count) }

    init(prefix: Prefix, slots: [Slot]) {
        objectID = prefix.objectID
        volumeID = prefix.volumeID
        volumeUUID = prefix.volumeUUID
        blockSizeBytes = prefix.blockSizeBytes
        objectBytes = prefix.objectBytes
        self.slots = slots
    }

    /// Bytes of the header that begins with `prefix`, which holds at least ``prefixBytes`` readable bytes.
    ///
    /// - Throws: As ``init(decoding:)``.
    public static func headerByteCount(prefix: ByteBuffer) throws(BlockObjectError) -> Int {
        BlockObjectsLimits.headerBytes(slotCount: try Prefix(decoding: prefix).slotCount)
    }

    /// Decodes a header. Bodies may follow in `buffer`; they are not looked at.
    ///
    /// - Throws: `.truncated`, `.notAnObject`, `.unsupportedVersion`, `.headerChecksum`, `.badHeader`, `.badSlot`,
    ///   `.duplicateBlock`.
    public init(decoding buffer: ByteBuffer) throws(BlockObjectError) {
        let prefix = try Prefix(decoding: buffer)
        let headerBytes = BlockObjectsLimits.headerBytes(slotCount: prefix.slotCount)
        guard let header = buffer.getSlice(at: buffer.readerIndex, length: headerBytes) else {
            throw BlockObjectError(.truncated, "\(buffer.readableBytes) bytes of a header of \(headerBytes)")
        }
        let checked = headerBytes - BlockObjectsLimits.headerChecksumBytes
        guard
            let stated = header.getInteger(at: header.readerIndex + checked, as: UInt32.self),
            let covered = header.getSlice(at: header.readerIndex, length: checked), covered.checksum.rawValue == stated
        else {
            throw BlockObjectError(.headerChecksum, "the header does not match its checksum")
        }
        let slots = try Self.decodeSlots(of: covered, prefix: prefix, headerBytes: headerBytes)
        if let double = Self.firstDouble(in: slots) {
            throw BlockObjectError(.duplicateBlock, "a block is there twice with one version", slot: double)
        }
        self.init(prefix: prefix, slots: slots)
    }

    /// What the header says of a slot.
    ///
    /// - Throws: `.badSlot` where the object has no such slot.
    public func slot(_ index: SlotIndex) throws(BlockObjectError) -> Slot {
        guard Int(index.rawValue) < slots.count else {
            throw BlockObjectError(.badSlot, "the object has \(slots.count) slots", slot: index)
        }
        return slots[Int(index.rawValue)]
    }

    private static func decodeSlots(
        of header: ByteBuffer,
        prefix: Prefix,
        headerBytes: Int
    ) throws(BlockObjectError) -> [Slot] {
        var slots: [Slot] = []
        slots.reserveCapacity(prefix.slotCount)
        var reader = header
        reader.moveReaderIndex(forwardBy: BlockObjectsLimits.prefixBytes)
        var end = UInt32(headerBytes)
        for index in 0..<UInt32(prefix.slotCount) {
            let slot = try Slot(decoding: &reader, at: SlotIndex(index))
            try slot.check(at: SlotIndex(index), startingAt: end, prefix: prefix)
            end = slot.storedEnd
            slots.append(slot)
        }
        guard end == prefix.objectBytes else {
            throw BlockObjectError(.badHeader, "the slots end at \(end), the object at \(prefix.objectBytes)")
        }
        return slots
    }

    /// The first slot whose block and version an earlier one has. Objects are nearly always in ascending order of blocks:
    /// then nothing need be looked up.
    static func firstDouble(in slots: [Slot]) -> SlotIndex? {
        guard !zip(slots, slots.dropFirst()).allSatisfy({ $0.block < $1.block }) else { return nil }
        var seen = Set<BlockVersion>(minimumCapacity: slots.count)
        for (index, slot) in slots.enumerated()
        where !seen.insert(BlockVersion(block: slot.block, version: slot.version)).inserted {
            return SlotIndex(UInt32(index))
        }
        return nil
    }

    private struct BlockVersion: Hashable {
        let block: BlockID
        let version: Version
    }
}

extension BlockObjectHeader.Slot {
    init(decoding reader: inout ByteBuffer, at index: SlotIndex) throws(BlockObjectError) {
        guard
            let numbers = reader.readMultipleIntegers(
                as: (UInt64, UInt64, UInt32, UInt32, UInt32, UInt32, UInt32).self
            )
        else {
            throw BlockObjectError(.truncated, "the entry is cut off", slot: index)
        }
        // The last word is the encoding in its first byte and three bytes of zero.
        guard numbers.6 & 0x00FF_FFFF == 0, let encoding = SlotEncoding(rawValue: UInt8(numbers.6 >> 24)) else {
            throw BlockObjectError(.badSlot, "unknown encoding", slot: index)
        }
        self.init(
            block: BlockID(numbers.0),
            version: Version(numbers.1),
            checksum: Checksum(numbers.2),
            storedChecksum: Checksum(numbers.3),
            storedOffset: numbers.4,
            storedCount: numbers.5,
            encoding: encoding
        )
    }

    /// Checks each field against its bounds and against the prefix.
    func check(at index: SlotIndex, startingAt start: UInt32, prefix: Prefix) throws(BlockObjectError) {
        let size = prefix.blockSizeBytes
        guard block.rawValue < Limits.volumeSizeMaximumBytes / UInt64(size) else {
            throw BlockObjectError(.badSlot, "block \(block) lies behind the end of every volume", slot: index)
        }
        guard version.rawValue != 0 else {
            throw BlockObjectError(.badSlot, "version 0 means never written", slot: index)
        }
        guard storedOffset == start else {
            throw BlockObjectError(.badSlot, "stored at \(storedOffset) instead of \(start)", slot: index)
        }
        guard storedCount <= prefix.objectBytes - start else {
            throw BlockObjectError(.badSlot, "\(storedCount) bytes go over the end of the object", slot: index)
        }
        let isLengthRight =
            switch encoding {
            case .plain: storedCount == size
            case .zlib:
                storedCount > 0 && storedCount <= BlockObjectsLimits.compressedMaximumBytes(blockSizeBytes: size)
            case .zeros: storedCount == 0
            }
        guard isLengthRight else {
            throw BlockObjectError(.badSlot, "\(storedCount) stored bytes do not fit the encoding", slot: index)
        }
        let isChecksumRight =
            switch encoding {
            case .plain: storedChecksum == checksum
            case .zlib: true
            case .zeros: storedChecksum == Checksum(0) && checksum == prefix.zerosChecksum
            }
        guard isChecksumRight else {
            throw BlockObjectError(.badSlot, "the checksums contradict the encoding", slot: index)
        }
    }

    func encode(into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(
            block.rawValue,
            version.rawValue,
            checksum.rawValue,
            storedChecksum.rawValue,
            storedOffset,
            storedCount,
            UInt32(encoding.rawValue) << 24
        )
    }
}
