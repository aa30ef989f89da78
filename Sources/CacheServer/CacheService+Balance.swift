import AshlarCore
import Logging
import NIOCore
import Ownership
import PostgresStore

/// What a cache server knows of the others, and what it does about that.
struct CacheBalance {
    /// What was found at the last look; nil: none yet.
    var survey: CacheSurvey?
    /// Volumes that were given away since, by who got them.
    var given: [(successor: CacheServerID, isUsed: Bool)] = []
    var isLooking = false
    /// Set when the process is to end: who waits for that, and when it is done at the latest.
    var leaving: (done: (() -> Void)?, deadline: MonotonicTime)?
    /// Whether the others know that this server is about to end, and have been looked at since.
    var isAnnounced = false
    /// Whether anything has been given away since the process was told to end.
    var hasGiven = false
}

// Spreading, draining, leaving: volumes are handed over as ``OwnershipBalance`` says.
extension CacheService {
    /// Whether volumes are to go elsewhere.
    var isLeaving: Bool {
        balance.leaving != nil
            || balance.survey?.servers.contains { $0.id == core.registration && $0.isLeaving } == true
    }

    /// Another server that may be given volumes: the one with the fewest in use.
    var otherServer: CacheServerState? {
        balance.survey?.servers.filter { $0.id != core.registration && !$0.isLeaving }
            .min { ($0.usedVolumes + $0.idleVolumes, $0.id) < ($1.usedVolumes + $1.idleVolumes, $1.id) }
    }

    /// Who is to be asked for a volume that nobody owns, because this server is leaving; nil: this one.
    func substitute(for volume: VolumeID) -> CacheServerState? {
        guard isLeaving, !core.holds(volume) else { return nil }
        return otherServer
    }

    /// Looks at all servers: takes over what was given up for this one, and gives away what others should have.
    func lookAtServers() {
        guard let server = core.registration, !balance.isLooking else { return }
        balance.isLooking = true
        let isAnnounced = balance.isAnnounced
        let bound = NIOLoopBound(self, eventLoop: loop)
        store.surveyServers(server: server) { [loop] result in
            loop.execute { bound.value.surveyed(result, isLastWord: isAnnounced) }
        }
    }

    private func surveyed(_ result: Result<CacheSurvey, StoreFailure>, isLastWord: Bool) {
        balance.isLooking = false
        switch result {
        case .success(let survey):
            balance.survey = survey
            balance.given = []
            for volume in survey.handedOver where !core.holds(volume) {
                core.lookUp(ticket(.then { _ in }), volume: volume, now: now)
            }
            giveAway()
            if isLastWord { endLeaving() }
        case .failure(let failure):
            logger.notice("cache servers could not be looked at", metadata: ["error": "\(failure)"])
        }
        endTurn()
    }

    /// Begins as many hand-overs as there may be at once.
    func giveAway() {
        guard let own = core.registration, var servers = balance.survey?.servers else { return }
        let volumes = core.volumesToGive
        // What this server has is known better here than there.
        for index in servers.indices {
            if servers[index].id == own {
                servers[index].usedVolumes = volumes.filter(\.isUsed).count
                servers[index].idleVolumes = volumes.count - servers[index].usedVolumes
                servers[index].isLeaving = servers[index].isLeaving || balance.leaving != nil
            }
            for gift in balance.given where gift.successor == servers[index].id {
                if gift.isUsed { servers[index].usedVolumes += 1 } else { servers[index].idleVolumes += 1 }
            }
        }
        let room = OwnershipBalanceLimits.handOversAtOnce - core.handOvers
        guard room > 0 else { return }
        for transfer in OwnershipBalance(servers).transfers(from: own, volumes, room: room) {
            let isUsed = volumes.contains { $0.id == transfer.volume && $0.isUsed }
            let isBegun = core.handOver(
                transfer.volume,
                to: transfer.successor,
                endpoint: transfer.endpoint,
                now: now
            )
            guard isBegun else { continue }
            balance.given.append((transfer.successor, isUsed))
            balance.hasGiven = true
            logger.info(
                "volume is handed over",
                metadata: ["volume": "\(transfer.volume)", "successor": "\(transfer.endpoint)"]
            )
        }
    }

    // MARK: Leaving

    /// Gives everything away, where another server lives, and calls `done` when that is over or has taken too long.
    func leave(_ done: @escaping () -> Void) {
        balance.leaving = (done, now.advanced(byNanoseconds: CacheServerLimits.leaveNanoseconds))
        guard let server = core.registration, !core.isEmpty else { return endLeaving(isOver: true) }
        let bound = NIOLoopBound(self, eventLoop: loop)
        store.markStopping(server: server) { [loop] result in
            loop.execute {
                guard case .success = result else { return bound.value.endLeaving(isOver: true) }
                bound.value.balance.isAnnounced = true
                bound.value.lookAtServers()
            }
        }
    }

    /// Ends the process where nothing is left to give, or nobody to give it to.
    func endLeaving(isOver: Bool = false) {
        guard let leaving = balance.leaving, let done = leaving.done else { return }
        let isLate = now >= leaving.deadline
        let isAlone = balance.isAnnounced && otherServer == nil
        guard isOver || isLate || core.isEmpty || isAlone else { return }
        balance.leaving?.done = nil
        guard balance.hasGiven else { return done() }
        // What is still on its way to this server is told who serves next.
        let bound = NIOLoopBound(done, eventLoop: loop)
        loop.scheduleTask(in: CacheServerLimits.linger) { bound.value() }
    }
}
