import AshlarCore
import Ownership
import Testing

@testable import PostgresStore

/// R9 in PostgreSQL: a volume that is given up for another server, and what servers see of one another.
@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"))
struct HandOverStoreTests {
    private func register(_ fixture: Fixture, _ name: String) async throws -> CacheServerID {
        try await ask {
            fixture.store.registerServer(
                name: name,
                endpoint: "\(name):7401",
                leaseMilliseconds: 600_000,
                completion: $0
            )
        }
    }

    private func giveUp(_ fixture: Fixture, to successor: CacheServerID, epoch: Epoch? = nil) async throws -> Bool {
        try await ask {
            fixture.store.relinquish(
                volume: fixture.volume,
                epoch: epoch ?? fixture.epoch,
                server: fixture.server,
                successor: successor,
                completion: $0
            )
        }
    }

    private func holder(_ fixture: Fixture, asked server: CacheServerID) async throws -> String? {
        let result = try await ask {
            fixture.store.takeOver(volume: fixture.volume, server: server, completion: $0)
        }
        guard case .heldBy(_, let endpoint, _) = result else { return nil }
        return endpoint
    }

    private func survey(_ fixture: Fixture, _ server: CacheServerID) async throws -> CacheSurvey {
        try await ask { fixture.store.surveyServers(server: server, completion: $0) }
    }

    @Test func r9TheSuccessorAloneTakesOverWhatWasGivenUpForIt() async throws {
        let fixture = try await Fixture()
        let successor = try await register(fixture, "b")
        let third = try await register(fixture, "c")
        #expect(try await holder(fixture, asked: successor) == "a:7401")
        #expect(try await !giveUp(fixture, to: successor, epoch: Epoch(fixture.epoch.rawValue + 1)))
        #expect(try await giveUp(fixture, to: successor))
        // Asked again it does no harm.
        #expect(try await giveUp(fixture, to: successor))
        #expect(try await holder(fixture, asked: third) == "b:7401")
        #expect(try await holder(fixture, asked: fixture.server) == "b:7401")
        #expect(try await survey(fixture, successor).handedOver == [fixture.volume])
        #expect(try await survey(fixture, third).handedOver.isEmpty)
        let ownership = try await Fixture.own(fixture.store, fixture.volume, successor)
        #expect(ownership.epoch == Epoch(fixture.epoch.rawValue + 1))
        #expect(try await survey(fixture, successor).handedOver.isEmpty)
        // The epoch that was given up is over.
        #expect(try await !giveUp(fixture, to: third))
        #expect(try fixture.number("SELECT count(*) FROM volume_epochs WHERE handed_to IS NOT NULL") == 0)
    }

    @Test func whereTheSuccessorDoesNotComeAnyServerTakesOver() async throws {
        let fixture = try await Fixture()
        let successor = try await register(fixture, "b")
        let third = try await register(fixture, "c")
        #expect(try await giveUp(fixture, to: successor))
        #expect(try await holder(fixture, asked: third) == "b:7401")
        try fixture.connect().query("UPDATE volume_epochs SET handed_at = handed_at - interval '5 s'")
        #expect(try await Fixture.own(fixture.store, fixture.volume, third).epoch > fixture.epoch)
        let again = try await Fixture()
        let dead = try await register(again, "b")
        let other = try await register(again, "c")
        #expect(try await giveUp(again, to: dead))
        try await ask { again.store.releaseLeases(name: "b", except: nil, completion: $0) }
        #expect(try await Fixture.own(again.store, again.volume, other).epoch > again.epoch)
    }

    @Test func serversSeeOneAnotherWithWhatTheyOwn() async throws {
        let fixture = try await Fixture()
        let successor = try await register(fixture, "b")
        for _ in 0..<2 { _ = try await register(fixture, "b") }
        var servers = try await survey(fixture, fixture.server).servers
        #expect(servers.map(\.name) == ["a", "b", "b", "b"] && servers.map(\.recentStarts) == [1, 3, 3, 3])
        #expect(
            servers.map(\.idleVolumes) == [1, 0, 0, 0] && servers.allSatisfy { $0.usedVolumes == 0 && !$0.isLeaving }
        )
        let row = NexusRow(
            number: NexusNumber(1),
            ports: InitiatorTargetNexus(initiatorName: "i", isid: 1, portalGroupTag: 1),
            node: "t",
            mark: NexusMark(nexus: NexusNumber(1), lowWater: CommandID(0), done: [])
        )
        _ = try await ask {
            fixture.store.openNexus(volume: fixture.volume, epoch: fixture.epoch, nexus: row, completion: $0)
        }
        try fixture.connect().query("INSERT INTO cache_nodes (name, draining) VALUES ('b', true)")
        try await ask { fixture.store.markStopping(server: fixture.server, completion: $0) }
        servers = try await survey(fixture, fixture.server).servers
        #expect(servers.map(\.usedVolumes) == [1, 0, 0, 0] && servers.map(\.isLeaving) == [true, true, true, true])
        // What is given up counts for who is to get it.
        #expect(try await giveUp(fixture, to: successor))
        #expect(try await survey(fixture, fixture.server).servers.map(\.usedVolumes) == [0, 1, 0, 0])
        let seen = try fixture.connect().query(
            "SELECT name, draining, stopping, volumes FROM ashlar_inspect.cache_servers WHERE lease_valid ORDER BY started_at"
        )
        #expect(try seen.map { try $0.bool("draining") } == [false, true, true, true])
        #expect(try seen[0].bool("stopping") == true && seen[0].int64("volumes") == 0)
    }
}
