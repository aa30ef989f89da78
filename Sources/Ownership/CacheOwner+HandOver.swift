public import AshlarCore

/// A volume that is being handed over to another cache server.
struct HandOver {
    /// The server that is to serve next.
    let successor: CacheServerID
    /// Where that one is reached.
    let endpoint: String
    /// When it has to be over.
    let end: MonotonicTime
    /// Whether commands are refused. From the first of them on, the epoch executes nothing but what came before.
    var isRefusing = false
    /// Whether the store has been asked to record it.
    var isRecording = false
}

// Planned hand-over: the owner finishes what is being committed, refuses the rest, and gives its epoch up. The next one serves at
// once; what was refused is sent again there, as behind any takeover (R9).
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
        guard !handingOver.isEmpty else { return }
        for id in handingOver.sorted() {
            guard let volume = owned(id), let handOver = volume.handOver else {
                handingOver.remove(id)
                continue
            }
            guard now < handOver.end else {
                // What targets were refused they settle with the next epoch, which begins here.
                actions.append(.note("volume \(id) could not be handed over in time"))
                lose(volume, retake: true, now: now)
                continue
            }
            if !handOver.isRefusing {
                // What it aborts has to be durable.
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
            case .waiting, .loading, .ready: refuseForHandOver(command, of: volume, now: now)
            case .committing, .lingering, .finished: break
            }
        }
        // A change of the state that was committed meanwhile begins an erasure: its answer is due when that has ended.
        for command in volume.lingering where command.isWholeErasure {
            answer(command, .refused(.notOwner(nil), nil))
            finish(command, of: volume, now: now)
        }
    }

    /// Ends a command of a volume that is being handed over: its target settles it with the next owner.
    mutating func refuseForHandOver(_ command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        cancel(command, of: volume, refusal: .notOwner(volume.handOver?.endpoint), now: now)
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
}
