/// The bounds of logs, metrics and the health endpoint (I10).
public enum ObservabilityLimits {
    /// Most instruments of one registry; further ones count, but are not shown.
    public static let instrumentsMaximum = 10_000
    /// Most collectors of one registry; a further one replaces nothing and is not run.
    public static let collectorsMaximum = 256
    /// Longest log line in bytes; what is longer is cut.
    public static let logLineMaximumBytes = 16_384
    /// Connections of the health endpoint at once; further ones are closed.
    public static let healthConnectionsMaximum = 32
    /// Longest target of a request of the health endpoint, in bytes.
    public static let healthTargetMaximumBytes = 1_024
    /// A connection of the health endpoint without traffic for this long is closed.
    public static let healthIdleSeconds: Int64 = 30
}
