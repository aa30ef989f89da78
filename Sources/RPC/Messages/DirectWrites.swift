public import AshlarCore
public import NIOCore

/// Asks the owner for objects that may be filled with direct writes (M4).
public struct BeginDirect: RPCMessage {
    /// 0x2B.
    public static let type = RPCMessageType.beginDirect
    /// The volume.
    public var volume: VolumeID
    /// The epoch that the objects are for.
    public var epoch: Epoch
    /// Objects wanted, at most.
    public var count: UInt32

    /// A question for objects.
    public init(volume: VolumeID, epoch: Epoch, count: UInt32) {
        self.volume = volume
        self.epoch = epoch
        self.count = count
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        volume = try buffer.readRPCIdentifier()
        epoch = try buffer.readRPCIdentifier()
        count = try buffer.readRPC()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCIdentifier(volume)
        buffer.writeRPCIdentifier(epoch)
        buffer.writeRPC(count)
    }

    /// An object with the versions of its slots.
    public struct Grant: Sendable, Hashable {
        /// The object; its intent is committed (I6).
        public var object: ObjectID
        /// The version of slot 0; each further slot has the next one.
        public var firstVersion: Version
        /// Slots that it may have.
        public var slots: UInt32

        /// An object with its versions.
        public init(object: ObjectID, firstVersion: Version, slots: UInt32) {
            self.object = object
            self.firstVersion = firstVersion
            self.slots = slots
        }
    }

    /// The objects; without any, writes go through the cache for now.
    public struct Answer: RPCMessage {
        /// 0x2B.
        public static let type = RPCMessageType.beginDirect
        /// The owner's time.
        public var stamp: Stamp
        /// The objects, in the order of their versions.
        public var grants: [Grant]

        /// An answer with both parts named.
        public init(stamp: Stamp, grants: [Grant]) {
            self.stamp = stamp
            self.grants = grants
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            stamp = try buffer.readRPCStamp()
            grants = try buffer.readRPCArray(
                minimumElementBytes: 20,
                maximumCount: RPCMessageLimits.directGrantsMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
                Grant(
                    object: try b.readRPCIdentifier(),
                    firstVersion: try b.readRPCIdentifier(),
                    slots: try b.readRPC()
                )
            }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCStamp(stamp)
            buffer.writeRPCArray(grants) {
                $0.writeRPCIdentifier($1.object)
                $0.writeRPCIdentifier($1.firstVersion)
                $0.writeRPC($1.slots)
            }
        }
    }
}

/// Maps an object that was filled with direct writes, each of which is a command of its own (M4).
public struct MapDirect: RPCMessage {
    /// 0x2C.
    public static let type = RPCMessageType.mapDirect
    /// The volume.
    public var volume: VolumeID
    /// The object, which is put and synced (M9).
    public var object: ObjectID
    /// Where it lies.
    public var server: ObjectServerID
    /// Its size in bytes.
    public var sizeBytes: UInt64
    /// The writes in slot order.
    public var writes: [Write]

    /// A write command.
    public struct Write: Sendable, Hashable {
        /// The nexus it came through.
        public var nexus: NexusNumber
        /// Its number in the nexus.
        public var command: CommandID
        /// As in ``CommandHeader``.
        public var lowWater: CommandID
        /// As in ``CommandHeader``.
        public var proved: Stamp
        /// The data blocks, whose slots lie behind those of the write before.
        public var blocks: BlockRange

        /// A write with each part named.
        public init(nexus: NexusNumber, command: CommandID, lowWater: CommandID, proved: Stamp, blocks: BlockRange) {
            self.nexus = nexus
            self.command = command
            self.lowWater = lowWater
            self.proved = proved
            self.blocks = blocks
        }
    }

    /// A map with each part named.
    public init(volume: VolumeID, object: ObjectID, server: ObjectServerID, sizeBytes: UInt64, writes: [Write]) {
        self.volume = volume
        self.object = object
        self.server = server
        self.sizeBytes = sizeBytes
        self.writes = writes
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        volume = try buffer.readRPCIdentifier()
        object = try buffer.readRPCIdentifier()
        server = try buffer.readRPCIdentifier()
        sizeBytes = try buffer.readRPC()
        writes = try buffer.readRPCArray(
            minimumElementBytes: 56,
            maximumCount: RPCMessageLimits.directWritesMaximum
        ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
            Write(
                nexus: try b.readRPCIdentifier(),
                command: try b.readRPCIdentifier(),
                lowWater: try b.readRPCIdentifier(),
                proved: try b.readRPCStamp(),
                blocks: try b.readRPCBlockRange()
            )
        }
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCIdentifier(volume)
        buffer.writeRPCIdentifier(object)
        buffer.writeRPCIdentifier(server)
        buffer.writeRPC(sizeBytes)
        buffer.writeRPCArray(writes) {
            $0.writeRPCIdentifier($1.nexus)
            $0.writeRPCIdentifier($1.command)
            $0.writeRPCIdentifier($1.lowWater)
            $0.writeRPCStamp($1.proved)
            $0.writeRPCBlockRange($1.blocks)
        }
    }

    /// What became of one write.
    public struct Outcome: Sendable, Hashable {
        /// The status that a write of its own would have; `stale`: to be sent as such.
        public var status: RPCStatus
        /// The owner's time; 0, 0 where it has none for the volume.
        public var stamp: Stamp
        /// As in ``CommandAnswer``.
        public var detail: UInt64

        /// An outcome with each part named.
        public init(status: RPCStatus, stamp: Stamp, detail: UInt64) {
            self.status = status
            self.stamp = stamp
            self.detail = detail
        }
    }

    /// What became of the writes.
    public struct Answer: RPCMessage {
        /// 0x2C.
        public static let type = RPCMessageType.mapDirect
        /// In the order of the request.
        public var outcomes: [Outcome]

        /// An answer.
        public init(outcomes: [Outcome]) { self.outcomes = outcomes }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            outcomes = try buffer.readRPCArray(
                minimumElementBytes: 28,
                maximumCount: RPCMessageLimits.directWritesMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
                Outcome(
                    status: RPCStatus(rawValue: try b.readRPC()),
                    stamp: try b.readRPCStamp(),
                    detail: try b.readRPC()
                )
            }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCArray(outcomes) {
                $0.writeRPC($1.status.rawValue)
                $0.writeRPCStamp($1.stamp)
                $0.writeRPC($1.detail)
            }
        }
    }
}
