/// Starts processes in the order of their needs, restarts those that end, and stops all in stages.
///
/// A value without clock, process or file: events come in with the time (since any fixed moment), actions go out, and the
/// shell reports what became of them. Each process is in one phase:
///
/// | phase | process exists | leaves by |
/// | --- | --- | --- |
/// | `idle` | no | all that it needs is ready → `spawning` |
/// | `spawning` | perhaps | `spawned` → `starting`, `spawnFailed` → `waiting` |
/// | `starting` | yes | `probed(ready)` → `ready`, `ended` |
/// | `ready` | yes | `ended` |
/// | `cleaning` | no | `cleanedUp` → `waiting` |
/// | `waiting` | no | its time has come → `idle` |
/// | `stopping` | yes | `ended` → `stopped` |
/// | `stopped` | no | `start` |
public struct Supervisor: Sendable {
    /// What the shell is to do.
    public enum Action: Sendable, Hashable {
        /// Start the process and report `spawned` or `spawnFailed`.
        case spawn(String)
        /// Ask whether the process is ready and report `probed`.
        case probe(String, pid: Int32)
        /// Release what the ended process held and report `cleanedUp`.
        case cleanUp(String)
        /// Send a signal.
        case send(signal: Int32, pid: Int32)
        /// A process became ready, ended, or has another number: what others read of this is to be renewed.
        case changed
        /// A process ended without having been asked to.
        case died(String, pid: Int32, ProcessEnd)
        /// Every process has been ready once: the first start is complete. Sent once a start.
        case allReady
        /// The first start cannot be completed; `stop` is to follow.
        case startFailed(String, StartFailure)
        /// No process is left. Sent once a stop.
        case allStopped
    }

    /// Why a first start was given up.
    public enum StartFailure: Sendable, Hashable {
        /// The program could not be executed.
        case notExecutable(errno: Int32)
        /// It ended too often before it was ready.
        case ended(ProcessEnd)
        /// It was not ready in time.
        case timedOut(Duration)
    }

    enum Phase: Sendable, Hashable {
        case idle
        case spawning
        case starting(pid: Int32, since: Duration, nextProbe: Duration, isProbing: Bool)
        case ready(pid: Int32, since: Duration)
        case cleaning(wait: Duration)
        case waiting(until: Duration)
        case stopping(pid: Int32, step: Int, until: Duration)
        case stopped
    }

    enum Mode: Sendable, Hashable {
        case stopped
        case starting
        case running
        case stopping
    }

    struct Member: Sendable {
        var process: SupervisedProcess
        var phase = Phase.stopped
        var backoff = Backoff()
        var wasReady = false
        var failedStarts = 0
        var firstSpawn: Duration?
    }

    var members: [Member]
    var mode = Mode.stopped

    /// A supervisor of these processes, none of which runs. Names must be distinct; needs name processes of the list.
    public init(_ processes: [SupervisedProcess]) {
        let names = Set(processes.map(\.name))
        precondition(names.count == processes.count, "two supervised processes have one name")
        precondition(processes.count <= SupervisionLimits.processesMaximum, "too many supervised processes")
        for process in processes {
            precondition(
                (process.needs + process.startsAfter).allSatisfy { names.contains($0) && $0 != process.name },
                "a supervised process needs one that is not there"
            )
            precondition(!process.stopSteps.isEmpty, "a supervised process without a stop signal")
        }
        self.members = processes.map { Member(process: $0) }
    }

    // MARK: What others may see

    /// The number of the process of this name, where it exists.
    public func pid(of name: String) -> Int32? {
        guard let index = members.firstIndex(where: { $0.process.name == name }) else { return nil }
        return pid(at: index)
    }

    /// Whether the process of this name is ready.
    public func isReady(_ name: String) -> Bool {
        members.contains { member in
            guard member.process.name == name, case .ready = member.phase else { return false }
            return true
        }
    }

    /// Whether all processes are ready now.
    public var isAllReady: Bool {
        members.allSatisfy { member in
            if case .ready = member.phase { return true }
            return false
        }
    }

    /// Whether no process is left, and none is to be started.
    public var isStopped: Bool { mode == .stopped }

    /// When `tick` is to be called next; nil where only an event can change something.
    public var nextDeadline: Duration? {
        members.compactMap { deadline(of: $0) }.min()
    }

    // MARK: Events

    /// Starts all processes; only after the creation or after `allStopped`.
    public mutating func start(now: Duration) -> [Action] {
        precondition(mode == .stopped, "a supervisor is started while it runs")
        mode = .starting
        for index in members.indices {
            members[index] = Member(process: members[index].process, phase: .idle)
        }
        return advance(now: now)
    }

    /// Stops all processes in stages. A second call takes the next step at once.
    public mutating func stop(now: Duration) -> [Action] {
        switch mode {
        case .stopped:
            return []
        case .starting, .running:
            mode = .stopping
            return advance(now: now)
        case .stopping:
            for index in members.indices {
                if case .stopping(let pid, let step, _) = members[index].phase {
                    members[index].phase = .stopping(pid: pid, step: step, until: now)
                }
            }
            return advance(now: now)
        }
    }

    /// A process that was to be started runs.
    public mutating func spawned(_ name: String, pid: Int32, now: Duration) -> [Action] {
        guard let index = index(of: name), members[index].phase == .spawning else {
            preconditionFailure("a process was spawned that was not asked for")
        }
        members[index].phase = .starting(pid: pid, since: now, nextProbe: now, isProbing: false)
        return [.changed] + advance(now: now)
    }

    /// A process could not be started.
    public mutating func spawnFailed(_ name: String, errno: Int32, now: Duration) -> [Action] {
        guard let index = index(of: name), members[index].phase == .spawning else {
            preconditionFailure("a process failed to start that was not asked for")
        }
        return lost(index, failure: .notExecutable(errno: errno), readyFor: nil, now: now) + advance(now: now)
    }

    /// What a probe found. Answers about processes that have ended meanwhile are ignored.
    public mutating func probed(_ name: String, pid: Int32, isReady: Bool, now: Duration) -> [Action] {
        guard let index = index(of: name), case .starting(pid, let since, _, _) = members[index].phase else {
            return []
        }
        guard isReady else {
            let slow = now - since > SupervisionLimits.probeSlowAfter
            let pause = slow ? SupervisionLimits.probeIntervalSlow : SupervisionLimits.probeInterval
            members[index].phase = .starting(pid: pid, since: since, nextProbe: now + pause, isProbing: false)
            return advance(now: now)
        }
        members[index].phase = .ready(pid: pid, since: now)
        members[index].wasReady = true
        return [.changed] + advance(now: now)
    }

    /// A process has ended. Unknown numbers are ignored.
    public mutating func ended(pid: Int32, _ end: ProcessEnd, now: Duration) -> [Action] {
        guard let index = members.indices.first(where: { self.pid(at: $0) == pid }) else { return [] }
        let name = members[index].process.name
        switch members[index].phase {
        case .stopping:
            members[index].phase = .stopped
            return [.changed] + advance(now: now)
        case .ready(_, let since):
            return [.died(name, pid: pid, end), .changed]
                + lost(index, failure: .ended(end), readyFor: now - since, now: now) + advance(now: now)
        case .starting:
            return [.died(name, pid: pid, end), .changed]
                + lost(index, failure: .ended(end), readyFor: nil, now: now) + advance(now: now)
        case .idle, .spawning, .cleaning, .waiting, .stopped:
            preconditionFailure("a process ended in a phase without one")
        }
    }

    /// What the process held has been released, or could not be: either way it may start again.
    public mutating func cleanedUp(_ name: String, now: Duration) -> [Action] {
        guard let index = index(of: name), case .cleaning(let wait) = members[index].phase else { return [] }
        members[index].phase = .waiting(until: now + wait)
        return advance(now: now)
    }

    /// Time has passed.
    public mutating func tick(now: Duration) -> [Action] {
        advance(now: now)
    }
}

// MARK: Steps

extension Supervisor {
    private func index(of name: String) -> Int? {
        members.firstIndex { $0.process.name == name }
    }

    private func pid(at index: Int) -> Int32? {
        switch members[index].phase {
        case .starting(let pid, _, _, _), .ready(let pid, _), .stopping(let pid, _, _): pid
        case .idle, .spawning, .cleaning, .waiting, .stopped: nil
        }
    }

    private func deadline(of member: Member) -> Duration? {
        switch member.phase {
        case .starting(_, _, let nextProbe, let isProbing):
            let timeout = startDeadline(of: member)
            guard !isProbing else { return timeout }
            return timeout.map { min($0, nextProbe) } ?? nextProbe
        case .waiting(let until), .stopping(_, _, let until): return until
        case .idle, .spawning, .ready, .cleaning, .stopped: return nil
        }
    }

    private func startDeadline(of member: Member) -> Duration? {
        guard mode == .starting, !member.wasReady, let first = member.firstSpawn else { return nil }
        return first + member.process.startTimeout
    }

    /// A process is gone, or never came: what comes next.
    private mutating func lost(
        _ index: Int,
        failure: StartFailure,
        readyFor: Duration?,
        now: Duration
    ) -> [Action] {
        guard mode != .stopping else {
            members[index].phase = .stopped
            return []
        }
        let wait = members[index].backoff.next(readyFor: readyFor)
        if mode == .starting, !members[index].wasReady {
            members[index].failedStarts += 1
            if members[index].failedStarts >= SupervisionLimits.firstStartAttemptsMaximum {
                members[index].phase = .stopped
                return [.startFailed(members[index].process.name, failure)]
            }
        }
        guard members[index].process.needsCleanUp else {
            members[index].phase = .waiting(until: now + wait)
            return []
        }
        members[index].phase = .cleaning(wait: wait)
        return [.cleanUp(members[index].process.name)]
    }

    private mutating func advance(now: Duration) -> [Action] {
        switch mode {
        case .stopped: []
        case .starting, .running: advanceStarting(now: now)
        case .stopping: advanceStopping(now: now)
        }
    }

    private mutating func advanceStarting(now: Duration) -> [Action] {
        var actions: [Action] = []
        for index in members.indices {
            if case .waiting(let until) = members[index].phase, until <= now { members[index].phase = .idle }
            switch members[index].phase {
            case .idle:
                guard mayStart(members[index]) else { continue }
                members[index].phase = .spawning
                if members[index].firstSpawn == nil { members[index].firstSpawn = now }
                actions.append(.spawn(members[index].process.name))
            case .starting(let pid, let since, let nextProbe, let isProbing):
                if let deadline = startDeadline(of: members[index]), deadline <= now {
                    // One failure is told, not one each time that the clock ticks.
                    members[index].firstSpawn = nil
                    let timeout = members[index].process.startTimeout
                    actions.append(.startFailed(members[index].process.name, .timedOut(timeout)))
                } else if !isProbing, nextProbe <= now {
                    members[index].phase = .starting(pid: pid, since: since, nextProbe: nextProbe, isProbing: true)
                    actions.append(.probe(members[index].process.name, pid: pid))
                }
            case .spawning, .ready, .cleaning, .waiting, .stopping, .stopped:
                continue
            }
        }
        if mode == .starting, members.allSatisfy(\.wasReady) {
            mode = .running
            actions.append(.allReady)
        }
        return actions
    }

    private func mayStart(_ member: Member) -> Bool {
        let wanted = member.process.needs + (member.wasReady ? [] : member.process.startsAfter)
        return wanted.allSatisfy(isReady)
    }

    private mutating func advanceStopping(now: Duration) -> [Action] {
        var actions: [Action] = []
        for index in members.indices {
            switch members[index].phase {
            case .idle, .waiting, .cleaning: members[index].phase = .stopped
            case .spawning, .starting, .ready, .stopping, .stopped: continue
            }
        }
        guard let stage = members.filter({ $0.phase != .stopped }).map(\.process.stopStage).min() else {
            mode = .stopped
            return [.allStopped]
        }
        for index in members.indices where members[index].process.stopStage == stage {
            switch members[index].phase {
            case .starting(let pid, _, _, _), .ready(let pid, _):
                actions.append(signal(index, pid: pid, step: 0, now: now))
            case .stopping(let pid, let step, let until) where until <= now:
                actions.append(signal(index, pid: pid, step: step + 1, now: now))
            case .idle, .spawning, .cleaning, .waiting, .stopping, .stopped:
                continue
            }
        }
        return actions
    }

    private mutating func signal(_ index: Int, pid: Int32, step: Int, now: Duration) -> Action {
        let steps = members[index].process.stopSteps
        let chosen = steps[min(step, steps.count - 1)]
        members[index].phase = .stopping(pid: pid, step: step, until: now + chosen.patience)
        return .send(signal: chosen.signal, pid: pid)
    }
}
