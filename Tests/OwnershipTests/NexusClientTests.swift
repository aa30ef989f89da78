import AshlarCore
import AshlarTestSupport
import Testing

@testable import Ownership

@Suite("The target's side of a nexus")
struct NexusClientTests {
    typealias Client = NexusClient<Int, String>

    enum Event: Equatable {
        case send(UInt64, attempt: UInt32, proved: Stamp)
        case complete(Int, String)
        case stamp(UInt64)
        case ping
        case resume(Stamp)
        case locate
        case drop
    }

    static func drain(_ client: inout Client) -> [Event] {
        var events: [Event] = []
        while let action = client.nextAction() {
            switch action {
            case .send(let id, let attempt, _, let context):
                events.append(.send(id.rawValue, attempt: attempt, proved: context.proved))
            case .complete(let request, .answered(let answer)): events.append(.complete(request, answer))
            case .complete(let request, .committedEarlier): events.append(.complete(request, "committed"))
            case .complete(let request, .aborted): events.append(.complete(request, "aborted"))
            case .stampArrived(let token): events.append(.stamp(token))
            case .ping: events.append(.ping)
            case .resume(_, let stamp): events.append(.resume(stamp))
            case .locate: events.append(.locate)
            case .drop: events.append(.drop)
            }
        }
        return events
    }

    static func stamp(_ epoch: UInt64, _ milliseconds: UInt64) -> Stamp {
        Stamp(epoch: Epoch(epoch), time: MonotonicTime(milliseconds * 1_000_000))
    }

    static let deadline = MonotonicTime(20_000_000_000)

    static func client() -> Client {
        Client(volume: VolumeID(1), nexus: NexusNumber(1), opened: stamp(1, 100))
    }

    @Test("the stamp of a refusal is proved at once, however shortly it follows another")
    func refusalProved() {
        var client = Self.client()
        let first = client.submit(1, isChange: true, deadline: Self.deadline)
        _ = client.submit(2, isChange: true, deadline: Self.deadline)
        _ = Self.drain(&client)
        client.answered(first, attempt: 1, .refused("aborted", Self.stamp(1, 101)))
        #expect(Self.drain(&client) == [.stamp(1), .complete(1, "aborted")])
        client.proved(token: 1)
        _ = client.submit(3, isChange: true, deadline: Self.deadline)
        #expect(Self.drain(&client) == [.send(3, attempt: 1, proved: Self.stamp(1, 101))])
    }

    @Test("R1: a stamp is used once it is proved, and a refused command goes out again with it")
    func proof() {
        var client = Self.client()
        let id = client.submit(1, isChange: true, deadline: Self.deadline)
        #expect(Self.drain(&client) == [.send(1, attempt: 1, proved: Self.stamp(1, 100))])
        client.answered(id, attempt: 1, .unproved(Self.stamp(1, 5_000)))
        #expect(Self.drain(&client) == [.stamp(1), .ping])
        _ = client.submit(2, isChange: true, deadline: Self.deadline)
        #expect(Self.drain(&client) == [.send(2, attempt: 1, proved: Self.stamp(1, 100))])
        client.proved(token: 1)
        #expect(Self.drain(&client) == [.send(1, attempt: 2, proved: Self.stamp(1, 5_000))])
        // The second was sent with the old proof; its refusal comes after the new one.
        client.answered(CommandID(2), attempt: 1, .unproved(Self.stamp(1, 5_010)))
        #expect(Self.drain(&client) == [.send(2, attempt: 2, proved: Self.stamp(1, 5_000))])
        client.answered(id, attempt: 1, .final("late", nil))
        client.answered(id, attempt: 2, .final("done", Self.stamp(1, 5_100)))
        #expect(Self.drain(&client) == [.stamp(2), .complete(1, "done")])
    }

    @Test("R4: a broken connection is healed by sending again under the same ids")
    func sameEpoch() {
        var client = Self.client()
        for request in 1...3 { _ = client.submit(request, isChange: request != 2, deadline: Self.deadline) }
        _ = Self.drain(&client)
        client.answered(CommandID(2), attempt: 1, .final("read", nil))
        client.answered(CommandID(1), attempt: 1, .ownerLost)
        client.answered(CommandID(3), attempt: 1, .ownerLost)
        _ = client.submit(4, isChange: true, deadline: Self.deadline)
        #expect(Self.drain(&client) == [.complete(2, "read"), .locate])
        client.ownerFound(Self.stamp(1, 110))
        let proof = Self.stamp(1, 100)
        #expect(
            Self.drain(&client) == [
                .send(1, attempt: 2, proved: proof), .send(3, attempt: 2, proved: proof),
                .send(4, attempt: 1, proved: proof),
            ]
        )
    }

    @Test("a change goes out, and again, with what was proved when it came; a read with what is proved now")
    func proofOfArrival() {
        var client = Self.client()
        _ = client.submit(1, isChange: true, deadline: Self.deadline)
        client.ownerLost()
        _ = client.submit(2, isChange: true, deadline: Self.deadline)
        _ = client.submit(3, isChange: false, deadline: Self.deadline)
        client.stampArrived(Self.stamp(1, 900))
        _ = Self.drain(&client)
        client.proved(token: 1)
        client.ownerFound(Self.stamp(1, 910))
        let old = Self.stamp(1, 100)
        #expect(
            Self.drain(&client) == [
                .send(1, attempt: 2, proved: old), .send(2, attempt: 1, proved: old),
                .send(3, attempt: 1, proved: Self.stamp(1, 900)),
            ]
        )
        client.answered(CommandID(2), attempt: 1, .unproved(nil))
        #expect(Self.drain(&client) == [.send(2, attempt: 2, proved: Self.stamp(1, 900))])
    }

    @Test("R2 R9: in a new epoch changes are sent again that are neither durable nor aborted")
    func newEpoch() {
        var client = Self.client()
        for request in 1...3 { _ = client.submit(request, isChange: request != 3, deadline: Self.deadline) }
        client.ownerLost()
        _ = client.submit(4, isChange: true, deadline: Self.deadline)
        _ = Self.drain(&client)
        client.ownerFound(Self.stamp(2, 7))
        #expect(Self.drain(&client) == [.stamp(1), .ping])
        client.proved(token: 1)
        #expect(Self.drain(&client) == [.resume(Self.stamp(2, 7))])
        client.resumeRefused(unproved: Self.stamp(2, 9_000))
        #expect(Self.drain(&client) == [.stamp(2), .ping])
        client.proved(token: 2)
        #expect(Self.drain(&client) == [.resume(Self.stamp(2, 9_000))])
        client.resumed(done: [CommandID(2)], aborted: nil, Self.stamp(2, 9_010))
        let proof = Self.stamp(2, 9_000)
        #expect(
            Self.drain(&client) == [
                .complete(2, "committed"), .send(1, attempt: 2, proved: Self.stamp(2, 7)),
                .send(3, attempt: 2, proved: proof),
                .send(4, attempt: 1, proved: Self.stamp(2, 7)),
            ]
        )
        client.answered(CommandID(4), attempt: 1, .unproved(nil))
        #expect(Self.drain(&client) == [.send(4, attempt: 2, proved: proof)])
    }

    @Test("R9: what another nexus aborted is not sent again, whatever was proved since it came")
    func abortedByAnother() {
        var client = Self.client()
        _ = client.submit(1, isChange: true, deadline: Self.deadline)
        _ = Self.drain(&client)
        client.stampArrived(Self.stamp(1, 900))
        client.proved(token: 1)
        client.answered(CommandID(1), attempt: 1, .unproved(nil))
        _ = client.submit(2, isChange: true, deadline: Self.deadline)
        _ = client.submit(3, isChange: false, deadline: Self.deadline)
        _ = Self.drain(&client)
        client.ownerLost()
        _ = client.submit(4, isChange: true, deadline: Self.deadline)
        // Task management is not a task that others abort.
        _ = client.submit(5, isChange: true, isManagement: true, deadline: Self.deadline)
        client.ownerFound(Self.stamp(3, 7))
        client.proved(token: 2)
        _ = client.submit(6, isChange: true, deadline: Self.deadline)
        _ = Self.drain(&client)
        // In the epoch between; of this one it is known, too, that 6 came behind it.
        client.resumed(done: [], aborted: Self.stamp(2, 5), Self.stamp(3, 8))
        #expect(
            Self.drain(&client) == [
                .complete(1, "aborted"), .complete(2, "aborted"), .complete(4, "aborted"),
                .send(3, attempt: 2, proved: Self.stamp(3, 7)), .send(5, attempt: 1, proved: Self.stamp(3, 7)),
                .send(6, attempt: 1, proved: Self.stamp(3, 7)),
            ]
        )
        // What came behind the reset of an epoch is sent again.
        var other = Self.client()
        _ = other.submit(1, isChange: true, deadline: Self.deadline)
        other.ownerLost()
        other.ownerFound(Self.stamp(2, 7))
        other.proved(token: 1)
        _ = Self.drain(&other)
        other.resumed(done: [], aborted: Self.stamp(1, 99), Self.stamp(2, 8))
        #expect(Self.drain(&other) == [.send(1, attempt: 2, proved: Self.stamp(2, 7))])
    }

    @Test("R9: what the nexus's own task management took back is not sent again", arguments: [false, true])
    func abortedByItself(isAnswered: Bool) {
        var client = Self.client()
        _ = client.submit(1, isChange: true, deadline: Self.deadline)
        let reset = client.submit(2, isChange: true, isManagement: true, deadline: Self.deadline)
        _ = client.submit(3, isChange: true, deadline: Self.deadline)
        _ = Self.drain(&client)
        if isAnswered { client.answered(reset, attempt: 1, .final("reset", nil)) }
        client.ownerLost()
        client.ownerFound(Self.stamp(2, 7))
        client.proved(token: 1)
        _ = Self.drain(&client)
        client.resumed(done: isAnswered ? [] : [reset], aborted: nil, Self.stamp(2, 8))
        let events = Self.drain(&client)
        #expect(events.first == .complete(1, "aborted"))
        #expect(events.contains(.complete(2, "committed")) != isAnswered)
        #expect(events.last == .send(3, attempt: 2, proved: Self.stamp(2, 7)))
    }

    @Test("R9: an old owner's last word does not send the target looking for another one")
    func lateRefusals() {
        for disposition in [NexusDisposition<String>.ownerLost, .notSent] {
            var client = Self.client()
            let id = client.submit(1, isChange: true, deadline: Self.deadline)
            client.ownerFound(Self.stamp(2, 7))
            _ = Self.drain(&client)
            client.answered(id, attempt: 1, disposition)
            client.proved(token: 1)
            #expect(Self.drain(&client) == [.resume(Self.stamp(2, 7))])
        }
    }

    @Test("R6: what waited for a nexus to be resumed carries the proof with which that was first asked for")
    func resumedTwice() {
        var client = Self.client()
        client.ownerLost()
        _ = client.submit(1, isChange: true, deadline: Self.deadline)
        client.ownerFound(Self.stamp(2, 10))
        client.proved(token: 1)
        #expect(Self.drain(&client) == [.locate, .stamp(1), .ping, .resume(Self.stamp(2, 10))])
        // The answer is lost, or late; more is proved meanwhile.
        client.stampArrived(Self.stamp(2, 900))
        client.proved(token: 2)
        client.ownerLost()
        client.ownerFound(Self.stamp(2, 910))
        #expect(Self.drain(&client) == [.stamp(2), .locate, .resume(Self.stamp(2, 900))])
        client.resumed(done: [], aborted: nil, Self.stamp(2, 920))
        _ = client.submit(2, isChange: true, deadline: Self.deadline)
        #expect(
            Self.drain(&client) == [
                .send(1, attempt: 1, proved: Self.stamp(2, 10)), .send(2, attempt: 1, proved: Self.stamp(2, 900)),
            ]
        )
    }

    @Test("R2 R6: an epoch that was proved while its owner was out of reach is resumed before anything is sent")
    func provedWhileLocating() {
        var client = Self.client()
        _ = client.submit(1, isChange: true, deadline: Self.deadline)
        client.ownerLost()
        client.ownerFound(Self.stamp(2, 10))
        client.ownerLost()
        client.proved(token: 1)
        _ = Self.drain(&client)
        client.ownerFound(Self.stamp(2, 20))
        #expect(Self.drain(&client) == [.resume(Self.stamp(2, 10))])
        // The answer to a resumption of an earlier epoch changes nothing.
        client.ownerLost()
        client.ownerFound(Self.stamp(3, 5))
        client.proved(token: 2)
        #expect(Self.drain(&client) == [.locate, .stamp(2), .ping, .resume(Self.stamp(3, 5))])
        client.resumed(done: [CommandID(1)], aborted: nil, Self.stamp(2, 30))
        #expect(Self.drain(&client).isEmpty)
        client.resumed(done: [CommandID(1)], aborted: nil, Self.stamp(3, 30))
        #expect(Self.drain(&client) == [.complete(1, "committed")])
    }

    @Test("R5: a proof of a newer epoch makes the target look for its owner")
    func newerProof() {
        var client = Self.client()
        client.stampArrived(Self.stamp(2, 1))
        client.proved(token: 1)
        #expect(Self.drain(&client) == [.stamp(1), .locate])
        _ = client.submit(1, isChange: true, deadline: Self.deadline)
        #expect(Self.drain(&client).isEmpty)
        client.ownerFound(Self.stamp(2, 2))
        #expect(Self.drain(&client) == [.resume(Self.stamp(2, 1))])
    }

    @Test("R5: so does one that comes while a proof of an older epoch is awaited")
    func newerProofThanAwaited() {
        var client = Self.client()
        client.stampArrived(Self.stamp(1, 900))
        client.ownerLost()
        client.ownerFound(Self.stamp(2, 1))
        #expect(Self.drain(&client) == [.stamp(1), .locate, .stamp(2), .ping])
        client.proved(token: 1)
        #expect(Self.drain(&client).isEmpty)
        client.stampArrived(Self.stamp(3, 1))
        client.proved(token: 3)
        #expect(Self.drain(&client) == [.stamp(3), .locate])
        client.ownerFound(Self.stamp(3, 2))
        #expect(Self.drain(&client) == [.resume(Self.stamp(3, 1))])
    }

    @Test("R6: at the deadline what never ran is failed, and what may have run is met with silence")
    func deadlines() {
        var client = Self.client()
        client.ownerLost()
        _ = client.submit(1, isChange: true, deadline: Self.deadline)
        _ = Self.drain(&client)
        client.tick(now: Self.deadline, giveUp: "nothing was done")
        #expect(Self.drain(&client) == [.complete(1, "nothing was done")])
        client.ownerFound(Self.stamp(1, 101))
        _ = client.submit(2, isChange: true, deadline: Self.deadline)
        _ = client.submit(3, isChange: false, deadline: Self.deadline)
        #expect(Self.drain(&client).count == 2)
        client.answered(CommandID(2), attempt: 1, .unproved(nil))
        client.tick(now: Self.deadline, giveUp: "nothing was done")
        #expect(
            Self.drain(&client) == [.ping, .complete(2, "nothing was done"), .complete(3, "nothing was done")]
        )
        // Sent twice, refused the second time: what became of the first is not known.
        let id = client.submit(4, isChange: true, deadline: Self.deadline)
        client.ownerLost()
        client.ownerFound(Self.stamp(1, 102))
        client.answered(id, attempt: 2, .unproved(nil))
        _ = Self.drain(&client)
        client.tick(now: Self.deadline, giveUp: "nothing was done")
        #expect(Self.drain(&client) == [.drop])
    }

    @Test("R4 I10: ids run ahead of a command without an answer only as far as the owner keeps answers")
    func window() {
        #expect(NexusClientLimits.idsAheadMaximum < UInt64(OwnerLimits.answersPerNexusMaximum))
        var client = Self.client()
        let total = NexusClientLimits.idsAheadMaximum + 10
        for request in 0..<Int(total) { _ = client.submit(request, isChange: true, deadline: Self.deadline) }
        var sent = Self.drain(&client).count
        #expect(UInt64(sent) == NexusClientLimits.idsAheadMaximum)
        for id in 2...NexusClientLimits.idsAheadMaximum { client.answered(CommandID(id), attempt: 1, .final("", nil)) }
        #expect(!Self.drain(&client).contains { if case .send = $0 { true } else { false } })
        client.answered(CommandID(1), attempt: 1, .final("", nil))
        sent = Self.drain(&client).filter { if case .send = $0 { true } else { false } }.count
        #expect(sent == 10)
    }

    @Test("R3: a nexus that its owner closed ends the session")
    func closed() {
        var client = Self.client()
        let id = client.submit(1, isChange: true, deadline: Self.deadline)
        _ = Self.drain(&client)
        client.answered(id, attempt: 1, .nexusClosed)
        #expect(Self.drain(&client) == [.drop])
        client.ownerLost()
        client.stampArrived(Self.stamp(4, 4))
        client.tick(now: Self.deadline, giveUp: "")
        #expect(Self.drain(&client).isEmpty)
    }
}
