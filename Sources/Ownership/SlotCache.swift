public import AshlarCore
public import NIOCore

/// Blocks that a target has read from objects, by object and slot: what a read finds here, no object server is asked for.
///
/// Objects are immutable and their ids never used again (I6), so what is here is never out of date and nobody has to be told of
/// a write: whether a block lies in that slot *now* is for the owner's answer to say, with every read (I2). A block that moved
/// meanwhile is asked for under another key, and what lies under the old one is let go unused.
///
/// The policy is S3-FIFO: what comes goes through a small queue first, and gets into the main one, where most of the room is,
/// only by being used while it is there, or by coming back soon after it has left. So a pass over more than fits goes through the
/// small queue and leaves what is in use alone. A hit moves nothing: it counts in the node.
///
/// Each node in use is in exactly one list:
///
/// | list | holds | with bytes |
/// | --- | --- | --- |
/// | small | blocks that came lately, about a tenth of the bytes | yes |
/// | main | blocks that were used again | yes |
/// | ghosts | what left small without having been used again, at most as many as there are blocks | no |
public struct SlotCache: Sendable {
    /// A block as it was put in an object.
    public struct Block: Sendable, Hashable {
        /// As which block of its volume it was written.
        public var block: BlockID
        /// CRC-32C of the bytes (I11).
        public var checksum: Checksum
        /// The plain bytes.
        public var bytes: ByteBuffer

        /// A block with each part named.
        public init(block: BlockID, checksum: Checksum, bytes: ByteBuffer) {
            self.block = block
            self.checksum = checksum
            self.bytes = bytes
        }
    }

    enum List: UInt8, Sendable {
        case free
        case small
        case main
        case ghosts
    }

    struct Node: Sendable {
        var object: ObjectID
        var slot: SlotIndex
        var checksum = Checksum(0)
        var block = BlockID(0)
        var bytes = ByteBuffer()
        /// The neighbours in the list; in a free node, `older` is the next free one.
        var older = SlotCache.none
        var newer = SlotCache.none
        var list = List.free
        /// Hits since it came into its list, at most ``SlotCacheLimits/usesMaximum``.
        var uses: UInt8 = 0
        /// Read ahead, and not asked for yet: the first hit is no second use.
        var isAhead = false

        init(_ object: ObjectID, _ slot: SlotIndex) {
            self.object = object
            self.slot = slot
        }
    }

    /// A list through nodes, with what its blocks are counted for.
    struct Queue: Sendable {
        var newest = SlotCache.none
        var oldest = SlotCache.none
        var count = 0
        var bytes = 0
    }

    static let none = UInt32.max

    /// Most bytes, with what keeping them takes; 0: nothing is kept.
    public let capacityBytes: Int
    private var nodes: [Node] = []
    private var firstFree = SlotCache.none
    private var small = Queue()
    private var main = Queue()
    private var ghosts = Queue()
    /// Where each key's node is, by open addressing with linear probing: the node's number and 1; 0 for none. Never more than
    /// half full.
    private var index: [UInt32] = []

    /// An empty cache.
    public init(capacityBytes: Int) { self.capacityBytes = max(0, capacityBytes) }

    /// Blocks that are here.
    public var count: Int { small.count + main.count }

    /// What is here, in bytes, with what keeping it takes; never above ``capacityBytes``.
    public var bytes: Int { small.bytes + main.bytes }

    /// Keys that are remembered without their bytes.
    var ghostCount: Int { ghosts.count }

    // MARK: Use

    /// The block in a slot, if it is here; counts as a use of it.
    public mutating func find(_ object: ObjectID, _ slot: SlotIndex) -> Block? {
        guard let number = number(object, slot), nodes[number].list != .ghosts else { return nil }
        if nodes[number].isAhead {
            nodes[number].isAhead = false
        } else if nodes[number].uses < SlotCacheLimits.usesMaximum {
            nodes[number].uses += 1
        }
        return Block(block: nodes[number].block, checksum: nodes[number].checksum, bytes: nodes[number].bytes)
    }

    /// Whether the block in a slot is here; no use of it.
    public func contains(_ object: ObjectID, _ slot: SlotIndex) -> Bool {
        guard let number = number(object, slot) else { return false }
        return nodes[number].list != .ghosts
    }

    /// Takes in a block whose bytes were verified; one that is here already stays as it is.
    ///
    /// The bytes are copied where they are a slice of something larger: what arrives is cut from the answer of an object server,
    /// all of which the slice would keep alive, uncounted. A block that was inflated has storage of its own and is kept as it is.
    ///
    /// - Parameter isAhead: It was read ahead: nobody has asked for it yet.
    public mutating func insert(_ block: Block, at object: ObjectID, _ slot: SlotIndex, isAhead: Bool = false) {
        let bytes = block.bytes.storageCapacity > block.bytes.readableBytes ? block.bytes.compacted : block.bytes
        let cost = Self.cost(bytes)
        guard cost <= capacityBytes else { return }
        let known = number(object, slot)
        if let known {
            guard nodes[known].list == .ghosts else { return }
            // Out of its list before room is made: that lets old ghosts go.
            unlink(known)
        }
        makeRoom(for: cost)
        let number = known ?? add(object, slot)
        nodes[number].block = block.block
        nodes[number].checksum = block.checksum
        nodes[number].bytes = bytes
        nodes[number].uses = 0
        nodes[number].isAhead = isAhead
        // What comes back soon after it has left has a place among what is in use; not where it was only read ahead again.
        link(number, into: known == nil || isAhead ? .small : .main)
    }

    /// Lets go of a slot.
    public mutating func remove(_ object: ObjectID, _ slot: SlotIndex) {
        guard let number = number(object, slot) else { return }
        unlink(number)
        release(number)
    }

    /// What a block is counted for: its storage, and what keeping it takes.
    static func cost(_ bytes: ByteBuffer) -> Int { bytes.storageCapacity + SlotCacheLimits.overheadBytes }

    // MARK: Eviction

    private mutating func makeRoom(for cost: Int) {
        while bytes + cost > capacityBytes {
            if main.count == 0 || small.bytes > capacityBytes / SlotCacheLimits.smallDivisor {
                evictFromSmall()
            } else {
                evictFromMain()
            }
        }
    }

    /// Lets the oldest block of the small queue go that was not used again; those before it get into the main one.
    private mutating func evictFromSmall() {
        while small.count > 0 {
            let number = Int(small.oldest)
            unlink(number)
            if nodes[number].uses >= SlotCacheLimits.usesToStay {
                nodes[number].uses = 0
                link(number, into: .main)
            } else {
                nodes[number].bytes = ByteBuffer()
                link(number, into: .ghosts)
                while ghosts.count > max(count, 1) {
                    let oldest = Int(ghosts.oldest)
                    unlink(oldest)
                    release(oldest)
                }
                return
            }
        }
    }

    /// Lets the oldest block of the main queue go that was not used since it was last looked at. Each look takes one use away:
    /// so it ends.
    private mutating func evictFromMain() {
        while main.count > 0 {
            let number = Int(main.oldest)
            unlink(number)
            guard nodes[number].uses > 0 else { return release(number) }
            nodes[number].uses -= 1
            link(number, into: .main)
        }
    }

    // MARK: Lists

    private subscript(list: List) -> Queue {
        get {
            switch list {
            case .small: small
            case .main: main
            case .ghosts: ghosts
            case .free: preconditionFailure("a free node is in no list")
            }
        }
        set {
            switch list {
            case .small: small = newValue
            case .main: main = newValue
            case .ghosts: ghosts = newValue
            case .free: preconditionFailure("a free node is in no list")
            }
        }
    }

    /// What a node adds to its list's bytes.
    private func cost(of number: Int) -> Int {
        nodes[number].list == .ghosts ? 0 : Self.cost(nodes[number].bytes)
    }

    private mutating func link(_ number: Int, into list: List) {
        nodes[number].list = list
        var queue = self[list]
        nodes[number].older = queue.newest
        nodes[number].newer = Self.none
        if queue.newest == Self.none {
            queue.oldest = UInt32(number)
        } else {
            nodes[Int(queue.newest)].newer = UInt32(number)
        }
        queue.newest = UInt32(number)
        queue.count += 1
        queue.bytes += cost(of: number)
        self[list] = queue
    }

    private mutating func unlink(_ number: Int) {
        let list = nodes[number].list
        var queue = self[list]
        let (older, newer) = (nodes[number].older, nodes[number].newer)
        if older == Self.none { queue.oldest = newer } else { nodes[Int(older)].newer = newer }
        if newer == Self.none { queue.newest = older } else { nodes[Int(newer)].older = older }
        queue.count -= 1
        queue.bytes -= cost(of: number)
        self[list] = queue
    }

    // MARK: Nodes and their keys

    private mutating func add(_ object: ObjectID, _ slot: SlotIndex) -> Int {
        if (small.count + main.count + ghosts.count + 1) * 2 > index.count { growIndex() }
        let number: Int
        if firstFree == Self.none {
            number = nodes.count
            nodes.append(Node(object, slot))
        } else {
            number = Int(firstFree)
            firstFree = nodes[number].older
            nodes[number] = Node(object, slot)
        }
        enter(number)
        return number
    }

    /// Gives a node that is in no list back.
    private mutating func release(_ number: Int) {
        withdraw(number)
        nodes[number].list = .free
        nodes[number].bytes = ByteBuffer()
        nodes[number].older = firstFree
        firstFree = UInt32(number)
    }

    /// Where the search for a key begins. Ids and slots come in order: multiplying spreads them.
    private func home(_ object: ObjectID, _ slot: SlotIndex) -> Int {
        var mixed = object.rawValue &* 0x9E37_79B9_7F4A_7C15
        mixed ^= UInt64(slot.rawValue) &* 0xC2B2_AE3D_27D4_EB4F
        mixed = (mixed ^ mixed >> 32) &* 0xFF51_AFD7_ED55_8CCD
        return Int(truncatingIfNeeded: mixed >> 32) & (index.count - 1)
    }

    private func number(_ object: ObjectID, _ slot: SlotIndex) -> Int? {
        guard !index.isEmpty else { return nil }
        var place = home(object, slot)
        while index[place] != 0 {
            let number = Int(index[place] - 1)
            if nodes[number].slot == slot, nodes[number].object == object { return number }
            place = (place + 1) & (index.count - 1)
        }
        return nil
    }

    private mutating func enter(_ number: Int) {
        var place = home(nodes[number].object, nodes[number].slot)
        while index[place] != 0 { place = (place + 1) & (index.count - 1) }
        index[place] = UInt32(number) + 1
    }

    /// Takes a key out of the index and moves those behind it up, so that no search ends before it should.
    private mutating func withdraw(_ number: Int) {
        let mask = index.count - 1
        var hole = home(nodes[number].object, nodes[number].slot)
        while index[hole] != UInt32(number) + 1 { hole = (hole + 1) & mask }
        var place = (hole + 1) & mask
        while index[place] != 0 {
            let other = Int(index[place] - 1)
            let distance = (place - home(nodes[other].object, nodes[other].slot)) & mask
            if distance >= (place - hole) & mask {
                index[hole] = index[place]
                hole = place
            }
            place = (place + 1) & mask
        }
        index[hole] = 0
    }

    private mutating func growIndex() {
        index = Array(repeating: 0, count: max(SlotCacheLimits.indexMinimum, index.count * 2))
        for number in nodes.indices where nodes[number].list != .free { enter(number) }
    }
}

/// Bounds of a cache of slots.
public enum SlotCacheLimits {
    /// What keeping a block takes besides its bytes: its node and that of a ghost, with the room by which an array grows, the index,
    /// and the object round the storage.
    public static let overheadBytes = 384
    /// The small queue's part of the room.
    static let smallDivisor = 10
    /// Uses in the small queue by which a block gets into the main one.
    static let usesToStay: UInt8 = 2
    /// Uses that are counted.
    static let usesMaximum: UInt8 = 3
    /// Places of the smallest index; a power of two.
    static let indexMinimum = 1_024
}
