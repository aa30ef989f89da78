import AshlarCore
import AshlarTestSupport
import Ownership

// Planned hand-overs in the seeded cluster .
extension Cluster {
    /// The server that serves the volume now, as far as it knows.
    var servingServer: Int? {
        servers.indices.first { servers[$0].core.currentStamp(of: Self.volume, now: MonotonicTime(now)) != nil }
    }

    /// Has the server that serves the volume hand it over to the other one.
    func handOver() {
        guard let index = servingServer else { return }
        let other = servers.count - 1 - index
        guard let successor = servers[other].core.registration else { return }
        let endpoint = servers[other].endpoint
        onServer(index) { [self] server in
            let now = MonotonicTime(self.now)
            if server.core.handOver(Self.volume, to: successor, endpoint: endpoint, now: now) { count("hand-over") }
        }
    }

    /// Runs what the core asks of the store to give a volume up.
    func relinquish(_ action: OwnerAction, at index: Int, _ generation: Int) {
        guard case .relinquish(let id, let volume, let epoch, let server, let successor) = action else { return }
        ask(
            index,
            generation,
            { $0.relinquish(volume, epoch, from: server, to: successor, now: MonotonicTime(self.now)) },
            { $0.volumeRelinquished(id, $1, now: $2) }
        )
    }

    /// A planted defect: a nexus that is resumed does not know that it was aborted before.
    func forgetAborts(of nexus: NexusNumber, in core: borrowing CacheOwner) {
        guard defect == .abortsForgottenWithResume else { return }
        core.owned(Self.volume)?.nexuses[nexus]?.abortedAt = nil
    }

    /// What an initiator has sent is late when another one resets the unit, and the volume is handed over: behind the reset, or before
    /// it. It comes to the old owner before its target knows that there is a new one.
    func handOverWhileLate(isResetFirst: Bool) {
        let first = generator.below(initiators.count)
        guard let late = initiators[first].session,
            let own = initiators[(first + 1) % initiators.count].session
        else { return }
        late.extraDelay = isResetFirst ? 60_000_000 : 150_000_000
        for _ in 0..<6 { issue(late) }
        late.extraDelay = 0
        let resets = { [self] in if !own.isEnded { reset(own) } }
        after(1_000_000) { [self] in
            if isResetFirst { resets() } else { handOver() }
            after(isResetFirst ? 25_000_000 : 1_000_000) { [self] in
                if isResetFirst { handOver() } else { resets() }
            }
        }
    }
}
