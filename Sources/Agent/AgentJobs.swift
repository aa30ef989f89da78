import AgentPlanning
import AshlarCore
import BlockObjects
import Failpoints
import Logging
import NIOCore
import Observability
import RPC
import Synchronization
import Transport

/// Does what the planner says, against the servers. Stateless but for which object servers refused puts lately.
///
/// Whatever fails is given up: an intent that is never mapped is swept, and an object that was put for it is collected
/// (I6).
final class AgentJobs: Sendable {
    let name: String
    let peers: AgentPeers
    let gate: AgentGate
    let metrics: AgentMetrics
    let logger: Logger
    let intentAgeMilliseconds: UInt64
    let graceMilliseconds: UInt64
    let complaints = Mutex(ComplaintLimiter())
    let draining = Mutex(KnownDraining(servers: [], until: MonotonicTime(0)))
    private let placement: Mutex<ObjectPlacement>

    /// Object servers that are drained, and how long that is taken for true.
    struct KnownDraining: Sendable {
        var servers: Set<ObjectServerID>
        var until: MonotonicTime
    }

    init(
        name: String,
        peers: AgentPeers,
        gate: AgentGate,
        metrics: AgentMetrics,
        intentAgeMilliseconds: UInt64,
        graceMilliseconds: UInt64,
        logger: Logger
    ) {
        self.name = name
        self.peers = peers
        self.gate = gate
        self.metrics = metrics
        self.intentAgeMilliseconds = intentAgeMilliseconds
        self.graceMilliseconds = graceMilliseconds
        self.logger = logger
        placement = Mutex(ObjectPlacement(servers: peers.objects.keys))
    }

    /// Does one job to its end.
    ///
    /// - Parameter foundWork: Called once it is known that there is work, long before it is done.
    func perform(_ job: AgentPlanner.Job, foundWork: @Sendable () async -> Void) async -> AgentPlanner.Outcome {
        do {
            switch job.kind {
            case .move: return try await move(cache: peers.caches[job.cache], foundWork: foundWork)
            case .evict: return try await evict(cache: peers.caches[job.cache])
            case .compact: return try await compact(cache: peers.caches[job.cache])
            case .collect: return try await collect(cache: peers.caches[job.cache])
            case .scan: return try await scan(cache: peers.caches[job.cache])
            case .scrub: return try await scrub(cache: peers.caches[job.cache])
            }
        } catch {
            guard error.code != .stopping, !gate.isClosed else { return .nothing }
            metrics.countFailure(job.kind)
            if error.code == .databaseIsOlder, !complaints.withLock({ $0.mayComplain(now: RPCClock.now) }) {
                return .failed
            }
            let isLoud = error.code == .badWork || error.code == .databaseIsOlder || error.status == .exists
            logger.log(
                level: isLoud ? .error : .warning,
                "job given up",
                metadata: ["job": "\(job.kind)", "reason": "\(error)"]
            )
            return .failed
        }
    }

    /// Puts an object on the best server that takes it.
    ///
    /// An id is under way to one server at a time: after a put with an unknown outcome no other is tried (M9). What a
    /// server that refused a put kept of it all the same is deleted by a scan once the object's row is gone.
    func put(_ object: ObjectID, bytes: ByteBuffer, cache: AgentPeer) async throws(AgentError) -> ObjectServerID {
        let connected = await peers.connectedObjectServers()
        let drained = await drainingServers(cache: cache)
        let order = placement.withLock {
            $0.order(of: object, connected: connected, excluded: drained, now: RPCClock.now)
        }
        var lastError = AgentError(.configuration, "no object server is configured that is not drained")
        for server in order {
            guard let peer = peers.objects[server] else { continue }
            do {
                let deadline = AgentLimits.putDeadlineMilliseconds
                try await peer.tell(PutObject(object: object), payload: [bytes], deadlineMilliseconds: deadline)
                placement.withLock { $0.putSucceeded(on: server) }
                metrics.objectsPut.increment()
                metrics.bytesPut.increment(by: UInt64(bytes.readableBytes))
                Failpoint.agentObjectPut.reach()
                return server
            } catch {
                placement.withLock { $0.putFailed(on: server, now: RPCClock.now) }
                // Another object under this id, or a malformed one, is no reason to try elsewhere.
                let isFinal = error.mayHaveExecuted || error.status == .exists || error.status == .invalidMessage
                if isFinal { throw error }
                logger.warning("put refused", metadata: ["object": "\(object)", "reason": "\(error)"])
                lastError = error
            }
        }
        throw lastError
    }

    private func evict(cache: AgentPeer) async throws(AgentError) -> AgentPlanner.Outcome {
        let (answer, _) = try await cache.ask(
            Evict(),
            answer: CountAnswer.self,
            deadlineMilliseconds: AgentLimits.askDeadlineMilliseconds
        )
        metrics.blocksEvicted.increment(by: answer.count)
        if answer.count > 0 { Failpoint.agentItemsEvicted.reach() }
        return answer.count > 0 && answer.left > 0 ? .worked : .nothing
    }
}
