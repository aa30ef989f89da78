import AgentPlanning
import AshlarCore
import NIOCore
import RPC
import Transport

/// A server that an agent talks to.
struct AgentPeer: Sendable {
    /// For log lines and errors.
    let name: String
    private let client: RPCClientHandle

    init(name: String, client: RPCClientHandle) {
        self.name = name
        self.client = client
    }

    /// Whether it is connected now.
    var isConnected: Bool {
        get async {
            if case .connected = await client.state() { return true }
            return false
        }
    }

    /// Asks, and waits for an answer that is a message with what follows it.
    func ask<M: RPCMessage, A: RPCMessage>(
        _ message: M,
        answer: A.Type,
        deadlineMilliseconds: UInt32
    ) async throws(AgentError) -> (A, payload: ByteBuffer) {
        var reply = try await call(message, payload: [], deadlineMilliseconds: deadlineMilliseconds)
        do {
            let decoded = try reply.decode(A.self)
            return (decoded, reply.body)
        } catch {
            throw AgentError(error, asking: name)
        }
    }

    /// Asks, and waits for an answer without contents.
    func tell<M: RPCMessage>(
        _ message: M,
        payload: [ByteBuffer] = [],
        deadlineMilliseconds: UInt32
    ) async throws(AgentError) {
        let reply = try await call(message, payload: payload, deadlineMilliseconds: deadlineMilliseconds)
        if let error = reply.error { throw AgentError(error, asking: name) }
    }

    /// Ends the connection; everything in flight fails.
    func close() async { await client.close() }

    private func call<M: RPCMessage>(
        _ message: M,
        payload: [ByteBuffer],
        deadlineMilliseconds: UInt32
    ) async throws(AgentError) -> RPCAnswer {
        do {
            return try await client.call(message, payload: payload, deadlineMilliseconds: deadlineMilliseconds)
        } catch {
            throw AgentError(error, asking: name)
        }
    }
}

/// All servers of an agent.
struct AgentPeers: Sendable {
    /// In the order of the configuration.
    let caches: [AgentPeer]
    /// By number.
    let objects: [ObjectServerID: AgentPeer]

    /// The object servers that are connected now.
    func connectedObjectServers() async -> Set<ObjectServerID> {
        var connected: Set<ObjectServerID> = []
        for (id, peer) in objects where await peer.isConnected { connected.insert(id) }
        return connected
    }

    func closeAll() async {
        for peer in caches { await peer.close() }
        for peer in objects.values { await peer.close() }
    }
}
