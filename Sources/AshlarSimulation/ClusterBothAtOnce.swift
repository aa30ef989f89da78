import AshlarCore
import NIOCore
import Ownership

/// A slot that was sent for before the owner said that it is wanted.
struct ClusterEarlySlot {
    var object: ObjectID
    var slot: SlotIndex
    /// The block, once it has come.
    var bytes: ByteBuffer?
}

// Reads that ask the owner and the object servers at once. The rules are those of TargetNode's `VolumeBackend+BothAtOnce`.
extension Cluster {
    /// Sends for what last lay in objects, along with the question to the owner.
    func readAtOnce(
        _ operation: Int,
        _ command: CommandOperation,
        _ management: UnitManagement?,
        _ session: ClusterSession
    ) {
        guard let places, case .read(let range) = command, range.count > 0 else { return }
        let first = range.offset / UInt64(blockBytes)
        let blocks = BlockRange(
            first: BlockID(first),
            count: (range.end + UInt64(blockBytes) - 1) / UInt64(blockBytes) - first
        )
        let request = ClusterRequest(operation: operation, command: command, management: management)
        let read = ClusterRead(request: request, range: range)
        session.reads[operation] = read
        for run in places.find(blocks) {
            let start = Int(run.block.rawValue - first)
            for offset in 0..<Int(run.count) {
                let slot = SlotIndex(run.firstSlot.rawValue + UInt32(offset))
                read.early[start + offset] = ClusterEarlySlot(object: run.object, slot: slot)
            }
            count("sent for at once")
            self.read(run.object, run.firstSlot, run.count, on: run.server) { [self] result in
                // Why it did not come is left to the read that wants it.
                guard case .success(let slots) = result, !read.isFinished else { return }
                for (offset, slot) in slots.enumerated() {
                    read.early[start + offset]?.bytes = plain(slot, origin: run.origin + UInt64(offset))
                }
            }
        }
    }

    /// Takes what has come of a run of the owner's answer: only what lies in this very object, and these slots.
    ///
    /// - Returns: whether that is all of it.
    func takeEarly(of read: ClusterRead, _ blocks: Range<Int>, _ object: ObjectID, _ first: SlotIndex) -> Bool {
        guard !read.early.isEmpty else { return false }
        for (offset, block) in blocks.enumerated() where read.blocks[block] == nil {
            guard let early = read.early[block] else { continue }
            guard early.object == object, early.slot.rawValue == first.rawValue + UInt32(offset) else {
                count("came at once from elsewhere")
                continue
            }
            guard let bytes = early.bytes else { continue }
            count("came at once")
            read.blocks[block] = bytes
        }
        return blocks.allSatisfy { read.blocks[$0] != nil }
    }

    /// Remembers where the blocks of a read lie.
    func notePlaces(_ read: ClusterRead) {
        guard var known = places else { return }
        places = nil
        var block = BlockID(read.range.offset / UInt64(blockBytes))
        for run in read.runs {
            switch run {
            case .object(let object, let server, let slot, let origin, let count):
                known.remember(
                    KnownPlaces.Run(
                        block: block,
                        object: object,
                        server: server,
                        firstSlot: slot,
                        origin: origin ?? block,
                        count: count
                    )
                )
                block = block + UInt64(count)
            case .zeros(let count):
                known.forget(BlockRange(first: block, count: UInt64(count)))
                block = block + UInt64(count)
            case .bytes(let checksums):
                known.forget(BlockRange(first: block, count: UInt64(checksums.count)))
                block = block + UInt64(checksums.count)
            }
        }
        places = known
    }
}
