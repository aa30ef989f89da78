import CLibPQ
import CLinux
import Failpoints
import Glibc
import Logging
import NIOConcurrencyHelpers
import NIOCore
import Ownership

// A lane is a thread that owns one libpq connection in pipeline mode. It waits on epoll for the socket and for an eventfd
// that announces requests in its mailbox. While it has nothing to do, who submits a job sends it on the connection at once, with `turn`
// taken: that is one switch of threads less for a lonely write. The answer is always the thread's.
//
// A job is sent whole, with one synchronisation point behind it, and has one outcome:
//
//   not handed to libpq           refused       nothing can have changed
//   error before the COMMIT       refused/broken by SQLSTATE; the transaction is rolled back
//   connection lost               refused for a read; unknownOutcome for a change, whose COMMIT may have arrived
//   all results arrived           success; unknownOutcome for a change that its standbys may lack, as a warning of the server says

/// The failure of a job.
struct LaneFailure: Error, Sendable {
    /// What it means for the request.
    var store: StoreFailure
    /// The SQLSTATE, where the server gave one.
    var sqlState: String?
}

/// A lane, and which of its connections it has.
struct LaneConnection: Sendable, Hashable {
    /// The lane's number.
    var lane: Int
    /// Grows with every connection that the lane makes.
    var connection: UInt64
}

/// Statements that are sent together.
struct Job: Sendable {
    /// Whether they change something, so that a lost connection leaves the outcome open.
    var isChange: Bool
    /// Whether it came through the mailbox; the lane's own jobs did not.
    var isCounted = true
    /// Attempts that are left.
    var attempts = PostgresStoreLimits.attemptsMaximum
    /// What has to be done on the connection before, if anything; on the lane's thread, asked until it is nothing.
    var preparation: @Sendable (LaneConnection) -> Job? = { _ in nil }
    /// Makes the calls, on the lane's thread, each time that it is sent. What it throws ends the job, of which nothing was sent then.
    var calls: @Sendable (LaneConnection) throws(StoreFailure) -> [Call]
    /// Where the process is ended for a test.
    var failpoints = JobFailpoints()
    /// Takes the results, one for each call, on the lane's thread.
    var finish: @Sendable (Result<[QueryResult], LaneFailure>) -> Void

    /// A single statement outside a transaction block.
    static func single(
        isChange: Bool,
        failpoints: JobFailpoints = JobFailpoints(),
        _ call: @escaping @Sendable () -> Call,
        finish: @escaping @Sendable (Result<[QueryResult], LaneFailure>) -> Void
    ) -> Job {
        Job(isChange: isChange, calls: { _ in [call()] }, failpoints: failpoints, finish: finish)
    }

    /// Statements between BEGIN and COMMIT; `finish` gets their results without those two.
    static func transaction(
        failpoints: JobFailpoints = JobFailpoints(),
        _ calls: @escaping @Sendable (LaneConnection) throws(StoreFailure) -> [Call],
        finish: @escaping @Sendable (Result<[QueryResult], LaneFailure>) -> Void
    ) -> Job {
        Job(
            isChange: true,
            calls: { (lane) throws(StoreFailure) in
                [Call(Statements.begin, capacity: 0)] + (try calls(lane)) + [Call(Statements.commit, capacity: 0)]
            },
            failpoints: failpoints,
            finish: { outcome in finish(outcome.map { Array($0.dropFirst().dropLast()) }) }
        )
    }
}

/// The failpoints of a job, where it has some.
struct JobFailpoints: Sendable {
    /// Before anything of it is sent.
    var ready: Failpoint?
    /// When all of it has been sent, and nothing is known of it.
    var sent: Failpoint?
    /// When it is committed, and nobody has been told.
    var done: Failpoint?
}

/// A thread with one connection; see the head of the file.
final class Lane: @unchecked Sendable {
    // A lock guards what stands in `shared`; the variables below `thread` belong to who has `turn`: the lane's thread while it is awake.
    private struct Shared {
        var mailbox: [Job] = []
        var pending = 0
        var isStopping = false
        /// The thread sleeps, connected and with nothing to do: who clears this may take its turn.
        var isIdle = false
    }

    private struct InFlight {
        var job: Job
        /// Number of results that come before the one after which everything is committed: of the COMMIT, or of the
        /// synchronisation point where there is no transaction block.
        var commitPosition: Int
        var hasBlock: Bool
        /// What a test has put in.
        var fault: InjectedFault?
        /// Where the result of what was sent for that comes.
        var insertedPosition: Int?
        /// Results that have come.
        var arrived = 0
        var results: [QueryResult] = []
        /// Whether the server has said that standbys may lack the commit.
        var isReplicationOpen = false
        var failure: StatementFailure?
        /// Where the failure came, as far as its consequences go.
        var stage = CommitStage.before

        /// What the next result to arrive belongs to.
        var currentStage: CommitStage {
            if !job.isChange || arrived < commitPosition { return .before }
            return arrived == commitPosition ? .during : .after
        }

        mutating func add(_ result: QueryResult) {
            if arrived != insertedPosition { results.append(result) }
            arrived += 1
        }
    }

    let name: String
    let number: Int
    private let depth: Int
    private let configuration: PostgresConfiguration
    private let statementTimeoutMilliseconds: Int
    private let statements: [Statement]
    private let watch: ServerWatch
    private let logger: Logger

    private let shared = NIOLockedValueBox(Shared())
    private let wakeDescriptor: Int32
    private let epollDescriptor: Int32
    private let turn = NIOLock()
    private var thread = pthread_t()

    private var hasEnded = false
    private var connection: OpaquePointer?
    /// Connections made so far.
    private var connections: UInt64 = 0
    private var socket: Int32 = -1
    private var waitsForWrite = false
    private var waiting: CircularBuffer<Job> = []
    private var inFlight: CircularBuffer<InFlight> = []
    private var nextAttempt: UInt64 = 0
    private var pauseMilliseconds: UInt64 = 0
    private var lastFailure = "not connected yet"
    /// Why the connection is to be given up once what has arrived is read.
    private var whyToReconnect: String?

    private static let wakeToken: UInt64 = 0
    private static let socketToken: UInt64 = 1

    /// Starts the thread; it connects when the first job comes.
    ///
    /// `depth` is the number of jobs in flight; more than one only for jobs without transaction blocks.
    init(
        name: String,
        number: Int,
        depth: Int,
        configuration: PostgresConfiguration,
        statementTimeoutMilliseconds: Int,
        statements: [Statement],
        watch: ServerWatch,
        logger: Logger
    ) {
        self.name = name
        self.number = number
        self.depth = depth
        self.configuration = configuration
        self.statementTimeoutMilliseconds = statementTimeoutMilliseconds
        self.statements = statements
        self.watch = watch
        self.logger = logger
        wakeDescriptor = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        epollDescriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
        precondition(wakeDescriptor >= 0 && epollDescriptor >= 0, "no descriptors for a PostgreSQL connection")
        precondition(
            ashlar_epoll_add(epollDescriptor, wakeDescriptor, EPOLLIN.rawValue, Self.wakeToken) == 0,
            "an eventfd can always be watched"
        )
        let retained = Unmanaged.passRetained(self)
        let status = pthread_create(
            &thread,
            nil,
            { context in
                guard let context else { return nil }
                Unmanaged<Lane>.fromOpaque(context).takeRetainedValue().run()
                return nil
            },
            retained.toOpaque()
        )
        precondition(status == 0, "no thread for a PostgreSQL connection")
    }

    deinit {
        close(wakeDescriptor)
        close(epollDescriptor)
    }

    /// Jobs that have not finished. Any thread.
    var pending: Int { shared.withLockedValue { $0.pending } }

    /// Hands a job to the lane. Any thread; refused at once where the mailbox is full or the lane has stopped.
    ///
    /// `isShort`: its bytes are so few that this thread may send them.
    func submit(_ job: Job, isShort: Bool = false) {
        enum Verdict { case queued(wake: Bool), sentHere, refused(String) }
        let verdict: Verdict = shared.withLockedValue { shared in
            if shared.isStopping { return .refused(Self.shutDown) }
            if shared.pending >= PostgresStoreLimits.mailboxRequestsMaximum {
                return .refused("too many requests wait")
            }
            shared.pending += 1
            if isShort && shared.isIdle {
                shared.isIdle = false
                return .sentHere
            }
            shared.mailbox.append(job)
            return .queued(wake: shared.mailbox.count == 1)
        }
        switch verdict {
        case .queued(let wake): if wake { eventfd_write(wakeDescriptor, 1) }
        case .sentHere: sendHere(job)
        case .refused(let reason): job.finish(.failure(LaneFailure(store: .refused(reason))))
        }
    }

    /// Sends a job from this thread, or leaves it to the lane's where something came in between.
    private func sendHere(_ job: Job) {
        let needsThread = turn.withLock {
            if hasEnded {
                finish(job, .failure(LaneFailure(store: .refused(Self.shutDown))))
                return false
            }
            waiting.append(job)
            guard connection != nil && inFlight.isEmpty && waiting.count == 1 else { return true }
            startJobs()
            flush()
            // What libpq has read while it sent is not announced by the socket.
            return !waiting.isEmpty || connection.map { PQisBusy($0) == 0 } ?? false
        }
        if needsThread { eventfd_write(wakeDescriptor, 1) }
    }

    /// Stops the thread and waits for its end; jobs that are left fail. Not from a completion. Any number of times.
    func stop() {
        let isFirst = shared.withLockedValue { shared in
            defer { shared.isStopping = true }
            return !shared.isStopping
        }
        guard isFirst else { return }
        eventfd_write(wakeDescriptor, 1)
        pthread_join(thread, nil)
    }

    // MARK: The thread

    private func run() {
        var tokens = [UInt64](repeating: 0, count: 4)
        var events = [UInt32](repeating: 0, count: 4)
        turn.lock()
        defer { turn.unlock() }
        while true {
            let isStopping = takeMail()
            if isStopping { break }
            startJobs()
            flush()
            receive()
            // Results may have made room for jobs that wait.
            if !waiting.isEmpty && inFlight.count < depth { continue }
            let timeout = hasHiddenBytes ? PostgresStoreLimits.tlsPollMilliseconds : -1
            offerTurn()
            turn.unlock()
            let count = ashlar_epoll_wait(epollDescriptor, &tokens, &events, 4, timeout)
            turn.lock()
            for index in 0..<max(0, Int(count)) where tokens[index] == Self.wakeToken {
                var value: eventfd_t = 0
                eventfd_read(wakeDescriptor, &value)
            }
        }
        hasEnded = true
        lose(Self.shutDown, isExpected: true)
        failWaiting(Self.shutDown)
    }

    private static let shutDown = "the store has been shut down"

    /// Says whether others may send. Not with TLS, whose hidden bytes only the thread looks for.
    private func offerTurn() {
        guard let connection, inFlight.isEmpty, waiting.isEmpty, PQsslInUse(connection) == 0 else { return }
        shared.withLockedValue { $0.isIdle = $0.mailbox.isEmpty && !$0.isStopping }
    }

    /// TLS may hold bytes that were read from the socket but not by libpq, which epoll cannot announce.
    private var hasHiddenBytes: Bool {
        guard let connection, !inFlight.isEmpty else { return false }
        return PQsslInUse(connection) == 1
    }

    private func takeMail() -> Bool {
        let (jobs, isStopping) = shared.withLockedValue { shared in
            defer {
                shared.mailbox = []
                shared.isIdle = false
            }
            return (shared.mailbox, shared.isStopping)
        }
        waiting.append(contentsOf: jobs)
        return isStopping
    }

    private func startJobs() {
        while !waiting.isEmpty && inFlight.count < depth {
            guard connect() else {
                failWaiting(lastFailure)
                return
            }
            guard let connection else { return }
            let job = waiting.removeFirst()
            let lane = LaneConnection(lane: number, connection: connections)
            if let preparation = job.preparation(lane) {
                waiting.prepend(job)
                waiting.prepend(preparation)
                continue
            }
            var calls: [Call]
            do {
                calls = try job.calls(lane)
            } catch {
                finish(job, .failure(LaneFailure(store: error)))
                continue
            }
            let commit = calls.lastIndex { $0.statement.name == Statements.commit.name }
            var flight = InFlight(job: job, commitPosition: commit ?? calls.count, hasBlock: commit != nil)
            if let faults = configuration.faults, job.isCounted {
                flight.fault = faults.choose(name, calls.map(\.statement.name))
                if let (call, place) = flight.fault?.insertion(of: calls.count, commit: flight.commitPosition) {
                    calls.insert(call, at: place)
                    flight.insertedPosition = place
                    flight.commitPosition += 1
                }
            }
            job.failpoints.ready?.reach()
            inFlight.append(flight)
            if case .lost(let place)? = flight.fault { return breakOff(calls.prefix(place), connection) }
            guard calls.allSatisfy({ send($0, connection) }), PQpipelineSync(connection) == 1 else {
                lose(Session.lost(connection).message)
                return
            }
            if let sent = job.failpoints.sent, sent.isArmed {
                // What libpq still holds has not been sent.
                while PQflush(connection) == 1 { sched_yield() }
                sent.reach()
            }
        }
    }

    /// Sends a part of a job and breaks the connection, for a test.
    private func breakOff(_ calls: ArraySlice<Call>, _ connection: OpaquePointer) {
        // What is not taken at once is as good as lost on its way.
        if calls.allSatisfy({ send($0, connection) }) { PQflush(connection) }
        lose("broken by a test")
    }

    private func send(_ call: Call, _ connection: OpaquePointer) -> Bool {
        call.storage.withUnsafeReadableBytes { bytes in
            let base = bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
            let empty = UnsafePointer<CChar>(Self.emptyValue)
            let values = call.bounds.map { bound in base.map { $0 + bound.offset } ?? empty }
            let lengths = call.bounds.map { Int32($0.count) }
            let formats = [Int32](repeating: 1, count: call.bounds.count)
            let optionals: [UnsafePointer<CChar>?] = values
            return PQsendQueryPrepared(
                connection,
                call.statement.name,
                Int32(call.bounds.count),
                optionals,
                lengths,
                formats,
                1
            ) == 1
        }
    }

    /// What a value of no bytes points to: libpq takes a null pointer for NULL.
    nonisolated(unsafe) private static let emptyValue: UnsafeMutablePointer<CChar> = {
        let pointer = UnsafeMutablePointer<CChar>.allocate(capacity: 1)
        pointer.initialize(to: 0)
        return pointer
    }()

    private func flush() {
        guard let connection else { return }
        switch PQflush(connection) {
        case 0: watch(write: false)
        case 1: watch(write: true)
        default: lose(Session.lost(connection).message)
        }
    }

    private func watch(write: Bool) {
        guard write != waitsForWrite else { return }
        waitsForWrite = write
        let events = write ? EPOLLIN.rawValue | EPOLLOUT.rawValue : EPOLLIN.rawValue
        if ashlar_epoll_modify(epollDescriptor, socket, events, Self.socketToken) != 0 {
            lose("the connection's socket cannot be watched")
        }
    }

    private func receive() {
        guard let connection else { return }
        guard PQconsumeInput(connection) == 1 else {
            // What arrived before the end is still worth reading: it may hold the result of a COMMIT.
            readResults(connection)
            lose(Session.lost(connection).message)
            return
        }
        readResults(connection)
        if let whyToReconnect {
            lose(whyToReconnect)
        } else if PQstatus(connection) != CONNECTION_OK {
            lose(Session.lost(connection).message)
        }
    }

    private func readResults(_ connection: OpaquePointer) {
        var empties = 0
        while !inFlight.isEmpty && whyToReconnect == nil && PQisBusy(connection) == 0 {
            guard let raw = PQgetResult(connection) else {
                // One nil ends each statement; two in a row mean that there is nothing to read.
                empties += 1
                if empties > 1 { return }
                continue
            }
            empties = 0
            switch PQresultStatus(raw) {
            case PGRES_TUPLES_OK, PGRES_COMMAND_OK:
                inFlight[inFlight.startIndex].add(QueryResult(raw))
            case PGRES_PIPELINE_SYNC:
                PQclear(raw)
                if losesAnswer(at: inFlight.startIndex) { return }
                complete(inFlight.removeFirst())
            case PGRES_PIPELINE_ABORTED:
                PQclear(raw)
            default:
                let failure = StatementFailure(raw)
                PQclear(raw)
                let index = inFlight.startIndex
                if inFlight[index].failure == nil {
                    inFlight[index].stage = inFlight[index].currentStage
                    inFlight[index].failure = failure
                }
            }
        }
    }

    /// Whether a test takes the answer away from a job that was done; the connection goes with it.
    private func losesAnswer(at index: CircularBuffer<InFlight>.Index) -> Bool {
        switch inFlight[index].fault {
        case .lostAfterEffect: whyToReconnect = "broken by a test"
        case .endedAfterEffect(let state):
            inFlight[index].failure = StatementFailure(sqlState: state, severity: "FATAL", message: "ended by a test")
            inFlight[index].stage = inFlight[index].job.isChange ? .during : .before
            whyToReconnect = "ended by a test"
        case .warned:
            inFlight[index].isReplicationOpen = true
            return false
        default: return false
        }
        return true
    }

    /// The server says something beside the results. It comes before the end of the job that it is about.
    private func noticed(_ notice: ServerNotice) {
        guard notice.leavesReplicationOpen, let index = inFlight.indices.first else { return }
        inFlight[index].isReplicationOpen = true
    }

    private func complete(_ flight: InFlight) {
        guard let failure = flight.failure else {
            if flight.job.isChange && flight.isReplicationOpen {
                let why = "the commit is durable on the server, but its synchronous standbys may lack it"
                finish(flight.job, .failure(LaneFailure(store: .unknownOutcome(why))))
            } else {
                flight.job.failpoints.done?.reach()
                finish(flight.job, .success(flight.results))
            }
            return
        }
        // Another server may take changes.
        if failure.isReadOnly { whyToReconnect = failure.message }
        var job = flight.job
        job.attempts -= 1
        if failure.isWorthRepeating && job.attempts > 0 && flight.stage == .before {
            waiting.prepend(job)
        } else {
            finish(job, .failure(Self.failure(of: flight, failure)))
        }
        if flight.hasBlock { waiting.prepend(Self.rollback) }
    }

    private static func failure(of flight: InFlight, _ failure: StatementFailure) -> LaneFailure {
        LaneFailure(store: failure.storeFailure(flight.stage), sqlState: failure.sqlState)
    }

    /// Ends the failed transaction block that a batch leaves behind when one of its statements fails.
    private static let rollback = Job(
        isChange: false,
        isCounted: false,
        calls: { _ in [Call(Statements.rollback, capacity: 0)] },
        finish: { _ in }
    )

    private func finish(_ job: Job, _ outcome: Result<[QueryResult], LaneFailure>) {
        if job.isCounted { shared.withLockedValue { $0.pending -= 1 } }
        job.finish(outcome)
    }

    private func failWaiting(_ reason: String) {
        while let job = waiting.popFirst() {
            finish(job, .failure(LaneFailure(store: .refused(reason))))
        }
    }

    // MARK: Connecting

    private func connect() -> Bool {
        if connection != nil { return true }
        let now = Self.monotonicMilliseconds()
        guard now >= nextAttempt else { return false }
        do {
            try open()
            pauseMilliseconds = 0
            watch.connected()
            return true
        } catch {
            lastFailure = error.description
            pauseMilliseconds = min(
                PostgresStoreLimits.reconnectPauseMaximumMilliseconds,
                max(PostgresStoreLimits.reconnectPauseMinimumMilliseconds, pauseMilliseconds * 2)
            )
            nextAttempt = Self.monotonicMilliseconds() + pauseMilliseconds
            watch.failed(lane: name, error)
            return false
        }
    }

    private func open() throws(PostgresError) {
        let fresh = try Session.open(
            configuration,
            purpose: .store(statementTimeoutMilliseconds: statementTimeoutMilliseconds),
            watch: watch
        )
        do throws(PostgresError) {
            for statement in statements + (configuration.faults == nil ? [] : FaultPlan.statements) {
                guard let result = PQprepare(fresh, statement.name, statement.sql, 0, nil) else {
                    throw Session.lost(fresh)
                }
                defer { PQclear(result) }
                guard PQresultStatus(result) == PGRES_COMMAND_OK else {
                    throw PostgresError(StatementFailure(result))
                }
            }
            guard PQsetnonblocking(fresh, 1) == 0, PQenterPipelineMode(fresh) == 1 else { throw Session.lost(fresh) }
            guard ashlar_epoll_add(epollDescriptor, PQsocket(fresh), EPOLLIN.rawValue, Self.socketToken) == 0 else {
                throw PostgresError(.connection, "the connection's socket cannot be watched")
            }
        } catch {
            PQfinish(fresh)
            throw error
        }
        connection = fresh
        connections += 1
        socket = PQsocket(fresh)
        waitsForWrite = false
        // It is called on the lane's thread, from inside of libpq's functions.
        let context = Unmanaged.passUnretained(self).toOpaque()
        PQsetNoticeReceiver(
            fresh,
            { context, result in
                guard let context, let result else { return }
                Unmanaged<Lane>.fromOpaque(context).takeUnretainedValue().noticed(ServerNotice(result))
            },
            context
        )
        logger.debug("connected to PostgreSQL", metadata: ["lane": "\(name)"])
    }

    /// Gives the connection up and tells every job in flight what that means for it.
    private func lose(_ reason: String, isExpected: Bool = false) {
        guard let lost = connection else { return }
        whyToReconnect = nil
        ashlar_epoll_remove(epollDescriptor, socket)
        connection = nil
        socket = -1
        PQfinish(lost)
        lastFailure = reason
        if isExpected || inFlight.isEmpty {
            // An idle one is made again when it is needed.
            logger.debug("connection to PostgreSQL lost", metadata: ["lane": "\(name)", "reason": "\(reason)"])
        } else {
            watch.failed(lane: name, PostgresError(.connection, reason))
        }
        while let flight = inFlight.popFirst() {
            // An error that came before the end of the connection is a better reason, and a more certain one.
            if let failure = flight.failure, failure.sqlState != nil {
                finish(flight.job, .failure(Self.failure(of: flight, failure)))
            } else {
                let failure: StoreFailure = flight.job.isChange ? .unknownOutcome(reason) : .refused(reason)
                finish(flight.job, .failure(LaneFailure(store: failure)))
            }
        }
    }

    private static func monotonicMilliseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000 + UInt64(time.tv_nsec) / 1_000_000
    }
}
