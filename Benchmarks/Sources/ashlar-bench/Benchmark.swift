import AshlarCore
import NIOCore

/// Something that is measured.
struct Benchmark: Sendable {
    /// Makes so many operations, and returns something that depends on what they did, so that none can be left out. The number is
    /// a multiple of ``step``.
    typealias Body = (Int) throws -> UInt64

    /// By which it is named on the command line and in the thresholds.
    let name: String
    /// Operations that are made together.
    let step: Int
    /// Operations for which instructions are counted: the more, the less what happens seldom counts, and the longer it takes.
    let countedOperations: Int
    /// Sets up what the operations need; not measured.
    let prepare: @Sendable () throws -> Body

    init(_ name: String, step: Int = 1, counted: Int = 1_024, prepare: @escaping @Sendable () throws -> Body) {
        precondition(counted % step == 0, "what is counted are whole steps")
        self.name = name
        self.step = step
        countedOperations = counted
        self.prepare = prepare
    }

    static let all: [Benchmark] =
        checksumBenchmarks + iscsiBenchmarks + scsiBenchmarks + rpcBenchmarks + objectBenchmarks + nexusBenchmarks
        + ownerBenchmarks + mapBenchmarks + slotBenchmarks + storeBenchmarks
}

/// What a benchmark found out of order: it would measure something else than it says.
struct BenchmarkFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// Ends a benchmark that does not do what it says.
func require(_ condition: Bool, _ what: @autoclosure () -> String) throws(BenchmarkFailure) {
    guard condition else { throw BenchmarkFailure(what()) }
}

/// Numbers that are the same in every run (an xorshift generator).
struct RepeatableNumbers {
    private var state: UInt64 = 0x9E37_79B9_7F4A_7C15

    mutating func next(below bound: Int) -> Int {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Int(truncatingIfNeeded: (state >> 8) % UInt64(bound))
    }
}

/// Bytes of the blocks that are written and read.
let blockBytes = 4_096

/// A block whose bytes cannot be compressed.
let block: ByteBuffer = {
    var numbers = RepeatableNumbers()
    return ByteBuffer(bytes: (0..<blockBytes).map { _ in UInt8(numbers.next(below: 256)) })
}()

let blockChecksum = block.withUnsafeReadableBytes { Checksum(of: $0) }
