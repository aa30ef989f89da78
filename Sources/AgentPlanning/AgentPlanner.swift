package import AshlarCore

/// Decides what an agent does when: events in, jobs out. No clock, network or randomness inside.
///
/// Every sort of job has a *lane*: one for each cache server for what only an owner can say (move, evict, compact), one
/// for the whole cluster for what any cache server can (collect, scan, scrub), which goes on to the next cache server after a
/// failure.
///
/// | lane | runs at once | rests after nothing |
/// | --- | --- | --- |
/// | move | one; more once work was found | a sixteenth of the idle rest, doubling up to all of it |
/// | evict | one | `evictNanoseconds` |
/// | compact | one in the whole agent | `compactNanoseconds` |
/// | collect | one | `collectNanoseconds` |
/// | scan | one | `scanNanoseconds`, also after work |
/// | scrub | one | `scrubNanoseconds` |
///
/// - At no time do moves and compactions together exceed `objectsInMemory` (I10).
/// - Of the lanes that may start, the one that started longest ago does: none starves.
/// - After work a lane is due at once; after failures it rests ever longer.
/// - After ``stop()`` nothing starts.
package struct AgentPlanner: Sendable {
    /// The sorts of job.
    package enum Kind: Sendable, Hashable, CaseIterable {
        case move, evict, compact, collect, scan, scrub

        /// Whether such a job holds an object in memory.
        package var holdsObject: Bool { self == .move || self == .compact }
        /// Whether any cache server will do.
        package var isShared: Bool { self == .collect || self == .scan || self == .scrub }
    }

    /// Something to do now.
    package struct Job: Sendable, Hashable {
        package let kind: Kind
        /// The cache server to ask, by its place in the configuration.
        package let cache: Int
    }

    /// How a job ended.
    package enum Outcome: Sendable, Hashable {
        /// There was work; there may be more.
        case worked
        /// There was none.
        case nothing
        /// It was given up.
        case failed
    }

    package struct Configuration: Sendable, Hashable {
        package var caches: Int
        package var objectsInMemory: Int
        package var idleNanoseconds: UInt64
        package var evictNanoseconds = AgentLimits.evictMilliseconds * 1_000_000
        package var compactNanoseconds = AgentLimits.compactMilliseconds * 1_000_000
        package var collectNanoseconds = AgentLimits.collectMilliseconds * 1_000_000
        /// 0 for never.
        package var scrubNanoseconds = AgentLimits.scrubMilliseconds * 1_000_000
        /// 0 for never.
        package var scanNanoseconds: UInt64
        package var seed: UInt64

        package init(
            caches: Int,
            objectsInMemory: Int,
            idleNanoseconds: UInt64,
            scanNanoseconds: UInt64,
            seed: UInt64
        ) {
            self.caches = caches
            self.objectsInMemory = objectsInMemory
            self.idleNanoseconds = idleNanoseconds
            self.scanNanoseconds = scanNanoseconds
            self.seed = seed
        }
    }

    private struct Lane: Sendable {
        let kind: Kind
        var cache: Int
        var due: MonotonicTime
        var running = 0
        /// Whether the last answer had work.
        var isBusy = false
        var emptyInARow = 0
        var failuresInARow = 0
        /// The number of its last start among all starts; 0 before the first.
        var lastStart: UInt64 = 0
    }

    private let configuration: Configuration
    private var random: AgentRandom
    private var lanes: [Lane] = []
    private var starts: UInt64 = 0
    package private(set) var isStopping = false

    /// A planner whose first jobs are due within one idle rest from `now`; a first scan later.
    package init(_ configuration: Configuration, now: MonotonicTime) {
        precondition(configuration.caches > 0, "an agent without a cache server has nothing to do")
        precondition(configuration.objectsInMemory > 0, "an agent needs room for one object")
        self.configuration = configuration
        random = AgentRandom(seed: configuration.seed)
        for cache in 0..<configuration.caches {
            for kind in [Kind.move, .evict, .compact] {
                lanes.append(Lane(kind: kind, cache: cache, due: firstDue(kind, now: now)))
            }
        }
        let first = Int(random.next() % UInt64(configuration.caches))
        lanes.append(Lane(kind: .collect, cache: first, due: firstDue(.collect, now: now)))
        if configuration.scrubNanoseconds > 0 {
            lanes.append(Lane(kind: .scrub, cache: first, due: firstDue(.scrub, now: now)))
        }
        if configuration.scanNanoseconds > 0 {
            lanes.append(Lane(kind: .scan, cache: first, due: firstDue(.scan, now: now)))
        }
    }

    /// Jobs that run now.
    package var running: Int { lanes.reduce(0) { $0 + $1.running } }

    /// Whether it was stopped and the last job has ended.
    package var isFinished: Bool { isStopping && running == 0 }

    /// The jobs to start now; each must be ended by ``finished(_:_:now:)``.
    package mutating func due(now: MonotonicTime) -> [Job] {
        var jobs: [Job] = []
        while let index = next(now: now) {
            starts += 1
            lanes[index].running += 1
            lanes[index].lastStart = starts
            jobs.append(Job(kind: lanes[index].kind, cache: lanes[index].cache))
        }
        return jobs
    }

    /// When to ask again if nothing ends before; nil where only the end of a job can change anything.
    package func nextWake(now: MonotonicTime) -> MonotonicTime? {
        lanes.filter { mayStart($0) }.map(\.due).min().map { max($0, now) }
    }

    /// A job that still runs was given work: others may ask for more at once.
    package mutating func foundWork(_ job: Job, now: MonotonicTime) {
        guard let index = lane(of: job) else { return }
        lanes[index].isBusy = true
        lanes[index].emptyInARow = 0
        lanes[index].due = now
    }

    /// A job has ended.
    package mutating func finished(_ job: Job, _ outcome: Outcome, now: MonotonicTime) {
        guard let index = lane(of: job) else { preconditionFailure("a job ended that no lane started") }
        precondition(lanes[index].running > 0, "a job ended twice")
        lanes[index].running -= 1
        switch outcome {
        case .worked:
            lanes[index].isBusy = job.kind != .scan
            lanes[index].emptyInARow = 0
            lanes[index].failuresInARow = 0
            lanes[index].due = job.kind == .scan ? rest(lanes[index], now: now) : now
        case .nothing:
            lanes[index].isBusy = false
            // Of several that ran at once only the first begins the rest: the others say the same thing.
            guard lanes[index].due <= now else { return }
            lanes[index].failuresInARow = 0
            lanes[index].due = rest(lanes[index], now: now)
            lanes[index].emptyInARow += 1
        case .failed:
            lanes[index].isBusy = false
            if lanes[index].due <= now || lanes[index].failuresInARow == 0 {
                lanes[index].due = max(lanes[index].due, backoff(lanes[index], now: now))
                lanes[index].failuresInARow += 1
            }
            if job.kind.isShared { lanes[index].cache = (job.cache + 1) % configuration.caches }
        }
    }

    /// Starts nothing more.
    package mutating func stop() { isStopping = true }

    // MARK: - Choice

    private func lane(of job: Job) -> Int? {
        lanes.firstIndex { $0.kind == job.kind && ($0.cache == job.cache || job.kind.isShared) }
    }

    private func next(now: MonotonicTime) -> Int? {
        lanes.indices.filter { lanes[$0].due <= now && mayStart(lanes[$0]) }.min {
            lanes[$0].lastStart < lanes[$1].lastStart
        }
    }

    /// Whether the lane could start now if it were due.
    private func mayStart(_ lane: Lane) -> Bool {
        guard !isStopping else { return false }
        if lane.kind.holdsObject {
            let held = lanes.reduce(0) { $0 + ($1.kind.holdsObject ? $1.running : 0) }
            guard held < configuration.objectsInMemory else { return false }
        }
        switch lane.kind {
        case .move: return lane.running == 0 || lane.isBusy
        case .compact: return !lanes.contains { $0.kind == .compact && $0.running > 0 }
        case .evict, .collect, .scan, .scrub: return lane.running == 0
        }
    }

    // MARK: - Rests

    private mutating func firstDue(_ kind: Kind, now: MonotonicTime) -> MonotonicTime {
        guard kind == .scan else {
            return now.advanced(byNanoseconds: random.next() % max(1, configuration.idleNanoseconds))
        }
        return jittered(configuration.scanNanoseconds, from: now)
    }

    private mutating func rest(_ lane: Lane, now: MonotonicTime) -> MonotonicTime {
        switch lane.kind {
        case .move:
            let first = max(1, configuration.idleNanoseconds / AgentLimits.firstRestDivisor)
            return jittered(Self.doubled(first, lane.emptyInARow, atMost: configuration.idleNanoseconds), from: now)
        case .evict: return jittered(configuration.evictNanoseconds, from: now)
        case .compact: return jittered(configuration.compactNanoseconds, from: now)
        case .collect: return jittered(configuration.collectNanoseconds, from: now)
        case .scan: return jittered(configuration.scanNanoseconds, from: now)
        case .scrub: return jittered(configuration.scrubNanoseconds, from: now)
        }
    }

    private mutating func backoff(_ lane: Lane, now: MonotonicTime) -> MonotonicTime {
        let minimum = AgentLimits.backoffMinimumMilliseconds * 1_000_000
        let maximum = AgentLimits.backoffMaximumMilliseconds * 1_000_000
        return jittered(Self.doubled(minimum, lane.failuresInARow, atMost: maximum), from: now)
    }

    private mutating func jittered(_ nanoseconds: UInt64, from now: MonotonicTime) -> MonotonicTime {
        let spread = nanoseconds / 100 * AgentLimits.jitterPercent
        return now.advanced(byNanoseconds: nanoseconds - spread + random.next() % (2 * spread + 1))
    }

    private static func doubled(_ value: UInt64, _ times: Int, atMost maximum: UInt64) -> UInt64 {
        let (product, overflow) = value.multipliedReportingOverflow(by: 1 << UInt64(min(times, 40)))
        return overflow ? maximum : min(product, maximum)
    }
}
