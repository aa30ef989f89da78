public import AshlarCore
public import NIOCore

/// What each command carries beside what it does (R1, R4, R5).
public struct CommandHeader: Sendable, Hashable {
    /// The volume.
    public var volume: VolumeID
    /// The nexus it came through.
    public var nexus: NexusNumber
    /// Its number in the nexus.
    public var command: CommandID
    /// Every command of the nexus below this one has been answered to the initiator or given up.
    public var lowWater: CommandID
    /// The newest stamp that the initiator has proved; its epoch is the one the command was made for.
    public var proved: Stamp

    /// The header of a command.
    public init(
        volume: VolumeID,
        nexus: NexusNumber,
        command: CommandID,
        lowWater: CommandID,
        proved: Stamp
    ) {
        self.volume = volume
        self.nexus = nexus
        self.command = command
        self.lowWater = lowWater
        self.proved = proved
    }

    init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        // All of it at once: it comes with every command.
        guard
            let fields = buffer.readMultipleIntegers(as: (Int64, UInt64, UInt64, UInt64, UInt64, UInt64).self)
        else {
            throw RPCDecodingError.truncated(neededBytes: Self.byteCount, availableBytes: buffer.readableBytes)
        }
        volume = VolumeID(fields.0)
        nexus = NexusNumber(fields.1)
        command = CommandID(fields.2)
        lowWater = CommandID(fields.3)
        proved = Stamp(epoch: Epoch(fields.4), time: MonotonicTime(fields.5))
    }

    private static let byteCount = 48

    func encode(into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(
            volume.rawValue,
            nexus.rawValue,
            command.rawValue,
            lowWater.rawValue,
            proved.epoch.rawValue,
            proved.time.rawValue
        )
    }
}

/// Reads bytes of a volume.
public struct ReadCommand: RPCMessage {
    /// 0x20.
    public static let type = RPCMessageType.read
    /// Nexus, number, evidence.
    public var header: CommandHeader
    /// The bytes; multiples of the logical block.
    public var range: ByteRange

    /// A read.
    public init(header: CommandHeader, range: ByteRange) {
        self.header = header
        self.range = range
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        header = try CommandHeader(decoding: &buffer)
        range = try buffer.readRPCByteRange()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        header.encode(into: &buffer)
        buffer.writeRPCByteRange(range)
    }

    /// A run of whole data blocks in the answer.
    public enum Run: Sendable, Hashable {
        /// The payload holds their bytes; one checksum a block.
        case bytes(checksums: [Checksum])
        /// They lie in an object, in slots that were written as the blocks from `origin` on; nil: as the blocks that they are.
        case object(ObjectID, server: ObjectServerID, firstSlot: SlotIndex, origin: BlockID?, count: UInt32)
        /// They were never written, or unmapped.
        case zeros(count: UInt32)

        /// Data blocks in the run.
        public var count: Int {
            switch self {
            case .bytes(let checksums): checksums.count
            case .object(_, _, _, _, let count), .zeros(let count): Int(count)
            }
        }
    }

    /// Runs that cover every data block which the range touches. The bytes of `bytes` runs follow as payload, in order.
    public struct Answer: RPCMessage {
        /// 0x20.
        public static let type = RPCMessageType.read
        /// The owner's time.
        public var stamp: Stamp
        /// The runs, in block order.
        public var runs: [Run]

        /// An answer to a read.
        public init(stamp: Stamp, runs: [Run]) {
            self.stamp = stamp
            self.runs = runs
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            stamp = try buffer.readRPCStamp()
            runs = try buffer.readRPCArray(
                minimumElementBytes: 5,
                maximumCount: RPCMessageLimits.readRunsMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
                let kind = try b.readRPC(UInt8.self)
                switch kind {
                case 0: return .zeros(count: try b.readRPC())
                case 1:
                    return .bytes(
                        checksums: try b.readRPCArray(minimumElementBytes: 4) {
                            (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCIdentifier()
                        }
                    )
                case 2, 3:
                    return .object(
                        try b.readRPCIdentifier(),
                        server: try b.readRPCIdentifier(),
                        firstSlot: try b.readRPCIdentifier(),
                        origin: kind == 3 ? try b.readRPCIdentifier() : nil,
                        count: try b.readRPC()
                    )
                default: throw RPCDecodingError.invalidValue(field: "run")
                }
            }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCStamp(stamp)
            buffer.writeRPCArray(runs) {
                switch $1 {
                case .zeros(let count):
                    $0.writeRPC(UInt8(0))
                    $0.writeRPC(count)
                case .bytes(let checksums):
                    $0.writeRPC(UInt8(1))
                    $0.writeRPCArray(checksums) { $0.writeRPCIdentifier($1) }
                case .object(let object, let server, let firstSlot, let origin, let count):
                    $0.writeRPC(UInt8(origin == nil ? 2 : 3))
                    $0.writeRPCIdentifier(object)
                    $0.writeRPCIdentifier(server)
                    $0.writeRPCIdentifier(firstSlot)
                    if let origin { $0.writeRPCIdentifier(origin) }
                    $0.writeRPC(count)
                }
            }
        }
    }
}

/// Writes bytes of a volume; the bytes follow as payload.
public struct WriteCommand: RPCMessage {
    /// 0x21.
    public static let type = RPCMessageType.write
    /// Nexus, number, evidence.
    public var header: CommandHeader
    /// Offset of the first byte; a multiple of the logical block.
    public var offset: UInt64
    /// CRC-32C of each piece of the payload, cut at the borders of data blocks (I11).
    public var checksums: [Checksum]

    /// A write.
    public init(header: CommandHeader, offset: UInt64, checksums: [Checksum]) {
        self.header = header
        self.offset = offset
        self.checksums = checksums
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        header = try CommandHeader(decoding: &buffer)
        offset = try buffer.readRPC()
        checksums = try buffer.readRPCArray(minimumElementBytes: 4) {
            (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCIdentifier()
        }
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        header.encode(into: &buffer)
        buffer.writeRPC(offset)
        buffer.writeRPCArray(checksums) { $0.writeRPCIdentifier($1) }
    }
}

/// Makes bytes of a volume zeros: UNMAP and WRITE SAME with zeros.
public struct ZeroCommand: RPCMessage {
    /// 0x22.
    public static let type = RPCMessageType.zero
    /// Nexus, number, evidence.
    public var header: CommandHeader
    /// The bytes, each run a multiple of the logical block; together at most ``Limits/zeroStepMaximumBytes``.
    public var ranges: [ByteRange]

    /// An unmap.
    public init(header: CommandHeader, ranges: [ByteRange]) {
        self.header = header
        self.ranges = ranges
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        header = try CommandHeader(decoding: &buffer)
        ranges = try buffer.readRPCArray(
            minimumElementBytes: 16,
            maximumCount: Limits.unmapDescriptorsMaximum
        ) { (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCByteRange() }
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        header.encode(into: &buffer)
        buffer.writeRPCArray(ranges) { $0.writeRPCByteRange($1) }
    }
}

/// Copies bytes of a volume to another place in it: EXTENDED COPY, where both ends are made of data blocks.
public struct CopyCommand: RPCMessage {
    /// 0x2A.
    public static let type = RPCMessageType.copy
    /// Nexus, number, evidence.
    public var header: CommandHeader
    /// Offset of the first byte to copy; a multiple of the data block, like the others.
    public var source: UInt64
    /// Offset of the first byte of the copy, which does not overlap what is copied.
    public var destination: UInt64
    /// Bytes; at most ``Limits/transferMaximumBytes``.
    public var count: UInt64

    /// A copy.
    public init(header: CommandHeader, source: UInt64, destination: UInt64, count: UInt64) {
        self.header = header
        self.source = source
        self.destination = destination
        self.count = count
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        header = try CommandHeader(decoding: &buffer)
        source = try buffer.readRPC()
        destination = try buffer.readRPC()
        count = try buffer.readRPC()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        header.encode(into: &buffer)
        buffer.writeRPC(source)
        buffer.writeRPC(destination)
        buffer.writeRPC(count)
    }
}

/// COMPARE AND WRITE (SBC-4, 5.3): the payload holds the bytes to compare with, then as many to write.
public struct CompareAndWriteCommand: RPCMessage {
    /// 0x23.
    public static let type = RPCMessageType.compareAndWrite
    /// Nexus, number, evidence.
    public var header: CommandHeader
    /// Offset of the first byte; a multiple of the logical block.
    public var offset: UInt64
    /// CRC-32C of the whole payload (I11).
    public var checksum: Checksum

    /// A compare and write.
    public init(header: CommandHeader, offset: UInt64, checksum: Checksum) {
        self.header = header
        self.offset = offset
        self.checksum = checksum
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        header = try CommandHeader(decoding: &buffer)
        offset = try buffer.readRPC()
        checksum = try buffer.readRPCIdentifier()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        header.encode(into: &buffer)
        buffer.writeRPC(offset)
        buffer.writeRPCIdentifier(checksum)
    }
}

/// Refuses every command of a nexus below a number that has not begun, and answers once those that have begun are
/// finished: task management (R6).
public struct FenceCommand: RPCMessage {
    /// 0x24.
    public static let type = RPCMessageType.fence
    /// Nexus, number, evidence. Its own number bounds those that are fenced.
    public var header: CommandHeader
    /// The commands to fence; none means all below the header's.
    public var commands: [CommandID]

    /// A fence.
    public init(header: CommandHeader, commands: [CommandID]) {
        self.header = header
        self.commands = commands
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        header = try CommandHeader(decoding: &buffer)
        commands = try buffer.readRPCArray(
            minimumElementBytes: 8,
            maximumCount: RPCMessageLimits.outcomesMaximum
        ) { (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCIdentifier() }
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        header.encode(into: &buffer)
        buffer.writeRPCArray(commands) { $0.writeRPCIdentifier($1) }
    }
}

/// The answer to every command that returns no data: a stamp, and for a miscompare where.
public struct CommandAnswer: RPCMessage {
    /// The type is that of the command it answers; this one stands for all of them in the codec.
    public static let type = RPCMessageType.write
    /// The owner's time.
    public var stamp: Stamp
    /// For the status `miscompare`: offset of the first byte that differs, from the start of the command's data. For
    /// `mediumError`: offset of the bad block from the start of the volume. For `wrongEpoch`: the current epoch.
    public var detail: UInt64

    /// An answer.
    public init(stamp: Stamp, detail: UInt64 = 0) {
        self.stamp = stamp
        self.detail = detail
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        stamp = try buffer.readRPCStamp()
        detail = try buffer.readRPC()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCStamp(stamp)
        buffer.writeRPC(detail)
    }
}
