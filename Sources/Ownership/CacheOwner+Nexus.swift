public import AshlarCore
import DequeModule

// Nexuses: rules R1 to R4 and R6 of design section 6.
extension CacheOwner {
    /// Logs an initiator port in: closes every older nexus between the same ports in the owner's order, then records the
    /// new one; answered with `nexusOpened` (R3).
    public mutating func openNexus(
        _ ticket: Ticket,
        volume id: VolumeID,
        ports: InitiatorTargetNexus,
        node: String,
        now: MonotonicTime
    ) {
        guard let volume = owned(id) else { return refuse(ticket, .notOwner(nil)) }
        if let handOver = volume.handOver, handOver.isRefusing {
            return refuse(ticket, .notOwner(handOver.endpoint))
        }
        for nexus in volume.nexuses.values.filter({ $0.ports == ports }).sorted(by: { $0.number < $1.number }) {
            close(nexus, of: volume, now: now)
        }
        if volume.nexuses.count >= OwnerLimits.nexusesPerVolumeMaximum { closeForsaken(of: volume, now: now) }
        guard volume.nexuses.count < OwnerLimits.nexusesPerVolumeMaximum else {
            return refuse(ticket, .busy("volume has \(volume.nexuses.count) sessions, the most there may be"))
        }
        let number = volume.nextNexus
        volume.nextNexus = NexusNumber(number.rawValue + 1)
        let mark = NexusMark(nexus: number, lowWater: CommandID(0), done: [])
        let row = NexusRow(number: number, ports: ports, node: node, mark: mark)
        // It stays closed until it is durable: a command cannot come before the login's answer.
        let nexus = Nexus(row: row, state: .opening, now: now)
        volume.nexuses[number] = nexus
        let id = operation(.openNexus(volume, nexus, ticket))
        actions.append(.openNexus(id, volume.id, volume.epoch, row))
    }

    /// Closes the oldest nexus that nobody has resumed though a target that lives would have done so long ago.
    private mutating func closeForsaken(of volume: VolumeOwner, now: MonotonicTime) {
        guard
            now.nanoseconds(since: volume.takenAt) >= OwnerLimits.unresumedGrace,
            let oldest = volume.nexuses.values.filter({ $0.state == .unresumed }).min(by: { $0.number < $1.number })
        else { return }
        closeForGood(oldest, of: volume, now: now)
    }

    /// Closes a nexus, and has that recorded, though its target did not ask for it.
    mutating func closeForGood(_ nexus: Nexus, of volume: VolumeOwner, now: MonotonicTime) {
        close(nexus, of: volume, now: now)
        recordClose(nexus.number, of: volume, for: nil)
    }

    mutating func recordClose(_ number: NexusNumber, of volume: VolumeOwner, for ticket: Ticket?) {
        let id = operation(.closeNexus(volume, number, ticket))
        actions.append(.closeNexus(id, volume.id, volume.epoch, number))
    }

    /// Closes the nexus that holds the unit by RESERVE (6), where no target has known it for long: the node that it came through
    /// has ended, and its initiator has not come back. A target that lives asks for its nexuses every second.
    mutating func endForsakenReserve(of volume: VolumeOwner, now: MonotonicTime) {
        guard
            let holder = volume.reserveHolder.flatMap({ volume.nexuses[$0] }),
            now.nanoseconds(since: holder.lastSeen) >= OwnerLimits.unresumedGrace
        else { return }
        closeForGood(holder, of: volume, now: now)
    }

    /// Which of the nexuses are closed: for a target whose sessions are idle, and so would not notice (R3).
    public func closedNexuses(of id: VolumeID, among numbers: [NexusNumber], now: MonotonicTime) -> [NexusNumber] {
        guard let volume = owned(id) else { return [] }
        return numbers.filter { number in
            volume.nexuses[number]?.lastSeen = now
            return volume.nexuses[number] == nil
        }
    }

    /// Logs an initiator port out; answered with `done`.
    public mutating func closeNexus(
        _ ticket: Ticket,
        volume id: VolumeID,
        nexus number: NexusNumber,
        now: MonotonicTime
    ) {
        guard let volume = owned(id), volume.handOver?.isRecording != true else {
            return refuse(ticket, .notOwner(nil))
        }
        if let nexus = volume.nexuses[number] { close(nexus, of: volume, now: now) }
        recordClose(number, of: volume, for: ticket)
    }

    /// The store recorded a login or a logout; `false`: the epoch is over.
    public mutating func nexusStored(_ id: OperationID, _ result: Result<Bool, StoreFailure>, now: MonotonicTime) {
        switch operations.removeValue(forKey: id) {
        case .openNexus(let volume, let nexus, let ticket):
            guard !volume.isLost else { return refuse(ticket, .notOwner(nil)) }
            switch result {
            case .success(true):
                // A newer login between the same ports may have closed it meanwhile.
                guard nexus.state == .opening else { return refuse(ticket, .nexusClosed) }
                nexus.state = .open
                tellDescription(of: volume)
                // What it was told of meanwhile had no row to be written to.
                if !nexus.attentions.isEmpty { noteAttentions(of: [nexus.number], volume) }
                actions.append(.answer(ticket, .nexusOpened(nexus.number, stamp(volume, now))))
            case .success(false):
                refuse(ticket, .notOwner(nil))
                lose(volume, retake: true, now: now)
            case .failure:
                // The row may be there all the same; the next login between these ports removes it.
                close(nexus, of: volume, now: now)
                refuse(ticket, .busy("the login could not be recorded"))
            }
        case .closeNexus(let volume, let number, let ticket):
            if case .success(false) = result { lose(volume, retake: true, now: now) }
            if case .failure(let failure) = result {
                if case .broken = failure {
                } else if !volume.isLost {
                    // Else the next owner would find it, and with it what it had reserved.
                    schedule(.closeNexus(volume, number), at: now.advanced(byNanoseconds: OwnerLimits.storeRetry))
                }
            }
            if let ticket { actions.append(.answer(ticket, .done(stamp(volume, now)))) }
        default: return
        }
    }

    /// Takes a nexus up again after a takeover (R2, R9); answered with `nexusResumed`.
    public mutating func resumeNexus(
        _ ticket: Ticket,
        volume id: VolumeID,
        nexus number: NexusNumber,
        proved: Stamp,
        now: MonotonicTime
    ) {
        guard let volume = owned(id), !volume.isRefusing else { return refuse(ticket, .notOwner(nil)) }
        let current = stamp(volume, now)
        guard proved.epoch == volume.epoch else { return refuse(ticket, .wrongEpoch, current) }
        guard let nexus = volume.nexuses[number], nexus.state == .open || nexus.state == .unresumed else {
            return refuse(ticket, .nexusClosed, current)
        }
        guard isFresh(proved, now: now) else { return refuse(ticket, .unproved, current) }
        nexus.resume(now: now)
        let aborted = nexus.aborted(in: volume.epoch)
        actions.append(.answer(ticket, .nexusResumed(nexus.done.sorted(), aborted: aborted, current)))
    }

    /// Whether a proved stamp of the current epoch is younger than the time to live, on the owner's clock (R1).
    func isFresh(_ proved: Stamp, now: MonotonicTime) -> Bool {
        now.nanoseconds(since: proved.time) < configuration.nexusTimeToLive
    }

    /// Closes a nexus in memory: what has not begun to be committed never will be.
    mutating func close(_ nexus: Nexus, of volume: VolumeOwner, now: MonotonicTime) {
        nexus.state = .closed
        volume.nexuses[nexus.number] = nil
        volume.changedAttentions.remove(nexus.number)
        for (_, command) in nexus.inFlight.sorted(by: { $0.key < $1.key }) where command.phase != .committing {
            cancel(command, of: volume, refusal: .nexusClosed, now: now)
        }
    }

    /// Takes commands of a nexus back that have not begun to be committed, refuses those that arrive later, and answers
    /// `done` once those in a commit are finished: task management (R6).
    public mutating func fence(_ ticket: Ticket, context: CommandContext, commands: [CommandID], now: MonotonicTime) {
        guard let volume = owned(context.volume), !volume.isRefusing else {
            return refuse(ticket, .notOwner(owned(context.volume)?.handOver?.endpoint))
        }
        let current = stamp(volume, now)
        guard context.proved.epoch == volume.epoch else { return refuse(ticket, .wrongEpoch, current) }
        guard let nexus = volume.nexuses[context.nexus], nexus.state == .open else {
            return refuse(ticket, .nexusClosed, current)
        }
        raiseLowWater(of: nexus, to: context.lowWater, volume)
        let hit: [Command]
        if commands.isEmpty {
            nexus.fencedBelow = max(nexus.fencedBelow, context.command)
            hit = nexus.inFlight.filter { $0.key < context.command }.sorted { $0.key < $1.key }.map(\.value)
        } else {
            guard nexus.fenced.count + commands.count <= OwnerLimits.fencedPerNexusMaximum else {
                return refuse(ticket, .busy("too many commands of one session taken back"), current)
            }
            nexus.fenced.formUnion(commands.filter { $0 >= nexus.lowWater })
            hit = Set(commands).sorted().compactMap { nexus.inFlight[$0] }
        }
        var committing: [Command] = []
        for command in hit where !command.isManagement {
            if command.isPastRecall {
                command.takenBack = .aborted
                committing.append(command)
            } else {
                cancel(command, of: volume, refusal: .aborted, now: now)
            }
        }
        guard !committing.isEmpty else { return actions.append(.answer(ticket, .done(current))) }
        let fence = Fence(.request(ticket), remaining: committing.count)
        for command in committing { command.fences.append(fence) }
    }

    /// Ends a command that is not in a commit, without any effect.
    mutating func cancel(_ command: Command, of volume: VolumeOwner, refusal: Refusal, now: MonotonicTime) {
        guard command.phase != .finished else { return }
        precondition(command.phase != .committing, "what is in a commit cannot be taken back")
        if command.phase == .ready { ready.removeAll { $0.command === command } }
        keepAnswer(to: command, .refused(refusal), of: volume)
        answer(command, .refused(refusal, stamp(volume, now)))
        finish(command, of: volume, now: now)
    }

    /// Keeps the answer to a change that did nothing, as long as its id may come again (R4).
    func keepAnswer(to command: Command, _ answer: Nexus.Kept, of volume: VolumeOwner) {
        guard command.isClientChange, let context = command.context else { return }
        // Not kept: it comes again under the same id, as a write (M4).
        if case .refused(.stale) = answer { return }
        volume.nexuses[context.nexus]?.keep(context.command, answer)
    }

    /// Ends a command whose block is lost; only while the lease holds, for another owner may have it whole (R8).
    mutating func failMedium(_ command: Command, block: BlockID, of volume: VolumeOwner, now: MonotonicTime) {
        guard holdsLease(now: now) else { return park(command, of: volume) }
        cancel(command, of: volume, refusal: .mediumError(block.rawValue * volume.blockBytes), now: now)
    }

    /// Lets a command wait for the lease; it goes on from where it was.
    mutating func park(_ command: Command, of volume: VolumeOwner) {
        guard !command.isParked else { return }
        command.isParked = true
        parkedReads.append((volume, command))
    }

    /// Takes a command out of the order and begins those that it held back.
    mutating func finish(_ command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        command.phase = .finished
        for region in command.pinned { region.pins -= 1 }
        command.pinned = []
        command.fetched = [:]
        if let context = command.context, let nexus = volume.nexuses[context.nexus] {
            if let index = nexus.inFlight.index(forKey: context.command), nexus.inFlight[index].value === command {
                nexus.inFlight.remove(at: index)
            }
        }
        if !command.fences.isEmpty {
            let fences = command.fences
            command.fences = []
            for fence in fences { settle(fence, of: volume, now: now) }
        }
        if !volume.surveysWaiting.isEmpty { volume.surveysWaiting.removeAll { $0 === command } }
        if !volume.lingering.isEmpty { volume.lingering.removeAll { $0 === command } }
        switch command.kind {
        case .fill(_, let list): volume.fillsInFlight -= list.count
        case .evict: volume.isLookingForEvictions = false
        case .forget: if volume.isLookingForRemains { endRemainsStep(of: volume, now: now) }
        case .map: if let slots = command.through { volume.direct.decided(slots.grant) }
        case .client, .erase, .manage, .direct: break
        }
        if command.isBulk, let index = volume.bulk.firstIndex(where: { $0 === command }) {
            volume.bulk.remove(at: index)
            for other in volume.blockedByBulk { toBegin.append((volume, other)) }
            volume.blockedByBulk = []
        }
        for next in volume.order.leave(command) { toBegin.append((volume, next)) }
        if let group = command.group { decide(group, of: volume) }
        beginAll(now: now)
        endChange(command, of: volume, now: now)
    }

    /// Begins commands whose turn has come: in a loop, since each may end at once and give way to the next.
    private mutating func beginAll(now: MonotonicTime) {
        guard !isBeginning else { return }
        isBeginning = true
        while let (volume, command) = toBegin.popFirst() {
            switch command.phase {
            case .waiting: begin(command, of: volume, now: now)
            case .loading: load(command, of: volume, now: now)
            case .ready, .committing, .lingering, .finished: break
            }
        }
        isBeginning = false
    }

    /// Fails commands that have waited as long as they may; those in a commit are not touched.
    mutating func expireWaiting(now: MonotonicTime) {
        // Those that have ended meanwhile are left in these lists, so that none is searched for each command that ends.
        parkedReads.removeAll { $0.1.phase == .finished }
        let parked = Dictionary(grouping: parkedReads) { $0.0.id }
        let busy = volumes.values.compactMap { slot -> VolumeOwner? in
            guard case .owned(let volume) = slot else { return nil }
            let isBusy = !volume.order.isEmpty || volume.unitChange != nil || parked[volume.id] != nil
            return isBusy ? volume : nil
        }
        for volume in busy.sorted(by: { $0.id < $1.id }) {
            volume.heldByChange.removeAll { $0.phase == .finished }
            let changes = [volume.unitChange].compactMap { $0 } + volume.heldByChange
            let parked = (parked[volume.id] ?? []).map(\.1)
            let expired = (volume.order.waiting + volume.order.active + changes + parked).filter {
                $0.deadline <= now && $0.phase != .committing && $0.phase != .lingering && $0.phase != .finished
                    && ($0.ticket != nil || $0.isThroughMap)
            }
            for command in expired { cancel(command, of: volume, refusal: .deadline, now: now) }
        }
    }
}
