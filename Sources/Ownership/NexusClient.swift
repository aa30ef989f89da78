public import AshlarCore
public import DequeModule

/// How a command of a nexus ended, as far as the owner and the rules of epochs decide.
public enum NexusOutcome<Answer> {
    /// The owner answered.
    case answered(Answer)
    /// It was committed in an earlier epoch, and the answer was lost on its way (R4).
    case committedEarlier
    /// Task management took it back while its owner was out of reach: it was not committed, nor ever will be (R6, R9).
    case aborted
}

/// What a target does for one nexus.
public enum NexusAction<Request, Answer> {
    /// Send a command to the owner; the answer comes back by `answered` with the same id and attempt.
    case send(CommandID, attempt: UInt32, Request, CommandContext)
    /// Tell the initiator.
    case complete(Request, NexusOutcome<Answer>)
    /// Evidence arrived: the connection machine has to say when the initiator has proved that it lives since (R1).
    case stampArrived(token: UInt64)
    /// Ask the initiator for a proof now.
    case ping
    /// Take the nexus up again under the new epoch; answered by `resumed`, `resumeRefused` or `ownerLost`.
    case resume(NexusNumber, Stamp)
    /// Find the owner; answered by `ownerFound`.
    case locate
    /// End the session without an answer to what is under way: its outcome is not known in time.
    case drop(reason: String)
}

/// How the owner disposed of one request, as far as the nexus's rules are concerned.
public enum NexusDisposition<Answer> {
    /// A last word, with the stamp that came along.
    case final(Answer, Stamp?)
    /// A last word, too, that nothing was done. Its stamp is proved without delay: commands that carry an older proof may be
    /// refused for the same reason.
    case refused(Answer, Stamp?)
    /// Too old a proof: nothing was done (R1).
    case unproved(Stamp?)
    /// Another epoch serves, or another server, or the connection broke: find the owner.
    case ownerLost
    /// It never left the target, though it was to be sent in an epoch that may be over now.
    case notSent
    /// The nexus is gone: a newer login took its place, or the volume was given up.
    case nexusClosed
}

/// The target's side of one nexus: rules R1, R2, R4, R5, R6 and R9 of design section 6, as a value.
///
/// States: `serving` (commands are sent as they come), `locating` (the owner is being looked for; commands wait), `proving` (a
/// new epoch serves, and the initiator has not yet proved a stamp of it), `resuming`, `ended`.
///
/// Request: whatever the shell needs to send a command again. Answer: whatever it needs to tell the initiator.
public struct NexusClient<Request, Answer> {
    @usableFromInline
    enum State: Hashable, Sendable {
        case serving
        case locating
        case proving
        case resuming
        case ended
    }

    @usableFromInline
    struct Outstanding {
        @usableFromInline var request: Request
        /// Whether it changes the volume: such a command is sent in another epoch only once it is known that nothing came of it in
        /// those before (R9).
        @usableFromInline var isChange: Bool
        /// Whether it takes all commands back that came before it.
        @usableFromInline var isManagement: Bool
        @usableFromInline var deadline: MonotonicTime
        /// What the initiator had proved when it came: by that it is told from what came behind a reset.
        @usableFromInline var arrival: Stamp
        /// The epoch in which it was last sent; nil where nothing can have come of it.
        @usableFromInline var sentIn: Epoch?
        /// Waits for a newer proof before it is sent again.
        @usableFromInline var isUnproved = false
        /// How often it was sent; only the answer to the last time counts.
        @usableFromInline var attempt: UInt32 = 0
        /// The proof that it is sent with. A change keeps that of its arrival as long as the owner takes it: so the owner can tell
        /// it from one that came behind a reset, however late it is sent.
        @usableFromInline var proof: Stamp
        /// Whether an earlier attempt in this epoch has no answer: then not even `unproved` says that nothing was done (R6).
        @usableFromInline var mayHaveRun = false

        @inlinable
        init(request: Request, isChange: Bool, isManagement: Bool, deadline: MonotonicTime, proved: Stamp) {
            self.request = request
            self.isChange = isChange
            self.isManagement = isManagement
            self.deadline = deadline
            arrival = proved
            proof = proved
        }

        /// It is sent now, in `epoch`, with what the initiator has proved, or what the nexus was resumed with.
        @inlinable
        mutating func noteSent(in epoch: Epoch, proved: Stamp, resumedWith: Stamp) {
            if sentIn == epoch, !isUnproved { mayHaveRun = true }
            sentIn = epoch
            if !isChange || isUnproved {
                proof = proved
            } else if proof.epoch != epoch {
                proof = resumedWith
            }
            attempt += 1
            isUnproved = false
        }

        /// Nothing came of it, nor will, by whatever was sent.
        @inlinable
        mutating func settle() {
            sentIn = nil
            isUnproved = false
            mayHaveRun = false
        }
    }

    /// The volume.
    public let volume: VolumeID
    /// The nexus's number.
    public let nexus: NexusNumber
    @usableFromInline var state = State.serving
    @usableFromInline var epoch: Epoch
    /// The epoch in which the owner knows the nexus as open: commands are sent in no other (R2, R6).
    @usableFromInline var openEpoch: Epoch
    @usableFromInline var proved: Stamp
    /// What the nexus was first to be taken up again with in the newest epoch: the proof of all that waited for that. What another
    /// nexus aborted since is so told from what came behind it (R6), also where the owner took the nexus up long before its answer
    /// arrives here.
    @usableFromInline var resumedWith: Stamp
    @usableFromInline var outstanding = CommandWindow<Outstanding>()
    @usableFromInline var next = CommandID(1)
    /// Commands from this one on were never sent.
    @usableFromInline var neverSent = CommandID(1)
    @usableFromInline var actions: Deque<NexusAction<Request, Answer>> = []
    /// Commands below this one that have no answer were taken back by task management of this nexus that is done.
    @usableFromInline var takenBackBelow = CommandID(0)

    // Evidence on its way to be proved, oldest first.
    @usableFromInline var evidence: Deque<(token: UInt64, stamp: Stamp)> = []
    @usableFromInline var nextToken: UInt64 = 1
    @usableFromInline var latest: Stamp

    /// A nexus that was opened with a stamp, which the login itself proves.
    @inlinable
    public init(volume: VolumeID, nexus: NexusNumber, opened stamp: Stamp) {
        self.volume = volume
        self.nexus = nexus
        epoch = stamp.epoch
        openEpoch = stamp.epoch
        proved = stamp
        resumedWith = stamp
        latest = stamp
    }

    /// The next thing to do; nil when there is nothing until the next event.
    @inlinable
    public mutating func nextAction() -> NexusAction<Request, Answer>? { actions.popFirst() }

    /// Whether commands of this epoch are sent now.
    @inlinable
    public func isServing(_ epoch: Epoch) -> Bool { state == .serving && epoch == self.epoch }

    /// Commands without an answer.
    @inlinable
    public var outstandingCount: Int { outstanding.count }

    /// Every command below this one is answered.
    @inlinable
    func lowWater() -> CommandID { outstanding.lowest ?? next }

    // MARK: Commands

    /// Takes a command of the initiator.
    ///
    /// - Returns: its id in the nexus, by which task management names it.
    @inlinable
    public mutating func submit(
        _ request: Request,
        isChange: Bool,
        isManagement: Bool = false,
        deadline: MonotonicTime
    ) -> CommandID {
        let id = next
        next = CommandID(id.rawValue + 1)
        let command = Outstanding(
            request: request,
            isChange: isChange,
            isManagement: isManagement,
            deadline: deadline,
            proved: proved
        )
        outstanding.append(command, as: id)
        if state == .serving { sendNew() }
        return id
    }

    /// Sends commands that were never sent, as far as the window reaches: the owner keeps answers from the low-water mark on,
    /// and one command without an answer holds the mark.
    @inlinable
    mutating func sendNew() {
        while state == .serving, neverSent < next {
            // Some may have been given up before they were sent.
            neverSent = max(neverSent, lowWater())
            guard neverSent < next else { return }
            guard neverSent.rawValue - lowWater().rawValue < NexusClientLimits.idsAheadMaximum else { return }
            let id = neverSent
            neverSent = CommandID(id.rawValue + 1)
            send(id)
        }
    }

    /// Sends everything without an answer again that had been sent, then what is new.
    @inlinable
    mutating func sendAgain() {
        for number in outstanding.span where number < neverSent.rawValue { send(CommandID(number)) }
        sendNew()
    }

    /// What a message about commands of the nexus carries (task management).
    @inlinable
    public mutating func context() -> CommandContext {
        CommandContext(volume: volume, nexus: nexus, command: next, lowWater: lowWater(), proved: proved)
    }

    @inlinable
    mutating func send(_ id: CommandID) {
        outstanding.update(id) { [epoch, proved, resumedWith] in
            $0.noteSent(in: epoch, proved: proved, resumedWith: resumedWith)
        }
        guard let command = outstanding[id] else { return }
        let context = CommandContext(
            volume: volume,
            nexus: nexus,
            command: id,
            lowWater: lowWater(),
            proved: command.proof
        )
        actions.append(.send(id, attempt: command.attempt, command.request, context))
    }

    /// The owner answered, or will not.
    @inlinable
    public mutating func answered(_ id: CommandID, attempt: UInt32, _ disposition: NexusDisposition<Answer>) {
        guard state != .ended, let command = outstanding[id], command.attempt == attempt else { return }
        switch disposition {
        case .final(let answer, let stamp):
            if let stamp { stampArrived(stamp) }
            if command.isManagement { takenBackBelow = max(takenBackBelow, id) }
            complete(id, command.request, answer)
        case .refused(let answer, let stamp):
            if let stamp, stamp.isNewer(than: latest) { take(stamp) }
            complete(id, command.request, answer)
        case .unproved(let stamp):
            if let stamp { stampArrived(stamp) }
            outstanding.update(id) { $0.isUnproved = true }
            if state == .serving, proved.isNewer(than: command.proof) {
                // The initiator has proved more while this was on its way.
                send(id)
            } else {
                actions.append(.ping)
            }
        case .ownerLost, .notSent:
            if case .notSent = disposition, !command.mayHaveRun { outstanding.update(id) { $0.settle() } }
            // Of an earlier epoch it says nothing new: the owner of a later one has been found.
            if command.sentIn == epoch { ownerLost() }
        case .nexusClosed: end("the nexus was closed by its owner")
        }
    }

    @inlinable
    mutating func complete(_ id: CommandID, _ request: Request, _ answer: Answer) {
        outstanding.remove(id)
        actions.append(.complete(request, .answered(answer)))
        sendNew()
    }

    /// Forgets a command that task management has ended; its answer, if one comes, goes nowhere.
    @inlinable
    public mutating func forget(_ id: CommandID) {
        outstanding.remove(id)
        sendNew()
    }

    // MARK: Evidence (R1)

    /// A stamp of the owner arrived, with an answer or by itself.
    @inlinable
    public mutating func stampArrived(_ stamp: Stamp) {
        guard state != .ended, stamp.isNewer(than: latest) else { return }
        // A few a second are enough: each one costs the connection machine a look at every PDU that follows.
        let isOtherEpoch = stamp.epoch != latest.epoch
        guard isOtherEpoch || stamp.time.nanoseconds(since: latest.time) >= NexusClientLimits.stampInterval else {
            return
        }
        take(stamp)
    }

    @inlinable
    mutating func take(_ stamp: Stamp) {
        latest = stamp
        if evidence.count >= NexusClientLimits.evidenceMaximum { evidence.removeLast() }
        evidence.append((nextToken, stamp))
        actions.append(.stampArrived(token: nextToken))
        nextToken += 1
    }

    /// The initiator has proved that it received something sent after the evidence `token` arrived.
    @inlinable
    public mutating func proved(token: UInt64) {
        var newest: Stamp?
        while let first = evidence.first, first.token <= token {
            newest = first.stamp
            evidence.removeFirst()
        }
        guard state != .ended, let newest, newest.isNewer(than: proved) else { return }
        proved = newest
        if state == .proving {
            if proved.epoch == epoch { resume() }
            // A newer epoch serves than the one that was found: of that, no stamp comes any more (R5).
            if proved.epoch > epoch { ownerLost() }
            return
        }
        guard state == .serving else { return }
        guard proved.epoch == epoch else {
            // A newer epoch serves already: the nexus has to be resumed there first (R5).
            return ownerLost()
        }
        for number in outstanding.span where outstanding[CommandID(number)]?.isUnproved == true {
            send(CommandID(number))
        }
    }

    // MARK: Owner

    /// The owner cannot be reached, or is the owner no more.
    @inlinable
    public mutating func ownerLost() {
        guard state != .ended, state != .locating else { return }
        state = .locating
        actions.append(.locate)
    }

    @inlinable
    mutating func resume() {
        state = .resuming
        if resumedWith.epoch != proved.epoch { resumedWith = proved }
        actions.append(.resume(nexus, proved))
    }

    /// The owner was found, with a stamp of the epoch that it serves.
    @inlinable
    public mutating func ownerFound(_ stamp: Stamp) {
        // Another nexus of the target has noticed before this one.
        if state == .serving, stamp.epoch > epoch { state = .locating }
        guard state == .locating || state == .proving else { return }
        guard stamp.epoch >= epoch else {
            // An old owner that does not know yet.
            state = .serving
            return ownerLost()
        }
        stampArrived(stamp)
        epoch = stamp.epoch
        if openEpoch == epoch, proved.epoch == epoch {
            // R4: the same epoch serves; what had no answer is sent again under the same ids.
            state = .serving
            sendAgain()
        } else if proved.epoch == epoch {
            // Proved already while the owner was out of reach, but not taken up there, as far as is known.
            resume()
        } else {
            state = .proving
            actions.append(.ping)
        }
    }

    /// The owner took the nexus up again: changes in `done` are durable. Others of earlier epochs never will be by what was sent
    /// there: they are sent again, but for those that came with the proof `aborted`, or an older one (R2, R6, R9).
    @inlinable
    public mutating func resumed(done: [CommandID], aborted: Stamp?, _ stamp: Stamp) {
        // An answer of an earlier epoch may come late.
        guard state == .resuming, stamp.epoch == epoch else { return }
        state = .serving
        openEpoch = epoch
        stampArrived(stamp)
        let durable = Set(done)
        for id in outstanding.span.map(CommandID.init)
        where durable.contains(id) && outstanding[id]?.isManagement == true {
            takenBackBelow = max(takenBackBelow, id)
        }
        for id in outstanding.span.map(CommandID.init) {
            guard let command = outstanding[id], command.isChange else { continue }
            let isTakenBack = id < takenBackBelow || aborted.map { !command.arrival.isNewer(than: $0) } ?? false
            let outcome: NexusOutcome<Answer>
            if durable.contains(id) {
                outcome = .committedEarlier
            } else if isTakenBack, !command.isManagement {
                outcome = .aborted
            } else {
                outstanding.update(id) { $0.settle() }
                continue
            }
            outstanding.remove(id)
            actions.append(.complete(command.request, outcome))
        }
        sendAgain()
    }

    /// The owner did not take the nexus up again.
    @inlinable
    public mutating func resumeRefused(unproved stamp: Stamp?) {
        guard state == .resuming else { return }
        guard let stamp else { return end("the nexus was not resumed by the new owner") }
        state = .proving
        stampArrived(stamp)
        actions.append(.ping)
    }

    // MARK: Time

    /// Ends what has waited as long as it may (`command-deadline`).
    ///
    /// - Parameter giveUp: an answer that says that nothing was done, for commands that never left.
    @inlinable
    public mutating func tick(now: MonotonicTime, giveUp: @autoclosure () -> Answer) {
        guard state != .ended else { return }
        for id in outstanding.span.map(CommandID.init) {
            guard let command = outstanding[id], command.deadline <= now else { continue }
            if command.sentIn == nil || !command.isChange || (command.isUnproved && !command.mayHaveRun) {
                outstanding.remove(id)
                actions.append(.complete(command.request, .answered(giveUp())))
            } else {
                // Its outcome is not known: only silence is true (R6).
                return end("a command's outcome is not known within the deadline")
            }
        }
        sendNew()
    }

    @inlinable
    mutating func end(_ reason: String) {
        guard state != .ended else { return }
        state = .ended
        outstanding.removeAll()
        actions.append(.drop(reason: reason))
    }

    /// Ends the nexus's client: logout, or the connection is gone.
    @inlinable
    public mutating func close() {
        state = .ended
        outstanding.removeAll()
        actions = []
    }
}

/// Bounds of a nexus's client.
public enum NexusClientLimits {
    /// Evidence closer together than this is not worth the trouble, in nanoseconds.
    public static let stampInterval: UInt64 = 50_000_000
    /// How far the ids of commands that were sent may lie above the low-water mark; further ones wait to be sent. Less than
    /// the owner keeps answers for.
    public static let idsAheadMaximum: UInt64 = 8_192
    /// Evidence on its way to be proved.
    public static let evidenceMaximum = 256
}

extension NexusClient.Outstanding: Sendable where Request: Sendable {}
extension NexusClient: Sendable where Request: Sendable, Answer: Sendable {}
extension NexusAction: Sendable where Request: Sendable, Answer: Sendable {}
extension NexusOutcome: Sendable where Answer: Sendable {}
extension NexusDisposition: Sendable where Answer: Sendable {}
