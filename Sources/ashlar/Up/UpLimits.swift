import Glibc

/// The bounds of `ashlar up` (I10).
enum UpLimits {
    /// Most instances of one role.
    static let instancesMaximum = 32
    /// Ports for what is not an iSCSI portal are taken from here: below Linux's ephemeral ports, which connections take.
    static let portRange = 20_000..<32_000
    /// The part of the machine's memory that goes to the block data of all cache servers together, and as much to that of all targets: a
    /// quarter for both.
    static let cacheMemoryDivisor = 8
    /// The least that a cache server gets of it, in MiB.
    static let cacheMemoryMinimumMebibytes = 64
    /// The least that a target gets of it, in MiB.
    static let readCacheMinimumMebibytes = 16

    /// What each cache server keeps in memory, as its configuration says it.
    static func cacheMemory(caches: Int, physicalBytes: Int = physicalBytes) -> String {
        share(of: physicalBytes, among: caches, minimum: cacheMemoryMinimumMebibytes)
    }

    /// What each target keeps of the objects that it has read, likewise.
    static func readCache(targets: Int, physicalBytes: Int = physicalBytes) -> String {
        share(of: physicalBytes, among: targets, minimum: readCacheMinimumMebibytes)
    }

    private static func share(of bytes: Int, among count: Int, minimum: Int) -> String {
        let mebibytes = (bytes / cacheMemoryDivisor / max(1, count)) >> 20
        return "\(max(mebibytes, minimum))M"
    }

    /// The machine's memory.
    private static var physicalBytes: Int {
        max(0, sysconf(Int32(_SC_PHYS_PAGES))) * max(0, sysconf(Int32(_SC_PAGESIZE)))
    }

    /// How many ports are tried until one is free.
    static let portAttemptsMaximum = 2_000
    /// How long a portal's port may be taken by targets of an earlier run.
    static let portPatience = Duration.seconds(2)
    /// Room that a new data directory needs, in bytes: the PostgreSQL cluster, its log, and a little data.
    static let freeBytesMinimum: UInt64 = 512 << 20
    /// Log files of earlier starts that are kept, for each process.
    static let oldLogsMaximum = 3
    /// Lines of a process's log that are shown when it did not start.
    static let logLinesShown = 8
    /// Bytes of a log or of a command's output that are read for a message.
    static let outputTailBytes = 8_192
    /// Volumes that the ready line and `state.json` list.
    static let volumesListedMaximum = 1_000
    /// How long initdb and the first statements may take.
    static let createTimeout = Duration.seconds(120)
    /// How long processes of an earlier postmaster may linger before the start is given up.
    static let lingerTimeout = Duration.seconds(60)
    /// How long a question for readiness may take.
    static let probeTimeoutMilliseconds: Int64 = 1_000
    /// How long the first start of a role may take.
    static let roleStartTimeout = Duration.seconds(60)
    /// How long the start of PostgreSQL may take, recovery included.
    static let postgresStartTimeout = Duration.seconds(300)
    /// How long a role has to stop before it is killed.
    static let roleStopPatience = Duration.seconds(15)
    /// How long PostgreSQL has for a fast shutdown, with its checkpoint, before an immediate one.
    static let postgresStopPatience = Duration.seconds(60)
    /// How long an attempt to connect to PostgreSQL may take.
    static let connectTimeoutSeconds = 5
    /// How long the statement that releases a dead server's lease may take.
    static let leaseReleaseMilliseconds = 2_000
    /// A certificate with fewer days left is renewed.
    static let certificateDaysLeftMinimum = 30
    /// Pause between two looks at the certificates.
    static let certificateInterval = Duration.seconds(12 * 3_600)
}
