import ArgumentParser
import AsyncHTTPClient
import ControlPlane
import Failpoints
import Foundation
import Glibc
import Logging
import NIOConcurrencyHelpers
import NIOPosix
import Supervision

/// `ashlar up`: every role on this machine, each as a process of its own, with an embedded PostgreSQL cluster.
struct UpCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "up",
        abstract: "Run every role on this machine, with an embedded PostgreSQL cluster.",
        discussion: """
            Creates the data directory at the first start, starts PostgreSQL, object servers, cache servers, targets, agents \
            and the control role, each as a process of its own, restarts one that ends, and stops all in order on Ctrl-C.
            """
    )

    @Option(help: "The data directory (default: ./data, or /var/lib/ashlar where PostgreSQL cannot reach that).")
    var data: String?

    @Option(help: "Number of targets; they listen on the iSCSI port and those that follow.")
    var targets = 2

    @Option(help: "Number of cache servers.")
    var caches = 1

    @Option(help: "Number of object servers.")
    var objects = 1

    @Option(help: "Number of agents.")
    var agents = 1

    @Option(help: "iSCSI port of the first target.")
    var iscsiPort = 3_260

    @Option(
        help: ArgumentHelp(
            "The address of a balancer in front of all targets: they advertise it, and are one portal group.",
            valueName: "host:port"
        )
    )
    var balancedPortal: String?

    @Option(
        help: ArgumentHelp(
            "A volume to be created where it is missing; may be repeated (default at the first start: demo:1G).",
            valueName: "name:size[:blocksize]"
        )
    )
    var volume: [String] = []

    @Option(help: ArgumentHelp("iSNS server with which the targets register.", valueName: "host[:port]"))
    var isnsServer: String?

    @Option(help: "Event loops of each target (default: a quarter of the machine's processors).")
    var targetLoops: Int?

    @Option(help: "How much the roles log: trace, debug, info, notice, warning, error.")
    var logLevel = "info"

    @Flag(help: "Print one line of JSON when ready.")
    var json = false

    @Flag(help: "Do the main job once with a real initiator, then stop; exit code 0 or 1.")
    var once = false

    func run() async throws {
        let output = UpOutput(isJSON: json)
        let signals = SignalWatch()
        let running = NIOLockedValueBox<Cluster?>(nil)
        let work = Task { try await self.work(output: output, running: running) }
        let watch = Task {
            var isFirst = true
            for await _ in signals.signals {
                work.cancel()
                // The first begins an orderly stop, by way of the cancelled work; each further one makes it less patient.
                if !isFirst, let cluster = running.withLockedValue({ $0 }) { Task { await cluster.stop() } }
                isFirst = false
            }
        }
        defer { watch.cancel() }
        do {
            try await work.value
        } catch is CancellationError {
            guard once else { return }
            output.failure("ashlar up: interrupted.")
            throw ExitCode(130)
        } catch let error as ExitCode {
            throw error
        } catch {
            output.failure("ashlar up: \(error)")
            throw ExitCode(1)
        }
    }

    private func work(output: UpOutput, running: NIOLockedValueBox<Cluster?>) async throws {
        guard let level = Logger.Level(rawValue: logLevel) else {
            throw UpError(
                "--log-level \(logLevel) is none.",
                remedy: "Give trace, debug, info, notice, warning or error."
            )
        }
        let wanted = try volume.map { text throws(UpError) in
            do { return try VolumeArgument(parsing: text) } catch { throw UpError("--volume: \(error)") }
        }
        let plan = UpPlan(
            targets: targets,
            caches: caches,
            objects: objects,
            agents: agents,
            iscsiPort: iscsiPort,
            balancedPortal: balancedPortal,
            logLevel: level.rawValue,
            isnsServer: isnsServer,
            targetLoops: targetLoops
        )
        let preparation = try await UpPreparation.make(data: data, plan: plan) { output.progress($0) }
        let client = HTTPClient(eventLoopGroupProvider: .singleton)
        let cluster = Cluster(
            preparation: preparation,
            client: client,
            release: AshlarRelease.version,
            logger: Logger(label: "ashlar.up", factory: { _ in SwiftLogNoOpLogHandler() }),
            report: { output.progress($0) }
        )
        running.withLockedValue { $0 = cluster }
        let result: Result<Void, any Error>
        do {
            try await serve(cluster, preparation, client: client, wanted: wanted, output: output)
            result = .success(())
        } catch {
            result = .failure(error)
        }
        output.progress("stopping")
        await cluster.stop()
        try? await client.shutdown()
        withExtendedLifetime(preparation.lock) {}
        try result.get()
    }

    private func serve(
        _ cluster: Cluster,
        _ preparation: UpPreparation,
        client: HTTPClient,
        wanted: [VolumeArgument],
        output: UpOutput
    ) async throws {
        output.progress("starting; logs in \(preparation.layout.logDirectory)")
        try await cluster.start()
        let control = try APIClient(
            APIAccess(
                url: preparation.files.apiURL,
                authority: preparation.layout.authorityCertificate,
                token: try preparation.token()
            )
        )
        do {
            try await use(cluster, control, preparation, wanted: wanted, output: output)
        } catch {
            await control.shutdown()
            throw error
        }
        await control.shutdown()
    }

    private func use(
        _ cluster: Cluster,
        _ control: APIClient,
        _ preparation: UpPreparation,
        wanted: [VolumeArgument],
        output: UpOutput
    ) async throws {
        let isNew = !preparation.record.isComplete
        let asked = wanted.isEmpty && isNew ? [VolumeArgument(name: "demo", sizeBytes: 1 << 30)] : wanted
        let volumes = try await createVolumes(asked, control: control, output: output)
        await cluster.show(volumes)
        try preparation.complete()
        let state = await cluster.state
        output.ready(state, isNew: isNew)
        if once {
            let chosen = volumes.first { $0.name == asked.first?.name } ?? volumes.first
            guard let chosen else {
                throw UpError("There is no volume to work with.", remedy: "Name one with --volume.")
            }
            try await MainJob(cluster: cluster, control: control, volume: chosen, report: { output.step($0) }).run()
            output.progress("the main job is done")
            return
        }
        while true {
            try await Task.sleep(for: UpLimits.certificateInterval)
            do {
                try preparation.files.writeCertificates(now: Date())
            } catch {
                output.progress("certificates could not be renewed: \(error)")
            }
        }
    }

    /// Creates the volumes that are missing and returns all that there are.
    private func createVolumes(
        _ wanted: [VolumeArgument],
        control: APIClient,
        output: UpOutput
    ) async throws -> [VolumeDocument] {
        var volumes = try await control.volumes(after: nil, limit: UpLimits.volumesListedMaximum).volumes
        for volume in wanted {
            // Beyond the listed ones it may be there all the same.
            let listed = volumes.first { $0.name == volume.name }
            let isAllListed = volumes.count < UpLimits.volumesListedMaximum
            let asked = listed == nil && !isAllListed ? try? await control.volume(volume.name) : nil
            if let found = listed ?? asked {
                if found.sizeBytes != volume.sizeBytes {
                    output.progress("volume \(volume.name) is there with \(found.sizeBytes) bytes and stays as it is")
                }
                continue
            }
            var request = CreateVolumeRequest(name: volume.name, sizeBytes: volume.sizeBytes)
            request.blockSizeBytes = volume.blockSizeBytes
            volumes.append(try await control.createVolume(request))
            Failpoint.upVolumeCreated.reach()
        }
        return volumes
    }
}

/// What `ashlar up` says: the result on standard output, everything else on standard error.
struct UpOutput: Sendable {
    var isJSON: Bool

    func progress(_ text: String) {
        write("ashlar up: \(text)\n", to: STDERR_FILENO)
    }

    func failure(_ text: String) {
        write(text + "\n", to: STDERR_FILENO)
    }

    func ready(_ state: ClusterState, isNew: Bool) {
        if isJSON {
            write(((try? state.line()) ?? "{}") + "\n", to: STDOUT_FILENO)
        } else {
            write(AttachHelp.text(state, isNew: isNew) + "\n", to: STDOUT_FILENO)
        }
    }

    func step(_ step: MainJob.Step) {
        if isJSON {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            guard let data = try? encoder.encode(step) else { return }
            write(String(decoding: data, as: UTF8.self) + "\n", to: STDOUT_FILENO)
        } else {
            let detail = step.detail.isEmpty ? "" : (step.detail.hasPrefix("\n") ? step.detail : " (\(step.detail))")
            write("\(step.step). \(step.what): \(step.seconds) s\(detail)\n", to: STDOUT_FILENO)
        }
    }

    /// Whole lines by one call each, so that they do not mix.
    private func write(_ text: String, to file: Int32) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
            if count < 0, errno != EINTR { return }
            bytes = bytes.dropFirst(max(0, count))
        }
    }
}
