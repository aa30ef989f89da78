public import AshlarCore
import DequeModule

/// Packs the writes through of one volume at one target into objects, as a value.
///
/// A write goes to the cache at once, with its place in an object that is to be put: so its place is given when it comes, unlike that of a direct
/// write, and it waits for nothing. The object that is being filled is put as soon as the one before it is; what has come by then goes in it
/// together. A write for which there is no object goes to the cache alone, and what is given up here is in the cache as well: agents move it.
///
/// Writes in one object share no block, since an object is mapped once.
///
/// Item: whatever the shell needs to go on with a write.
public struct ThroughPacker<Item> {
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
        fileprivate let epoch: Epoch
        fileprivate let since: MonotonicTime

        fileprivate init(number: UInt64, grant: DirectGrant, epoch: Epoch, since: MonotonicTime) {
            self.number = number
            self.grant = grant
            self.epoch = epoch
            self.since = since
        }
    }

    /// What the shell is to do.
    public enum Action {
        /// Ask the owner for objects; answered by `granted` or `beginFailed` with the same number.
        case begin(number: UInt64, Epoch, count: Int)
        /// Put an object; answered by `putSucceeded`, after which it is to be mapped, or `putFailed`.
        case put(Pack)
    }

    private struct Stock {
        var grant: DirectGrant
        var epoch: Epoch
        var since: MonotonicTime
    }

    private let blockSizeBytes: UInt32
    /// The object that is being filled.
    private var open: Pack?
    /// Objects that are full, and wait to be put.
    private var full: Deque<Pack> = []
    private var waitingBlocks: UInt64 = 0
    /// Objects that are not in use yet, in the order of their versions.
    private var stock: Deque<Stock> = []
    /// The question for more that is on its way.
    private var asked: (number: UInt64, epoch: Epoch, at: MonotonicTime)?
    private var puts: [UInt64: Pack] = [:]
    private var nextNumber: UInt64 = 1
    private var failures = 0
    private var pausedUntil = MonotonicTime(0)
    /// No question for objects before this time.
    private var nextAsk = MonotonicTime(0)
    private var actions: Deque<Action> = []

    /// A packer for a volume with data blocks of this size.
    public init(blockSizeBytes: UInt32) { self.blockSizeBytes = blockSizeBytes }

    /// The next thing to do; nil when there is nothing until the next event.
    public mutating func nextAction() -> Action? { actions.popFirst() }

    /// Most blocks of one object.
    private var slotsMaximum: UInt64 {
        min(UInt64(Limits.objectTargetBytes) / UInt64(blockSizeBytes), UInt64(Limits.objectSlotsMaximum))
    }

    /// Writes whose object waits to be put.
    public var waitingCount: Int { (open?.writes.count ?? 0) + full.reduce(0) { $0 + $1.writes.count } }

    // MARK: Events

    /// Takes a write, made for an epoch of the owner, whose object goes on its way with a `pack` that follows.
    ///
    /// - Returns: its place in the object; nil where it is to go to the cache alone.
    public mutating func add(_ item: Item, blocks: BlockRange, epoch: Epoch, now: MonotonicTime) -> ThroughPlace? {
        guard now >= pausedUntil, !blocks.isEmpty, blocks.count <= slotsMaximum,
            (waitingBlocks + blocks.count) * UInt64(blockSizeBytes) <= ThroughPackerLimits.waitingBytesMaximum
        else { return nil }
        if let pack = open {
            // What is written again so soon need not be moved.
            if pack.epoch == epoch, pack.writes.contains(where: { $0.blocks.overlaps(blocks) }) { return nil }
            let isFull =
                pack.slots + blocks.count > min(slotsMaximum, UInt64(pack.grant.slots))
                || pack.writes.count >= Limits.directWritesPerObjectMaximum
            if isFull || pack.epoch != epoch { close() }
        }
        if open == nil {
            guard let grant = takeGrant(for: epoch, now: now) else {
                ask(epoch, now: now)
                return nil
            }
            open = Pack(number: takeNumber(), grant: grant, epoch: epoch, since: now)
            // The next object is to be there when this one is on its way.
            if stock.isEmpty { ask(epoch, now: now) }
        }
        guard var pack = open else { return nil }
        open = nil
        let place = ThroughPlace(object: pack.grant.object, firstSlot: UInt32(pack.slots))
        pack.writes.append((item, blocks))
        pack.slots += blocks.count
        waitingBlocks += blocks.count
        open = pack
        return place
    }

    private mutating func close() {
        guard let pack = open else { return }
        full.append(pack)
        open = nil
    }

    /// Begins what may begin: at the end of a turn in which writes were added, so that these go together.
    public mutating func pack(now: MonotonicTime) {
        while puts.count < ThroughPackerLimits.putsMaximum, let pack = full.popFirst() { put(pack) }
        // One that is not full is put beside no other: an object costs about the same whatever is in it.
        if puts.isEmpty, let pack = open {
            open = nil
            put(pack)
        }
    }

    private mutating func put(_ pack: Pack) {
        waitingBlocks -= pack.slots
        puts[pack.number] = pack
        actions.append(.put(pack))
    }

    /// An object of the epoch that was handed out lately: the longer ago, the likelier it was overtaken.
    private mutating func takeGrant(for epoch: Epoch, now: MonotonicTime) -> DirectGrant? {
        while let first = stock.popFirst() {
            let isFresh = now.nanoseconds(since: first.since) < ThroughPackerLimits.grantLife
            if first.epoch == epoch, isFresh, UInt64(first.grant.slots) >= slotsMaximum { return first.grant }
        }
        return nil
    }

    private mutating func ask(_ epoch: Epoch, now: MonotonicTime) {
        guard asked == nil, now >= nextAsk else { return }
        let number = takeNumber()
        asked = (number, epoch, now)
        actions.append(.begin(number: number, epoch, count: ThroughPackerLimits.grantsAtOnce))
    }

    private mutating func takeNumber() -> UInt64 {
        defer { nextNumber += 1 }
        return nextNumber
    }

    /// The owner handed objects out, or has none now.
    public mutating func granted(_ number: UInt64, _ grants: [DirectGrant], now: MonotonicTime) {
        guard let asked, asked.number == number else { return }
        self.asked = nil
        if grants.isEmpty { nextAsk = now.advanced(byNanoseconds: ThroughPackerLimits.emptyPause) }
        stock.append(contentsOf: grants.map { Stock(grant: $0, epoch: asked.epoch, since: asked.at) })
    }

    /// The owner did not answer, or does not know the question.
    public mutating func beginFailed(_ number: UInt64, now: MonotonicTime) {
        guard asked?.number == number else { return }
        asked = nil
        nextAsk = now.advanced(byNanoseconds: ThroughPackerLimits.beginPause)
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

    /// An object was not put, or not in time: its writes are in the cache, and after several failures all go there alone for a while.
    public mutating func putFailed(_ number: UInt64, now: MonotonicTime) {
        guard puts.removeValue(forKey: number) != nil else { return }
        failures += 1
        if failures >= ThroughPackerLimits.failuresMaximum {
            failures = 0
            pausedUntil = now.advanced(byNanoseconds: ThroughPackerLimits.failurePause)
        }
        pack(now: now)
    }

    /// Another owner, or none that is known: what it handed out is worth nothing any more.
    public mutating func ownerLost() {
        stock = []
        asked = nil
        giveUp { _ in true }
    }

    /// Gives up what has waited for long.
    public mutating func tick(now: MonotonicTime) {
        giveUp { now.nanoseconds(since: $0.since) >= ThroughPackerLimits.waitingMaximum }
    }

    private mutating func giveUp(_ isOver: (Pack) -> Bool) {
        full.removeAll(where: isOver)
        if let pack = open, isOver(pack) { open = nil }
        waitingBlocks = full.reduce(open?.slots ?? 0) { $0 + $1.slots }
    }
}

/// Bounds of the packer of writes through. Times in nanoseconds.
public enum ThroughPackerLimits {
    /// Objects of one volume that are being put.
    public static let putsMaximum = 3
    /// Bytes of writes to one volume whose objects wait to be put; further ones go to the cache alone.
    public static let waitingBytesMaximum: UInt64 = 32 << 20
    /// How long an object may wait to be put: with a put, less than its owner keeps agents from its writes.
    public static let waitingMaximum: UInt64 = 500_000_000
    /// Objects asked for ahead.
    public static let grantsAtOnce = 2
    /// How long an object may wait for its use: of what an owner hands out, less than it remembers, the put with it. A volume that is written
    /// less often has its writes go to the cache alone.
    public static let grantLife: UInt64 = 5_000_000_000
    /// Puts that fail in a row before there is a pause.
    public static let failuresMaximum = 3
    /// How long writes go to the cache alone after failures.
    public static let failurePause: UInt64 = 10_000_000_000
    /// How long none is asked for where the owner did not say which objects there are.
    public static let beginPause: UInt64 = 1_000_000_000
    /// How long none is asked for where the owner had none to hand out.
    public static let emptyPause: UInt64 = 20_000_000
}
