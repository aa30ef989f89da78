import NIOConcurrencyHelpers
import Synchronization

/// A number that only grows. Safe from any thread; one atomic addition a use.
public final class MetricCounter: Sendable {
    private let storage = Atomic<UInt64>(0)

    init() {}

    /// Adds to the number; wraps at its end.
    public func increment(by amount: UInt64 = 1) {
        storage.wrappingAdd(amount, ordering: .relaxed)
    }

    /// The number now.
    public var value: UInt64 { storage.load(ordering: .relaxed) }

    func reset() { storage.store(0, ordering: .relaxed) }
}

/// A number that goes up and down. Safe from any thread.
public final class MetricGauge: Sendable {
    /// The bits of a double.
    private let storage = Atomic<UInt64>(0)

    init() {}

    /// Replaces the number.
    public func set(_ value: Double) {
        storage.store(value.bitPattern, ordering: .relaxed)
    }

    /// Replaces the number.
    public func set(_ value: Int64) { set(Double(value)) }

    /// Adds to the number, which may be negative.
    public func add(_ amount: Double) {
        var old = storage.load(ordering: .relaxed)
        while true {
            let new = (Double(bitPattern: old) + amount).bitPattern
            let (done, seen) = storage.compareExchange(expected: old, desired: new, ordering: .relaxed)
            if done { return }
            old = seen
        }
    }

    /// Adds to the number, which may be negative.
    public func add(_ amount: Int64) { add(Double(amount)) }

    /// The number now.
    public var value: Double { Double(bitPattern: storage.load(ordering: .relaxed)) }
}

/// How often values fell below each of some bounds. Safe from any thread; one short lock a use.
public final class MetricHistogram: Sendable {
    /// Bounds for durations: 50 microseconds to 30 seconds.
    public static let secondsBounds: [Double] = [
        0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
        30,
    ]
    /// Bounds for sizes and counts: powers of 4 from 1 to 2^24.
    public static let sizeBounds: [Double] = (0...12).map { Double(1 << (2 * $0)) }

    /// What has been counted.
    struct State: Sendable {
        /// For each bound, and for everything above the last, how many values fell there and not lower.
        var counts: [UInt64]
        var sum = 0.0
        var count: UInt64 = 0
    }

    let bounds: [Double]
    private let state: NIOLockedValueBox<State>

    init(bounds: [Double]) {
        self.bounds = bounds.sorted()
        state = NIOLockedValueBox(State(counts: [UInt64](repeating: 0, count: bounds.count + 1)))
    }

    /// Counts a value.
    public func observe(_ value: Double) {
        let index = bounds.firstIndex { value <= $0 } ?? bounds.count
        state.withLockedValue {
            $0.counts[index] += 1
            $0.count += 1
            $0.sum += value
        }
    }

    /// Counts a duration in a histogram of seconds.
    public func observe(nanoseconds: UInt64) { observe(Double(nanoseconds) / 1e9) }

    /// How many values were counted.
    public var count: UInt64 { state.withLockedValue { $0.count } }

    func read() -> State { state.withLockedValue { $0 } }
}
