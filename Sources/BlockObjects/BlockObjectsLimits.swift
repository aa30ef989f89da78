import AshlarCore

/// The bounds and dimensions of the object format; those of the whole system are in ``AshlarCore/Limits``.
///
/// Their relations are asserted in `BlockObjectsLimitsTests`.
public enum BlockObjectsLimits {
    /// Bytes of the part of the header that has the same size in every object and tells the size of the rest.
    public static let prefixBytes = 64
    /// Bytes that one slot takes in the header.
    public static let slotEntryBytes = 36
    /// Bytes of the checksum that ends the header.
    public static let headerChecksumBytes = 4
    /// Bytes of a volume's uuid.
    public static let uuidBytes = 16
    /// The zlib level at which blocks are compressed: the cheapest, since every moved block pays for it.
    public static let compressionLevel: Int32 = 1
    /// A compressed block is kept only if it saves at least one part in this many.
    public static let compressionSavingDivisor: UInt32 = 8

    /// Bytes of a block that tell whether it looks like noise.
    public static let noiseSampleBytes = 256
    /// How many values these have at least then: random ones have 162, give or take 5; text and tables have less than 100.
    public static let noiseValuesMinimum = 140
    /// Blocks of an object that look like noise and are compressed in vain, before most others are not tried.
    public static let noiseTrialsMaximum = 4
    /// Of those, one in so many is tried all the same.
    public static let noiseTrialsDivisor = 16

    /// Bytes of the header of an object of `slotCount` slots.
    public static func headerBytes(slotCount: Int) -> Int {
        prefixBytes + slotCount * slotEntryBytes + headerChecksumBytes
    }

    /// Bytes of the largest header.
    public static let headerMaximumBytes = headerBytes(slotCount: Int(Limits.objectSlotsMaximum))

    /// The most bytes that a compressed form of a block may have.
    public static func compressedMaximumBytes(blockSizeBytes: UInt32) -> UInt32 {
        blockSizeBytes - blockSizeBytes / compressionSavingDivisor
    }

    /// Whether a data block may have this size.
    static func isBlockSize(_ bytes: UInt32) -> Bool {
        bytes >= Limits.blockSizeMinimumBytes && bytes <= Limits.blockSizeMaximumBytes && bytes & (bytes - 1) == 0
    }
}
