public import AshlarCore
public import NIOCore

extension ByteBuffer {
    /// Reads a volume's description.
    mutating func readRPCVolume() throws(RPCDecodingError) -> VolumeDescription {
        let id = try readRPCIdentifier(VolumeID.self)
        let name = try readRPCString()
        let iqn = try readRPCString()
        let uuid = Array(try readRPCBytes(count: 16).readableBytesView)
        let size = try readRPC(UInt64.self)
        let blockSize = try readRPC(UInt32.self)
        let logicalBlockSize = try readRPC(UInt32.self)
        guard
            let geometry = try? Geometry(
                sizeBytes: size,
                blockSizeBytes: blockSize,
                logicalBlockSizeBytes: logicalBlockSize
            )
        else {
            throw RPCDecodingError.invalidValue(field: "geometry")
        }
        let isReadOnly = try readRPCBool()
        let policy = try readRPCPolicy()
        let access = try readRPCAccess()
        return VolumeDescription(
            id: id,
            name: name,
            iqn: iqn,
            uuid: uuid,
            geometry: geometry,
            isReadOnly: isReadOnly,
            policy: policy,
            access: access,
            revision: try readRPC(UInt64.self)
        )
    }

    /// Appends a volume's description.
    mutating func writeRPCVolume(_ volume: VolumeDescription) {
        precondition(volume.uuid.count == 16, "a UUID has 16 bytes")
        writeRPCIdentifier(volume.id)
        writeRPCString(volume.name)
        writeRPCString(volume.iqn)
        writeBytes(volume.uuid)
        writeRPC(volume.geometry.sizeBytes)
        writeRPC(volume.geometry.blockSizeBytes)
        writeRPC(volume.geometry.logicalBlockSizeBytes)
        writeRPCBool(volume.isReadOnly)
        writeRPCPolicy(volume.policy)
        writeRPCAccess(volume.access)
        writeRPC(volume.revision)
    }

    private mutating func readRPCPolicy() throws(RPCDecodingError) -> CachePolicy {
        guard let move = MovePolicy(rawValue: try readRPCString()) else {
            throw RPCDecodingError.invalidValue(field: "move policy")
        }
        let items = try readRPC(UInt64.self)
        let bytes = try readRPC(UInt64.self)
        let age = try readRPC(UInt32.self)
        let cached = try readRPC(UInt64.self)
        guard let fill = ReadFillPolicy(rawValue: try readRPCString()) else {
            throw RPCDecodingError.invalidValue(field: "read-fill policy")
        }
        return CachePolicy(
            move: move,
            unmovedItemsMaximum: items,
            unmovedBytesMaximum: bytes,
            unmovedAgeMaximumSeconds: age,
            cachedBytesMaximum: cached,
            readFill: fill,
            compactBelowPercent: try readRPC(UInt8.self),
            directWriteMinimumBytes: try readRPC(UInt32.self),
            writeThroughMinimumBytes: try readRPC(UInt32.self),
            readsBothAtOnce: try readRPCBool()
        )
    }

    private mutating func writeRPCPolicy(_ policy: CachePolicy) {
        writeRPCString(policy.move.rawValue)
        writeRPC(policy.unmovedItemsMaximum)
        writeRPC(policy.unmovedBytesMaximum)
        writeRPC(policy.unmovedAgeMaximumSeconds)
        writeRPC(policy.cachedBytesMaximum)
        writeRPCString(policy.readFill.rawValue)
        writeRPC(policy.compactBelowPercent)
        writeRPC(policy.directWriteMinimumBytes)
        writeRPC(policy.writeThroughMinimumBytes)
        writeRPCBool(policy.readsBothAtOnce)
    }

    private mutating func readRPCAccess() throws(RPCDecodingError) -> AccessRules {
        let maximum = RPCMessageLimits.accessRulesMaximum
        let initiators = try readRPCArray(minimumElementBytes: 2, maximumCount: maximum) {
            (buffer: inout ByteBuffer) throws(RPCDecodingError) in try buffer.readRPCString()
        }
        let credentials = try readRPCArray(minimumElementBytes: 4, maximumCount: maximum) {
            (buffer: inout ByteBuffer) throws(RPCDecodingError) in
            CHAPCredential(name: try buffer.readRPCString(), secret: try buffer.readRPCString())
        }
        let mutual = try readRPCOptional { (buffer: inout ByteBuffer) throws(RPCDecodingError) in
            CHAPCredential(name: try buffer.readRPCString(), secret: try buffer.readRPCString())
        }
        return AccessRules(initiators: initiators, credentials: credentials, mutual: mutual)
    }

    private mutating func writeRPCAccess(_ access: AccessRules) {
        writeRPCArray(access.initiators) { $0.writeRPCString($1) }
        writeRPCArray(access.credentials) {
            $0.writeRPCString($1.name)
            $0.writeRPCString($1.secret)
        }
        writeRPCOptional(access.mutual) {
            $0.writeRPCString($1.name)
            $0.writeRPCString($1.secret)
        }
    }
}

/// Asks for a volume by its iSCSI name; makes the cache server that is asked own the volume if nobody does.
public struct LookUpVolume: RPCMessage {
    /// 0x10.
    public static let type = RPCMessageType.lookUpVolume
    /// The iSCSI name.
    public var iqn: String

    /// A question for one volume.
    public init(iqn: String) { self.iqn = iqn }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { iqn = try buffer.readRPCString() }
    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { buffer.writeRPCString(iqn) }

    /// The volume, and who owns it now.
    public struct Answer: RPCMessage {
        /// 0x10.
        public static let type = RPCMessageType.lookUpVolume
        /// The volume.
        public var volume: VolumeDescription
        /// The endpoint of the owner, `host:port`; empty where it is the server that answers.
        public var ownerEndpoint: String
        /// The owner's stamp, if it is the server that answers: evidence for R1 and R2.
        public var stamp: Stamp?

        /// What is known of a volume.
        public init(volume: VolumeDescription, ownerEndpoint: String, stamp: Stamp?) {
            self.volume = volume
            self.ownerEndpoint = ownerEndpoint
            self.stamp = stamp
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            volume = try buffer.readRPCVolume()
            ownerEndpoint = try buffer.readRPCString()
            stamp = try buffer.readRPCOptional { (b: inout ByteBuffer) throws(RPCDecodingError) in
                try b.readRPCStamp()
            }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCVolume(volume)
            buffer.writeRPCString(ownerEndpoint)
            buffer.writeRPCOptional(stamp) { $0.writeRPCStamp($1) }
        }
    }
}

/// Asks for a page of volumes, in the order of their names.
public struct ListVolumes: RPCMessage {
    /// 0x11.
    public static let type = RPCMessageType.listVolumes
    /// The name behind which the page begins; empty for the first.
    public var after: String
    /// Volumes in the page, at most ``RPCMessageLimits/volumesInListMaximum``.
    public var limit: UInt32

    /// A question for a page.
    public init(after: String, limit: UInt32) {
        self.after = after
        self.limit = limit
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        after = try buffer.readRPCString()
        limit = try buffer.readRPC()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCString(after)
        buffer.writeRPC(limit)
    }

    /// A page.
    public struct Answer: RPCMessage {
        /// 0x11.
        public static let type = RPCMessageType.listVolumes
        /// The volumes; fewer than asked for at the end of the list.
        public var volumes: [VolumeDescription]

        /// A page of volumes.
        public init(volumes: [VolumeDescription]) { self.volumes = volumes }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            volumes = try buffer.readRPCArray(
                minimumElementBytes: 64,
                maximumCount: RPCMessageLimits.volumesInListMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCVolume() }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCArray(volumes) { $0.writeRPCVolume($1) }
        }
    }
}

/// Tells the cache server that a target lives.
public struct TargetHeartbeatMessage: RPCMessage {
    /// 0x16.
    public static let type = RPCMessageType.targetHeartbeat
    /// The node's configured name.
    public var node: String
    /// The advertised iSCSI portal, `address:port`.
    public var portal: String
    /// The portal group tag.
    public var portalGroupTag: UInt16
    /// The node's release.
    public var release: String
    /// Sessions logged in now.
    public var sessions: UInt32

    /// A sign of life.
    public init(node: String, portal: String, portalGroupTag: UInt16, release: String, sessions: UInt32) {
        self.node = node
        self.portal = portal
        self.portalGroupTag = portalGroupTag
        self.release = release
        self.sessions = sessions
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        node = try buffer.readRPCString()
        portal = try buffer.readRPCString()
        portalGroupTag = try buffer.readRPC()
        release = try buffer.readRPCString()
        sessions = try buffer.readRPC()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCString(node)
        buffer.writeRPCString(portal)
        buffer.writeRPC(portalGroupTag)
        buffer.writeRPCString(release)
        buffer.writeRPC(sessions)
    }
}
