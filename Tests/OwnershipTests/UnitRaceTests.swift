import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

@Suite("The logical unit: commands on their way, commits that are refused, erasures that meet changes")
struct UnitRaceTests {
    static let deliver = CommandRules(access: .any, attention: .deliver)
    static let pattern = [UInt8](repeating: 7, count: 512)
    /// Four steps of an overwrite.
    /// Blocks that one step of an overwrite writes.
    static let step = UInt64(Limits.transferMaximumBytes) / 2_048
    static let blocks = 4 * step

    private func overwrite(_ bench: Bench, _ nexus: NexusNumber, isImmediate: Bool = false) -> Ticket {
        let erasure = Erasure(kind: .overwrite, pattern: Self.pattern)
        return bench.submit(nexus, .unit(.erase(erasure, isImmediate: isImmediate)))
    }

    private func isOverwritten(_ bench: Bench, blocks: UInt64 = Self.blocks) -> Bool {
        let expected = ByteBuffer(repeating: 7, count: 2_048)
        return (0..<blocks).allSatisfy { block in
            guard case .bytes(let bytes) = bench.store.content(Bench.volume, BlockID(block)) else { return false }
            return bytes == expected
        }
    }

    // MARK: On their way

    @Test("R6: changes that are still on their way when another nexus resets the unit are aborted as they arrive")
    func resetMeetsTransit() throws {
        try Bench.checked { bench in
            let other = try #require(bench.login("a"))
            let own = try #require(bench.login("b"))
            let proof = bench.stamp
            bench.advance(1_000 * Bench.millisecond)
            #expect(bench.isDone(bench.manage(own, .logicalUnitReset)))
            let first = bench.submit(other, bench.write(0, 2_048, 1), proved: proof)
            #expect(bench.refusal(first) == .attention(.deviceReset))
            let second = bench.submit(other, bench.write(0, 2_048, 1), command: 50, proved: proof)
            #expect(bench.refusal(second) == .taskAborted)
            // A read finds what there is, and a copy of what was aborted stays so.
            #expect(bench.bytes(bench.submit(other, bench.readOperation(0, 2_048), proved: proof))?.first == 0)
            bench.advance(1_000 * Bench.millisecond)
            #expect(bench.refusal(bench.submit(other, bench.write(0, 2_048, 1), command: 50)) == .taskAborted)
            #expect(bench.isDone(bench.submit(other, bench.write(0, 2_048, 2))))
        }
    }

    @Test("R6: a change that was on its way for so long that it is unproved as well is not asked for again")
    func resetMeetsUnproved() throws {
        try Bench.checked { bench in
            let other = try #require(bench.login("a"))
            let own = try #require(bench.login("b"))
            let proof = bench.stamp
            bench.advance(1_000 * Bench.millisecond)
            #expect(bench.isDone(bench.manage(own, .clearTaskSet)))
            bench.advance(4_000 * Bench.millisecond)
            let write = bench.submit(other, bench.write(0, 2_048, 1), proved: proof)
            #expect(bench.refusal(write) == .taskAborted)
            let read = bench.submit(other, bench.readOperation(0, 2_048), proved: proof)
            #expect(bench.refusal(read) == .unproved)
            // Nothing of the nexus was known at the time: it is told once something has come.
            #expect(bench.attentions(other) == [.commandsCleared])
            let late = bench.submit(other, bench.write(0, 2_048, 1), proved: proof)
            #expect(bench.refusal(late) == .taskAborted && bench.attentions(other).isEmpty, "once")
        }
    }

    @Test("R6: a change that was refused as unproved before a reset is not done behind it, whatever is proved then")
    func resetMeetsRefused() throws {
        try Bench.checked { bench in
            let other = try #require(bench.login("a"))
            let own = try #require(bench.login("b"))
            let proof = bench.stamp
            bench.advance(5_000 * Bench.millisecond)
            for command in [UInt64(1), 2] {
                let write = bench.submit(other, bench.write(0, 2_048, 1), command: command, proved: proof)
                #expect(bench.refusal(write) == .unproved)
            }
            // The first comes again in time.
            #expect(bench.isDone(bench.submit(other, bench.write(0, 2_048, 1), command: 1)))
            #expect(bench.isDone(bench.manage(own, .clearTaskSet)))
            bench.advance(1_000 * Bench.millisecond)
            #expect(bench.refusal(bench.submit(other, bench.write(0, 2_048, 2), command: 2)) == .taskAborted)
            #expect(bench.isDone(bench.submit(other, bench.write(0, 2_048, 1), command: 1)))
            #expect(bench.read(own, 0, 2_048)?.first == 1)
        }
    }

    @Test("R6: PREEMPT AND ABORT aborts what is still on its way, PREEMPT does not", arguments: [false, true])
    func preemptMeetsTransit(aborts: Bool) throws {
        try Bench.checked { bench in
            let (holder, victim) = try bench.reserved()
            let proof = bench.stamp
            bench.advance(1_000 * Bench.millisecond)
            #expect(bench.isDone(bench.preempt(holder, 1, victim: 2, aborts: aborts)))
            #expect(bench.attentions(victim) == [.registrationsPreempted])
            func register() -> Ticket {
                let port = TargetPort(portalGroupTag: 1, relativePortIdentifier: 1)
                let action = ReservationAction.register(
                    ReservationKey(0),
                    new: ReservationKey(3),
                    ignoresExisting: true,
                    others: [],
                    targetPorts: [port]
                )
                return bench.submit(victim, .unit(.reservation(action)), proved: proof)
            }
            let late = register()
            #expect(aborts ? bench.refusal(late) == .taskAborted : bench.isDone(late))
        }
    }

    // MARK: Task management as a command

    @Test("R1: task management without a young proof does nothing")
    func unprovedManagement() throws {
        try Bench.checked { bench in
            let own = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            let proof = bench.stamp
            bench.advance(4_100 * Bench.millisecond)
            bench.holdsLoads = true
            let write = bench.submit(other, bench.write(0, 2_048, 1))
            let reset = bench.manage(own, .targetColdReset, command: 1, proved: proof)
            #expect(bench.refusal(reset) == .unproved && bench.answers[write] == nil)
            bench.holdsLoads = false
            bench.releaseHeld()
            #expect(bench.isDone(write) && bench.attentions(other).isEmpty)
            // The same request, proved.
            #expect(bench.isDone(bench.manage(own, .targetColdReset, command: 1)))
            #expect(bench.refusal(bench.check(other)) == .nexusClosed)
        }
    }

    @Test("R4: task management that is sent again is done once, and hits nothing that came after it")
    func repeatedManagement() throws {
        try Bench.checked { bench in
            let own = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            bench.holdsCommits = true
            let before = bench.submit(other, bench.write(0, 2_048, 1))
            let reset = bench.manage(own, .logicalUnitReset, command: 5)
            let after = bench.submit(own, Self.read, command: 6)
            let copies = (0..<2).map { _ in bench.manage(own, .logicalUnitReset, command: 5) }
            #expect(([reset, after] + copies).allSatisfy { bench.answers[$0] == nil })
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(before) && bench.isDone(reset) && copies.allSatisfy { bench.isDone($0) })
            #expect(bench.refusal(after) == .attention(.deviceReset))
            #expect(bench.attentions(other) == [.deviceReset])
            let commits = bench.commits.count
            #expect(bench.isDone(bench.manage(own, .logicalUnitReset, command: 5)))
            #expect(bench.commits.count == commits && bench.attentions(other).isEmpty)
            // And known to the next owner.
            bench.takeOver()
            #expect(bench.resume(own)?.contains(CommandID(5)) == true)
        }
    }

    private static let read = CommandOperation.read(ByteRange(offset: 0, count: 2_048))

    @Test("a reset that cannot be made durable in time is refused, and its own nexus may go meanwhile")
    func lateReset() throws {
        try Bench.checked { bench in
            let own = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            bench.commitFailures = Array(repeating: (.refused("planted"), isMade: false), count: 40)
            let reset = bench.manage(own, .logicalUnitReset, deadline: 500)
            let second = bench.manage(other, .logicalUnitReset)
            bench.advance(600 * Bench.millisecond)
            #expect(bench.refusal(reset) == .deadline && bench.answers[second] == nil)
            bench.close(other)
            #expect(bench.refusal(second) == .nexusClosed)
            bench.commitFailures = []
            bench.advance(200 * Bench.millisecond)
            #expect(bench.attentions(own).isEmpty)
        }
    }

    @Test("I10: resets of one nexus that wait are bounded as its commands are")
    func resetsBounded() throws {
        try Bench.checked { bench in
            let own = try #require(bench.login("a"))
            bench.holdsCommits = true
            let tickets = (0...OwnerLimits.commandsPerNexusMaximum).map { _ in bench.manage(own, .logicalUnitReset) }
            guard case .busy? = tickets.last.flatMap(bench.refusal) else {
                Issue.record("one too many is taken")
                return
            }
            #expect(tickets.dropLast().allSatisfy { bench.answers[$0] == nil })
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(tickets.dropLast().allSatisfy { bench.isDone($0) })
        }
    }

    // MARK: Commits that are refused

    @Test("R6: what was to be taken back while it was being committed ends when its commit is refused")
    func abortedAndRefused() throws {
        try Bench.checked { bench in
            let own = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            bench.holdsCommits = true
            let write = bench.submit(own, bench.write(0, 2_048, 1), command: 1)
            let others = bench.submit(other, bench.write(0, 4_096, 2), command: 1)
            let fence = bench.fence(own, below: 5, commands: [1])
            #expect([write, others, fence].allSatisfy { bench.answers[$0] == nil })
            bench.commitFailures = [(.refused("planted"), isMade: false)]
            bench.release(at: 0)
            #expect(bench.refusal(write) == .aborted && bench.isDone(fence))
            bench.holdsCommits = false
            bench.advance(200 * Bench.millisecond)
            bench.releaseHeld()
            #expect(bench.isDone(others) && bench.read(own, 0, 2_048)?.first == 2)
            // By another nexus's reset.
            bench.holdsCommits = true
            let second = bench.submit(own, bench.write(0, 2_048, 3))
            bench.commitFailures = [(.refused("planted"), isMade: false)]
            let clear = bench.manage(other, .clearTaskSet)
            bench.holdsCommits = false
            bench.releaseHeld()
            bench.advance(200 * Bench.millisecond)
            #expect(bench.refusal(second) == .taskAborted && bench.isDone(clear))
            #expect(bench.read(other, 0, 2_048)?.first == 2)
        }
    }

    @Test("a victim's write whose commit is refused is not made behind the preemption", arguments: [false, true])
    func preemptedAndRefused(aborts: Bool) throws {
        try Bench.checked { bench in
            let (holder, victim) = try bench.reserved()
            bench.holdsCommits = true
            let write = bench.submit(victim, bench.write(0, 2_048, 2))
            let preempt = bench.preempt(holder, 1, victim: 2, aborts: aborts)
            bench.release(at: 1)
            #expect(bench.answers[preempt] == nil && bench.answers[write] == nil)
            bench.commitFailures = [(.refused("planted"), isMade: false)]
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.refusal(write) == (aborts ? .taskAborted : .reservationConflict))
            #expect(bench.isDone(preempt))
            #expect(bench.read(holder, 0, 2_048)?.first == 0)
        }
    }

    @Test("R6: a change that is durable is not said to be aborted, whoever takes it back", arguments: 0..<4)
    func lingeringMeetsAbort(way: Int) throws {
        try Bench.checked { bench in
            let (holder, victim) = try bench.reserved()
            let third = try #require(bench.login("c"))
            #expect(bench.isDone(bench.register(third, 3)))
            bench.holdsCommits = true
            let write = bench.submit(victim, bench.write(0, 2_048, 2))
            let preempt = bench.preempt(holder, 1, victim: 2, command: 40)
            bench.release(at: 1)
            #expect(bench.durable.reservations.registrations.count == 2 && bench.answers[preempt] == nil)
            let abort =
                switch way {
                case 0: bench.manage(holder, .logicalUnitReset)
                case 1: bench.manage(third, .clearTaskSet)
                case 2: bench.fence(holder, below: 41, commands: [40])
                default: bench.preempt(third, 3, victim: 1, aborts: true)
                }
            #expect(bench.answers[preempt] == nil && bench.answers[abort] == nil)
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect([write, preempt, abort].allSatisfy { bench.isDone($0) })
        }
    }

    // MARK: Conditions

    @Test("I1: conditions are durable soon, also where nothing else is committed; a refused commit is made again")
    func idleConditions() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            let commits = bench.commits.count
            bench.commitFailures = [(.refused("planted"), isMade: false)]
            try bench.describe { $0.iqn = "iqn.2026-01.io.ashlar:w" }
            bench.advance(200 * Bench.millisecond)
            #expect(bench.commits.count == commits + 2)
            let row = try #require(bench.store.state(of: Bench.volume)?.nexuses.first)
            #expect(row.attentions == [.inquiryDataChanged])
            #expect(bench.attentions(nexus) == [.inquiryDataChanged])
            // Their report may still be lost.
            #expect(bench.store.state(of: Bench.volume)?.nexuses.first?.attentions == [.inquiryDataChanged])
            bench.confirm(nexus)
            #expect(bench.store.state(of: Bench.volume)?.nexuses.first?.attentions == [])
            bench.advance(200 * Bench.millisecond)
            #expect(bench.commits.count == commits + 3)
        }
    }

    @Test("R4: a condition that was delivered comes again with a copy of the same command, and with no other")
    func deliveredAgain() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            try bench.describe { $0.iqn = "iqn.2026-01.io.ashlar:w" }
            for _ in 0..<2 {
                let check = bench.submit(nexus, .check(Self.deliver, reservations: false), command: 9)
                #expect(bench.report(check)?.attention == .inquiryDataChanged)
            }
            #expect(bench.attentions(nexus).isEmpty)
        }
    }

    @Test("a size and a write protection that changed while nobody owned the volume are told by the next owner, once")
    func changedUnowned() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            bench.core.giveUp(Bench.volume, now: bench.now)
            bench.run()
            var description = try #require(bench.store.description(of: Bench.volume))
            description.geometry = try Geometry(sizeBytes: 4_096 * 2_048, blockSizeBytes: 2_048)
            description.isReadOnly = true
            description.revision += 1
            bench.store.describe(description)
            for _ in 0..<2 {
                bench.own()
                bench.core.giveUp(Bench.volume, now: bench.now)
                bench.run()
            }
            bench.own()
            bench.resume(nexus)
            #expect(bench.attentions(nexus) == [.capacityChanged, .modeParametersChanged])
            bench.confirm(nexus)
            bench.takeOver(nexus)
            #expect(bench.attentions(nexus).isEmpty)
            // A nexus that comes behind the change has nothing to be told.
            let later = try #require(bench.login("l"))
            #expect(bench.attentions(later).isEmpty)
        }
    }

    @Test("a forced shrink ends the epoch and is told; without a nexus nothing is told to the next one")
    func shrunk() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            let geometry = try Geometry(sizeBytes: 1_024 * 2_048, blockSizeBytes: 2_048)
            try bench.describe { $0.geometry = geometry }
            bench.own()
            bench.resume(nexus)
            #expect(bench.attentions(nexus) == [.capacityChanged])
            bench.close(nexus)
            try bench.describe { $0.isReadOnly = true }
            bench.takeOver()
            let next = try #require(bench.login())
            #expect(bench.attentions(next).isEmpty)
        }
    }

    // MARK: RESERVE of who has gone

    @Test("a logout that cannot be recorded is recorded later, so that its RESERVE does not come back with a takeover")
    func unrecordedLogout() throws {
        try Bench.checked { bench in
            let holder = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            #expect(bench.isDone(bench.submit(holder, .unit(.reserve))))
            bench.closeFailures = 2
            #expect(bench.isDone(bench.close(holder)))
            bench.advance(500 * Bench.millisecond)
            #expect(bench.store.state(of: Bench.volume)?.nexuses.map(\.number) == [other])
            bench.takeOver(other)
            #expect(bench.read(other, 0, 2_048) != nil)
        }
    }

    @Test("RESERVE ends where no target has known its nexus for a minute", arguments: [false, true])
    func forsakenReserve(isTakenOver: Bool) throws {
        try Bench.checked { bench in
            let holder = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            #expect(bench.isDone(bench.submit(holder, .unit(.reserve))))
            if isTakenOver { bench.takeOver(other) }
            bench.advance(50_000 * Bench.millisecond)
            #expect(bench.refusal(bench.check(other)) == .reservationConflict)
            // An idle session is known to its target all the same.
            #expect(bench.core.closedNexuses(of: Bench.volume, among: [holder], now: bench.now).isEmpty)
            bench.advance(50_000 * Bench.millisecond)
            #expect(bench.refusal(bench.check(other)) == .reservationConflict)
            bench.advance(11_000 * Bench.millisecond)
            #expect(bench.read(other, 0, 2_048) != nil)
            #expect(bench.core.closedNexuses(of: Bench.volume, among: [holder], now: bench.now) == [holder])
            #expect(bench.store.state(of: Bench.volume)?.nexuses.map(\.number) == [other])
        }
    }

    // MARK: Counters

    @Test("what is mapped is counted through writes, moves, evictions, UNMAP and erasures")
    func mappedBlocks() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            func mapped() -> UInt64? { bench.report(bench.check(nexus))?.counters.mappedBytes }
            #expect(bench.isDone(bench.submit(nexus, bench.write(0, 8 * 2_048, 1))))
            #expect(bench.isDone(bench.submit(nexus, bench.write(2_048, 2_048, 2))))
            #expect(mapped() == 8 * 2_048)
            let work = try #require(bench.moveWork())
            bench.map(bench.put(work))
            #expect(mapped() == 8 * 2_048)
            bench.evict()
            bench.takeOver(nexus)
            #expect(mapped() == 8 * 2_048)
            #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 3))))
            #expect(mapped() == 8 * 2_048)
            #expect(bench.isDone(bench.submit(nexus, bench.zero((0, 3 * 2_048), (10 * 2_048, 2_048)))))
            #expect(mapped() == 5 * 2_048)
            #expect(bench.isDone(bench.submit(nexus, .unit(.erase(Erasure(kind: .format), isImmediate: false)))))
            #expect(mapped() == 0)
            #expect(bench.isDone(overwrite(bench, nexus)))
            #expect(mapped() == 2_048 * 2_048)
        }
    }

    // MARK: Write protection

    @Test("MODE SELECT with SWP takes back writes that have not begun to be committed, and waits for those that have")
    func protectionMeetsWrites() throws {
        try Bench.checked { bench in
            let own = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            #expect(bench.isDone(bench.submit(own, bench.write(0, 2_048, 1))))
            bench.holdsLoads = true
            bench.holdsCommits = true
            let committing = bench.submit(other, bench.write(0, 2_048, 2))
            let waiting = bench.submit(own, bench.write(0, 2_048, 3))
            let loading = bench.submit(other, bench.write(1_024 * 2_048, 2_048, 3))
            let reading = bench.submit(other, bench.readOperation(1_024 * 2_048, 2_048))
            var mode = ModeParameters()
            mode.isSoftwareWriteProtected = true
            let select = bench.submit(own, .unit(.modeSelect(mode, isSaved: false)))
            bench.release(at: 2)
            #expect(bench.durable.mode == mode && bench.answers[select] == nil && bench.answers[committing] == nil)
            #expect(bench.refusal(waiting) == .softwareWriteProtected)
            #expect(bench.refusal(loading) == .softwareWriteProtected)
            bench.holdsLoads = false
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(committing) && bench.isDone(select) && bench.bytes(reading) != nil)
            #expect(bench.attentions(other) == [.modeParametersChanged])
            #expect(bench.read(own, 0, 2_048)?.first == 2)
        }
    }

    @Test("an erasure goes on whatever write protection comes after it, and is no initiator's write")
    func protectedErasure() throws {
        try Bench.checked(blocks: Self.blocks) { bench in
            let nexus = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            var mode = ModeParameters()
            mode.isSoftwareWriteProtected = true
            #expect(bench.isDone(bench.submit(nexus, .unit(.modeSelect(mode, isSaved: true)))))
            #expect(bench.isDone(bench.submit(nexus, .unit(.modeSelect(ModeParameters(), isSaved: false)))))
            bench.holdsCommits = true
            let erase = overwrite(bench, nexus, isImmediate: true)
            bench.releaseHeld()
            #expect(bench.isDone(erase))
            let reset = bench.manage(other, .logicalUnitReset)
            for _ in 0..<2 { bench.releaseHeld() }
            #expect(bench.isDone(reset) && bench.durable.mode == mode && bench.durable.erasure != nil)
            try bench.describe { $0.isReadOnly = true }
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.durable.erasure == nil && isOverwritten(bench))
            let counters = try #require(bench.owner?.counters)
            #expect(counters.writes == 0 && counters.bytesWritten == 0)
        }
    }

    @Test(
        "an erasure ends, and durably, where the volume shrinks below what is done of it",
        arguments: [2 * step, step]
    )
    func shrinks(to blocks: UInt64) throws {
        try Bench.checked(blocks: Self.blocks) { bench in
            let nexus = try #require(bench.login())
            bench.holdsCommits = true
            let erase = overwrite(bench, nexus)
            for _ in 0..<3 { bench.releaseHeld() }
            #expect(bench.durable.erasure?.position == 2 * Self.step * 2_048)
            let geometry = try Geometry(sizeBytes: blocks * 2_048, blockSizeBytes: 2_048)
            try bench.describe { $0.geometry = geometry }
            #expect(bench.refusal(erase) == .notOwner(nil))
            bench.own()
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.durable.erasure == nil && isOverwritten(bench, blocks: blocks))
            #expect(bench.resume(nexus) == [])
            bench.attentions(nexus)
            #expect(bench.read(nexus, 0, 2_048)?.first == 7)
        }
    }

    @Test("an erasure begins at the start whatever was asked, and with a pattern that fits")
    func erasureFields() throws {
        try Bench.checked(blocks: Self.blocks) { bench in
            let nexus = try #require(bench.login())
            let wrong = [
                Erasure(kind: .overwrite, pattern: [UInt8](repeating: 7, count: 100)), Erasure(kind: .overwrite),
                Erasure(kind: .format, pattern: Self.pattern), Erasure(kind: .blockErase, pattern: [1]),
            ]
            for erasure in wrong {
                guard case .invalid? = bench.refusal(bench.submit(nexus, .unit(.erase(erasure, isImmediate: true))))
                else {
                    Issue.record("\(erasure.kind) with \(erasure.pattern.count) bytes is taken")
                    continue
                }
            }
            #expect(bench.durable.erasure == nil)
            let erasure = Erasure(kind: .overwrite, pattern: Self.pattern, position: 1 << 40)
            #expect(bench.isDone(bench.submit(nexus, .unit(.erase(erasure, isImmediate: false)))))
            #expect(isOverwritten(bench))
        }
    }
}
