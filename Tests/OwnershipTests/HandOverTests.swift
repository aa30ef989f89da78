import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

@Suite("R9: handing a volume over, with plain calls")
struct HandOverTests {
    /// A bench, and the registration of another server.
    private static func bench() throws -> (Bench, CacheServerID) {
        let bench = try Bench()
        let lease = 3_600_000 * Bench.millisecond
        return (bench, bench.store.register(endpoint: "b:1", lease: lease, now: bench.now))
    }

    private static func handOver(_ bench: Bench, to other: CacheServerID) -> Bool {
        defer { bench.run() }
        return bench.core.handOver(Bench.volume, to: other, endpoint: "b:1", now: bench.now)
    }

    @Test("R9: what is being committed is answered, the rest is refused, then the volume is given up")
    func handedOver() throws {
        let (bench, other) = try Self.bench()
        let nexus = try #require(bench.login())
        bench.holdsCommits = true
        bench.holdsLoads = true
        let reading = bench.submit(nexus, bench.readOperation(1_024 * 2_048, 2_048))
        bench.holdsLoads = false
        let committing = (0..<2).map { bench.submit(nexus, bench.write($0 * 2_048, 2_048, 1)) }
        let waiting = bench.submit(nexus, bench.write(0, 2_048, 2))
        let ready = bench.submit(nexus, bench.write(8_192, 2_048, 2))
        #expect(Self.handOver(bench, to: other))
        #expect(!Self.handOver(bench, to: other))
        #expect([reading, waiting, ready].allSatisfy { bench.refusal($0) == .notOwner("b:1") })
        #expect(committing.allSatisfy { bench.answers[$0] == nil })
        // From the first refusal on nothing new is begun in this epoch, nor is it given out as served.
        #expect(bench.refusal(bench.submit(nexus, bench.write(4_096, 2_048, 3))) == .notOwner("b:1"))
        let look = bench.ticket()
        bench.core.lookUp(look, volume: Bench.volume, now: bench.now)
        bench.run()
        #expect(bench.refusal(look) == .notOwner("b:1"))
        let isServed = bench.core.currentStamp(of: Bench.volume, now: bench.now) != nil
        #expect(!isServed)
        #expect(bench.login("j") == nil)
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(committing.allSatisfy { bench.isDone($0) })
        let underWay = bench.core.handOvers
        #expect(bench.owner == nil && underWay == 0)
        guard case .owned(let ownership) = bench.store.takeOver(Bench.volume, server: other, now: bench.now) else {
            Issue.record("not taken over")
            return
        }
        #expect(ownership.epoch == Epoch(bench.epoch.rawValue + 1))
        #expect(ownership.nexuses.first?.mark.done == [CommandID(2), CommandID(3)])
    }

    @Test("R9: a reset that is being committed is finished first")
    func resetUnderWay() throws {
        let (bench, other) = try Self.bench()
        let nexus = try #require(bench.login())
        let second = try #require(bench.login("j"))
        bench.holdsCommits = true
        let reset = manage(bench, second)
        let held = bench.submit(second, bench.write(0, 2_048, 1))
        #expect(Self.handOver(bench, to: other))
        #expect(bench.answers[held] == nil)
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(bench.isDone(reset))
        #expect(bench.refusal(held) == .notOwner("b:1"))
        #expect(bench.owner == nil)
        // What it is told of that is durable.
        let row = bench.store.state(of: Bench.volume)?.nexuses.first { $0.number == nexus }
        #expect(row?.aborted?.epoch == Epoch(1))
    }

    @Test(
        "R9: where a commit does not end, the volume is taken over anew: what was refused is settled there"
    )
    func notInTime() throws {
        let (bench, other) = try Self.bench()
        let nexus = try #require(bench.login())
        bench.holdsCommits = true
        let committing = bench.submit(nexus, bench.write(0, 2_048, 1))
        let old = bench.epoch
        #expect(Self.handOver(bench, to: other))
        bench.advance(OwnerLimits.handOverMaximum - 40 * Bench.millisecond)
        #expect(bench.answers[committing] == nil && bench.owner?.epoch == old)
        bench.advance(80 * Bench.millisecond)
        #expect(bench.refusal(committing) == .notOwner(nil))
        let underWay = bench.core.handOvers
        #expect(bench.owner?.epoch == Epoch(old.rawValue + 1) && underWay == 0)
        bench.releaseHeld()
        #expect(bench.owner?.epoch == Epoch(old.rawValue + 1))
    }

    @Test("R9: what could not be recorded is recorded at another attempt, or the volume taken over anew")
    func storeFailures() throws {
        let (bench, other) = try Self.bench()
        bench.handOverFailures = [.unknownOutcome("planted"), .refused("planted")]
        #expect(Self.handOver(bench, to: other))
        #expect(bench.owner != nil)
        bench.advance(3 * OwnerLimits.storeRetry)
        #expect(bench.owner == nil && bench.handOverFailures.isEmpty)
        let (second, successor) = try Self.bench()
        second.handOverFailures = [.broken("planted")]
        let old = second.epoch
        #expect(Self.handOver(second, to: successor))
        #expect(second.owner?.epoch == Epoch(old.rawValue + 1))
    }

    @Test("a hand-over is not begun to itself, of another's volume, or while an initiator waits for an erasure to end")
    func notBegun() throws {
        let (bench, other) = try Self.bench()
        let registration = bench.core.registration
        let own = try #require(registration)
        #expect(!Self.handOver(bench, to: own))
        let isBegun = bench.core.handOver(VolumeID(8), to: other, endpoint: "b:1", now: bench.now)
        #expect(!isBegun)
        let nexus = try #require(bench.login())
        bench.holdsCommits = true
        let erase = bench.submit(nexus, .unit(.erase(Erasure(kind: .blockErase), isImmediate: false)))
        bench.release(at: 0)
        #expect(bench.owner?.lingering.count == 1)
        #expect(!Self.handOver(bench, to: other))
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(bench.isDone(erase))
        #expect(Self.handOver(bench, to: other) && bench.owner == nil)
    }

    /// CLEAR TASK SET of a nexus.
    private func manage(_ bench: Bench, _ nexus: NexusNumber) -> Ticket {
        let ticket = bench.ticket()
        bench.core.manage(
            ticket,
            context: bench.context(nexus, bench.takeCommand(nexus, nil)),
            function: .clearTaskSet,
            deadline: bench.now.advanced(byNanoseconds: 20_000 * Bench.millisecond),
            now: bench.now
        )
        bench.run()
        return ticket
    }
}

@Suite("The target's side of a hand-over")
struct HandOverClientTests {
    typealias Tests = NexusClientTests

    @Test("a nexus goes to a new owner that another nexus of its target has found")
    func foundByAnother() {
        var client = Tests.client()
        client.ownerFound(Tests.stamp(1, 200))
        #expect(Tests.drain(&client) == [])
        client.ownerFound(Tests.stamp(2, 10))
        #expect(Tests.drain(&client) == [.stamp(1), .ping])
        _ = client.submit(1, isChange: true, deadline: Tests.deadline)
        client.proved(token: 1)
        client.resumed(done: [], aborted: nil, Tests.stamp(2, 11))
        #expect(
            Tests.drain(&client) == [.resume(Tests.stamp(2, 10)), .send(1, attempt: 1, proved: Tests.stamp(2, 10))]
        )
    }

    @Test("the deadline of what never left the target passes without harm; it is sent in the next epoch")
    func neverLeft() {
        var client = Tests.client()
        let id = client.submit(1, isChange: true, deadline: Tests.deadline)
        _ = Tests.drain(&client)
        #expect(client.isServing(Epoch(1)) && !client.isServing(Epoch(2)))
        client.ownerFound(Tests.stamp(2, 10))
        #expect(!client.isServing(Epoch(1)))
        client.answered(id, attempt: 1, .notSent)
        client.proved(token: 1)
        client.resumed(done: [], aborted: nil, Tests.stamp(2, 11))
        #expect(Tests.drain(&client).last == .send(1, attempt: 2, proved: Tests.stamp(2, 10)))
        client.answered(id, attempt: 2, .notSent)
        client.tick(now: Tests.deadline, giveUp: "late")
        #expect(Tests.drain(&client) == [.locate, .complete(1, "late")])
    }
}
