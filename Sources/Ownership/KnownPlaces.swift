public import AshlarCore

/// Where blocks of a volume last lay in objects, as far as the owner's answers to reads have said so: for reads that ask the owner and the object
/// server at once (`readsBothAtOnce`), as a value without I/O.
///
/// What is remembered is a hint. Objects are immutable and their numbers never used again (I6): so a slot that was sent for is what the owner means,
/// or it is not used; nobody has to tell a target that a block lies elsewhere now (I2).
///
/// Memory is bounded: a block has one place in a table, where another block, ``KnownPlacesLimits/blocksMaximum`` further on, may take it.
public struct KnownPlaces: Sendable {
    /// A run of blocks and the slots in which they lay.
    public struct Run: Sendable, Hashable {
        /// The first block.
        public var block: BlockID
        /// The object.
        public var object: ObjectID
        /// Where it lies.
        public var server: ObjectServerID
        /// The slot of the first block.
        public var firstSlot: SlotIndex
        /// The block that the first slot was written as.
        public var origin: BlockID
        /// Blocks.
        public var count: UInt32

        /// A run with each part named.
        public init(
            block: BlockID,
            object: ObjectID,
            server: ObjectServerID,
            firstSlot: SlotIndex,
            origin: BlockID,
            count: UInt32
        ) {
            self.block = block
            self.object = object
            self.server = server
            self.firstSlot = firstSlot
            self.origin = origin
            self.count = count
        }

        /// Whether a run of one block lies behind this one, in both.
        fileprivate func goesOn(_ next: Run) -> Bool {
            next.object == object && next.server == server && next.block == block + UInt64(count)
                && next.firstSlot.rawValue == firstSlot.rawValue + count && next.origin == origin + UInt64(count)
        }
    }

    /// By block number modulo its size; empty until something is remembered. A run of no block: nothing.
    private var table: [Run] = []
    private static let none = Run(
        block: BlockID(0),
        object: ObjectID(0),
        server: ObjectServerID(0),
        firstSlot: SlotIndex(0),
        origin: BlockID(0),
        count: 0
    )

    /// Knows nothing.
    public init() {}

    private func place(of block: BlockID) -> Int { Int(block.rawValue % UInt64(KnownPlacesLimits.blocksMaximum)) }

    /// Blocks lie in an object.
    public mutating func remember(_ run: Run) {
        if table.isEmpty { table = Array(repeating: Self.none, count: KnownPlacesLimits.blocksMaximum) }
        for offset in 0..<run.count {
            let block = run.block + UInt64(offset)
            table[place(of: block)] = Run(
                block: block,
                object: run.object,
                server: run.server,
                firstSlot: SlotIndex(run.firstSlot.rawValue + offset),
                origin: run.origin + UInt64(offset),
                count: 1
            )
        }
    }

    /// Blocks lie in no object, or not in one alone.
    public mutating func forget(_ blocks: BlockRange) {
        guard !table.isEmpty else { return }
        for offset in 0..<min(blocks.count, UInt64(table.count)) {
            let block = blocks.first + offset
            if table[place(of: block)].block == block { table[place(of: block)] = Self.none }
        }
    }

    /// Where blocks last lay, in runs as long as they come.
    public func find(_ blocks: BlockRange) -> [Run] {
        guard !table.isEmpty else { return [] }
        var runs: [Run] = []
        for offset in 0..<min(blocks.count, UInt64(table.count)) {
            let block = blocks.first + offset
            let known = table[place(of: block)]
            guard known.count == 1, known.block == block else { continue }
            if let last = runs.last, last.goesOn(known) {
                runs[runs.count - 1].count += 1
            } else {
                runs.append(known)
            }
        }
        return runs
    }
}

/// Bounds of what is remembered of places.
public enum KnownPlacesLimits {
    /// Blocks of one volume whose places a target remembers: 256 MiB of blocks of 4 KiB, in less than 3 MiB of memory.
    public static let blocksMaximum = 65_536
}
