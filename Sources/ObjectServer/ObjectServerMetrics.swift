import ObjectStore
import Observability
import RPC

/// What an object server counts, from its start on, and what it holds.
struct ObjectServerMetrics: Sendable {
    let bytesPut: MetricCounter
    let bytesRead: MetricCounter
    let slotsRead: MetricCounter
    private let objects: MetricGauge
    private let bytes: MetricGauge
    private let freeBytes: MetricGauge
    private let rootsOutOfService: MetricGauge
    private let requests: [RPCMessageType: MetricCounter]
    private let otherRequests: MetricCounter
    private let failures: [RPCStatus: MetricCounter]
    private let otherFailures: MetricCounter

    init(_ registry: MetricsRegistry) {
        func requests(_ type: String) -> MetricCounter {
            registry.counter("ashlar_objects_requests_total", help: "Requests received.", labels: [("type", type)])
        }
        func failures(_ status: String) -> MetricCounter {
            registry.counter(
                "ashlar_objects_failures_total",
                help: "Requests answered with an error.",
                labels: [("status", status)]
            )
        }
        bytesPut = registry.counter("ashlar_objects_put_bytes_total", help: "Bytes of objects stored.")
        bytesRead = registry.counter("ashlar_objects_read_bytes_total", help: "Stored bytes of slots read.")
        slotsRead = registry.counter("ashlar_objects_read_slots_total", help: "Slots read.")
        objects = registry.gauge("ashlar_objects_stored", help: "Objects stored.")
        bytes = registry.gauge("ashlar_objects_stored_bytes", help: "Bytes of the objects stored.")
        freeBytes = registry.gauge("ashlar_objects_free_bytes", help: "Free bytes of the roots in service.")
        rootsOutOfService = registry.gauge("ashlar_objects_roots_out_of_service", help: "Roots that take no objects.")
        let types: [(RPCMessageType, String)] = [
            (PutObject.type, "put"), (GetSlots.type, "get"), (DeleteObject.type, "delete"), (ListObjects.type, "list"),
            (VerifyObject.type, "verify"), (ObjectStatistics.type, "statistics"),
        ]
        self.requests = Dictionary(uniqueKeysWithValues: types.map { ($0.0, requests($0.1)) })
        otherRequests = requests("other")
        let statuses: [RPCStatus] = [
            .noSpace, .inputOutput, .noSuchObject, .exists, .mediumError, .invalidMessage, .outOfRange, .busy,
            .unsupported,
        ]
        self.failures = Dictionary(uniqueKeysWithValues: statuses.map { ($0, failures("\($0)")) })
        otherFailures = failures("other")
    }

    func countRequest(_ type: RPCMessageType) { (requests[type] ?? otherRequests).increment() }

    func countFailure(_ status: RPCStatus) { (failures[status] ?? otherFailures).increment() }

    func record(_ statistics: ObjectStoreStatistics) {
        objects.set(Double(statistics.objects))
        bytes.set(Double(statistics.bytes))
        freeBytes.set(Double(statistics.freeBytes))
        rootsOutOfService.set(Int64(statistics.rootsOutOfService))
    }
}

extension ObjectStoreStatistics {
    /// Roots that take no puts any more (D12).
    var rootsOutOfService: Int { roots.count { $0.failure != nil } }
}
