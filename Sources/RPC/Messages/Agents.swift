public import AshlarCore
public import NIOCore

/// Asks a cache server for blocks to move.
public struct MoveWork: RPCMessage {
    /// 0x30.
    public static let type = RPCMessageType.moveWork
    /// The agent's name, for log lines and views.
    public var agent: String

    /// An agent that has time.
    public init(agent: String) { self.agent = agent }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { agent = try buffer.readRPCString() }
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { buffer.writeRPCString(agent) }

    /// One block of a piece of work.
    public struct Block: Sendable, Hashable {
        /// The data block.
        public var block: BlockID
        /// The version handed out.
        public var version: Version
        /// CRC-32C of the block.
        public var checksum: Checksum

        /// A block with its version.
        public init(block: BlockID, version: Version, checksum: Checksum) {
            self.block = block
            self.version = version
            self.checksum = checksum
        }
    }

    /// A piece of work; without blocks there is none. The blocks' bytes follow as payload, in order.
    public struct Answer: RPCMessage {
        /// 0x30.
        public static let type = RPCMessageType.moveWork
        /// The volume.
        public var volume: VolumeID
        /// Its UUID, for the object's header.
        public var uuid: [UInt8]
        /// Bytes in a data block.
        public var blockSizeBytes: UInt32
        /// The object to put them into; its intent is committed (I6).
        public var object: ObjectID
        /// The blocks, ascending.
        public var blocks: [Block]

        /// A piece of work.
        public init(
            volume: VolumeID,
            uuid: [UInt8],
            blockSizeBytes: UInt32,
            object: ObjectID,
            blocks: [Block]
        ) {
            self.volume = volume
            self.uuid = uuid
            self.blockSizeBytes = blockSizeBytes
            self.object = object
            self.blocks = blocks
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            volume = try buffer.readRPCIdentifier()
            uuid = Array(try buffer.readRPCBytes(count: 16).readableBytesView)
            blockSizeBytes = try buffer.readRPC()
            object = try buffer.readRPCIdentifier()
            blocks = try buffer.readRPCArray(
                minimumElementBytes: 20,
                maximumCount: RPCMessageLimits.slotsMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
                Block(
                    block: try b.readRPCIdentifier(),
                    version: try b.readRPCIdentifier(),
                    checksum: try b.readRPCIdentifier()
                )
            }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            precondition(uuid.count == 16, "a UUID has 16 bytes")
            buffer.writeRPCIdentifier(volume)
            buffer.writeBytes(uuid)
            buffer.writeRPC(blockSizeBytes)
            buffer.writeRPCIdentifier(object)
            buffer.writeRPCArray(blocks) {
                $0.writeRPCIdentifier($1.block)
                $0.writeRPCIdentifier($1.version)
                $0.writeRPCIdentifier($1.checksum)
            }
        }
    }
}

/// Asks the owner to map an object that holds moved blocks (M1).
public struct MapMove: RPCMessage {
    /// 0x31.
    public static let type = RPCMessageType.mapMove
    /// The volume.
    public var volume: VolumeID
    /// The object, which is put and synced (M9).
    public var object: ObjectID
    /// Where it lies.
    public var server: ObjectServerID
    /// Its size in bytes.
    public var sizeBytes: UInt64
    /// The blocks in slot order with the versions that the slots hold.
    public var slots: [Slot]

    /// One slot of the object.
    public struct Slot: Sendable, Hashable {
        /// The data block.
        public var block: BlockID
        /// The version in the slot.
        public var version: Version

        /// A slot.
        public init(block: BlockID, version: Version) {
            self.block = block
            self.version = version
        }
    }

    /// A map to make.
    public init(volume: VolumeID, object: ObjectID, server: ObjectServerID, sizeBytes: UInt64, slots: [Slot]) {
        self.volume = volume
        self.object = object
        self.server = server
        self.sizeBytes = sizeBytes
        self.slots = slots
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        volume = try buffer.readRPCIdentifier()
        object = try buffer.readRPCIdentifier()
        server = try buffer.readRPCIdentifier()
        sizeBytes = try buffer.readRPC()
        slots = try buffer.readRPCArray(
            minimumElementBytes: 16,
            maximumCount: RPCMessageLimits.slotsMaximum
        ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
            Slot(block: try b.readRPCIdentifier(), version: try b.readRPCIdentifier())
        }
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCIdentifier(volume)
        buffer.writeRPCIdentifier(object)
        buffer.writeRPCIdentifier(server)
        buffer.writeRPC(sizeBytes)
        buffer.writeRPCArray(slots) {
            $0.writeRPCIdentifier($1.block)
            $0.writeRPCIdentifier($1.version)
        }
    }
}

/// Asks the owner to map a compacted object (M6).
public struct MapCompaction: RPCMessage {
    /// 0x34.
    public static let type = RPCMessageType.mapCompaction
    /// The volume.
    public var volume: VolumeID
    /// The new object, which is put and synced.
    public var object: ObjectID
    /// Where it lies.
    public var server: ObjectServerID
    /// Its size in bytes.
    public var sizeBytes: UInt64
    /// The blocks in slot order and where they came from.
    public var slots: [Slot]

    /// One slot of the new object.
    public struct Slot: Sendable, Hashable {
        /// The data block.
        public var block: BlockID
        /// The version in the slot.
        public var version: Version
        /// The object it was copied from.
        public var source: ObjectID
        /// The slot it was copied from.
        public var sourceSlot: SlotIndex

        /// A slot and its source.
        public init(block: BlockID, version: Version, source: ObjectID, sourceSlot: SlotIndex) {
            self.block = block
            self.version = version
            self.source = source
            self.sourceSlot = sourceSlot
        }
    }

    /// A map to make.
    public init(volume: VolumeID, object: ObjectID, server: ObjectServerID, sizeBytes: UInt64, slots: [Slot]) {
        self.volume = volume
        self.object = object
        self.server = server
        self.sizeBytes = sizeBytes
        self.slots = slots
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        volume = try buffer.readRPCIdentifier()
        object = try buffer.readRPCIdentifier()
        server = try buffer.readRPCIdentifier()
        sizeBytes = try buffer.readRPC()
        slots = try buffer.readRPCArray(
            minimumElementBytes: 28,
            maximumCount: RPCMessageLimits.slotsMaximum
        ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
            Slot(
                block: try b.readRPCIdentifier(),
                version: try b.readRPCIdentifier(),
                source: try b.readRPCIdentifier(),
                sourceSlot: try b.readRPCIdentifier()
            )
        }
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCIdentifier(volume)
        buffer.writeRPCIdentifier(object)
        buffer.writeRPCIdentifier(server)
        buffer.writeRPC(sizeBytes)
        buffer.writeRPCArray(slots) {
            $0.writeRPCIdentifier($1.block)
            $0.writeRPCIdentifier($1.version)
            $0.writeRPCIdentifier($1.source)
            $0.writeRPCIdentifier($1.sourceSlot)
        }
    }
}

/// How many of something the owner did.
public struct CountAnswer: RPCMessage {
    /// The type is that of the request it answers; this one stands for all of them in the codec.
    public static let type = RPCMessageType.mapMove
    /// The number.
    public var count: UInt64
    /// How many are left to do.
    public var left: UInt64

    /// A number done, and a number left.
    public init(count: UInt64, left: UInt64 = 0) {
        self.count = count
        self.left = left
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        count = try buffer.readRPC()
        left = try buffer.readRPC()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPC(count)
        buffer.writeRPC(left)
    }
}

/// Asks a cache server to evict moved items of the volumes it owns down to their policies' limits; answered with a
/// ``CountAnswer``.
public struct Evict: RPCMessage {
    /// 0x32.
    public static let type = RPCMessageType.evict

    /// The request has no fields.
    public init() {}
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {}
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {}
}

/// Asks a cache server for a sparse object to compact.
public struct CompactionWork: RPCMessage {
    /// 0x33.
    public static let type = RPCMessageType.compactionWork

    /// The request has no fields.
    public init() {}
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {}
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {}

    /// A run of live slots of an object.
    public struct LiveRun: Sendable, Hashable {
        /// The data blocks.
        public var blocks: BlockRange
        /// The object they lie in.
        public var source: ObjectID
        /// Where that lies.
        public var server: ObjectServerID
        /// The slot of the first.
        public var firstSlot: SlotIndex
        /// Where a copy made the run share slots: as which block the first was written, and the version that its blocks have.
        public var copy: BlockCopy?

        /// A run of live slots.
        public init(
            blocks: BlockRange,
            source: ObjectID,
            server: ObjectServerID,
            firstSlot: SlotIndex,
            copy: BlockCopy? = nil
        ) {
            self.blocks = blocks
            self.source = source
            self.server = server
            self.firstSlot = firstSlot
            self.copy = copy
        }
    }

    /// A piece of work; without runs there is none.
    public struct Answer: RPCMessage {
        /// 0x33.
        public static let type = RPCMessageType.compactionWork
        /// The volume.
        public var volume: VolumeID
        /// Its UUID.
        public var uuid: [UInt8]
        /// Bytes in a data block.
        public var blockSizeBytes: UInt32
        /// The object to write; its intent is committed.
        public var object: ObjectID
        /// What to copy, ascending by block.
        public var runs: [LiveRun]

        /// A piece of work.
        public init(volume: VolumeID, uuid: [UInt8], blockSizeBytes: UInt32, object: ObjectID, runs: [LiveRun]) {
            self.volume = volume
            self.uuid = uuid
            self.blockSizeBytes = blockSizeBytes
            self.object = object
            self.runs = runs
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            volume = try buffer.readRPCIdentifier()
            uuid = Array(try buffer.readRPCBytes(count: 16).readableBytesView)
            blockSizeBytes = try buffer.readRPC()
            object = try buffer.readRPCIdentifier()
            runs = try buffer.readRPCArray(
                minimumElementBytes: 33,
                maximumCount: RPCMessageLimits.slotsMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
                LiveRun(
                    blocks: try b.readRPCBlockRange(),
                    source: try b.readRPCIdentifier(),
                    server: try b.readRPCIdentifier(),
                    firstSlot: try b.readRPCIdentifier(),
                    copy: try b.readRPCOptional { (b: inout ByteBuffer) throws(RPCDecodingError) in
                        BlockCopy(origin: try b.readRPCIdentifier(), version: try b.readRPCIdentifier())
                    }
                )
            }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            precondition(uuid.count == 16, "a UUID has 16 bytes")
            buffer.writeRPCIdentifier(volume)
            buffer.writeBytes(uuid)
            buffer.writeRPC(blockSizeBytes)
            buffer.writeRPCIdentifier(object)
            buffer.writeRPCArray(runs) {
                $0.writeRPCBlockRange($1.blocks)
                $0.writeRPCIdentifier($1.source)
                $0.writeRPCIdentifier($1.server)
                $0.writeRPCIdentifier($1.firstSlot)
                $0.writeRPCOptional($1.copy) {
                    $0.writeRPCIdentifier($1.origin)
                    $0.writeRPCIdentifier($1.version)
                }
            }
        }
    }
}

/// Asks for dead objects whose bytes may be deleted (M7).
public struct Collect: RPCMessage {
    /// 0x35.
    public static let type = RPCMessageType.collect
    /// Intents older than this are given up, in milliseconds.
    public var intentAgeMilliseconds: UInt64
    /// Objects that died longer ago than this are returned, in milliseconds.
    public var graceMilliseconds: UInt64

    /// A question with both ages.
    public init(intentAgeMilliseconds: UInt64, graceMilliseconds: UInt64) {
        self.intentAgeMilliseconds = intentAgeMilliseconds
        self.graceMilliseconds = graceMilliseconds
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        intentAgeMilliseconds = try buffer.readRPC()
        graceMilliseconds = try buffer.readRPC()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPC(intentAgeMilliseconds)
        buffer.writeRPC(graceMilliseconds)
    }

    /// A dead object.
    public struct DeadObject: Sendable, Hashable {
        /// The object.
        public var object: ObjectID
        /// Where it lies; 0 where it was never mapped, so that any server may hold it.
        public var server: ObjectServerID

        /// An object to delete.
        public init(object: ObjectID, server: ObjectServerID) {
            self.object = object
            self.server = server
        }
    }

    /// The objects to delete.
    public struct Answer: RPCMessage {
        /// 0x35.
        public static let type = RPCMessageType.collect
        /// Dead objects past their grace period.
        public var objects: [DeadObject]

        /// Objects for an answer.
        public init(objects: [DeadObject]) { self.objects = objects }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            objects = try buffer.readRPCArray(
                minimumElementBytes: 12,
                maximumCount: RPCMessageLimits.objectsMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
                DeadObject(object: try b.readRPCIdentifier(), server: try b.readRPCIdentifier())
            }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCArray(objects) {
                $0.writeRPCIdentifier($1.object)
                $0.writeRPCIdentifier($1.server)
            }
        }
    }
}

/// Names objects: those whose bytes are deleted (`forgetObjects`), or those that an object server found (`knownObjects`).
public struct ObjectNames: Sendable, Hashable {
    /// The objects.
    public var objects: [ObjectID]

    init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        objects = try buffer.readRPCArray(
            minimumElementBytes: 8,
            maximumCount: RPCMessageLimits.objectsMaximum
        ) { (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCIdentifier() }
    }

    init(_ objects: [ObjectID]) { self.objects = objects }

    func encode(into buffer: inout ByteBuffer) { buffer.writeRPCArray(objects) { $0.writeRPCIdentifier($1) } }
}

/// Removes the rows of dead objects whose bytes are deleted; answered with an empty body.
public struct ForgetObjects: RPCMessage {
    /// 0x36.
    public static let type = RPCMessageType.forgetObjects
    /// The objects.
    public var names: ObjectNames

    /// Objects whose bytes are deleted.
    public init(_ objects: [ObjectID]) { names = ObjectNames(objects) }
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        names = try ObjectNames(decoding: &buffer)
    }
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { names.encode(into: &buffer) }
}

/// Asks which objects have a row (M8); answered with those that have, in a message of the same form.
public struct KnownObjects: RPCMessage {
    /// 0x37.
    public static let type = RPCMessageType.knownObjects
    /// The objects.
    public var names: ObjectNames

    /// Objects that were found, or that are known.
    public init(_ objects: [ObjectID]) { names = ObjectNames(objects) }
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        names = try ObjectNames(decoding: &buffer)
    }
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { names.encode(into: &buffer) }
}
