import AshlarCore
import BlockObjects
import Foundation
import NIOCore
import ObjectServer
import RPC
import Testing
import Transport

@testable import Agent
@testable import AgentPlanning

/// A fake cache server, real object servers, and an agent that does only what it is told, or everything by itself.
struct Bench {
    let cluster: TestCluster
    let cache: FakeCache
    let objects: [ObjectServerService]
    let agent: AgentService
    let clients: [RPCClientHandle]

    var jobs: AgentJobs { agent.jobs }

    static func run(
        objectServers: Int = 1,
        deadObjectServers: Int = 0,
        worksByItself: Bool = false,
        movesInFlight: Int = 2,
        prepare: (FakeCache) -> Void = { _ in },
        _ body: (Bench) async throws -> Void
    ) async throws {
        let cluster = try TestCluster()
        let cache = try await FakeCache.start(cluster)
        prepare(cache)
        var objects: [ObjectServerService] = []
        var endpoints: [Int32: String] = [:]
        var clients: [RPCClientHandle] = []
        for id in 1...Int32(objectServers) {
            let server = try await cluster.objectServer(id)
            objects.append(server)
            clients.append(try cluster.client(of: server))
            endpoints[id] = "\(server.endpoint)"
        }
        // Port 9 of the loopback address: nobody listens.
        for id in 0..<Int32(deadObjectServers) { endpoints[100 + id] = "127.0.0.1:9" }
        let configuration = AgentConfiguration(
            node: try cluster.node(.agent, "agent-1"),
            cacheEndpoints: [cache.endpoint],
            objectServers: endpoints,
            idleMilliseconds: 20,
            movesInFlight: movesInFlight,
            scanSeconds: 0
        )
        let agent = try await AgentService.start(configuration, logger: quiet) { planner in
            guard !worksByItself else { return }
            // Centuries: the planner then never comes to anything by itself.
            planner.idleNanoseconds = .max / 4
        }
        let bench = Bench(cluster: cluster, cache: cache, objects: objects, agent: agent, clients: clients)
        let result: Result<Void, any Error>
        do {
            try await bench.waitForConnections()
            result = .success(try await body(bench))
        } catch {
            result = .failure(error)
        }
        cache.release()
        await agent.stop()
        for client in clients { await client.close() }
        for server in objects { await server.stop() }
        await cache.stop()
        try result.get()
    }

    private func waitForConnections() async throws {
        while await jobs.peers.connectedObjectServers().count < objects.count {
            try await Task.sleep(for: .milliseconds(5))
        }
    }

    func perform(_ kind: AgentPlanner.Kind) async -> AgentPlanner.Outcome {
        await jobs.perform(AgentPlanner.Job(kind: kind, cache: 0)) {}
    }

    /// The objects that lie on the n-th server, ascending.
    func listed(_ index: Int = 0) async throws -> [ObjectID] {
        let (page, _) = try await clients[index].call(
            ListObjects(after: nil, limit: 10_000),
            answer: ListObjects.Answer.self,
            deadlineMilliseconds: patience
        )
        return page.objects.sorted()
    }

    /// Puts an object of one block behind the agent's back; its id has been handed out, unless it is said that it has not.
    func putAlien(_ id: UInt64, server index: Int = 0, wasHandedOut: Bool = true) async throws {
        if wasHandedOut { cache.with { $0.nextObject = max($0.nextObject, id + 1) } }
        var builder = try BlockObjectBuilder(
            objectID: ObjectID(id),
            volumeID: FakeCache.volume,
            volumeUUID: FakeCache.uuid,
            blockSizeBytes: FakeCache.blockSizeBytes,
            compressor: nil
        )
        let bytes = block(seed: id)
        try builder.add(block: BlockID(1), version: Version(1), checksum: bytes.checksum, bytes: bytes)
        let answer = try await clients[index].call(
            PutObject(object: ObjectID(id)),
            payload: [try builder.finish()],
            deadlineMilliseconds: patience
        )
        #expect(answer.isOK)
    }

    /// Changes a byte of the stored bytes of an object's last slot, on the n-th server.
    func damageEnd(of object: ObjectID, server index: Int = 0) throws {
        let name = String(object.rawValue, radix: 16)
        let root = "\(cluster.directory)/root-\(index + 1)"
        let found = FileManager.default.enumerator(atPath: root)?.compactMap { $0 as? String }.first { path in
            let file = URL(filePath: path).deletingPathExtension().lastPathComponent
            return path.hasSuffix(".object") && file.drop { $0 == "0" } == name
        }
        let path = root + "/" + (try #require(found))
        var bytes = try #require(FileManager.default.contents(atPath: path))
        bytes[bytes.count - 1] ^= 0xFF
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
        try bytes.write(to: URL(filePath: path))
    }

    /// Reads a block through its extent from the object server that its row names.
    func readExtent(_ id: UInt64) async throws -> ByteBuffer? {
        let found = cache.with { state -> (FakeCache.Place, ObjectServerID)? in
            guard let place = state.extents[BlockID(id)], let row = state.rows[place.object] else { return nil }
            return (place, row.server)
        }
        guard let (place, server) = found else { return nil }
        var (answer, payload) = try await clients[Int(server.rawValue) - 1].call(
            GetSlots(object: place.object, firstSlot: place.slot, count: 1),
            answer: GetSlots.Answer.self,
            deadlineMilliseconds: patience
        )
        let slot = try #require(answer.slots.first)
        #expect(slot.block == BlockID(id))
        let bytes = payload.readSlice(length: Int(slot.storedBytes))
        let stored = StoredSlot(
            encoding: try #require(SlotEncoding(rawValue: slot.encoding)),
            bytes: try #require(bytes),
            checksum: slot.checksum
        )
        return try stored.decoded(
            blockSizeBytes: FakeCache.blockSizeBytes,
            slot: place.slot,
            using: try BlockInflater()
        )
    }
}

/// Waits until `condition` holds, at most ten seconds.
func eventually(_ condition: () async throws -> Bool) async throws {
    for _ in 0..<2_000 {
        if try await condition() { return }
        try await Task.sleep(for: .milliseconds(5))
    }
    Issue.record("it did not come to pass")
}
