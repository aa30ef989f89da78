import AgentPlanning
import Observability

/// What an agent counts, from its start on.
struct AgentMetrics: Sendable {
    let objectsPut: MetricCounter
    let bytesPut: MetricCounter
    let blocksMoved: MetricCounter
    let blocksStale: MetricCounter
    let blocksEvicted: MetricCounter
    let blocksCompacted: MetricCounter
    let objectsCollected: MetricCounter
    let objectsScanned: MetricCounter
    let garbageDeleted: MetricCounter
    let blocksCorrupt: MetricCounter
    let itemsScrubbed: MetricCounter
    let objectsScrubbed: MetricCounter
    let deletionsRefused: MetricCounter
    private let failures: [AgentPlanner.Kind: MetricCounter]

    init(_ registry: MetricsRegistry) {
        func counter(_ name: String, _ help: String) -> MetricCounter {
            registry.counter("ashlar_agent_\(name)_total", help: help)
        }
        objectsPut = counter("objects_put", "Objects put.")
        bytesPut = counter("put_bytes", "Bytes of objects put.")
        blocksMoved = counter("blocks_moved", "Blocks moved into objects.")
        blocksStale = counter("blocks_stale", "Blocks that were written anew while they were moved, and stay unmoved.")
        blocksEvicted = counter("blocks_evicted", "Moved blocks evicted from the cache.")
        blocksCompacted = counter("blocks_compacted", "Blocks rewritten out of sparse objects.")
        objectsCollected = counter("objects_collected", "Dead objects deleted.")
        objectsScanned = counter("objects_scanned", "Objects that scans looked at.")
        garbageDeleted = counter("garbage_deleted", "Objects without a row that scans deleted.")
        blocksCorrupt = counter("blocks_corrupt", "Blocks whose bytes did not match their checksum.")
        itemsScrubbed = counter("items_scrubbed", "Items that were verified.")
        objectsScrubbed = counter("objects_scrubbed", "Objects that were verified.")
        deletionsRefused = counter(
            "deletions_refused",
            "Refusals to delete because the database is older than the objects."
        )
        failures = Dictionary(
            uniqueKeysWithValues: AgentPlanner.Kind.allCases.map { kind in
                let name = "ashlar_agent_failures_total"
                return (kind, registry.counter(name, help: "Jobs given up.", labels: [("job", "\(kind)")]))
            }
        )
    }

    func countFailure(_ kind: AgentPlanner.Kind) { failures[kind]?.increment() }
}
