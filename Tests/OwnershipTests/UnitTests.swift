import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

@Suite("The logical unit: what keeps commands out, and what changes its state")
struct UnitTests {
    static let deliver = CommandRules(access: .any, attention: .deliver)
    static let bypass = CommandRules(access: .any, attention: .bypass)

    // MARK: What keeps commands out

    @Test("a conflict goes before a unit attention condition, and that before an erasure")
    func order() throws {
        try Bench.checked(blocks: 16_384) { bench in
            let (holder, _) = try bench.reserved()
            let stranger = try #require(bench.login("s"))
            bench.holdsCommits = true
            let pattern = [UInt8](repeating: 7, count: 512)
            let erasure = Erasure(kind: .overwrite, pattern: pattern)
            bench.submit(holder, .unit(.erase(erasure, isImmediate: true)))
            bench.releaseHeld()
            // The first step is being committed.
            try bench.describe { $0.isReadOnly = true }
            try bench.describe { $0.isReadOnly = false }
            let conflict = bench.submit(stranger, bench.write(0, 2_048, 1))
            let attention = bench.submit(stranger, bench.readOperation(0, 2_048))
            let erasing = bench.submit(stranger, bench.readOperation(0, 2_048))
            bench.releaseHeld()
            #expect(bench.refusal(conflict) == .reservationConflict)
            #expect(bench.refusal(attention) == .attention(.modeParametersChanged))
            guard case .erasing(.overwrite, let progress)? = bench.refusal(erasing) else {
                Issue.record("\(String(describing: bench.answers[erasing]))")
                return
            }
            #expect(progress == 16_384)
        }
    }

    @Test("R4: a unit attention condition is reported once, and again to a copy of the same command")
    func reportedOnce() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 1), command: 1)))
            try bench.describe { $0.iqn = "iqn.2026-01.io.ashlar:w" }
            for _ in 0..<2 {
                let write = bench.submit(nexus, bench.write(0, 2_048, 2), command: 2)
                #expect(bench.refusal(write) == .attention(.inquiryDataChanged))
            }
            #expect(bench.read(nexus, 0, 2_048)?.first == 1)
            for _ in 0..<2 {
                let read = bench.submit(nexus, bench.readOperation(0, 2_048), command: 2)
                #expect(bench.refusal(read) == .attention(.inquiryDataChanged))
            }
            #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 3))))
        }
    }

    @Test("what bypasses conditions leaves them, what delivers them takes one at a time, oldest first")
    func bypassAndDeliver() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            let geometry = try Geometry(sizeBytes: 4_096 * 2_048, blockSizeBytes: 2_048)
            try bench.describe {
                $0.geometry = geometry
                $0.isReadOnly = true
            }
            try bench.describe { $0.isReadOnly = false }
            #expect(bench.report(bench.check(nexus, Self.bypass))?.attention == nil)
            let told = bench.attentions(nexus)
            // The same condition does not wait twice.
            #expect(told == [.capacityChanged, .modeParametersChanged])
            #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 1))))
        }
    }

    @Test("a new description tells of what changed, and of nothing else")
    func descriptions() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            let geometry = try Geometry(sizeBytes: 4_096 * 2_048, blockSizeBytes: 2_048)
            let changes: [((inout VolumeDescription) -> Void, [UnitAttention])] = [
                ({ $0.geometry = geometry }, [.capacityChanged]), ({ $0.isReadOnly = true }, [.modeParametersChanged]),
                ({ $0.iqn = "iqn.2026-01.io.ashlar:w" }, [.inquiryDataChanged]),
                ({ $0.policy.compactBelowPercent = 11 }, []),
            ]
            for (change, told) in changes {
                try bench.describe(change)
                #expect(bench.attentions(nexus) == told)
            }
        }
    }

    @Test("conditions that were not reported survive a takeover, those that were do not, also on an idle volume")
    func conditionsAndTakeover() throws {
        try Bench.checked { bench in
            let first = try #require(bench.login("a"))
            let second = try #require(bench.login("b"))
            try bench.describe { $0.iqn = "iqn.2026-01.io.ashlar:w" }
            #expect(bench.attentions(first) == [.inquiryDataChanged])
            bench.confirm(first)
            bench.takeOver(first, second)
            #expect(bench.attentions(first) == [])
            #expect(bench.attentions(second) == [.inquiryDataChanged])
        }
    }

    @Test("conditions of a change and of what happened beside it are all durable, whichever commit ends last")
    func conditionsOfTwoCommits() throws {
        for order in [[0, 0], [1, 0]] {
            try Bench.checked { bench in
                let (holder, victim) = try bench.reserved()
                bench.holdsCommits = true
                let preempt = bench.preempt(holder, 1, victim: 2)
                try bench.describe { $0.iqn = "iqn.2026-01.io.ashlar:w" }
                #expect(bench.held.count == 2)
                for index in order { bench.release(at: index) }
                bench.holdsCommits = false
                bench.releaseHeld()
                #expect(bench.isDone(preempt))
                #expect(bench.attentions(holder) == [.inquiryDataChanged])
                #expect(bench.isDone(bench.submit(holder, bench.write(2_048, 2_048, 1))))
                bench.takeOver(holder, victim)
                #expect(Set(bench.attentions(victim)) == [.registrationsPreempted, .inquiryDataChanged])
            }
        }
    }

    @Test("R8: without the lease nothing is told of the unit's state, and nothing is done that needs no commit")
    func leaseLapse() throws {
        try Bench.checked { bench in
            let (holder, _) = try bench.reserved()
            let stranger = try #require(bench.login("s"))
            let commits = bench.commits.count
            let proof = bench.lapse()
            let check = bench.check(holder, reservations: true, proved: proof)
            let again = bench.submit(
                holder,
                .unit(.reservation(.reserve(ReservationKey(1), .writeExclusiveRegistrantsOnly))),
                proved: proof
            )
            let conflict = bench.submit(stranger, bench.write(0, 2_048, 1), proved: proof)
            let late = bench.check(holder, proved: proof, deadline: 50)
            let tickets = [check, again, conflict, late]
            #expect(tickets.allSatisfy { bench.answers[$0] == nil })
            bench.advance(60 * Bench.millisecond)
            #expect(bench.refusal(late) == .deadline)
            #expect([check, again, conflict].allSatisfy { bench.answers[$0] == nil })
            bench.renew()
            #expect(bench.report(check)?.state.reservations.type == .writeExclusiveRegistrantsOnly)
            #expect(bench.isDone(again) && bench.refusal(conflict) == .reservationConflict)
            #expect(bench.commits.count == commits)
            #expect(bench.report(bench.check(holder, reservations: true))?.state.reservations.registrations.count == 2)
        }
    }

    @Test("R8: a check that waits for the lease is answered when the volume is given up")
    func lapsedAndLost() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            let proof = bench.lapse()
            let check = bench.check(nexus, proved: proof)
            let change = bench.submit(nexus, .unit(.reserve), proved: proof)
            bench.core.giveUp(Bench.volume, now: bench.now)
            bench.run()
            #expect(bench.refusal(check) == .notOwner(nil) && bench.refusal(change) == .notOwner(nil))
        }
    }

    // MARK: Preempting

    @Test("a write that arrives while a preemption is being committed waits, and then conflicts")
    func arrivesMeanwhile() throws {
        try Bench.checked { bench in
            let (holder, victim) = try bench.reserved()
            bench.holdsCommits = true
            let preempt = bench.preempt(holder, 1, victim: 2)
            let write = bench.submit(victim, bench.write(0, 2_048, 2))
            let own = bench.submit(holder, bench.write(0, 2_048, 1))
            #expect([preempt, write, own].allSatisfy { bench.answers[$0] == nil })
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(preempt) && bench.isDone(own))
            #expect(bench.refusal(write) == .reservationConflict)
            #expect(bench.read(holder, 0, 2_048)?.first == 1)
            // The condition stays for the next command that no reservation keeps out.
            #expect(
                bench.refusal(bench.submit(victim, bench.readOperation(0, 512))) == .attention(.registrationsPreempted)
            )
        }
    }

    @Test("a write that waits or loads when a preemption becomes durable is refused", arguments: [false, true])
    func waitsOrLoads(aborts: Bool) throws {
        try Bench.checked { bench in
            let (holder, victim) = try bench.reserved()
            #expect(bench.isDone(bench.submit(holder, bench.write(0, 2_048, 1))))
            bench.holdsLoads = true
            bench.holdsCommits = true
            let first = bench.submit(holder, bench.write(0, 2_048, 3))
            let waiting = bench.submit(victim, bench.write(0, 2_048, 4))
            let loading = bench.submit(victim, bench.write(1_024 * 2_048, 2_048, 4))
            let reading = bench.submit(victim, bench.readOperation(1_024 * 2_048, 2_048))
            let preempt = bench.preempt(holder, 1, victim: 2, aborts: aborts)
            #expect(bench.held.count == 3)
            bench.release(at: 2)
            #expect(bench.isDone(preempt))
            let refusal: Refusal = aborts ? .taskAborted : .reservationConflict
            #expect(bench.refusal(waiting) == refusal && bench.refusal(loading) == refusal)
            #expect(aborts ? bench.refusal(reading) == .taskAborted : bench.answers[reading] == nil)
            bench.holdsLoads = false
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(first))
            #expect(bench.read(holder, 0, 2_048)?.first == 3)
            #expect(bench.read(holder, 1_024 * 2_048, 2_048)?.first == 0)
        }
    }

    @Test("a preemption is answered behind the victim's write that was being committed", arguments: [false, true])
    func isBeingCommitted(aborts: Bool) throws {
        try Bench.checked { bench in
            let (holder, victim) = try bench.reserved()
            bench.holdsCommits = true
            let write = bench.submit(victim, bench.write(0, 2_048, 2))
            let preempt = bench.preempt(holder, 1, victim: 2, aborts: aborts, command: 50)
            bench.release(at: 1)
            // Durable, and in force.
            #expect(bench.durable.reservations.registrations.count == 1)
            #expect(bench.refusal(bench.submit(victim, bench.write(0, 2_048, 3))) == .reservationConflict)
            #expect(bench.answers[preempt] == nil && bench.answers[write] == nil)
            // A copy waits along, and nothing is done twice.
            let copy = bench.preempt(holder, 1, victim: 2, aborts: aborts, command: 50)
            #expect(bench.answers[copy] == nil)
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(write) && bench.isDone(preempt) && bench.isDone(copy))
            #expect(bench.durable.reservations.generation == 3)
            #expect(bench.isDone(bench.preempt(holder, 1, victim: 2, aborts: aborts, command: 50)))
            #expect(bench.durable.reservations.generation == 3)
        }
    }

    @Test("a preemption that waits for a write whose outcome is unknown is refused with it, and durable")
    func waitsForUnknown() throws {
        try Bench.checked { bench in
            let (holder, victim) = try bench.reserved()
            bench.holdsCommits = true
            let write = bench.submit(victim, bench.write(0, 2_048, 2))
            let preempt = bench.preempt(holder, 1, victim: 2, aborts: true, command: 50)
            bench.release(at: 1)
            bench.holdsCommits = false
            bench.commitFailures = [(.unknownOutcome("planted"), isMade: false)]
            bench.releaseHeld()
            #expect(bench.refusal(write) == .notOwner(nil) && bench.refusal(preempt) == .notOwner(nil))
            bench.own()
            #expect(bench.resume(holder)?.contains(CommandID(50)) == true)
            #expect(bench.resume(victim) == [CommandID(1)])
            #expect(bench.refusal(bench.submit(victim, bench.write(0, 2_048, 3))) == .reservationConflict)
            #expect(bench.read(holder, 0, 2_048)?.first == 0)
        }
    }

    // MARK: Commits of changes

    @Test("a change whose commit is refused is made again, once")
    func refusedChange() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            bench.commitFailures = [(.refused("planted"), isMade: false), (.broken("planted"), isMade: false)]
            let register = bench.register(nexus, 1)
            let read = bench.submit(nexus, bench.readOperation(0, 2_048))
            #expect(bench.answers[register] == nil && bench.answers[read] == nil)
            bench.advance(500 * Bench.millisecond)
            #expect(bench.isDone(register) && bench.bytes(read) != nil)
            #expect(bench.durable.reservations.generation == 1)
        }
    }

    @Test("a change that cannot be committed in time is not done, and lets in what it held")
    func expiredChange() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            bench.commitFailures = Array(repeating: (.refused("planted"), isMade: false), count: 40)
            let register = bench.submit(nexus, .unit(.reserve), deadline: 1_000)
            let held = bench.check(nexus)
            let early = bench.check(nexus, deadline: 500)
            bench.advance(600 * Bench.millisecond)
            #expect(bench.refusal(early) == .deadline && bench.answers[held] == nil)
            bench.advance(500 * Bench.millisecond)
            #expect(bench.refusal(register) == .deadline)
            #expect(bench.report(held)?.state.reservedBy == nil)
        }
    }

    @Test("a change whose outcome is unknown ends the epoch, and the next one knows it", arguments: [false, true])
    func unknownChange(isMade: Bool) throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            bench.commitFailures = [(.unknownOutcome("planted"), isMade: isMade)]
            let register = bench.register(nexus, 1, command: 1)
            #expect(bench.refusal(register) == .notOwner(nil))
            bench.own()
            #expect(bench.resume(nexus) == (isMade ? [CommandID(1)] : []))
            let report = try #require(bench.report(bench.check(nexus, reservations: true)))
            #expect(report.state.reservations.registrations.count == (isMade ? 1 : 0))
            #expect(report.state.reservations.generation == (isMade ? 1 : 0))
        }
    }

    @Test("R4: a change that is sent again is done once, also where its first copy is being committed")
    func sentAgain() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            bench.holdsCommits = true
            let copies = (0..<3).map { _ in bench.register(nexus, 1, command: 1) }
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(copies.allSatisfy { bench.isDone($0) })
            #expect(bench.isDone(bench.register(nexus, 1, command: 1)))
            #expect(bench.durable.reservations.generation == 1)
            // What did nothing is answered alike, too.
            #expect(bench.refusal(bench.register(nexus, 2, old: 9, command: 2)) == .reservationConflict)
            #expect(bench.isDone(bench.register(nexus, 9, old: 1, command: 3)))
            #expect(bench.refusal(bench.register(nexus, 2, old: 9, command: 2)) == .reservationConflict)
            #expect(bench.durable.reservations.registrations.map(\.key) == [ReservationKey(9)])
        }
    }

    @Test("refusals of PERSISTENT RESERVE OUT arrive as they are")
    func refusals() throws {
        try Bench.checked { bench in
            let (holder, _) = try bench.reserved()
            let wrongType = bench.reservation(holder, .release(ReservationKey(1), .exclusiveAccess))
            #expect(bench.refusal(wrongType) == .invalidRelease)
            #expect(bench.refusal(bench.preempt(holder, 1, victim: 0)) == .invalidParameter(8))
            #expect(bench.refusal(bench.preempt(holder, 1, victim: 77)) == .reservationConflict)
        }
    }

    @Test("registrations and the reservation survive the end of their nexuses, and takeovers")
    func registrationsStay() throws {
        try Bench.checked { bench in
            let (holder, other) = try bench.reserved()
            bench.close(holder)
            let stranger = try #require(bench.login("s"))
            #expect(bench.refusal(bench.submit(stranger, bench.write(0, 2_048, 1))) == .reservationConflict)
            bench.takeOver(other, stranger)
            #expect(bench.refusal(bench.submit(stranger, bench.write(0, 2_048, 1))) == .reservationConflict)
            #expect(bench.isDone(bench.submit(other, bench.write(0, 2_048, 1))))
            // The same ports come back: the registration is theirs.
            let again = try #require(bench.login("a"))
            #expect(bench.isDone(bench.submit(again, bench.write(0, 2_048, 1))))
            let release = bench.reservation(again, .release(ReservationKey(1), .writeExclusiveRegistrantsOnly))
            #expect(bench.isDone(release))
            #expect(bench.attentions(other) == [.reservationsReleased])
            #expect(bench.isDone(bench.submit(stranger, bench.write(0, 2_048, 1))))
        }
    }

    @Test("a nexus that is closed while its change is being committed gets its answer, and others go on")
    func closedMeanwhile() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            bench.holdsCommits = true
            let register = bench.register(nexus, 1)
            let held = bench.check(nexus)
            let read = bench.submit(other, bench.readOperation(0, 2_048))
            bench.close(nexus)
            #expect(bench.refusal(held) == .nexusClosed && bench.answers[register] == nil)
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(register) && bench.bytes(read) != nil)
            #expect(bench.durable.reservations.registrations.count == 1)
            // One that has not begun to be committed never is.
            bench.holdsCommits = true
            for index in 0..<2 { bench.submit(other, bench.write(index * 2_048, 2_048, 1)) }
            let ready = bench.register(other, 2)
            bench.close(other)
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.refusal(ready) == .nexusClosed)
            #expect(bench.durable.reservations.registrations.count == 1)
        }
    }

    // MARK: RESERVE (6)

    @Test("RESERVE keeps all others out of what is not allowed, and ends with RELEASE of its holder alone")
    func reserveAndRelease() throws {
        try Bench.checked { bench in
            let holder = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            #expect(bench.isDone(bench.submit(holder, .unit(.reserve))))
            let commits = bench.commits.count
            #expect(bench.isDone(bench.submit(holder, .unit(.reserve))))
            #expect(bench.commits.count == commits)
            #expect(bench.refusal(bench.submit(other, bench.readOperation(0, 512))) == .reservationConflict)
            #expect(bench.refusal(bench.check(other)) == .reservationConflict)
            #expect(bench.refusal(bench.submit(other, .unit(.reserve))) == .reservationConflict)
            #expect(bench.refusal(bench.register(other, 1)) == .reservationConflict)
            #expect(bench.refusal(bench.register(holder, 1)) == .reservationConflict)
            let allowed = CommandRules(access: .any, isAllowedUnderReserve: true)
            #expect(bench.report(bench.check(other, allowed)) != nil)
            #expect(bench.isDone(bench.submit(other, .unit(.release))))
            #expect(bench.refusal(bench.submit(other, bench.readOperation(0, 512))) == .reservationConflict)
            #expect(bench.isDone(bench.submit(holder, bench.write(0, 2_048, 1))))
            #expect(bench.isDone(bench.submit(holder, .unit(.release))))
            #expect(bench.read(other, 0, 2_048)?.first == 1)
            // Registrations and RESERVE keep one another out.
            #expect(bench.isDone(bench.register(other, 1)))
            #expect(bench.refusal(bench.submit(other, .unit(.reserve))) == .reservationConflict)
            #expect(bench.refusal(bench.submit(holder, .unit(.release))) == .reservationConflict)
        }
    }

    @Test("RESERVE is answered behind others' commands that are being committed, and takes back what waits")
    func reserveMeanwhile() throws {
        try Bench.checked { bench in
            let holder = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            bench.holdsCommits = true
            let committing = bench.submit(other, bench.write(0, 2_048, 1))
            let waiting = bench.submit(other, bench.write(0, 2_048, 2))
            let reserve = bench.submit(holder, .unit(.reserve))
            bench.release(at: 1)
            #expect(bench.answers[reserve] == nil && bench.refusal(waiting) == .reservationConflict)
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(committing) && bench.isDone(reserve))
        }
    }

    @Test("R3: RESERVE ends with its nexus, and survives a takeover with it")
    func reserveAndNexus() throws {
        try Bench.checked { bench in
            var holder = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            #expect(bench.isDone(bench.submit(holder, .unit(.reserve))))
            bench.takeOver(holder, other)
            #expect(bench.refusal(bench.submit(other, bench.readOperation(0, 512))) == .reservationConflict)
            // A newer login between the same ports.
            holder = try #require(bench.login("a"))
            #expect(bench.read(other, 0, 2_048) != nil)
            #expect(bench.isDone(bench.submit(holder, .unit(.reserve))))
            #expect(bench.refusal(bench.check(other)) == .reservationConflict)
            bench.close(holder)
            #expect(bench.report(bench.check(other))?.state.reservedBy == nil)
            bench.takeOver(other)
            #expect(bench.report(bench.check(other))?.state.reservedBy == nil)
        }
    }

    // MARK: Mode parameters and identifying information

    @Test("MODE SELECT and SET IDENTIFYING INFORMATION tell the others where something changed")
    func tellOthers() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            var mode = ModeParameters()
            mode.isSoftwareWriteProtected = true
            #expect(bench.isDone(bench.submit(nexus, .unit(.modeSelect(mode, isSaved: false)))))
            #expect(bench.attentions(other) == [.modeParametersChanged])
            #expect(bench.refusal(bench.submit(other, bench.write(0, 2_048, 1))) == .softwareWriteProtected)
            #expect(bench.isDone(bench.submit(nexus, .unit(.modeSelect(mode, isSaved: false)))))
            #expect(bench.attentions(other).isEmpty)
            for kind in [IdentifyingInformationKind.peripheral, .text] {
                #expect(bench.isDone(bench.submit(nexus, .unit(.identify(kind, [1, 2])))))
                #expect(bench.attentions(other) == [.deviceIdentifierChanged])
                #expect(bench.isDone(bench.submit(nexus, .unit(.identify(kind, [1, 2])))))
                #expect(bench.attentions(other).isEmpty)
            }
            #expect(bench.attentions(nexus).isEmpty)
            bench.takeOver(nexus, other)
            let state = try #require(bench.report(bench.check(other, Self.bypass))).state
            #expect(state.mode == mode && state.savedMode == ModeParameters())
            #expect(state.identifyingInformation == [1, 2] && state.identifyingText == [1, 2])
        }
    }

    @Test("what was held or lingers is answered when the volume is lost")
    func lost() throws {
        try Bench.checked { bench in
            let (holder, victim) = try bench.reserved()
            bench.holdsCommits = true
            bench.submit(victim, bench.write(0, 2_048, 2))
            let lingering = bench.preempt(holder, 1, victim: 2, aborts: true, command: 100)
            bench.release(at: 1)
            let change = bench.register(holder, 5, old: 1, command: 101)
            let held = bench.check(holder)
            let reset = bench.manage(holder, .logicalUnitReset, command: 50)
            let tickets = [lingering, change, held, reset]
            #expect(tickets.allSatisfy { bench.answers[$0] == nil })
            bench.core.giveUp(Bench.volume, now: bench.now)
            bench.run()
            #expect(tickets.allSatisfy { bench.refusal($0) == .notOwner(nil) })
        }
    }
}
