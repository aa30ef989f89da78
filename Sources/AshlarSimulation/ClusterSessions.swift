import AshlarCore
import AshlarTestSupport
import NIOCore
import Ownership

/// One attempt of an initiator to do something: what the checker sees.
struct ClusterOperation {
    enum Fate: Hashable {
        /// Not known: it may take effect until `latest`.
        case open
        /// It took effect, before `latest`.
        case done
        /// It was refused, and never takes effect.
        case never
    }

    var isRead: Bool
    var firstSector: Int
    var count: Int
    /// The value written to each sector, or read from it.
    var values: [UInt64]
    /// What a COMPARE AND WRITE expected in each sector.
    var expected: [UInt64]?
    var begun: UInt64
    var latest: UInt64 = .max
    var fate = Fate.open
    /// The ports that it went through.
    var ports = 0
    /// A copy of these sectors to the place of its initiator, which nobody else writes; or a read of that place, which shows
    /// what they were when the copy was made.
    var isOfCopy = false
    /// What it does to reservations, in place of blocks.
    var reservation: ClusterReservation?
    /// It resets the unit, in place of all that.
    var isReset = false
    /// It was not done because it reported a unit attention condition.
    var isExcused = false
    /// Why it was not done.
    var refusal: Refusal?
}

struct ClusterRequest {
    var operation: Int
    var command: CommandOperation
    /// What it does in place of the command.
    var management: UnitManagement?
}

enum ClusterAnswer {
    case done
    case read([ReadRun], [ByteBuffer])
    case miscompare
    case failed(Refusal)
}

/// An initiator and what it has seen.
final class Initiator {
    let index: Int
    var session: ClusterSession?
    var port: UInt16 = 1
    var login = 0
    var isAsleepUntil: UInt64 = 0
    /// What the last whole read of each sector returned.
    var seen: [Int: UInt64] = [:]
    /// The last copy to the initiator's own place.
    var copy: Int?
    /// Reads of that place that are under way.
    var readsOfCopy = 0
    /// No command goes out through another port before this time (R7).
    var notBefore: UInt64 = 0
    /// Through which target each of its ports was opened last.
    var targets: [UInt16: Int] = [:]
    init(index: Int) { self.index = index }
}

/// An iSCSI session as its target has it: it goes on, without proofs, when its initiator has gone.
final class ClusterSession {
    let initiator: Initiator
    /// Initiator and target port, as a number.
    let ports: Int
    var client: NexusClient<ClusterRequest, ClusterAnswer>
    var server: Int?
    /// Grows when the connection to the owner breaks.
    var connection = 0
    var isInitiatorGone = false
    var isEnded = false
    var inFlight: [CommandID: Int] = [:]
    /// When the initiator last received something.
    var received: UInt64
    /// What every message of the target's takes longer, in nanoseconds.
    var extraDelay: UInt64 = 0
    /// Whether it is getting rid of a reservation that is in its way.
    var isClearing = false
    /// Reads whose slots are being fetched, by their operations.
    var reads: [Int: ClusterRead] = [:]
    /// Whether it looks for the owner, or for its nexus there.
    var isBetweenOwners = false

    init(
        initiator: Initiator,
        ports: Int,
        client: NexusClient<ClusterRequest, ClusterAnswer>,
        server: Int,
        now: UInt64
    ) {
        self.initiator = initiator
        self.ports = ports
        self.client = client
        self.server = server
        received = now
    }
}

extension Cluster {
    /// Sessions of initiators that are there; those of gone ones look after themselves.
    var sessions: [ClusterSession] { initiators.compactMap(\.session) }

    // MARK: Login

    /// Ends the session of an initiator, as far as that can tell, and logs in again.
    func login(_ initiator: Initiator) {
        initiator.session?.isInitiatorGone = true
        initiator.session = nil
        initiator.readsOfCopy = 0
        initiator.login += 1
        open(initiator, login: initiator.login)
    }

    private func again(_ initiator: Initiator, _ login: Int, after pause: UInt64) {
        after(pause) { if initiator.login == login { self.open(initiator, login: login) } }
    }

    private func open(_ initiator: Initiator, login: Int) {
        guard now >= initiator.notBefore else { return again(initiator, login, after: initiator.notBefore - now) }
        let index = anyServer(for: initiator)
        let volume = Self.volume
        let ports = InitiatorTargetNexus(
            initiatorName: "i\(initiator.index)",
            isid: defect == .reinstatementMissed ? UInt64(login) : 1,
            portalGroupTag: initiator.port
        )
        // A balancer sends a session to any node of a portal group.
        let target = generator.below(3)
        var isAnswered = false
        request(index) {
            $0.lookUp($1, volume: volume, now: $2)
        } answer: { [self] answer in
            guard initiator.login == login, !isAnswered else { return }
            guard case .volume = answer else {
                isAnswered = true
                return again(initiator, login, after: 50_000_000)
            }
            request(index) {
                $0.openNexus($1, volume: volume, ports: ports, node: "t\(target)", now: $2)
            } answer: { answer in
                guard initiator.login == login, !isAnswered else { return }
                isAnswered = true
                guard case .nexusOpened(let number, let stamp) = answer else {
                    return self.again(initiator, login, after: 20_000_000)
                }
                if let former = initiator.targets.updateValue(target, forKey: ports.portalGroupTag), former != target {
                    self.count("reinstatement through another node")
                }
                let portNumber = initiator.index * Cluster.portsOfInitiator + Int(ports.portalGroupTag)
                self.opened(initiator, portNumber, number, stamp, at: index)
            }
        }
        after(5_000_000_000) { [self] in
            guard initiator.login == login, !isAnswered else { return }
            isAnswered = true
            open(initiator, login: login)
        }
    }

    private func opened(
        _ initiator: Initiator,
        _ ports: Int,
        _ number: NexusNumber,
        _ stamp: Stamp,
        at index: Int
    ) {
        // I4: what the initiator sent before takes effect before what it sends from now on, or never.
        for index in operations.indices where operations[index].fate == .open && isOf(initiator, index) {
            operations[index].latest = min(operations[index].latest, now)
        }
        owners = owners.filter { $0.value != initiator.index }
        let session = ClusterSession(
            initiator: initiator,
            ports: ports,
            client: NexusClient(volume: Self.volume, nexus: number, opened: stamp),
            server: index,
            now: now
        )
        initiator.session = session
        idle(session)
    }

    private func isOf(_ initiator: Initiator, _ operation: Int) -> Bool { owners[operation] == initiator.index }

    private func idle(_ session: ClusterSession) {
        after(250_000_000) { [self] in
            guard !session.isEnded else { return }
            session.client.tick(now: MonotonicTime(now), giveUp: .failed(.deadline))
            drain(session)
            stamp(session)
            tickDirect()
            tickThrough()
            idle(session)
        }
    }

    /// Asks the owner for its time, as a target does for all its sessions.
    private func stamp(_ session: ClusterSession) {
        guard let index = session.server else { return }
        let generation = servers[index].generation
        let connection = session.connection
        after(delay()) { [self] in
            guard servers[index].generation == generation else { return }
            onServer(index) { server in
                guard session.connection == connection, !session.isEnded else { return }
                if let stamp = server.core.currentStamp(of: Self.volume, now: MonotonicTime(self.now))?.0 {
                    session.client.stampArrived(stamp)
                } else {
                    session.client.ownerLost()
                }
                self.drain(session)
            }
        }
    }

    // MARK: Target

    func breakConnection(_ session: ClusterSession) {
        guard !session.isEnded else { return }
        session.isBetweenOwners = true
        if defect == .abortedTooSoon, !session.isInitiatorGone {
            for (id, operation) in session.inFlight where !operations[operation].isRead {
                operations[operation].fate = .never
                session.inFlight[id] = nil
                session.client.forget(id)
            }
        }
        session.server = nil
        session.connection += 1
        session.client.ownerLost()
        drain(session)
    }

    private func locate(_ session: ClusterSession) {
        let index = anyServer(for: session.initiator)
        var isAnswered = false
        let volume = Self.volume
        request(index) {
            $0.lookUp($1, volume: volume, now: $2)
        } answer: { [self] answer in
            guard !session.isEnded, !isAnswered else { return }
            isAnswered = true
            guard case .volume(_, let stamp) = answer else {
                return after(50_000_000) { if !session.isEnded { self.locate(session) } }
            }
            // The connection to an owner that has handed the volume over stands: its answers still come.
            if session.server == nil || session.server == index { session.connection += 1 }
            session.server = index
            session.client.ownerFound(stamp)
            drain(session)
        }
        after(1_000_000_000) { [self] in
            guard !isAnswered, !session.isEnded else { return }
            isAnswered = true
            locate(session)
        }
    }

    func drain(_ session: ClusterSession) {
        while !session.isEnded, let action = session.client.nextAction() { run(action, session) }
    }

    private func run(_ action: NexusAction<ClusterRequest, ClusterAnswer>, _ session: ClusterSession) {
        switch action {
        case .send(let id, let attempt, let request, let context): send(id, attempt, request, context, session)
        case .complete(let request, let outcome): complete(request, outcome, session)
        case .stampArrived(let token):
            if defect == .resumedUnproved, session.isBetweenOwners {
                after(delay()) { self.proved(token, session) }
            } else {
                prove(token, session)
            }
        case .ping: break
        case .resume(let number, let stamp): resume(number, stamp, session)
        case .locate:
            session.isBetweenOwners = true
            locate(session)
        case .drop:
            count("drop")
            session.isEnded = true
            if session.initiator.session === session { login(session.initiator) }
        }
    }

    func send(
        _ id: CommandID,
        _ attempt: UInt32,
        _ request: ClusterRequest,
        _ context: CommandContext,
        _ session: ClusterSession,
        throughCache: Bool = false
    ) {
        guard let index = session.server else { return session.client.ownerLost() }
        if !throughCache, takeDirect(id, attempt, request, context, session) { return }
        let place = throughCache ? nil : takeThrough(id, attempt, request, context, session)
        // So that now and then its object is there first.
        let pause = place != nil && generator.below(5) == 0 ? UInt64(generator.below(40)) * 1_000_000 : 0
        let connection = session.connection
        let command = request.command
        // What was on its way when a connection broke arrives all the same, or not.
        let isLost = generator.chance(50)
        let rewrites = defect == .epochsRewritten
        let generation = servers[index].generation
        after(delay() + session.extraDelay + pause) { [self] in
            guard servers[index].generation == generation, session.connection == connection || !isLost else { return }
            onServer(index) { server in
                let ticket = Ticket(server.nextTicket)
                server.nextTicket += 1
                server.tickets[ticket] = { [self] answer in
                    guard session.connection == connection, !session.isEnded else { return }
                    if case .refused(.stale, _) = answer {
                        // It met itself on its way through an object.
                        count("stale write")
                        return send(id, attempt, request, context, session, throughCache: true)
                    }
                    session.client.answered(id, attempt: attempt, disposition(answer))
                    drain(session)
                }
                var context = context
                if self.defect == .resentUnderNewNumbers, attempt > 1 {
                    context.command = CommandID(id.rawValue + 2_000 + 100 * UInt64(attempt))
                }
                let now = MonotonicTime(self.now)
                if rewrites, let current = server.core.currentStamp(of: Self.volume, now: now)?.0 {
                    context.proved = current
                }
                let deadline = now.advanced(byNanoseconds: 20_000_000_000)
                if let function = request.management {
                    server.core.manage(ticket, context: context, function: function, deadline: deadline, now: now)
                    guard self.defect == .transitForgotten else { return }
                    for nexus in server.core.owned(Self.volume)?.nexuses.values.map({ $0 }) ?? [] {
                        nexus.abortedAt = nil
                    }
                    return
                }
                if place != nil, self.defect == .overtakenMapped {
                    server.core.owned(Self.volume)?.direct.forgetChanges()
                }
                server.core.submit(
                    ticket,
                    context: context,
                    operation: command,
                    through: place,
                    deadline: deadline,
                    now: now
                )
            }
        }
    }

    /// The initiator answers something that was sent after the evidence arrived, unless it sleeps or has gone.
    private func prove(_ token: UInt64, _ session: ClusterSession) {
        if defect == .proofsWithoutInitiator {
            return after(delay()) { self.proved(token, session) }
        }
        let wake = max(session.initiator.isAsleepUntil, now) - now
        after(wake + delay()) { [self] in
            guard !session.isInitiatorGone else { return }
            session.received = now
            after(delay()) { self.proved(token, session) }
        }
    }

    private func proved(_ token: UInt64, _ session: ClusterSession) {
        guard !session.isEnded else { return }
        session.client.proved(token: token)
        drain(session)
    }

    private func resume(_ number: NexusNumber, _ stamp: Stamp, _ session: ClusterSession) {
        guard let index = session.server else { return session.client.ownerLost() }
        count("resume")
        var isAnswered = false
        request(index) { [self] in
            forgetAborts(of: number, in: $0)
            $0.resumeNexus($1, volume: Self.volume, nexus: number, proved: stamp, now: $2)
        } answer: { [self] answer in
            guard !session.isEnded, !isAnswered else { return }
            isAnswered = true
            switch answer {
            case .nexusResumed(let done, let aborted, let stamp):
                count("resumed")
                session.isBetweenOwners = false
                session.client.resumed(done: done, aborted: aborted, stamp)
            case .refused(.unproved, let stamp):
                count("resume unproved")
                session.client.resumeRefused(unproved: stamp)
            case .refused(.nexusClosed, _): session.client.resumeRefused(unproved: nil)
            default: session.client.ownerLost()
            }
            drain(session)
        }
        after(2_000_000_000) { [self] in
            guard !session.isEnded, !isAnswered else { return }
            isAnswered = true
            session.client.ownerLost()
            drain(session)
        }
    }

    func disposition(_ answer: OwnerAnswer) -> NexusDisposition<ClusterAnswer> {
        switch answer {
        case .done(let stamp): .final(.done, stamp)
        case .read(let stamp, let runs, let payload): .final(.read(runs, payload), stamp)
        case .miscompare(let stamp, _): .final(.miscompare, stamp)
        case .refused(.unproved, let stamp): lapsed(stamp)
        case .refused(.wrongEpoch, _), .refused(.notOwner, _): .ownerLost
        case .refused(.nexusClosed, _): .nexusClosed
        case .refused(let refusal, let stamp): .refused(.failed(refusal), stamp)
        default: .final(.failed(.invalid("unexpected answer")), nil)
        }
    }

    private func lapsed(_ stamp: Stamp?) -> NexusDisposition<ClusterAnswer> {
        count("nexus lapse")
        return .unproved(stamp)
    }

    // MARK: Workload

    func work(_ initiator: Initiator) {
        after(UInt64(generator.below(thinkMicroseconds)) * 1_000) { [self] in
            if let session = initiator.session, mood != .still {
                if session.inFlight.count < (isAlone(session) ? 32 : 4) { issue(session) }
                if mood == .rough { disturb(session) }
            }
            work(initiator)
        }
    }

    /// Who is alone with an isolated server reads, and a lot: a write would never end, nor a read behind one.
    private func isAlone(_ session: ClusterSession) -> Bool {
        session.initiator.index == 0 && (isolated?.until ?? 0) > now
    }

    private func disturb(_ session: ClusterSession) {
        let initiator = session.initiator
        switch generator.below(1_600) {
        case 0..<4:
            initiator.isAsleepUntil = now + UInt64(generator.below(7_000)) * 1_000_000
            count("sleep")
        case 24..<26: killTarget(session)
        case 4, 5:
            // The path breaks and the initiator comes back, with what was in flight unanswered (R3).
            count("relogin")
            login(initiator)
        case 6, 7: reset(session)
        case 18..<24:
            goToOtherPort(session, isTargetSlow: generator.chance(50))
            if generator.chance(50) { breakConnection(session) }
        case 8..<12:
            count("broken connection")
            breakConnection(session)
        case 12..<18: fence(session)
        default: break
        }
    }

    /// An initiator goes to another port, no sooner than R7 says; its first target does not know.
    func goToOtherPort(_ session: ClusterSession, isTargetSlow: Bool, isSlowOnce: Bool = false) {
        let initiator = session.initiator
        count("other port")
        initiator.port = 3 - initiator.port
        initiator.notBefore = defect == .portsTooSoon ? now : session.received + Self.timeToLive + 1_000_000
        if isTargetSlow {
            // What the initiator sent last is late.
            session.extraDelay = UInt64(generator.below(12_000)) * 1_000_000
            for _ in 0..<2 { issue(session) }
            if isSlowOnce || generator.chance(50) { session.extraDelay = 0 }
        }
        login(initiator)
    }

    /// A target ends with its sessions: what it had sent arrives, what it had not never does (I9).
    func killTarget(_ session: ClusterSession) {
        count("target: kill")
        session.isEnded = true
        if session.initiator.session === session { login(session.initiator) }
    }

    /// Takes commands back; after the answer they do not happen any more (R6).
    private func fence(_ session: ClusterSession) {
        guard let index = session.server, !session.inFlight.isEmpty else { return }
        let isAll = generator.chance(30)
        let chosen = isAll ? [] : Array(session.inFlight.keys.sorted().prefix(1 + generator.below(2)))
        let context = session.client.context()
        count("fence")
        request(index) {
            $0.fence($1, context: context, commands: chosen, now: $2)
        } answer: { [self] answer in
            guard !session.isEnded, case .done = answer else { return }
            for (id, operation) in session.inFlight.sorted(by: { $0.key < $1.key })
            where isAll ? id < context.command : chosen.contains(id) {
                operations[operation].latest = min(operations[operation].latest, now)
                owners[operation] = nil
                session.inFlight[id] = nil
                session.client.forget(id)
            }
            drain(session)
        }
    }

    /// Aborts the commands of all initiators; after the answer none that began before happens any more (R6).
    func reset(_ session: ClusterSession) {
        count("reset")
        var operation = ClusterOperation(isRead: false, firstSector: 0, count: 0, values: [], begun: now)
        operation.isReset = true
        let isClearing = generator.chance(50)
        submit(
            operation,
            .check(CommandRules(access: .any), reservations: false),
            session,
            management: isClearing ? .clearTaskSet : .logicalUnitReset
        )
    }

    func issue(_ session: ClusterSession) {
        if hasReservations, mood == .rough, !isAlone(session), generator.chance(4) {
            return issueReservation(session)
        }
        if !isAlone(session), generator.chance(12), issueCopy(session) { return }
        var window = generator.below(Self.windows)
        // Now and then also where nothing is.
        if window == Self.tail, !hasTail, generator.chance(80) { window = generator.below(Self.tail) }
        var count = 1 + generator.below(generator.chance(70) ? 6 : sectorsInWindow - 1)
        var first = window * sectorsInWindow + generator.below(sectorsInWindow - count + 1)
        var operation = ClusterOperation(isRead: false, firstSector: first, count: count, values: [], begun: now)
        let command: CommandOperation
        let dice = isAlone(session) ? 0 : generator.below(100)
        if dice < 45 {
            operation.isRead = true
            command = .read(range(first, count))
        } else if dice < 57 {
            if window < Self.tail, generator.chance(20) {
                // Across windows, and what lies between them.
                first = window * sectorsInWindow
                count = (1 + generator.below(Self.tail - window)) * sectorsInWindow
            }
            operation.firstSector = first
            operation.count = count
            operation.values = Array(repeating: 0, count: count)
            command = .zero(zeroRanges(first, count))
        } else if dice < 67, let expected = session.initiator.expectation(first, min(count, 3)) {
            operation.count = expected.count
            operation.expected = expected
            operation.values = Array(repeating: takeValue(), count: expected.count)
            command = compareAndWrite(first, expected, operation.values)
        } else {
            (first, count) = placeOfWrite(first, count, session)
            (operation.firstSector, operation.count) = (first, count)
            operation.values = Array(repeating: takeValue(), count: count)
            command = write(first, operation.values)
        }
        submit(operation, command, session)
    }

    func submit(
        _ operation: ClusterOperation,
        _ command: CommandOperation,
        _ session: ClusterSession,
        management: UnitManagement? = nil
    ) {
        operations.append(operation)
        let number = operations.count - 1
        operations[number].ports = session.ports
        owners[number] = session.initiator.index
        let id = session.client.submit(
            ClusterRequest(operation: number, command: command, management: management),
            isChange: !operation.isRead,
            isManagement: management != nil,
            deadline: MonotonicTime(now + 20_000_000_000)
        )
        session.inFlight[id] = number
        if operation.isRead { readAtOnce(number, command, management, session) }
        drain(session)
    }

    private var hasTail: Bool {
        let regions = (store.description(of: Self.volume)?.geometry.blockCount ?? 0) / Limits.regionBlocks
        return regions > UInt64(Self.tail)
    }

    func takeValue() -> UInt64 {
        nextValue += 1
        return nextValue
    }

    private func range(_ first: Int, _ count: Int) -> ByteRange {
        let offset = offset(ofSector: first)
        let end = self.offset(ofSector: first + count - 1) + UInt64(Self.sectorBytes)
        return ByteRange(offset: offset, count: end - offset)
    }

    /// The same sectors in one range, or in two that meet somewhere, also inside a block.
    private func zeroRanges(_ first: Int, _ count: Int) -> [ByteRange] {
        guard count > 1, generator.chance(50) else { return [range(first, count)] }
        let cut = 1 + generator.below(count - 1)
        let left = range(first, cut)
        let whole = range(first, count)
        return [ByteRange(offset: left.end, count: whole.end - left.end), left]
    }

    private func bytes(_ values: [UInt64]) -> ByteBuffer {
        var bytes = ByteBuffer()
        for value in values {
            for _ in 0..<(Self.sectorBytes / 8) { bytes.writeInteger(value) }
        }
        return bytes
    }

    private func write(_ first: Int, _ values: [UInt64]) -> CommandOperation {
        let bytes = bytes(values)
        let offset = offset(ofSector: first)
        var checksums: [Checksum] = []
        var position = 0
        while position < bytes.readableBytes {
            let count = min(blockBytes - (Int(offset) + position) % blockBytes, bytes.readableBytes - position)
            checksums.append((bytes.getSlice(at: position, length: count) ?? ByteBuffer()).testChecksum)
            position += count
        }
        return .write(offset: offset, checksums: checksums, bytes: bytes)
    }

    private func compareAndWrite(_ first: Int, _ expected: [UInt64], _ values: [UInt64]) -> CommandOperation {
        let bytes = bytes(expected + values)
        return .compareAndWrite(offset: offset(ofSector: first), checksum: bytes.testChecksum, bytes: bytes)
    }
}

extension Initiator {
    /// What some sectors held when they were last seen.
    func expectation(_ first: Int, _ count: Int) -> [UInt64]? {
        let values = (first..<first + count).compactMap { seen[$0] }
        return values.count == count ? values : nil
    }
}
