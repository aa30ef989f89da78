public import AshlarCore
public import NIOCore

/// Tells that a target lives, and asks for all targets that do.
public struct TargetReport: RPCMessage {
    /// 0x17.
    public static let type = RPCMessageType.targetReport
    /// What the target tells of itself.
    public var node: TargetNodeState

    /// A sign of life.
    public init(node: TargetNodeState) { self.node = node }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { node = try buffer.readRPCTargetNode() }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { buffer.writeRPCTargetNode(node) }

    /// The targets.
    public struct Answer: RPCMessage {
        /// 0x17.
        public static let type = RPCMessageType.targetReport
        /// Those that told lately that they live, by name.
        public var nodes: [TargetNodeState]

        /// An answer with the targets.
        public init(nodes: [TargetNodeState]) { self.nodes = nodes }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            nodes = try buffer.readRPCArray(
                minimumElementBytes: 16,
                maximumCount: RPCMessageLimits.targetNodesMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCTargetNode() }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCArray(nodes) { $0.writeRPCTargetNode($1) }
        }
    }
}

extension ByteBuffer {
    fileprivate mutating func readRPCTargetNode() throws(RPCDecodingError) -> TargetNodeState {
        TargetNodeState(
            name: try readRPCString(),
            portal: try readRPCString(),
            port: TargetPort(portalGroupTag: try readRPC(), relativePortIdentifier: try readRPC()),
            release: try readRPCString(),
            sessions: try readRPC(),
            receivesLogins: try readRPCBool(),
            isDraining: try readRPCBool()
        )
    }

    fileprivate mutating func writeRPCTargetNode(_ node: TargetNodeState) {
        writeRPCString(node.name)
        writeRPCString(node.portal)
        writeRPC(node.port.portalGroupTag)
        writeRPC(node.port.relativePortIdentifier)
        writeRPCString(node.release)
        writeRPC(node.sessions)
        writeRPCBool(node.receivesLogins)
        writeRPCBool(node.isDraining)
    }
}

/// Asks which nexuses are closed: for sessions that are idle and would not notice (R3).
public struct NexusStates: RPCMessage {
    /// 0x18.
    public static let type = RPCMessageType.nexusStates
    /// The volume.
    public var volume: VolumeID
    /// The nexuses; in the answer those of them that are closed.
    public var nexuses: [NexusNumber]

    /// A question, or its answer.
    public init(volume: VolumeID, nexuses: [NexusNumber]) {
        self.volume = volume
        self.nexuses = nexuses
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        volume = try buffer.readRPCIdentifier()
        nexuses = try buffer.readRPCArray(
            minimumElementBytes: 8,
            maximumCount: RPCMessageLimits.stampsMaximum
        ) { (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCIdentifier() }
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPCIdentifier(volume)
        buffer.writeRPCArray(nexuses) { $0.writeRPCIdentifier($1) }
    }
}
