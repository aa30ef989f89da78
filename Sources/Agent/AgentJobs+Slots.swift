import AgentPlanning
import AshlarCore
import BlockObjects
import Logging
import NIOCore
import RPC

extension AgentJobs {
    /// A slot as it was fetched and verified.
    struct FetchedSlot {
        let block: BlockID
        let version: Version
        let stored: StoredSlot
    }

    /// Slots of an object that were asked for: one that is damaged does not keep the others back (I11).
    struct FetchedSlots {
        /// Those that match their checksums; without bytes where those were not wanted.
        var sound: [SlotIndex: FetchedSlot] = [:]
        /// Those that do not.
        var damaged: [SlotIndex] = []
        /// Whether the object does not lie there.
        var isMissing = false
    }

    /// Reads a run of slots and verifies every one, its plain bytes included.
    ///
    /// - Throws: Where the server cannot be asked; damage is part of the result.
    func slots(
        _ slots: Range<UInt32>,
        of object: ObjectID,
        on server: ObjectServerID,
        blockSizeBytes: UInt32?,
        keepsBytes: Bool
    ) async throws(AgentError) -> FetchedSlots {
        guard let peer = peers.objects[server] else {
            throw AgentError(.configuration, "object server \(server) of object \(object) is not configured")
        }
        let inflater = try packing(object) { () throws(BlockObjectError) in try BlockInflater() }
        var found = FetchedSlots()
        var pending = slots.isEmpty ? [] : [slots]
        while let run = pending.popLast() {
            if gate.isClosed { throw AgentError(.stopping, "the agent stops") }
            do throws(AgentError) {
                let (answer, payload) = try await peer.ask(
                    GetSlots(object: object, firstSlot: SlotIndex(run.lowerBound), count: UInt32(run.count)),
                    answer: GetSlots.Answer.self,
                    deadlineMilliseconds: AgentLimits.objectDeadlineMilliseconds
                )
                guard answer.slots.count == run.count, blockSizeBytes ?? answer.blockSizeBytes == answer.blockSizeBytes
                else { throw AgentError(.badWork, "object \(object) has other slots than its map says") }
                Self.take(answer, payload, run, keepsBytes: keepsBytes, inflater, into: &found)
            } catch {
                switch (error.status, error.damagedSlot) {
                case (.mediumError?, let slot?) where run.contains(slot.rawValue):
                    found.damaged.append(slot)
                    // What is asked for next lies before it.
                    if slot.rawValue + 1 < run.upperBound { pending.append(slot.rawValue + 1..<run.upperBound) }
                    if run.lowerBound < slot.rawValue { pending.append(run.lowerBound..<slot.rawValue) }
                case (.mediumError?, _), (.outOfRange?, _):
                    // The header is damaged, or has fewer slots than the map says: none of these can be read.
                    found.damaged += run.map { SlotIndex($0) }
                case (.noSuchObject?, _):
                    found.isMissing = true
                    found.damaged += run.map { SlotIndex($0) }
                default: throw error
                }
            }
        }
        found.damaged.sort()
        return found
    }

    private static func take(
        _ answer: GetSlots.Answer,
        _ payload: ByteBuffer,
        _ run: Range<UInt32>,
        keepsBytes: Bool,
        _ inflater: BlockInflater,
        into found: inout FetchedSlots
    ) {
        var payload = payload
        for (index, slot) in zip(run, answer.slots) {
            let place = SlotIndex(index)
            guard
                let encoding = SlotEncoding(rawValue: slot.encoding),
                let bytes = payload.readSlice(length: Int(slot.storedBytes))
            else {
                found.damaged.append(place)
                continue
            }
            // A copy: a slice would keep the dead slots of the answer in memory as well.
            let copy = keepsBytes ? ByteBuffer(bytes: bytes.readableBytesView) : bytes
            var stored = StoredSlot(encoding: encoding, bytes: copy, checksum: slot.checksum)
            guard (try? stored.decoded(blockSizeBytes: answer.blockSizeBytes, slot: place, using: inflater)) != nil
            else {
                found.damaged.append(place)
                continue
            }
            if !keepsBytes { stored.bytes = ByteBuffer() }
            found.sound[place] = FetchedSlot(block: slot.block, version: slot.version, stored: stored)
        }
    }
}
