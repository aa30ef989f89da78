import ArgumentParser
import AshlarTestSupport
import Foundation

/// `ashlar-torture`: a cluster of real processes, clients that write down what they see, and faults; then the history is checked.
@main
struct TortureCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ashlar-torture",
        abstract: "Torture a cluster of real processes, and check what its clients saw.",
        discussion: """
            Exit codes: 0 nothing was found; 1 something was. A seed gives the same faults in the same order; what they meet \
            depends on the machine.
            """
    )

    @Option(help: "How long faults are done, in minutes.") var minutes: Double = 2
    @Option(help: "The seed of faults and operations (drawn).") var seed: UInt64?
    @Option(help: "Clients; each has one session at a time.") var clients = 4
    @Option(help: "Operations a second and client, at most.") var perSecond = 60
    @Option(help: "The program ashlar.") var program: String
    @Option(help: "The client, compiled from Tests/IntegrationTests/Initiator/torture.c.") var client: String
    @Option(help: "First port of the targets.") var iscsiPort = 26_260
    @Option(help: "Directory for data and histories; created, and removed where nothing was found.") var directory:
        String?
    @Option(
        name: .customLong("fault"),
        help: "Do this one only; may be repeated: \(Fault.weights.map(\.fault.name).joined(separator: ", "))."
    )
    var faults: [String] = []
    @Option(help: "Longest time between two faults, in seconds.") var gap: Double = 3
    @Flag(help: "Name each fault as it is done.") var verbose = false

    /// Sectors of 512 bytes that all clients share: few enough that they meet, many enough that the cache server's map does not
    /// fit one region (1,024 blocks of 4 KiB).
    static let sharedSectors = 24_576
    static let depth = 8
    /// Some clients give up before a command's deadline of 20 s, some never do.
    static let patienceMilliseconds = [7_000, 28_000]
    static let maximumMinutes = 24.0 * 60
    static let maximumGapSeconds = 600.0

    func validate() throws {
        guard minutes > 0, minutes <= Self.maximumMinutes else {
            throw ValidationError("--minutes is not above 0 and at most \(Self.maximumMinutes).")
        }
        guard (1...64).contains(clients) else { throw ValidationError("--clients is not 1 to 64.") }
        guard gap > 0, gap <= Self.maximumGapSeconds else {
            throw ValidationError("--gap is not above 0 and at most \(Self.maximumGapSeconds).")
        }
        for name in faults where Fault.named(name) == nil {
            throw ValidationError("--fault \(name) is not known; see --help.")
        }
        guard (1...10_000).contains(perSecond) else { throw ValidationError("--per-second is not 1 to 10000.") }
    }

    func run() async throws {
        let seed = seed ?? UInt64.random(in: 1...UInt64(UInt32.max))
        let directory = directory ?? "/tmp/ashlar-torture-\(UUID().uuidString.prefix(8).lowercased())"
        // PostgreSQL's user has to reach it.
        try FileManager.default.createDirectory(
            atPath: directory,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o755]
        )
        print("torture: seed \(seed), \(minutes) minutes of faults, \(clients) clients, in \(directory)")
        let cluster = try await TorturedCluster.start(program: program, data: directory + "/data", port: iscsiPort)
        do {
            let report = try await torture(cluster, seed: seed, directory: directory)
            print(report.text)
            guard report.isClean else {
                cluster.abandon()
                throw ExitCode(1)
            }
        } catch {
            cluster.abandon()
            print("torture: data and histories are kept in \(directory)")
            throw error
        }
        try FileManager.default.removeItem(atPath: directory)
    }

    private func torture(_ cluster: TorturedCluster, seed: UInt64, directory: String) async throws -> TortureReport {
        let clock = ContinuousClock()
        let deadline = clock.now + .milliseconds(Int(minutes * 60_000))
        let urls = try cluster.urls()
        let histories = (1...clients).map { "\(directory)/history-\($0)" }
        let processes = try histories.indices.map { index in
            try start(
                urls,
                seed: seed,
                index: index + 1,
                history: histories[index],
                milliseconds: Int(minutes * 60_000)
            )
        }
        var nemesis = Nemesis(
            cluster: cluster,
            seed: seed,
            faults: faults.compactMap(Fault.named),
            gapMaximumMilliseconds: Int(gap * 1_000)
        )
        let isVerbose = verbose
        try await nemesis.run(until: deadline) {
            guard isVerbose else { return }
            print("torture: \($0)")
            // Into a file, too, line by line.
            fflush(nil)
        }
        // The clients see through what they have begun, and a last one reads everything.
        for process in processes {
            let result = try await process.wait(timeout: .seconds(180))
            guard result.isSuccess else { throw ProcessFailure("a client: \(result.summary)") }
        }
        let last = "\(directory)/history-last"
        try await ProcessRunner.check(
            client,
            [
                "read", urls[Int(seed % UInt64(urls.count))], String(seed), String(clients + 1), "0",
                String(Self.sharedSectors), last,
            ],
            timeout: .seconds(120)
        )
        var history = History()
        for (index, path) in histories.enumerated() { try add(path, client: index + 1, to: &history) }
        let stalls = Stalls.byFault(nemesis.done, history)
        try add(last, client: clients + 1, to: &history)
        var report = TortureReport(history: history, findings: HistoryChecker.check(history), stalls: stalls)
        if report.isClean {
            try await cluster.fsck()
            try await cluster.stop()
        }
        report.crashes = cluster.crashes()
        return report
    }

    private func add(_ path: String, client: Int, to history: inout History) throws {
        guard let bytes = FileManager.default.contents(atPath: path) else {
            throw ProcessFailure("there is no \(path)")
        }
        history.add(client: client, text: String(decoding: bytes, as: UTF8.self))
    }

    private func start(
        _ urls: [String],
        seed: UInt64,
        index: Int,
        history: String,
        milliseconds: Int
    ) throws -> BackgroundProcess {
        let numbers = [
            Int(index), milliseconds, 0, Self.sharedSectors, Self.depth, perSecond,
            Self.patienceMilliseconds[index % Self.patienceMilliseconds.count],
        ]
        let words = ["torture", urls.joined(separator: ","), String(seed)] + numbers.map(String.init) + [history]
        return try BackgroundProcess(client, words)
    }
}
