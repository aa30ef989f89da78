import AshlarCore
import Observability
import Synchronization
import Transport

/// Which servers an agent is connected to, for its readiness. Safe from any thread.
final class AgentConnections: Sendable {
    private let connected = Mutex<[Role: Set<String>]>([:])

    /// Whether there is a server to ask and a server to put to.
    var readiness: HealthReadiness {
        connected.withLock { connected in
            if connected[.cache, default: []].isEmpty { return .notReady("no cache server is connected") }
            if connected[.objects, default: []].isEmpty { return .notReady("no object server is connected") }
            return .ready
        }
    }

    /// The connection to a server has changed.
    func changed(_ name: String, _ role: Role, _ state: RPCClient.State) {
        connected.withLock { connected in
            if case .connected = state {
                connected[role, default: []].insert(name)
            } else {
                connected[role, default: []].remove(name)
            }
        }
    }
}
