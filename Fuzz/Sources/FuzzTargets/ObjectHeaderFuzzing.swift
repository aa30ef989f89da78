import AshlarCore
import BlockObjects
import NIOCore

// Input: one byte of options, then the bytes of an object.
//
// options  bit 0  the checksums are put right first, so that what is behind them is reached
//          bit 1  the object's length is put right first

/// A block object from a disk or a peer: what is accepted can be read slot by slot and is built again to the same bytes.
func fuzzObjectHeader(_ bytes: [UInt8]) throws(FuzzFailure) {
    var input = FuzzInput(bytes)
    let options = input.byte()
    var object = ByteBuffer(bytes: input.rest())
    if options & 2 != 0 { object.overwrite(UInt32(object.readableBytes), at: ObjectOffset.objectBytes) }
    if options & 1 != 0 { putChecksumsRight(in: &object) }
    let inflater = try accepting { () throws(BlockObjectError) in try BlockInflater() }
    tryLooseSlots(object, using: inflater)
    let reader: BlockObjectReader
    do throws(BlockObjectError) {
        reader = try BlockObjectReader(decoding: object)
    } catch {
        try require(error.code != .badArgument, "bad bytes are taken for a bad argument")
        return
    }
    let count = try accepting { () throws(BlockObjectError) in try BlockObjectHeader.headerByteCount(prefix: object) }
    try require(reader.header.headerBytes == count, "the prefix tells another length of the header")
    try check(reader, object, using: inflater)
}

/// The bytes as slots that came without a header, as they come over the wire.
private func tryLooseSlots(_ bytes: ByteBuffer, using inflater: BlockInflater) {
    for encoding in SlotEncoding.allCases {
        let slot = StoredSlot(encoding: encoding, bytes: bytes, checksum: Checksum(0))
        for size in [Limits.blockSizeMinimumBytes, Limits.blockSizeDefaultBytes] {
            _ = try? slot.decoded(blockSizeBytes: size, slot: SlotIndex(0), using: inflater)
        }
    }
}

/// Reads every slot of an object whose header was accepted, and builds the object again where all of them are good.
private func check(
    _ reader: BlockObjectReader,
    _ object: ByteBuffer,
    using inflater: BlockInflater
) throws(FuzzFailure) {
    let header = reader.header
    var builder = try accepting { () throws(BlockObjectError) in
        try BlockObjectBuilder(
            objectID: header.objectID,
            volumeID: header.volumeID,
            volumeUUID: header.volumeUUID,
            blockSizeBytes: header.blockSizeBytes,
            compressor: nil
        )
    }
    var areAllGood = true
    for (index, slot) in header.slots.enumerated() {
        let number = SlotIndex(UInt32(index))
        try require(Int(slot.storedEnd) <= object.readableBytes, "a slot ends behind its object")
        guard let stored = try? reader.stored(number), let plain = try? reader.plain(number, using: inflater) else {
            areAllGood = false
            continue
        }
        try require(plain.readableBytes == Int(header.blockSizeBytes), "a plain block of another length")
        guard areAllGood else { continue }
        try accepting { () throws(BlockObjectError) in
            try builder.add(block: slot.block, version: slot.version, stored: stored, using: inflater)
        }
    }
    let isVerified = (try? reader.verify(using: inflater)) != nil
    try require(isVerified == areAllGood, "verifying all slots tells something else than reading them")
    guard areAllGood else { return }
    try require((try? reader.verifyStored()) != nil, "the stored bytes are bad where the plain ones are good")
    let again = try accepting { () throws(BlockObjectError) in try builder.finish() }
    try require(again == object, "an object is another after building")
}

/// Does what must not fail for an object that was accepted.
@discardableResult
private func accepting<Value>(_ body: () throws(BlockObjectError) -> Value) throws(FuzzFailure) -> Value {
    do throws(BlockObjectError) {
        return try body()
    } catch {
        throw FuzzFailure("an object that was accepted: \(error)")
    }
}

/// Where the fields stand; see the table in `BlockObjectHeader.swift`.
private enum ObjectOffset {
    static let slotCount = 16
    static let blockSize = 20
    static let objectBytes = 56
    static let prefixChecksum = 60
    static let slots = 64
    static let slotBytes = 36
    static let slotChecksum = 16
    static let slotStoredChecksum = 20
    static let slotStoredOffset = 24
    static let slotStoredCount = 28
    static let slotEncoding = 32
}

private func putChecksumsRight(in object: inout ByteBuffer) {
    let count = Int(object.getInteger(at: ObjectOffset.slotCount, as: UInt32.self) ?? 0)
    let size = object.getInteger(at: ObjectOffset.blockSize, as: UInt32.self) ?? 0
    for index in 0..<min(count, Int(Limits.objectSlotsMaximum)) {
        let entry = ObjectOffset.slots + index * ObjectOffset.slotBytes
        guard
            let start = object.getInteger(at: entry + ObjectOffset.slotStoredOffset, as: UInt32.self),
            let length = object.getInteger(at: entry + ObjectOffset.slotStoredCount, as: UInt32.self),
            let encoding = object.getInteger(at: entry + ObjectOffset.slotEncoding, as: UInt8.self)
        else { break }
        guard let body = object.getSlice(at: Int(start), length: Int(length)) else { continue }
        let stored = body.withUnsafeReadableBytes { Checksum(of: $0) }.rawValue
        object.setInteger(stored, at: entry + ObjectOffset.slotStoredChecksum)
        switch SlotEncoding(rawValue: encoding) {
        case .plain: object.setInteger(stored, at: entry + ObjectOffset.slotChecksum)
        case .zeros where size <= Limits.blockSizeMaximumBytes:
            object.setInteger(Checksum.zeros(count: Int(size)).rawValue, at: entry + ObjectOffset.slotChecksum)
        case .zeros, .zlib, nil: break
        }
    }
    object.setChecksum(of: ObjectOffset.prefixChecksum)
    object.setChecksum(of: ObjectOffset.slots + count * ObjectOffset.slotBytes)
}

extension ByteBuffer {
    /// Overwrites an integer if there are bytes to be overwritten.
    fileprivate mutating func overwrite(_ value: UInt32, at index: Int) {
        guard index + 4 <= readableBytes else { return }
        setInteger(value, at: index)
    }

    /// Overwrites the four bytes behind the first `count` with the CRC-32C of these.
    fileprivate mutating func setChecksum(of count: Int) {
        guard count + 4 <= readableBytes, let covered = getSlice(at: readerIndex, length: count) else { return }
        setInteger(covered.withUnsafeReadableBytes { Checksum(of: $0) }.rawValue, at: count)
    }
}
