import AshlarCore

/// The bounds of an object server; those of the whole system are in ``AshlarCore/Limits`` (I10).
///
/// Their relations are asserted in `ObjectServerLimitsTests`.
public enum ObjectServerLimits {
    /// How long a server that stops waits for the answers that are due.
    public static let drainMilliseconds: Int64 = 5_000
    /// How often a server looks at its roots, for its gauges and its readiness.
    static let healthMilliseconds: Int64 = 10_000
    /// Bytes of an answer that are not stored bytes of slots: enough for the entries of the most slots.
    static let slotsAnswerOverheadBytes = 128 << 10
    /// Mode of an object root that the server creates: for itself alone.
    static let rootMode: UInt32 = 0o700
}
