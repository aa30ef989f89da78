public import AshlarCore
public import NIOCore

/// Names a request to the shell that has to answer it.
public struct Ticket: Identifier {
    /// The number.
    public let rawValue: UInt64
    /// Wraps a number.
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// Names something that the core has asked its shell to do and that is not finished.
public struct OperationID: Identifier {
    /// The number.
    public let rawValue: UInt64
    /// Wraps a number.
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// What each command of an initiator carries beside what it does (R1, R4, R5).
public struct CommandContext: Sendable, Hashable {
    /// The volume.
    public var volume: VolumeID
    /// The nexus it came through.
    public var nexus: NexusNumber
    /// Its number in the nexus.
    public var command: CommandID
    /// Every command of the nexus below this one is answered or given up.
    public var lowWater: CommandID
    /// The newest stamp that the initiator has proved; its epoch is the one the command was made for.
    public var proved: Stamp

    /// The context of a command.
    public init(volume: VolumeID, nexus: NexusNumber, command: CommandID, lowWater: CommandID, proved: Stamp) {
        self.volume = volume
        self.nexus = nexus
        self.command = command
        self.lowWater = lowWater
        self.proved = proved
    }
}

/// What an initiator's command does.
public enum CommandOperation: Sendable {
    /// Reads bytes.
    case read(ByteRange)
    /// Writes bytes; a checksum for each piece between the borders of data blocks (I11).
    case write(offset: UInt64, checksums: [Checksum], bytes: ByteBuffer)
    /// Writes whole data blocks that lie in an object which is to be mapped (M4).
    case direct(BlockRange)
    /// Makes bytes zeros.
    case zero([ByteRange])
    /// Compares the first half of `bytes` with the volume, and writes the second half where they agree.
    case compareAndWrite(offset: UInt64, checksum: Checksum, bytes: ByteBuffer)
    /// ORs bytes into the volume; a checksum for each piece between the borders of data blocks (I11).
    case orWrite(offset: UInt64, checksums: [Checksum], bytes: ByteBuffer)
    /// Copies bytes inside the volume; offsets and count are multiples of the data block, and the two ends do not overlap.
    case copy(source: UInt64, destination: UInt64, count: UInt64)
    /// Tells which blocks are mapped, in at most so many runs.
    case mapStatus(ByteRange, runsMaximum: Int)
    /// Asks whether a command that needs nothing but the unit's state may be done; `reservations`: tells them, too.
    case check(CommandRules, reservations: Bool)
    /// Changes the unit's state.
    indirect case unit(UnitAction)
}

extension CommandOperation {
    /// What reservations, erasures and unit attention conditions do to it.
    var rules: CommandRules {
        switch self {
        case .read, .mapStatus: CommandRules(access: .read)
        case .write, .direct, .zero, .compareAndWrite, .orWrite, .copy: CommandRules(access: .write)
        case .check(let rules, _): rules
        case .unit(.reservation): CommandRules(access: .any)
        case .unit(.reserve), .unit(.release): CommandRules(access: .any, isAllowedUnderReserve: true)
        case .unit: CommandRules(access: .write)
        }
    }

    /// Whether it reads or changes blocks.
    var touchesBlocks: Bool {
        switch self {
        case .read, .mapStatus, .write, .direct, .zero, .compareAndWrite, .orWrite, .copy: true
        case .check, .unit: false
        }
    }

    /// Whether it changes blocks or the unit's state, so that what became of it has to be known (R4).
    var isChange: Bool {
        switch self {
        case .read, .mapStatus, .check: false
        case .write, .direct, .zero, .compareAndWrite, .orWrite, .copy, .unit: true
        }
    }
}

/// A run of whole data blocks in the answer to a read.
public enum ReadRun: Sendable, Hashable {
    /// Their bytes are next in the payload, a checksum a block.
    case bytes([Checksum])
    /// They lie in an object, in slots that were written as the blocks from `origin` on; nil: as the blocks that they are.
    case object(ObjectID, server: ObjectServerID, firstSlot: SlotIndex, origin: BlockID?, count: UInt32)
    /// They were never written, or unmapped.
    case zeros(UInt32)
}

/// Why the owner did not do what it was asked.
public enum Refusal: Sendable, Hashable {
    /// The proof of the initiator's life is too old (R1): nothing was done; prove, and send again under the same id.
    case unproved
    /// The request was made for another epoch (R5).
    case wrongEpoch
    /// This server does not own the volume; the endpoint of who does, where it is known.
    case notOwner(String?)
    /// The nexus is closed, was never opened, or has to be resumed first.
    case nexusClosed
    /// The command was answered, or given up, before (R4).
    case belowLowWater
    /// Task management took the command back before it began.
    case aborted
    /// The command was sent again under the same id: the answer goes there.
    case superseded
    /// Beyond the end of the volume.
    case outOfRange
    /// The volume is read-only.
    case readOnly
    /// A block's bytes do not agree with its checksum, or cannot be had; the byte offset of the block.
    case mediumError(UInt64)
    /// The command waited as long as it may; nothing was done.
    case deadline
    /// No room to take the request; nothing was done.
    case busy(String)
    /// A direct write cannot be done as such: nothing was done, it is to be sent as a write under the same id (M4).
    case stale
    /// There is no such volume.
    case noSuchVolume
    /// The request breaks the protocol.
    case invalid(String)
    /// A unit attention condition is reported instead.
    case attention(UnitAttention)
    /// A reservation of another nexus is in the way.
    case reservationConflict
    /// The unit is being erased; 65,536ths done.
    case erasing(Erasure.Kind, progress: UInt16)
    /// Task management of another nexus, or PREEMPT AND ABORT, ended the command.
    case taskAborted
    /// SWP of the control mode page is set.
    case softwareWriteProtected
    /// RELEASE with another type than the reservation has.
    case invalidRelease
    /// No room for another registration.
    case noRegistrationRoom
    /// A field of the parameter list that only the owner can judge, by its offset.
    case invalidParameter(UInt16)
}

/// A piece of moving work.
public struct MoveAssignment: Sendable {
    /// The volume.
    public var volume: VolumeDescription
    /// The object to fill.
    public var object: ObjectID
    /// The blocks, ascending, with their bytes.
    public var blocks: [ItemBytes]
}

/// A piece of compaction work.
public struct CompactionAssignment: Sendable {
    /// The volume.
    public var volume: VolumeDescription
    /// The object to fill.
    public var object: ObjectID
    /// What to copy, ascending by block.
    public var extents: [Extent]
}

/// What the owner answers.
///
/// What is large and rare is kept indirectly, so that the answers to reads and writes stay small.
public enum OwnerAnswer: Sendable {
    /// A command that returns nothing is done and durable.
    case done(Stamp)
    /// The blocks that a read touches; the buffers of the payload are parts of its bytes, of whatever length.
    case read(Stamp, [ReadRun], payload: [ByteBuffer])
    /// COMPARE AND WRITE found a difference at this offset of its data.
    case miscompare(Stamp, offset: UInt64)
    /// A nexus was opened.
    case nexusOpened(NexusNumber, Stamp)
    /// A nexus was resumed: these of its commands are durable, no other that was sent in an earlier epoch; and another nexus aborted
    /// all that had come with this proof or an older one (R9).
    indirect case nexusResumed([CommandID], aborted: Stamp?, Stamp)
    /// The volume is owned here; its description and the owner's time.
    indirect case volume(VolumeDescription, Stamp)
    /// Work for an agent; nil: none now.
    indirect case moveWork(MoveAssignment?)
    /// Work for an agent; nil: none now.
    indirect case compactionWork(CompactionAssignment?)
    /// What was asked of the unit's state.
    indirect case checked(Stamp, UnitReport)
    /// Objects that may be filled with direct writes.
    case grants(Stamp, [DirectGrant])
    /// Which blocks are mapped, in order.
    case mapped(Stamp, [MappedRun])
    /// So many were done, so many are left.
    case count(UInt64, left: UInt64)
    /// Nothing was done, and why.
    case refused(Refusal, Stamp?)
}

/// One command or internal change in the owner's order, with what it holds and waits for.
///
/// Life: (held while the unit's state changes) → entered → (waiting in ``RangeOrder``) → begun → loading what it needs → ready
/// with its effects → in a commit → finished. A read ends without a commit.
final class Command {
    enum Kind {
        case client(CommandOperation, CommandContext)
        /// The next step of an erasure.
        case erase(CommandOperation)
        /// Task management of all nexuses, as far as it is durable.
        case manage(UnitManagement, CommandContext)
        case map(ObjectMap)
        /// Maps an object for the direct writes in it, which are commands of their own.
        case direct(DirectGroup)
        case evict([Eviction])
        /// Copies of a block that was read from an object, and the place that it was read from.
        case fill(Extent, [ItemWrite])
        /// Blocks behind the end of a volume that shrank become zeros; what is left of those.
        case forget(BlockRange, rest: BlockRange)
    }

    enum Phase {
        case waiting
        case loading
        case ready
        case committing
        /// Durable; its answer is due when an erasure has ended, or when what it aborted has.
        case lingering
        case finished
    }

    let kind: Kind
    /// Where the answer goes; a command that is sent again takes its new ticket here. Nil once it is answered.
    var ticket: Ticket?
    /// Where else the answer goes: requests under the same id that came before.
    var earlierTickets: [Ticket] = []
    /// Ascending, without overlap; empty until the command is admitted.
    private(set) var ranges: [BlockRange]
    private(set) var hull: BlockRange
    let isExclusive: Bool
    let deadline: MonotonicTime
    var phase = Phase.waiting
    /// Its place in the order of arrival.
    var arrival: UInt64 = 0
    /// Unfinished commands before this one in the order that conflict with it.
    var blockers = 0
    var pinned: [Region] = []
    /// Was in a batch that cannot be committed at all: it goes by itself from now on.
    var isAlone = false
    /// Loads and fetches that have been asked for and not answered.
    var outstanding = 0
    /// Bytes that were fetched for this command alone.
    var fetched: [BlockID: ByteBuffer] = [:]
    /// The map that the store found for it.
    var survey: MapSurvey?
    var writes: [ItemWrite] = []
    var zeros: [BlockRange] = []
    var references: [Reference] = []
    /// What it makes of the unit's state.
    var change: UnitChange?
    /// What waits for this command to finish.
    var fences: [Fence] = []
    /// How it ends if it is not committed after all: it was to be taken back while it was being committed.
    var takenBack: Refusal?
    /// What its own answer waits for, beside its commit.
    var awaited: Fence?
    /// Whether it waits for the lease.
    var isParked = false
    /// What a direct write is committed with.
    var group: DirectGroup?
    /// Where the bytes of a write lie in an object that is put at the same time, as long as its items have, or will have, those versions. Of
    /// a map: the object of such writes; changes since it was handed out are remembered until the map has ended.
    var through: ThroughSlots?

    init(
        kind: Kind,
        ticket: Ticket?,
        ranges: [BlockRange],
        isExclusive: Bool,
        deadline: MonotonicTime
    ) {
        self.kind = kind
        self.ticket = ticket
        self.ranges = ranges
        self.isExclusive = isExclusive
        self.deadline = deadline
        hull = Self.hull(of: ranges)
    }

    private static func hull(of ranges: [BlockRange]) -> BlockRange {
        ranges.isEmpty
            ? BlockRange(first: BlockID(0), count: 0)
            : BlockRange(from: ranges[0].first, to: ranges[ranges.count - 1].end)
    }

    /// Gives a command that has been checked the blocks that it touches.
    func place(_ ranges: [BlockRange]) {
        self.ranges = ranges
        hull = Self.hull(of: ranges)
    }

    /// What is done to blocks, for an initiator or in the background.
    var operation: CommandOperation? {
        switch kind {
        case .client(let operation, _), .erase(let operation): operation
        case .manage, .map, .direct, .evict, .fill, .forget: nil
        }
    }

    /// Whether it is done only when an erasure has ended, however often that is interrupted.
    var isWholeErasure: Bool {
        if case .client(.unit(.erase(_, isImmediate: false)), _) = kind { true } else { false }
    }

    /// Whether its effect is durable or may become so: it is waited for, not taken back. Who waits for the end of an erasure waits
    /// for what goes on by itself.
    var isPastRecall: Bool { phase == .committing || phase == .lingering && !isWholeErasure }

    /// Whether it ends an erasure.
    var isLastStep: Bool {
        if case .erase = kind { change?.state.erasure == nil } else { false }
    }

    var context: CommandContext? {
        switch kind {
        case .client(_, let context), .manage(_, let context): context
        case .erase, .map, .direct, .evict, .fill, .forget: nil
        }
    }

    /// Whether it is task management, which no other task management takes back.
    var isManagement: Bool {
        if case .manage = kind { true } else { false }
    }

    /// Whether the command is an initiator's and changes something, so that its answer has to be kept (R4).
    var isClientChange: Bool {
        switch kind {
        case .client(let operation, _): operation.isChange
        case .manage: true
        case .erase, .map, .direct, .evict, .fill, .forget: false
        }
    }

    /// Rows that a commit of the command may touch: what a batch is measured by.
    var weight: Int {
        switch kind {
        case .client, .erase, .manage: writes.count + zeros.count + references.count + (change == nil ? 0 : 1)
        case .map(let map): map.slots.count
        case .direct(let group): group.slots.count
        case .evict(let list): list.count
        case .fill(_, let list): list.count
        case .forget: Int(OwnerLimits.remainsStepBlocksMaximum)
        }
    }

    /// Whether it maps an object of writes through as a move.
    var isThroughMap: Bool { if case .map = kind { through != nil } else { false } }

    /// Whether the command is the owner's own, which nobody waits for and which may be dropped and made again.
    var isInternal: Bool {
        switch kind {
        case .evict, .fill, .forget: true
        case .client, .erase, .manage, .map, .direct: false
        }
    }

    /// Whether the command changes blocks without knowing what they held: it needs no region loaded, but no region may be
    /// loaded while it is under way.
    var isBulk: Bool {
        switch kind {
        case .client(.zero, _), .erase(.zero), .map, .evict, .fill: true
        case .client, .erase, .manage, .direct, .forget: false
        }
    }
}

/// What a command makes of the unit's state, once it is durable.
struct UnitChange {
    var state: LogicalUnitState
    /// What each of these nexuses is told.
    var attentions: [NexusNumber: UnitAttention] = [:]
    /// The nexuses whose commands are aborted.
    var aborted: Set<NexusNumber> = []
}

/// What waits for commands to finish: a task management request, or a command that aborted them.
final class Fence {
    enum Waiter {
        case request(Ticket)
        case command(Command)
    }

    let waiter: Waiter
    var remaining: Int

    init(_ waiter: Waiter, remaining: Int) {
        self.waiter = waiter
        self.remaining = remaining
    }
}

/// One nexus as the owner knows it.
package final class Nexus {
    enum State {
        case open
        /// Handed out, and not yet durable: a command cannot come before the login's answer.
        case opening
        /// Known from the store after a takeover; nothing is executed before it is resumed (R2).
        case unresumed
        case closed
    }

    /// The answer to a change that did nothing, or what a command took along.
    enum Kept {
        case done
        case refused(Refusal)
        case miscompare(offset: UInt64)
        /// A unit attention condition; the command is done again, with it.
        case delivered(UnitAttention)

        /// What a copy of the command is answered at once; nil where it is done again.
        func answer(_ stamp: Stamp) -> OwnerAnswer? {
            switch self {
            case .done: .done(stamp)
            case .refused(let refusal): .refused(refusal, stamp)
            case .miscompare(let offset): .miscompare(stamp, offset: offset)
            case .delivered: nil
            }
        }
    }

    let number: NexusNumber
    let ports: InitiatorTargetNexus
    let node: String
    var state: State
    var lowWater: CommandID
    /// Commands at or above the low-water mark whose effects are durable (R4).
    var done: Set<CommandID>
    /// Answers to changes at or above the low-water mark that did nothing, and unit attention conditions that were reported: a
    /// copy of such a command that arrives late must not be executed after its initiator was told (R4).
    var kept: [CommandID: Kept] = [:]
    var inFlight: [CommandID: Command] = [:]
    /// Unit attention conditions that wait to be reported, oldest first.
    var attentions: [UnitAttention]
    /// Conditions that were reported with commands of which it is not known whether their answers have arrived: the next owner reports
    /// them once more.
    private var reported: [(command: CommandID, attention: UnitAttention)] = []
    /// Commands that task management took back before they arrived: all below this one that are not known…
    var fencedBelow = CommandID(0)
    /// …and these.
    var fenced: Set<CommandID> = []
    /// When a target last knew of it.
    var lastSeen: MonotonicTime
    /// When another nexus last aborted this one's commands. Changes whose initiator has proved nothing since may have been on
    /// their way then, and are aborted as well.
    package var abortedAt: MonotonicTime?
    /// When one last did so in an earlier epoch.
    private let abortedBefore: Stamp?
    /// CLEAR TASK SET found nothing of it: it is told of it with the first command that turns out to have been on its way.
    var isOwedClearing = false
    /// Changes that were refused as unproved, and may come again with a younger proof: they are known, and aborted with the others.
    private var unproved: Set<CommandID> = []

    init(row: NexusRow, state: State, now: MonotonicTime) {
        lastSeen = now
        number = row.number
        ports = row.ports
        node = row.node
        lowWater = row.mark.lowWater
        done = Set(row.mark.done)
        attentions = row.attentions
        abortedBefore = row.aborted
        self.state = state
    }

    /// When another nexus last aborted this one's commands, in whatever epoch.
    func aborted(in epoch: Epoch) -> Stamp? { abortedAt.map { Stamp(epoch: epoch, time: $0) } ?? abortedBefore }

    /// Adds a unit attention condition, unless it waits already (SAM-6, 5.14.2).
    func add(_ attention: UnitAttention) {
        guard !attentions.contains(attention) else { return }
        if attentions.count >= Limits.attentionsPerNexusMaximum { attentions.removeFirst() }
        attentions.append(attention)
    }

    /// Takes the oldest condition out, to be reported with a command.
    func takeAttention(with command: CommandID) -> UnitAttention? {
        guard !attentions.isEmpty else { return nil }
        let attention = attentions.removeFirst()
        reported.removeAll { $0.attention == attention }
        reported.append((command, attention))
        return attention
    }

    /// What the next owner has to report.
    var lastingAttentions: [UnitAttention] {
        let unconfirmed = reported.map(\.attention).filter { !attentions.contains($0) }
        return (unconfirmed + attentions).suffix(Limits.attentionsPerNexusMaximum)
    }

    /// Whether it may have one more command under way, and one more answer kept.
    var hasRoom: Bool {
        inFlight.count < OwnerLimits.commandsPerNexusMaximum
            && done.count + kept.count < OwnerLimits.answersPerNexusMaximum
    }

    /// Forgets what is below; returns whether the answer to one that reported a condition has arrived.
    @discardableResult
    func raiseLowWater(to mark: CommandID) -> Bool {
        guard mark > lowWater else { return false }
        let old = lowWater
        lowWater = mark
        // Ids are dense, so that a step forward costs as much as it is long; a leap costs a look at everything.
        if mark.rawValue - old.rawValue <= OwnerLimits.lowWaterStep {
            for number in old.rawValue..<mark.rawValue {
                let id = CommandID(number)
                if !done.isEmpty { done.remove(id) }
                if !kept.isEmpty { kept[id] = nil }
                if !fenced.isEmpty { fenced.remove(id) }
                if !unproved.isEmpty { unproved.remove(id) }
            }
        } else {
            done = done.filter { $0 >= mark }
            kept = kept.filter { $0.key >= mark }
            fenced = fenced.filter { $0 >= mark }
            unproved = unproved.filter { $0 >= mark }
        }
        guard !reported.isEmpty else { return false }
        let count = reported.count
        reported.removeAll { $0.command < mark }
        return reported.count < count
    }

    /// Notes that another nexus aborts this one's commands, also those that are still on their way.
    func abort(now: MonotonicTime) {
        abortedAt = now
        for id in unproved.sorted() { keep(id, .refused(.taskAborted)) }
        unproved = []
    }

    /// Whether a command was refused as unproved, and has not come again.
    func isUnproved(_ id: CommandID) -> Bool { unproved.contains(id) }

    /// Whether changes may come again that were refused as unproved.
    var expectsUnproved: Bool { !unproved.isEmpty }

    /// Notes that a command was refused as unproved.
    func noteUnproved(_ id: CommandID) {
        if id >= lowWater, unproved.count < OwnerLimits.answersPerNexusMaximum { unproved.insert(id) }
    }

    /// Notes that a command came, again or not.
    func noteArrival(_ id: CommandID) { if !unproved.isEmpty { unproved.remove(id) } }

    /// Takes the nexus up again.
    func resume(now: MonotonicTime) {
        state = .open
        lastSeen = now
    }

    /// Whether a change may have been on its way when another nexus aborted this one's commands: its target sends it with what was
    /// proved when it came.
    func isAborted(_ operation: CommandOperation, proved: Stamp) -> Bool {
        guard let abortedAt, operation.isChange else { return false }
        return proved.time <= abortedAt
    }

    /// Notes that a command is durable.
    func markDone(_ id: CommandID) {
        if id >= lowWater { done.insert(id) }
    }

    /// Keeps the answer to a change that did nothing. Where there is no room, unknown commands up to it are refused from
    /// now on, which is as safe.
    func keep(_ id: CommandID, _ answer: Kept) {
        guard id >= lowWater else { return }
        if done.count + kept.count < OwnerLimits.answersPerNexusMaximum {
            kept[id] = answer
        } else {
            fencedBelow = max(fencedBelow, CommandID(id.rawValue + 1))
        }
    }
}
