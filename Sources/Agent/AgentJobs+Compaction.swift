import AgentPlanning
import AshlarCore
import BlockObjects
import Failpoints
import Logging
import NIOCore
import Observability
import RPC

extension AgentJobs {
    private struct SlotKey: Hashable {
        let source: ObjectID
        let slot: SlotIndex
    }

    /// Rewrites the live slots of sparse objects, and of those whose server is drained (M6): ask, fetch, pack, put, map. A slot
    /// that is damaged, or gone, or holds something else than the cache server said stays where it is and is reported, so that the
    /// others need not wait for it and it is not handed out again for ever (I11). Where the map has changed meanwhile, that is
    /// harmless (I7).
    func compact(cache: AgentPeer) async throws(AgentError) -> AgentPlanner.Outcome {
        let (work, _) = try await cache.ask(
            CompactionWork(),
            answer: CompactionWork.Answer.self,
            deadlineMilliseconds: AgentLimits.askDeadlineMilliseconds
        )
        let plan = try CompactionPlan(work)
        guard !plan.items.isEmpty else { return .nothing }
        Failpoint.agentCompactionReceived.reach()
        let (fetched, damaged) = try await fetch(plan, blockSizeBytes: work.blockSizeBytes)
        for start in stride(from: 0, to: damaged.count, by: RPCMessageLimits.objectsReportedMaximum) {
            let end = min(start + RPCMessageLimits.objectsReportedMaximum, damaged.count)
            try await report(Array(damaged[start..<end]), token: 0, cache: cache)
        }
        guard !fetched.isEmpty else { return .worked }
        let (bytes, slots) = try pack(work, plan: plan, fetched: fetched)
        guard gate.enter() else { throw AgentError(.stopping, "the agent stops") }
        defer { gate.leave() }
        let server = try await put(work.object, bytes: bytes, cache: cache)
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
        Failpoint.agentCompactionMapped.reach()
        metrics.blocksCompacted.increment(by: answer.count)
        logger.debug(
            "objects compacted",
            metadata: [
                "object": "\(work.object)", "server": "\(server)", "mapped": "\(answer.count) of \(slots.count)",
            ]
        )
        return .worked
    }

    /// The slots that are sound and hold what the plan says, and what is to be told of the others.
    private func fetch(
        _ plan: CompactionPlan,
        blockSizeBytes: UInt32
    ) async throws(AgentError) -> ([SlotKey: FetchedSlot], [ReportObjects.Finding]) {
        var wanted: [SlotKey: Set<BlockID>] = [:]
        for item in plan.items {
            wanted[SlotKey(source: item.source, slot: item.sourceSlot), default: []].insert(item.origin)
        }
        var fetched: [SlotKey: FetchedSlot] = [:]
        var damaged: [ObjectID: Set<SlotIndex>] = [:]
        var missing: Set<ObjectID> = []
        for (window, found) in try await windows(plan.windows, blockSizeBytes: blockSizeBytes) {
            if found.isMissing { missing.insert(window.source) }
            for slot in found.damaged where wanted[SlotKey(source: window.source, slot: slot)] != nil {
                damaged[window.source, default: []].insert(slot)
            }
            for (slot, content) in found.sound {
                let key = SlotKey(source: window.source, slot: slot)
                guard let blocks = wanted[key] else { continue }
                if blocks == [content.block] {
                    fetched[key] = content
                } else {
                    damaged[window.source, default: []].insert(slot)
                }
            }
        }
        let findings = damaged.sorted { $0.key < $1.key }.map { object, slots in
            missing.contains(object)
                ? ReportObjects.Finding(object: object, state: .missing)
                : ReportObjects.Finding(object: object, state: .partlyRead, slots: slots.sorted())
        }
        return (fetched, findings)
    }

    /// Reads runs of slots, several at a time: of sparse objects there are hundreds, and a round trip for each in turn would take seconds where
    /// the machine is busy.
    private func windows(
        _ windows: [CompactionPlan.Window],
        blockSizeBytes: UInt32
    ) async throws(AgentError) -> [(CompactionPlan.Window, FetchedSlots)] {
        let results = await withTaskGroup(of: Result<(CompactionPlan.Window, FetchedSlots), AgentError>.self) { group in
            var results: [Result<(CompactionPlan.Window, FetchedSlots), AgentError>] = []
            for (index, window) in windows.enumerated() {
                if index >= AgentLimits.compactionReadsInFlightMaximum, let result = await group.next() {
                    results.append(result)
                    if case .failure = result { break }
                }
                group.addTask {
                    do throws(AgentError) {
                        let found = try await self.slots(
                            window.firstSlot.rawValue..<window.firstSlot.rawValue + window.count,
                            of: window.source,
                            on: window.server,
                            blockSizeBytes: blockSizeBytes,
                            keepsBytes: true
                        )
                        return .success((window, found))
                    } catch {
                        return .failure(error)
                    }
                }
            }
            for await result in group { results.append(result) }
            return results
        }
        var found: [(CompactionPlan.Window, FetchedSlots)] = []
        for result in results { found.append(try result.get()) }
        return found
    }

    private func pack(
        _ work: CompactionWork.Answer,
        plan: CompactionPlan,
        fetched: [SlotKey: FetchedSlot]
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
            guard let slot = fetched[key] else { continue }
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
