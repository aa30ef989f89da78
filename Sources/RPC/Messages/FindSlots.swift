public import AshlarCore
public import NIOCore

/// Asks the owner which of some blocks lie in objects, and where, as far as it knows without looking: for reading ahead.
///
/// A hint, not a read: it has no place in the order of commands and is counted by nobody. Whoever reads asks again (I2).
public struct FindSlots: RPCMessage {
    /// 0x19.
    public static let type = RPCMessageType.findSlots
    /// The volume.
    public var volume: VolumeID
    /// The first block.
    public var firstBlock: BlockID
    /// The number of blocks, at most ``RPCMessageLimits/slotsFoundMaximum``.
    public var count: UInt32

    /// A question for where blocks lie.
    public init(volume: VolumeID, firstBlock: BlockID, count: UInt32) {
        self.volume = volume
        self.firstBlock = firstBlock
        self.count = count
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        volume = try buffer.readRPCIdentifier()
        firstBlock = try buffer.readRPCIdentifier()
        count = try buffer.readRPC()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCIdentifier(volume)
        buffer.writeRPCIdentifier(firstBlock)
        buffer.writeRPC(count)
    }

    /// Blocks in a row that lie in slots in a row.
    public struct Run: Sendable, Hashable {
        /// The object.
        public var object: ObjectID
        /// Where the object lies.
        public var server: ObjectServerID
        /// The first slot.
        public var firstSlot: SlotIndex
        /// The block that the first slot was written as.
        public var origin: BlockID
        /// The number of slots.
        public var count: UInt32

        /// A run with each part named.
        public init(
            object: ObjectID,
            server: ObjectServerID,
            firstSlot: SlotIndex,
            origin: BlockID,
            count: UInt32
        ) {
            self.object = object
            self.server = server
            self.firstSlot = firstSlot
            self.origin = origin
            self.count = count
        }
    }

    /// The blocks that lie in objects alone.
    public struct Answer: RPCMessage {
        /// 0x19.
        public static let type = RPCMessageType.findSlots
        /// Blocks from the first one on of which the owner could say where they are.
        public var known: UInt32
        /// Where those of them that lie in objects are, in block order.
        public var runs: [Run]

        /// An answer.
        public init(known: UInt32, runs: [Run]) {
            self.known = known
            self.runs = runs
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            known = try buffer.readRPC()
            runs = try buffer.readRPCArray(
                minimumElementBytes: 28,
                maximumCount: RPCMessageLimits.slotsFoundMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
                Run(
                    object: try b.readRPCIdentifier(),
                    server: try b.readRPCIdentifier(),
                    firstSlot: try b.readRPCIdentifier(),
                    origin: try b.readRPCIdentifier(),
                    count: try b.readRPC()
                )
            }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPC(known)
            buffer.writeRPCArray(runs) {
                $0.writeRPCIdentifier($1.object)
                $0.writeRPCIdentifier($1.server)
                $0.writeRPCIdentifier($1.firstSlot)
                $0.writeRPCIdentifier($1.origin)
                $0.writeRPC($1.count)
            }
        }
    }
}
