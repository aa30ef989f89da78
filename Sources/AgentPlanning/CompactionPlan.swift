package import AshlarCore
import BlockObjects
package import RPC

/// What a compaction reads and what it writes: made of the runs that a cache server handed out, before anything is
/// fetched.
///
/// - Blocks are written ascending, so that their extents come out long.
/// - Slots of one source that lie close together are read with one request, dead ones between them included.
/// - Only as many blocks are taken as fit the new object even if none is compressed; the others stay live where they
///   are.
package struct CompactionPlan: Sendable, Hashable {
    /// One block of the new object.
    package struct Item: Sendable, Hashable {
        package let block: BlockID
        package let source: ObjectID
        package let sourceSlot: SlotIndex
        /// The block that the slot must have been written as.
        package let origin: BlockID
        /// The version that the block gets where it is a copy; nil: the one in the slot.
        package let copyVersion: Version?
    }

    /// Slots of one source that are read with one request.
    package struct Window: Sendable, Hashable {
        package let source: ObjectID
        package let server: ObjectServerID
        package let firstSlot: SlotIndex
        package let count: UInt32
    }

    /// The blocks of the new object in slot order.
    package let items: [Item]
    /// What to read, each source's slots ascending.
    package let windows: [Window]

    /// - Throws: `.badWork` where the runs are not ascending, overlap, or reach over the bounds of objects.
    package init(_ work: CompactionWork.Answer) throws(AgentError) {
        let room = Self.slotsThatFit(blockSizeBytes: work.blockSizeBytes)
        var items: [Item] = []
        var reads: [ReadKey: [SlotIndex]] = [:]
        var end = BlockID(0)
        for run in work.runs where !run.blocks.isEmpty {
            let (lastSlot, overflow) = UInt64(run.firstSlot.rawValue).addingReportingOverflow(run.blocks.count)
            guard
                run.blocks.first >= end, !overflow, lastSlot <= UInt64(Limits.objectSlotsMaximum),
                run.blocks.first.rawValue <= Limits.volumeSizeMaximumBytes,
                run.copy.map({ $0.origin.rawValue <= Limits.volumeSizeMaximumBytes }) ?? true
            else {
                throw AgentError(.badWork, "runs of compaction into object \(work.object) contradict each other")
            }
            end = run.blocks.end
            for offset in 0..<UInt32(run.blocks.count) where items.count < room {
                let slot = SlotIndex(run.firstSlot.rawValue + offset)
                let block = run.blocks.first + UInt64(offset)
                items.append(
                    Item(
                        block: block,
                        source: run.source,
                        sourceSlot: slot,
                        origin: run.copy?.dropped(UInt64(offset)).origin ?? block,
                        copyVersion: run.copy?.version
                    )
                )
                reads[ReadKey(source: run.source, server: run.server), default: []].append(slot)
            }
        }
        self.items = items
        windows = reads.sorted { $0.key < $1.key }.flatMap { Self.windows($0.key, slots: $0.value) }
    }

    /// How many blocks fit an object in every case.
    package static func slotsThatFit(blockSizeBytes: UInt32) -> Int {
        let bytes = Limits.objectMaximumBytes - BlockObjectsLimits.headerBytes(slotCount: 0)
        let slot = BlockObjectsLimits.slotEntryBytes + max(1, Int(blockSizeBytes))
        return min(bytes / slot, Int(Limits.objectSlotsMaximum))
    }

    private struct ReadKey: Hashable, Comparable {
        let source: ObjectID
        let server: ObjectServerID

        static func < (lhs: ReadKey, rhs: ReadKey) -> Bool { (lhs.source, lhs.server) < (rhs.source, rhs.server) }
    }

    private static func windows(_ key: ReadKey, slots: [SlotIndex]) -> [Window] {
        var windows: [Window] = []
        for slot in slots.sorted() {
            if let last = windows.last {
                let end = last.firstSlot.rawValue + last.count
                if slot.rawValue < end + AgentLimits.compactionReadThroughSlots + 1 {
                    let count = max(last.count, slot.rawValue - last.firstSlot.rawValue + 1)
                    windows[windows.count - 1] = Window(
                        source: key.source,
                        server: key.server,
                        firstSlot: last.firstSlot,
                        count: count
                    )
                    continue
                }
            }
            windows.append(Window(source: key.source, server: key.server, firstSlot: slot, count: 1))
        }
        return windows
    }
}
