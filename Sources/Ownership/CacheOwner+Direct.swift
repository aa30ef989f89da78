public import AshlarCore
import DequeModule

/// An object that a target may fill with direct writes: its intent is committed (I6), and its versions are handed out (M2, M4).
public struct DirectGrant: Sendable, Hashable {
    /// The object.
    public var object: ObjectID
    /// The version of slot 0; each further slot has the next one.
    public var firstVersion: Version
    /// Slots that the object may have.
    public var slots: UInt32

    /// A grant with each part named.
    public init(object: ObjectID, firstVersion: Version, slots: UInt32) {
        self.object = object
        self.firstVersion = firstVersion
        self.slots = slots
    }

    /// The version of a slot.
    public func version(of slot: UInt32) -> Version { Version(firstVersion.rawValue + UInt64(slot)) }
}

/// A write command whose bytes lie in an object that is to be mapped.
public struct DirectWrite: Sendable {
    /// Where its answer goes.
    public var ticket: Ticket
    /// What every command carries.
    public var context: CommandContext
    /// The data blocks, which lie in the slots behind those of the write before it.
    public var blocks: BlockRange

    /// A write with each part named.
    public init(ticket: Ticket, context: CommandContext, blocks: BlockRange) {
        self.ticket = ticket
        self.context = context
        self.blocks = blocks
    }
}

/// The commands whose bytes lie in one object. Each is judged by itself; those that are let through are committed together, since
/// an object is mapped once (M9).
///
/// All of them enter the owner's order in one event, and none waits outside of it: so each waits only for commands that came
/// before all of them, and they may wait for one another.
final class DirectGroup {
    struct Member {
        let command: Command
        let blocks: BlockRange
        let firstSlot: UInt32
    }

    let grant: DirectGrant
    let server: ObjectServerID
    let sizeBytes: UInt64
    /// The block in each slot, also where its command is refused.
    private(set) var slots: [BlockID] = []
    private(set) var members: [Member] = []
    /// Whether all commands have been submitted.
    var isComplete = false
    /// Whether it is known of each command if it is let through.
    var isDecided = false

    init(_ grant: DirectGrant, server: ObjectServerID, sizeBytes: UInt64) {
        self.grant = grant
        self.server = server
        self.sizeBytes = sizeBytes
    }

    /// Takes the slots of the next command; `nil` where it shares a block with an earlier one, which it would wait for in vain.
    func place(_ blocks: BlockRange) -> UInt32? {
        let first = UInt32(slots.count)
        slots.append(contentsOf: (0..<blocks.count).map { blocks.first + $0 })
        return members.contains { $0.blocks.overlaps(blocks) } ? nil : first
    }

    func add(_ command: Command, _ blocks: BlockRange, firstSlot: UInt32) {
        members.append(Member(command: command, blocks: blocks, firstSlot: firstSlot))
    }

    /// Those that are let through and not in a commit.
    var ready: [Member] { members.filter { $0.command.phase == .ready } }

    /// Those that are in a commit.
    var committing: [Member] { members.filter { $0.command.phase == .committing } }

    /// What the commit of those that are in it does.
    var map: ObjectMap {
        var list = slots.enumerated().map { index, block in
            ObjectMap.Slot(block: block, version: grant.version(of: UInt32(index)), condition: .never)
        }
        for member in committing {
            let first = Int(member.firstSlot)
            for slot in first..<first + Int(member.blocks.count) { list[slot].condition = .always }
        }
        return ObjectMap(object: grant.object, server: server, sizeBytes: sizeBytes, slots: list, isRequired: true)
    }
}

/// What an owner remembers of the objects that it has handed out for direct writes, and of what was changed since (M4).
package struct DirectWrites {
    private var handed: [ObjectID: (grant: DirectGrant, until: MonotonicTime, slotsUsed: UInt32)] = [:]
    /// The first versions of objects that are to be mapped, and whose commands have not all been judged.
    private var undecided: [Version] = []
    /// What was changed since the oldest of them was handed out, with the highest version of the change.
    private var changes: Deque<(blocks: BlockRange, version: Version)> = []
    /// There may have been changes anywhere with versions up to this one.
    private var forgotten = Version(0)
    /// Whether the next commit is to make more versions durable, so that there are some to hand out.
    var wantsVersions = false

    /// Objects handed out and not come back.
    var count: Int { handed.count }

    /// Changes that are remembered.
    var changesKnown: Int { changes.count }

    /// Whether changes have to be noted.
    var isWatching: Bool { !undecided.isEmpty || !handed.isEmpty }

    mutating func hand(_ grant: DirectGrant, until: MonotonicTime) {
        handed[grant.object] = (grant, until, slotsUsed: 0)
    }

    /// Gives a write through its slots in an object that is handed out; nil where it may not have them. Each slot goes to one write, and its
    /// version to one item (M2): so they are given in their order.
    mutating func claim(_ place: ThroughPlace, count: UInt64, now: MonotonicTime) -> ThroughSlots? {
        guard let entry = handed[place.object], now < entry.until, place.firstSlot >= entry.slotsUsed,
            count <= UInt64(entry.grant.slots), UInt64(place.firstSlot) + count <= UInt64(entry.grant.slots)
        else { return nil }
        handed[place.object]?.slotsUsed = place.firstSlot + UInt32(count)
        return ThroughSlots(entry.grant, firstSlot: place.firstSlot)
    }

    /// Whether changes since an object was handed out are still remembered.
    func remembers(_ grant: DirectGrant) -> Bool {
        handed[grant.object] != nil || undecided.contains(grant.firstVersion)
    }

    /// Takes an object back that is to be mapped; nil where it is not known, or not any more. Once: an object is mapped once.
    mutating func take(_ object: ObjectID, now: MonotonicTime) -> DirectGrant? {
        guard let entry = handed.removeValue(forKey: object), now < entry.until else {
            tidy()
            return nil
        }
        undecided.append(entry.grant.firstVersion)
        return entry.grant
    }

    /// All commands of an object that was taken back have been judged.
    mutating func decided(_ grant: DirectGrant) {
        if let index = undecided.firstIndex(of: grant.firstVersion) { undecided.remove(at: index) }
        tidy()
    }

    /// Forgets objects that were handed out long ago.
    mutating func expire(now: MonotonicTime) {
        guard handed.values.contains(where: { $0.until <= now }) else { return }
        handed = handed.filter { now < $0.value.until }
        tidy()
    }

    /// Notes that blocks were changed, by versions up to this one.
    mutating func note(_ blocks: BlockRange, _ version: Version) {
        changes.append((blocks, version))
        if changes.count > OwnerLimits.directChangesMaximum, let first = changes.popFirst() {
            forgotten = max(forgotten, first.version)
        }
    }

    /// Forgets what was changed: a defect, for simulations.
    package mutating func forgetChanges() { changes = [] }

    /// Whether something with a higher version than the first of the grant was committed to one of the blocks.
    func isOvertaken(_ grant: DirectGrant, _ blocks: BlockRange) -> Bool {
        forgotten > grant.firstVersion
            || changes.contains { $0.version > grant.firstVersion && $0.blocks.overlaps(blocks) }
    }

    /// Forgets changes that are older than every object that is still handed out.
    private mutating func tidy() {
        guard isWatching else { return changes = [] }
        let oldest = handed.values.reduce(Version(.max)) { min($0, $1.grant.firstVersion) }
        let bound = undecided.reduce(oldest) { min($0, $1) }
        while let first = changes.first, first.version <= bound { changes.removeFirst() }
    }
}

// Direct writes: large ones whose bytes a target has put into an object itself (M4).
extension CacheOwner {
    /// Hands out objects and versions for direct writes; answered with `grants`, of which there may be none now: then the target
    /// writes as usual.
    public mutating func beginDirect(
        _ ticket: Ticket,
        volume id: VolumeID,
        epoch: Epoch,
        count: Int,
        now: MonotonicTime
    ) {
        guard let volume = owned(id) else { return refuse(ticket, .notOwner(nil)) }
        guard epoch == volume.epoch else { return refuse(ticket, .wrongEpoch, stamp(volume, now)) }
        if let handOver = volume.handOver, handOver.isRefusing {
            return refuse(ticket, .notOwner(handOver.endpoint))
        }
        volume.direct.expire(now: now)
        let slots = UInt64(Limits.objectTargetBytes) / volume.blockBytes
        let perObject = min(slots, UInt64(Limits.objectSlotsMaximum))
        var grants: [DirectGrant] = []
        while grants.count < min(count, OwnerLimits.directGrantsAtOnce),
            volume.direct.count < OwnerLimits.directGrantsMaximum
        {
            // M2: what is put into an object may outlive this epoch, so its versions have to be durable as handed out.
            let end = volume.nextVersion.rawValue + perObject
            guard end <= volume.durableCeiling.rawValue, let object = volume.takeObject(now: now) else { break }
            let grant = DirectGrant(object: object, firstVersion: volume.nextVersion, slots: UInt32(perObject))
            volume.nextVersion = Version(end)
            volume.direct.hand(grant, until: now.advanced(byNanoseconds: OwnerLimits.directGrantLife))
            grants.append(grant)
        }
        let left = volume.durableCeiling.rawValue - min(volume.durableCeiling.rawValue, volume.nextVersion.rawValue)
        if left < OwnerLimits.versionsAhead / 2 { volume.direct.wantsVersions = true }
        if volume.objectPool.count < OwnerLimits.objectsReservedAtOnce / 4 { reserveObjects(for: volume) }
        actions.append(.answer(ticket, .grants(stamp(volume, now), grants)))
    }

    /// Maps an object that was filled with direct writes, in slot order. Each write is answered as any command is; with `stale`
    /// where it has to be written as usual: the object is not known here, or something was committed to its blocks since the
    /// object was handed out.
    public mutating func mapDirect(
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
        let slots = writes.reduce(UInt64(0)) { $0 + min($1.blocks.count, UInt64(UInt32.max)) }
        let group = grant.map { DirectGroup($0, server: server, sizeBytes: sizeBytes) }
        let isFitting = slots <= UInt64(grant?.slots ?? 0)
        for write in writes {
            let accepted = accept(
                write.ticket,
                context: write.context,
                operation: .direct(write.blocks),
                deadline: deadline,
                now: now
            )
            let slot = isFitting ? group?.place(write.blocks) : nil
            guard let command = accepted?.command else { continue }
            guard let group, let slot, !write.blocks.isEmpty, write.context.volume == id else {
                cancel(command, of: volume, refusal: .stale, now: now)
                continue
            }
            command.group = group
            group.add(command, write.blocks, firstSlot: slot)
            admit(command, of: volume, now: now)
        }
        guard let group else { return }
        group.isComplete = true
        decide(group, of: volume)
    }

    /// A direct write's turn has come: it is let through unless something overtook it.
    mutating func prepareDirect(
        _ command: Command,
        _ blocks: BlockRange,
        of volume: VolumeOwner,
        now: MonotonicTime
    ) {
        guard let group = command.group, !volume.direct.isOvertaken(group.grant, blocks) else {
            return cancel(command, of: volume, refusal: .stale, now: now)
        }
        // One that came as a write as well was counted as such.
        if case .direct? = command.operation {
            volume.counters.writes += 1
            volume.counters.bytesWritten += blocks.count * volume.blockBytes
        }
        command.phase = .ready
        decide(group, of: volume)
    }

    /// Has an object mapped once all of its commands have been judged.
    mutating func decide(_ group: DirectGroup, of volume: VolumeOwner) {
        guard group.isComplete, !group.isDecided, !volume.isLost else { return }
        guard group.members.allSatisfy({ $0.command.phase == .ready || $0.command.phase == .finished }) else { return }
        group.isDecided = true
        volume.direct.decided(group.grant)
        guard !group.ready.isEmpty else { return }
        let map = Command(
            kind: .direct(group),
            ticket: nil,
            ranges: [],
            isExclusive: true,
            deadline: MonotonicTime(.max)
        )
        map.phase = .ready
        ready.append((volume, map))
    }

    /// The commands of an object that may still be committed; those whose nexus has been closed are not.
    mutating func committable(_ group: DirectGroup, of volume: VolumeOwner, now: MonotonicTime) -> [Command] {
        group.ready.compactMap { member in
            guard let context = member.command.context, volume.nexuses[context.nexus]?.state == .open else {
                cancel(member.command, of: volume, refusal: .nexusClosed, now: now)
                return nil
            }
            return member.command
        }
    }

    /// Enters the extents of direct writes that have become durable.
    ///
    /// - Returns: `false` where the store has not mapped all of them: then its word is not what was asked for.
    mutating func applyDirect(_ group: DirectGroup, _ mapped: [Bool]?, to volume: VolumeOwner) -> Bool {
        for member in group.committing {
            let slots = Int(member.firstSlot)..<Int(member.firstSlot) + Int(member.blocks.count)
            guard let mapped, mapped.count == group.slots.count, mapped[slots].allSatisfy({ $0 }) else { return false }
            applyZero(member.blocks, to: volume)
            let extent = Extent(
                blocks: member.blocks,
                object: group.grant.object,
                server: group.server,
                firstSlot: SlotIndex(member.firstSlot)
            )
            insert(extent, to: volume)
            committedBlocks += member.blocks.count
        }
        return true
    }

    /// Notes what a command that has become durable changed, for direct writes that are on their way.
    func noteChange(_ command: Command, of volume: VolumeOwner) {
        guard volume.direct.isWatching else { return }
        // What has no version of its own counts as newer than all that were handed out.
        let newest = volume.nextVersion
        switch command.kind {
        case .client, .erase, .manage:
            guard !command.writes.isEmpty || !command.zeros.isEmpty || !command.references.isEmpty else { return }
            let isWrite = command.zeros.isEmpty && command.references.isEmpty
            let version = isWrite ? command.writes.reduce(Version(0)) { max($0, $1.version) } : newest
            for range in command.ranges { volume.direct.note(range, version) }
        case .direct(let group):
            for member in group.committing {
                let last = member.firstSlot + UInt32(member.blocks.count) - 1
                volume.direct.note(member.blocks, group.grant.version(of: last))
            }
        case .fill(_, let writes):
            for write in writes { volume.direct.note(BlockRange(first: write.block, count: 1), write.version) }
        case .forget(let blocks, _): volume.direct.note(blocks, newest)
        // The same bytes in another place.
        case .map, .evict: break
        }
    }
}
