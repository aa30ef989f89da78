public import AshlarCore
import DequeModule

/// How a command of a nexus ended, as far as the owner and the rules of epochs decide.
public enum NexusOutcome<Answer> {
    /// The owner answered.
    case answered(Answer)
    /// It was committed in an earlier epoch, and the answer was lost on its way (R4).
    case committedEarlier
    /// It was sent in an earlier epoch and was not committed, nor ever will be: ABORTED COMMAND (R6).
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
    /// The owner of the epoch that it was sent in hands the volume over: nothing was done in that epoch, nor will be (R9).
    case unexecuted
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
    enum State: Hashable {
        case serving
        case locating
        case proving
        case resuming
        case ended
    }

    struct Outstanding {
        var request: Request
        /// Whether it changes the volume: such a command is never sent in two epochs (R6), unless the first one's owner refused it
        /// unexecuted (R9).
        var isChange: Bool
        var deadline: MonotonicTime
        /// The epoch in which it was last sent; nil where it never was, or was refused unexecuted there.
        var sentIn: Epoch?
        /// The epoch whose owner refused it unexecuted: it is sent in the next one, or never (R9).
        var unexecutedIn: Epoch?
        /// Its owner has handed the volume over, and its answer is still to come: whether it was executed (R9).
        var isAwaited = false
        /// Waits for a newer proof before it is sent again.
        var isUnproved = false
        /// How often it was sent; only the answer to the last time counts.
        var attempt: UInt32 = 0
        /// The proof that it is sent with. A change keeps that of its arrival as long as the owner takes it: so the owner can tell
        /// it from one that came behind a reset, however late it is sent.
        var proof: Stamp
        /// Whether an earlier attempt in this epoch has no answer: then not even `unproved` says that nothing was done (R6).
        var mayHaveRun = false
    }

    /// The volume.
    public let volume: VolumeID
    /// The nexus's number.
    public let nexus: NexusNumber
    private(set) var state = State.serving
    private(set) var epoch: Epoch
    /// The epoch in which the owner knows the nexus as open: commands are sent in no other (R2, R6).
    private var openEpoch: Epoch
    private var proved: Stamp
    /// What the nexus was first to be taken up again with in the newest epoch: the proof of all that waited for that. What another
    /// nexus aborted since is so told from what came behind it (R6), also where the owner took the nexus up long before its answer
    /// arrives here.
    private var resumedWith: Stamp
    private var outstanding: [CommandID: Outstanding] = [:]
    private var order: Deque<CommandID> = []
    private var next = CommandID(1)
    /// Commands from this one on were never sent.
    private var neverSent = CommandID(1)
    private var actions: Deque<NexusAction<Request, Answer>> = []
    /// The newest epoch whose owner refused something unexecuted.
    private var handedOver: Epoch?
    /// Until when answers of that owner are awaited, once the next epoch serves; nil: no time has passed since, or there are none.
    private var awaitedUntil: MonotonicTime?

    // Evidence on its way to be proved, oldest first.
    private var evidence: Deque<(token: UInt64, stamp: Stamp)> = []
    private var nextToken: UInt64 = 1
    private var latest: Stamp

    /// A nexus that was opened with a stamp, which the login itself proves.
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
    public mutating func nextAction() -> NexusAction<Request, Answer>? { actions.popFirst() }

    /// Whether commands of this epoch are sent now.
    public func isServing(_ epoch: Epoch) -> Bool { state == .serving && epoch == self.epoch }

    /// Commands without an answer.
    public var outstandingCount: Int { outstanding.count }

    /// Every command below this one is answered.
    private mutating func lowWater() -> CommandID {
        while let first = order.first, outstanding[first] == nil { order.removeFirst() }
        return order.first ?? next
    }

    // MARK: Commands

    /// Takes a command of the initiator.
    ///
    /// - Returns: its id in the nexus, by which task management names it.
    public mutating func submit(_ request: Request, isChange: Bool, deadline: MonotonicTime) -> CommandID {
        let id = next
        next = CommandID(id.rawValue + 1)
        outstanding[id] = Outstanding(request: request, isChange: isChange, deadline: deadline, proof: proved)
        order.append(id)
        if state == .serving { sendNew() }
        return id
    }

    /// Sends commands that were never sent, as far as the window reaches: the owner keeps answers from the low-water mark on,
    /// and one command without an answer holds the mark.
    private mutating func sendNew() {
        while state == .serving, neverSent < next {
            // Some may have been given up before they were sent.
            neverSent = max(neverSent, lowWater())
            guard neverSent < next else { return }
            guard neverSent.rawValue - lowWater().rawValue < NexusClientLimits.idsAheadMaximum else { return }
            let id = neverSent
            neverSent = CommandID(id.rawValue + 1)
            if outstanding[id] != nil { send(id) }
        }
    }

    /// Sends everything without an answer again that had been sent, then what is new.
    private mutating func sendAgain() {
        for id in order where id < neverSent {
            guard let command = outstanding[id], !command.isAwaited else { continue }
            send(id)
        }
        sendNew()
    }

    /// What a message about commands of the nexus carries (task management).
    public mutating func context() -> CommandContext {
        CommandContext(volume: volume, nexus: nexus, command: next, lowWater: lowWater(), proved: proved)
    }

    private mutating func send(_ id: CommandID) {
        guard var command = outstanding[id] else { return }
        if command.sentIn == epoch, !command.isUnproved { command.mayHaveRun = true }
        command.sentIn = epoch
        if !command.isChange || command.isUnproved {
            command.proof = proved
        } else if command.proof.epoch != epoch {
            command.proof = resumedWith
        }
        command.unexecutedIn = nil
        command.attempt += 1
        command.isUnproved = false
        outstanding[id] = command
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
    public mutating func answered(_ id: CommandID, attempt: UInt32, _ disposition: NexusDisposition<Answer>) {
        guard state != .ended, var command = outstanding[id], command.attempt == attempt else { return }
        switch disposition {
        case .unproved, .ownerLost, .notSent, .nexusClosed:
            // The last word of an owner that has handed the volume over: the next one serves already.
            if command.isAwaited { return abort(id, command.request) }
        case .final, .refused, .unexecuted: break
        }
        switch disposition {
        case .final(let answer, let stamp):
            if let stamp { stampArrived(stamp) }
            complete(id, command.request, answer)
        case .refused(let answer, let stamp):
            if let stamp, stamp.isNewer(than: latest) { take(stamp) }
            complete(id, command.request, answer)
        case .unproved(let stamp):
            if let stamp { stampArrived(stamp) }
            command.isUnproved = true
            outstanding[id] = command
            if state == .serving, proved.isNewer(than: command.proof) {
                // The initiator has proved more while this was on its way.
                send(id)
            } else {
                actions.append(.ping)
            }
        case .ownerLost: ownerLost()
        case .unexecuted: refusedUnexecuted(id, command)
        case .notSent where !command.mayHaveRun: refusedUnexecuted(id, command)
        case .notSent: ownerLost()
        case .nexusClosed: end("the nexus was closed by its owner")
        }
    }

    private mutating func refusedUnexecuted(_ id: CommandID, _ refused: Outstanding) {
        var command = refused
        let sentIn = command.sentIn
        command.sentIn = nil
        command.unexecutedIn = sentIn
        command.isUnproved = false
        command.mayHaveRun = false
        command.isAwaited = false
        outstanding[id] = command
        if let sentIn, sentIn > handedOver ?? Epoch(0) { handedOver = sentIn }
        guard state == .serving else { return }
        // A later epoch may have been found already.
        if sentIn == epoch { ownerLost() } else if refused.isAwaited { send(id) }
    }

    private mutating func abort(_ id: CommandID, _ request: Request) {
        outstanding[id] = nil
        actions.append(.complete(request, .aborted))
        sendNew()
    }

    private mutating func complete(_ id: CommandID, _ request: Request, _ answer: Answer) {
        outstanding[id] = nil
        actions.append(.complete(request, .answered(answer)))
        sendNew()
    }

    /// Forgets a command that task management has ended; its answer, if one comes, goes nowhere.
    public mutating func forget(_ id: CommandID) {
        outstanding[id] = nil
        sendNew()
    }

    // MARK: Evidence (R1)

    /// A stamp of the owner arrived, with an answer or by itself.
    public mutating func stampArrived(_ stamp: Stamp) {
        guard state != .ended, stamp.isNewer(than: latest) else { return }
        // A few a second are enough: each one costs the connection machine a look at every PDU that follows.
        let isOtherEpoch = stamp.epoch != latest.epoch
        guard isOtherEpoch || stamp.time.nanoseconds(since: latest.time) >= NexusClientLimits.stampInterval else {
            return
        }
        take(stamp)
    }

    private mutating func take(_ stamp: Stamp) {
        latest = stamp
        if evidence.count >= NexusClientLimits.evidenceMaximum { evidence.removeLast() }
        evidence.append((nextToken, stamp))
        actions.append(.stampArrived(token: nextToken))
        nextToken += 1
    }

    /// The initiator has proved that it received something sent after the evidence `token` arrived.
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
        for id in order where outstanding[id]?.isUnproved == true { send(id) }
    }

    // MARK: Owner

    /// The owner cannot be reached, or is the owner no more.
    public mutating func ownerLost() {
        guard state != .ended, state != .locating else { return }
        state = .locating
        actions.append(.locate)
    }

    private mutating func resume() {
        state = .resuming
        if resumedWith.epoch != proved.epoch { resumedWith = proved }
        actions.append(.resume(nexus, proved))
    }

    /// The owner was found, with a stamp of the epoch that it serves.
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

    /// The owner took the nexus up again: commands in `done` are durable, others of earlier epochs never will be (R2, R6).
    public mutating func resumed(done: [CommandID], _ stamp: Stamp) {
        // An answer of an earlier epoch may come late.
        guard state == .resuming, stamp.epoch == epoch else { return }
        state = .serving
        openEpoch = epoch
        stampArrived(stamp)
        let durable = Set(done)
        awaitedUntil = nil
        for id in Array(order) {
            guard let command = outstanding[id], command.isChange, isOver(command) else { continue }
            if isAnswerDue(command), !durable.contains(id) {
                outstanding[id]?.isAwaited = true
                continue
            }
            outstanding[id] = nil
            let outcome: NexusOutcome<Answer> = durable.contains(id) ? .committedEarlier : .aborted
            actions.append(.complete(command.request, outcome))
        }
        sendAgain()
    }

    /// Whether a change can be sent no more: its outcome in an earlier epoch is not known, or it was refused there and another epoch
    /// has been since, in which it may have been aborted (R6, R9).
    private func isOver(_ command: Outstanding) -> Bool {
        if let sentIn = command.sentIn { return sentIn < epoch }
        guard let unexecutedIn = command.unexecutedIn else { return false }
        return unexecutedIn.rawValue + 1 < epoch.rawValue
    }

    /// Whether the owner that handed the volume over still has to say what became of a command: it answers all that it gets.
    private func isAnswerDue(_ command: Outstanding) -> Bool {
        guard let sentIn = command.sentIn, sentIn == handedOver, !command.isUnproved else { return false }
        return sentIn.rawValue + 1 == epoch.rawValue
    }

    /// Gives up waiting for answers that do not come.
    private mutating func expireAwaited(now: MonotonicTime) {
        let awaited = order.filter { outstanding[$0]?.isAwaited == true }
        guard !awaited.isEmpty else { return }
        guard let until = awaitedUntil else {
            awaitedUntil = now.advanced(byNanoseconds: NexusClientLimits.lastAnswers)
            return
        }
        guard now >= until else { return }
        for id in awaited {
            if let command = outstanding[id] { abort(id, command.request) }
        }
    }

    /// The owner did not take the nexus up again.
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
    public mutating func tick(now: MonotonicTime, giveUp: @autoclosure () -> Answer) {
        guard state != .ended else { return }
        expireAwaited(now: now)
        for id in Array(order) {
            guard let command = outstanding[id], !command.isAwaited, command.deadline <= now else { continue }
            if command.sentIn == nil || !command.isChange || (command.isUnproved && !command.mayHaveRun) {
                outstanding[id] = nil
                actions.append(.complete(command.request, .answered(giveUp())))
            } else {
                // Its outcome is not known: only silence is true (R6).
                return end("a command's outcome is not known within the deadline")
            }
        }
        sendNew()
    }

    private mutating func end(_ reason: String) {
        guard state != .ended else { return }
        state = .ended
        outstanding = [:]
        actions.append(.drop(reason: reason))
    }

    /// Ends the nexus's client: logout, or the connection is gone.
    public mutating func close() {
        state = .ended
        outstanding = [:]
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
    /// How long answers of an owner that has handed the volume over are awaited, in nanoseconds.
    public static let lastAnswers: UInt64 = 1_000_000_000
    /// Evidence on its way to be proved.
    public static let evidenceMaximum = 256
}

extension NexusClient.Outstanding: Sendable where Request: Sendable {}
extension NexusClient: Sendable where Request: Sendable, Answer: Sendable {}
extension NexusAction: Sendable where Request: Sendable, Answer: Sendable {}
extension NexusOutcome: Sendable where Answer: Sendable {}
extension NexusDisposition: Sendable where Answer: Sendable {}
