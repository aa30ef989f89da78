/// Says of something that fails again and again: that it began, now and then that it lasts, and that it is over. So a log stays readable
/// through an outage of hours, and tells how long it was.
///
/// States: quiet; failing. Lines are at least `pause` apart, which doubles with each; it is as short as ever after as long a silence as
/// the longest pause. What began and ended between two lines is counted, and not told.
public struct OutageLog: Sendable {
    /// What is to be said.
    public enum Line: Sendable, Hashable {
        /// The first failure.
        case began(String)
        /// It lasts: the newest reason, how often something failed, and for how long.
        case lasts(String, failures: UInt64, milliseconds: UInt64)
        /// It is over.
        case ended(failures: UInt64, milliseconds: UInt64)
    }

    /// Shortest time between two lines, in nanoseconds.
    public static let pauseMinimum: UInt64 = 1_000_000_000
    /// Longest time between two lines, in nanoseconds.
    public static let pauseMaximum: UInt64 = 64_000_000_000

    private var since: MonotonicTime?
    private var failures: UInt64 = 0
    private var isTold = false
    private var pause = OutageLog.pauseMinimum
    private var nextLine = MonotonicTime(0)

    /// Nothing has failed.
    public init() {}

    /// Whether the last attempt failed.
    public var isFailing: Bool { since != nil }

    /// Something failed.
    public mutating func failed(_ reason: String, now: MonotonicTime) -> Line? {
        let begun = since ?? now
        since = begun
        failures += 1
        if now.nanoseconds(since: nextLine) >= Self.pauseMaximum { pause = Self.pauseMinimum }
        guard now >= nextLine else { return nil }
        nextLine = now.advanced(byNanoseconds: pause)
        pause = min(2 * pause, Self.pauseMaximum)
        guard isTold else {
            isTold = true
            return .began(reason)
        }
        return .lasts(reason, failures: failures, milliseconds: now.nanoseconds(since: begun) / 1_000_000)
    }

    /// Something succeeded.
    public mutating func succeeded(now: MonotonicTime) -> Line? {
        guard let begun = since else { return nil }
        let line = Line.ended(failures: failures, milliseconds: now.nanoseconds(since: begun) / 1_000_000)
        let wasTold = isTold
        (since, failures, isTold) = (nil, 0, false)
        return wasTold ? line : nil
    }
}
