import AshlarCore
import Foundation
import NIOCore
import ObjectStore
import RPC
import Testing
import Transport

@testable import ObjectServer

@Suite("An object server's life", .timeLimit(.minutes(2)))
struct ObjectServerLifeTests {
    @Test("I1: what was acknowledged is there after a restart")
    func restart() async throws {
        let cluster = try TestCluster()
        let configuration = try cluster.configuration()
        for round in 0..<2 {
            let server = try await ObjectServerService.startSmall(configuration)
            let client = try cluster.client(of: server, as: .target)
            if round == 0 {
                let bytes = try object(1, seeds: [2])
                let answer = try await client.call(
                    PutObject(object: ObjectID(1)),
                    payload: [bytes],
                    deadlineMilliseconds: patience
                )
                #expect(answer.isOK)
            } else {
                let question = GetSlots(object: ObjectID(1), firstSlot: SlotIndex(0), count: 1)
                #expect(try await client.call(question, deadlineMilliseconds: patience).isOK)
            }
            await client.close()
            await server.stop()
        }
    }

    @Test("D33: a root is created, but not the directory above it")
    func missingRoots() async throws {
        let cluster = try TestCluster()
        let server = try await ObjectServerService.startSmall(try cluster.configuration(roots: ["new", "new2/"]))
        await server.stop()
        #expect(FileManager.default.fileExists(atPath: cluster.directory + "/new"))
        let error = await #expect(throws: ObjectServerError.self) {
            _ = try await ObjectServerService.startSmall(try cluster.configuration(roots: ["away/root"]))
        }
        #expect(error?.code == .root)
        #expect(error?.message.contains("create or mount the directory above it first") == true)
    }

    @Test(
        "The directory above a root",
        arguments: [("/a/b", "/a"), ("/a/b/", "/a"), ("/a", "/"), ("a", "."), ("a/b", "a")]
    )
    func parents(path: String, parent: String) {
        #expect(ObjectRoots.parent(of: path) == parent)
    }

    @Test("D33: two servers do not share a root")
    func lockedRoot() async throws {
        try await withServer { cluster, _, _ async throws in
            await #expect(throws: ObjectStoreError.self) {
                _ = try await ObjectServerService.startSmall(try cluster.configuration())
            }
        }
    }

    @Test("A certificate of another role, name or cluster is refused, and so is number 0")
    func identity() async throws {
        let cluster = try TestCluster()
        let good = try cluster.configuration()
        var wrong: [ObjectServerConfiguration] = []
        var next = good
        next.node = try cluster.node(.target, "objects-1")
        wrong.append(next)
        next = good
        next.node.name = "other"
        wrong.append(next)
        next = good
        next.node.clusterID = "00000000-0000-4000-8000-000000000000"
        wrong.append(next)
        next = good
        next.serverID = ObjectServerID(0)
        wrong.append(next)
        for configuration in wrong {
            let error = await #expect(throws: ObjectServerError.self) {
                _ = try await ObjectServerService.startSmall(configuration)
            }
            #expect(error?.code == .configuration)
        }
    }

    @Test("Nothing stays open where the address is taken")
    func addressTaken() async throws {
        try await withServer { cluster, server, _ async throws in
            var configuration = try cluster.configuration(roots: ["second"])
            configuration.listenPort = server.endpoint.port
            await #expect(throws: TransportError.self) {
                _ = try await ObjectServerService.startSmall(configuration)
            }
            configuration.listenPort = 0
            let second = try await ObjectServerService.startSmall(configuration)
            await second.stop()
        }
    }

    @Test("Another object server is nobody to talk to")
    func acceptedRoles() async throws {
        try await withServer(as: .objects) { _, _, client async throws in
            await #expect(throws: RPCFailure.self) {
                _ = try await client.call(ObjectStatistics(), deadlineMilliseconds: 1_000)
            }
        }
    }

    @Test("It runs until its task is cancelled, and the roots are free then")
    func cancellation() async throws {
        let cluster = try TestCluster()
        var configuration = try cluster.configuration()
        configuration.node.metricsListen = "127.0.0.1:0"
        for _ in 0..<2 {
            let running = Task { [configuration] in try await runObjectServer(configuration, logger: quiet) }
            try await Task.sleep(for: .milliseconds(50))
            running.cancel()
            try await running.value
        }
    }
}
