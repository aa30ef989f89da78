/// The waits between the restarts of a process: none at first, then doubling up to a bound.
public struct Backoff: Sendable, Hashable {
    private var failures = 0

    /// No failure yet.
    public init() {}

    /// The wait before the next start, after an end of a process that had been ready for `readyFor` (nil: never ready).
    public mutating func next(readyFor: Duration?) -> Duration {
        if let readyFor, readyFor >= SupervisionLimits.steadyAfter { failures = 0 }
        defer { failures += 1 }
        guard failures > 0 else { return .zero }
        var wait = SupervisionLimits.backoffMinimum
        for _ in 1..<failures where wait < SupervisionLimits.backoffMaximum {
            wait *= 2
        }
        return min(wait, SupervisionLimits.backoffMaximum)
    }
}
