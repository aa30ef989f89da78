import AshlarTestSupport
import Foundation
import Testing

/// libiscsi's own test suite, one process a test, so that a crash or a hang loses one result.
struct Conformance: Sendable {
    enum Outcome: Sendable, Hashable {
        case pass
        case skip(String)
        case fail(String)
    }

    /// A test that does not pass, and why.
    struct Expectation: Sendable {
        var name: String
        var logicalBlocks: String
        var reason: String
    }

    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/Conformance"
    /// Longer than the suite's own pauses: `Sanitize.Reset` sleeps for a minute, and again as long as the overwrite lasts.
    private static let timeout = Duration.seconds(300)
    private let program = "iscsi-test-cu"
    private let library: String

    /// Compiles what makes silent skips heard.
    static func prepare() async throws -> Conformance {
        let library = try TestEnvironment.temporaryDirectory() + "/skips.so"
        try await ProcessRunner.check(
            "gcc",
            ["-shared", "-fPIC", "-O1", "-Wall", "-o", library, "\(folder)/skips.c", "-ldl"],
            timeout: .seconds(60)
        )
        return Conformance(library: library)
    }

    private init(library: String) { self.library = library }

    /// What is expected not to pass, from the file.
    static func expectations() throws -> [Expectation] {
        let text = try String(contentsOfFile: "\(folder)/expected.tsv", encoding: .utf8)
        return text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map { line in
            let fields = line.split(separator: "\t").map(String.init)
            precondition(fields.count == 3, "a line has a test, a block size and a reason: \(line)")
            return Expectation(name: fields[0], logicalBlocks: fields[1], reason: fields[2])
        }
    }

    /// All tests of the suite.
    func names() async throws -> [String] {
        let list = try await ProcessRunner.check(program, ["-l"])
        return list.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }.filter { name in
            name.split(separator: ".").count == 3
                && ["SCSI.", "iSCSI.", "LINUX."].contains { name.hasPrefix($0) }
        }
    }

    /// Runs one test.
    func run(_ name: String, _ url: String, secondPath: String) async throws -> Outcome {
        var arguments = ["-v", "-V", "-d", "-S", "-t", name, url]
        if name.contains(".MultipathIO.") { arguments.append(secondPath) }
        let result: ProcessResult
        do {
            result = try await ProcessRunner.run(
                program,
                arguments,
                environment: ["LD_PRELOAD": library],
                timeout: Self.timeout
            )
        } catch {
            return .fail("\(error)")
        }
        return Self.outcome(of: result)
    }

    /// What a run printed, from CUnit's banner on: what stands before it is the program's look at the unit.
    static func outcome(of result: ProcessResult) -> Outcome {
        let whole = result.output + result.errors
        let text = whole.range(of: "A unit testing framework").map { String(whole[$0.upperBound...]) } ?? whole
        let lines = text.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
        let failures = lines.filter { $0.contains("[FAILED]") || $0.contains("[FAIL]") || $0.contains(".c:") }
        guard let counts = lines.first(where: { $0.hasPrefix("tests ") }).map(numbers), counts.count >= 4 else {
            return .fail("did not run: \(result.summary.suffix(300))")
        }
        let asserts = lines.first { $0.hasPrefix("asserts ") }.map(numbers) ?? []
        // Total, run, passed, failed.
        guard counts[1] == 1, counts[3] == 0, asserts.count >= 4, asserts[3] == 0 else {
            return .fail(failures.prefix(3).joined(separator: " | "))
        }
        if let skip = lines.first(where: { $0.contains("[SKIPPED]") }) { return .skip(skip) }
        return .pass
    }

    private static func numbers(_ line: String) -> [Int] { line.split(separator: " ").compactMap { Int($0) } }

    /// Runs tests one after the other, and compares what does not pass with the list.
    ///
    /// - Parameter logicalBlocks: 512 or 4096, as the list has it.
    func check(
        _ selected: [String],
        _ url: String,
        secondPath: String,
        logicalBlocks: String = "512"
    ) async throws {
        let expected = try Self.expectations().filter { ["all", logicalBlocks].contains($0.logicalBlocks) }
        var passed = 0
        for name in selected {
            let outcome = try await run(name, url, secondPath: secondPath)
            let isExpected = expected.contains { $0.name == name }
            switch outcome {
            case .pass:
                passed += 1
                #expect(!isExpected, "\(name) passes by now: take it off the list")
            case .skip(let why): #expect(isExpected, "\(name) was skipped: \(why)")
            case .fail(let why): #expect(isExpected, "\(name) failed: \(why)")
            }
        }
        #expect(passed > 0, "nothing was run")
        print("libiscsi's suite, \(logicalBlocks)-byte blocks: \(passed) of \(selected.count) passed")
    }
}

extension IntegrationTests {
    @Suite(.serialized) struct ConformanceTests {
        /// The whole suite; the cases of several paths go through both nodes.
        @Test func theWholeSuite() async throws {
            let suite = try await Conformance.prepare()
            // Sanitize.Reset has an overwrite outlast its pauses and resets, some five seconds in all, and Sanitize.BlockErase has
            // the map of the whole unit told at once; Sanitize.Overwrite writes a unit six times.
            let ofLarge: Set = ["SCSI.Sanitize.Reset", "SCSI.Sanitize.BlockErase"]
            try await TestCluster.with(volumes: ["demo:64M", "large:1G"]) { cluster in
                let names = try await suite.names()
                try await suite.check(
                    names.filter { !ofLarge.contains($0) },
                    cluster.url(target: 1),
                    secondPath: cluster.url(target: 2)
                )
                try await suite.check(
                    names.filter { ofLarge.contains($0) },
                    cluster.url(target: 1, volume: "large"),
                    secondPath: cluster.url(target: 2, volume: "large")
                )
            }
        }

        /// What other logical blocks touch: all that names blocks.
        @Test func logicalBlocksOf4096Bytes() async throws {
            let suite = try await Conformance.prepare()
            try await TestCluster.with(volumes: []) { cluster in
                let body = #"{"name":"large","sizeBytes":67108864,"logicalBlockSizeBytes":4096}"#
                let created = try await cluster.api("POST", "/v1/volumes", body)
                #expect((200..<300).contains(created.status), "\(created)")
                let names = try await suite.names().filter { name in
                    name.hasPrefix("SCSI.") && !name.hasPrefix("SCSI.Sanitize.") && !name.hasPrefix("SCSI.Reserve6.")
                }
                let url = { (target: Int) in
                    "iscsi://127.0.0.1:\(cluster.port + target - 1)/iqn.2026-01.io.ashlar:large/0"
                }
                try await suite.check(names, url(1), secondPath: url(2), logicalBlocks: "4096")
            }
        }

        /// Writes to a read-only volume are refused, whatever the command.
        @Test func aReadOnlyVolume() async throws {
            let suite = try await Conformance.prepare()
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let changed = try await cluster.api("PATCH", "/v1/volumes/demo", #"{"readOnly":true}"#)
                #expect((200..<300).contains(changed.status), "\(changed)")
                let url = try cluster.url()
                for name in ["SCSI.ReadOnly.ReadOnlySBC", "LINUX.ReadOnly.ReadOnlySBC"] {
                    #expect(try await suite.run(name, url, secondPath: url) == .pass, "\(name)")
                }
            }
        }

        /// CHAP both ways, and header digests: a case of each sort of transfer, and of several sessions.
        @Test func withAuthenticationAndDigests() async throws {
            let suite = try await Conformance.prepare()
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let access = #"""
                    {"credentials":[{"name":"host","secret":"asecretofsixteen"}],
                    "mutual":{"name":"array","secret":"anotherofsixteen"}}
                    """#
                let changed = try await cluster.api("PATCH", "/v1/volumes/demo", access)
                #expect((200..<300).contains(changed.status), "\(changed)")
                let options = "?target_user=array&target_password=anotherofsixteen&header_digest=crc32c"
                let urls = try (1...2).map { target in
                    try cluster.url(target: target, login: "host%asecretofsixteen@") + options
                }
                let families = [
                    "SCSI.Read10.", "SCSI.Write10.", "SCSI.CompareAndWrite.", "SCSI.Unmap.", "SCSI.ProutReserve.",
                    "SCSI.Reserve6.", "SCSI.MultipathIO.", "iSCSI.",
                ]
                let names = try await suite.names().filter { name in families.contains { name.hasPrefix($0) } }
                try await suite.check(names, urls[0], secondPath: urls[1])
            }
        }
    }
}
