import AshlarCore
import NIOCore
import Ownership

let slotBenchmarks = [
    // A block of 4 KiB is found among 10,000.
    Benchmark("slots/hit", counted: 8_192) {
        var cache = SlotCache(capacityBytes: 64 << 20)
        let block = ByteBuffer(repeating: 7, count: 4_096)
        for number in 0..<10_000 { keep(block, as: number, in: &cache) }
        var numbers = RepeatableNumbers()
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations {
                let (object, slot) = key(of: numbers.next(below: 10_000))
                guard let found = cache.find(object, slot) else {
                    throw BenchmarkFailure("a block that was taken in is not there")
                }
                sum &+= found.block.rawValue
            }
            return sum
        }
    },
    // A block is looked for in vain, copied out of an answer, and kept in place of the oldest.
    Benchmark("slots/replace", counted: 8_192) {
        var cache = SlotCache(capacityBytes: 16 << 20)
        var answer = ByteBuffer(repeating: 7, count: 1 << 20)
        let block = answer.readSlice(length: 4_096) ?? ByteBuffer()
        var next = 0
        while next < 20_000 {
            keep(block, as: next, in: &cache)
            next += 1
        }
        return { operations in
            for _ in 0..<operations {
                let (object, slot) = key(of: next)
                try require(cache.find(object, slot) == nil, "a block is there before it came")
                keep(block, as: next, in: &cache)
                next += 1
            }
            return UInt64(cache.count)
        }
    },
]

private func key(of number: Int) -> (ObjectID, SlotIndex) {
    (ObjectID(UInt64(number / 1_024)), SlotIndex(UInt32(number % 1_024)))
}

private func keep(_ bytes: ByteBuffer, as number: Int, in cache: inout SlotCache) {
    let (object, slot) = key(of: number)
    let block = SlotCache.Block(block: BlockID(UInt64(number)), checksum: Checksum(0), bytes: bytes)
    cache.insert(block, at: object, slot)
}
