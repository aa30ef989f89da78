import AshlarCore
import RPC
import Testing

@testable import Agent
@testable import AgentPlanning

@Suite("The plan of a compaction")
struct CompactionPlanTests {
    private func work(_ runs: [CompactionWork.LiveRun], blockSizeBytes: UInt32 = 4_096) -> CompactionWork.Answer {
        CompactionWork.Answer(
            volume: VolumeID(1),
            uuid: [UInt8](repeating: 0, count: 16),
            blockSizeBytes: blockSizeBytes,
            object: ObjectID(99),
            runs: runs
        )
    }

    private func run(
        _ block: UInt64,
        _ count: UInt64,
        source: UInt64 = 1,
        slot: UInt32 = 0,
        server: Int32 = 1,
        copy: BlockCopy? = nil
    ) -> CompactionWork.LiveRun {
        CompactionWork.LiveRun(
            blocks: BlockRange(first: BlockID(block), count: count),
            source: ObjectID(source),
            server: ObjectServerID(server),
            firstSlot: SlotIndex(slot),
            copy: copy
        )
    }

    @Test("Blocks that share slots get each its own, under the version of the copy (M11)")
    func copies() throws {
        let copy = BlockCopy(origin: BlockID(4), version: Version(9))
        let plan = try CompactionPlan(work([run(3, 3, slot: 7), run(20, 2, slot: 8, copy: copy)]))
        #expect(plan.items.map(\.block) == [3, 4, 5, 20, 21].map { BlockID($0) })
        #expect(plan.items.map(\.origin) == [3, 4, 5, 4, 5].map { BlockID($0) })
        #expect(plan.items.map(\.sourceSlot) == [7, 8, 9, 8, 9].map { SlotIndex($0) })
        #expect(plan.items.map(\.copyVersion) == [nil, nil, nil, Version(9), Version(9)])
        #expect(plan.windows.map(\.count) == [3])
        let beyond = BlockCopy(origin: BlockID(.max), version: Version(9))
        #expect(throws: AgentError.self) { try CompactionPlan(work([run(20, 2, copy: beyond)])) }
    }

    @Test("Every live slot is read exactly once, from the right server", arguments: 1...50 as ClosedRange<UInt64>)
    func coverage(seed: UInt64) throws {
        var random = AgentRandom(seed: seed)
        var runs: [CompactionWork.LiveRun] = []
        var block: UInt64 = 0
        var nextSlot: [UInt64: UInt32] = [:]
        for _ in 0..<(random.next() % 60) {
            block += random.next() % 5
            let count = random.next() % 4
            let source = random.next() % 4 + 1
            let slot = nextSlot[source, default: 0] + UInt32(random.next() % 40)
            nextSlot[source] = slot + UInt32(count)
            runs.append(run(block, count, source: source, slot: slot, server: Int32(source % 2) + 1))
            block += count
        }
        let plan = try CompactionPlan(work(runs))
        let live = runs.flatMap { run in
            (0..<run.blocks.count).map {
                CompactionPlan.Item(
                    block: run.blocks.first + $0,
                    source: run.source,
                    sourceSlot: SlotIndex(run.firstSlot.rawValue + UInt32($0)),
                    origin: run.blocks.first + $0,
                    copyVersion: nil
                )
            }
        }
        #expect(plan.items == live)
        #expect(plan.items.map(\.block) == plan.items.map(\.block).sorted())
        for item in live {
            let covering = plan.windows.filter { window in
                let end = window.firstSlot.rawValue + window.count
                return window.source == item.source && item.sourceSlot >= window.firstSlot
                    && item.sourceSlot.rawValue < end
            }
            #expect(covering.count == 1)
            #expect(covering.first?.server == ObjectServerID(Int32(item.source.rawValue % 2) + 1))
        }
        for window in plan.windows {
            #expect(window.count > 0 && window.firstSlot.rawValue + window.count <= Limits.objectSlotsMaximum)
        }
    }

    @Test("Slots that lie close together are read with one request")
    func windows() throws {
        let near = AgentLimits.compactionReadThroughSlots
        let plan = try CompactionPlan(
            work([run(0, 2, slot: 0), run(10, 1, slot: 2 + near), run(20, 1, slot: 4 + 2 * near)])
        )
        #expect(plan.windows.map(\.firstSlot) == [SlotIndex(0), SlotIndex(4 + 2 * near)])
        #expect(plan.windows.map(\.count) == [3 + near, 1])
    }

    @Test("I10: what does not fit the new object stays where it is")
    func bounds() throws {
        let room = CompactionPlan.slotsThatFit(blockSizeBytes: 65_536)
        let plan = try CompactionPlan(work([run(0, 4_096)], blockSizeBytes: 65_536))
        #expect(plan.items.count == room)
        #expect(
            plan.windows == [
                CompactionPlan.Window(
                    source: ObjectID(1),
                    server: ObjectServerID(1),
                    firstSlot: SlotIndex(0),
                    count: UInt32(room)
                )
            ]
        )
    }

    @Test("Runs that overlap, descend or reach over an object's end are no work")
    func contradictions() {
        let bad: [[CompactionWork.LiveRun]] = [
            [run(0, 2), run(1, 1, slot: 9)], [run(5, 1), run(0, 1, slot: 9)], [run(0, 2, slot: 4_095)],
            [run(0, .max)], [run(.max, 1)], [run(0, 1, slot: .max)],
        ]
        for runs in bad {
            let error = #expect(throws: AgentError.self) { try CompactionPlan(work(runs)) }
            #expect(error?.code == .badWork)
        }
    }
}
