import AshlarCore

/// Bounds of the RPC protocol that AshlarCore's `Limits` does not name.
///
/// Their relations are asserted in `RPCLimitsTests`.
public enum RPCLimits {
    /// Lowest version of the protocol that this code speaks.
    public static let versionMinimum: UInt16 = 1
    /// Highest version of the protocol that this code speaks.
    public static let versionMaximum: UInt16 = 1
    /// Largest frame before the handshake is done.
    public static let handshakeFrameMaximumBytes = 2_048
    /// Longest name of a node.
    public static let nodeNameMaximumBytes = 64
    /// Longest name of a role.
    public static let roleMaximumBytes = 16
    /// Longest text of a refusal or a goaway.
    public static let refusalTextMaximumBytes = 512
    /// Longest text of an error answer.
    public static let errorTextMaximumBytes = 1_024
    /// Longest endpoint in the detail of an error answer.
    public static let endpointMaximumBytes = 256
    /// How long the handshake may take, from the connection to the answer to hello.
    public static let handshakeTimeoutNanoseconds: UInt64 = 10_000_000_000
    /// A connection on which nothing arrives for so long is pinged.
    public static let keepAliveIdleNanoseconds: UInt64 = 2_000_000_000
    /// A connection on which nothing arrives for so long is closed.
    public static let keepAliveTimeoutNanoseconds: UInt64 = 8_000_000_000
    /// How often a shell calls `tick(now:)`: the grain of deadlines and time-outs.
    public static let tickNanoseconds: UInt64 = 50_000_000
    /// Bytes of requests that may wait for credit; more are refused.
    public static let waitingRequestBytesMaximum = 64 << 20
    /// Above so many bytes of answers that wait for credit, requests are kept back from the application.
    public static let waitingAnswerBytesHighWater = 32 << 20
    /// Above so many bytes of answers that wait for credit, the connection is closed: more than a session's command window of the
    /// largest reads comes to.
    public static let waitingAnswerBytesMaximum = 2 << 30
    /// Bits of a request id that hold the slot; the rest is the sequence.
    static let slotBits: UInt64 = 16
}
