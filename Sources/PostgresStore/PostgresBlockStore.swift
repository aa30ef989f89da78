import AshlarCore
import Failpoints
public import Logging
import NIOConcurrencyHelpers
public import Ownership

/// The block store over PostgreSQL: a few threads, each with a connection of its own.
///
/// | connections | for | jobs in flight |
/// | --- | --- | --- |
/// | `commitConnections` | commits | 1 each |
/// | `readConnections` | map and bytes of items | many each |
/// | 1 | leases, which must never wait for anything else | 1 |
/// | 1 | takeovers, which wait for locks | 1 |
/// | 1 | nexuses, registry, object ids | 1 |
/// | 1 | candidates, collection, deletion of volumes | 1 |
///
/// They connect when first needed and again after a loss, with pauses in between during which requests are refused at once.
/// Requests may be made on any thread; completions run on a thread of the store and must not block.
public final class PostgresBlockStore: BlockStore {
    let commitLanes: [Lane]
    /// What each commit lane fills.
    let journals: [JournalWriter]
    let readLanes: [Lane]
    let leaseLane: Lane
    let takeoverLane: Lane
    let sessionLane: Lane
    let backgroundLane: Lane
    let logger: Logger
    /// What is known of the server, and whether it can be used.
    let watch: ServerWatch
    let takeoverLockTimeoutMilliseconds: Int

    /// Starts the threads. Nothing is sent before the first request.
    public init(_ configuration: PostgresConfiguration, logger: Logger) {
        let watch = ServerWatch(memory: configuration.memory, logger: logger)
        self.watch = watch
        takeoverLockTimeoutMilliseconds = configuration.takeoverLockTimeoutMilliseconds
        func lane(
            _ name: String,
            _ statements: [Statement],
            number: Int = 0,
            depth: Int = 1,
            timeout: Int = PostgresStoreLimits.statementTimeoutMilliseconds
        ) -> Lane {
            Lane(
                name: name,
                number: number,
                depth: depth,
                configuration: configuration,
                statementTimeoutMilliseconds: timeout,
                statements: statements,
                watch: watch,
                logger: logger
            )
        }
        self.logger = logger
        commitLanes = (0..<configuration.commitConnections).map { lane("commit\($0)", Statements.commits, number: $0) }
        journals = commitLanes.map { _ in JournalWriter(segmentFrames: configuration.journalSegmentFrames) }
        readLanes = (0..<configuration.readConnections)
            .map { lane("read\($0)", Statements.reads, depth: PostgresStoreLimits.readsInFlightMaximum) }
        leaseLane = lane("lease", Statements.leases)
        takeoverLane = lane(
            "takeover",
            Statements.takeovers,
            timeout: PostgresStoreLimits.backgroundTimeoutMilliseconds
        )
        sessionLane = lane("session", Statements.sessions)
        backgroundLane = lane(
            "background",
            Statements.background,
            timeout: PostgresStoreLimits.backgroundTimeoutMilliseconds
        )
    }

    /// Ends the threads and connections; what was not finished fails. Blocks; not to be called from a completion.
    public func shutdown() {
        for lane in commitLanes + readLanes + [leaseLane, takeoverLane, sessionLane, backgroundLane] { lane.stop() }
        watch.shutdown()
    }

    /// Why the server that was found last is refused, where it is: it is no primary, might lose writes, or has lost some. Any thread.
    public var refusal: String? { watch.refusal }

    /// The lane with the least to do.
    func idlest(_ lanes: [Lane]) -> Lane {
        guard lanes.count > 1 else { return lanes[0] }
        var best = lanes[0]
        var least = Int.max
        for lane in lanes {
            let pending = lane.pending
            if pending == 0 { return lane }
            if pending < least { (best, least) = (lane, pending) }
        }
        return best
    }
}

/// What a request's completion gets.
typealias Completion<Value> = @Sendable (Result<Value, StoreFailure>) -> Void

extension Job {
    /// One statement outside a transaction block, whose result is turned into the answer; `failpoint` is reached in between.
    static func single<Value>(
        isChange: Bool,
        failpoint: Failpoint? = nil,
        _ call: @escaping @Sendable () -> Call,
        completion: @escaping Completion<Value>,
        parse: @escaping @Sendable (QueryResult) throws(StoreFailure) -> Value
    ) -> Job {
        .single(isChange: isChange, failpoints: JobFailpoints(done: failpoint), call) { outcome in
            completion(
                answer(outcome) { (results: [QueryResult]) throws(StoreFailure) in
                    guard let result = results.first else { throw StoreFailure.broken("no result") }
                    return try parse(result)
                }
            )
        }
    }

    /// A transaction whose results are turned into the answer.
    static func transaction<Value>(
        failpoints: JobFailpoints = JobFailpoints(),
        _ calls: @escaping @Sendable (LaneConnection) throws(StoreFailure) -> [Call],
        completion: @escaping Completion<Value>,
        parse: @escaping @Sendable ([QueryResult]) throws(StoreFailure) -> Value
    ) -> Job {
        .transaction(failpoints: failpoints, calls) { completion(answer($0, parse)) }
    }

    /// Turns an outcome into an answer.
    static func answer<Value>(
        _ outcome: Result<[QueryResult], LaneFailure>,
        _ parse: ([QueryResult]) throws(StoreFailure) -> Value
    ) -> Result<Value, StoreFailure> {
        switch outcome {
        case .failure(let failure): return .failure(failure.store)
        case .success(let results):
            do {
                return .success(try parse(results))
            } catch {
                return .failure(error)
            }
        }
    }
}

extension Call {
    /// A statement with int8 parameters.
    init(_ statement: Statement, _ values: Int64...) {
        self.init(statement)
        for value in values { add(value) }
    }

    /// A statement with int8[] parameters.
    init(_ statement: Statement, arrays: [Int64]...) {
        self.init(statement)
        for array in arrays { add(array: array) }
    }
}

extension Int64 {
    /// A number as PostgreSQL keeps it; numbers of 2^63 and more do not occur and would be refused by its constraints.
    init(_ identifier: some Identifier) { self = Int64(truncatingIfNeeded: identifier.rawValue) }
}
