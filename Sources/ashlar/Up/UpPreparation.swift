import CLinux
import Failpoints
import Foundation
import Glibc
import Supervision

/// Everything on disk that must be there before the first process starts. Complete or, for a new data directory, nothing.
struct UpPreparation: Sendable {
    let layout: UpLayout
    let plan: UpPlan
    let record: ClusterRecord
    let postgres: EmbeddedPostgres
    let files: RoleFiles
    let migrations: String
    /// Held for as long as this value, or a copy of it, lives.
    let lock: DataDirectoryLock

    /// Checks what can be checked, takes the data directory, and creates what is missing in it.
    ///
    /// - Throws: ``UpError``, `CancellationError`.
    static func make(data: String?, plan: UpPlan, report: @Sendable (String) -> Void) async throws -> UpPreparation {
        try plan.validate()
        let migrations = try MigrationFiles.locate()
        let user = try SystemUser.forPostgres()
        let layout = try chooseLayout(data: data, user: user, report: report)
        for path in PathAccess.components(of: layout.root) {
            guard let found = Files.target(path), found.mode & S_IFMT != S_IFDIR else { continue }
            throw UpError("\(path) is not a directory.", remedy: "Name another with --data.")
        }
        try user.requireReach(of: layout.root)
        // Found out before anything is made.
        let binaries = try await EmbeddedPostgres.findBinaries(for: layout.postgresDirectory)
        try requireOwn(layout)
        let made = try makeRoot(layout)
        Failpoint.upDirectoryMade.reach()
        do {
            try user.requireReach(of: layout.root)
            let lock = try DataDirectoryLock(layout.lockFile, data: layout.root)
            Failpoint.upDirectoryLocked.reach()
            try await requirePortals(plan, isNew: !Files.exists(layout.clusterFile))
            return try await fill(
                layout: layout,
                plan: plan,
                lock: lock,
                user: user,
                binaries: binaries,
                migrations: migrations,
                report: report
            )
        } catch {
            if let made { try? FileManager.default.removeItem(atPath: made) }
            throw error
        }
    }

    private static func fill(
        layout: UpLayout,
        plan: UpPlan,
        lock: DataDirectoryLock,
        user: SystemUser,
        binaries: EmbeddedPostgres.Binaries,
        migrations: String,
        report: @Sendable (String) -> Void
    ) async throws -> UpPreparation {
        var record = try loadRecord(layout, user: user)
        try record.assignPorts(plan.portPurposes, seed: Int.random(in: 0..<Int.max))
        try record.save(layout.clusterFile)
        Failpoint.upRecordSaved.reach()
        try makeSocketDirectory(record.socketDirectory, user: user)
        Failpoint.upSocketDirectoryMade.reach()
        let postgres = EmbeddedPostgres(
            binaries: binaries,
            dataDirectory: layout.postgresDirectory,
            socketDirectory: record.socketDirectory,
            user: user
        )
        if !Files.exists(layout.postgresDirectory) {
            report("creating a PostgreSQL \(binaries.majorVersion) cluster in \(layout.postgresDirectory)")
            try await postgres.createIfMissing()
        }
        try postgres.writeSettings()
        Failpoint.upSettingsWritten.reach()
        try writeToken(layout)
        Failpoint.upTokenWritten.reach()
        let files = RoleFiles(layout: layout, plan: plan, record: record, postgresDSN: postgres.dsn)
        try files.writeCertificates(now: Date())
        try files.writeConfigurations()
        Failpoint.upPrepared.reach()
        return UpPreparation(
            layout: layout,
            plan: plan,
            record: record,
            postgres: postgres,
            files: files,
            migrations: migrations,
            lock: lock
        )
    }

    /// Remembers that the first start was completed.
    func complete() throws {
        guard !record.isComplete else { return }
        var record = record
        record.isComplete = true
        try record.save(layout.clusterFile)
        Failpoint.upCompleted.reach()
    }

    /// The token of the API.
    func token() throws -> String {
        guard let token = Files.text(layout.tokenFile)?.trimmingCharacters(in: .whitespacesAndNewlines), !token.isEmpty
        else {
            throw UpError("\(layout.tokenFile) holds no token.", remedy: "Remove it; the next start makes a new one.")
        }
        return token
    }

    // MARK: The directory

    /// `--data` as it is; without it `./data`, or a place that PostgreSQL's user can reach where `./data` is none.
    private static func chooseLayout(
        data: String?,
        user: SystemUser,
        report: @Sendable (String) -> Void
    ) throws -> UpLayout {
        if let data {
            return try UpLayout(resolving: data)
        }
        let near = try UpLayout(resolving: "data")
        guard let closed = user.firstClosedDirectory(onTheWayTo: near.root) else { return near }
        let far = try UpLayout(resolving: "/var/lib/ashlar")
        report("using \(far.root): the system user \(user.name) cannot pass through \(closed) (--data names another)")
        return far
    }

    /// Refuses a directory that holds something else.
    private static func requireOwn(_ layout: UpLayout) throws {
        guard Files.exists(layout.root), !Files.exists(layout.clusterFile) else { return }
        let names: [String]
        do {
            names = try FileManager.default.contentsOfDirectory(atPath: layout.root)
        } catch {
            throw UpError(
                "\(layout.root) cannot be read as a directory.",
                remedy: "Give yourself the right, or name another directory with --data."
            )
        }
        let foreign = names.filter { !["lock", "lost+found", "cluster.json.new"].contains($0) }
        guard foreign.isEmpty else {
            throw UpError(
                "\(layout.root) is not empty and not a data directory of Ashlar.",
                remedy: "Name an empty or a new directory with --data."
            )
        }
    }

    /// Creates the directory with its missing parents; returns the topmost one that was made.
    private static func makeRoot(_ layout: UpLayout) throws -> String? {
        var made: String?
        for path in PathAccess.components(of: layout.root) where !Files.exists(path) {
            // Others may pass through, as PostgreSQL's user must; what is inside guards itself.
            do {
                try Files.makeDirectory(path, mode: 0o755)
            } catch {
                if let made { try? FileManager.default.removeItem(atPath: made) }
                throw error
            }
            made = made ?? path
        }
        guard access(layout.root, R_OK | W_OK | X_OK) == 0 else {
            throw UpError.system("write in", layout.root, errno: errno)
        }
        if !Files.exists(layout.postgresDirectory), let free = Files.freeBytes(layout.root),
            free < UpLimits.freeBytesMinimum
        {
            if let made { try? FileManager.default.removeItem(atPath: made) }
            throw UpError(
                "There are only \(free >> 20) MiB free at \(layout.root).",
                remedy: "Free \(UpLimits.freeBytesMinimum >> 20) MiB, or name another directory with --data."
            )
        }
        return made
    }

    private static func requirePortals(_ plan: UpPlan, isNew: Bool) async throws {
        let clock = ContinuousClock()
        let started = clock.now
        for port in plan.portals {
            var code = Ports.tryListening(on: port)
            // Targets of an `ashlar up` that was killed a moment ago are still on their way out.
            while code == EADDRINUSE, !isNew, clock.now - started < UpLimits.portPatience {
                try await Task.sleep(for: .milliseconds(50))
                code = Ports.tryListening(on: port)
            }
            guard code != 0 else { continue }
            if code == EADDRINUSE {
                throw UpError(
                    "Port \(port) on 127.0.0.1 is taken.",
                    remedy:
                        "Stop what listens there (ss -ltnp 'sport = :\(port)' shows it), or give another first port "
                        + "with --iscsi-port."
                )
            }
            throw UpError(
                "Nothing can listen on 127.0.0.1 port \(port): \(systemMessage(code)).",
                remedy: "Give another first port with --iscsi-port."
            )
        }
    }

    // MARK: Contents

    private static func loadRecord(_ layout: UpLayout, user: SystemUser) throws -> ClusterRecord {
        if let record = try ClusterRecord.load(layout.clusterFile) { return record }
        let cluster = UUID().uuidString.lowercased()
        // A socket's path is limited; a long data directory keeps it elsewhere.
        let longest = layout.runDirectory.utf8.count + "/.s.PGSQL.5432".utf8.count
        let socketDirectory =
            longest <= SupervisionLimits.socketPathMaximumBytes
            ? layout.runDirectory
            : (access("/run", W_OK) == 0 ? "/run" : "/tmp") + "/ashlar-\(cluster.prefix(13))"
        return ClusterRecord(cluster: cluster, socketDirectory: socketDirectory)
    }

    private static func makeSocketDirectory(_ path: String, user: SystemUser) throws {
        if let found = Files.attributes(path) {
            // Somebody else may have made one of this name in a directory that all may write in.
            guard found.mode & S_IFMT == S_IFDIR, [user.uid, geteuid()].contains(found.uid) else {
                throw UpError("\(path), where PostgreSQL's socket belongs, is somebody else's.", remedy: "Remove it.")
            }
        }
        try Files.makeDirectory(path, mode: 0o700, owner: user)
    }

    /// The token that the API asks for: 32 random bytes as hexadecimal digits.
    private static func writeToken(_ layout: UpLayout) throws {
        guard !Files.exists(layout.tokenFile) else { return }
        var generator = SystemRandomNumberGenerator()
        let digits = (0..<4).map { _ in
            let text = String(generator.next(), radix: 16)
            return String(repeating: "0", count: 16 - text.count) + text
        }
        try Files.replace(layout.tokenFile, with: digits.joined() + "\n", mode: 0o600)
    }
}
