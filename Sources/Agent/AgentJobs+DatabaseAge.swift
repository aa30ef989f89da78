import AgentPlanning
import AshlarCore
import Failpoints
import Logging
import Observability
import RPC
import Synchronization
import Transport

/// Lets the same complaint through once in a while.
struct ComplaintLimiter: Sendable {
    private var next: MonotonicTime?

    /// Whether to say it now.
    mutating func mayComplain(now: MonotonicTime) -> Bool {
        if let next, now < next { return false }
        next = now.advanced(byNanoseconds: AgentLimits.complaintMilliseconds * 1_000_000)
        return true
    }

    /// There is nothing to complain of any more.
    mutating func settled() { next = nil }
}

extension AgentJobs {
    /// Refuses to delete anything while the database is older than what lies on the object servers, as after a restore: objects
    /// that it does not know, or takes for dead, may be what everybody's data is in (M8).
    ///
    /// Each object server keeps the highest clock of the database that it was ever told, and knows the highest object id that lay
    /// there; a cache server compares both with the database. A server that is away is not asked; nothing is deleted there either.
    func requireCurrentDatabase(cache: AgentPeer) async throws(AgentError) {
        var marks: [DatabaseAge.Mark] = []
        for (server, peer) in peers.objects.sorted(by: { $0.key < $1.key }) {
            guard await peer.isConnected else { continue }
            do {
                let (known, _) = try await peer.ask(
                    RaiseClock(clock: 0),
                    answer: RaiseClock.Answer.self,
                    deadlineMilliseconds: AgentLimits.objectDeadlineMilliseconds
                )
                marks.append(
                    DatabaseAge.Mark(server: server, clock: known.clock, highestObject: known.highestObject)
                )
            } catch {
                // A server of an older release knows nothing of clocks.
                guard error.status == .unsupported else { throw error }
            }
        }
        let (age, _) = try await cache.ask(
            DatabaseAge(marks: marks),
            answer: DatabaseAge.Answer.self,
            deadlineMilliseconds: AgentLimits.mapDeadlineMilliseconds
        )
        guard !age.isBehind else {
            metrics.deletionsRefused.increment()
            let servers = marks.filter { $0.clock > age.clock || $0.highestObject >= age.nextObject }
            throw AgentError(
                .databaseIsOlder,
                "the database is older than the objects"
                    + (servers.isEmpty
                        ? "" : " on object server " + servers.map { "\($0.server)" }.joined(separator: ", "))
                    + ", as after a restore: nothing is deleted before its map is rebuilt with: ashlar recover"
            )
        }
        complaints.withLock { $0.settled() }
        Failpoint.agentClockLearned.reach()
        for mark in marks where mark.clock < age.clock {
            guard let peer = peers.objects[mark.server] else { continue }
            try await peer.tell(
                RaiseClock(clock: age.clock),
                deadlineMilliseconds: AgentLimits.objectDeadlineMilliseconds
            )
            Failpoint.agentClockRaised.reach()
        }
    }

    /// The object servers that are drained, as a cache server said a moment ago.
    func drainingServers(cache: AgentPeer) async -> Set<ObjectServerID> {
        let known = draining.withLock { $0 }
        guard known.until <= RPCClock.now else { return known.servers }
        var servers = known.servers
        do {
            let (answer, _) = try await cache.ask(
                DrainingServers(),
                answer: DrainingServers.Answer.self,
                deadlineMilliseconds: AgentLimits.askDeadlineMilliseconds
            )
            servers = Set(answer.servers)
        } catch {
            // What was known before holds on; a cache server of an older release knows none.
            logger.debug("drained object servers not known", metadata: ["reason": "\(error)"])
        }
        let until = RPCClock.now.advanced(byNanoseconds: AgentLimits.drainingMilliseconds * 1_000_000)
        draining.withLock { $0 = KnownDraining(servers: servers, until: until) }
        return servers
    }
}
