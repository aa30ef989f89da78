/// Bounds of this module; those of the protocol are in `RPCLimits`.
public enum TransportLimits {
    /// Connections that a server takes where its configuration names no other number.
    public static let connectionsMaximum = 4_096
    /// Shortest wait before a client connects again.
    public static let backoffMinimumMilliseconds: Int64 = 50
    /// Longest wait before a client connects again.
    public static let backoffMaximumMilliseconds: Int64 = 2_000
    /// How long a client waits for TCP to connect.
    public static let connectTimeoutMilliseconds: Int64 = 5_000
    /// Requests that a client keeps until it is connected.
    public static let requestsWaitingForConnectionMaximum = 1_024
    /// Connections that wait to be accepted.
    public static let acceptBacklog: Int32 = 256
    /// Largest PEM file that is read.
    public static let pemFileMaximumBytes = 1 << 20
    /// Longest validity of a certificate.
    public static let validityMaximumDays = 36_500
    /// A buffer of payload up to this size is copied behind its message, so that TLS makes one record of both; a
    /// larger one is handed on as it is.
    static let copyPayloadMaximumBytes = 32 << 10
    /// Output above this size goes to the channel before the flush.
    static let outputChunkBytes = 256 << 10
    /// Capacity that a connection's output buffer begins with.
    static let outputInitialBytes = 8 << 10
    /// How often the connections of a server look at the time: they have no deadlines, only keep-alive.
    static let serverTickMilliseconds: Int64 = 250
    /// How often a server that shuts down looks whether its connections are gone.
    static let drainPollMilliseconds: Int64 = 5
}
