import ArgumentParser
import ControlPlane

/// `ashlar recover`.
struct RecoverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recover",
        abstract: "Rebuild the map from the block objects, after the database was lost or restored.",
        discussion: """
            Says what it would do, and with --repair does it. Exit codes: 0 nothing is to be done, or it is done; 1 not everything \
            could be looked at; 3 there is something to repair, or blocks are lost.
            """
    )

    @Flag(help: "Carry the plan out; volumes that change are taken from their initiators meanwhile.") var repair = false
    @OptionGroup(title: "Control role") var client: ClientOptions

    func run() async throws {
        try await client.run("recover") { api in
            let job = try await client.wait(
                for: try await api.recover(RecoverRequest(repair: repair)).job,
                title: "Recovering",
                api
            )
            let report = job.recovery ?? RecoverReport()
            print(client.json ? try JSONText.text(report) + "\n" : Self.text(report), terminator: "")
            if !report.incomplete.isEmpty { throw ExitCodes.failed }
            if report.hasLoss || (report.isNeeded && !report.isRepaired) { throw ExitCodes.damaged }
        }
    }

    static func text(_ report: RecoverReport) -> String {
        var text = "Read the headers of \(report.objects) objects.\n"
        if report.isBehind { text += "The database is older than the objects: nothing is deleted meanwhile.\n" }
        if !report.findings.isEmpty {
            var table = Table(["FINDING", "VOLUME", "FIRST BLOCK", "BLOCKS", "OBJECT", "DETAIL"], right: [1, 2, 3, 4])
            for finding in report.findings {
                table.add([
                    finding.kind.rawValue, number(finding.volume), number(finding.firstBlock),
                    number(finding.blockCount), number(finding.object), finding.detail,
                ])
            }
            text += table.text
        }
        let more = report.counts.values.reduce(0, +) - UInt64(report.findings.count)
        if more > 0 { text += "\(more) more findings are not shown.\n" }
        for reason in report.incomplete { text += "Not looked at: \(reason)\n" }
        let changes =
            "\(report.blocksTaken) blocks of \(report.volumes.count) volumes from objects, in place of \(report.itemsReplaced) items"
        if report.isRepaired {
            text += "Mapped \(changes).\n"
            text += "What was written after the newest of these, and was not in an object yet, is lost.\n"
        } else if report.isNeeded {
            text += "To be mapped: \(changes). Do it with: ashlar recover --repair\n"
        } else {
            text += "There is nothing to do.\n"
        }
        return text
    }

    private static func number(_ value: (some BinaryInteger)?) -> String { value.map { "\($0)" } ?? "-" }
}

/// `ashlar cluster`.
struct ClusterCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cluster",
        abstract: "Show and change the settings of the cluster.",
        subcommands: [ClusterShowCommand.self, ClusterSetCommand.self]
    )
}

/// `ashlar cluster show`.
struct ClusterShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "Show the settings of the cluster.")

    @OptionGroup(title: "Control role") var client: ClientOptions

    func run() async throws {
        try await client.run("cluster show") { api in
            let cluster = try await api.cluster()
            print(client.json ? try JSONText.text(cluster) + "\n" : Self.table(cluster), terminator: "")
        }
    }

    static func table(_ cluster: ClusterDocument) -> String {
        var table = Table(["SETTING", "VALUE"])
        table.add(["cluster", cluster.uuid])
        table.add(["backup window", "\(cluster.backupWindowSeconds) s"])
        let rate = UInt64(clamping: cluster.scrubBytesPerSecond)
        table.add(["scrub rate", rate == 0 ? "off" : "\(SizeText.text(rate))/s"])
        table.add(["scrub interval", "\(cluster.scrubIntervalSeconds) s"])
        let deletion =
            switch cluster.deletionAllowed {
            case nil: "not asked yet"
            case true?: "allowed"
            case false?: "refused: the database is older than the objects; run ashlar recover"
            }
        table.add(["deletion of objects", deletion])
        table.add(["damaged blocks", "\(cluster.damagedBlocks)"])
        return table.text
    }
}

/// `ashlar cluster set`.
struct ClusterSetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "set", abstract: "Change settings of the cluster.")

    @Option(help: "Seconds for which dead objects keep their bytes at least, so that older backups find them.")
    var backupWindow: Int64?
    @Option(help: "Bytes that are verified in a second, as in 8M; 0: none.") var scrubRate: String?
    @Option(help: "Seconds from the beginning of one verification of everything to that of the next.")
    var scrubInterval: Int64?
    @OptionGroup(title: "Control role") var client: ClientOptions

    func validate() throws {
        guard backupWindow != nil || scrubRate != nil || scrubInterval != nil else {
            throw ValidationError("Name what to change: --backup-window, --scrub-rate or --scrub-interval.")
        }
    }

    func request() throws -> ChangeClusterRequest {
        var request = ChangeClusterRequest()
        request.backupWindowSeconds = backupWindow
        request.scrubBytesPerSecond = try scrubRate.map {
            Int64(clamping: try SizeText.parse($0, option: "--scrub-rate"))
        }
        request.scrubIntervalSeconds = scrubInterval
        return request
    }

    func run() async throws {
        try await client.run("cluster set") { api in
            let cluster = try await api.changeCluster(try request())
            print(client.json ? try JSONText.text(cluster) + "\n" : ClusterShowCommand.table(cluster), terminator: "")
        }
    }
}

/// `ashlar objects list`.
struct ObjectsListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List the object servers.")

    @OptionGroup(title: "Control role") var client: ClientOptions

    func run() async throws {
        try await client.run("objects list") { api in
            let servers = try await api.objectServers().objects
            print(client.json ? try JSONText.text(servers) + "\n" : CacheStatsCommand.table(servers), terminator: "")
        }
    }
}

/// `ashlar objects drain`.
struct ObjectsDrainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain",
        abstract: "Have the objects of an object server go to other object servers.",
        discussion:
            "It gets no new objects until --undo; those that lie there are rewritten elsewhere. See: objects list."
    )

    @Argument(help: "Number of the object server.") var id: Int32
    @Flag(help: "Let the server take objects again.") var undo = false
    @OptionGroup(title: "Control role") var client: ClientOptions

    var request: ChangeObjectServerRequest { ChangeObjectServerRequest(draining: !undo) }

    func run() async throws {
        try await client.run("objects drain") { api in
            let server = try await api.changeObjectServer(id, request)
            print(client.json ? try JSONText.text(server) + "\n" : CacheStatsCommand.table([server]), terminator: "")
        }
    }
}
