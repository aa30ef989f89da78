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

    @Test("R9: what is being committed is answered, the rest is refused unexecuted, then the volume is given up")
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
        #expect([reading, waiting, ready].allSatisfy { bench.refusal($0) == .ownershipLost("b:1") })
        #expect(committing.allSatisfy { bench.answers[$0] == nil })
        // From the first refusal on nothing new is begun in this epoch, nor is it given out as served.
        #expect(bench.refusal(bench.submit(nexus, bench.write(4_096, 2_048, 3))) == .ownershipLost("b:1"))
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

    @Test("R9: of an epoch that was given up it is known what was done, answered and aborted; all else is unexecuted")
    func remembered() throws {
        let (bench, other) = try Self.bench()
        let nexus = try #require(bench.login())
        let second = try #require(bench.login("j"))
        let early = bench.stamp
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 1), command: 1)))
        let compare = bench.compareAndWrite(0, bench.filled(5, 512), bench.filled(6, 512))
        _ = bench.submit(nexus, compare, command: 2)
        #expect(bench.isDone(bench.fence(nexus, below: 9, commands: [4])))
        bench.advance(20 * Bench.millisecond)
        #expect(bench.isDone(manage(bench, second)))
        bench.advance(20 * Bench.millisecond)
        #expect(Self.handOver(bench, to: other))
        #expect(bench.owner == nil)
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 1), command: 1)))
        let again = bench.submit(nexus, compare, command: 2)
        guard case .miscompare? = bench.answers[again] else {
            Issue.record("a miscompare was forgotten")
            return
        }
        #expect(bench.refusal(bench.submit(nexus, bench.write(0, 2_048, 4), command: 4)) == .aborted)
        // On its way when it was aborted, and so at each attempt.
        for _ in 0..<2 {
            let late = bench.submit(nexus, bench.write(0, 2_048, 5), command: 5, proved: early)
            #expect(bench.refusal(late) == .taskAborted)
        }
        #expect(bench.refusal(bench.submit(nexus, bench.write(0, 2_048, 6), command: 6)) == .ownershipLost("b:1"))
        let read = bench.submit(nexus, bench.readOperation(0, 2_048), command: 7, proved: early)
        #expect(bench.refusal(read) == .ownershipLost("b:1"))
        #expect(bench.refusal(manage(bench, second)) == .ownershipLost("b:1"))
        let unknown = bench.submit(NexusNumber(99), bench.write(0, 2_048, 1))
        #expect(bench.refusal(unknown) == .nexusClosed)
        // Of other epochs it says nothing.
        let foreign = Stamp(epoch: Epoch(bench.epoch.rawValue + 1), time: bench.now)
        #expect(bench.refusal(bench.submit(nexus, bench.write(0, 2_048, 8), proved: foreign)) == .notOwner(nil))
        bench.advance(OwnerLimits.relinquishedMemory)
        #expect(bench.refusal(bench.submit(nexus, bench.write(0, 2_048, 6), command: 6)) == .notOwner(nil))
        let remembered = bench.core.relinquished.count
        #expect(remembered == 0)
    }

    @Test("R9: an epoch that was given up is remembered also while the same server serves a later one")
    func servesAgain() throws {
        let (bench, other) = try Self.bench()
        let nexus = try #require(bench.login())
        let old = bench.stamp
        #expect(Self.handOver(bench, to: other))
        // The successor does not come.
        bench.own()
        #expect(bench.epoch == old.epoch)
        bench.advance(6_000 * Bench.millisecond)
        bench.own()
        #expect(bench.epoch == Epoch(old.epoch.rawValue + 1))
        let late = bench.submit(nexus, bench.write(0, 2_048, 1), proved: old)
        #expect(bench.refusal(late) == .ownershipLost("b:1"))
        let earlier = Stamp(epoch: Epoch(old.epoch.rawValue - 1), time: old.time)
        #expect(bench.refusal(bench.submit(nexus, bench.write(0, 2_048, 1), proved: earlier)) == .wrongEpoch)
    }

    @Test("R9: a reset that is being committed is finished first, and what it aborts is refused as aborted")
    func resetUnderWay() throws {
        let (bench, other) = try Self.bench()
        let nexus = try #require(bench.login())
        let second = try #require(bench.login("j"))
        let early = bench.stamp
        bench.advance(20 * Bench.millisecond)
        bench.holdsCommits = true
        let reset = manage(bench, second)
        let held = bench.submit(second, bench.write(0, 2_048, 1))
        #expect(Self.handOver(bench, to: other))
        // Nothing is called unexecuted before it is known what is aborted.
        #expect(bench.answers[held] == nil)
        let late = bench.submit(nexus, bench.write(0, 2_048, 1), proved: early)
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(bench.isDone(reset))
        #expect(bench.refusal(late) == .taskAborted)
        #expect(bench.refusal(held) == .ownershipLost("b:1"))
        #expect(bench.owner == nil)
        // What it is told of that is durable.
        let row = bench.store.state(of: Bench.volume)?.nexuses.first { $0.number == nexus }
        #expect(row?.attentions.contains(.commandsCleared) == true)
    }

    @Test(
        "R9: where a commit does not end, the volume is taken over anew: an epoch that has refused executes nothing more"
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

    @Test("I10: so many epochs are remembered, the newest")
    func boundedMemory() {
        var epochs = RelinquishedEpochs()
        let now = MonotonicTime(1)
        let count = UInt64(OwnerLimits.relinquishedMaximum)
        for number in 0...count {
            let epoch = Relinquished(epoch: Epoch(number), endpoint: "", nexuses: [:])
            epochs.insert(epoch, of: VolumeID(Int64(number % 7)), now: now)
        }
        #expect(epochs.count == OwnerLimits.relinquishedMaximum)
        #expect(epochs.find(VolumeID(0), Epoch(0)) == nil)
        #expect(epochs.find(VolumeID(1), Epoch(1)) != nil)
        epochs.expire(now: now.advanced(byNanoseconds: OwnerLimits.relinquishedMemory))
        #expect(epochs.count == 0)
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

@Suite("R9: the target's side of a hand-over")
struct HandOverClientTests {
    typealias Tests = NexusClientTests

    /// A client whose command 1 was refused unexecuted in epoch 1, and which has found the owner of `epoch`.
    private static func client(found epoch: UInt64) -> NexusClientTests.Client {
        var client = Tests.client()
        let first = client.submit(1, isChange: true, deadline: Tests.deadline)
        _ = client.submit(2, isChange: true, deadline: Tests.deadline)
        _ = Tests.drain(&client)
        client.answered(first, attempt: 1, .unexecuted)
        #expect(Tests.drain(&client) == [.locate])
        client.ownerFound(Tests.stamp(epoch, 10))
        #expect(Tests.drain(&client) == [.stamp(1), .ping])
        client.proved(token: 1)
        #expect(Tests.drain(&client) == [.resume(Tests.stamp(epoch, 10))])
        return client
    }

    @Test("R9: what was refused unexecuted is sent in the next epoch, with the proof that the nexus was resumed with")
    func sentAgain() {
        var client = Self.client(found: 2)
        client.stampArrived(Tests.stamp(2, 900))
        #expect(Tests.drain(&client) == [.stamp(2)])
        // More is proved before it is known that the nexus was resumed: what another aborted in between is older than that.
        client.proved(token: 2)
        client.resumed(done: [], Tests.stamp(2, 950))
        let events = Tests.drain(&client)
        #expect(events.contains(.send(1, attempt: 2, proved: Tests.stamp(2, 10))))
    }

    @Test("R9: the last answers of an owner that has handed the volume over are awaited, for a while")
    func lastAnswers() {
        for answer in [
            NexusDisposition<String>.unexecuted, .final("done", nil), .ownerLost, .nexusClosed, .unproved(nil),
        ] {
            var client = Self.client(found: 2)
            client.resumed(done: [], Tests.stamp(2, 11))
            let again = NexusClientTests.Event.send(1, attempt: 2, proved: Tests.stamp(2, 10))
            #expect(Tests.drain(&client) == [again])
            client.answered(CommandID(2), attempt: 1, answer)
            let expected: NexusClientTests.Event =
                switch answer {
                case .unexecuted: .send(2, attempt: 2, proved: Tests.stamp(2, 10))
                case .final: .complete(2, "done")
                default: .complete(2, "aborted")
                }
            #expect(Tests.drain(&client) == [expected])
        }
        var client = Self.client(found: 2)
        client.resumed(done: [CommandID(2)], Tests.stamp(2, 11))
        #expect(Tests.drain(&client).first == .complete(2, "committed"))
        client = Self.client(found: 2)
        client.resumed(done: [], Tests.stamp(2, 11))
        let start = MonotonicTime(1_000_000_000)
        client.tick(now: start, giveUp: "late")
        client.tick(now: start.advanced(byNanoseconds: NexusClientLimits.lastAnswers - 1), giveUp: "late")
        #expect(Tests.drain(&client).count == 1)
        client.tick(now: start.advanced(byNanoseconds: NexusClientLimits.lastAnswers), giveUp: "late")
        #expect(Tests.drain(&client) == [.complete(2, "aborted")])
    }

    @Test("R9: what was refused unexecuted is not sent behind an epoch that it was not sent in")
    func onlyInTheNext() {
        var client = Self.client(found: 3)
        client.resumed(done: [], Tests.stamp(3, 11))
        #expect(Tests.drain(&client) == [.complete(1, "aborted"), .complete(2, "aborted")])
    }

    @Test("R9: the deadline of what was refused unexecuted passes without harm")
    func deadline() {
        var client = Tests.client()
        let id = client.submit(1, isChange: true, deadline: Tests.deadline)
        _ = Tests.drain(&client)
        client.answered(id, attempt: 1, .unexecuted)
        _ = Tests.drain(&client)
        client.tick(now: Tests.deadline, giveUp: "late")
        #expect(Tests.drain(&client) == [.complete(1, "late")])
    }

    @Test("a nexus goes to a new owner that another nexus of its target has found")
    func foundByAnother() {
        var client = Tests.client()
        client.ownerFound(Tests.stamp(1, 200))
        #expect(Tests.drain(&client) == [])
        client.ownerFound(Tests.stamp(2, 10))
        #expect(Tests.drain(&client) == [.stamp(1), .ping])
        _ = client.submit(1, isChange: true, deadline: Tests.deadline)
        client.proved(token: 1)
        client.resumed(done: [], Tests.stamp(2, 11))
        #expect(
            Tests.drain(&client) == [.resume(Tests.stamp(2, 10)), .send(1, attempt: 1, proved: Tests.stamp(2, 10))]
        )
    }

    @Test("what never left the target is sent in the next epoch; where an earlier copy did, it is settled by R6")
    func neverLeft() {
        var client = Tests.client()
        let id = client.submit(1, isChange: true, deadline: Tests.deadline)
        _ = Tests.drain(&client)
        #expect(client.isServing(Epoch(1)) && !client.isServing(Epoch(2)))
        client.ownerFound(Tests.stamp(2, 10))
        #expect(!client.isServing(Epoch(1)))
        client.answered(id, attempt: 1, .notSent)
        client.proved(token: 1)
        client.resumed(done: [], Tests.stamp(2, 11))
        #expect(Tests.drain(&client).last == .send(1, attempt: 2, proved: Tests.stamp(2, 10)))
    }
}
