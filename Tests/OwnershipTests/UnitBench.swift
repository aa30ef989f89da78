import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

// What tests of the logical unit's state need beside blocks.
extension Bench {
    /// Runs a test, then gives the volume up: no request may be left without an answer.
    static func checked(
        blocks: UInt64 = 2_048,
        configure: (inout OwnerConfiguration) -> Void = { _ in },
        sourceLocation: SourceLocation = #_sourceLocation,
        _ body: (Bench) throws -> Void
    ) throws {
        let bench = try Bench(blocks: blocks, configure: configure)
        try body(bench)
        bench.core.giveUp(volume, now: bench.now)
        bench.run()
        #expect(bench.unanswered.isEmpty, sourceLocation: sourceLocation)
        #expect(bench.core.parkedReads.isEmpty && bench.core.ready.isEmpty, sourceLocation: sourceLocation)
    }

    // MARK: Reservations

    @discardableResult
    func reservation(_ nexus: NexusNumber, _ action: ReservationAction, command: UInt64? = nil) -> Ticket {
        submit(nexus, .unit(.reservation(action)), command: command)
    }

    @discardableResult
    func register(_ nexus: NexusNumber, _ key: UInt64, old: UInt64 = 0, command: UInt64? = nil) -> Ticket {
        let port = TargetPort(portalGroupTag: 1, relativePortIdentifier: 1)
        let action = ReservationAction.register(
            ReservationKey(old),
            new: ReservationKey(key),
            ignoresExisting: false,
            others: [],
            targetPorts: [port]
        )
        return reservation(nexus, action, command: command)
    }

    @discardableResult
    func reserve(
        _ nexus: NexusNumber,
        _ key: UInt64,
        _ type: ReservationType = .writeExclusiveRegistrantsOnly
    ) -> Ticket {
        reservation(nexus, .reserve(ReservationKey(key), type))
    }

    @discardableResult
    func preempt(
        _ nexus: NexusNumber,
        _ key: UInt64,
        victim: UInt64,
        aborts: Bool = false,
        command: UInt64? = nil
    ) -> Ticket {
        let action = ReservationAction.preempt(
            ReservationKey(key),
            .writeExclusiveRegistrantsOnly,
            victim: ReservationKey(victim),
            aborts: aborts
        )
        return reservation(nexus, action, command: command)
    }

    /// Two registered nexuses with the keys 1 and 2, the first of which has reserved for registrants only.
    func reserved() throws -> (NexusNumber, NexusNumber) {
        let first = try #require(login("a"))
        let second = try #require(login("b"))
        #expect(isDone(register(first, 1)) && isDone(register(second, 2)) && isDone(reserve(first, 1)))
        return (first, second)
    }

    var durable: LogicalUnitState { store.unit(of: Bench.volume) ?? LogicalUnitState() }

    // MARK: Checks

    @discardableResult
    func check(
        _ nexus: NexusNumber,
        _ rules: CommandRules = CommandRules(access: .any),
        reservations: Bool = false,
        proved: Stamp? = nil,
        deadline: UInt64 = 20_000
    ) -> Ticket {
        submit(nexus, .check(rules, reservations: reservations), proved: proved, deadline: deadline)
    }

    func report(_ ticket: Ticket) -> UnitReport? {
        if case .checked(_, let report)? = answers[ticket] { report } else { nil }
    }

    /// The unit attention conditions that a nexus is told of, all at once.
    @discardableResult
    func attentions(_ nexus: NexusNumber) -> [UnitAttention] {
        var result: [UnitAttention] = []
        while let attention = report(check(nexus, CommandRules(access: .any, attention: .deliver)))?.attention {
            result.append(attention)
        }
        return result
    }

    /// The initiator has all answers so far.
    func confirm(_ nexus: NexusNumber) {
        let number = takeCommand(nexus, nil)
        submit(nexus, .check(CommandRules(access: .any), reservations: false), command: number, lowWater: number)
        advance(100 * Self.millisecond)
    }

    // MARK: Nexuses and epochs

    @discardableResult
    func close(_ nexus: NexusNumber) -> Ticket {
        let ticket = self.ticket()
        core.closeNexus(ticket, volume: Bench.volume, nexus: nexus, now: now)
        run()
        return ticket
    }

    /// Takes a nexus up again; the commands of it that are durable.
    @discardableResult
    func resume(_ nexus: NexusNumber) -> [CommandID]? { resumption(of: nexus)?.done }

    /// The same, and with what proof others came that were aborted.
    func resumption(of nexus: NexusNumber) -> (done: [CommandID], aborted: Stamp?)? {
        let ticket = self.ticket()
        core.resumeNexus(ticket, volume: Bench.volume, nexus: nexus, proved: stamp, now: now)
        run()
        guard case .nexusResumed(let done, let aborted, _)? = answers[ticket] else { return nil }
        return (done, aborted)
    }

    /// Ends the epoch and begins the next one.
    func takeOver(_ nexuses: NexusNumber...) {
        core.giveUp(Bench.volume, now: now)
        run()
        own()
        for nexus in nexuses { resume(nexus) }
    }

    /// Task management under a number of its own; later commands have higher ones.
    @discardableResult
    func manage(
        _ nexus: NexusNumber,
        _ function: UnitManagement,
        command: UInt64? = nil,
        proved: Stamp? = nil,
        deadline: UInt64 = 20_000
    ) -> Ticket {
        let number = takeCommand(nexus, command)
        let ticket = self.ticket()
        core.manage(
            ticket,
            context: context(nexus, number, proved: proved),
            function: function,
            deadline: now.advanced(byNanoseconds: deadline * Bench.millisecond),
            now: now
        )
        run()
        return ticket
    }

    func describe(_ change: (inout VolumeDescription) -> Void) throws {
        var description = try #require(owner?.description)
        change(&description)
        description.revision += 1
        store.describe(description)
        core.describe(description, now: now)
        run()
    }

    /// Lets the lease lapse; returns the youngest proof from before.
    func lapse() -> Stamp {
        losesRenewals = true
        advance(3_960 * Bench.millisecond)
        let proof = stamp
        advance(60 * Bench.millisecond)
        return proof
    }

    /// Renews a lease that has lapsed: nobody else took it.
    func renew() {
        losesRenewals = false
        let id = core.operation(.renew(asked: now))
        core.leaseRenewed(id, .success(true), now: now)
        run()
    }
}
