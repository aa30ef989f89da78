import CLinux
import Foundation
import Glibc
import NIOCore
import NIOPosix
import Supervision

/// A program to be run as a child process.
struct Program: Sendable {
    var path: String
    /// Without the program's own name.
    var arguments: [String]
    /// What `ps` shows first; the path where nil.
    var displayName: String?
    var environment: [String]
    var directory: String?
    /// Descriptor for standard output and standard error.
    var output: Int32
    /// Whose rights it has; nil for our own.
    var user: SystemUser?
    /// What it is sent when `ashlar up` ends without having stopped it.
    var parentDeathSignal: Int32
}

/// Starts child processes and tells of their end.
///
/// The kernel sends a child its parent-death signal when the *thread* that forked it ends, so all are forked by one thread
/// that lives as long as the process.
final class Spawner: Sendable {
    static let shared = Spawner()

    private let pool = NIOThreadPool(numberOfThreads: 1)

    private init() {
        pool.start()
    }

    /// The result of an attempt to start a program.
    enum Outcome: Sendable {
        case running(pid_t)
        case failed(errno: Int32)
    }

    /// Starts a program; `onEnd` is called on a thread of its own once it has ended. The process number stays taken until
    /// ``reap(_:)``, so that no signal can hit another process.
    func spawn(_ program: Program, onEnd: @escaping @Sendable (pid_t) -> Void) async -> Outcome {
        let outcome: Outcome
        do {
            outcome = try await pool.runIfActive { Self.fork(program) }
        } catch {
            return .failed(errno: ECANCELED)
        }
        if case .running(let pid) = outcome {
            Thread.detachNewThread {
                var info = siginfo_t()
                while waitid(P_PID, id_t(pid), &info, Int32(WEXITED | WNOWAIT)) != 0, errno == EINTR {}
                onEnd(pid)
            }
        }
        return outcome
    }

    /// Takes the status of a process that has ended, and frees its number.
    static func reap(_ pid: pid_t) -> ProcessEnd {
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        return ProcessEnd(waitStatus: status)
    }

    private static func fork(_ program: Program) -> Outcome {
        let arguments = [program.displayName ?? program.path] + program.arguments
        var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
        argv.append(nil)
        var envp: [UnsafeMutablePointer<CChar>?] = program.environment.map { strdup($0) }
        envp.append(nil)
        defer {
            for pointer in argv { free(pointer) }
            for pointer in envp { free(pointer) }
        }
        let other = program.user.flatMap { $0.isOther ? $0 : nil }
        let pid = ashlar_spawn(
            program.path,
            argv,
            envp,
            program.directory,
            program.output,
            program.output,
            other.map { Int64($0.uid) } ?? -1,
            other.map { Int64($0.gid) } ?? -1,
            program.parentDeathSignal
        )
        return pid < 0 ? .failed(errno: errno) : .running(pid)
    }

    /// The environment of child processes: what they need of ours, and nothing that would override their configuration files.
    static func environment(adding extra: [String: String] = [:]) -> [String] {
        let kept: Set<String> = [
            "PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "ASAN_OPTIONS", "TSAN_OPTIONS",
            "UBSAN_OPTIONS", "SWIFT_BACKTRACE", "LLVM_PROFILE_FILE", "GLIBC_TUNABLES", "MALLOC_ARENA_MAX",
        ]
        var result = ProcessInfo.processInfo.environment.filter { kept.contains($0.key) }
        result.merge(extra) { _, new in new }
        return result.map { "\($0.key)=\($0.value)" }.sorted()
    }
}

/// A program that is run to its end.
struct Command: Sendable {
    var path: String
    var arguments: [String]
    var directory: String?
    var user: SystemUser?
    var environment: [String: String] = [:]

    /// How it ended and what it said.
    struct Outcome: Sendable {
        var end: ProcessEnd
        /// Standard output and standard error, the last part where it is long.
        var output: String

        var isSuccess: Bool { end == .exited(0) }
    }

    /// Runs it; it is killed when the task is cancelled or `timeout` has passed.
    ///
    /// - Throws: ``UpError`` where it cannot be started or does not end in time, `CancellationError`.
    func run(timeout: Duration) async throws -> Outcome {
        let file = try Self.temporaryFile()
        defer { close(file) }
        let program = Program(
            path: path,
            arguments: arguments,
            environment: Spawner.environment(adding: environment),
            directory: directory,
            output: file,
            user: user,
            parentDeathSignal: SIGKILL
        )
        let (ends, continuation) = AsyncStream.makeStream(of: pid_t.self)
        let pid: pid_t
        switch await Spawner.shared.spawn(program, onEnd: { continuation.yield($0) }) {
        case .running(let number): pid = number
        case .failed(let code): throw UpError("Cannot run \(path): \(systemMessage(code)).")
        }
        let timer = Task {
            try await Task.sleep(for: timeout)
            kill(pid, SIGKILL)
        }
        let end = await withTaskCancellationHandler {
            // Not cut short by cancellation: the process is waited for in every case.
            await Task { () -> ProcessEnd in
                for await ended in ends { return Spawner.reap(ended) }
                return .signalled(SIGKILL)
            }.value
        } onCancel: {
            kill(pid, SIGKILL)
        }
        timer.cancel()
        try Task.checkCancellation()
        let name = URL(fileURLWithPath: path).lastPathComponent
        if end == .signalled(SIGKILL) { throw UpError("\(name) did not end within \(timeout).") }
        return Outcome(end: end, output: Self.contents(of: file))
    }

    /// Runs it and returns what it said.
    ///
    /// - Throws: also ``UpError`` with the end of its output where its exit code is not 0.
    @discardableResult
    func check(timeout: Duration) async throws -> String {
        let outcome = try await run(timeout: timeout)
        guard outcome.isSuccess else {
            let name = URL(fileURLWithPath: path).lastPathComponent
            let said = outcome.output.split(separator: "\n").suffix(UpLimits.logLinesShown).joined(separator: " | ")
            throw UpError("\(name) failed with \(outcome.end): \(said)")
        }
        return outcome.output
    }

    /// Finds a program in the directories of `PATH`, and where Debian puts those of the administrator.
    static func find(_ name: String) -> String? {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        let directories =
            path.split(separator: ":").map(String.init) + ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/sbin"]
        return directories.map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
    }

    private static func temporaryFile() throws -> Int32 {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("ashlar-\(UUID().uuidString)").path
        let file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw UpError.system("create", path, errno: errno) }
        unlink(path)
        return file
    }

    private static func contents(of file: Int32) -> String {
        let end = lseek(file, 0, SEEK_END)
        let start = max(0, end - off_t(64 << 10))
        var buffer = [UInt8](repeating: 0, count: Int(end - start))
        let count = buffer.withUnsafeMutableBytes { pread(file, $0.baseAddress, $0.count, start) }
        return String(decoding: buffer[..<max(0, count)], as: UTF8.self)
    }
}
