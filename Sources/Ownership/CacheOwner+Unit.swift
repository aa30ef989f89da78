public import AshlarCore
import DequeModule
import NIOCore

// The logical unit: what keeps commands out (reservations, erasures, unit attention conditions), and what changes its state.
//
// Changes of the state go one after the other. While one is under way, commands that arrive wait: what they meet depends on
// it. So a command is ordered either before a change or behind it. Changes that keep others out (reservations, RESERVE, SWP) take
// back what was let in before them and has not begun to be committed, and are answered behind what has.
extension CacheOwner {
    /// Lets a command in, if nothing keeps it out.
    mutating func admit(_ command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        guard volume.unitChange == nil else {
            // None of an object may wait apart from the others.
            if command.group != nil { return cancel(command, of: volume, refusal: .stale, now: now) }
            volume.heldByChange.append(command)
            return
        }
        if volume.isRefusing, !command.isManagement { return refuseForHandOver(command, of: volume, now: now) }
        switch command.kind {
        case .client(let operation, let context):
            endForsakenReserve(of: volume, now: now)
            guard let nexus = volume.nexuses[context.nexus], nexus.state == .open else {
                return cancel(command, of: volume, refusal: .nexusClosed, now: now)
            }
            guard isFresh(context.proved, now: now) else {
                if nexus.isAborted(operation, proved: context.proved) {
                    return cancelOnItsWay(command, nexus, of: volume, now: now)
                }
                // Not kept: it comes again under the same id (R1).
                if operation.isChange { nexus.noteUnproved(context.command) }
                answer(command, .refused(.unproved, stamp(volume, now)))
                return finish(command, of: volume, now: now)
            }
            let refusal = obstacle(to: operation, from: nexus, of: volume)
            // R8: what the state is may have been changed by another owner.
            if refusal != nil || !operation.touchesBlocks, !holdsLease(now: now) {
                if command.group != nil { return cancel(command, of: volume, refusal: .stale, now: now) }
                return park(command, of: volume)
            }
            if let refusal {
                if case .attention = refusal {
                    _ = nexus.takeAttention(with: context.command)
                    nexus.keep(context.command, .refused(refusal))
                }
                return cancel(command, of: volume, refusal: refusal, now: now)
            }
            if nexus.isAborted(operation, proved: context.proved) {
                return cancelOnItsWay(command, nexus, of: volume, now: now)
            }
            switch operation {
            case .check(let rules, let reservations):
                finishCheck(command, rules, reservations, nexus, of: volume, now: now)
            case .unit(let action): begin(action, command, nexus, of: volume, now: now)
            default: admitBlocks(command, operation, of: volume, now: now)
            }
        case .erase(let operation):
            volume.unitChange = command
            admitBlocks(command, operation, of: volume, now: now)
        case .manage(let function, _):
            var change = UnitChange(state: volume.unit)
            if function.isReset {
                change.state.reservedBy = nil
                change.state.mode = change.state.savedMode
                for number in volume.nexuses.keys { change.attentions[number] = .deviceReset }
            }
            begin(change, command, of: volume)
        case .map, .direct, .evict, .fill, .forget:
            preconditionFailure("what agents and the owner do meets no reservation")
        }
    }

    /// Aborts a command that was on its way when another nexus aborted those of this one.
    mutating func cancelOnItsWay(
        _ command: Command,
        _ nexus: Nexus,
        of volume: VolumeOwner,
        now: MonotonicTime
    ) {
        if nexus.isOwedClearing {
            nexus.isOwedClearing = false
            tell(nexus, .commandsCleared, of: volume)
        }
        cancel(command, of: volume, refusal: .taskAborted, now: now)
    }

    /// Lets commands in that waited for a change of the state, in their order, up to the next change.
    private mutating func admitHeld(of volume: VolumeOwner, now: MonotonicTime) {
        while volume.unitChange == nil, let next = volume.heldByChange.popFirst() {
            guard next.phase != .finished else { continue }
            admit(next, of: volume, now: now)
        }
    }

    /// What keeps a command out: a conflict goes before a unit attention condition (SAM-6, 5.3.2).
    private func obstacle(to operation: CommandOperation, from nexus: Nexus, of volume: VolumeOwner) -> Refusal? {
        let rules = operation.rules
        if isReserved(volume, against: rules, of: nexus) { return .reservationConflict }
        if rules.attention == .report, let attention = nexus.attentions.first { return .attention(attention) }
        return erasure(of: volume, against: rules)
    }

    /// The refusal of what is not done while the unit is being erased.
    func erasure(of volume: VolumeOwner, against rules: CommandRules) -> Refusal? {
        guard let erasure = volume.unit.erasure, !rules.isAllowedDuringErasure else { return nil }
        return .erasing(erasure.kind, progress: erasure.progress(ofBytes: volume.geometry.sizeBytes))
    }

    private func isReserved(_ volume: VolumeOwner, against rules: CommandRules, of nexus: Nexus) -> Bool {
        if let holder = volume.reserveHolder, holder != nexus.number, !rules.isAllowedUnderReserve { return true }
        return volume.unit.reservations.conflicts(with: rules.access, from: nexus.ports)
    }

    /// Answers a command that needed nothing but the unit's state.
    private mutating func finishCheck(
        _ command: Command,
        _ rules: CommandRules,
        _ wantsReservations: Bool,
        _ nexus: Nexus,
        of volume: VolumeOwner,
        now: MonotonicTime
    ) {
        var state = volume.unit
        if !wantsReservations { state.reservations = PersistentReservations() }
        state.reservedBy = volume.reserveHolder
        var attention: UnitAttention?
        if rules.attention == .deliver, let context = command.context {
            if case .delivered(let known)? = nexus.kept[context.command] {
                attention = known
            } else if let taken = nexus.takeAttention(with: context.command) {
                nexus.keep(context.command, .delivered(taken))
                attention = taken
            }
        }
        let report = UnitReport(
            revision: volume.description.revision,
            state: state,
            attention: attention,
            counters: volume.currentCounters
        )
        answer(command, .checked(stamp(volume, now), report))
        finish(command, of: volume, now: now)
    }

    // MARK: Changes

    /// Works out what an initiator's command makes of the state, and has it committed.
    private mutating func begin(
        _ action: UnitAction,
        _ command: Command,
        _ nexus: Nexus,
        of volume: VolumeOwner,
        now: MonotonicTime
    ) {
        do throws(RefusedCommand) {
            let change = try change(by: action, from: nexus, of: volume)
            guard change.state == volume.unit, change.attentions.isEmpty else {
                return begin(change, command, of: volume)
            }
            if let context = command.context { nexus.keep(context.command, .done) }
            answer(command, .done(stamp(volume, now)))
            finish(command, of: volume, now: now)
        } catch {
            cancel(command, of: volume, refusal: error.refusal, now: now)
        }
    }

    private mutating func begin(_ change: UnitChange, _ command: Command, of volume: VolumeOwner) {
        command.change = change
        volume.unitChange = command
        makeReady(command, of: volume)
    }

    private func change(
        by action: UnitAction,
        from nexus: Nexus,
        of volume: VolumeOwner
    ) throws(RefusedCommand) -> UnitChange {
        var change = UnitChange(state: volume.unit)
        change.state.reservedBy = volume.reserveHolder
        func tellOthers(_ attention: UnitAttention) {
            for other in volume.nexuses.keys where other != nexus.number { change.attentions[other] = attention }
        }
        switch action {
        case .reservation(let action):
            try apply(action, from: nexus, of: volume, to: &change)
        case .reserve:
            try requireNoRegistration(volume)
            guard (volume.reserveHolder ?? nexus.number) == nexus.number else {
                throw RefusedCommand(refusal: .reservationConflict)
            }
            change.state.reservedBy = nexus.number
        case .release:
            try requireNoRegistration(volume)
            if volume.reserveHolder == nexus.number { change.state.reservedBy = nil }
        case .modeSelect(let mode, let isSaved):
            change.state.mode = mode
            if isSaved { change.state.savedMode = mode }
            if mode != volume.unit.mode || change.state.savedMode != volume.unit.savedMode {
                tellOthers(.modeParametersChanged)
            }
        case .identify(let kind, let bytes):
            let old = kind == .peripheral ? volume.unit.identifyingInformation : volume.unit.identifyingText
            switch kind {
            case .peripheral: change.state.identifyingInformation = bytes
            case .text: change.state.identifyingText = bytes
            }
            if bytes != old { tellOthers(.deviceIdentifierChanged) }
        case .erase(let erasure, _):
            try checkWritable(volume)
            let length = erasure.kind == .overwrite ? Int(volume.geometry.logicalBlockSizeBytes) : 0
            guard erasure.pattern.count == length else {
                throw RefusedCommand(refusal: .invalid("a pattern is as long as a logical block, where there is one"))
            }
            change.state.erasure = erasure.moved(to: 0)
        }
        return change
    }

    /// RESERVE and RELEASE conflict with registrations (SPC-3, 5.6.3: CRH is zero).
    private func requireNoRegistration(_ volume: VolumeOwner) throws(RefusedCommand) {
        guard volume.unit.reservations.registrations.isEmpty else {
            throw RefusedCommand(refusal: .reservationConflict)
        }
    }

    private func apply(
        _ action: ReservationAction,
        from nexus: Nexus,
        of volume: VolumeOwner,
        to change: inout UnitChange
    ) throws(RefusedCommand) {
        // A unit that is held by RESERVE takes no registrations, not even from who holds it (SPC-2, 5.5.1).
        guard volume.reserveHolder == nil else { throw RefusedCommand(refusal: .reservationConflict) }
        let result: ReservationChange
        do throws(ReservationRefusal) {
            result = try volume.unit.reservations.applying(
                action,
                from: nexus.ports,
                open: volume.nexuses.values.map(\.ports)
            )
        } catch {
            switch error {
            case .conflict: throw RefusedCommand(refusal: .reservationConflict)
            case .invalidRelease: throw RefusedCommand(refusal: .invalidRelease)
            case .noRoom: throw RefusedCommand(refusal: .noRegistrationRoom)
            case .invalidParameter(let byte): throw RefusedCommand(refusal: .invalidParameter(byte))
            }
        }
        change.state.reservations = result.reservations
        for other in volume.nexuses.values {
            change.attentions[other.number] = result.attentions[other.ports]
            if result.aborted.contains(other.ports) { change.aborted.insert(other.number) }
        }
    }

    /// A change has become durable: puts it in force, takes back what it forbids, and answers.
    mutating func apply(_ change: UnitChange, of command: Command, to volume: VolumeOwner, now: MonotonicTime) {
        if let erasure = volume.unit.erasure, change.state.erasure == nil {
            volume.setMapped(erasure.kind == .overwrite ? .max : 0)
        }
        volume.unit = change.state
        for (number, attention) in change.attentions { volume.nexuses[number]?.add(attention) }
        let committing = takeBack(by: command, change, of: volume, now: now)
        if volume.unit.erasure == nil { endErasure(of: volume, now: now) } else { erasing.insert(volume.id) }
        let isAwaiting = command.awaited.map { $0.remaining > 0 } ?? false
        guard !committing.isEmpty || isAwaiting || command.isWholeErasure else {
            answer(command, .done(stamp(volume, now)))
            return finish(command, of: volume, now: now)
        }
        command.phase = .lingering
        volume.lingering.append(command)
        if !committing.isEmpty {
            let fence = Fence(.command(command), remaining: committing.count)
            for other in committing { other.fences.append(fence) }
        }
        endChange(command, of: volume, now: now)
    }

    /// Takes back what has not begun to be committed of the nexuses that a change aborts, and of those that it keeps out now; all
    /// writes, where it sets SWP.
    ///
    /// - Returns: what is being committed of them: the change is answered behind it, so that who hears that another nexus is kept
    ///   out sees no more of its writes.
    private mutating func takeBack(
        by command: Command,
        _ change: UnitChange,
        of volume: VolumeOwner,
        now: MonotonicTime
    ) -> [Command] {
        var committing: [Command] = []
        switch command.kind {
        case .client(.unit(.reservation), _), .client(.unit(.reserve), _): break
        case .client(.unit(.modeSelect(let mode, _)), _) where mode.isSoftwareWriteProtected: break
        default: return committing
        }
        let isProtected = volume.unit.mode.isSoftwareWriteProtected
        for nexus in volume.nexuses.values.sorted(by: { $0.number < $1.number }) {
            let isAborted = change.aborted.contains(nexus.number)
            if isAborted { nexus.abort(now: now) }
            for (_, other) in nexus.inFlight.sorted(by: { $0.key < $1.key }) where other !== command {
                guard let operation = other.operation else { continue }
                let refusal: Refusal
                if isAborted {
                    refusal = .taskAborted
                } else if isReserved(volume, against: operation.rules, of: nexus) {
                    refusal = .reservationConflict
                } else if isProtected, operation.touchesBlocks, operation.isChange {
                    refusal = .softwareWriteProtected
                } else {
                    continue
                }
                switch other.phase {
                case .committing:
                    other.takenBack = refusal
                    committing.append(other)
                case .waiting, .loading, .ready: cancel(other, of: volume, refusal: refusal, now: now)
                case .lingering:
                    guard isAborted else { continue }
                    if other.isPastRecall {
                        committing.append(other)
                    } else {
                        cancel(other, of: volume, refusal: refusal, now: now)
                    }
                case .finished: break
                }
            }
        }
        return committing
    }

    /// A change is over, done or not: those that waited for it are let in.
    mutating func endChange(_ command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        guard volume.unitChange === command else { return }
        volume.unitChange = nil
        admitHeld(of: volume, now: now)
    }

    /// Answers a durable command that had to wait for others.
    mutating func endLingering(_ command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        guard command.phase == .lingering else { return }
        if let context = command.context { volume.nexuses[context.nexus]?.markDone(context.command) }
        answer(command, .done(stamp(volume, now)))
        finish(command, of: volume, now: now)
    }

    // MARK: Task management of all nexuses

    /// CLEAR TASK SET and resets: takes back what has not begun to be committed, of all nexuses, and answers `done` once what is
    /// in a commit has finished and the function is durable.
    ///
    /// It has a number of its own among the commands of its nexus, and is done once however often it comes (R4). Those of the own
    /// nexus that it hits have lower ones. Commands of others that are still on their way are refused as they come: what their
    /// initiators have proved is older than the function.
    public mutating func manage(
        _ ticket: Ticket,
        context: CommandContext,
        function: UnitManagement,
        deadline: MonotonicTime,
        now: MonotonicTime
    ) {
        guard let volume = owned(context.volume), context.proved.epoch == volume.epoch else {
            guard let volume = owned(context.volume) else { return refuse(ticket, .notOwner(nil)) }
            return refuse(ticket, .wrongEpoch, stamp(volume, now))
        }
        let current = stamp(volume, now)
        if let handOver = volume.handOver, handOver.isRefusing {
            return refuse(ticket, .notOwner(handOver.endpoint))
        }
        guard let own = volume.nexuses[context.nexus], own.state == .open else {
            return refuse(ticket, .nexusClosed, current)
        }
        own.lastSeen = now
        raiseLowWater(of: own, to: context.lowWater, volume)
        if answerKnown(context.command, of: own, to: ticket, stamp: current) { return }
        // R1: its initiator may have gone to another port long ago.
        guard isFresh(context.proved, now: now) else { return refuse(ticket, .unproved, current) }
        guard own.hasRoom else { return refuse(ticket, .busy("too many commands of one session"), current) }
        let command = Command(
            kind: .manage(function, context),
            ticket: ticket,
            ranges: [],
            isExclusive: true,
            deadline: deadline
        )
        own.inFlight[context.command] = command
        own.fencedBelow = max(own.fencedBelow, context.command)
        let committing = takeBack(by: function, context, own, of: volume, now: now)
        if function == .targetColdReset {
            for nexus in volume.nexuses.values.sorted(by: { $0.number < $1.number }) where nexus !== own {
                closeForGood(nexus, of: volume, now: now)
            }
        }
        if !committing.isEmpty {
            let fence = Fence(.command(command), remaining: committing.count)
            command.awaited = fence
            for other in committing { other.fences.append(fence) }
        }
        admit(command, of: volume, now: now)
    }

    /// Takes back what has not begun to be committed, of all nexuses; returns what has.
    private mutating func takeBack(
        by function: UnitManagement,
        _ context: CommandContext,
        _ own: Nexus,
        of volume: VolumeOwner,
        now: MonotonicTime
    ) -> [Command] {
        var committing: [Command] = []
        for nexus in volume.nexuses.values.sorted(by: { $0.number < $1.number }) {
            let isOwn = nexus === own
            let refusal: Refusal = isOwn ? .aborted : .taskAborted
            var isHit = false
            for (id, other) in nexus.inFlight.sorted(by: { $0.key < $1.key })
            where !other.isManagement && (!isOwn || id < context.command) {
                isHit = true
                if other.isPastRecall {
                    other.takenBack = refusal
                    committing.append(other)
                } else {
                    cancel(other, of: volume, refusal: refusal, now: now)
                }
            }
            guard !isOwn else { continue }
            isHit = isHit || nexus.expectsUnproved
            nexus.abort(now: now)
            if function == .clearTaskSet, isHit { tell(nexus, .commandsCleared, of: volume) }
            nexus.isOwedClearing = function == .clearTaskSet && !isHit
        }
        return committing
    }

    // MARK: Erasures

    /// Goes on with SANITIZE and FORMAT UNIT: one step of each volume at a time.
    mutating func continueErasures(now: MonotonicTime) {
        guard !erasing.isEmpty, now >= noCommitBefore, !isLogFull else { return }
        for id in erasing.sorted() {
            guard let volume = owned(id), let erasure = volume.unit.erasure else {
                erasing.remove(id)
                continue
            }
            guard volume.unitChange == nil, !volume.isRefusing else { continue }
            // A step that waited for room would hold back what is allowed meanwhile.
            if erasure.kind == .overwrite, unmovedBytes >= configuration.unmovedHardLimitBytes { continue }
            let (operation, end) = step(of: erasure, of: volume)
            let command = Command(
                kind: .erase(operation),
                ticket: nil,
                ranges: [],
                isExclusive: true,
                deadline: MonotonicTime(.max)
            )
            var change = UnitChange(state: volume.unit)
            change.state.erasure = end < volume.geometry.sizeBytes ? erasure.moved(to: end) : nil
            command.change = change
            admit(command, of: volume, now: now)
        }
    }

    private func step(of erasure: Erasure, of volume: VolumeOwner) -> (CommandOperation, end: UInt64) {
        let size = volume.geometry.sizeBytes
        // The volume may have shrunk below what is done.
        guard erasure.position < size else { return (.zero([]), size) }
        let rest = size - erasure.position
        guard erasure.kind == .overwrite, !erasure.pattern.isEmpty else {
            let count = min(rest, OwnerLimits.erasureStepMaximumBytes)
            return (.zero([ByteRange(offset: erasure.position, count: count)]), erasure.position + count)
        }
        let count = Int(min(rest, UInt64(Limits.transferMaximumBytes)))
        let block = ByteBuffer(repeating: erasure.pattern, count: Int(volume.blockBytes))
        var bytes = ByteBuffer()
        bytes.reserveCapacity(count)
        while bytes.readableBytes < count { bytes.writeImmutableBuffer(block) }
        let checksums = [Checksum](repeating: block.checksum, count: count / block.readableBytes)
        let write = CommandOperation.write(offset: erasure.position, checksums: checksums, bytes: bytes)
        return (write, erasure.position + UInt64(count))
    }

    /// Answers the commands that waited for an erasure to end.
    private mutating func endErasure(of volume: VolumeOwner, now: MonotonicTime) {
        guard erasing.remove(volume.id) != nil || !volume.lingering.isEmpty else { return }
        for command in volume.lingering {
            if case .client(.unit(.erase), _) = command.kind { endLingering(command, of: volume, now: now) }
        }
    }
}

extension UnitManagement {
    /// Whether it puts back what does not outlive a reset.
    fileprivate var isReset: Bool { self != .clearTaskSet }
}

extension Erasure {
    fileprivate func moved(to position: UInt64) -> Erasure {
        var erasure = self
        erasure.position = position
        return erasure
    }
}

extension ByteBuffer {
    /// A pattern, again and again, up to `count` bytes, which is a multiple of its length.
    fileprivate init(repeating pattern: [UInt8], count: Int) {
        self.init()
        reserveCapacity(count)
        while readableBytes < count { writeBytes(pattern) }
    }
}
