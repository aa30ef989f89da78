import AgentPlanning
import AshlarCore
import BlockObjects
import Failpoints
import Logging
import NIOCore
import Observability
import RPC

extension AgentJobs {
    /// An object that is ready to be put, with what its map needs.
    struct PackedMove {
        let bytes: ByteBuffer
        let slots: [MapMove.Slot]
    }

    /// Moves one object's worth of blocks (M1): ask, pack, put, map.
    func move(
        cache: AgentPeer,
        foundWork: @Sendable () async -> Void
    ) async throws(AgentError) -> AgentPlanner.Outcome {
        let (work, payload) = try await cache.ask(
            MoveWork(agent: name),
            answer: MoveWork.Answer.self,
            deadlineMilliseconds: AgentLimits.askDeadlineMilliseconds
        )
        guard !work.blocks.isEmpty else { return .nothing }
        Failpoint.agentMoveReceived.reach()
        await foundWork()
        let packed = try pack(work, payload: payload)
        guard gate.enter() else { throw AgentError(.stopping, "the agent stops") }
        defer { gate.leave() }
        let server = try await put(work.object, bytes: packed.bytes, cache: cache)
        let map = MapMove(
            volume: work.volume,
            object: work.object,
            server: server,
            sizeBytes: UInt64(packed.bytes.readableBytes),
            slots: packed.slots
        )
        let (answer, _) = try await cache.ask(
            map,
            answer: CountAnswer.self,
            deadlineMilliseconds: AgentLimits.mapDeadlineMilliseconds
        )
        Failpoint.agentMoveMapped.reach()
        let mapped = min(Int(clamping: answer.count), packed.slots.count)
        metrics.blocksMoved.increment(by: UInt64(mapped))
        metrics.blocksStale.increment(by: UInt64(packed.slots.count - mapped))
        logger.debug(
            "blocks moved",
            metadata: [
                "object": "\(work.object)", "server": "\(server)", "mapped": "\(mapped) of \(packed.slots.count)",
            ]
        )
        return .worked
    }

    /// Packs the blocks of a piece of work. A block that does not match its checksum is left out, loudly: it stays
    /// unmoved, and the others need not wait for it (I11). Blocks for which there is no room are left out, too.
    func pack(_ work: MoveWork.Answer, payload: ByteBuffer) throws(AgentError) -> PackedMove {
        let expected = work.blocks.count * Int(work.blockSizeBytes)
        guard payload.readableBytes == expected else {
            throw AgentError(
                .badWork,
                "\(payload.readableBytes) bytes instead of \(expected) to move into object \(work.object)"
            )
        }
        var builder = try packing(work.object) { () throws(BlockObjectError) in
            try BlockObjectBuilder(
                objectID: work.object,
                volumeID: work.volume,
                volumeUUID: work.uuid,
                blockSizeBytes: work.blockSizeBytes,
                compressor: try BlockCompressor()
            )
        }
        var payload = payload
        var slots: [MapMove.Slot] = []
        for block in work.blocks where builder.hasRoom {
            guard let bytes = payload.readSlice(length: Int(work.blockSizeBytes)) else {
                preconditionFailure("the payload was measured")
            }
            guard bytes.withUnsafeReadableBytes({ Checksum(of: $0) }) == block.checksum else {
                reportCorruption(of: block.block, volume: work.volume)
                continue
            }
            try packing(work.object) { () throws(BlockObjectError) in
                _ = try builder.add(
                    block: block.block,
                    version: block.version,
                    checksum: block.checksum,
                    bytes: bytes
                )
            }
            slots.append(MapMove.Slot(block: block.block, version: block.version))
        }
        guard !slots.isEmpty else {
            throw AgentError(.badWork, "no block for object \(work.object) matches its checksum")
        }
        let bytes = try packing(work.object) { () throws(BlockObjectError) in try builder.finish() }
        return PackedMove(bytes: bytes, slots: slots)
    }

    /// Runs a step of packing `object`, and says of which object its error is.
    func packing<Value>(
        _ object: ObjectID,
        _ step: () throws(BlockObjectError) -> Value
    ) throws(AgentError) -> Value {
        do {
            return try step()
        } catch {
            if error.code == .blockChecksum { metrics.blocksCorrupt.increment() }
            throw AgentError(.badWork, "packing object \(object): \(error)")
        }
    }

    private func reportCorruption(of block: BlockID, volume: VolumeID) {
        metrics.blocksCorrupt.increment()
        logger.error(
            "a cached block does not match its checksum; it is not moved",
            metadata: ["volume": "\(volume)", "block": "\(block)"]
        )
    }
}
