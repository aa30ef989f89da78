import AshlarTestSupport
import Foundation

/// File systems of their own below a cluster's data directory, which can be filled up and emptied again: of each object server's
/// blocks, of PostgreSQL's data, and of its log.
///
/// They are in memory, and "filled" by making them as small as what they hold. They exist in a mount namespace of this process
/// alone, so that nothing of them is left behind however it ends.
struct SmallDisks {
    /// One of them.
    struct Disk {
        /// Whose it is: "objects", "postgres", "wal".
        var role: String
        var path: String
    }

    /// How large they are when they are not full: more than the room for the log from which on writes are slowed down.
    static let wholeSize = "8g"
    /// Set in the process that has a namespace of its own.
    private static let marker = "TORTURE_HAS_OWN_NAMESPACE"

    let disks: [Disk]

    /// Starts the program again in a mount namespace of its own; returns where it already is, or where that cannot be.
    ///
    /// - Returns: Why there can be no file systems; nil where there can.
    static func enterNamespace() async throws -> String? {
        guard ProcessInfo.processInfo.environment[marker] == nil else { return nil }
        let script = """
            d=$(mktemp -d) && mount -t tmpfs -o size=1m tmpfs "$d" && mount -o remount,size=2m "$d" && umount "$d" && rmdir "$d"
            """
        let unshare = ["--mount", "--propagation", "private"]
        let tried = try await ProcessRunner.run("unshare", unshare + ["sh", "-c", script])
        guard tried.isSuccess else { return "no file system can be mounted here: \(tried.reason)" }
        guard let path = ProcessRunner.find("unshare"),
            let own = CommandLine.arguments.first.flatMap(ProcessRunner.find)
        else { return "unshare or this program is not found" }
        setenv(marker, "1", 1)
        fflush(nil)
        let words = [path] + unshare + [own] + CommandLine.arguments.dropFirst()
        var pointers = words.map { strdup($0) } + [nil]
        execv(path, &pointers)
        let code = errno
        unsetenv(marker)
        return "unshare cannot be started: \(String(cString: strerror(code)))"
    }

    /// Puts the directories of a stopped cluster on file systems of their own.
    ///
    /// - Throws: `ProcessFailure`.
    static func mount(data: String, objectServers: Int) async throws -> SmallDisks {
        var disks = (1...objectServers).map { Disk(role: "objects", path: "\(data)/objects-\($0)/blocks") }
        disks.append(Disk(role: "postgres", path: data + "/postgres"))
        disks.append(Disk(role: "wal", path: data + "/postgres/pg_wal"))
        // `cp -a` of "." gives the directory itself its owner and rights, too.
        let script = """
            set -e
            mkdir -p "$1"
            mv "$1" "$1.old"
            mkdir "$1"
            mount -t tmpfs -o size=\(wholeSize),mode=0700 tmpfs "$1"
            cp -a "$1.old/." "$1"
            rm -r "$1.old"
            """
        for disk in disks { try await ProcessRunner.check("sh", ["-c", script, "sh", disk.path]) }
        return SmallDisks(disks: disks)
    }

    /// Leaves a file system no more free room than `slackBytes`.
    func fill(_ disk: Disk, slackBytes: UInt64) async throws {
        var status = statvfs()
        guard statvfs(disk.path, &status) == 0 else { throw ProcessFailure("statvfs of \(disk.path): \(errno)") }
        let used = UInt64(status.f_blocks - status.f_bfree) * UInt64(status.f_frsize)
        // It grows meanwhile, and cannot be made smaller than what it holds.
        for attempt in UInt64(0)..<50 {
            let size = used + slackBytes + attempt << 20
            let words = ["-o", "remount,size=\(size)", disk.path]
            if try await ProcessRunner.run("mount", words).isSuccess { return }
        }
        throw ProcessFailure("\(disk.path) cannot be made as small as what it holds")
    }

    /// Gives a file system its room again.
    func empty(_ disk: Disk) async throws {
        try await ProcessRunner.check("mount", ["-o", "remount,size=\(Self.wholeSize)", disk.path])
    }

    /// Copies what a cluster has to where it outlives this process.
    func keep(_ data: String, in directory: String) async throws {
        try await ProcessRunner.check("cp", ["-a", data, directory], timeout: .seconds(300))
    }

    /// Takes them away; the cluster has ended.
    func unmount() async throws {
        for disk in disks.reversed() { try await ProcessRunner.check("umount", ["--lazy", disk.path]) }
    }
}

extension ProcessResult {
    /// The last line of what a program said when it did not succeed.
    var reason: String { errors.split(separator: "\n").last.map(String.init) ?? "status \(status)" }
}
