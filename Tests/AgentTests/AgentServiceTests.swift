import AshlarCore
import Observability
import RPC
import Testing
import Transport

@testable import Agent
@testable import AgentPlanning

@Suite("An agent by itself", .timeLimit(.minutes(2)))
struct AgentServiceTests {
    @Test("I8, I10: it moves everything, with no more objects in memory than it may have")
    func drains() async throws {
        let seeds = (0..<60).map { UInt64($0) }
        try await Bench.run(objectServers: 2, worksByItself: true, movesInFlight: 3) {
            $0.write(from: 100, seeds: seeds)
        } _: { bench async throws in
            try await eventually { bench.cache.unmoved == 0 }
            for (index, seed) in seeds.enumerated() {
                #expect(try await bench.readExtent(100 + UInt64(index)) == block(seed: seed))
            }
            #expect(bench.cache.with { $0.handedOutMaximum } <= 3)
            // It wakes by itself for what comes later.
            bench.cache.write(from: 500, seeds: [77])
            try await eventually { bench.cache.unmoved == 0 }
        }
    }

    @Test("A stop waits for the map of an object that is put, and asks for nothing more")
    func gracefulStop() async throws {
        try await Bench.run(worksByItself: true, movesInFlight: 1) {
            $0.with { $0.held = [MapMove.type] }
            $0.write(from: 10, seeds: [2, 4])
        } _: { bench async throws in
            try await eventually { bench.cache.with { !$0.heldAnswers.isEmpty } }
            let agent = bench.agent
            let stopping = Task {
                await agent.stop()
                return bench.cache.with { $0.rows[ObjectID(1)]?.state }
            }
            while !bench.jobs.gate.isClosed { await Task.yield() }
            bench.cache.write(from: 20, seeds: [6])
            bench.cache.release()
            #expect(await stopping.value == .live, "it was mapped before the stop was done")
            #expect(bench.cache.unmoved == 1)
            #expect(bench.cache.with { $0.rows.count } == 1)
        }
    }

    @Test("I10: nobody enters a closed gate, and a close waits for who is inside")
    func gate() async {
        let gate = AgentGate()
        #expect(gate.enter() && gate.enter())
        gate.close()
        #expect(!gate.enter())
        async let empty: Void = gate.waitUntilEmpty()
        gate.leave()
        gate.leave()
        await empty
        await gate.waitUntilEmpty()
    }

    @Test("It runs until its task is cancelled, also when no server is there")
    func cancellation() async throws {
        let cluster = try TestCluster()
        let configuration = AgentConfiguration(
            node: try cluster.node(.agent, "agent-1"),
            cacheEndpoints: ["127.0.0.1:9"],
            objectServers: [1: "127.0.0.1:9"],
            idleMilliseconds: 1
        )
        let running = Task { try await runAgent(configuration, logger: quiet) }
        try await Task.sleep(for: .milliseconds(50))
        running.cancel()
        try await running.value
    }

    @Test("Configurations that cannot work are refused")
    func configuration() async throws {
        let cluster = try TestCluster()
        let good = AgentConfiguration(
            node: try cluster.node(.agent, "agent-1"),
            cacheEndpoints: ["127.0.0.1:9"],
            objectServers: [1: "127.0.0.1:9"]
        )
        var bad = [AgentConfiguration](repeating: good, count: 8)
        bad[0].cacheEndpoints = []
        bad[1].objectServers = [:]
        bad[2].cacheEndpoints = ["nowhere"]
        bad[3].objectServers = [1: "127.0.0.1:port"]
        bad[4].objectServers = [0: "127.0.0.1:9"]
        bad[5].movesInFlight = 0
        bad[6].node = try cluster.node(.target, "agent-1")
        bad[7].node.name = "other"
        for configuration in bad {
            let error = await #expect(throws: AgentError.self) {
                _ = try await AgentService.start(configuration, logger: quiet)
            }
            #expect(error?.code == .configuration)
        }
    }

    @Test("Ready means: a cache server and an object server are connected")
    func readiness() {
        let connections = AgentConnections()
        let peer = RPCClient.State.disconnected(reason: "test")
        #expect(connections.readiness == .notReady("no cache server is connected"))
        connections.changed("a", .cache, peer)
        #expect(connections.readiness == .notReady("no cache server is connected"))
    }
}
