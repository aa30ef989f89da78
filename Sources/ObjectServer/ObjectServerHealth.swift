import Logging
import NIOCore
import ObjectStore
import Observability
import Synchronization

/// Looks at the store every few seconds: for the gauges, and for whether the server can do its work. Safe from any
/// thread.
final class ObjectServerHealth: Sendable {
    private let readiness = Mutex(HealthReadiness.ready)
    private let task = Mutex<RepeatedTask?>(nil)

    /// Whether a root is left that takes objects.
    var current: HealthReadiness { readiness.withLock { $0 } }

    func start(on eventLoop: any EventLoop, store: ObjectStore, metrics: ObjectServerMetrics, logger: Logger) {
        let interval = TimeAmount.milliseconds(ObjectServerLimits.healthMilliseconds)
        let repeated = eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: interval) { [weak self] _ in
            store.statistics { [weak self] result in
                switch result {
                case .success(let statistics):
                    metrics.record(statistics)
                    self?.record(statistics)
                case .failure(let error):
                    logger.debug("no statistics of the object store", metadata: ["reason": "\(error)"])
                }
            }
        }
        task.withLock { $0 = repeated }
    }

    func stop() { task.withLock { $0 }?.cancel() }

    private func record(_ statistics: ObjectStoreStatistics) {
        let out = statistics.rootsOutOfService
        readiness.withLock {
            $0 = out < statistics.roots.count ? .ready : .notReady("all \(out) object roots are out of service")
        }
    }
}
