public import AshlarCore
import DequeModule

/// A volume that is being handed over to another cache server.
struct HandOver {
    /// The server that is to serve next.
    let successor: CacheServerID
    /// Where that one is reached.
    let endpoint: String
    /// When it has to be over.
    let end: MonotonicTime
    /// Whether commands are refused unexecuted. From the first of them on, the epoch executes nothing but what came before (R9).
    var isRefusing = false
    /// Whether the store has been asked to record it.
    var isRecording = false
}

/// What is known of an epoch that was given up: enough to tell a command that was on its way whether anything came of it (R9).
struct Relinquished {
    let epoch: Epoch
    /// Who was to serve next.
    let endpoint: String
    /// Its nexuses: what was done, answered, aborted, or taken back.
    let nexuses: [NexusNumber: Nexus]
}

/// The epochs that were given up lately, of all volumes.
struct RelinquishedEpochs {
    private var epochs: [VolumeID: [Relinquished]] = [:]
    private var order: Deque<(volume: VolumeID, epoch: Epoch, until: MonotonicTime)> = []

    /// How many are remembered.
    var count: Int { order.count }

    /// Remembers an epoch in place of the oldest, where there are as many as there may be.
    mutating func insert(_ epoch: Relinquished, of volume: VolumeID, now: MonotonicTime) {
        while order.count >= OwnerLimits.relinquishedMaximum { removeFirst() }
        epochs[volume, default: []].append(epoch)
        order.append((volume, epoch.epoch, now.advanced(byNanoseconds: OwnerLimits.relinquishedMemory)))
    }

    func find(_ volume: VolumeID, _ epoch: Epoch) -> Relinquished? {
        epochs[volume]?.first { $0.epoch == epoch }
    }

    /// Forgets those that nothing can be on its way for any more.
    mutating func expire(now: MonotonicTime) {
        while let first = order.first, first.until <= now { removeFirst() }
    }

    private mutating func removeFirst() {
        guard let (volume, epoch, _) = order.popFirst() else { return }
        epochs[volume]?.removeAll { $0.epoch == epoch }
        if epochs[volume]?.isEmpty == true { epochs[volume] = nil }
    }
}

// Planned hand-over (R9): the owner finishes what is being committed, refuses the rest as unexecuted, gives its epoch up, and
// remembers it, so that what was still on its way is refused in the same manner.
//
// What it answers by: a change that was committed, answered, aborted or taken back under the epoch gets that answer, before and
// after the epoch was given up; all else is unexecuted, and never will be under this epoch, whatever becomes of the hand-over.
extension CacheOwner {
    /// Volumes that are being handed over.
    public var handOvers: Int { handingOver.count }

    /// This server's registration; nil: none now.
    public var registration: CacheServerID? { server }

    /// Whether it owns nothing and takes nothing over.
    public var isEmpty: Bool {
        volumes.values.allSatisfy { slot in
            if case .refused = slot { true } else { false }
        }
    }

    /// Whether a volume is owned here, or being taken over.
    public func holds(_ id: VolumeID) -> Bool { volumes[id] != nil }

    /// The volumes that are owned here and are not being handed over.
    public var volumesToGive: [OwnershipBalance.OwnedVolume] {
        ownedVolumes.filter { $0.handOver == nil }.map {
            OwnershipBalance.OwnedVolume(id: $0.id, isUsed: !$0.nexuses.isEmpty)
        }
    }

    /// Begins to hand a volume over to another cache server, which takes it over once it has been given up.
    ///
    /// - Returns: `false` where the volume is not owned here, or cannot be handed over now.
    @discardableResult
    public mutating func handOver(
        _ id: VolumeID,
        to successor: CacheServerID,
        endpoint: String,
        now: MonotonicTime
    ) -> Bool {
        guard let volume = owned(id), volume.handOver == nil, successor != server, holdsLease(now: now) else {
            return false
        }
        // Its answer waits for an erasure to end, and would be lost: the initiator would take it for failed.
        guard !volume.lingering.contains(where: \.isWholeErasure) else { return false }
        let end = now.advanced(byNanoseconds: OwnerLimits.handOverMaximum)
        volume.handOver = HandOver(successor: successor, endpoint: endpoint, end: end)
        handingOver.insert(id)
        continueHandOvers(now: now)
        return true
    }

    /// Goes on with all hand-overs as far as they come. At the end of each turn of events.
    mutating func continueHandOvers(now: MonotonicTime) {
        relinquished.expire(now: now)
        guard !handingOver.isEmpty else { return }
        for id in handingOver.sorted() {
            guard let volume = owned(id), let handOver = volume.handOver else {
                handingOver.remove(id)
                continue
            }
            guard now < handOver.end else {
                // The epoch may have refused commands, and cannot go on: a new one begins here.
                actions.append(.note("volume \(id) could not be handed over in time"))
                lose(volume, retake: true, now: now)
                continue
            }
            if !handOver.isRefusing {
                // What it aborts has to be known before anything is called unexecuted.
                if let change = volume.unitChange, change.phase == .committing || change.isManagement { continue }
                refuseAll(of: volume, now: now)
            }
            record(volume)
        }
    }

    /// Refuses everything that is not being committed; task management, part of which has happened, is finished.
    private mutating func refuseAll(of volume: VolumeOwner, now: MonotonicTime) {
        volume.handOver?.isRefusing = true
        moveRound.removeAll { $0 == volume.id }
        erasing.remove(volume.id)
        ready.removeAll { $0.volume === volume && !$0.command.isManagement }
        let nexuses = volume.nexuses.values.sorted { $0.number < $1.number }
        let commands = nexuses.flatMap { $0.inFlight.sorted { $0.key < $1.key }.map(\.value) }
        let own = [volume.unitChange].compactMap { $0 } + volume.order.waiting + volume.order.active
        for command in commands + own where !command.isManagement {
            switch command.phase {
            case .waiting, .loading, .ready: refuseUnexecuted(command, of: volume, now: now)
            case .committing, .lingering, .finished: break
            }
        }
        // A change of the state that was committed meanwhile begins an erasure: its answer is due when that has ended.
        for command in volume.lingering where command.isWholeErasure {
            answer(command, .refused(.notOwner(nil), nil))
            finish(command, of: volume, now: now)
        }
    }

    /// Ends a command of a volume that is being handed over: nothing of it was done, nor will be under this epoch.
    mutating func refuseUnexecuted(_ command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        guard case .client(let operation, let context) = command.kind else {
            return cancel(command, of: volume, refusal: .notOwner(nil), now: now)
        }
        if let nexus = volume.nexuses[context.nexus], nexus.isAborted(operation, proved: context.proved) {
            return cancelOnItsWay(command, nexus, of: volume, now: now)
        }
        answer(command, .refused(.ownershipLost(volume.handOver?.endpoint ?? ""), stamp(volume, now)))
        finish(command, of: volume, now: now)
    }

    /// Has the store record that the volume is given up, once nothing of it is under way.
    private mutating func record(_ volume: VolumeOwner) {
        guard let handOver = volume.handOver, handOver.isRefusing, !handOver.isRecording, let server else { return }
        guard
            volume.order.isEmpty, volume.unitChange == nil, volume.lingering.isEmpty,
            volume.heldByChange.allSatisfy({ $0.phase == .finished }),
            volume.nexuses.values.allSatisfy({ $0.inFlight.isEmpty && $0.state != .opening }),
            !untold.contains(volume.id), !isBeingStored(volume)
        else { return }
        volume.handOver?.isRecording = true
        let id = operation(.relinquish(volume))
        actions.append(.relinquish(id, volume.id, volume.epoch, from: server, to: handOver.successor))
    }

    /// Whether the store has been asked to change anything of a volume, and has not answered.
    private func isBeingStored(_ volume: VolumeOwner) -> Bool {
        let isUnderWay = operations.values.contains { operation in
            switch operation {
            case .commit(let flight): flight.parts.contains { $0.volume === volume }
            case .openNexus(let other, _, _), .closeNexus(let other, _, _): other === volume
            default: false
            }
        }
        return isUnderWay
            || retries.contains {
                if case .closeNexus(let other, _) = $0.what { other === volume } else { false }
            }
    }

    /// The store recorded that a volume was given up, or found that its epoch was over.
    public mutating func volumeRelinquished(
        _ id: OperationID,
        _ result: Result<Bool, StoreFailure>,
        now: MonotonicTime
    ) {
        guard case .relinquish(let volume)? = operations.removeValue(forKey: id), !volume.isLost else { return }
        switch result {
        case .success:
            // Whoever serves now: all that was executed under this epoch was executed here, and has been answered.
            let epoch = Relinquished(
                epoch: volume.epoch,
                endpoint: volume.handOver?.endpoint ?? "",
                nexuses: volume.nexuses
            )
            relinquished.insert(epoch, of: volume.id, now: now)
            lose(volume, retake: false, now: now)
        case .failure(.broken(let why)):
            actions.append(.note("volume \(volume.id) cannot be handed over: \(why)"))
            lose(volume, retake: true, now: now)
        case .failure(let failure):
            // Asked again, it finds what the last time came to.
            actions.append(.note("the hand-over of volume \(volume.id) could not be recorded: \(failure)"))
            schedule(.relinquish(volume), at: now.advanced(byNanoseconds: OwnerLimits.storeRetry))
        }
    }

    /// Answers a command, or task management (nil), of an epoch that was given up here; `false` where that is not remembered.
    mutating func answerRelinquished(
        _ ticket: Ticket,
        _ context: CommandContext,
        _ operation: CommandOperation?,
        now: MonotonicTime
    ) -> Bool {
        guard let epoch = relinquished.find(context.volume, context.proved.epoch) else { return false }
        refuseUnexecuted(ticket, context, operation, epoch.nexuses, endpoint: epoch.endpoint, now: now)
        return true
    }

    /// Answers a command that came too late for its epoch: as it was answered before, as aborted, or as unexecuted.
    mutating func refuseUnexecuted(
        _ ticket: Ticket,
        _ context: CommandContext,
        _ operation: CommandOperation?,
        _ nexuses: [NexusNumber: Nexus],
        endpoint: String,
        now: MonotonicTime
    ) {
        let stamp = Stamp(epoch: context.proved.epoch, time: now)
        guard let nexus = nexuses[context.nexus], nexus.state == .open else {
            return refuse(ticket, .nexusClosed, stamp)
        }
        if answerKnown(context.command, of: nexus, to: ticket, stamp: stamp) { return }
        if let operation, nexus.isAborted(operation, proved: context.proved) {
            nexus.keep(context.command, .refused(.taskAborted))
            return refuse(ticket, .taskAborted, stamp)
        }
        refuse(ticket, .ownershipLost(endpoint), stamp)
    }
}
