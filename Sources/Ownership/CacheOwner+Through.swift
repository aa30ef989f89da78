public import AshlarCore
import NIOCore

/// Where the blocks of a write lie in an object that its target puts at the same time.
public struct ThroughPlace: Sendable, Hashable {
    /// The object, which was handed out for direct writes.
    public var object: ObjectID
    /// The slot of the first block; the others follow in order.
    public var firstSlot: UInt32

    /// A place with both parts named.
    public init(object: ObjectID, firstSlot: UInt32) {
        self.object = object
        self.firstSlot = firstSlot
    }
}

/// What a write has in an object that is being put: the versions of its slots are those of its items.
final class ThroughSlots {
    let grant: DirectGrant
    let firstSlot: UInt32

    init(_ grant: DirectGrant, firstSlot: UInt32) {
        self.grant = grant
        self.firstSlot = firstSlot
    }

    var firstVersion: Version { grant.version(of: firstSlot) }
}

// Writes through: their bytes go to the cache, and into an object under the same versions, at the same time; whichever is durable first
// acknowledges (I1). There is no rule of their own for them:
// - the item is a write as any other, but for its versions, which are those of a direct write (M2, M4): they were handed out before, and
//   are used only where nothing newer was committed to the blocks since;
// - an object that comes while none of its writes is in a commit is mapped as one of direct writes (M4), in place of the items;
// - one that comes later is mapped as a move (M1): where an item still has the version that is in the object.
// So a stale object never wins, whatever was lost or late: an item that was overwritten, or has a version of its own, does not match.
extension CacheOwner {
    /// Gives a write its slots in an object that is being put, if the object is handed out and the slots have not been used (M9).
    func claim(_ place: ThroughPlace, for command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        guard case .write(let offset, _, let bytes)? = command.operation else { return }
        let count = UInt64(bytes.readableBytes)
        guard count > 0, offset % volume.blockBytes == 0, count % volume.blockBytes == 0 else { return }
        command.through = volume.direct.claim(place, count: count / volume.blockBytes, now: now)
    }

    /// The first version of a write's slots, which its items are to have; nil where those get versions of their own: it is in no object, or
    /// something newer was committed since the object was handed out.
    func throughVersion(of command: Command, _ blocks: BlockRange, in volume: VolumeOwner) -> Version? {
        guard let slots = command.through else { return nil }
        guard volume.direct.remembers(slots.grant), !volume.direct.isOvertaken(slots.grant, blocks) else {
            command.through = nil
            return nil
        }
        return slots.firstVersion
    }

    /// Keeps agents from items whose object is on its way, for a while.
    func noteThrough(_ command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        guard let slots = command.through, volume.direct.remembers(slots.grant) else { return }
        let until = now.advanced(byNanoseconds: OwnerLimits.throughMapWait)
        for write in command.writes where volume.moving.count < OwnerLimits.throughItemsMaximum {
            volume.moving[write.block] = (write.version, until)
        }
    }

    /// Maps an object of writes through, in slot order. Each write is answered when it is durable, by whichever way; with `stale` where the
    /// object does nothing for it, which says nothing of the write itself.
    public mutating func mapThrough(
        volume id: VolumeID,
        object: ObjectID,
        server: ObjectServerID,
        sizeBytes: UInt64,
        writes: [DirectWrite],
        deadline: MonotonicTime,
        now: MonotonicTime
    ) {
        guard let volume = owned(id) else {
            for write in writes { refuse(write.ticket, .notOwner(nil)) }
            return
        }
        let grant = volume.direct.take(object, now: now)
        guard let grant, isFitting(writes, in: grant, of: volume) else {
            if let grant { volume.direct.decided(grant) }
            for write in writes { refuse(write.ticket, .stale, stamp(volume, now)) }
            return
        }
        let group = DirectGroup(grant, server: server, sizeBytes: sizeBytes)
        var found = FoundWrites()
        for write in writes {
            guard let slot = group.place(write.blocks) else { preconditionFailure("writes that fit share no block") }
            find(write, slot, group, volume, &found, deadline: deadline, now: now)
        }
        if found.isInCache {
            // The others are left to the cache: of those that are on their way there some are found as items by then.
            leaveToCache(found.unknown, of: volume, now: now)
            move(group, of: volume, now: now)
        } else if !found.ready.isEmpty {
            leaveToCache(found.unknown, of: volume, now: now)
            mapInPlaceOfItems(found.ready, group, of: volume)
        } else {
            mapAsDirect(found, group, of: volume, now: now)
        }
    }

    /// A write of an object that is to be mapped, and its command.
    private struct FoundWrite {
        let command: Command
        let blocks: BlockRange
        let slot: UInt32
        /// It came before, and was refused as unproved: it may come again.
        var wasUnproved = false
    }

    /// Where the writes of an object are.
    private struct FoundWrites {
        /// Those of which the owner has not heard.
        var unknown: [FoundWrite] = []
        /// Those that are slowed down, and have no place in the order.
        var slowed: [FoundWrite] = []
        /// Those that wait for a commit.
        var ready: [FoundWrite] = []
        /// Whether one is done, in a commit, or on its way to one.
        var isInCache = false
    }

    /// Writes of which the owner has not heard are not done by their object; those that were refused as unproved may still come again, and are
    /// aborted with the others until then (R9).
    private mutating func leaveToCache(_ writes: [FoundWrite], of volume: VolumeOwner, now: MonotonicTime) {
        for write in writes {
            cancel(write.command, of: volume, refusal: .stale, now: now)
            guard write.wasUnproved, let context = write.command.context else { continue }
            volume.nexuses[context.nexus]?.noteUnproved(context.command)
        }
    }

    private func isFitting(_ writes: [DirectWrite], in grant: DirectGrant, of volume: VolumeOwner) -> Bool {
        var slots: UInt64 = 0
        for (index, write) in writes.enumerated() {
            guard !write.blocks.isEmpty, write.context.volume == volume.id, write.blocks.count <= UInt64(grant.slots),
                write.blocks.end.rawValue <= volume.geometry.blockCount,
                !writes[..<index].contains(where: { $0.blocks.overlaps(write.blocks) })
            else { return false }
            slots += write.blocks.count
        }
        return slots > 0 && slots <= UInt64(grant.slots)
    }

    private mutating func find(
        _ write: DirectWrite,
        _ slot: UInt32,
        _ group: DirectGroup,
        _ volume: VolumeOwner,
        _ found: inout FoundWrites,
        deadline: MonotonicTime,
        now: MonotonicTime
    ) {
        let context = write.context
        let known = volume.nexuses[context.nexus]?.inFlight[context.command]
        let wasUnproved = volume.nexuses[context.nexus]?.isUnproved(context.command) ?? false
        let accepted = accept(
            write.ticket,
            context: context,
            operation: .direct(write.blocks),
            deadline: deadline,
            now: now
        )
        if let command = accepted?.command {
            found.unknown.append(
                FoundWrite(command: command, blocks: write.blocks, slot: slot, wasUnproved: wasUnproved)
            )
            return
        }
        guard let known, known.phase != .finished else {
            guard let nexus = volume.nexuses[context.nexus] else { return }
            if context.command < nexus.lowWater || nexus.done.contains(context.command) { found.isInCache = true }
            return
        }
        guard let slots = known.through, slots.grant == group.grant, slots.firstSlot == slot else { return }
        let entry = FoundWrite(command: known, blocks: write.blocks, slot: slot)
        if known.phase == .ready {
            found.ready.append(entry)
        } else if known.phase == .waiting, isSlowed(known) {
            found.slowed.append(entry)
        } else {
            found.isInCache = true
        }
    }

    private func isSlowed(_ command: Command) -> Bool {
        retries.contains { if case .release(_, let other) = $0.what { other === command } else { false } }
    }

    /// M1: maps the object where items have the versions in it. It has its place behind the writes that are on their way, so that it finds
    /// their items. Nobody waits for it, but reads of these blocks do: where it cannot be committed it is given up when agents are to have the
    /// items again.
    private mutating func move(_ group: DirectGroup, of volume: VolumeOwner, now: MonotonicTime) {
        let slots = group.slots.enumerated().map { index, block in
            ObjectMap.Slot(
                block: block,
                version: group.grant.version(of: UInt32(index)),
                condition: .itemHasVersion
            )
        }
        let map = ObjectMap(
            object: group.grant.object,
            server: group.server,
            sizeBytes: group.sizeBytes,
            slots: slots
        )
        let command = Command(
            kind: .map(map),
            ticket: nil,
            ranges: Self.normalized(group.slots.map { BlockRange(first: $0, count: 1) }),
            isExclusive: true,
            deadline: now.advanced(byNanoseconds: OwnerLimits.throughMapWait)
        )
        command.through = ThroughSlots(group.grant, firstSlot: 0)
        enter(command, of: volume, now: now)
    }

    /// M4: writes that wait for a commit are done by their object; their items are dropped. They have their places in the order, so that
    /// nothing overtakes them, and none waits for another.
    private mutating func mapInPlaceOfItems(_ writes: [FoundWrite], _ group: DirectGroup, of volume: VolumeOwner) {
        let commands = Set(writes.map { ObjectIdentifier($0.command) })
        ready.removeAll { commands.contains(ObjectIdentifier($0.command)) }
        for write in writes {
            write.command.writes = []
            write.command.group = group
            group.add(write.command, write.blocks, firstSlot: write.slot)
        }
        group.isComplete = true
        decide(group, of: volume)
    }

    /// M4: none of the writes has a place in the order, and all get theirs now, as direct writes do.
    private mutating func mapAsDirect(
        _ found: FoundWrites,
        _ group: DirectGroup,
        of volume: VolumeOwner,
        now: MonotonicTime
    ) {
        let slowed = Set(found.slowed.map { ObjectIdentifier($0.command) })
        if !slowed.isEmpty {
            retries.removeAll {
                if case .release(_, let command) = $0.what { slowed.contains(ObjectIdentifier(command)) } else { false }
            }
        }
        for write in found.slowed + found.unknown {
            write.command.group = group
            group.add(write.command, write.blocks, firstSlot: write.slot)
        }
        for write in found.slowed { release(write.command, of: volume, now: now) }
        for write in found.unknown { admit(write.command, of: volume, now: now) }
        group.isComplete = true
        decide(group, of: volume)
    }
}
