import AshlarCore
import AsyncHTTPClient
import ControlPlane
import Failpoints
import Foundation
import Glibc
import Logging
import NIOCore
import NIOHTTP1
import Supervision

/// Runs the processes: carries out what the supervisor decides and tells it what became of it.
actor Cluster {
    let layout: UpLayout
    let plan: UpPlan
    let files: RoleFiles
    let postgres: EmbeddedPostgres
    let database: ClusterDatabase
    private let logs: ProcessLogs
    private let client: HTTPClient
    private let isNew: Bool
    private let migrations: String
    private let release: String
    /// What people should hear of: deaths, restarts, failures.
    private let report: @Sendable (String) -> Void

    private var supervisor: Supervisor
    private let clock = ContinuousClock()
    private let origin = ContinuousClock.now
    private var timer: Task<Void, Never>?
    private var isMigrated = false
    private var startWaiter: CheckedContinuation<Void, any Error>?
    private var stopWaiters: [CheckedContinuation<Void, Never>] = []
    private var volumes: [VolumeDocument] = []
    private var writtenState: ClusterState?
    private var wasReported = false

    init(
        preparation: UpPreparation,
        client: HTTPClient,
        release: String,
        logger: Logger,
        report: @escaping @Sendable (String) -> Void
    ) {
        layout = preparation.layout
        plan = preparation.plan
        files = preparation.files
        postgres = preparation.postgres
        isNew = !preparation.record.isComplete
        migrations = preparation.migrations
        database = ClusterDatabase(dsn: preparation.postgres.dsn, logger: logger)
        logs = ProcessLogs(layout: preparation.layout)
        supervisor = Supervisor(preparation.plan.processes)
        self.client = client
        self.release = release
        self.report = report
    }

    private var now: Duration { clock.now - origin }

    // MARK: Start and stop

    /// Starts everything and returns when everything is ready.
    ///
    /// - Throws: ``UpError`` where a process cannot be started, `CancellationError`; `stop` is to follow.
    func start() async throws {
        precondition(startWaiter == nil, "a cluster is started twice")
        try logs.rotate(plan.processes.map(\.name))
        isMigrated = false
        wasReported = false
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                startWaiter = continuation
                if Task.isCancelled {
                    finishStart(.failure(CancellationError()))
                } else {
                    perform(supervisor.start(now: now))
                }
            }
        } onCancel: {
            Task { await self.finishStart(.failure(CancellationError())) }
        }
    }

    /// Stops everything in order and returns when no process is left. Called again meanwhile, it is less patient.
    func stop() async {
        await withCheckedContinuation { continuation in
            stopWaiters.append(continuation)
            let actions = supervisor.stop(now: now)
            perform(actions)
            if actions.isEmpty, supervisor.isStopped { finishStop() }
        }
        timer?.cancel()
        timer = nil
        writeState()
    }

    private func finishStart(_ result: Result<Void, any Error>) {
        startWaiter?.resume(with: result)
        startWaiter = nil
    }

    private func finishStop() {
        for waiter in stopWaiters { waiter.resume() }
        stopWaiters = []
    }

    // MARK: State

    /// Renews the list of volumes in what is shown.
    func show(_ volumes: [VolumeDocument]) {
        self.volumes = Array(volumes.prefix(UpLimits.volumesListedMaximum))
        writeState()
    }

    /// What runs now.
    var state: ClusterState {
        let targets = plan.instances(of: .target)
        let portals = volumes.flatMap { volume in
            targets.map { target in
                ClusterState.Portal(
                    volume: volume.name,
                    address: "127.0.0.1",
                    port: files.port(of: target),
                    iqn: volume.iqn,
                    pid: supervisor.pid(of: target.name) ?? 0
                )
            }
        }
        let socket = "\(postgres.socketDirectory)/.s.PGSQL.\(EmbeddedPostgres.port)"
        var roles = [
            ClusterState.RoleProcess(
                role: UpPlan.postgresName,
                pid: supervisor.pid(of: UpPlan.postgresName) ?? 0,
                endpoint: socket
            )
        ]
        roles += plan.instances.map { instance in
            ClusterState.RoleProcess(
                role: instance.role.rawValue,
                pid: supervisor.pid(of: instance.name) ?? 0,
                endpoint: files.endpoint(of: instance)
            )
        }
        return ClusterState(
            ready: supervisor.isAllReady,
            portals: portals,
            balancedPortal: plan.balancedPortal,
            postgres: postgres.dsn,
            api: files.apiURL,
            roles: roles,
            data: layout.root,
            token: layout.tokenFile,
            authority: layout.authorityCertificate
        )
    }

    private func writeState() {
        let state = state
        guard state != writtenState else { return }
        do {
            try Files.replace(layout.stateFile, with: try state.line() + "\n", mode: 0o644)
            writtenState = state
        } catch {
            report("\(layout.stateFile) cannot be written: \(error)")
        }
    }

    // MARK: Actions

    private func perform(_ actions: [Supervisor.Action]) {
        for action in actions {
            switch action {
            case .spawn(let name): Task { await spawn(name) }
            case .probe(let name, let pid): Task { await probe(name, pid: pid) }
            case .cleanUp(let name): Task { await cleanUp(name) }
            case .send(let signal, let pid): kill(pid, signal)
            case .changed: changed()
            case .died(let name, let pid, let end):
                report("\(name) (process \(pid)) ended with \(end) and is started again")
            case .allReady: finishStart(.success(()))
            case .startFailed(let name, let failure): finishStart(.failure(startError(name, failure)))
            case .allStopped: finishStop()
            }
        }
        arm()
    }

    private func arm() {
        timer?.cancel()
        guard let deadline = supervisor.nextDeadline else {
            timer = nil
            return
        }
        let wait = deadline - now
        timer = Task {
            if wait > .zero {
                do { try await Task.sleep(for: wait) } catch { return }
            }
            tick()
        }
    }

    private func tick() {
        perform(supervisor.tick(now: now))
    }

    private func changed() {
        writeState()
        if supervisor.isAllReady {
            if wasReported { report("all processes are ready") }
            wasReported = true
        }
    }

    private func ended(_ pid: pid_t) {
        let end = Spawner.reap(pid)
        perform(supervisor.ended(pid: pid, end, now: now))
    }

    private func spawn(_ name: String) async {
        do {
            if name == UpPlan.postgresName { try await postgres.clearRemains() }
            let output = try logs.open(name)
            defer { close(output) }
            let program =
                name == UpPlan.postgresName ? postgres.program(output: output) : roleProgram(name, output: output)
            // The end may be told before the start is: it waits its turn here.
            let (ends, continuation) = AsyncStream.makeStream(of: pid_t.self)
            let outcome = await Spawner.shared.spawn(program) { pid in
                continuation.yield(pid)
                continuation.finish()
            }
            switch outcome {
            case .running(let pid):
                perform(supervisor.spawned(name, pid: pid, now: now))
                Task { for await pid in ends { ended(pid) } }
            case .failed(let code):
                perform(supervisor.spawnFailed(name, errno: code, now: now))
            }
        } catch {
            report("\(name) cannot be started: \(error)")
            if startWaiter != nil { finishStart(.failure(error)) }
            perform(supervisor.spawnFailed(name, errno: EIO, now: now))
        }
    }

    private func roleProgram(_ name: String, output: Int32) -> Program {
        guard let instance = plan.instances.first(where: { $0.name == name }) else {
            preconditionFailure("a process without an instance")
        }
        return Program(
            path: "/proc/self/exe",
            arguments: [instance.role.rawValue, "--config", layout.configuration(of: instance)],
            displayName: "ashlar",
            environment: Spawner.environment(),
            directory: layout.directory(of: instance),
            output: output,
            // What must survive is durable elsewhere, and an orphan would hold its port.
            parentDeathSignal: SIGKILL
        )
    }

    private func probe(_ name: String, pid: Int32) async {
        let isReady: Bool
        if name == UpPlan.postgresName {
            isReady = await isPostgresReady(pid: pid)
        } else {
            isReady = await isRoleReady(name)
        }
        perform(supervisor.probed(name, pid: pid, isReady: isReady, now: now))
    }

    /// At the first start PostgreSQL counts as ready when its schema is: everything else waits for that.
    private func isPostgresReady(pid: Int32) async -> Bool {
        guard postgres.isReady(pid: pid) else { return false }
        guard !isMigrated else { return true }
        do {
            let count = try await database.migrate(directory: migrations, release: release)
            if count > 0 { report("applied \(count) migration\(count == 1 ? "" : "s")") }
            Failpoint.upDatabaseMigrated.reach()
            try await database.claim(cluster: files.record.cluster, isNew: isNew)
            Failpoint.upDatabaseClaimed.reach()
            isMigrated = true
            return true
        } catch {
            finishStart(.failure(error))
            return false
        }
    }

    private func isRoleReady(_ name: String) async -> Bool {
        guard let instance = plan.instances.first(where: { $0.name == name }) else { return false }
        var request = HTTPClientRequest(url: "http://127.0.0.1:\(files.healthPort(of: instance))/health/ready")
        request.method = .GET
        let timeout = TimeAmount.milliseconds(UpLimits.probeTimeoutMilliseconds)
        guard let response = try? await client.execute(request, timeout: timeout) else { return false }
        // Read to the end, so that the connection can serve the next question.
        _ = try? await response.body.collect(upTo: UpLimits.outputTailBytes)
        return response.status == .ok
    }

    private func cleanUp(_ name: String) async {
        // Without PostgreSQL there is nobody to tell, and the successor waits for it in any case.
        if supervisor.isReady(UpPlan.postgresName) {
            do {
                try await database.releaseLease(of: name)
            } catch {
                report("the lease of \(name) was not released and will run out: \(error)")
            }
        }
        perform(supervisor.cleanedUp(name, now: now))
    }

    private func startError(_ name: String, _ failure: Supervisor.StartFailure) -> UpError {
        let reason: String
        switch failure {
        case .notExecutable(let code): reason = "it cannot be executed (\(systemMessage(code)))"
        case .ended(let end): reason = "it ended with \(end)"
        case .timedOut(let timeout): reason = "it was not ready within \(timeout)"
        }
        let said = logs.tail(name).map { "\n    " + $0 }.joined()
        return UpError(
            "\(name) did not start: \(reason).",
            remedy: "Its log is \(layout.log(of: name))\(said.isEmpty ? "." : ", which ends:\(said)")"
        )
    }
}
