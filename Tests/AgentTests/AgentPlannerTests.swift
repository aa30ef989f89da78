import AshlarCore
import Testing

@testable import Agent
@testable import AgentPlanning

@Suite("The planner of an agent")
struct AgentPlannerTests {
    private static let millisecond: UInt64 = 1_000_000

    private static func configuration(
        caches: Int = 1,
        objectsInMemory: Int = 2,
        scanSeconds: UInt64 = 60,
        seed: UInt64 = 1
    ) -> AgentPlanner.Configuration {
        AgentPlanner.Configuration(
            caches: caches,
            objectsInMemory: objectsInMemory,
            idleNanoseconds: 500 * millisecond,
            scanNanoseconds: scanSeconds * 1_000 * millisecond,
            seed: seed
        )
    }

    /// A world of seeds: jobs take a while, find work or not, fail now and then. Checks the planner's rules at every
    /// step.
    private struct World {
        var planner: AgentPlanner
        var random: AgentRandom
        var now = MonotonicTime(0)
        let configuration: AgentPlanner.Configuration
        var running: [(job: AgentPlanner.Job, ends: MonotonicTime)] = []
        var lastStart: [AgentPlanner.Job: MonotonicTime] = [:]
        var trace: [String] = []
        var longestWait: [AgentPlanner.Kind: UInt64] = [:]
        /// Percent of jobs that find work, and that fail.
        let workPercent: UInt64
        let failPercent: UInt64

        init(seed: UInt64) {
            random = AgentRandom(seed: seed)
            configuration = AgentPlannerTests.configuration(
                caches: Int(random.next() % 3) + 1,
                objectsInMemory: Int(random.next() % 4) + 1,
                seed: seed
            )
            workPercent = random.next() % 101
            failPercent = random.next() % 30
            planner = AgentPlanner(configuration, now: now)
        }

        mutating func step() {
            for job in planner.due(now: now) { start(job) }
            check()
            let ends = running.map(\.ends).min()
            let wake = planner.nextWake(now: now)
            guard let next = [ends, wake].compactMap({ $0 }).min() else { return }
            if next < now { Issue.record("seed \(configuration.seed) goes back in time") }
            now = max(next, now)
            while let index = running.firstIndex(where: { $0.ends <= now }) { finish(running.remove(at: index).job) }
        }

        private mutating func start(_ job: AgentPlanner.Job) {
            trace.append("\(now) \(job.kind) \(job.cache)")
            let lane = AgentPlanner.Job(kind: job.kind, cache: job.kind.isShared ? 0 : job.cache)
            if let last = lastStart[lane] {
                longestWait[job.kind] = max(longestWait[job.kind] ?? 0, now.nanoseconds(since: last))
            }
            lastStart[lane] = now
            running.append((job, now.advanced(byNanoseconds: (random.next() % 20 + 1) * AgentPlannerTests.millisecond)))
            if random.next() % 100 < workPercent { planner.foundWork(job, now: now) }
        }

        private mutating func finish(_ job: AgentPlanner.Job) {
            let dice = random.next() % 100
            let outcome: AgentPlanner.Outcome =
                dice < failPercent ? .failed : random.next() % 100 < workPercent ? .worked : .nothing
            trace.append("\(now) \(job.kind) \(job.cache) \(outcome)")
            planner.finished(job, outcome, now: now)
        }

        private func check() {
            let jobs = running.map(\.job)
            let isKept =
                planner.running == jobs.count
                && jobs.count { $0.kind.holdsObject } <= configuration.objectsInMemory
                && [AgentPlanner.Kind.compact, .collect, .scan].allSatisfy { kind in jobs.count { $0.kind == kind } <= 1
                }
                && (0..<configuration.caches).allSatisfy { cache in
                    jobs.count { $0 == AgentPlanner.Job(kind: .evict, cache: cache) } <= 1
                }
                && jobs.allSatisfy { (0..<configuration.caches).contains($0.cache) }
            if !isKept { Issue.record("seed \(configuration.seed) at \(now): \(jobs)") }
        }
    }

    @Test("I10: no seed holds more objects than allowed, and no lane starves", arguments: 1...24 as ClosedRange<UInt64>)
    func seeds(seed: UInt64) {
        var world = World(seed: seed)
        for _ in 0..<2_500 { world.step() }
        let second: UInt64 = 1_000_000_000
        // The rest of each lane with its spread, or the longest rest after failures, and a wait for its turn.
        #expect(world.longestWait[.move] ?? 0 < 14 * second)
        #expect(world.longestWait[.evict] ?? 0 < 14 * second)
        #expect(world.longestWait[.compact] ?? 0 < 15 * second)
        #expect(world.longestWait[.collect] ?? 0 < 14 * second)
        #expect(world.longestWait[.scan] ?? 0 < 80 * second)
        for kind in [AgentPlanner.Kind.move, .evict, .compact] {
            for cache in 0..<world.configuration.caches {
                #expect(world.lastStart[AgentPlanner.Job(kind: kind, cache: cache)] != nil, "seed \(seed)")
            }
        }
    }

    @Test("The same seed gives the same run, another seed another")
    func determinism() {
        func trace(_ seed: UInt64) -> [String] {
            var world = World(seed: seed)
            for _ in 0..<500 { world.step() }
            return world.trace
        }
        #expect(trace(7) == trace(7))
        #expect(trace(7) != trace(8))
    }

    @Test(
        "After a stop nothing starts, and it is finished once the last job has ended",
        arguments: 1...20 as ClosedRange<UInt64>
    )
    func stop(seed: UInt64) {
        var world = World(seed: seed)
        for _ in 0..<(seed * 17) { world.step() }
        world.planner.stop()
        #expect(world.planner.due(now: MonotonicTime(.max)).isEmpty)
        #expect(world.planner.nextWake(now: world.now) == nil)
        for (index, running) in world.running.enumerated() {
            #expect(!world.planner.isFinished, "job \(index) still runs")
            world.planner.finished(running.job, .worked, now: world.now)
            #expect(world.planner.due(now: MonotonicTime(.max)).isEmpty)
        }
        #expect(world.planner.isFinished)
    }

    /// Jobs of one kind that are started by asking at `now`; all others are ended at once without work.
    private func start(
        _ kind: AgentPlanner.Kind,
        _ planner: inout AgentPlanner,
        now: MonotonicTime
    ) -> [AgentPlanner.Job] {
        let jobs = planner.due(now: now)
        for job in jobs where job.kind != kind { planner.finished(job, .nothing, now: now) }
        return jobs.filter { $0.kind == kind }
    }

    @Test("One move asks; once it found work, as many ask as there is room for")
    func pipelining() throws {
        var planner = AgentPlanner(Self.configuration(objectsInMemory: 3), now: MonotonicTime(0))
        let now = MonotonicTime(1_000 * Self.millisecond)
        let first = start(.move, &planner, now: now)
        #expect(first.count == 1)
        #expect(start(.move, &planner, now: now).isEmpty)
        planner.foundWork(first[0], now: now)
        #expect(start(.move, &planner, now: now).count == 2)
        planner.finished(first[0], .nothing, now: now)
        #expect(start(.move, &planner, now: now).isEmpty, "the last answer had no work")
    }

    @Test("Rests grow from a sixteenth of the idle rest to all of it, and shrink again with work")
    func rests() throws {
        var planner = AgentPlanner(Self.configuration(), now: MonotonicTime(0))
        var now = MonotonicTime(1_000 * Self.millisecond)
        for round in 0..<2 {
            for expected in [31.0, 62, 125, 250, 500, 500] {
                let jobs = start(.move, &planner, now: now)
                try #require(!jobs.isEmpty)
                for job in jobs { planner.finished(job, .nothing, now: now) }
                let due = try #require(earliest(.move, planner, from: now))
                let rest = Double(due.nanoseconds(since: now)) / Double(Self.millisecond)
                #expect((expected * 0.7...expected * 1.3).contains(rest), "round \(round)")
                now = due
            }
            let job = try #require(start(.move, &planner, now: now).first)
            planner.finished(job, .worked, now: now)
            #expect(earliest(.move, planner, from: now) == now)
        }
    }

    /// When a kind is due next: runs a copy of the planner from wake to wake, ending all others without work.
    private func earliest(
        _ kind: AgentPlanner.Kind,
        _ planner: AgentPlanner,
        from now: MonotonicTime
    ) -> MonotonicTime? {
        var copy = planner
        var time = now
        for _ in 0..<10_000 {
            if !start(kind, &copy, now: time).isEmpty { return time }
            guard let next = copy.nextWake(now: time) else { return nil }
            time = next
        }
        return nil
    }

    @Test("Failures in a row rest ever longer, up to a bound")
    func backoff() throws {
        var planner = AgentPlanner(Self.configuration(), now: MonotonicTime(0))
        var now = MonotonicTime(1_000 * Self.millisecond)
        for expected in [100.0, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            let job = try #require(start(.move, &planner, now: now).first)
            planner.finished(job, .failed, now: now)
            let due = try #require(earliest(.move, planner, from: now))
            let rest = Double(due.nanoseconds(since: now)) / Double(Self.millisecond)
            #expect((expected * 0.7...expected * 1.3).contains(rest))
            now = due
        }
    }

    @Test("What any cache server can do goes on to the next one after a failure")
    func sharedLanes() throws {
        var planner = AgentPlanner(Self.configuration(caches: 3), now: MonotonicTime(0))
        var now = MonotonicTime(1_000 * Self.millisecond)
        var asked: [Int] = []
        for _ in 0..<6 {
            let job = try #require(start(.collect, &planner, now: now).first)
            asked.append(job.cache)
            planner.finished(job, .failed, now: now)
            now = now.advanced(byNanoseconds: 20_000 * Self.millisecond)
        }
        #expect(Set(asked) == [0, 1, 2])
        #expect(zip(asked, asked.dropFirst()).allSatisfy { ($0 + 1) % 3 == $1 })
    }

    @Test("M8: a scan comes once in its time, also after work, and never where it is off")
    func scans() throws {
        func count(_ seconds: UInt64) -> Int {
            var planner = AgentPlanner(Self.configuration(scanSeconds: seconds), now: MonotonicTime(0))
            var count = 0
            for second in 0...(600 as UInt64) {
                let now = MonotonicTime(second * 1_000 * Self.millisecond)
                for job in planner.due(now: now) {
                    count += job.kind == .scan ? 1 : 0
                    planner.finished(job, job.kind == .scan ? .worked : .nothing, now: now)
                }
            }
            return count
        }
        #expect((7...14).contains(count(60)))
        #expect(count(0) == 0)
    }

    @Test("A cache server that always fails does not keep the others waiting")
    func oneFails() {
        var planner = AgentPlanner(Self.configuration(caches: 2, objectsInMemory: 1), now: MonotonicTime(0))
        var moved = 0
        for step in 0..<(10_000 as UInt64) {
            let now = MonotonicTime(1_000 * Self.millisecond + step * Self.millisecond)
            for job in planner.due(now: now) {
                if job.kind == .move, job.cache == 1 { moved += 1 }
                let outcome: AgentPlanner.Outcome = job.cache == 0 ? .failed : job.kind == .move ? .worked : .nothing
                planner.finished(job, outcome, now: now)
            }
            if moved > 500 { break }
        }
        #expect(moved > 500)
    }
}
