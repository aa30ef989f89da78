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
    @Option(help: "The program that delays connections, compiled from Tests/IntegrationTests/Initiator/deafen.c.")
    var deafen: String
    @Option(help: "First port of the targets.") var iscsiPort = 26_260
    @Option(help: "Directory for data and histories; created, and removed where nothing was found.") var directory:
        String?
    @Option(
        name: .customLong("fault"),
        help: "Do this one only; may be repeated: \(Fault.weights.map(\.fault.name).joined(separator: ", "))."
    )
    var faults: [String] = []
    @Option(name: .customLong("begin-with"), help: "Do this fault first; may be repeated.") var first: [String] = []
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
        for name in faults + first where Fault.named(name) == nil {
            throw ValidationError("The fault \(name) is not known; see --help.")
        }
        guard (1...10_000).contains(perSecond) else { throw ValidationError("--per-second is not 1 to 10000.") }
    }

    func run() async throws {
        let seed = seed ?? UInt64.random(in: 1...UInt64(UInt32.max))
        // Before anything is said or made: from here on it may be another process.
        let whyNoDisks = try await SmallDisks.enterNamespace()
        let directory = directory ?? "/tmp/ashlar-torture-\(UUID().uuidString.prefix(8).lowercased())"
        // PostgreSQL's user has to reach it.
        try FileManager.default.createDirectory(
            atPath: directory,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o755]
        )
        print("torture: seed \(seed), \(minutes) minutes of faults, \(clients) clients, in \(directory)")
        if let whyNoDisks { print("torture: NO FULL DISKS: \(whyNoDisks)") }
        let cluster = try await TorturedCluster.start(
            program: program,
            data: directory + "/data",
            port: iscsiPort,
            whyNoDisks: whyNoDisks
        )
        do {
            let report = try await torture(cluster, seed: seed, directory: directory)
            print(report.text)
            guard report.isClean else { throw ExitCode(1) }
        } catch {
            try await cluster.abandon(keeping: directory)
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
            deafen: deafen,
            clients: zip(processes, histories).map { ($0.pid, $1) },
            seed: seed,
            faults: faults.compactMap(Fault.named),
            first: first.compactMap(Fault.named),
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
        try await nemesis.flipLast()
        var history = History()
        for (index, path) in histories.enumerated() { try add(path, client: index + 1, to: &history) }
        let stalls = Stalls.byFault(nemesis.done, history)
        let last = ["\(directory)/history-last", "\(directory)/history-healed"]
        try await readEverything(urls, seed: seed, verb: "read", number: 1, history: last[0])
        try add(last[0], client: clients + 1, to: &history)
        var report = TortureReport(history: history, findings: [], stalls: stalls)
        for (fault, reason) in nemesis.impossible { report.impossible[fault.name] = reason }
        if !nemesis.damaged.since.isEmpty {
            let unreadable = history.damagedBlocks(client: clients + 1)
            let found = try await cluster.scrub()
            report.damage = (nemesis.damaged.since.count, unreadable.count, found.count)
            report.findings += nemesis.damaged.disagreements(unreadable: unreadable, found: found)
            // Whatever is damaged is whole when it is written anew.
            let bad = unreadable.union(found).sorted()
            if !bad.isEmpty {
                try await readEverything(urls, seed: seed, verb: "heal", number: 2, history: last[1], blocks: bad)
                try add(last[1], client: clients + 2, to: &history)
                try await cluster.moveAll()
                for block in try await cluster.scrub().sorted() {
                    report.findings.append(
                        .init(
                            lba: block * DamagedBlocks.blockSectors,
                            description: "still damaged, though it was written anew"
                        )
                    )
                }
            }
            report.history = history
        }
        report.findings += HistoryChecker.check(history, damaged: nemesis.damaged)
        if report.isClean {
            try await cluster.fsck()
            try await cluster.stop()
        }
        report.crashes = cluster.crashes()
        return report
    }

    /// Has a client read all sectors, or write some blocks anew.
    private func readEverything(
        _ urls: [String],
        seed: UInt64,
        verb: String,
        number: Int,
        history: String,
        blocks: [UInt64] = []
    ) async throws {
        var words = [verb, urls[Int(seed % UInt64(urls.count))], String(seed), String(clients + number), "0"]
        words += [String(Self.sharedSectors), history] + blocks.map { String($0 * DamagedBlocks.blockSectors) }
        try await ProcessRunner.check(client, words, timeout: .seconds(180))
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
