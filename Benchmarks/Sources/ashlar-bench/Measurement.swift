import CAllocations
import Glibc

/// What was measured of a benchmark, for each operation.
struct Measurement {
    /// Median of the rounds.
    var nanoseconds: Double
    /// Of the slowest round, and of the fastest.
    var slowest: Double
    var fastest: Double
    var allocations: Double
    var operations: Int
}

/// Measures the CPU time of the one thread that there is: what else the machine does matters as far as it takes away caches.
enum Measuring {
    static func measure(_ benchmark: Benchmark, rounds: Int, milliseconds: Int) throws -> Measurement {
        let body = try benchmark.prepare()
        var sum: UInt64 = 0
        let operations = try operationsOfRound(benchmark, body, milliseconds: milliseconds, &sum)
        var times: [Double] = []
        var allocations = 0
        for _ in 0..<rounds {
            let allocated = ashlar_allocations()
            let begin = threadNanoseconds()
            sum &+= try body(operations)
            times.append(Double(threadNanoseconds() - begin) / Double(operations))
            allocations = Int(ashlar_allocations() - allocated)
        }
        times.sort()
        try require(sum != .max, "the sum is not used for anything but this")
        return Measurement(
            nanoseconds: times[times.count / 2],
            slowest: times[times.count - 1],
            fastest: times[0],
            allocations: Double(allocations) / Double(operations),
            operations: operations
        )
    }

    /// As many as take about so long; makes them meanwhile, which warms up.
    private static func operationsOfRound(
        _ benchmark: Benchmark,
        _ body: Benchmark.Body,
        milliseconds: Int,
        _ sum: inout UInt64
    ) throws -> Int {
        let wanted = UInt64(milliseconds) * 1_000_000
        var operations = benchmark.step
        while true {
            let begin = threadNanoseconds()
            sum &+= try body(operations)
            let time = threadNanoseconds() - begin
            if time >= wanted / 2 || operations >= 1 << 30 { return operations }
            operations *= 2
        }
    }

    private static func threadNanoseconds() -> UInt64 {
        var time = timespec()
        guard clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0 else {
            fatalError("the clock of the thread cannot be read")
        }
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
