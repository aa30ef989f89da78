public import AshlarCore
public import NIOCore

/// Tells a cache server that a volume's row has changed; answered with an empty body once the owner serves the newest.
public struct ReloadVolume: RPCMessage {
    /// 0x50.
    public static let type = RPCMessageType.reloadVolume
    /// The volume.
    public var volume: VolumeID

    /// A volume to read again.
    public init(volume: VolumeID) { self.volume = volume }
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { volume = try buffer.readRPCIdentifier() }
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { buffer.writeRPCIdentifier(volume) }
}

/// Asks a cache server for its numbers.
public struct CacheStatistics: RPCMessage {
    /// 0x51.
    public static let type = RPCMessageType.cacheStatistics

    /// The request has no fields.
    public init() {}
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {}
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {}

    /// The numbers of one volume.
    public struct Volume: Sendable, Hashable {
        /// The volume.
        public var volume: VolumeID
        /// The epoch served.
        public var epoch: Epoch
        /// Open nexuses.
        public var nexuses: UInt32
        /// Unmoved items.
        public var unmovedItems: UInt64
        /// Bytes of items, moved or not.
        public var cachedBytes: UInt64
        /// Reads and writes served since the takeover.
        public var reads: UInt64
        /// Writes served since the takeover.
        public var writes: UInt64

        /// Numbers of a volume.
        public init(
            volume: VolumeID,
            epoch: Epoch,
            nexuses: UInt32,
            unmovedItems: UInt64,
            cachedBytes: UInt64,
            reads: UInt64,
            writes: UInt64
        ) {
            self.volume = volume
            self.epoch = epoch
            self.nexuses = nexuses
            self.unmovedItems = unmovedItems
            self.cachedBytes = cachedBytes
            self.reads = reads
            self.writes = writes
        }
    }

    /// The numbers of a cache server.
    public struct Answer: RPCMessage {
        /// 0x51.
        public static let type = RPCMessageType.cacheStatistics
        /// Bytes of block data in memory.
        public var imageBytes: UInt64
        /// Commits made.
        public var commits: UInt64
        /// Blocks committed.
        public var committedBlocks: UInt64
        /// Owned volumes that have sessions or unmoved items.
        public var volumes: [Volume]

        /// Numbers for an answer.
        public init(imageBytes: UInt64, commits: UInt64, committedBlocks: UInt64, volumes: [Volume]) {
            self.imageBytes = imageBytes
            self.commits = commits
            self.committedBlocks = committedBlocks
            self.volumes = volumes
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            imageBytes = try buffer.readRPC()
            commits = try buffer.readRPC()
            committedBlocks = try buffer.readRPC()
            volumes = try buffer.readRPCArray(minimumElementBytes: 52) {
                (b: inout ByteBuffer) throws(RPCDecodingError) in
                Volume(
                    volume: try b.readRPCIdentifier(),
                    epoch: try b.readRPCIdentifier(),
                    nexuses: try b.readRPC(),
                    unmovedItems: try b.readRPC(),
                    cachedBytes: try b.readRPC(),
                    reads: try b.readRPC(),
                    writes: try b.readRPC()
                )
            }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPC(imageBytes)
            buffer.writeRPC(commits)
            buffer.writeRPC(committedBlocks)
            buffer.writeRPCArray(volumes) {
                $0.writeRPCIdentifier($1.volume)
                $0.writeRPCIdentifier($1.epoch)
                $0.writeRPC($1.nexuses)
                $0.writeRPC($1.unmovedItems)
                $0.writeRPC($1.cachedBytes)
                $0.writeRPC($1.reads)
                $0.writeRPC($1.writes)
            }
        }
    }
}

/// Tells the owner to move every unmoved item of a volume, whatever its policy; answered with a ``CountAnswer`` whose
/// `left` is the number of items still unmoved. Asked again to follow the progress.
public struct MoveNow: RPCMessage {
    /// 0x52.
    public static let type = RPCMessageType.moveNow
    /// The volume.
    public var volume: VolumeID

    /// A volume to drain.
    public init(volume: VolumeID) { self.volume = volume }
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { volume = try buffer.readRPCIdentifier() }
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { buffer.writeRPCIdentifier(volume) }
}

/// Removes a bounded part of the rows of a volume that is marked as being deleted; answered with a ``CountAnswer`` whose
/// `left` is 0 once the volume is gone. The first step ends the epoch, so that nothing is written any more.
public struct DeleteVolumeStep: RPCMessage {
    /// 0x53.
    public static let type = RPCMessageType.deleteVolumeStep
    /// The volume, whose row says that it is being deleted.
    public var volume: VolumeID

    /// A step.
    public init(volume: VolumeID) { self.volume = volume }
    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { volume = try buffer.readRPCIdentifier() }
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { buffer.writeRPCIdentifier(volume) }
}
