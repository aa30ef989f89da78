/// The long work of the control role: what runs, how far it is, how it ended.
public actor Jobs {
    private var documents: [String: JobDocument] = [:]
    private var tasks: [String: Task<Void, Never>] = [:]
    /// Ids, oldest first.
    private var order: [String] = []
    private var next = 1
    private var isClosed = false

    /// No job yet.
    public init() {}

    /// What a running job tells of itself.
    public struct Progress: Sendable {
        fileprivate let id: String
        fileprivate let jobs: Jobs

        /// Says how far the job is.
        public func report(done: UInt64, total: UInt64, _ message: String) async {
            await jobs.update(id) {
                $0.done = done
                $0.total = total
                $0.message = message
            }
        }
    }

    /// How a job ended well.
    public struct Outcome: Sendable {
        var message: String
        var report: FsckReport?
        var recovery: RecoverReport?

        /// An end with a message, and the report of a check or of a recovery.
        public init(_ message: String, report: FsckReport? = nil, recovery: RecoverReport? = nil) {
            self.message = message
            self.report = report
            self.recovery = recovery
        }
    }

    /// Starts a job, or returns the one of the same kind and subject that runs already.
    ///
    /// - Throws: ``ControlError`` with code busy at the limit.
    public func start(
        kind: String,
        subject: String,
        _ body: @escaping @Sendable (Progress) async throws -> Outcome
    ) throws(ControlError) -> String {
        if let running = documents.values.first(where: {
            $0.kind == kind && $0.subject == subject && $0.state == .running
        }) {
            return running.id
        }
        guard tasks.count < ControlLimits.jobsRunningMaximum, !isClosed else {
            throw ControlError(.busy, "\(tasks.count) jobs are running.", remedy: "Try again when one has ended.")
        }
        let id = "\(kind)-\(next)"
        next += 1
        documents[id] = JobDocument(
            id: id,
            kind: kind,
            subject: subject,
            state: .running,
            done: 0,
            total: 0,
            message: "started",
            report: nil
        )
        order.append(id)
        forgetOldest()
        tasks[id] = Task {
            do {
                let outcome = try await body(Progress(id: id, jobs: self))
                end(id, .done, outcome)
            } catch {
                end(id, .failed, Outcome("\(error)"))
            }
        }
        return id
    }

    /// A job by its id; nil where it is not remembered.
    public func job(_ id: String) -> JobDocument? { documents[id] }

    /// The jobs that are remembered, newest first.
    public func all() -> [JobDocument] { order.reversed().compactMap { documents[$0] } }

    /// Ends all jobs and waits for them.
    public func shutdown() async {
        isClosed = true
        let running = Array(tasks.values)
        for task in running { task.cancel() }
        for task in running { await task.value }
    }

    private func update(_ id: String, _ change: (inout JobDocument) -> Void) {
        guard var document = documents[id], document.state == .running else { return }
        change(&document)
        documents[id] = document
    }

    private func end(_ id: String, _ state: JobDocument.State, _ outcome: Outcome) {
        update(id) {
            $0.state = state
            $0.message = outcome.message
            $0.report = outcome.report
            $0.recovery = outcome.recovery
            if state == .done { $0.done = max($0.done, $0.total) }
        }
        tasks[id] = nil
    }

    private func forgetOldest() {
        while order.count > ControlLimits.jobsKeptMaximum,
            let index = order.firstIndex(where: { documents[$0]?.state != .running })
        {
            documents[order.remove(at: index)] = nil
        }
    }
}
