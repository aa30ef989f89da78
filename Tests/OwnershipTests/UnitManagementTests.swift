import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

@Suite("Task management of all nexuses, and erasures")
struct UnitManagementTests {
    // MARK: Task management

    @Test("CLEAR TASK SET takes back the commands of all nexuses, and tells the others that it hit")
    func clearTaskSet() throws {
        try Bench.checked { bench in
            let own = try #require(bench.login("a"))
            let hit = try #require(bench.login("b"))
            let idle = try #require(bench.login("c"))
            bench.holdsCommits = true
            let committing = bench.submit(hit, bench.write(0, 2_048, 1))
            let waiting = bench.submit(hit, bench.write(0, 2_048, 2), command: 7)
            let mine = bench.submit(own, bench.write(0, 2_048, 3))
            let clear = bench.manage(own, .clearTaskSet, command: 10)
            #expect(bench.refusal(waiting) == .taskAborted && bench.refusal(mine) == .aborted)
            #expect(bench.answers[clear] == nil)
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(committing) && bench.isDone(clear))
            #expect(bench.refusal(bench.submit(own, bench.write(0, 2_048, 4), command: 9)) == .aborted)
            #expect(bench.refusal(bench.submit(hit, bench.write(0, 2_048, 2), command: 7)) == .taskAborted)
            #expect(bench.attentions(hit) == [.commandsCleared])
            #expect(bench.attentions(idle).isEmpty)
            let report = try #require(
                bench.report(
                    bench.submit(
                        own,
                        .check(CommandRules(access: .any, attention: .deliver), reservations: false),
                        command: 11
                    )
                )
            )
            #expect(report.attention == nil)
            #expect(bench.read(hit, 0, 2_048)?.first == 1)
        }
    }

    @Test("CLEAR TASK SET leaves reservations and mode parameters as they are")
    func clearKeeps() throws {
        try Bench.checked { bench in
            let own = try #require(bench.login("a"))
            var mode = ModeParameters()
            mode.isSenseInDescriptorFormat = true
            #expect(bench.isDone(bench.submit(own, .unit(.modeSelect(mode, isSaved: false)))))
            #expect(bench.isDone(bench.submit(own, .unit(.reserve))))
            #expect(bench.isDone(bench.manage(own, .clearTaskSet)))
            #expect(bench.durable.mode == mode && bench.durable.reservedBy == own)
        }
    }

    @Test(
        "LOGICAL UNIT RESET aborts, tells all nexuses, and puts back what does not outlive it",
        arguments: [UnitManagement.logicalUnitReset, .targetWarmReset, .targetColdReset]
    )
    func reset(_ function: UnitManagement) throws {
        try Bench.checked { bench in
            let own = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            var saved = ModeParameters()
            saved.exceptionReportingMethod = 3
            var current = saved
            current.isSenseInDescriptorFormat = true
            #expect(bench.isDone(bench.submit(other, .unit(.modeSelect(saved, isSaved: true)))))
            #expect(bench.isDone(bench.submit(other, .unit(.modeSelect(current, isSaved: false)))))
            #expect(bench.attentions(own) == [.modeParametersChanged])
            #expect(bench.isDone(bench.submit(other, .unit(.reserve))))
            bench.holdsCommits = true
            let committing = bench.submit(other, bench.write(0, 2_048, 1))
            let waiting = bench.submit(other, bench.readOperation(0, 2_048))
            let reset = bench.manage(own, function, command: 10)
            #expect(bench.refusal(waiting) == .taskAborted)
            #expect(bench.held.count == 2)
            bench.release(at: 1)
            #expect(bench.answers[reset] == nil)
            #expect(bench.durable.mode == saved && bench.durable.reservedBy == nil)
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(committing) && bench.isDone(reset))
            let after = bench.submit(own, bench.readOperation(0, 2_048), command: 11)
            #expect(bench.refusal(after) == .attention(.deviceReset))
            if function == .targetColdReset {
                #expect(bench.refusal(bench.check(other)) == .nexusClosed)
                #expect(bench.core.closedNexuses(of: Bench.volume, among: [own, other], now: bench.now) == [other])
                #expect(bench.store.state(of: Bench.volume)?.nexuses.map(\.number) == [own])
            } else {
                #expect(bench.attentions(other) == [.deviceReset])
            }
            #expect(bench.read(own, 0, 2_048)?.first == 1)
        }
    }

    @Test("persistent reservations outlive a reset, which is durable with what it tells before it is answered")
    func resetKeeps() throws {
        try Bench.checked { bench in
            let (holder, _) = try bench.reserved()
            let stranger = try #require(bench.login("s"))
            let before = bench.durable
            bench.holdsCommits = true
            let reset = bench.manage(stranger, .logicalUnitReset)
            #expect(bench.answers[reset] == nil)
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(reset) && bench.durable == before)
            bench.takeOver(holder, stranger)
            #expect(bench.refusal(bench.submit(stranger, bench.write(0, 2_048, 1))) == .reservationConflict)
            #expect(bench.attentions(holder) == [.deviceReset])
        }
    }

    @Test("a reset while a change is being committed comes behind it")
    func resetBehindChange() throws {
        try Bench.checked { bench in
            let own = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            var mode = ModeParameters()
            mode.isSoftwareWriteProtected = true
            bench.holdsCommits = true
            let change = bench.submit(other, .unit(.modeSelect(mode, isSaved: false)))
            let held = bench.check(other)
            let reset = bench.manage(own, .logicalUnitReset, command: 10)
            #expect(bench.refusal(held) == .taskAborted && bench.answers[reset] == nil)
            bench.releaseHeld()
            #expect(bench.isDone(change) && bench.answers[reset] == nil)
            #expect(bench.durable.mode == mode)
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(reset) && bench.durable.mode == ModeParameters())
            #expect(bench.isDone(bench.submit(own, bench.write(0, 2_048, 1), command: 20)) == false)
            #expect(bench.isDone(bench.submit(own, bench.write(0, 2_048, 1), command: 21)) == false)
            #expect(bench.isDone(bench.submit(own, bench.write(0, 2_048, 1), command: 22)))
        }
    }

    @Test("task management needs an open nexus and the current epoch")
    func managementRefused() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login("a"))
            bench.close(nexus)
            #expect(bench.refusal(bench.manage(nexus, .logicalUnitReset)) == .nexusClosed)
            let other = try #require(bench.login("b"))
            let old = bench.context(other, 1)
            bench.takeOver(other)
            let ticket = bench.ticket()
            let deadline = bench.now.advanced(byNanoseconds: 1)
            bench.core.manage(ticket, context: old, function: .logicalUnitReset, deadline: deadline, now: bench.now)
            bench.run()
            #expect(bench.refusal(ticket) == .wrongEpoch)
        }
    }

    // MARK: Erasures

    static let pattern: [UInt8] = (0..<512).map { UInt8($0 & 0xFF) }
    /// Four steps of an overwrite.
    static let blocks: UInt64 = 16_384

    @discardableResult
    private func overwrite(_ bench: Bench, _ nexus: NexusNumber, isImmediate: Bool, command: UInt64? = nil) -> Ticket {
        let erasure = Erasure(kind: .overwrite, pattern: Self.pattern)
        return bench.submit(nexus, .unit(.erase(erasure, isImmediate: isImmediate)), command: command)
    }

    /// Whether every block holds the pattern, by the tables.
    private func isOverwritten(_ bench: Bench, blocks: UInt64 = Self.blocks) -> Bool {
        let expected = ByteBuffer(bytes: Self.pattern + Self.pattern + Self.pattern + Self.pattern)
        return (0..<blocks).allSatisfy { block in
            guard case .bytes(let bytes) = bench.store.content(Bench.volume, BlockID(block)) else { return false }
            return bytes == expected
        }
    }

    @Test(
        "an overwrite keeps commands out, tells how far it is, writes every block, and is answered at its end",
        arguments: [false, true]
    )
    func overwriting(isImmediate: Bool) throws {
        try Bench.checked(blocks: Self.blocks) { bench in
            let nexus = try #require(bench.login())
            bench.holdsCommits = true
            let erase = overwrite(bench, nexus, isImmediate: isImmediate)
            bench.releaseHeld()
            #expect(bench.isDone(erase) == isImmediate)
            let allowed = CommandRules(access: .any, isAllowedDuringErasure: true)
            var last: UInt16 = 0
            for _ in 0..<3 {
                // While a step is being committed, others wait for it, and no longer.
                let read = bench.submit(nexus, bench.readOperation(0, 2_048))
                let write = bench.submit(nexus, bench.write(0, 2_048, 1))
                let check = bench.check(nexus)
                let change = bench.submit(nexus, .unit(.reserve))
                let query = bench.check(nexus, allowed)
                let ready = [read, write, check, query].allSatisfy { bench.answers[$0] == nil }
                #expect(ready)
                bench.releaseHeld()
                for ticket in [read, write, check] {
                    guard case .erasing(.overwrite, let progress)? = bench.refusal(ticket) else {
                        Issue.record("not refused: \(String(describing: bench.answers[ticket]))")
                        continue
                    }
                    if ticket == read {
                        #expect(progress > last)
                        last = progress
                    }
                    #expect(progress == last)
                }
                guard case .erasing? = bench.refusal(change) else {
                    Issue.record("a change is done meanwhile")
                    return
                }
                #expect(bench.report(query)?.state.erasure?.kind == .overwrite)
                #expect(bench.isDone(erase) == isImmediate)
            }
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(erase))
            #expect(bench.durable.erasure == nil)
            #expect(isOverwritten(bench))
            #expect(bench.read(nexus, 0, 512 * 4) == Self.pattern + Self.pattern + Self.pattern + Self.pattern)
        }
    }

    @Test(
        "block erase, cryptographic erase and format unmap every block",
        arguments: [Erasure.Kind.blockErase, .cryptographicErase, .format]
    )
    func unmapping(_ kind: Erasure.Kind) throws {
        // Two steps and a bit.
        let blocks = 2 * OwnerLimits.erasureStepMaximumBytes / 2_048 + 10
        try Bench.checked(blocks: blocks) { bench in
            let nexus = try #require(bench.login())
            let last = Int(blocks - 1) * 2_048
            for offset in [0, 4_096, last / 2 / 2_048 * 2_048, last] {
                #expect(bench.isDone(bench.submit(nexus, bench.write(offset, 2_048, 1))))
            }
            let steps = bench.commits.count
            let erase = bench.submit(nexus, .unit(.erase(Erasure(kind: kind), isImmediate: false)))
            #expect(bench.isDone(erase))
            #expect(bench.commits.count - steps == 4)
            #expect(bench.durable.erasure == nil && bench.core.unmovedBytes == 0)
            for offset in [0, 4_096, last / 2 / 2_048 * 2_048, last] {
                #expect(bench.read(nexus, offset, 2_048)?.allSatisfy { $0 == 0 } == true)
            }
            let status = bench.submit(
                nexus,
                .mapStatus(ByteRange(offset: 0, count: 2_048 * 100), runsMaximum: 8)
            )
            guard case .mapped(_, let runs)? = bench.answers[status] else {
                Issue.record("no map")
                return
            }
            #expect(runs.map(\.isMapped) == [false])
        }
    }

    @Test("an erasure goes on after a takeover from where it was; its command is not said to be done before it is")
    func takenOver() throws {
        try Bench.checked(blocks: Self.blocks) { bench in
            let nexus = try #require(bench.login())
            bench.holdsCommits = true
            let erase = overwrite(bench, nexus, isImmediate: false, command: 1)
            // It begins, and two of its steps are done.
            for _ in 0..<3 { bench.releaseHeld() }
            #expect(bench.durable.erasure?.position == 2 * UInt64(Limits.transferMaximumBytes))
            bench.core.giveUp(Bench.volume, now: bench.now)
            bench.run()
            #expect(bench.refusal(erase) == .notOwner(nil))
            let before = bench.commits.count
            // The step that was on its way comes too late.
            bench.own()
            #expect(bench.resume(nexus) == [])
            bench.holdsCommits = false
            bench.releaseHeld()
            let writes = bench.commits[before...].flatMap { $0 }.filter { $0.epoch == bench.epoch }.map(\.writes)
            #expect(writes.map { $0.first?.block } == [BlockID(8_192), BlockID(12_288)])
            #expect(bench.durable.erasure == nil)
            #expect(isOverwritten(bench))
            #expect(bench.read(nexus, 0, 2_048) != nil)
        }
    }

    @Test("R4: what waited for the end of an erasure is known to be done by the commit of its last step")
    func lastStepMarks() throws {
        try Bench.checked(blocks: Self.blocks) { bench in
            let nexus = try #require(bench.login())
            let erase = overwrite(bench, nexus, isImmediate: false, command: 1)
            #expect(bench.isDone(erase))
            let commits = bench.commits.count
            #expect(bench.isDone(overwrite(bench, nexus, isImmediate: false, command: 1)))
            #expect(bench.commits.count == commits)
            bench.core.giveUp(Bench.volume, now: bench.now)
            bench.own()
            #expect(bench.resume(nexus) == [CommandID(1)])
        }
    }

    @Test("neither abort nor reset ends an erasure")
    func notStopped() throws {
        try Bench.checked(blocks: Self.blocks) { bench in
            let nexus = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            bench.holdsCommits = true
            let erase = overwrite(bench, nexus, isImmediate: false, command: 1)
            bench.releaseHeld()
            let fence = bench.fence(nexus, below: 5, commands: [1])
            #expect(bench.refusal(erase) == .aborted && bench.isDone(fence))
            bench.releaseHeld()
            let reset = bench.manage(other, .logicalUnitReset)
            bench.releaseHeld()
            #expect(bench.durable.erasure != nil)
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(reset))
            #expect(bench.durable.erasure == nil)
            #expect(isOverwritten(bench))
        }
    }

    @Test("a reset ends the wait for an erasure, and the nexus that waited may go")
    func waiterGoes() throws {
        try Bench.checked(blocks: Self.blocks) { bench in
            let nexus = try #require(bench.login("a"))
            let other = try #require(bench.login("b"))
            bench.holdsCommits = true
            let erase = overwrite(bench, nexus, isImmediate: false, command: 1)
            bench.releaseHeld()
            let reset = bench.manage(other, .logicalUnitReset)
            #expect(bench.refusal(erase) == .taskAborted)
            bench.close(nexus)
            bench.holdsCommits = false
            bench.releaseHeld()
            #expect(bench.isDone(reset) && isOverwritten(bench))
        }
    }

    @Test("an erasure is refused where the unit is write-protected, and does not begin twice")
    func erasureRefused() throws {
        try Bench.checked(blocks: Self.blocks) { bench in
            let nexus = try #require(bench.login())
            var mode = ModeParameters()
            mode.isSoftwareWriteProtected = true
            #expect(bench.isDone(bench.submit(nexus, .unit(.modeSelect(mode, isSaved: false)))))
            #expect(bench.refusal(overwrite(bench, nexus, isImmediate: false)) == .softwareWriteProtected)
            #expect(bench.isDone(bench.submit(nexus, .unit(.modeSelect(ModeParameters(), isSaved: false)))))
            bench.holdsCommits = true
            overwrite(bench, nexus, isImmediate: false)
            bench.releaseHeld()
            let second = overwrite(bench, nexus, isImmediate: false)
            bench.releaseHeld()
            guard case .erasing? = bench.refusal(second) else {
                Issue.record("\(String(describing: bench.answers[second]))")
                return
            }
            bench.holdsCommits = false
            bench.releaseHeld()
        }
    }

    @Test("an erasure is slowed down as writes are, and a write that was is refused when it began meanwhile")
    func slowedDown() throws {
        try Bench.checked(blocks: Self.blocks) {
            $0.unmovedHighWatermarkBytes = 1 << 20
            $0.unmovedHardLimitBytes = 64 << 20
        } _: { bench in
            let nexus = try #require(bench.login())
            let size = Int(Limits.transferMaximumBytes)
            #expect(bench.isDone(bench.submit(nexus, bench.write(0, size, 1))))
            let throttled = bench.submit(nexus, bench.write(0, 2_048, 9))
            #expect(bench.answers[throttled] == nil)
            let erase = overwrite(bench, nexus, isImmediate: false)
            #expect(bench.answers[erase] == nil)
            bench.advance(3_000 * Bench.millisecond)
            guard case .erasing(.overwrite, _)? = bench.refusal(throttled) else {
                Issue.record("\(String(describing: bench.answers[throttled]))")
                return
            }
            #expect(bench.isDone(erase))
            #expect(isOverwritten(bench))
        }
    }

    @Test("at the hard limit an erasure waits for moves, and holds back nothing meanwhile")
    func hardLimit() throws {
        try Bench.checked(blocks: Self.blocks) {
            $0.unmovedHighWatermarkBytes = 12 << 20
            $0.unmovedHardLimitBytes = 12 << 20
        } _: { bench in
            let nexus = try #require(bench.login())
            let erase = overwrite(bench, nexus, isImmediate: false)
            bench.advance(100 * Bench.millisecond)
            #expect(bench.durable.erasure?.position == 2 * UInt64(Limits.transferMaximumBytes))
            let allowed = CommandRules(access: .any, isAllowedDuringErasure: true)
            #expect(bench.report(bench.check(nexus, allowed)) != nil)
            guard case .erasing? = bench.refusal(bench.submit(nexus, bench.readOperation(0, 2_048))) else {
                Issue.record("a read waits")
                return
            }
            for _ in 0..<200 where bench.answers[erase] == nil {
                if let work = bench.moveWork() { bench.map(bench.put(work)) }
                bench.advance(20 * Bench.millisecond)
            }
            #expect(bench.isDone(erase))
            #expect(bench.durable.erasure == nil)
        }
    }
}
