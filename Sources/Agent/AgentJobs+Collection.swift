import AgentPlanning
import AshlarCore
import Failpoints
import Logging
import Observability
import RPC

extension AgentJobs {
    /// Deletes the bytes of dead objects, and then their rows (I6, M7). A row goes only once every server that may hold
    /// the bytes has confirmed that they are gone.
    func collect(cache: AgentPeer) async throws(AgentError) -> AgentPlanner.Outcome {
        try await requireCurrentDatabase(cache: cache)
        let (answer, _) = try await cache.ask(
            Collect(intentAgeMilliseconds: intentAgeMilliseconds, graceMilliseconds: graceMilliseconds),
            answer: Collect.Answer.self,
            deadlineMilliseconds: AgentLimits.mapDeadlineMilliseconds
        )
        guard !answer.objects.isEmpty else { return .nothing }
        Failpoint.agentDeadReceived.reach()
        let deletions = answer.objects.map { dead in
            // Server 0: an intent that was never mapped; nobody knows where its bytes were put, if they were.
            Deletion(object: dead.object, servers: dead.server.rawValue == 0 ? allServers : [dead.server])
        }
        let gone = await deleteAll(deletions)
        metrics.objectsCollected.increment(by: UInt64(gone.count))
        if !gone.isEmpty {
            Failpoint.agentDeadDeleted.reach()
            try await cache.tell(
                ForgetObjects(gone),
                deadlineMilliseconds: AgentLimits.mapDeadlineMilliseconds
            )
            Failpoint.agentDeadForgotten.reach()
        }
        logger.debug("dead objects deleted", metadata: ["objects": "\(gone.count) of \(answer.objects.count)"])
        if gone.count < answer.objects.count, !gate.isClosed {
            throw AgentError(
                .unanswered,
                "\(answer.objects.count - gone.count) of \(answer.objects.count) dead objects were not deleted"
            )
        }
        return .worked
    }

    /// Looks for objects without a row (M8): lists first, then asks. A row is committed before the first byte is put
    /// (I6), so what was listed and has no row when it is asked about never gets one.
    func scan(cache: AgentPeer) async throws(AgentError) -> AgentPlanner.Outcome {
        try await requireCurrentDatabase(cache: cache)
        var deleted = 0
        var lastError: AgentError?
        for server in allServers {
            do {
                deleted += try await scan(server, cache: cache)
            } catch {
                // A server that is away or a page that is doubted is no reason to leave the others out.
                if error.code == .stopping { throw error }
                logger.log(
                    level: error.code == .badWork ? .error : .warning,
                    "scan given up",
                    metadata: ["server": "\(server)", "reason": "\(error)"]
                )
                lastError = error
            }
        }
        if let lastError { throw lastError }
        return deleted > 0 ? .worked : .nothing
    }

    private var allServers: [ObjectServerID] { peers.objects.keys.sorted() }

    private func scan(_ server: ObjectServerID, cache: AgentPeer) async throws(AgentError) -> Int {
        guard let peer = peers.objects[server] else { return 0 }
        var deleted = 0
        var after: ObjectID?
        repeat {
            if gate.isClosed { throw AgentError(.stopping, "the agent stops") }
            let (page, _) = try await peer.ask(
                ListObjects(after: after, limit: AgentLimits.scanPageObjects),
                answer: ListObjects.Answer.self,
                deadlineMilliseconds: AgentLimits.objectDeadlineMilliseconds
            )
            guard page.next == nil || page.next != after else {
                throw AgentError(.badWork, "object server \(server) lists the same page again")
            }
            deleted += try await deleteUnknown(page.objects, on: server, cache: cache)
            after = page.next
        } while after != nil
        return deleted
    }

    private func deleteUnknown(
        _ listed: [ObjectID],
        on server: ObjectServerID,
        cache: AgentPeer
    ) async throws(AgentError) -> Int {
        guard !listed.isEmpty else { return 0 }
        Failpoint.agentScanListed.reach()
        let (answer, _) = try await cache.ask(
            KnownObjects(listed),
            answer: KnownObjects.self,
            deadlineMilliseconds: AgentLimits.mapDeadlineMilliseconds
        )
        let known = Set(answer.names.objects)
        let unknown = listed.filter { !known.contains($0) }
        metrics.objectsScanned.increment(by: UInt64(listed.count))
        guard unknown.count <= AgentLimits.scanUnknownMaximum || unknown.count * 2 <= listed.count else {
            throw AgentError(
                .badWork,
                "the database knows only \(known.count) of \(listed.count) objects on server \(server), as if it were "
                    + "an older one or another cluster's: nothing is deleted"
            )
        }
        if !unknown.isEmpty { Failpoint.agentScanCompared.reach() }
        let gone = await deleteAll(unknown.map { Deletion(object: $0, servers: [server]) })
        for object in gone {
            logger.notice("object without a row deleted", metadata: ["object": "\(object)", "server": "\(server)"])
        }
        metrics.garbageDeleted.increment(by: UInt64(gone.count))
        return gone.count
    }

    // MARK: - Deleting

    private struct Deletion: Sendable {
        let object: ObjectID
        let servers: [ObjectServerID]
    }

    /// Deletes with a bounded number in flight, until the agent stops.
    ///
    /// - Returns: The objects whose deletion every server of theirs confirmed, in the order given.
    private func deleteAll(_ deletions: [Deletion]) async -> [ObjectID] {
        await withTaskGroup(of: (Int, Bool).self) { group in
            var next = 0
            var confirmed: [Int] = []
            func startOne() {
                guard next < deletions.count, !gate.isClosed else { return }
                let (index, deletion) = (next, deletions[next])
                next += 1
                group.addTask { (index, await self.delete(deletion)) }
            }
            for _ in 0..<AgentLimits.deletionsInFlightMaximum { startOne() }
            for await (index, isGone) in group {
                if isGone { confirmed.append(index) }
                startOne()
            }
            return confirmed.sorted().map { deletions[$0].object }
        }
    }

    private func delete(_ deletion: Deletion) async -> Bool {
        for server in deletion.servers {
            guard let peer = peers.objects[server] else {
                logger.warning(
                    "a dead object lies on a server that is not configured",
                    metadata: ["object": "\(deletion.object)", "server": "\(server)"]
                )
                return false
            }
            // Waiting for a server that is away, once for each of its objects, would hold up all others.
            guard await peer.isConnected else { return false }
            do {
                try await peer.tell(
                    DeleteObject(object: deletion.object),
                    deadlineMilliseconds: AgentLimits.objectDeadlineMilliseconds
                )
                Failpoint.agentObjectDeleted.reach()
            } catch {
                logger.debug(
                    "object not deleted",
                    metadata: ["object": "\(deletion.object)", "reason": "\(error)"]
                )
                return false
            }
        }
        return !deletion.servers.isEmpty
    }
}
