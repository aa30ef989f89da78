public import AshlarCore
public import NIOCore

extension ByteBuffer {
    mutating func readRPCNexusPorts() throws(RPCDecodingError) -> InitiatorTargetNexus {
        InitiatorTargetNexus(
            initiatorName: try readRPCString(maximumBytes: 255),
            isid: try readRPCISID(),
            portalGroupTag: try readRPC()
        )
    }

    /// An ISID, which has 48 bits (RFC 7143, 11.12.5).
    mutating func readRPCISID() throws(RPCDecodingError) -> UInt64 {
        let isid = try readRPC(UInt64.self)
        guard isid >> 48 == 0 else { throw RPCDecodingError.invalidValue(field: "ISID") }
        return isid
    }

    mutating func writeRPCNexusPorts(_ ports: InitiatorTargetNexus) {
        writeRPCString(ports.initiatorName, maximumBytes: 255)
        writeRPC(ports.isid)
        writeRPC(ports.portalGroupTag)
    }
}

/// Logs an initiator port in to a volume; closes every older nexus between the same ports first (R3).
public struct OpenNexus: RPCMessage {
    /// 0x12.
    public static let type = RPCMessageType.openNexus
    /// The volume.
    public var volume: VolumeID
    /// The ports that it joins.
    public var ports: InitiatorTargetNexus
    /// The node through which the initiator comes.
    public var node: String

    /// A login.
    public init(volume: VolumeID, ports: InitiatorTargetNexus, node: String) {
        self.volume = volume
        self.ports = ports
        self.node = node
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        volume = try buffer.readRPCIdentifier()
        ports = try buffer.readRPCNexusPorts()
        node = try buffer.readRPCString()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCIdentifier(volume)
        buffer.writeRPCNexusPorts(ports)
        buffer.writeRPCString(node)
    }

    /// The open nexus.
    public struct Answer: RPCMessage {
        /// 0x12.
        public static let type = RPCMessageType.openNexus
        /// Its number.
        public var nexus: NexusNumber
        /// A stamp: the login itself proves the initiator at this time.
        public var stamp: Stamp

        /// An open nexus.
        public init(nexus: NexusNumber, stamp: Stamp) {
            self.nexus = nexus
            self.stamp = stamp
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            nexus = try buffer.readRPCIdentifier()
            stamp = try buffer.readRPCStamp()
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCIdentifier(nexus)
            buffer.writeRPCStamp(stamp)
        }
    }
}

/// Takes a nexus up again under a new epoch, with a stamp of that epoch which the initiator has proved (R2).
public struct ResumeNexus: RPCMessage {
    /// 0x13.
    public static let type = RPCMessageType.resumeNexus
    /// The volume.
    public var volume: VolumeID
    /// The nexus.
    public var nexus: NexusNumber
    /// The proved stamp.
    public var stamp: Stamp

    /// A nexus and the evidence for it.
    public init(volume: VolumeID, nexus: NexusNumber, stamp: Stamp) {
        self.volume = volume
        self.nexus = nexus
        self.stamp = stamp
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        volume = try buffer.readRPCIdentifier()
        nexus = try buffer.readRPCIdentifier()
        stamp = try buffer.readRPCStamp()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCIdentifier(volume)
        buffer.writeRPCIdentifier(nexus)
        buffer.writeRPCStamp(stamp)
    }

    /// What became of the nexus's commands in earlier epochs: a change that is not listed was not done by what was sent there, and
    /// never will be (R9).
    public struct Answer: RPCMessage {
        /// 0x13.
        public static let type = RPCMessageType.resumeNexus
        /// Commands that are durable, ascending.
        public var done: [CommandID]
        /// Another nexus aborted all changes that came when their initiator had proved no more than this; nil where none did.
        public var aborted: Stamp?
        /// A newer stamp.
        public var stamp: Stamp

        /// The outcomes of earlier epochs.
        public init(done: [CommandID], aborted: Stamp? = nil, stamp: Stamp) {
            self.done = done
            self.aborted = aborted
            self.stamp = stamp
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            done = try buffer.readRPCArray(
                minimumElementBytes: 8,
                maximumCount: RPCMessageLimits.outcomesMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCIdentifier() }
            aborted = try buffer.readRPCOptional { (b: inout ByteBuffer) throws(RPCDecodingError) in
                try b.readRPCStamp()
            }
            stamp = try buffer.readRPCStamp()
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCArray(done) { $0.writeRPCIdentifier($1) }
            buffer.writeRPCOptional(aborted) { $0.writeRPCStamp($1) }
            buffer.writeRPCStamp(stamp)
        }
    }
}

/// Logs an initiator port out.
public struct CloseNexus: RPCMessage {
    /// 0x14.
    public static let type = RPCMessageType.closeNexus
    /// The volume.
    public var volume: VolumeID
    /// The nexus.
    public var nexus: NexusNumber

    /// A logout.
    public init(volume: VolumeID, nexus: NexusNumber) {
        self.volume = volume
        self.nexus = nexus
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        volume = try buffer.readRPCIdentifier()
        nexus = try buffer.readRPCIdentifier()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCIdentifier(volume)
        buffer.writeRPCIdentifier(nexus)
    }
}

/// Asks for fresh stamps of volumes whose sessions are idle.
public struct Stamps: RPCMessage {
    /// 0x15.
    public static let type = RPCMessageType.stamps
    /// The volumes.
    public var volumes: [VolumeID]

    /// A question for stamps.
    public init(volumes: [VolumeID]) { self.volumes = volumes }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        volumes = try buffer.readRPCArray(
            minimumElementBytes: 8,
            maximumCount: RPCMessageLimits.stampsMaximum
        ) { (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCIdentifier() }
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCArray(volumes) { $0.writeRPCIdentifier($1) }
    }

    /// The stamps, in the order of the question.
    public struct Answer: RPCMessage {
        /// 0x15.
        public static let type = RPCMessageType.stamps
        /// A stamp with the volume's revision for each volume that this server owns; nil for others.
        public var stamps: [Entry?]

        /// What an owner says of a volume.
        public struct Entry: Sendable, Hashable {
            /// The owner's epoch and time.
            public var stamp: Stamp
            /// The revision of the volume's description.
            public var revision: UInt64

            /// A stamp and a revision.
            public init(stamp: Stamp, revision: UInt64) {
                self.stamp = stamp
                self.revision = revision
            }
        }

        /// Stamps for an answer.
        public init(stamps: [Entry?]) { self.stamps = stamps }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            stamps = try buffer.readRPCArray(
                minimumElementBytes: 1,
                maximumCount: RPCMessageLimits.stampsMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
                try b.readRPCOptional { (b: inout ByteBuffer) throws(RPCDecodingError) in
                    Entry(stamp: try b.readRPCStamp(), revision: try b.readRPC())
                }
            }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCArray(stamps) {
                $0.writeRPCOptional($1) {
                    $0.writeRPCStamp($1.stamp)
                    $0.writeRPC($1.revision)
                }
            }
        }
    }
}
