import AgentPlanning
import AshlarCore
import BlockObjects
import Logging
import NIOCore
import Observability
import RPC

extension AgentJobs {
    /// A live slot as it was fetched.
    private struct Fetched {
        let block: BlockID
        let version: Version
        let stored: StoredSlot
    }

    private struct SlotKey: Hashable {
        let source: ObjectID
        let slot: SlotIndex
    }

    /// Rewrites the live slots of sparse objects (M6): ask, fetch, pack, put, map. Where a source is missing or holds
    /// something else than the cache server said, the map has changed: the work is given up, and handed out anew if it
    /// still is any (I7).
    func compact(cache: AgentPeer) async throws(AgentError) -> AgentPlanner.Outcome {
        let (work, _) = try await cache.ask(
            CompactionWork(),
            answer: CompactionWork.Answer.self,
            deadlineMilliseconds: AgentLimits.askDeadlineMilliseconds
        )
        let plan = try CompactionPlan(work)
        guard !plan.items.isEmpty else { return .nothing }
        let fetched = try await fetch(plan, blockSizeBytes: work.blockSizeBytes)
        let (bytes, slots) = try pack(work, plan: plan, fetched: fetched)
        guard gate.enter() else { throw AgentError(.stopping, "the agent stops") }
        defer { gate.leave() }
        let server = try await put(work.object, bytes: bytes)
        let map = MapCompaction(
            volume: work.volume,
            object: work.object,
            server: server,
            sizeBytes: UInt64(bytes.readableBytes),
            slots: slots
        )
        let (answer, _) = try await cache.ask(
            map,
            answer: CountAnswer.self,
            deadlineMilliseconds: AgentLimits.mapDeadlineMilliseconds
        )
        metrics.blocksCompacted.increment(by: answer.count)
        logger.debug(
            "objects compacted",
            metadata: [
                "object": "\(work.object)", "server": "\(server)", "mapped": "\(answer.count) of \(slots.count)",
            ]
        )
        return .worked
    }

    private func fetch(
        _ plan: CompactionPlan,
        blockSizeBytes: UInt32
    ) async throws(AgentError) -> [SlotKey: Fetched] {
        let wanted = Set(plan.items.map { SlotKey(source: $0.source, slot: $0.sourceSlot) })
        var fetched: [SlotKey: Fetched] = [:]
        for window in plan.windows {
            if gate.isClosed { throw AgentError(.stopping, "the agent stops") }
            guard let peer = peers.objects[window.server] else {
                throw AgentError(
                    .configuration,
                    "object server \(window.server) of object \(window.source) is not configured"
                )
            }
            var (answer, payload) = try await peer.ask(
                GetSlots(object: window.source, firstSlot: window.firstSlot, count: window.count),
                answer: GetSlots.Answer.self,
                deadlineMilliseconds: AgentLimits.objectDeadlineMilliseconds
            )
            guard answer.slots.count == Int(window.count), answer.blockSizeBytes == blockSizeBytes else {
                throw AgentError(.badWork, "object \(window.source) has other slots than its map says")
            }
            for (offset, slot) in answer.slots.enumerated() {
                guard let bytes = payload.readSlice(length: Int(slot.storedBytes)) else {
                    throw AgentError(.badWork, "the answer with slots of object \(window.source) ends too soon")
                }
                let key = SlotKey(source: window.source, slot: SlotIndex(window.firstSlot.rawValue + UInt32(offset)))
                guard wanted.contains(key) else { continue }
                guard let encoding = SlotEncoding(rawValue: slot.encoding) else {
                    throw AgentError(
                        .badWork,
                        "object \(window.source) has a slot of unknown encoding \(slot.encoding)"
                    )
                }
                // A copy: a slice would keep the dead slots of the answer in memory as well.
                let copy = ByteBuffer(bytes: bytes.readableBytesView)
                fetched[key] = Fetched(
                    block: slot.block,
                    version: slot.version,
                    stored: StoredSlot(encoding: encoding, bytes: copy, checksum: slot.checksum)
                )
            }
        }
        return fetched
    }

    private func pack(
        _ work: CompactionWork.Answer,
        plan: CompactionPlan,
        fetched: [SlotKey: Fetched]
    ) throws(AgentError) -> (ByteBuffer, [MapCompaction.Slot]) {
        let inflater = try packing(work.object) { () throws(BlockObjectError) in try BlockInflater() }
        var builder = try packing(work.object) { () throws(BlockObjectError) in
            try BlockObjectBuilder(
                objectID: work.object,
                volumeID: work.volume,
                volumeUUID: work.uuid,
                blockSizeBytes: work.blockSizeBytes,
                compressor: nil
            )
        }
        var slots: [MapCompaction.Slot] = []
        for item in plan.items {
            let key = SlotKey(source: item.source, slot: item.sourceSlot)
            guard let slot = fetched[key], slot.block == item.origin else {
                throw AgentError(
                    .badWork,
                    "slot \(item.sourceSlot) of object \(item.source) does not hold block \(item.origin)"
                )
            }
            let version = item.copyVersion ?? slot.version
            try packing(work.object) { () throws(BlockObjectError) in
                _ = try builder.add(block: item.block, version: version, stored: slot.stored, using: inflater)
            }
            slots.append(
                MapCompaction.Slot(
                    block: item.block,
                    version: version,
                    source: item.source,
                    sourceSlot: item.sourceSlot
                )
            )
        }
        let bytes = try packing(work.object) { () throws(BlockObjectError) in try builder.finish() }
        return (bytes, slots)
    }
}
