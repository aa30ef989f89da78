import Supervision
import Testing

/// Runs a supervisor in one thread: spawns succeed with rising numbers, probes answer by a set of names.
private struct World {
    var supervisor: Supervisor
    var now = Duration.zero
    var nextPID: Int32 = 100
    var readyNames: Set<String> = []
    var log: [Supervisor.Action] = []
    var cleansUpAtOnce = true

    init(_ processes: [SupervisedProcess]) {
        supervisor = Supervisor(processes)
    }

    mutating func start() { run(supervisor.start(now: now)) }
    mutating func stop() { run(supervisor.stop(now: now)) }
    mutating func end(_ name: String, _ end: ProcessEnd = .signalled(9)) throws {
        let pid = try #require(supervisor.pid(of: name))
        run(supervisor.ended(pid: pid, end, now: now))
    }

    mutating func run(_ actions: [Supervisor.Action]) {
        var queue = actions
        while !queue.isEmpty {
            let action = queue.removeFirst()
            log.append(action)
            switch action {
            case .spawn(let name):
                nextPID += 1
                queue += supervisor.spawned(name, pid: nextPID, now: now)
            case .probe(let name, let pid):
                queue += supervisor.probed(name, pid: pid, isReady: readyNames.contains(name), now: now)
            case .cleanUp(let name):
                if cleansUpAtOnce { queue += supervisor.cleanedUp(name, now: now) }
            case .send, .changed, .died, .allReady, .startFailed, .allStopped:
                break
            }
        }
    }

    /// Lets time pass from deadline to deadline.
    mutating func pass(_ duration: Duration) {
        let end = now + duration
        while let deadline = supervisor.nextDeadline, deadline <= end {
            now = max(now, deadline)
            run(supervisor.tick(now: now))
        }
        now = end
        run(supervisor.tick(now: now))
    }

    mutating func takeLog() -> [Supervisor.Action] {
        defer { log = [] }
        return log
    }

    var spawned: [String] {
        log.compactMap { action in
            if case .spawn(let name) = action { return name }
            return nil
        }
    }

    var signals: [Int32] {
        log.compactMap { action in
            if case .send(let signal, _) = action { return signal }
            return nil
        }
    }
}

private func cluster() -> [SupervisedProcess] {
    let steps = [
        SupervisedProcess.StopStep(signal: 15, patience: .seconds(10)),
        SupervisedProcess.StopStep(signal: 9, patience: .seconds(1)),
    ]
    return [
        SupervisedProcess(name: "postgres", stopStage: 3, stopSteps: steps, startTimeout: .seconds(30)),
        SupervisedProcess(
            name: "cache",
            needs: ["postgres"],
            needsCleanUp: true,
            stopStage: 2,
            stopSteps: steps,
            startTimeout: .seconds(30)
        ),
        SupervisedProcess(
            name: "target",
            startsAfter: ["cache"],
            stopStage: 1,
            stopSteps: steps,
            startTimeout: .seconds(30)
        ),
    ]
}

private func runningWorld() -> World {
    var world = World(cluster())
    world.readyNames = ["postgres", "cache", "target"]
    world.start()
    return world
}

@Suite struct SupervisorTests {
    @Test func startsInTheOrderOfNeeds() {
        var world = World(cluster())
        world.start()
        #expect(world.spawned == ["postgres"])
        world.pass(.seconds(1))
        #expect(world.spawned == ["postgres"])
        world.readyNames = ["postgres"]
        world.pass(.seconds(1))
        #expect(world.spawned == ["postgres", "cache"])
        world.readyNames = ["postgres", "cache"]
        world.pass(.seconds(1))
        #expect(world.spawned == ["postgres", "cache", "target"])
        #expect(!world.log.contains(.allReady))
        world.readyNames = ["postgres", "cache", "target"]
        world.pass(.seconds(1))
        #expect(world.log.filter { $0 == .allReady }.count == 1)
        #expect(world.supervisor.isAllReady)
        #expect(world.supervisor.nextDeadline == nil)
    }

    @Test func restartsAtOnceWhatDies() throws {
        var world = runningWorld()
        _ = world.takeLog()
        let old = try #require(world.supervisor.pid(of: "target"))
        try world.end("target")
        world.pass(.zero)
        #expect(world.log.contains(.died("target", pid: old, .signalled(9))))
        #expect(world.spawned == ["target"])
        let new = try #require(world.supervisor.pid(of: "target"))
        #expect(new != old)
        #expect(world.supervisor.isAllReady)
        #expect(!world.log.contains(.allReady), "it is told once a start")
    }

    @Test func waitsLongerTheOftenerItDies() throws {
        var world = runningWorld()
        var waits: [Duration] = []
        for _ in 0..<10 {
            try world.end("target")
            let died = world.now
            while world.supervisor.pid(of: "target") == nil {
                world.now = try #require(world.supervisor.nextDeadline)
                world.run(world.supervisor.tick(now: world.now))
            }
            waits.append(world.now - died)
        }
        #expect(waits[0] == .zero)
        #expect(waits[1] == SupervisionLimits.backoffMinimum)
        #expect(waits[2] == SupervisionLimits.backoffMinimum * 2)
        #expect(waits[9] == SupervisionLimits.backoffMaximum)
        world.pass(SupervisionLimits.steadyAfter)
        try world.end("target")
        world.pass(.zero)
        #expect(world.supervisor.pid(of: "target") != nil, "after a steady time it is restarted at once")
    }

    @Test func aCacheWaitsForPostgresAndATargetDoesNotWaitForTheCache() throws {
        var world = runningWorld()
        world.readyNames = []
        _ = world.takeLog()
        try world.end("postgres")
        try world.end("cache")
        try world.end("target")
        world.pass(.seconds(1))
        #expect(Set(world.spawned) == ["postgres", "target"])
        world.readyNames = ["postgres", "cache", "target"]
        world.pass(.seconds(1))
        #expect(world.spawned.contains("cache"))
        #expect(world.supervisor.isAllReady)
    }

    @Test func releasesWhatItHeldBeforeTheRestart() throws {
        var world = runningWorld()
        world.cleansUpAtOnce = false
        _ = world.takeLog()
        try world.end("cache")
        world.pass(.seconds(5))
        #expect(world.log.contains(.cleanUp("cache")))
        #expect(world.spawned.isEmpty)
        world.run(world.supervisor.cleanedUp("cache", now: world.now))
        world.pass(.zero)
        #expect(world.spawned == ["cache"])
    }

    @Test func givesTheFirstStartUpAfterSomeAttempts() throws {
        var world = World(cluster())
        world.start()
        for _ in 0..<SupervisionLimits.firstStartAttemptsMaximum {
            world.pass(.seconds(1))
            try world.end("postgres", .exited(1))
        }
        world.pass(.seconds(60))
        #expect(world.log.contains(.startFailed("postgres", .ended(.exited(1)))))
        #expect(world.spawned.count == SupervisionLimits.firstStartAttemptsMaximum)
        world.stop()
        #expect(world.log.last == .allStopped)
    }

    @Test func givesTheFirstStartUpWhenItTakesTooLong() {
        var world = World(cluster())
        world.start()
        world.pass(.seconds(120))
        let failures = world.log.filter { $0 == .startFailed("postgres", .timedOut(.seconds(30))) }
        #expect(failures.count == 1)
    }

    @Test func aProgramThatCannotBeExecutedFailsTheStart() {
        var supervisor = Supervisor(cluster())
        var now = Duration.zero
        var failed = false
        var actions = supervisor.start(now: now)
        for _ in 0..<20 where !failed {
            if actions.contains(.spawn("postgres")) {
                actions = supervisor.spawnFailed("postgres", errno: 2, now: now)
                failed = actions.contains(.startFailed("postgres", .notExecutable(errno: 2)))
            } else {
                now = supervisor.nextDeadline ?? now
                actions = supervisor.tick(now: now)
            }
        }
        #expect(failed)
    }

    @Test func stopsInStages() throws {
        var world = runningWorld()
        let target = try #require(world.supervisor.pid(of: "target"))
        let cache = try #require(world.supervisor.pid(of: "cache"))
        let postgres = try #require(world.supervisor.pid(of: "postgres"))
        _ = world.takeLog()
        world.stop()
        #expect(world.log == [.send(signal: 15, pid: target)])
        try world.end("target", .exited(0))
        #expect(world.log.last == .send(signal: 15, pid: cache))
        try world.end("cache", .exited(0))
        #expect(world.log.last == .send(signal: 15, pid: postgres))
        #expect(!world.log.contains(.allStopped))
        try world.end("postgres", .exited(0))
        #expect(world.log.filter { $0 == .allStopped }.count == 1)
        #expect(world.supervisor.nextDeadline == nil)
    }

    @Test func killsWhatDoesNotStop() {
        var world = runningWorld()
        _ = world.takeLog()
        world.stop()
        world.pass(.seconds(9))
        #expect(world.signals == [15])
        world.pass(.milliseconds(2_500))
        #expect(world.signals == [15, 9, 9])
    }

    @Test func aSecondStopIsImpatient() {
        var world = runningWorld()
        _ = world.takeLog()
        world.stop()
        world.stop()
        #expect(world.signals == [15, 9])
    }

    @Test func stopsWhileItStarts() throws {
        var supervisor = Supervisor(cluster())
        #expect(supervisor.start(now: .zero) == [.spawn("postgres")])
        #expect(supervisor.stop(now: .zero).isEmpty)
        let actions = supervisor.spawned("postgres", pid: 7, now: .zero)
        #expect(actions == [.changed, .send(signal: 15, pid: 7)])
        #expect(supervisor.ended(pid: 7, .exited(0), now: .zero) == [.changed, .allStopped])
    }

    @Test func aDeathDuringTheStopIsNoReasonToRestart() throws {
        var world = runningWorld()
        world.stop()
        try world.end("postgres", .signalled(9))
        try world.end("target", .exited(0))
        try world.end("cache", .exited(0))
        #expect(world.log.last == .allStopped)
        #expect(world.spawned.count == 3)
    }

    @Test func startsAgainAfterAStop() throws {
        var world = runningWorld()
        world.stop()
        for name in ["target", "cache", "postgres"] { try world.end(name, .exited(0)) }
        _ = world.takeLog()
        world.start()
        world.pass(.zero)
        #expect(world.spawned == ["postgres", "cache", "target"])
        #expect(world.log.filter { $0 == .allReady }.count == 1)
    }

    @Test func lateNewsOfTheDeadIsIgnored() throws {
        var world = runningWorld()
        let old = try #require(world.supervisor.pid(of: "target"))
        world.readyNames.remove("target")
        try world.end("target")
        world.pass(.zero)
        #expect(world.supervisor.probed("target", pid: old, isReady: true, now: world.now).isEmpty)
        #expect(!world.supervisor.isReady("target"))
        #expect(world.supervisor.ended(pid: old, .exited(0), now: world.now).isEmpty)
        #expect(world.supervisor.ended(pid: 4_711, .exited(0), now: world.now).isEmpty)
    }

    @Test func endsAreReadFromStatusWords() {
        #expect(ProcessEnd(waitStatus: 0) == .exited(0))
        #expect(ProcessEnd(waitStatus: 0x0100) == .exited(1))
        #expect(ProcessEnd(waitStatus: 9) == .signalled(9))
        #expect(ProcessEnd(waitStatus: 0x80 | 11) == .signalled(11))
    }
}
