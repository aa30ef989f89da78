import AgentPlanning
import AshlarCore
import NIOCore
import Transport

/// Runs a planner: starts its jobs as tasks, tells it how they ended, and wakes it when something is due.
///
/// Jobs are tasks of their own, so that the end of the task that started the agent does not tear them off in the
/// middle.
actor AgentDriver {
    typealias Perform =
        @Sendable (AgentPlanner.Job, _ foundWork: @Sendable () async -> Void) async -> AgentPlanner.Outcome

    private var planner: AgentPlanner
    private let eventLoop: any EventLoop
    private let perform: Perform
    private var timer: Scheduled<Void>?
    private var waitingForEnd: [CheckedContinuation<Void, Never>] = []

    init(_ configuration: AgentPlanner.Configuration, eventLoop: any EventLoop, perform: @escaping Perform) {
        planner = AgentPlanner(configuration, now: RPCClock.now)
        self.eventLoop = eventLoop
        self.perform = perform
    }

    /// Starts what is due, and sees to it that it is called again in time.
    func run() {
        timer?.cancel()
        timer = nil
        let now = RPCClock.now
        for job in planner.due(now: now) { start(job) }
        guard !planner.isFinished else { return ended() }
        guard let wake = planner.nextWake(now: now) else { return }
        let delay = TimeAmount.nanoseconds(Int64(clamping: wake.nanoseconds(since: now)))
        timer = eventLoop.scheduleTask(in: delay) { [weak self] in
            guard let self else { return }
            Task { await self.run() }
        }
    }

    /// Starts nothing more; jobs that run go on.
    func stop() {
        planner.stop()
        run()
    }

    /// Waits until it was stopped and the last job has ended.
    func waitForEnd() async {
        if planner.isFinished { return }
        await withCheckedContinuation { waitingForEnd.append($0) }
    }

    private func start(_ job: AgentPlanner.Job) {
        let perform = perform
        Task {
            let outcome = await perform(job) { await self.foundWork(job) }
            self.finished(job, outcome)
        }
    }

    private func foundWork(_ job: AgentPlanner.Job) {
        planner.foundWork(job, now: RPCClock.now)
        run()
    }

    private func finished(_ job: AgentPlanner.Job, _ outcome: AgentPlanner.Outcome) {
        planner.finished(job, outcome, now: RPCClock.now)
        run()
    }

    private func ended() {
        let waiting = waitingForEnd
        waitingForEnd = []
        for continuation in waiting { continuation.resume() }
    }
}
