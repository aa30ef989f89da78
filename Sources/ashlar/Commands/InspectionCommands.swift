import ArgumentParser
import ControlPlane

/// `ashlar target list`.
struct TargetListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List the targets.")

    @Flag(help: "List the sessions of initiators instead.") var sessions = false
    @OptionGroup(title: "Control role") var client: ClientOptions

    func run() async throws {
        try await client.run("target list") { api in
            if sessions {
                let list = try await api.sessions()
                guard !client.json else { return print(try JSONText.text(list.sessions)) }
                print(Self.table(list.sessions), terminator: "")
                if list.truncated { StandardError.write("There are more sessions than are shown.\n") }
            } else {
                let list = try await api.targets()
                print(client.json ? try JSONText.text(list.targets) + "\n" : Self.table(list.targets), terminator: "")
            }
        }
    }

    static func table(_ targets: [TargetDocument]) -> String {
        var table = Table(["NODE", "PORTAL", "GROUP", "SESSIONS", "STATE", "RELEASE"], right: [2, 3])
        for target in targets {
            let state = Self.state(of: target)
            table.add([
                target.node, target.portal, "\(target.portalGroupTag)", "\(target.sessions)", state, target.release,
            ])
        }
        return table.text
    }

    private static func state(of target: TargetDocument) -> String {
        guard target.alive else { return "silent for \(Int(target.heartbeatAgeSeconds)) s" }
        return target.draining ? "draining" : "alive"
    }

    static func table(_ sessions: [SessionDocument]) -> String {
        var table = Table(["VOLUME", "NEXUS", "INITIATOR", "ISID", "NODE", "SINCE"], right: [1])
        for session in sessions {
            table.add([
                session.volume, "\(session.nexus)", session.initiator, session.isid, session.node, session.openedAt,
            ])
        }
        return table.text
    }
}

/// `ashlar target drain`.
struct TargetDrainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain",
        abstract: "Have the sessions of a target go to other targets.",
        discussion: "The target learns it within 5 s, and stays empty until --undo, also when it is started again."
    )

    @Argument(help: "Name of the node, as in target list.") var node: String
    @Flag(help: "Let the target take sessions again.") var undo = false
    @OptionGroup(title: "Control role") var client: ClientOptions

    var request: ChangeTargetRequest { ChangeTargetRequest(draining: !undo) }

    func run() async throws {
        try await client.run("target drain") { api in
            let target = try await api.changeTarget(node, request)
            print(client.json ? try JSONText.text(target) + "\n" : TargetListCommand.table([target]), terminator: "")
        }
    }
}

/// `ashlar cache drain`.
struct CacheDrainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain",
        abstract: "Have the volumes of a cache server go to other cache servers.",
        discussion: """
            The server learns it within two seconds, hands its volumes over without an error to any initiator, and stays empty \
            until --undo, also when it is started again. Where no other cache server lives it keeps them.
            """
    )

    @Argument(help: "Name of the node, as in cache stats.") var node: String
    @Flag(help: "Let the cache server have volumes again.") var undo = false
    @OptionGroup(title: "Control role") var client: ClientOptions

    var request: ChangeCacheRequest { ChangeCacheRequest(draining: !undo) }

    func run() async throws {
        try await client.run("cache drain") { api in
            let node = try await api.changeCache(node, request)
            print(client.json ? try JSONText.text(node) + "\n" : CacheStatsCommand.table([node]), terminator: "")
        }
    }
}

/// `ashlar cache stats`.
struct CacheStatsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats",
        abstract: "Show the numbers of cache servers and object servers."
    )

    @OptionGroup(title: "Control role") var client: ClientOptions

    private struct Numbers: Encodable {
        var caches: [CacheDocument]
        var nodes: [CacheNodeDocument]
        var objects: [ObjectServerDocument]
    }

    func run() async throws {
        try await client.run("cache stats") { api in
            let list = try await api.caches()
            let objects = try await api.objectServers().objects
            let numbers = Numbers(caches: list.caches, nodes: list.nodes, objects: objects)
            guard !client.json else { return print(try JSONText.text(numbers)) }
            print(
                Self.table(numbers.nodes),
                Self.table(numbers.caches),
                Self.volumes(numbers.caches),
                Self.table(numbers.objects),
                separator: "\n",
                terminator: ""
            )
            let reasons =
                numbers.caches.map { ($0.endpoint, $0.reason) } + numbers.objects.map { ($0.endpoint, $0.reason) }
            for case (let endpoint, let reason?) in reasons { StandardError.write("\(endpoint): \(reason)\n") }
        }
    }

    static func table(_ nodes: [CacheNodeDocument]) -> String {
        var table = Table(["NODE", "CACHE SERVER", "STATE", "VOLUMES", "IN USE"], right: [3, 4])
        for node in nodes {
            let life = node.stopping ? "stopping" : "alive"
            let state = node.alive ? (node.draining ? "draining" : life) : "gone"
            table.add([node.name, node.endpoint, state, "\(node.volumes)", "\(node.volumesInUse)"])
        }
        return table.text
    }

    static func table(_ caches: [CacheDocument]) -> String {
        var table = Table(
            ["CACHE SERVER", "STATE", "MEMORY", "COMMITS", "BLOCKS", "BLOCKS/COMMIT"],
            right: [2, 3, 4, 5]
        )
        for cache in caches {
            let ratio = cache.commits == 0 ? 0 : cache.committedBlocks * 10 / cache.commits
            table.add([
                cache.endpoint, cache.reachable ? "alive" : "unreachable", SizeText.text(cache.imageBytes),
                "\(cache.commits)", "\(cache.committedBlocks)", "\(ratio / 10).\(ratio % 10)",
            ])
        }
        return table.text
    }

    static func volumes(_ caches: [CacheDocument]) -> String {
        var table = Table(
            ["VOLUME", "CACHE SERVER", "EPOCH", "SESSIONS", "UNMOVED", "CACHED", "READS", "WRITES"],
            right: [2, 3, 4, 5, 6, 7]
        )
        for cache in caches {
            for volume in cache.volumes {
                table.add([
                    volume.name ?? "#\(volume.id)", cache.endpoint, "\(volume.epoch)", "\(volume.sessions)",
                    "\(volume.unmovedItems)", SizeText.text(volume.cachedBytes), "\(volume.reads)", "\(volume.writes)",
                ])
            }
        }
        return table.text
    }

    static func table(_ servers: [ObjectServerDocument]) -> String {
        var table = Table(
            ["OBJECT SERVER", "ENDPOINT", "STATE", "OBJECTS", "LIVE", "STORED", "FREE"],
            right: [3, 4, 5, 6]
        )
        for server in servers {
            var state = server.reachable ? server.draining ? "draining" : "alive" : "unreachable"
            if server.rootsOutOfService > 0 { state = "\(server.rootsOutOfService) roots out of service" }
            table.add([
                "\(server.id)", server.endpoint, state, "\(server.objects)", server.liveObjects.map { "\($0)" } ?? "-",
                SizeText.text(server.bytes), SizeText.text(server.freeBytes),
            ])
        }
        return table.text
    }
}

/// `ashlar move`.
struct MoveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "move",
        abstract: "Move every unmoved item to block objects now."
    )

    @Argument(help: "Volumes to drain (all).") var volumes: [String] = []
    @Option(help: "Give up after this many seconds without progress.") var timeout: Int = 120
    @OptionGroup(title: "Control role") var client: ClientOptions

    func validate() throws {
        guard timeout > 0 else { throw ValidationError("--timeout is not above 0; give seconds.") }
    }

    func run() async throws {
        try await client.run("move") { api in
            var moved: [String: UInt64] = [:]
            for name in try await names(api) { moved[name] = try await drain(name, api) }
            guard !client.json else { return print(try JSONText.text(["moved": moved])) }
            var table = Table(["VOLUME", "MOVED ITEMS"], right: [1])
            for (name, count) in moved.sorted(by: { $0.key < $1.key }) { table.add([name, "\(count)"]) }
            print(table.text, terminator: "")
        }
    }

    private func names(_ api: APIClient) async throws -> [String] {
        if !volumes.isEmpty { return volumes }
        var names: [String] = []
        var after: String?
        repeat {
            let page = try await api.volumes(after: after)
            names += page.volumes.filter { $0.state == "active" }.map(\.name)
            after = page.next
        } while after != nil
        return names
    }

    /// Asks again until nothing is left.
    private func drain(_ name: String, _ api: APIClient) async throws -> UInt64 {
        var bar = ProgressBar("Moving \(name)")
        defer { bar.end() }
        var most = try await api.move(name).unmovedItems
        var left = most
        let first = most
        var quiet = 0
        while left > 0 {
            bar.show(done: most - left, total: most, "\(left) items left")
            try await Task.sleep(for: .milliseconds(250))
            let now = try await api.move(name).unmovedItems
            quiet = now < left ? 0 : quiet + 1
            guard quiet < timeout * 4 else {
                throw CommandFailure(
                    "Volume \(name) has \(now) unmoved items and gets no further; see that an agent and an object server run."
                )
            }
            left = now
            most = max(most, now)
        }
        return first
    }
}

/// `ashlar fsck`.
struct FsckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fsck",
        abstract: "Check that items, extents and objects agree; repair what is safe.",
        discussion: "Exit codes: 0 nothing is damaged; 1 the check was not complete; 3 damage was found."
    )

    @Option(help: "Only this volume; objects without a row are not looked for then.") var volume: String?
    @Flag(help: "Read every object on its server as well.") var verify = false
    @Flag(help: "Repair nothing.") var noRepair = false
    @OptionGroup(title: "Control role") var client: ClientOptions

    func run() async throws {
        try await client.run("fsck") { api in
            let request = FsckRequest(volume: volume, verify: verify, repair: !noRepair)
            let job = try await client.wait(for: try await api.fsck(request).job, title: "Checking", api)
            let report = job.report ?? FsckReport()
            print(client.json ? try JSONText.text(report) + "\n" : Self.text(report), terminator: "")
            if report.hasDamage { throw ExitCodes.damaged }
            if !report.incomplete.isEmpty { throw ExitCodes.failed }
        }
    }

    static func text(_ report: FsckReport) -> String {
        var text =
            "Checked \(report.volumes) volumes, \(report.items) items, \(report.extents) extents, \(report.objects) objects"
        text += report.objectsVerified > 0 ? "; read \(report.objectsVerified) objects.\n" : ".\n"
        if !report.findings.isEmpty {
            var table = Table(["FINDING", "VOLUME", "BLOCK", "OBJECT", "DETAIL"], right: [1, 2, 3])
            for finding in report.findings {
                let numbers = [finding.volume, finding.block, finding.object].map { $0.map(String.init) ?? "-" }
                table.add([finding.kind.rawValue] + numbers + [finding.detail])
            }
            text += table.text
        }
        let more = report.counts.values.reduce(0, +) - UInt64(report.findings.count)
        if more > 0 { text += "\(more) more findings are not shown.\n" }
        for repair in report.repairs { text += "Repaired: \(repair).\n" }
        for reason in report.incomplete { text += "Not checked: \(reason)\n" }
        if report.isClean { text += "Everything agrees.\n" }
        return text
    }
}
