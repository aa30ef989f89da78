import NIOConcurrencyHelpers
import NIOCore
import Observability

/// The one thing that all event loops of a target share: the node's state, and the way to one another.
///
/// Safe from any thread. A lock is held for a few steps where connections, logins and reports come and go, never for a command
/// that reads or writes.
final class SharedNode: Sendable {
    private let state: NIOLockedValueBox<NodeState>
    private let services = NIOLockedValueBox<[NIOLoopBound<TargetService>]>([])
    /// `address:port,tag` as SendTargets returns it.
    let portal: String

    init(_ state: NodeState) {
        portal = state.portal
        self.state = NIOLockedValueBox(state)
    }

    /// The node's state, to be asked or changed; the closure must do nothing else.
    func withState<Result>(_ body: (inout NodeState) -> Result) -> Result { state.withLockedValue(body) }

    // MARK: Loops

    /// Adds the service of the next loop. On that loop, in the order of their numbers.
    func add(_ service: TargetService) {
        let bound = NIOLoopBound(service, eventLoop: service.loop)
        services.withLockedValue { services in
            precondition(services.count == service.number, "loops are numbered in their order")
            services.append(bound)
        }
    }

    /// The services, by loop.
    var all: [NIOLoopBound<TargetService>] { services.withLockedValue { $0 } }

    /// Forgets the services, which have been stopped.
    func removeAll() { services.withLockedValue { $0 = [] } }

    /// Has something done for each loop: at once where it is the caller's, else soon.
    func onEachLoop(_ body: @escaping @Sendable (TargetService) -> Void) {
        for service in all {
            if service.eventLoop.inEventLoop {
                body(service.value)
            } else {
                service.eventLoop.execute { body(service.value) }
            }
        }
    }

    // MARK: Metrics

    /// Shows the connections and sessions of each loop.
    func show(in registry: MetricsRegistry) {
        registry.collector("target-loops") { [weak self] registry in
            guard let self else { return }
            for (loop, share) in self.withState({ $0.shares }).enumerated() {
                let labels = [("loop", String(loop))]
                registry.gauge(
                    "ashlar_target_connections",
                    help: "Connections at the portal, by the event loop that serves them.",
                    labels: labels
                ).set(Int64(share.connections))
                registry.gauge(
                    "ashlar_target_sessions",
                    help: "Sessions that are logged in to a volume, by the event loop that serves them.",
                    labels: labels
                ).set(Int64(share.sessions))
            }
        }
    }
}
