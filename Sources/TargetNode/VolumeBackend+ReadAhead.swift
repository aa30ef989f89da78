import AshlarCore
import Ownership
import RPC
import Transport

// Reading ahead: of a volume, whichever of its sessions reads.
extension VolumeBackend {
    /// A read of these blocks found some in objects: what comes next may be worth being there before it is asked for.
    ///
    /// The owner is asked where that lies. Its answer is good for nothing but as keys of what to keep: the read that comes asks
    /// again (I2).
    func readFromObjects(_ blocks: BlockRange) {
        let windowBytes = service.slots.windowBytes
        guard let volume, windowBytes > 0 else { return }
        let size = volume.geometry.blockSizeBytes
        var streams = readAhead ?? ReadAhead(blockSizeBytes: size, windowBytes: windowBytes)
        readAhead = nil
        let room = isLookingAhead || owner?.client.isConnected != true ? 0 : service.slots.roomAhead
        let range = streams.read(
            blocks,
            end: BlockID(volume.geometry.blockCount),
            room: UInt64(room) / UInt64(size)
        )
        readAhead = streams
        guard let range, let client = owner?.client else { return }
        isLookingAhead = true
        client.send(
            FindSlots(volume: volume.id, firstBlock: range.first, count: UInt32(range.count)),
            deadlineMilliseconds: TargetLimits.aheadDeadlineMilliseconds
        ) { [self] result in
            isLookingAhead = false
            guard case .success(var answer) = result, let found = try? answer.decode(FindSlots.Answer.self) else {
                readAhead?.failed(at: range)
                return
            }
            let inObjects = found.runs.reduce(0) { $0 + UInt64($1.count) }
            readAhead?.looked(at: range, known: UInt64(found.known), inObjects: inObjects)
            for run in found.runs { getAhead(run, blockSizeBytes: size) }
        }
    }

    /// Sends for slots before they are read, as far as they are not here, nor on their way.
    func getAhead(_ run: FindSlots.Run, blockSizeBytes: UInt32) {
        guard let client = service.objects[run.server], client.isConnected else { return }
        service.slots.readAhead(run, blockSizeBytes: blockSizeBytes) { message, arrived in
            client.send(message, deadlineMilliseconds: TargetLimits.aheadDeadlineMilliseconds) { result in
                guard case .success(var answer) = result, let slots = try? answer.decode(GetSlots.Answer.self) else {
                    return arrived(nil)
                }
                arrived((slots, answer.body))
            }
        }
    }
}
