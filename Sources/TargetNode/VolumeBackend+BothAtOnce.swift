import AshlarCore
import Ownership
import RPC

// Reads that ask the owner and the object servers at once, where the volume's policy says so: whichever of its sessions reads.
extension VolumeBackend {
    /// A read asks the owner for these blocks: what lay in objects the last time is sent for at the same time.
    ///
    /// What comes is kept as anything that was read ahead: by object and slot, in the target's memory. The read looks there for the slots that the
    /// owner's answer names, and waits for what is on its way; so bytes that the owner does not mean are not used, whatever they were (I2).
    func readAtOnce(_ blocks: BlockRange) {
        guard readsBothAtOnce, let places, let volume else { return }
        for run in places.find(blocks) {
            getAhead(
                FindSlots.Run(
                    object: run.object,
                    server: run.server,
                    firstSlot: run.firstSlot,
                    origin: run.origin,
                    count: run.count
                ),
                blockSizeBytes: volume.geometry.blockSizeBytes
            )
        }
    }

    /// The owner answered a read from this block on: where its blocks lie in objects is remembered for the next one.
    func notePlaces(_ runs: [ReadCommand.Run], from first: BlockID) {
        guard readsBothAtOnce else { return }
        var known = places ?? KnownPlaces()
        places = nil
        var block = first
        for run in runs {
            if case .object(let object, let server, let slot, let origin, let count) = run {
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
            } else {
                known.forget(BlockRange(first: block, count: UInt64(run.count)))
            }
            block = block + UInt64(run.count)
        }
        places = known
    }
}
