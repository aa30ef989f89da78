/// The bounds of supervision (I10).
public enum SupervisionLimits {
    /// Times a process may end before it was ever ready, at the first start of a cluster, until the start is given up.
    public static let firstStartAttemptsMaximum = 3
    /// Wait before the first restart of a process that ended soon after its start.
    public static let backoffMinimum = Duration.milliseconds(100)
    /// Longest wait before a restart.
    public static let backoffMaximum = Duration.seconds(5)
    /// A process that was ready for this long is restarted at once, as if it had never ended before.
    public static let steadyAfter = Duration.seconds(5)
    /// Pause between two questions whether a process is ready.
    public static let probeInterval = Duration.milliseconds(50)
    /// Pause between two questions to a process that has been starting for longer than ``probeSlowAfter``.
    public static let probeIntervalSlow = Duration.milliseconds(500)
    /// When questions become rarer.
    public static let probeSlowAfter = Duration.seconds(10)
    /// Most processes of one supervisor.
    public static let processesMaximum = 256
    /// Longest path of a Unix socket on Linux in bytes, without the closing zero (`sun_path`, unix(7)).
    public static let socketPathMaximumBytes = 107
}
