import AshlarCore
import Ownership

let mapBenchmarks = [
    Benchmark("map/find", counted: 8_192) {
        let list = extentList(10_000)
        var numbers = RepeatableNumbers()
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations {
                let block = BlockID(UInt64(numbers.next(below: 20_000)))
                sum &+= list.extent(holding: block).map { UInt64($0.firstSlot.rawValue) } ?? 1
            }
            return sum
        }
    },
    // The second block of an extent is mapped anew, and then both as before: one operation is one of these.
    Benchmark("map/insert", step: 2, counted: 1_024) {
        let original = extentList(10_000)
        let extents = original.extents
        var list = original
        var numbers = RepeatableNumbers()
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations / 2 {
                let extent = extents[numbers.next(below: extents.count)]
                list.insert(
                    Extent(
                        blocks: BlockRange(first: extent.blocks.first + 1, count: 1),
                        object: ObjectID(1),
                        server: ObjectServerID(1),
                        firstSlot: SlotIndex(0)
                    )
                )
                sum &+= UInt64(list.count)
                list.insert(extent)
            }
            try require(list == original, "the map is another")
            return sum
        }
    },
]

/// So many extents of two blocks, none of which goes on where another ends.
private func extentList(_ count: Int) -> ExtentList {
    ExtentList(
        (0..<count).map { index in
            Extent(
                blocks: BlockRange(first: BlockID(UInt64(2 * index)), count: 2),
                object: ObjectID(UInt64(2 + index)),
                server: ObjectServerID(1),
                firstSlot: SlotIndex(0)
            )
        }
    )
}
