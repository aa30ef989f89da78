import ArgumentParser
import Foundation
import Testing

@testable import ControlPlane
@testable import ashlar

@Suite struct CommandTests {
    @Test func tablesAreAlignedAndHarmless() {
        var table = Table(["NAME", "SIZE", "NOTE"], right: [1])
        table.add(["a", "1G", "x"])
        table.add(["longer", "512M"])
        table.add(["\u{1B}[2J", "0", "ä"])
        #expect(
            table.text == """
                NAME    SIZE  NOTE
                a         1G  x
                longer  512M
                ?[2J       0  ä

                """
        )
    }

    @Test func progressBarIsShownOnTerminalsAlone() {
        #expect(
            ProgressBar.line("Moving", done: 5, total: 10, "5 left")
                == "Moving [###############...............] 50%  5 left"
        )
        #expect(
            ProgressBar.line("Moving", done: 20, total: 10, "") == "Moving [" + String(repeating: "#", count: 30)
                + "] 100%"
        )
        #expect(ProgressBar.line("Moving", done: 0, total: 0, "listing") == "Moving: listing")
        var hidden = ProgressBar("x", isShown: false) { _ in Issue.record("written") }
        hidden.show(done: 1, total: 2)
        hidden.end()
    }

    @Test func volumeCreateReadsItsArguments() throws {
        let command = try VolumeCreateCommand.parse([
            "demo", "--size", "10G", "--block-size", "8K", "--logical-block-size", "4096", "--read-only", "--move",
            "lru",
            "--cached-bytes", "64M", "--initiator", "iqn.1993-08.org.debian:01:x",
        ])
        let request = try command.request()
        #expect(
            request.sizeBytes == 10 << 30 && request.blockSizeBytes == 8_192 && request.logicalBlockSizeBytes == 4_096
        )
        #expect(
            request.readOnly == true && request.policy?.move == "lru" && request.policy?.cachedBytesMaximum == 64 << 20
        )
        #expect(request.initiators == ["iqn.1993-08.org.debian:01:x"] && request.credentials == nil)
        let wrong = try VolumeCreateCommand.parse(["demo", "--size", "10X"])
        let failure = #expect(throws: CommandFailure.self) { try wrong.request() }
        #expect(failure?.exitCode == ExitCodes.usage && failure?.description.contains("--size") == true)
    }

    @Test func volumeSetChangesOnlyWhatIsNamed() throws {
        #expect(try VolumeSetCommand.parse(["demo"]).request().readOnly == nil)
        let request = try VolumeSetCommand.parse(["demo", "--no-read-only", "--any-initiator", "--no-mutual-chap"])
            .request()
        #expect(request.readOnly == false && request.initiators == [] && request.mutual?.name == "")
        #expect(request.policy == nil && request.credentials == nil)
        #expect(throws: (any Error).self) {
            try VolumeSetCommand.parse(["demo", "--any-initiator", "--initiator", "iqn.x"])
        }
        #expect(throws: (any Error).self) { try MigrateDownCommand.parse([]) }
        #expect(throws: (any Error).self) { try MigrateDownCommand.parse(["--to", "-1"]) }
        #expect(throws: (any Error).self) { try MoveCommand.parse(["--timeout", "0"]) }
    }

    @Test func theBalancedPortalIsCheckedAndShown() throws {
        let plan = { (portal: String?) in
            UpPlan(
                targets: 2,
                caches: 1,
                objects: 1,
                agents: 1,
                iscsiPort: 3_260,
                balancedPortal: portal,
                logLevel: "info"
            )
        }
        for good in [nil, "10.0.0.30:3260", "[fd00::1]:3260", "san.example.net:860"] { try plan(good).validate() }
        for wrong in ["", "10.0.0.30", "10.0.0.30:", ":3260", "10.0.0.30:0", "10.0.0.30:65536"] {
            let error = #expect(throws: UpError.self) { try plan(wrong).validate() }
            #expect(error.map { "\($0)".contains("--balanced-portal") } == true, "\(wrong)")
        }
        var state = ClusterState(
            ready: true,
            portals: [ClusterState.Portal(volume: "demo", address: "127.0.0.1", port: 3_261, iqn: "iqn.x", pid: 1)],
            postgres: "",
            api: "",
            roles: [],
            data: "",
            token: "",
            authority: ""
        )
        #expect(AttachHelp.text(state, isNew: true).contains("-p 127.0.0.1:3261 --login"))
        state.balancedPortal = "10.0.0.30:3260"
        #expect(AttachHelp.text(state, isNew: true).contains("-p 10.0.0.30:3260 --login"))
    }

    @Test func theLoopsOfATargetAreBounded_I10() throws {
        var plan = UpPlan(targets: 1, caches: 1, objects: 1, agents: 1, iscsiPort: 3_260, logLevel: "info")
        for good in [nil, 1, 32] {
            plan.targetLoops = good
            try plan.validate()
        }
        for wrong in [0, 33] {
            plan.targetLoops = wrong
            let error = #expect(throws: UpError.self) { try plan.validate() }
            #expect(error.map { "\($0)".contains("--target-loops") } == true)
        }
    }

    @Test func rolesAndTheirQuestionsShareAName() throws {
        #expect(try Ashlar.parseAsRoot(["target", "list"]) is TargetListCommand)
        #expect(try Ashlar.parseAsRoot(["target", "drain", "t-1"]) is TargetDrainCommand)
        #expect(try Ashlar.parseAsRoot(["target", "--config", "a.json"]) is TargetCommand)
        #expect(try Ashlar.parseAsRoot(["objects", "list"]) is ObjectsListCommand)
        #expect(try Ashlar.parseAsRoot(["objects", "drain", "1"]) is ObjectsDrainCommand)
        #expect(try Ashlar.parseAsRoot(["objects", "--config", "a.json"]) is ObjectsCommand)
        #expect(try Ashlar.parseAsRoot(["cluster", "show"]) is ClusterShowCommand)
        #expect(try Ashlar.parseAsRoot(["recover", "--repair"]) is RecoverCommand)
        #expect(try Ashlar.parseAsRoot(["cache", "stats", "--json"]) is CacheStatsCommand)
        #expect(try Ashlar.parseAsRoot(["cache"]) is CacheCommand)
        #expect(try Ashlar.parseAsRoot(["cache", "accept-loss", "--config", "a.json"]) is CacheAcceptLossCommand)
        #expect(try Ashlar.parseAsRoot(["config", "cache"]) is ConfigShowCommand)
        #expect(try Ashlar.parseAsRoot(["config", "check", "cache"]) is ConfigCheckCommand)
    }

    @Test func aTargetIsDrainedByItsName() throws {
        let drain = try TargetDrainCommand.parse(["t-1"])
        #expect(drain.node == "t-1" && drain.request.draining)
        #expect(try !TargetDrainCommand.parse(["t-1", "--undo"]).request.draining)
        #expect(throws: (any Error).self) { try TargetDrainCommand.parse([]) }
        #expect(throws: (any Error).self) { try TargetDrainCommand.parse(["t-1", "t-2"]) }
    }

    @Test func aCacheServerIsDrainedByItsName() throws {
        #expect(try Ashlar.parseAsRoot(["cache", "drain", "c-1"]) is CacheDrainCommand)
        let drain = try CacheDrainCommand.parse(["c-1"])
        #expect(drain.node == "c-1" && drain.request.draining)
        #expect(try !CacheDrainCommand.parse(["c-1", "--undo"]).request.draining)
        for arguments in [[], ["c-1", "c-2"]] {
            #expect(throws: (any Error).self) { try CacheDrainCommand.parse(arguments) }
        }
    }

    @Test func anObjectServerIsDrainedByItsNumber() throws {
        let drain = try ObjectsDrainCommand.parse(["2"])
        #expect(drain.id == 2 && drain.request.draining)
        #expect(try !ObjectsDrainCommand.parse(["2", "--undo"]).request.draining)
        for arguments in [[], ["objects-2"], ["1", "2"]] {
            #expect(throws: (any Error).self) { try ObjectsDrainCommand.parse(arguments) }
        }
    }

    @Test func settingsOfTheClusterAreNamedOneByOne() throws {
        let request = try ClusterSetCommand.parse(["--backup-window", "60", "--scrub-rate", "8M"]).request()
        #expect(request.backupWindowSeconds == 60 && request.scrubBytesPerSecond == 8 << 20)
        #expect(request.scrubIntervalSeconds == nil)
        #expect(throws: (any Error).self) { try ClusterSetCommand.parse([]) }
        #expect(throws: (any Error).self) { try ClusterSetCommand.parse(["--scrub-rate", "fast"]).request() }
    }

    @Test func aRecoverySaysWhatItFoundAndWhatToDo() throws {
        var report = RecoverReport()
        report.objects = 12
        #expect(RecoverCommand.text(report).contains("There is nothing to do."))
        report.isBehind = true
        report.volumes = ["vm1"]
        report.blocksTaken = 3
        report.findings = [
            RecoverReport.Finding(
                kind: .lost,
                volume: 7,
                firstBlock: 40,
                blockCount: 2,
                object: 9,
                detail: "gone"
            )
        ]
        report.counts = ["lost": 5]
        let plan = RecoverCommand.text(report)
        for part in ["older than the objects", "lost", "40", "gone", "4 more findings", "ashlar recover --repair"] {
            #expect(plan.contains(part), "\(part)")
        }
        report.isRepaired = true
        #expect(RecoverCommand.text(report).contains("Mapped 3 blocks of 1 volumes"))
    }

    private func target(_ node: String, alive: Bool = true, draining: Bool = false) -> TargetDocument {
        TargetDocument(
            node: node,
            portal: "10.0.0.1:3260",
            portalGroupTag: 1,
            release: "0.3.0",
            sessions: 2,
            heartbeatAgeSeconds: alive ? 1 : 90,
            alive: alive,
            draining: draining
        )
    }

    @Test func theListShowsWhichTargetsAreDrained() {
        let text = TargetListCommand.table([
            target("t-1"), target("t-2", draining: true), target("t-3", alive: false, draining: true),
        ])
        let states = text.split(separator: "\n").dropFirst().map {
            $0.split(separator: " ").dropFirst(4).joined(separator: " ")
        }
        #expect(states == ["alive 0.3.0", "draining 0.3.0", "silent for 90 s 0.3.0"])
    }

    @Test func credentialsComeFromFiles() throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("ashlar-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: path) }
        try Data("# comment\nuser  a secret phrase\n\nother\tx\n".utf8).write(to: path)
        let credentials = try AccessOptions.read(path.path, option: "--chap-file")
        #expect(credentials.map(\.name) == ["user", "other"])
        #expect(credentials.map(\.secret) == ["a secret phrase", "x"])
        try Data("lonely\n".utf8).write(to: path)
        let failure = #expect(throws: CommandFailure.self) { try AccessOptions.read(path.path, option: "--chap-file") }
        #expect(failure?.description.contains("Line 1") == true && failure?.description.contains("lonely") == false)
    }

    @Test func accessIsFoundInTheDataDirectory() throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("ashlar-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: directory) }
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        let data = directory.path
        try Data(#"{"api":"https://127.0.0.1:7443/","ready":true}"#.utf8)
            .write(to: directory.appendingPathComponent("state.json"))
        var options = try ClientOptions.parse(["--data", data])
        let failure = #expect(throws: CommandFailure.self) { try options.access(environment: [:]) }
        #expect(failure?.exitCode == ExitCodes.token)
        try Data("secret\n".utf8).write(to: directory.appendingPathComponent("token"))
        #expect(
            try options.access(environment: [:])
                == APIAccess(
                    url: "https://127.0.0.1:7443",
                    authority: data + "/authority/certificate.pem",
                    token: "secret"
                )
        )
        options = try ClientOptions.parse(["--data", data, "--api", "http://127.0.0.1:1"])
        #expect(throws: CommandFailure.self) { try options.access(environment: [:]) }
        options = try ClientOptions.parse(["--data", data])
        #expect(try options.access(environment: ["ASHLAR_API": "https://h:1"]).url == "https://h:1")
        #expect(throws: CommandFailure.self) { try options.access(environment: ["ASHLAR_TOKEN_FILE": data + "/none"]) }
    }

    @Test func hostsAreSortedByKind() {
        let (addresses, names) = CertsIssueCommand.sorted(["10.0.0.1", "db.example.net", "::1", "1.2.3"])
        #expect(addresses == ["10.0.0.1", "::1"])
        #expect(names == ["db.example.net", "1.2.3"])
    }

    @Test func reportOfACheckAsText() {
        var report = FsckReport()
        #expect(FsckCommand.text(report).hasSuffix("Everything agrees.\n"))
        report.counts = ["item-checksum-wrong": 2]
        report.findings = [.init(kind: .itemChecksumWrong, volume: 1, block: 2, object: nil, detail: "d")]
        let text = FsckCommand.text(report)
        #expect(text.contains("item-checksum-wrong") && text.contains("1 more findings are not shown."))
    }
}
