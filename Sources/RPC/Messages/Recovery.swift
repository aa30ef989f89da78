public import AshlarCore
public import NIOCore

// What agents and control need to keep objects whole: the age of the database, scrubbing, headers.

/// Asks a cache server whether the database is older than what lies on the object servers (M8); where it is not, its clock ticks.
public struct DatabaseAge: RPCMessage {
    /// 0x38.
    public static let type = RPCMessageType.databaseAge
    /// What object servers have said, each at most once.
    public var marks: [Mark]

    /// What an object server knows of the database.
    public struct Mark: Sendable, Hashable {
        /// The object server.
        public var server: ObjectServerID
        /// The highest clock that it was ever told; 0: none.
        public var clock: UInt64
        /// The highest object id that lay there since it was started; 0: none.
        public var highestObject: ObjectID

        /// What a server said.
        public init(server: ObjectServerID, clock: UInt64, highestObject: ObjectID) {
            self.server = server
            self.clock = clock
            self.highestObject = highestObject
        }
    }

    /// A question with what was said.
    public init(marks: [Mark]) { self.marks = marks }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        marks = try buffer.readRPCArray(
            minimumElementBytes: 20,
            maximumCount: RPCMessageLimits.objectServersMaximum
        ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
            Mark(server: try b.readRPCIdentifier(), clock: try b.readRPC(), highestObject: try b.readRPCIdentifier())
        }
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCArray(marks) {
            $0.writeRPCIdentifier($1.server)
            $0.writeRPC($1.clock)
            $0.writeRPCIdentifier($1.highestObject)
        }
    }

    /// Whether objects may be deleted.
    public struct Answer: RPCMessage {
        /// 0x38.
        public static let type = RPCMessageType.databaseAge
        /// Whether a server knows more than the database: nothing may be deleted then.
        public var isBehind: Bool
        /// The clock of the database, which only grows; to be told to the object servers where it is not behind.
        public var clock: UInt64
        /// The first object id that has never been handed out.
        public var nextObject: ObjectID

        /// An answer with each part named.
        public init(isBehind: Bool, clock: UInt64, nextObject: ObjectID) {
            self.isBehind = isBehind
            self.clock = clock
            self.nextObject = nextObject
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            isBehind = try buffer.readRPCBool()
            clock = try buffer.readRPC()
            nextObject = try buffer.readRPCIdentifier()
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCBool(isBehind)
            buffer.writeRPC(clock)
            buffer.writeRPCIdentifier(nextObject)
        }
    }
}

/// Asks a cache server for objects to verify; it verifies some items itself on the way (I11).
public struct ScrubWork: RPCMessage {
    /// 0x39.
    public static let type = RPCMessageType.scrubWork

    /// The request has no fields.
    public init() {}
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {}
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {}

    /// An object to verify.
    public struct Object: Sendable, Hashable {
        /// The object.
        public var object: ObjectID
        /// Where it lies.
        public var server: ObjectServerID
        /// Its slots.
        public var slots: UInt32
        /// Its size in bytes.
        public var sizeBytes: UInt64

        /// An object with its measures.
        public init(object: ObjectID, server: ObjectServerID, slots: UInt32, sizeBytes: UInt64) {
            self.object = object
            self.server = server
            self.slots = slots
            self.sizeBytes = sizeBytes
        }
    }

    /// Objects to verify; without any there is nothing to do, or nothing yet.
    public struct Answer: RPCMessage {
        /// 0x39.
        public static let type = RPCMessageType.scrubWork
        /// Names the piece of work; what is reported for an older one moves the scrub no further.
        public var token: UInt64
        /// The objects, ascending.
        public var objects: [Object]
        /// Items that were verified on the way.
        public var items: UInt64

        /// A piece of work.
        public init(token: UInt64, objects: [Object], items: UInt64) {
            self.token = token
            self.objects = objects
            self.items = items
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            token = try buffer.readRPC()
            objects = try buffer.readRPCArray(
                minimumElementBytes: 24,
                maximumCount: RPCMessageLimits.objectsMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
                Object(
                    object: try b.readRPCIdentifier(),
                    server: try b.readRPCIdentifier(),
                    slots: try b.readRPC(),
                    sizeBytes: try b.readRPC()
                )
            }
            items = try buffer.readRPC()
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPC(token)
            buffer.writeRPCArray(objects) {
                $0.writeRPCIdentifier($1.object)
                $0.writeRPCIdentifier($1.server)
                $0.writeRPC($1.slots)
                $0.writeRPC($1.sizeBytes)
            }
            buffer.writeRPC(items)
        }
    }
}

/// Says how objects were found, by a scrub or by a compaction; answered with a ``CountAnswer``.
public struct ReportObjects: RPCMessage {
    /// 0x3A.
    public static let type = RPCMessageType.reportObjects
    /// The piece of a scrub that this ends; 0: none.
    public var token: UInt64
    /// The objects.
    public var objects: [Finding]

    /// How an object was found.
    public enum State: UInt8, Sendable, Hashable, CaseIterable {
        /// All of it was read and is sound.
        case sound = 0
        /// All of it was read; these slots are damaged.
        case damaged = 1
        /// These slots are damaged; the others were not looked at.
        case partlyRead = 2
        /// No slot can be read.
        case unreadable = 3
        /// It does not lie there.
        case missing = 4
        /// Its server did not answer: nothing is known.
        case unknown = 5
    }

    /// One object.
    public struct Finding: Sendable, Hashable {
        /// The object.
        public var object: ObjectID
        /// How it was found.
        public var state: State
        /// The damaged slots, ascending.
        public var slots: [SlotIndex]

        /// What was found of an object.
        public init(object: ObjectID, state: State, slots: [SlotIndex] = []) {
            self.object = object
            self.state = state
            self.slots = slots
        }
    }

    /// A report.
    public init(token: UInt64, objects: [Finding]) {
        self.token = token
        self.objects = objects
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        token = try buffer.readRPC()
        objects = try buffer.readRPCArray(
            minimumElementBytes: 13,
            maximumCount: RPCMessageLimits.objectsReportedMaximum
        ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
            let object: ObjectID = try b.readRPCIdentifier()
            guard let state = State(rawValue: try b.readRPC()) else {
                throw RPCDecodingError.invalidValue(field: "state of an object")
            }
            let slots = try b.readRPCArray(
                minimumElementBytes: 4,
                maximumCount: RPCMessageLimits.slotsMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) -> SlotIndex in try b.readRPCIdentifier() }
            return Finding(object: object, state: state, slots: slots)
        }
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPC(token)
        buffer.writeRPCArray(objects) {
            $0.writeRPCIdentifier($1.object)
            $0.writeRPC($1.state.rawValue)
            $0.writeRPCArray($1.slots) { $0.writeRPCIdentifier($1) }
        }
    }
}

/// Asks a cache server which object servers take no new objects because they are drained.
public struct DrainingServers: RPCMessage {
    /// 0x3B.
    public static let type = RPCMessageType.drainingServers

    /// The request has no fields.
    public init() {}
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {}
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {}

    /// The servers.
    public struct Answer: RPCMessage {
        /// 0x3B.
        public static let type = RPCMessageType.drainingServers
        /// Those that are drained, ascending.
        public var servers: [ObjectServerID]

        /// Servers for an answer.
        public init(servers: [ObjectServerID]) { self.servers = servers }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            servers = try buffer.readRPCArray(
                minimumElementBytes: 4,
                maximumCount: RPCMessageLimits.objectServersMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCIdentifier() }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCArray(servers) { $0.writeRPCIdentifier($1) }
        }
    }
}

/// Asks an object server for the header of an object: what rebuilding the map needs.
public struct ObjectHeader: RPCMessage {
    /// 0x46.
    public static let type = RPCMessageType.objectHeader
    /// The key.
    public var object: ObjectID

    /// An object whose header is wanted.
    public init(object: ObjectID) { self.object = object }
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { object = try buffer.readRPCIdentifier() }
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { buffer.writeRPCIdentifier(object) }

    /// What a header says of a slot.
    public struct Slot: Sendable, Hashable {
        /// The data block.
        public var block: BlockID
        /// Its version.
        public var version: Version

        /// A slot.
        public init(block: BlockID, version: Version) {
            self.block = block
            self.version = version
        }
    }

    /// A header.
    public struct Answer: RPCMessage {
        /// 0x46.
        public static let type = RPCMessageType.objectHeader
        /// The volume.
        public var volume: VolumeID
        /// Its UUID.
        public var uuid: [UInt8]
        /// Bytes in a data block.
        public var blockSizeBytes: UInt32
        /// Bytes of the object.
        public var sizeBytes: UInt64
        /// Slot i is element i.
        public var slots: [Slot]

        /// A header with each part named.
        public init(volume: VolumeID, uuid: [UInt8], blockSizeBytes: UInt32, sizeBytes: UInt64, slots: [Slot]) {
            self.volume = volume
            self.uuid = uuid
            self.blockSizeBytes = blockSizeBytes
            self.sizeBytes = sizeBytes
            self.slots = slots
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            volume = try buffer.readRPCIdentifier()
            uuid = Array(try buffer.readRPCBytes(count: 16).readableBytesView)
            blockSizeBytes = try buffer.readRPC()
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
            precondition(uuid.count == 16, "a UUID has 16 bytes")
            buffer.writeRPCIdentifier(volume)
            buffer.writeBytes(uuid)
            buffer.writeRPC(blockSizeBytes)
            buffer.writeRPC(sizeBytes)
            buffer.writeRPCArray(slots) {
                $0.writeRPCIdentifier($1.block)
                $0.writeRPCIdentifier($1.version)
            }
        }
    }
}

/// Tells an object server the clock of the database, which it keeps durably where it is higher than the one that it has.
public struct RaiseClock: RPCMessage {
    /// 0x47.
    public static let type = RPCMessageType.raiseClock
    /// The clock; 0 to ask only.
    public var clock: UInt64

    /// A clock to keep.
    public init(clock: UInt64) { self.clock = clock }
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { clock = try buffer.readRPC() }
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { buffer.writeRPC(clock) }

    /// What the server knows of the database.
    public struct Answer: RPCMessage {
        /// 0x47.
        public static let type = RPCMessageType.raiseClock
        /// The clock that it keeps now; 0: none.
        public var clock: UInt64
        /// The highest object id that lay there since it was started; 0: none.
        public var highestObject: ObjectID

        /// What a server knows.
        public init(clock: UInt64, highestObject: ObjectID) {
            self.clock = clock
            self.highestObject = highestObject
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            clock = try buffer.readRPC()
            highestObject = try buffer.readRPCIdentifier()
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPC(clock)
            buffer.writeRPCIdentifier(highestObject)
        }
    }
}
