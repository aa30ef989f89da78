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
    // One block in the middle of an extent of two is mapped anew, which makes two extents of one.
    Benchmark("map/insert", counted: 1_024) {
        var list = extentList(10_000)
        var numbers = RepeatableNumbers()
        var slot: UInt32 = 0
        return { operations in
            for _ in 0..<operations {
                slot = (slot + 2) % 4_096
                list.insert(
                    Extent(
                        blocks: BlockRange(first: BlockID(UInt64(numbers.next(below: 20_000))), count: 1),
                        object: ObjectID(1),
                        server: ObjectServerID(1),
                        firstSlot: SlotIndex(slot)
                    )
                )
            }
            return UInt64(list.extents.count)
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
