import Foundation

/// How a program that a test ran has ended.
public struct ProcessResult: Sendable {
    /// Its exit code, or the negated number of the signal that ended it.
    public let status: Int32
    /// What it wrote to standard output.
    public let output: String
    /// What it wrote to standard error.
    public let errors: String

    /// Whether its exit code was 0.
    public var isSuccess: Bool { status == 0 }

    /// Status and the end of what it said, for the message of a failed expectation.
    public var summary: String {
        "status \(status)\n\(output.suffix(4_000))\n\(errors.suffix(4_000))"
    }
}

/// Why a test could not run a program.
public struct ProcessFailure: Error, Sendable, CustomStringConvertible {
    /// The reason.
    public let description: String

    /// A failure for a reason.
    public init(_ description: String) {
        self.description = description
    }
}

/// A program that runs beside a test; its output goes to files, so that it never waits for a reader.
public final class BackgroundProcess: Sendable {
    /// Its process number.
    public let pid: Int32
    private let process: Process
    private let outputPath: String
    private let errorsPath: String

    /// Starts a program, found in `PATH` where its name has no slash.
    ///
    /// - Throws: ``ProcessFailure``.
    public init(
        _ program: String,
        _ arguments: [String],
        environment: [String: String] = [:],
        directory: String? = nil
    ) throws {
        guard let path = ProcessRunner.find(program) else {
            throw ProcessFailure("\(program) is not installed")
        }
        let prefix = FileManager.default.temporaryDirectory
            .appendingPathComponent("ashlar-test-\(UUID().uuidString)").path
        outputPath = prefix + ".out"
        errorsPath = prefix + ".err"
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { _, new in new }
        if let directory { process.currentDirectoryURL = URL(fileURLWithPath: directory) }
        process.standardInput = FileHandle.nullDevice
        let handles = try [outputPath, errorsPath].map { path in
            guard FileManager.default.createFile(atPath: path, contents: nil),
                let handle = FileHandle(forWritingAtPath: path)
            else { throw ProcessFailure("cannot create \(path)") }
            return handle
        }
        process.standardOutput = handles[0]
        process.standardError = handles[1]
        do {
            try process.run()
        } catch {
            throw ProcessFailure("cannot run \(path): \(error)")
        }
        for handle in handles { try? handle.close() }
        self.process = process
        pid = process.processIdentifier
    }

    deinit {
        if process.isRunning { kill(pid, SIGKILL) }
        try? FileManager.default.removeItem(atPath: outputPath)
        try? FileManager.default.removeItem(atPath: errorsPath)
    }

    /// Whether it has not ended yet.
    public var isRunning: Bool { process.isRunning }

    /// What it has written to standard output so far.
    public var output: String { Self.text(outputPath) }

    /// What it has written to standard error so far.
    public var errors: String { Self.text(errorsPath) }

    /// Sends a signal, unless it has ended.
    public func send(_ signal: Int32) {
        if process.isRunning { kill(pid, signal) }
    }

    /// Waits for its end; after `timeout` it is killed.
    ///
    /// - Throws: ``ProcessFailure`` where it did not end in time.
    public func wait(timeout: Duration) async throws -> ProcessResult {
        let clock = ContinuousClock()
        let deadline = clock.now + timeout
        while process.isRunning {
            if clock.now > deadline {
                kill(pid, SIGKILL)
                throw ProcessFailure(
                    "\(process.executableURL?.lastPathComponent ?? "?") did not end within \(timeout)\n"
                        + "\(output.suffix(2_000))\n\(errors.suffix(2_000))"
                )
            }
            try await Task.sleep(for: .milliseconds(10))
        }
        let status =
            process.terminationReason == .uncaughtSignal ? -process.terminationStatus : process.terminationStatus
        return ProcessResult(status: status, output: output, errors: errors)
    }

    private static func text(_ path: String) -> String {
        String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
    }
}

/// Runs programs for tests.
public enum ProcessRunner {
    /// Runs a program to its end.
    ///
    /// - Throws: ``ProcessFailure`` where it cannot be run or does not end in time.
    public static func run(
        _ program: String,
        _ arguments: [String],
        environment: [String: String] = [:],
        directory: String? = nil,
        timeout: Duration = .seconds(60)
    ) async throws -> ProcessResult {
        let process = try BackgroundProcess(program, arguments, environment: environment, directory: directory)
        return try await process.wait(timeout: timeout)
    }

    /// Runs a program that must succeed, and returns what it wrote to standard output.
    ///
    /// - Throws: ``ProcessFailure`` also where its exit code is not 0.
    @discardableResult
    public static func check(
        _ program: String,
        _ arguments: [String],
        environment: [String: String] = [:],
        directory: String? = nil,
        timeout: Duration = .seconds(60)
    ) async throws -> String {
        let result = try await run(
            program,
            arguments,
            environment: environment,
            directory: directory,
            timeout: timeout
        )
        guard result.isSuccess else {
            throw ProcessFailure("\(program) \(arguments.joined(separator: " ")): \(result.summary)")
        }
        return result.output
    }

    /// Stops a process with SIGSTOP and waits until each of its threads stands still.
    ///
    /// The signal reaches the threads one after the other: until then a process can still take and do what is sent to it.
    ///
    /// - Throws: ``ProcessFailure`` where it runs on.
    public static func suspend(_ pid: Int32) async throws {
        kill(pid, SIGSTOP)
        let directory = "/proc/\(pid)/task"
        _ = try await eventually("process \(pid) stands still") {
            let threads = try FileManager.default.contentsOfDirectory(atPath: directory)
            let states = threads.compactMap { thread in
                // The state is what follows the command's name, which stands in parentheses and may hold any character.
                FileManager.default.contents(atPath: "\(directory)/\(thread)/stat")
                    .map { String(decoding: $0, as: UTF8.self) }?
                    .split(separator: ")").last?.split(separator: " ").first
            }
            return states.allSatisfy { $0 == "T" } ? true : nil
        }
    }

    /// The path of a program: as it is where it has a slash, else the first one of `PATH`; nil where there is none.
    public static func find(_ program: String) -> String? {
        let manager = FileManager.default
        guard !program.contains("/") else { return manager.isExecutableFile(atPath: program) ? program : nil }
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        let directories = path.split(separator: ":").map(String.init) + ["/usr/bin", "/usr/sbin", "/sbin"]
        return directories.map { "\($0)/\(program)" }.first { manager.isExecutableFile(atPath: $0) }
    }

    /// Asks again and again until the answer is not nil.
    ///
    /// - Throws: ``ProcessFailure`` where it stays nil for `timeout`.
    public static func eventually<Value>(
        _ what: String,
        timeout: Duration = .seconds(30),
        _ ask: () async throws -> Value?
    ) async throws -> Value {
        let clock = ContinuousClock()
        let deadline = clock.now + timeout
        while true {
            if let value = try await ask() { return value }
            guard clock.now < deadline else { throw ProcessFailure("not within \(timeout): \(what)") }
            try await Task.sleep(for: .milliseconds(50))
        }
    }
}
