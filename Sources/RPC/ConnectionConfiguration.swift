public import AshlarCore

/// What an end of a connection is and allows.
public struct RPCConnectionConfiguration: Sendable {
    /// Which end, and whom it talks to.
    public enum Side: Hashable, Sendable {
        /// The connecting end: the role that the other must have, and its name where that matters.
        case client(expectedRole: Role, expectedName: String?)
        /// The end that is connected to: the roles that it lets in.
        case server(acceptedRoles: Set<Role>)
    }

    /// This node.
    public var node: NodeIdentity
    /// Which end.
    public var side: Side
    /// Versions that this end speaks.
    public var versions: ClosedRange<UInt16> = RPCLimits.versionMinimum...RPCLimits.versionMaximum
    /// What this end can do beyond the version.
    public var features: UInt64 = 0
    /// Bytes that the peer may send before it is granted more; at least `frameMaximumBytes`.
    public var windowBytes: UInt32 = Limits.rpcWindowBytes
    /// Largest frame.
    public var frameMaximumBytes: Int = Limits.frameMaximumBytes
    /// Most requests in flight in each direction; at most 65,536.
    public var requestsInFlightMaximum: Int = Limits.rpcRequestsInFlightMaximum
    /// Most bytes of requests that wait for credit.
    public var waitingRequestBytesMaximum: Int = RPCLimits.waitingRequestBytesMaximum
    /// Above so many bytes of answers that wait for credit, requests are kept back.
    public var waitingAnswerBytesHighWater: Int = RPCLimits.waitingAnswerBytesHighWater
    /// Above so many bytes of answers that wait for credit, the connection is closed.
    public var waitingAnswerBytesMaximum: Int = RPCLimits.waitingAnswerBytesMaximum
    /// How long the handshake may take.
    public var handshakeTimeoutNanoseconds: UInt64 = RPCLimits.handshakeTimeoutNanoseconds
    /// After so long without a frame the peer is pinged.
    public var keepAliveIdleNanoseconds: UInt64 = RPCLimits.keepAliveIdleNanoseconds
    /// After so long without a frame the connection is closed.
    public var keepAliveTimeoutNanoseconds: UInt64 = RPCLimits.keepAliveTimeoutNanoseconds

    /// The standard bounds for `node` on `side`.
    public init(node: NodeIdentity, side: Side) {
        self.node = node
        self.side = side
    }

    /// Freed bytes above this are granted back by a frame of their own, where no other frame carries them. Low enough
    /// that a peer always comes to have room for the largest frame.
    var creditThreshold: Int {
        max(1, min(Int(windowBytes) / 4, Int(windowBytes) - frameMaximumBytes + 1))
    }

    func validate() {
        precondition(Int(windowBytes) >= frameMaximumBytes, "a window must hold the largest frame")
        precondition(frameMaximumBytes >= RPCLimits.handshakeFrameMaximumBytes, "frames must hold a hello")
        precondition((1...(1 << RPCLimits.slotBits)).contains(Int64(requestsInFlightMaximum)), "slots are 16 bits")
        precondition(keepAliveIdleNanoseconds < keepAliveTimeoutNanoseconds, "a ping must come before the end")
    }
}
