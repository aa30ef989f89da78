public import AshlarCore
public import NIOCore

/// Puts an immutable object, whose bytes follow as payload; answered with an empty body once it is durable.
public struct PutObject: RPCMessage {
    /// 0x40.
    public static let type = RPCMessageType.putObject
    /// The key.
    public var object: ObjectID

    /// An object to put.
    public init(object: ObjectID) { self.object = object }
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { object = try buffer.readRPCIdentifier() }
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { buffer.writeRPCIdentifier(object) }
}

/// Reads a run of slots of an object.
public struct GetSlots: RPCMessage {
    /// 0x41.
    public static let type = RPCMessageType.getSlots
    /// The object.
    public var object: ObjectID
    /// The first slot.
    public var firstSlot: SlotIndex
    /// The number of slots.
    public var count: UInt32

    /// A run of slots to read.
    public init(object: ObjectID, firstSlot: SlotIndex, count: UInt32) {
        self.object = object
        self.firstSlot = firstSlot
        self.count = count
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        object = try buffer.readRPCIdentifier()
        firstSlot = try buffer.readRPCIdentifier()
        count = try buffer.readRPC()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCIdentifier(object)
        buffer.writeRPCIdentifier(firstSlot)
        buffer.writeRPC(count)
    }

    /// What is known of one slot.
    public struct Slot: Sendable, Hashable {
        /// The data block in it.
        public var block: BlockID
        /// Its version.
        public var version: Version
        /// CRC-32C of the plain block.
        public var checksum: Checksum
        /// How the bytes are stored: the number of `BlockObjects.SlotEncoding`.
        public var encoding: UInt8
        /// Bytes of it in the payload.
        public var storedBytes: UInt32

        /// A slot.
        public init(block: BlockID, version: Version, checksum: Checksum, encoding: UInt8, storedBytes: UInt32) {
            self.block = block
            self.version = version
            self.checksum = checksum
            self.encoding = encoding
            self.storedBytes = storedBytes
        }
    }

    /// The slots; their stored bytes follow as payload, in order.
    public struct Answer: RPCMessage {
        /// 0x41.
        public static let type = RPCMessageType.getSlots
        /// Bytes in a data block of the object.
        public var blockSizeBytes: UInt32
        /// The slots in order.
        public var slots: [Slot]

        /// Slots for an answer.
        public init(blockSizeBytes: UInt32, slots: [Slot]) {
            self.blockSizeBytes = blockSizeBytes
            self.slots = slots
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            blockSizeBytes = try buffer.readRPC()
            slots = try buffer.readRPCArray(
                minimumElementBytes: 25,
                maximumCount: RPCMessageLimits.slotsMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
                Slot(
                    block: try b.readRPCIdentifier(),
                    version: try b.readRPCIdentifier(),
                    checksum: try b.readRPCIdentifier(),
                    encoding: try b.readRPC(),
                    storedBytes: try b.readRPC()
                )
            }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPC(blockSizeBytes)
            buffer.writeRPCArray(slots) {
                $0.writeRPCIdentifier($1.block)
                $0.writeRPCIdentifier($1.version)
                $0.writeRPCIdentifier($1.checksum)
                $0.writeRPC($1.encoding)
                $0.writeRPC($1.storedBytes)
            }
        }
    }
}

/// Deletes an object; answered with an empty body, also where there was none.
public struct DeleteObject: RPCMessage {
    /// 0x42.
    public static let type = RPCMessageType.deleteObject
    /// The key.
    public var object: ObjectID

    /// An object to delete.
    public init(object: ObjectID) { self.object = object }
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { object = try buffer.readRPCIdentifier() }
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { buffer.writeRPCIdentifier(object) }
}

/// Lists the objects that lie on a server, page by page, in an order of the server's own.
public struct ListObjects: RPCMessage {
    /// 0x43.
    public static let type = RPCMessageType.listObjects
    /// Where the page begins: nil for the first, else what the last page returned.
    public var after: ObjectID?
    /// Objects in the page, at most ``RPCMessageLimits/objectsMaximum``.
    public var limit: UInt32

    /// A question for a page.
    public init(after: ObjectID?, limit: UInt32) {
        self.after = after
        self.limit = limit
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        after = try buffer.readRPCOptional { (b: inout ByteBuffer) throws(RPCDecodingError) in
            try b.readRPCIdentifier()
        }
        limit = try buffer.readRPC()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCOptional(after) { $0.writeRPCIdentifier($1) }
        buffer.writeRPC(limit)
    }

    /// A page.
    public struct Answer: RPCMessage {
        /// 0x43.
        public static let type = RPCMessageType.listObjects
        /// The objects.
        public var objects: [ObjectID]
        /// Where the next page begins; nil at the end.
        public var next: ObjectID?

        /// A page of objects.
        public init(objects: [ObjectID], next: ObjectID?) {
            self.objects = objects
            self.next = next
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            objects = try buffer.readRPCArray(
                minimumElementBytes: 8,
                maximumCount: RPCMessageLimits.objectsMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCIdentifier() }
            next = try buffer.readRPCOptional { (b: inout ByteBuffer) throws(RPCDecodingError) in
                try b.readRPCIdentifier()
            }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCArray(objects) { $0.writeRPCIdentifier($1) }
            buffer.writeRPCOptional(next) { $0.writeRPCIdentifier($1) }
        }
    }
}

/// Reads a whole object and checks every checksum; answered with an empty body or `mediumError`.
public struct VerifyObject: RPCMessage {
    /// 0x44.
    public static let type = RPCMessageType.verifyObject
    /// The key.
    public var object: ObjectID

    /// An object to verify.
    public init(object: ObjectID) { self.object = object }
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { object = try buffer.readRPCIdentifier() }
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { buffer.writeRPCIdentifier(object) }
}

/// Asks an object server for its numbers.
public struct ObjectStatistics: RPCMessage {
    /// 0x45.
    public static let type = RPCMessageType.objectStatistics

    /// The request has no fields.
    public init() {}
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {}
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {}

    /// The numbers of an object server.
    public struct Answer: RPCMessage {
        /// 0x45.
        public static let type = RPCMessageType.objectStatistics
        /// The server.
        public var server: ObjectServerID
        /// Objects stored.
        public var objects: UInt64
        /// Bytes stored.
        public var bytes: UInt64
        /// Bytes free on the roots in service.
        public var freeBytes: UInt64
        /// Roots that take no puts any more.
        public var rootsOutOfService: UInt32

        /// Numbers for an answer.
        public init(
            server: ObjectServerID,
            objects: UInt64,
            bytes: UInt64,
            freeBytes: UInt64,
            rootsOutOfService: UInt32
        ) {
            self.server = server
            self.objects = objects
            self.bytes = bytes
            self.freeBytes = freeBytes
            self.rootsOutOfService = rootsOutOfService
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            server = try buffer.readRPCIdentifier()
            objects = try buffer.readRPC()
            bytes = try buffer.readRPC()
            freeBytes = try buffer.readRPC()
            rootsOutOfService = try buffer.readRPC()
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCIdentifier(server)
            buffer.writeRPC(objects)
            buffer.writeRPC(bytes)
            buffer.writeRPC(freeBytes)
            buffer.writeRPC(rootsOutOfService)
        }
    }
}
