import AgentPlanning
import AshlarCore
import Failpoints
import Logging
import Observability
import RPC

// Verifying what lies on object servers, and saying what was found (I11).
extension AgentJobs {
    /// Does a piece of a scrub. The cache server hands out one at a time, at the pace that is set for the cluster, and hands it out
    /// again where no report comes: agents neither fight nor need to remember anything.
    func scrub(cache: AgentPeer) async throws(AgentError) -> AgentPlanner.Outcome {
        let work: ScrubWork.Answer
        do {
            (work, _) = try await cache.ask(
                ScrubWork(),
                answer: ScrubWork.Answer.self,
                deadlineMilliseconds: AgentLimits.mapDeadlineMilliseconds
            )
        } catch {
            // A cache server of an older release.
            guard error.status == .unsupported else { throw error }
            return .nothing
        }
        metrics.itemsScrubbed.increment(by: work.items)
        guard !work.objects.isEmpty else { return work.items > 0 ? .worked : .nothing }
        Failpoint.agentScrubReceived.reach()
        var findings: [ReportObjects.Finding] = []
        for object in work.objects.prefix(RPCMessageLimits.objectsReportedMaximum) {
            findings.append(try await verified(object))
        }
        Failpoint.agentScrubVerified.reach()
        try await report(findings, token: work.token, cache: cache)
        Failpoint.agentScrubReported.reach()
        metrics.objectsScrubbed.increment(by: UInt64(findings.count))
        return .worked
    }

    private func verified(_ object: ScrubWork.Object) async throws(AgentError) -> ReportObjects.Finding {
        if gate.isClosed { throw AgentError(.stopping, "the agent stops") }
        guard let peer = peers.objects[object.server], await peer.isConnected else {
            logger.debug("object not verified", metadata: ["object": "\(object.object)", "server": "\(object.server)"])
            return ReportObjects.Finding(object: object.object, state: .unknown)
        }
        do {
            try await peer.tell(
                VerifyObject(object: object.object),
                deadlineMilliseconds: AgentLimits.objectDeadlineMilliseconds
            )
            return ReportObjects.Finding(object: object.object, state: .sound)
        } catch {
            switch error.status {
            case .noSuchObject:
                return ReportObjects.Finding(object: object.object, state: .missing)
            case .mediumError:
                let found = try await slots(
                    0..<object.slots,
                    of: object.object,
                    on: object.server,
                    blockSizeBytes: nil,
                    keepsBytes: false
                )
                return finding(object.object, found)
            default:
                logger.debug("object not verified", metadata: ["object": "\(object.object)", "reason": "\(error)"])
                return ReportObjects.Finding(object: object.object, state: .unknown)
            }
        }
    }

    private func finding(_ object: ObjectID, _ found: FetchedSlots) -> ReportObjects.Finding {
        if found.isMissing { return ReportObjects.Finding(object: object, state: .missing) }
        // Nothing damaged: another root has a copy that is sound.
        if found.damaged.isEmpty { return ReportObjects.Finding(object: object, state: .sound) }
        if found.sound.isEmpty { return ReportObjects.Finding(object: object, state: .unreadable) }
        return ReportObjects.Finding(object: object, state: .damaged, slots: found.damaged)
    }

    /// Tells a cache server how objects were found, loudly where one is damaged.
    func report(
        _ findings: [ReportObjects.Finding],
        token: UInt64,
        cache: AgentPeer
    ) async throws(AgentError) {
        for finding in findings where finding.state != .sound && finding.state != .unknown {
            metrics.blocksCorrupt.increment(by: UInt64(max(1, finding.slots.count)))
            logger.error(
                "an object is damaged or missing (I11)",
                metadata: [
                    "object": "\(finding.object)", "state": "\(finding.state)",
                    "slots": "\(finding.slots.prefix(8).map { "\($0)" }.joined(separator: " "))",
                ]
            )
        }
        try await cache.tell(
            ReportObjects(token: token, objects: findings),
            deadlineMilliseconds: AgentLimits.mapDeadlineMilliseconds
        )
    }
}
