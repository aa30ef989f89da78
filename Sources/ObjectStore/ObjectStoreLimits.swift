import AshlarCore

/// The bounds of an object store; those of the whole system are in ``AshlarCore/Limits`` (I10).
///
/// Their relations are asserted in `ObjectStoreLimitsTests`.
public enum ObjectStoreLimits {
    /// Most roots of one store.
    public static let rootsMaximum = 256
    /// Largest weight of a root.
    public static let weightMaximum: UInt32 = 1_000_000
    /// Weight of a root for which none is named.
    public static let weightDefault: UInt32 = 100
    /// Most threads of one kind.
    public static let threadsMaximum = 256
    /// Requests of one kind that may wait for a thread; one more is answered `.busy`.
    public static let requestsWaitingMaximum = 8_192
    /// How often the lock of a root is tried before it is taken for that of another service.
    static let lockAttempts = 20
    /// Between two tries, in microseconds.
    static let lockPauseMicroseconds: UInt32 = 50_000
    /// Bytes of puts that may wait for a thread or be under way; a put that would exceed it is answered `.busy`.
    public static let putBytesWaitingMaximum = 256 << 20
    /// Most ids that one page of a listing holds.
    public static let listMaximum = 10_000
    /// Slots of all headers in the cache of parsed headers: about 10 MiB.
    public static let cachedSlotsMaximum = 262_144
    /// Fewest bytes that are written past the page cache, where that is wanted.
    public static let directWriteMinimumBytes = 65_536
    /// Most bytes that are written so at once.
    public static let directWriteMaximumBytes = 1 << 20
    /// What address, position and length of such a write are multiples of: enough for every device.
    public static let directWritePageBytes = 4_096
    /// Bytes that are read at first where a header is wanted: the header of an object of 1,800 slots.
    public static let headerReadBytes = 65_536
    /// Slots with at most this many unwanted bytes between them are read at once.
    public static let readThroughMaximumBytes: UInt32 = 16_384
    /// Fewest bits of the hash that one level of directories takes.
    public static let directoryBitsMinimum = 1
    /// Most bits of the hash that one level of directories takes.
    public static let directoryBitsMaximum = 8
    /// Bits of a root for which none are named: 32 directories of 32, good for some ten million objects.
    public static let directoryBitsDefault = 5
    /// Longest cluster id, in bytes.
    public static let clusterIDMaximumBytes = 64
    /// Largest identity file.
    public static let identityMaximumBytes = 4_096
    /// How often a put looks again at a key that was there and then was not.
    public static let linkAttemptsMaximum = 3
}
