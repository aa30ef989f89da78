import AshlarCore
import AshlarTestSupport
import Testing

@testable import Ownership

@Suite("R9: takeovers and what aborts the commands of others")
struct TakeoverRaceTests {
    /// A client whose first command was given out in the epoch before the one in which `bench` serves now.
    private static func client(of nexus: NexusNumber, _ bench: Bench) -> NexusClient<Int, String> {
        var client = NexusClient<Int, String>(volume: Bench.volume, nexus: nexus, opened: bench.stamp)
        _ = client.submit(1, isChange: true, deadline: MonotonicTime(.max))
        return client
    }

    /// Has the client find the owner, and prove that its initiator lives.
    private static func findOwner(_ client: inout NexusClient<Int, String>, _ bench: Bench, token: UInt64) {
        client.ownerLost()
        client.ownerFound(bench.stamp)
        client.proved(token: token)
        while client.nextAction() != nil {}
    }

    /// Tells the client that its nexus was resumed; what becomes of its commands then, and with what proofs it sends them.
    private static func tell(
        _ client: inout NexusClient<Int, String>,
        _ answer: (done: [CommandID], aborted: Stamp?),
        _ bench: Bench
    ) -> (aborted: [Int], sent: [Stamp]) {
        client.resumed(done: answer.done, aborted: answer.aborted, bench.stamp)
        var result: (aborted: [Int], sent: [Stamp]) = ([], [])
        while let action = client.nextAction() {
            switch action {
            case .complete(let request, .aborted): result.aborted.append(request)
            case .send(_, _, _, let context): result.sent.append(context.proved)
            default: break
            }
        }
        return result
    }

    /// Both, and what the owner says in between.
    private static func resume(
        _ client: inout NexusClient<Int, String>,
        _ bench: Bench,
        token: UInt64 = 1
    ) throws -> (aborted: [Int], sent: [Stamp]) {
        findOwner(&client, bench, token: token)
        return tell(&client, try #require(bench.resumption(of: client.nexus)), bench)
    }

    @Test("R6 R9: a reset ends what is on its way to a nexus, whether the takeover comes before it, behind it, or both")
    func resetMeetsTakeover() throws {
        for (before, behind) in [(true, false), (false, true), (true, true), (false, false)] {
            try Bench.checked { bench in
                let other = try #require(bench.login("a"))
                let own = try #require(bench.login("b"))
                var client = Self.client(of: other, bench)
                bench.advance(1_000 * Bench.millisecond)
                if before { bench.takeOver(own) }
                #expect(bench.isDone(bench.manage(own, .clearTaskSet)))
                bench.advance(1_000 * Bench.millisecond)
                if behind { bench.takeOver(own) }
                guard before || behind else { return }
                let resumed = try Self.resume(&client, bench)
                #expect(resumed.aborted == [1] && resumed.sent.isEmpty)
                #expect(bench.isDone(bench.submit(other, bench.write(0, 2_048, 2))))
            }
        }
    }

    @Test("R9: what another nexus did not abort is sent again behind a takeover")
    func sentAgainBehindReset() throws {
        try Bench.checked { bench in
            let other = try #require(bench.login("a"))
            let own = try #require(bench.login("b"))
            #expect(bench.isDone(bench.manage(own, .clearTaskSet)))
            bench.advance(1_000 * Bench.millisecond)
            var client = Self.client(of: other, bench)
            bench.takeOver(own)
            let resumed = try Self.resume(&client, bench)
            #expect(resumed.aborted.isEmpty && resumed.sent.count == 1)
            let proof = try #require(resumed.sent.first)
            #expect(bench.isDone(bench.submit(other, bench.write(0, 2_048, 1), proved: proof)))
        }
    }

    @Test("R6: what waited in a target is aborted by a reset, though the nexus is resumed twice")
    func resetMeetsRepeatedResumption() throws {
        try Bench.checked { bench in
            let other = try #require(bench.login("a"))
            let own = try #require(bench.login("b"))
            var client = Self.client(of: other, bench)
            bench.takeOver(own)
            Self.findOwner(&client, bench, token: 1)
            // It is resumed, and the target does not hear of it; then comes the reset.
            #expect(try #require(bench.resumption(of: other)).aborted == nil)
            bench.advance(1_000 * Bench.millisecond)
            #expect(bench.isDone(bench.manage(own, .clearTaskSet)))
            bench.advance(1_000 * Bench.millisecond)
            client.stampArrived(bench.stamp)
            #expect(try Self.resume(&client, bench, token: 2).aborted == [1])
            #expect(bench.read(own, 0, 2_048)?.first == 0)
        }
    }

    @Test("R6: what is sent again is aborted by a reset that comes before its target hears that the nexus is resumed")
    func resetMeetsResumption() throws {
        try Bench.checked { bench in
            let other = try #require(bench.login("a"))
            let own = try #require(bench.login("b"))
            var client = Self.client(of: other, bench)
            bench.takeOver(own)
            Self.findOwner(&client, bench, token: 1)
            let answer = try #require(bench.resumption(of: other))
            bench.advance(1_000 * Bench.millisecond)
            #expect(bench.isDone(bench.manage(own, .clearTaskSet)))
            let sent = Self.tell(&client, answer, bench).sent
            let proof = try #require(sent.first)
            #expect(bench.refusal(bench.submit(other, bench.write(0, 2_048, 1), proved: proof)) == .taskAborted)
            #expect(bench.attentions(other) == [.commandsCleared])
        }
    }

    @Test(
        "R9: that PREEMPT AND ABORT aborted is known behind a takeover, PREEMPT aborts nothing",
        arguments: [false, true]
    )
    func preemptMeetsTakeover(aborts: Bool) throws {
        try Bench.checked { bench in
            let (holder, victim) = try bench.reserved()
            let proof = bench.stamp
            bench.advance(1_000 * Bench.millisecond)
            #expect(bench.isDone(bench.preempt(holder, 1, victim: 2, aborts: aborts)))
            bench.takeOver(holder)
            let aborted = try #require(bench.resumption(of: victim)).aborted
            #expect(aborted.map { $0.isNewer(than: proof) } == (aborts ? true : nil))
            #expect(try #require(bench.resumption(of: holder)).aborted == nil)
        }
    }

    @Test(
        "a condition whose report may be lost with its owner is reported once more by the next one",
        arguments: [false, true]
    )
    func reportMeetsTakeover(isConfirmed: Bool) throws {
        try Bench.checked { bench in
            let other = try #require(bench.login("a"))
            let own = try #require(bench.login("b"))
            #expect(bench.isDone(bench.manage(own, .logicalUnitReset)))
            bench.advance(1_000 * Bench.millisecond)
            let told = bench.submit(other, bench.write(0, 2_048, 1), command: 5)
            #expect(bench.refusal(told) == .attention(.deviceReset))
            #expect(
                bench.refusal(bench.submit(other, bench.write(0, 2_048, 1), command: 5)) == .attention(.deviceReset)
            )
            if isConfirmed {
                let next = bench.submit(other, bench.write(0, 2_048, 2), command: 6, lowWater: 6)
                #expect(bench.isDone(next))
                bench.advance(100 * Bench.millisecond)
            }
            bench.takeOver(other)
            #expect(bench.attentions(other) == (isConfirmed ? [] : [.deviceReset]))
            let row = bench.store.state(of: Bench.volume)?.nexuses.first { $0.number == other }
            #expect(row?.attentions == (isConfirmed ? [] : [.deviceReset]))
        }
    }
}
