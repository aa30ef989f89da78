public import AshlarCore
import DequeModule

/// Packs the direct writes of one volume at one target into objects (M4), as a value.
///
/// A write waits until a put may begin and there is an object for it; all that wait then go into that object together, in the order in
/// which they came: one put, one sync, one map. What cannot be put soon, or not at all, is given back, to be written through the cache.
///
/// Writes in one object share no block: their owner would have the second wait for the first.
///
/// Item: whatever the shell needs to go on with a write.
public struct DirectPacker<Item> {
    /// Writes that go into one object, in slot order.
    public struct Pack {
        /// Names it to the packer.
        public let number: UInt64
        /// The object.
        public let grant: DirectGrant
        /// The writes with their blocks.
        public fileprivate(set) var writes: [(item: Item, blocks: BlockRange)] = []
        /// Their slots together.
        public fileprivate(set) var slots: UInt64 = 0
    }

    /// What the shell is to do.
    public enum Action {
        /// Ask the owner for objects; answered by `granted` or `beginFailed` with the same number.
        case begin(number: UInt64, Epoch, count: Int)
        /// Put an object; answered by `putSucceeded`, after which it is to be mapped, or `putFailed`.
        case put(Pack)
        /// Write these through the cache.
        case giveBack([Item])
    }

    private struct Waiting {
        var item: Item
        var blocks: BlockRange
        var epoch: Epoch
        var since: MonotonicTime
    }

    private struct Stock {
        var grant: DirectGrant
        var epoch: Epoch
        var since: MonotonicTime
    }

    private let blockSizeBytes: UInt32
    private var waiting: Deque<Waiting> = []
    private var waitingBlocks: UInt64 = 0
    /// Objects that are not in use yet, in the order of their versions.
    private var stock: Deque<Stock> = []
    /// The question for more that is on its way.
    private var asked: (number: UInt64, epoch: Epoch, at: MonotonicTime)?
    private var puts: [UInt64: Pack] = [:]
    private var nextNumber: UInt64 = 1
    private var failures = 0
    private var pausedUntil = MonotonicTime(0)
    private var actions: Deque<Action> = []

    /// A packer for a volume with data blocks of this size.
    public init(blockSizeBytes: UInt32) { self.blockSizeBytes = blockSizeBytes }

    /// The next thing to do; nil when there is nothing until the next event.
    public mutating func nextAction() -> Action? { actions.popFirst() }

    /// Most blocks of one object.
    private var slotsMaximum: UInt64 {
        min(UInt64(Limits.objectTargetBytes) / UInt64(blockSizeBytes), UInt64(Limits.objectSlotsMaximum))
    }

    /// Writes that wait.
    public var waitingCount: Int { waiting.count }

    // MARK: Events

    /// Takes a write, made for an epoch of the owner, which goes on its way with the next `pack`.
    ///
    /// - Returns: `false` where it is to go through the cache.
    public mutating func add(_ item: Item, blocks: BlockRange, epoch: Epoch, now: MonotonicTime) -> Bool {
        guard now >= pausedUntil, !blocks.isEmpty, blocks.count <= slotsMaximum else { return false }
        let bytes = (waitingBlocks + blocks.count) * UInt64(blockSizeBytes)
        guard bytes <= DirectPackerLimits.waitingBytesMaximum else { return false }
        waiting.append(Waiting(item: item, blocks: blocks, epoch: epoch, since: now))
        waitingBlocks += blocks.count
        return true
    }

    /// Begins what may begin: at the end of a turn in which writes were added, so that these go together.
    public mutating func pack(now: MonotonicTime) {
        while mayPut, let first = waiting.first {
            guard let grant = takeGrant(for: first.epoch, now: now) else {
                ask(first.epoch, count: 1, now: now)
                return
            }
            var pack = Pack(number: takeNumber(), grant: grant)
            fill(&pack, epoch: first.epoch)
            puts[pack.number] = pack
            actions.append(.put(pack))
            // The next object is to be there when this one is.
            if stock.isEmpty { ask(first.epoch, count: DirectPackerLimits.grantsAtOnce, now: now) }
        }
    }

    /// An object costs about the same whatever is in it: so a second one is put beside the first only where much waits for it.
    private var mayPut: Bool {
        if puts.isEmpty { return true }
        return puts.count < DirectPackerLimits.putsMaximum
            && waitingBlocks * UInt64(blockSizeBytes) >= DirectPackerLimits.besideAnotherMinimumBytes
    }

    private mutating func fill(_ pack: inout Pack, epoch: Epoch) {
        let room = min(slotsMaximum, UInt64(pack.grant.slots))
        while let next = waiting.first, next.epoch == epoch, pack.slots + next.blocks.count <= room,
            pack.writes.count < Limits.directWritesPerObjectMaximum,
            !pack.writes.contains(where: { $0.blocks.overlaps(next.blocks) })
        {
            waiting.removeFirst()
            waitingBlocks -= next.blocks.count
            pack.writes.append((next.item, next.blocks))
            pack.slots += next.blocks.count
        }
    }

    /// An object of the epoch that was handed out lately: the longer ago, the likelier it was overtaken.
    private mutating func takeGrant(for epoch: Epoch, now: MonotonicTime) -> DirectGrant? {
        while let first = stock.popFirst() {
            let isFresh = now.nanoseconds(since: first.since) < DirectPackerLimits.grantLife
            if first.epoch == epoch, isFresh, UInt64(first.grant.slots) >= slotsMaximum { return first.grant }
        }
        return nil
    }

    private mutating func ask(_ epoch: Epoch, count: Int, now: MonotonicTime) {
        guard asked == nil else { return }
        let number = takeNumber()
        asked = (number, epoch, now)
        actions.append(.begin(number: number, epoch, count: count))
    }

    private mutating func takeNumber() -> UInt64 {
        defer { nextNumber += 1 }
        return nextNumber
    }

    /// The owner handed objects out, or has none now.
    public mutating func granted(_ number: UInt64, _ grants: [DirectGrant], now: MonotonicTime) {
        guard let asked, asked.number == number else { return }
        self.asked = nil
        guard !grants.isEmpty else { return pause(DirectPackerLimits.emptyPause, now: now) }
        stock.append(contentsOf: grants.map { Stock(grant: $0, epoch: asked.epoch, since: asked.at) })
        pack(now: now)
    }

    /// The owner did not answer, or does not know the question.
    public mutating func beginFailed(_ number: UInt64, now: MonotonicTime) {
        guard asked?.number == number else { return }
        asked = nil
        pause(DirectPackerLimits.beginPause, now: now)
    }

    /// An object is durable.
    ///
    /// - Returns: the pack, to be mapped; nil where it is not known.
    public mutating func putSucceeded(_ number: UInt64, now: MonotonicTime) -> Pack? {
        guard let pack = puts.removeValue(forKey: number) else { return nil }
        failures = 0
        self.pack(now: now)
        return pack
    }

    /// An object was not put, or not in time: its writes go through the cache, and after several failures all of them for a while.
    public mutating func putFailed(_ number: UInt64, now: MonotonicTime) {
        guard let pack = puts.removeValue(forKey: number) else { return }
        actions.append(.giveBack(pack.writes.map(\.item)))
        failures += 1
        if failures >= DirectPackerLimits.failuresMaximum {
            failures = 0
            pause(DirectPackerLimits.failurePause, now: now)
        } else {
            self.pack(now: now)
        }
    }

    /// Another owner, or none that is known: what it handed out is worth nothing any more.
    public mutating func ownerLost() {
        stock = []
        asked = nil
        giveBack { _ in true }
    }

    /// Gives back what has waited for long.
    public mutating func tick(now: MonotonicTime) {
        guard let first = waiting.first,
            now.nanoseconds(since: first.since) >= DirectPackerLimits.waitingMaximum
        else { return }
        giveBack { now.nanoseconds(since: $0.since) >= DirectPackerLimits.waitingMaximum }
    }

    private mutating func pause(_ nanoseconds: UInt64, now: MonotonicTime) {
        pausedUntil = max(pausedUntil, now.advanced(byNanoseconds: nanoseconds))
        giveBack { _ in true }
    }

    private mutating func giveBack(_ isOver: (Waiting) -> Bool) {
        let over = waiting.filter(isOver)
        guard !over.isEmpty else { return }
        waiting.removeAll(where: isOver)
        waitingBlocks = waiting.reduce(0) { $0 + $1.blocks.count }
        actions.append(.giveBack(over.map(\.item)))
    }
}

/// Bounds of the packer of direct writes. Times in nanoseconds.
public enum DirectPackerLimits {
    /// Objects of one volume that are being put.
    public static let putsMaximum = 3
    /// Bytes of writes that must wait for an object to be put beside another one.
    public static let besideAnotherMinimumBytes = UInt64(Limits.objectTargetBytes) / 2
    /// Bytes of writes to one volume that wait for an object; further ones go through the cache.
    public static let waitingBytesMaximum: UInt64 = 64 << 20
    /// How long a write waits for its object before it goes through the cache.
    public static let waitingMaximum: UInt64 = 500_000_000
    /// Objects asked for ahead.
    public static let grantsAtOnce = 2
    /// How long an object may wait for its use: of what an owner hands out, less than it remembers.
    public static let grantLife: UInt64 = 1_000_000_000
    /// Puts that fail in a row before there is a pause.
    public static let failuresMaximum = 3
    /// How long writes go through the cache after failures.
    public static let failurePause: UInt64 = 10_000_000_000
    /// How long they do where the owner did not say which objects there are.
    public static let beginPause: UInt64 = 1_000_000_000
    /// How long they do where the owner had no object to hand out.
    public static let emptyPause: UInt64 = 20_000_000
}
