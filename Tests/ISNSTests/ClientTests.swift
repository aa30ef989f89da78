import AshlarCore
import ISNS
import NIOCore
import Testing

/// The registration as a machine, against a server in memory and with a clock that the test moves.
@Suite struct ClientTests {
    private let entity = Bench.entity

    @Test func everyVolumeIsRegisteredWithPortalAndGroup() throws {
        let server = ModelServer()
        var bench = try Bench(server, [try target("b"), try target("a", alias: "first")], tag: 5)
        try bench.start()
        let own = try portal(1)
        let found = server.entity(entity)
        #expect(Set(found.portals.keys) == [own])
        #expect(found.portals[own]?.inquiryPort == 3_206 && found.portals[own]?.notificationPort == 3_206)
        #expect(found.nodes == [try target("a").name: "first", try target("b").name: "b"])
        #expect(found.groups.values.allSatisfy { $0 == [own: 5] } && found.groups.count == 2)
        // Initiators and itself; removed, added, updated.
        #expect(server.subscribers == [try target("a").name: 0x9C])
        #expect(bench.notes.contains { $0.severity == .info && $0.message.hasSuffix("iSNS server: 2") })
        // When nothing changes, nothing is said again.
        server.clearRequests()
        try bench.pass(seconds: 15)
        #expect(bench.lists == 2)
        #expect(server.requests.isEmpty)
    }

    @Test func manyVolumesGoInBoundedMessages() throws {
        let server = ModelServer()
        let volumes = try (0..<300).map { try target("volume-\($0)") }
        var bench = try Bench(server, volumes)
        try bench.start()
        #expect(server.entity(entity).nodes.count == 300)
        #expect(server.requests.filter { $0 == .deviceAttributeRegistration }.count == 5)
        bench.volumes = Array(volumes.prefix(10))
        try bench.pass(seconds: 11)
        #expect(Set(server.entity(entity).nodes.keys) == Set(volumes.prefix(10).map(\.name)))
        #expect(server.requests.filter { $0 == .deviceDeregistration }.count == 5)
    }

    @Test func volumesComeChangeAndGo() throws {
        let server = ModelServer()
        var bench = try Bench(server, [try target("b")])
        try bench.start()
        bench.volumes = [try target("b", alias: "renamed"), try target("c")]
        try bench.pass(seconds: 11)
        #expect(server.entity(entity).nodes == [try target("b").name: "renamed", try target("c").name: "c"])
        // The node in whose name requests were made goes; another takes its place, also for notifications.
        bench.volumes = [try target("c")]
        try bench.pass(seconds: 11)
        #expect(server.entity(entity).nodes == [try target("c").name: "c"])
        #expect(server.subscribers == [try target("c").name: 0x9C])
        bench.volumes = []
        try bench.pass(seconds: 11)
        #expect(server.entities.isEmpty)
        bench.volumes = [try target("d")]
        try bench.pass(seconds: 11)
        #expect(server.entity(entity).nodes == [try target("d").name: "d"])
        #expect(server.entity(entity).portals.count == 1)
    }

    @Test func allVolumesReplacedAtOnce() throws {
        let server = ModelServer()
        var bench = try Bench(server, [try target("a")])
        try bench.start()
        bench.volumes = [try target("b")]
        try bench.pass(seconds: 11)
        #expect(server.entity(entity).nodes == [try target("b").name: "b"])
        #expect(server.entity(entity).groups[try target("b").name] == [try portal(1): 1])
    }

    @Test func aFailedListChangesNothing() throws {
        let server = ModelServer()
        var bench = try Bench(server, nil)
        try bench.start()
        try bench.pass(seconds: 5)
        #expect(bench.lists == 3)
        #expect(server.requests.isEmpty)
        bench.volumes = [try target("a")]
        try bench.pass(seconds: 3)
        #expect(server.entity(entity).nodes.count == 1)
        bench.volumes = nil
        try bench.pass(seconds: 30)
        #expect(server.entity(entity).nodes.count == 1)
    }

    // MARK: Renewal

    @Test func theRegistrationIsLookedAfterWithinItsPeriod() throws {
        let server = ModelServer()
        server.periodSeconds = 30
        var bench = try Bench(server, [try target("a")])
        try bench.start()
        server.clearRequests()
        try bench.pass(seconds: 31)
        #expect(server.requests == [.deviceAttributeQuery, .deviceAttributeQuery, .deviceAttributeQuery])
        // However short or long the period is, there are bounds.
        server.periodSeconds = 1
        server.entities = [:]
        try bench.pass(seconds: 10)
        #expect(server.entity(entity).nodes.count == 1)
        server.clearRequests()
        try bench.pass(seconds: 10)
        #expect(server.requests.count <= 10)
    }

    @Test func whatTheServerHasLostIsRegisteredAgain() throws {
        let server = ModelServer()
        var bench = try Bench(server, [try target("a"), try target("b")])
        try bench.start()
        let whole = server.entity(entity)
        server.entities = [:]
        try bench.pass(seconds: 21)
        #expect(server.entity(entity).nodes == whole.nodes)
        server.entities[entity]?.portals = [:]
        try bench.pass(seconds: 21)
        #expect(Array(server.entity(entity).portals.keys) == Array(whole.portals.keys))
    }

    @Test func nodesOfVolumesThatAreGoneAreRemovedAfterAReconnect() throws {
        let server = ModelServer()
        var bench = try Bench(server, [try target("a"), try target("b")])
        try bench.start()
        try bench.lose()
        // Another run of the target, which never knew of b.
        var again = try Bench(server, [try target("a")])
        try again.start()
        #expect(server.entity(entity).nodes == [try target("a").name: "a"])
    }

    @Test func nodesThatAnotherTargetHasJustRegisteredStay() throws {
        let server = ModelServer()
        var first = try Bench(server, [try target("a")])
        try first.start()
        var second = try Bench(server, [try target("a")], last: 2, tag: 2)
        second.holdsLists = true
        try second.start()
        // The second target's list is older than what the first registers and the second then sees at the server.
        first.volumes = [try target("a"), try target("b")]
        try first.pass(seconds: 11)
        try second.answerList()
        #expect(second.pendingLists == 1)
        #expect(server.entity(entity).nodes.count == 2)
        second.volumes = first.volumes
        try second.answerList()
        #expect(server.entity(entity).nodes.count == 2)
        #expect(server.entity(entity).groups[try target("b").name] == [try portal(1): 1, try portal(2): 2])
    }

    // MARK: Connection

    @Test func aLostConnectionIsMadeAgainAfterLongerAndLongerWaits() throws {
        let server = ModelServer()
        var bench = try Bench(server, [try target("a")])
        bench.isReachable = false
        try bench.start()
        try bench.pass(seconds: 120)
        // 1, 2, 4, 8, 16, 20, 20, … seconds, each at least half as long.
        #expect((8...16).contains(bench.connects))
        #expect(bench.notes.filter { $0.severity == .warning }.count == 1)
        bench.isReachable = true
        try bench.pass(seconds: 21)
        #expect(server.entity(entity).nodes.count == 1)
        let before = bench.connects
        server.entities = [:]
        try bench.lose()
        try bench.pass(seconds: 2)
        #expect(bench.connects == before + 1)
        #expect(server.entity(entity).nodes.count == 1)
    }

    @Test func aServerThatDoesNotAnswerIsGivenUp() throws {
        let server = ModelServer()
        server.isSilent = true
        var bench = try Bench(server, [try target("a")])
        try bench.start()
        #expect(bench.isConnected)
        try bench.pass(seconds: 11)
        #expect(!bench.isConnected || bench.connects == 2)
        server.isSilent = false
        try bench.pass(seconds: 15)
        #expect(server.entity(entity).nodes.count == 1)
    }

    @Test func answersThatAreNotUnderstoodEndTheConnection() throws {
        let server = ModelServer()
        var bench = try Bench(server, [try target("a")])
        try bench.start()
        // A response to nothing is passed over.
        #expect(try bench.receive(hex("0001 8001 0004 4c00 7777 0000 00000000")).count == 1)
        let actions = try bench.receive(hex("0002 8001 0004 4c00 7777 0000 00000000"))
        #expect(actions.contains { if case .close = $0 { true } else { false } })
        try bench.run(actions)
        try bench.pass(seconds: 2)
        #expect(bench.connects == 2)
    }

    @Test func requestsOfTheServerAreAnsweredOnTheConnection() throws {
        let server = ModelServer()
        var bench = try Bench(server, [try target("a")])
        try bench.start()
        let actions = try bench.receive(hex("0001 0008 0010 4c00 0055 0000 00000020 00000008 69716e2e 61000000"))
        let sent = actions.compactMap { if case .send(let bytes) = $0 { bytes } else { nil } }
        #expect(sent == [hex("0001 8008 0014 8c00 0055 0000 00000000 00000020 00000008 69716e2e 61000000")])
    }

    // MARK: Refusals

    @Test func aServerThatDoesNotInquireIsRegisteredWithAllTheSame() throws {
        let server = ModelServer()
        server.inquires = false
        var bench = try Bench(server, [try target("a")])
        try bench.start()
        let own = try portal(1)
        #expect(server.entity(entity).portals[own]?.inquiryPort == nil)
        #expect(server.entity(entity).portals[own]?.notificationPort == 3_206)
    }

    @Test func oneThatIsRefusedDoesNotKeepTheOthersAway() throws {
        let server = ModelServer()
        let volumes = try ["a", "b", "c", "d"].map { try target($0) }
        server.refusedNames = [volumes[0].name, volumes[2].name]
        var bench = try Bench(server, volumes)
        try bench.start()
        #expect(Set(server.entity(entity).nodes.keys) == [volumes[1].name, volumes[3].name])
        #expect(bench.notes.filter { $0.severity == .warning }.count == 2)
        // It is tried again when the registration is looked after.
        server.refusedNames = []
        try bench.pass(seconds: 21)
        #expect(server.entity(entity).nodes.count == 4)
    }

    @Test func aServerThatRefusesEverythingIsLeftAloneForAWhile() throws {
        let server = ModelServer()
        let volumes = try (0..<40).map { try target("volume-\($0)") }
        server.refusedNames = Set(volumes.map(\.name))
        var bench = try Bench(server, volumes)
        try bench.start()
        #expect(!bench.isConnected)
        #expect(server.requests.filter { $0 == .deviceAttributeRegistration }.count == ISNSLimits.refusalsMaximum)
        try bench.pass(seconds: 60)
        #expect(bench.connects < 12)
    }

    @Test func nodesOfAnotherEntityAreNotTaken() throws {
        let server = ModelServer()
        server.entities["other"] = ModelServer.Entity(nodes: [try target("a").name: "theirs"])
        var bench = try Bench(server, [try target("a"), try target("b")])
        try bench.start()
        #expect(Array(server.entity(entity).nodes.keys) == [try target("b").name])
        #expect(server.entities["other"]?.nodes == [try target("a").name: "theirs"])
    }

    // MARK: End

    @Test func eachTargetTakesAwayItsPortalAndTheLastTheEntity() throws {
        let server = ModelServer()
        var first = try Bench(server, [try target("a")])
        var second = try Bench(server, [try target("a")], last: 2, tag: 2)
        try first.start()
        try second.start()
        #expect(server.entity(entity).portals.count == 2)
        try first.stop()
        #expect(first.isStopped && !first.isConnected)
        #expect(Array(server.entity(entity).portals.keys) == [try portal(2)])
        #expect(server.entity(entity).nodes.count == 1)
        try second.stop()
        #expect(second.isStopped)
        #expect(server.entities.isEmpty)
        let more = second.client.stop(now: second.now)
        #expect(more.isEmpty)
    }

    @Test func aSharedPortalStays() throws {
        let server = ModelServer()
        var bench = try Bench(server, [try target("a")], isShared: true)
        try bench.start()
        #expect(server.entity(entity).portals[try portal(1)]?.inquiryPort == nil)
        #expect(server.subscribers.isEmpty)
        try bench.stop()
        #expect(bench.isStopped)
        #expect(server.entity(entity).portals.count == 1)
    }

    @Test func theEndDoesNotWaitForASilentServer() throws {
        let server = ModelServer()
        var bench = try Bench(server, [try target("a")])
        try bench.start()
        server.isSilent = true
        try bench.stop()
        #expect(!bench.isStopped)
        try bench.pass(seconds: 2)
        #expect(bench.isStopped)
        var lost = try Bench(server, [try target("a")])
        server.isSilent = false
        try lost.start()
        server.isSilent = true
        try lost.stop()
        try lost.lose()
        #expect(lost.isStopped)
        var never = try Bench(server, nil)
        never.isReachable = false
        try never.start()
        try never.stop()
        #expect(never.isStopped)
        try never.pass(seconds: 60)
        #expect(never.connects == 1)
    }
}
