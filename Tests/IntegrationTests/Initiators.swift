import AshlarTestSupport
import Foundation
import Testing

/// The libiscsi program beside this file, compiled once.
actor Initiator {
    static let shared = Initiator()
    private var compiled: String?

    /// Compiles the program where that was not done yet; returns its path.
    func program() async throws -> String {
        if let compiled { return compiled }
        let source = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/Initiator/initiator.c"
        let path = try TestEnvironment.temporaryDirectory() + "/initiator"
        try await ProcessRunner.check("gcc", ["-O2", "-Wall", "-o", path, source, "-liscsi"], timeout: .seconds(60))
        compiled = path
        return path
    }

    /// Starts a forwarder that cuts its connections after so many bytes (`Initiator/cutter.c`).
    func startCutter(
        port: Int,
        upstream: Int,
        seed: Int = 1,
        bytes: ClosedRange<Int>
    ) async throws -> BackgroundProcess {
        let source = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/Initiator/cutter.c"
        let path = try await program() + "-cutter"
        if !FileManager.default.fileExists(atPath: path) {
            try await ProcessRunner.check("gcc", ["-O2", "-Wall", "-o", path, source], timeout: .seconds(60))
        }
        let numbers = [port, upstream, seed, bytes.lowerBound, bytes.upperBound]
        return try BackgroundProcess(path, numbers.map(String.init))
    }

    /// A run of writes to a region of a volume.
    struct Writes: Sendable {
        var url: String
        var journal: String
        var seed: UInt64 = 1
        var depth = 16
        var milliseconds = 5_000
        var firstSector: UInt64 = 0
        var sectors: UInt64 = 16_384
        /// With 2 or more only single sectors whose address is ``offset`` modulo this.
        var stride = 1
        var offset = 0
        /// Longest run in sectors.
        var length = 32
    }

    /// What a run of writes reports.
    struct WriteReport: Decodable, Sendable {
        var acknowledged: UInt64
        var repeats: UInt64
        var logins: UInt64
    }

    /// Starts a run of writes.
    func start(_ writes: Writes) async throws -> BackgroundProcess {
        try BackgroundProcess(
            await program(),
            [
                "write", writes.url, writes.journal, String(writes.seed), String(writes.depth),
                String(writes.milliseconds), String(writes.firstSector), String(writes.sectors), String(writes.stride),
                String(writes.offset), String(writes.length),
            ]
        )
    }

    /// Waits until a run of writes is complete.
    func finish(_ process: BackgroundProcess, timeout: Duration = .seconds(240)) async throws -> WriteReport {
        let result = try await process.wait(timeout: timeout)
        guard result.isSuccess else { throw ProcessFailure("the initiator: \(result.summary)") }
        return try JSONDecoder().decode(WriteReport.self, from: Data(result.output.utf8))
    }

    /// Reads the region and compares it with what was acknowledged.
    func verify(_ writes: [Writes], through url: String) async throws {
        guard let first = writes.first else { return }
        let arguments = ["verify", url, String(first.seed), String(first.firstSector), String(first.sectors)]
        let result = try await ProcessRunner.run(
            await program(),
            arguments + writes.map(\.journal),
            timeout: .seconds(240)
        )
        #expect(result.isSuccess, "\(url): \(result.summary)")
    }

    /// Writes through one URL and reads through the other at once, in turns.
    func pingpong(_ first: String, _ second: String, turns: Int) async throws {
        let result = try await ProcessRunner.run(
            await program(),
            ["pingpong", first, second, "5", String(turns)],
            timeout: .seconds(120)
        )
        #expect(result.isSuccess, "\(result.summary)")
    }
}

/// Disk images and qemu's tools.
enum Images {
    /// A file of `mebibytes` whose contents follow from `seed`: every fourth mebibyte is zeros.
    static func make(_ path: String, mebibytes: Int, seed: UInt64) throws {
        guard FileManager.default.createFile(atPath: path, contents: nil), let file = FileHandle(forWritingAtPath: path)
        else { throw ProcessFailure("cannot create \(path)") }
        defer { try? file.close() }
        var state = seed
        var words = [UInt64](repeating: 0, count: (1 << 20) / 8)
        for part in 0..<mebibytes {
            for index in words.indices {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                words[index] = part % 4 == 3 ? 0 : state ^ (state >> 29)
            }
            try file.write(contentsOf: words.withUnsafeBytes { Data($0) })
        }
    }

    static func convert(_ image: String, to url: String) async throws {
        try await ProcessRunner.check(
            "qemu-img",
            ["convert", "-n", "-f", "raw", "-O", "raw", image, url],
            timeout: .seconds(300)
        )
    }

    static func compare(_ image: String, with url: String) async throws {
        let result = try await ProcessRunner.run(
            "qemu-img",
            ["compare", "-f", "raw", "-F", "raw", image, url],
            timeout: .seconds(300)
        )
        #expect(result.isSuccess, "\(url): \(result.summary)")
    }

    /// Runs commands of qemu-io on a URL.
    static func io(_ url: String, _ commands: [String]) async throws -> ProcessResult {
        try await ProcessRunner.run(
            "qemu-io",
            ["-f", "raw"] + commands.flatMap { ["-c", $0] } + [url],
            timeout: .seconds(60)
        )
    }
}
