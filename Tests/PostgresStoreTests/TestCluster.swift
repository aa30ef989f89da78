import AshlarCore
import CLinux
import Dispatch
import Foundation
import Glibc
import Logging
import NIOConcurrencyHelpers
import NIOCore
import Ownership
import PostgresStore
import Testing

/// A PostgreSQL cluster in a temporary directory, on a Unix socket, that ends with the test process.
///
/// It runs with `fsync` off, which the store has to be told to accept.
final class TestCluster: Sendable {
    let directory: String
    let binaries: String

    /// The directory with the newest `postgres`; `ASHLAR_POSTGRES_BIN` names another.
    static let binaries: String? = {
        if let named = ProcessInfo.processInfo.environment["ASHLAR_POSTGRES_BIN"] { return named }
        let root = "/usr/lib/postgresql"
        let versions = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
        let usable = versions.compactMap(Int.init).filter { $0 >= 15 }.sorted().reversed().map { "\(root)/\($0)/bin" }
        return (usable + ["/usr/bin", "/usr/local/bin", "/usr/local/pgsql/bin"]).first {
            FileManager.default.isExecutableFile(atPath: $0 + "/initdb")
                && FileManager.default.isExecutableFile(atPath: $0 + "/postgres")
        }
    }()

    static let isAvailable = binaries != nil

    /// The cluster that all tests share.
    static let shared = Result { try TestCluster() }

    /// An unprivileged user to run as where this process is root.
    private static let user: (id: uid_t, group: gid_t)? = {
        guard getuid() == 0, let entry = getpwnam("postgres") ?? getpwnam("nobody") else { return nil }
        return (entry.pointee.pw_uid, entry.pointee.pw_gid)
    }()

    /// The process of the server, 0 where there is none.
    private let process = NIOLockedValueBox<pid_t>(0)
    private let settings: [String]

    /// `primary`: begins as a copy of it, and follows it under the name `standby`.
    init(settings: [String] = ["fsync=off"], isStandby: Bool = false, primary: TestCluster? = nil) throws {
        binaries = try #require(Self.binaries)
        // A socket's path has a narrow limit, so that the system's temporary directory may be too deep.
        var template = Array("/tmp/ashlar-pg-XXXXXX".utf8CString)
        directory = String(cString: try #require(mkdtemp(&template)))
        chmod(directory, 0o755)
        if let user = Self.user { chown(directory, user.id, user.group) }
        self.settings =
            settings + [
                "listen_addresses=", "unix_socket_directories=\(directory)", "shared_buffers=64MB",
                "max_connections=300",
                "autovacuum_naptime=60",
            ] + (primary.map { ["primary_conninfo=host=\($0.directory) user=ashlar application_name=standby"] } ?? [])
        if let primary {
            // -R makes it a standby; the server's arguments say of whom.
            let from = ["-h", primary.directory, "-U", "ashlar", "-X", "stream", "-c", "fast", "-N", "-R"]
            try run("pg_basebackup", ["-D", data] + from)
        } else {
            try run("initdb", ["-D", data, "-A", "trust", "-U", "ashlar", "-N", "--locale=C.UTF-8", "-E", "UTF8"])
        }
        if isStandby {
            try Data().write(to: URL(fileURLWithPath: data + "/standby.signal"))
            if let user = Self.user { chown(data + "/standby.signal", user.id, user.group) }
        }
        try start()
    }

    private var data: String { directory + "/data" }

    /// Starts the server, also again.
    func start() throws {
        start("postgres", ["-D", data] + settings.flatMap { ["-c", $0] })
        try waitUntilReady()
    }

    /// Ends the server as a crash does.
    func crash() {
        let pid = process.withLockedValue { $0 }
        kill(pid, SIGQUIT)
        // Its thread takes it away.
        for _ in 0..<3_000 where process.withLockedValue({ $0 }) != 0 { usleep(10_000) }
    }

    /// Makes a standby a primary.
    func promote() throws { try run("pg_ctl", ["promote", "-w", "-D", data]) }

    /// Ends the servers of this process and removes what they wrote.
    private static let clean: Void = {
        atexit {
            for (pid, directory) in TestCluster.running.withLockedValue({ $0 }) {
                kill(pid, SIGQUIT)
                // The children of the server end a moment later and may still write.
                for _ in 0..<100 where kill(pid, 0) == 0 { usleep(20_000) }
                // What remains is in the system's temporary directory.
                try? FileManager.default.removeItem(atPath: directory)
            }
            for directory in TestCluster.stopped.withLockedValue({ $0 }) {
                try? FileManager.default.removeItem(atPath: directory)
            }
        }
    }()

    private static let stopped = NIOLockedValueBox<[String]>([])

    private static let running = NIOLockedValueBox<[(pid_t, String)]>([])

    /// Spawns from a thread that stays, because the child is told to end when the thread that made it ends.
    private func start(_ program: String, _ arguments: [String]) {
        let path = binaries + "/" + program
        let log = directory + "/log"
        let directory = directory
        _ = Self.clean
        let process = process
        let isSpawned = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            let descriptor = open(log, O_CREAT | O_WRONLY | O_APPEND, 0o644)
            let pid = Self.spawn(path, arguments, directory: directory, output: descriptor, deathSignal: SIGQUIT)
            Self.running.withLockedValue { $0.append((pid, directory)) }
            process.withLockedValue { $0 = pid }
            isSpawned.signal()
            var status: Int32 = 0
            waitpid(pid, &status, 0)
            // Its number may be another process's by now.
            Self.running.withLockedValue { $0.removeAll { $0.0 == pid } }
            Self.stopped.withLockedValue { $0.append(directory) }
            process.withLockedValue { $0 = 0 }
        }
        isSpawned.wait()
    }

    private func run(_ program: String, _ arguments: [String]) throws {
        let descriptor = open(directory + "/log", O_CREAT | O_WRONLY | O_APPEND, 0o644)
        defer { close(descriptor) }
        let pid = Self.spawn(
            binaries + "/" + program,
            arguments,
            directory: directory,
            output: descriptor,
            deathSignal: 0
        )
        var status: Int32 = 0
        waitpid(pid, &status, 0)
        guard pid > 0, status == 0 else {
            let log = FileManager.default.contents(atPath: directory + "/log") ?? Data()
            throw PostgresError(.configuration, "\(program): \(String(decoding: log, as: UTF8.self))")
        }
    }

    private static func spawn(
        _ path: String,
        _ arguments: [String],
        directory: String,
        output: Int32,
        deathSignal: Int32
    ) -> pid_t {
        var argv: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) } + [nil]
        var envp: [UnsafeMutablePointer<CChar>?] = [strdup("PATH=/usr/bin:/bin"), strdup("LC_ALL=C.UTF-8"), nil]
        defer { (argv + envp).forEach { free($0) } }
        return ashlar_spawn(
            path,
            &argv,
            &envp,
            directory,
            output,
            output,
            user.map { Int64($0.id) } ?? -1,
            user.map { Int64($0.group) } ?? -1,
            deathSignal
        )
    }

    private func waitUntilReady() throws {
        for _ in 0..<200 {
            do {
                try PostgresConnection(configuration("postgres")).close()
                return
            } catch  where error.code == .unsuitableServer {
                return
            } catch {
                usleep(50_000)
            }
        }
        let log = FileManager.default.contents(atPath: directory + "/log") ?? Data()
        throw PostgresError(.connection, "the test cluster does not start: \(String(decoding: log, as: UTF8.self))")
    }

    func configuration(_ database: String, user: String = "ashlar") -> PostgresConfiguration {
        PostgresConfiguration(
            dsn: "host=\(directory) dbname=\(database) user=\(user)",
            applicationName: "tests",
            allowUnsafeDurability: true
        )
    }

    private static let names = NIOLockedValueBox(0)

    /// Whether the database `migrated`, of which others are copies, has been made.
    private let hasTemplate = NIOLockedValueBox(false)

    /// An empty database of its own for a test.
    func emptyDatabase() throws -> PostgresConfiguration { try database(template: "template1") }

    /// A database of its own with the repository's schema.
    func migratedDatabase() throws -> PostgresConfiguration {
        try hasTemplate.withLockedValue { hasTemplate in
            if hasTemplate { return }
            try PostgresConnection(configuration("postgres")).script("CREATE DATABASE migrated")
            let connection = try PostgresConnection(configuration("migrated"))
            defer { connection.close() }
            try MigrationRunner(Migrations(directory: migrationsDirectory), release: "1.0", logger: quiet).up(
                connection
            )
            hasTemplate = true
        }
        return try database(template: "migrated")
    }

    private func database(template: String) throws -> PostgresConfiguration {
        let number = Self.names.withLockedValue { count in
            count += 1
            return count
        }
        let connection = try PostgresConnection(configuration("postgres"))
        try connection.script("CREATE DATABASE test\(number) TEMPLATE \(template)")
        return configuration("test\(number)")
    }
}

/// The repository's migrations.
let migrationsDirectory = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("migrations").path

let quiet = Logger(label: "tests") { _ in SwiftLogNoOpLogHandler() }

/// A migrated database with a store, a registered server, and a volume that it owns.
final class Fixture: Sendable {
    static let blockBytes = 512
    let configuration: PostgresConfiguration
    let store: PostgresBlockStore
    let server: CacheServerID
    let volume: VolumeID
    let epoch: Epoch

    init(cluster: TestCluster? = nil, journalSegmentFrames: Int64 = JournalLayout.segmentFrames) async throws {
        var configuration = try (cluster ?? TestCluster.shared.get()).migratedDatabase()
        configuration.journalSegmentFrames = journalSegmentFrames
        self.configuration = configuration
        let connection = try PostgresConnection(configuration)
        volume = try Self.makeVolume(connection, "v1")
        store = PostgresBlockStore(configuration, logger: quiet)
        let store = store
        server = try await ask {
            store.registerServer(
                name: "a",
                endpoint: "a:7401",
                leaseMilliseconds: 600_000,
                completion: $0
            )
        }
        epoch = try await Self.own(store, volume, server).epoch
    }

    deinit { store.shutdown() }

    static func makeVolume(_ connection: PostgresConnection, _ name: String) throws -> VolumeID {
        let rows = try connection.query(
            """
            INSERT INTO volumes (name, iqn, size_bytes, block_size_bytes) VALUES ($1, 'iqn.2026-01.test:' || $1, 1 << 30, 512)
            RETURNING id
            """,
            [.text(name)]
        )
        return VolumeID(try #require(try rows.first?.int64("id")))
    }

    static func own(
        _ store: PostgresBlockStore,
        _ volume: VolumeID,
        _ server: CacheServerID
    ) async throws -> Ownership {
        let result = try await ask { store.takeOver(volume: volume, server: server, completion: $0) }
        guard case .owned(let ownership) = result else {
            throw StoreFailure.broken("not owned: \(result)")
        }
        return ownership
    }

    func connect() throws -> PostgresConnection { try PostgresConnection(configuration) }

    /// What there is of the volume.
    func counts() async throws -> VolumeCounts {
        try await ask { store.countVolume(volume: volume, completion: $0) }
    }

    /// A second store on the same database, as of another process.
    ///
    /// - Parameter lockTimeoutMilliseconds: How long its takeovers wait for what others have not finished; nil: as in production.
    func secondStore(lockTimeoutMilliseconds: Int? = nil) -> PostgresBlockStore {
        var configuration = configuration
        if let lockTimeoutMilliseconds { configuration.takeoverLockTimeoutMilliseconds = lockTimeoutMilliseconds }
        return PostgresBlockStore(configuration, logger: quiet)
    }

    func part() -> VolumeCommit { VolumeCommit(volume: volume, epoch: epoch) }

    /// Commits one part and expects it not to be fenced.
    @discardableResult
    func commit(_ change: (inout VolumeCommit) -> Void) async throws -> VolumeCommitResult.CommitDetail {
        var part = part()
        change(&part)
        let commits = [part]
        let results = try await ask { store.commit(commits, completion: $0) }
        guard results.count == 1, case .committed(let detail) = results[0] else {
            throw StoreFailure.broken("fenced")
        }
        return detail
    }

    func reserve(_ count: Int = 1) async throws -> [ObjectID] {
        try await ask { store.reserveObjects(volume: volume, count: count, completion: $0) }
    }

    func region(_ first: UInt64 = 0, _ count: UInt64 = 1_024) async throws -> RegionRows {
        let range = BlockRange(first: BlockID(first), count: count)
        return try await ask { store.loadRegion(volume: volume, range: range, completion: $0) }
    }

    /// Asks the database for one number.
    func number(_ sql: String) throws -> Int64 {
        let row = try connect().query("SELECT (\(sql))::bigint AS n").first
        return try #require(try row?.int64("n"))
    }
}

/// Turns a completion into a value or a thrown failure.
func ask<Value: Sendable>(
    _ body: (@escaping @Sendable (Result<Value, StoreFailure>) -> Void) -> Void
) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        body { continuation.resume(with: $0) }
    }
}

/// A block of 512 bytes that can be told from others.
func write(_ block: UInt64, _ version: UInt64, bytes: Int = Fixture.blockBytes) -> ItemWrite {
    var buffer = ByteBuffer()
    var state = block &* 0x9E37_79B9_7F4A_7C15 ^ version
    for _ in 0..<(bytes / 8) {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        buffer.writeInteger(state)
    }
    return ItemWrite(
        block: BlockID(block),
        version: Version(version),
        checksum: buffer.withUnsafeReadableBytes { Checksum(of: $0) },
        bytes: buffer
    )
}

/// A map of an object with one condition for all slots.
func map(
    _ object: ObjectID,
    _ slots: [(block: UInt64, version: UInt64)],
    _ condition: ObjectMap.Condition
) -> ObjectMap {
    ObjectMap(
        object: object,
        server: ObjectServerID(1),
        sizeBytes: UInt64(slots.count * Fixture.blockBytes),
        slots: slots.map {
            ObjectMap.Slot(block: BlockID($0.block), version: Version($0.version), condition: condition)
        }
    )
}
