import AshlarCore
public import NIOCore

/// Why a connection is refused or ends, as a number that refusals and goaways carry.
public struct RPCCloseCode: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    /// The number on the wire.
    public let rawValue: UInt16

    /// Wraps a number; every number is accepted.
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// The sender goes out of service in good order; in a hello answer: accepted.
    public static let none = RPCCloseCode(rawValue: 0)
    /// The peer belongs to another cluster.
    public static let wrongCluster = RPCCloseCode(rawValue: 1)
    /// The peer's role may not connect here, or is not the one that was expected.
    public static let wrongRole = RPCCloseCode(rawValue: 2)
    /// The version ranges have nothing in common.
    public static let noCommonVersion = RPCCloseCode(rawValue: 3)
    /// The certificate says something else than the hello, or names no node.
    public static let identityMismatch = RPCCloseCode(rawValue: 4)
    /// The server has as many connections as it may.
    public static let tooManyConnections = RPCCloseCode(rawValue: 5)
    /// The server is about to stop.
    public static let draining = RPCCloseCode(rawValue: 6)
    /// The hello cannot be decoded or breaks a bound.
    public static let invalidHello = RPCCloseCode(rawValue: 7)
    /// The peer has another name than was expected.
    public static let wrongName = RPCCloseCode(rawValue: 8)
    /// A frame broke the protocol.
    public static let protocolViolation = RPCCloseCode(rawValue: 16)
    /// A frame was larger than the window, or credit went beyond it.
    public static let flowControlViolation = RPCCloseCode(rawValue: 17)
    /// Nothing arrived for too long.
    public static let keepAliveTimeout = RPCCloseCode(rawValue: 18)
    /// The handshake took too long.
    public static let handshakeTimeout = RPCCloseCode(rawValue: 19)
    /// Too many bytes of answers wait for credit.
    public static let overflow = RPCCloseCode(rawValue: 20)

    /// The name, or the number where there is none.
    public var description: String {
        switch self {
        case .none: "drained"
        case .wrongCluster: "wrong cluster"
        case .wrongRole: "wrong role"
        case .noCommonVersion: "no common version"
        case .identityMismatch: "identity mismatch"
        case .tooManyConnections: "too many connections"
        case .draining: "draining"
        case .invalidHello: "invalid hello"
        case .wrongName: "wrong name"
        case .protocolViolation: "protocol violation"
        case .flowControlViolation: "flow control violation"
        case .keepAliveTimeout: "keep-alive timeout"
        case .handshakeTimeout: "handshake timeout"
        case .overflow: "overflow"
        default: "code \(rawValue)"
        }
    }
}

/// Why a connection ends.
public struct RPCCloseReason: Error, Hashable, Sendable, CustomStringConvertible {
    /// For programs.
    public let code: RPCCloseCode
    /// For people.
    public let text: String
    /// Whether the peer said so; otherwise this end found it.
    public let isFromPeer: Bool

    /// A reason with each part named.
    public init(_ code: RPCCloseCode, _ text: String, isFromPeer: Bool = false) {
        self.code = code
        self.text = text
        self.isFromPeer = isFromPeer
    }

    /// Who, code and text.
    public var description: String {
        (isFromPeer ? "peer says: " : "") + (text.isEmpty ? code.description : "\(code): \(text)")
    }
}

/// The first frame of the connecting end.
public struct RPCHello: Hashable, Sendable {
    /// `ASHL`: tells another protocol from this one.
    public static let magic: UInt32 = 0x4153_484C

    /// Lowest version that the sender speaks.
    public var versionMinimum: UInt16
    /// Highest version that the sender speaks.
    public var versionMaximum: UInt16
    /// Cluster, role and name of the sender.
    public var node: NodeIdentity
    /// Bytes that the receiver may send before it is granted more.
    public var windowBytes: UInt32
    /// What the sender can do beyond the version; both ends use what both have.
    public var features: UInt64

    /// A hello with each field named.
    public init(
        versionMinimum: UInt16,
        versionMaximum: UInt16,
        node: NodeIdentity,
        windowBytes: UInt32,
        features: UInt64
    ) {
        self.versionMinimum = versionMinimum
        self.versionMaximum = versionMaximum
        self.node = node
        self.windowBytes = windowBytes
        self.features = features
    }

    /// Appends the fields.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPC(Self.magic)
        buffer.writeRPC(versionMinimum)
        buffer.writeRPC(versionMaximum)
        buffer.writeNode(node)
        buffer.writeRPC(windowBytes)
        buffer.writeRPC(features)
    }

    /// Reads the fields; later versions may append more, which are skipped.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        guard try buffer.readRPC(UInt32.self) == Self.magic else {
            throw RPCDecodingError.invalidValue(field: "magic")
        }
        versionMinimum = try buffer.readRPC()
        versionMaximum = try buffer.readRPC()
        guard versionMinimum <= versionMaximum else { throw RPCDecodingError.invalidValue(field: "version range") }
        node = try buffer.readNode()
        windowBytes = try buffer.readRPC()
        features = try buffer.readRPC()
    }
}

/// The answer to hello: the first frame of the end that was connected to.
public enum RPCHelloAnswer: Hashable, Sendable {
    /// The connection stands. `hello`'s version range is the one chosen version.
    case accepted(RPCHello)
    /// The connection ends; the range is what the refusing end speaks.
    case refused(RPCCloseCode, text: String, versionMinimum: UInt16, versionMaximum: UInt16)

    /// Appends the fields.
    public func encode(into buffer: inout ByteBuffer) {
        switch self {
        case .accepted(let hello):
            buffer.writeRPC(RPCCloseCode.none.rawValue)
            hello.encode(into: &buffer)
        case .refused(let code, let text, let versionMinimum, let versionMaximum):
            buffer.writeRPC(code.rawValue)
            buffer.writeRPC(versionMinimum)
            buffer.writeRPC(versionMaximum)
            buffer.writeRPCString(text, maximumBytes: RPCLimits.refusalTextMaximumBytes)
        }
    }

    /// Reads the fields.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        let code = RPCCloseCode(rawValue: try buffer.readRPC())
        if code == .none {
            self = .accepted(try RPCHello(decoding: &buffer))
            return
        }
        let versionMinimum = try buffer.readRPC(UInt16.self)
        let versionMaximum = try buffer.readRPC(UInt16.self)
        let text = try buffer.readRPCString(maximumBytes: RPCLimits.refusalTextMaximumBytes)
        self = .refused(code, text: text, versionMinimum: versionMinimum, versionMaximum: versionMaximum)
    }
}

/// The body of a goaway.
public struct RPCGoaway: Hashable, Sendable {
    /// Why; `none` for a drain in good order, after which what was accepted is still answered.
    public var code: RPCCloseCode
    /// The highest request id that the sender has accepted; no request above it was or will be executed.
    public var lastAcceptedID: UInt64
    /// For people.
    public var text: String

    /// A goaway with each field named.
    public init(code: RPCCloseCode, lastAcceptedID: UInt64, text: String) {
        self.code = code
        self.lastAcceptedID = lastAcceptedID
        self.text = text
    }

    /// Appends the fields.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeRPC(code.rawValue)
        buffer.writeRPC(lastAcceptedID)
        buffer.writeRPCString(text, maximumBytes: RPCLimits.refusalTextMaximumBytes)
    }

    /// Reads the fields.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        code = RPCCloseCode(rawValue: try buffer.readRPC())
        lastAcceptedID = try buffer.readRPC()
        text = try buffer.readRPCString(maximumBytes: RPCLimits.refusalTextMaximumBytes)
    }
}

/// The other end of a connection that stands.
public struct RPCRemote: Hashable, Sendable {
    /// What certificate and hello say alike.
    public let node: NodeIdentity
    /// The version that both use.
    public let version: UInt16
    /// The features that both have.
    public let features: UInt64

    /// A remote with each part named.
    public init(node: NodeIdentity, version: UInt16, features: UInt64) {
        self.node = node
        self.version = version
        self.features = features
    }
}

extension ByteBuffer {
    mutating func writeNode(_ node: NodeIdentity) {
        writeRPCString(node.role.rawValue, maximumBytes: RPCLimits.roleMaximumBytes)
        writeRPC(node.cluster.high)
        writeRPC(node.cluster.low)
        writeRPCString(node.name, maximumBytes: RPCLimits.nodeNameMaximumBytes)
    }

    mutating func readNode() throws(RPCDecodingError) -> NodeIdentity {
        guard let role = Role(rawValue: try readRPCString(maximumBytes: RPCLimits.roleMaximumBytes)) else {
            throw RPCDecodingError.invalidValue(field: "role")
        }
        let cluster = ClusterID(high: try readRPC(), low: try readRPC())
        let name = try readRPCString(maximumBytes: RPCLimits.nodeNameMaximumBytes)
        guard let node = NodeIdentity(cluster: cluster, role: role, name: name) else {
            throw RPCDecodingError.invalidValue(field: "node name")
        }
        return node
    }
}
