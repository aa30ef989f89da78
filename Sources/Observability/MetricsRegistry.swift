import Metrics
import NIOConcurrencyHelpers

/// The instruments of a process, and their text for Prometheus. Safe from any thread.
///
/// Instruments are made once and kept by who uses them: the same name and labels give the same instrument. Above
/// ``ObservabilityLimits/instrumentsMaximum`` new ones still count, but are not shown.
public final class MetricsRegistry: Sendable {
    /// The registry that the health endpoint of a role shows.
    public static let shared = MetricsRegistry()

    enum Instrument: Sendable {
        case counter(MetricCounter)
        case gauge(MetricGauge)
        case histogram(MetricHistogram)

        var typeName: String {
            switch self {
            case .counter: "counter"
            case .gauge: "gauge"
            case .histogram: "histogram"
            }
        }
    }

    struct Family: Sendable {
        var help: String
        var typeName: String
        /// By their labels as text, without braces.
        var series: [String: Instrument] = [:]
    }

    private struct State {
        var families: [String: Family] = [:]
        var seriesCount = 0
        var collectors: [(name: String, run: @Sendable (MetricsRegistry) -> Void)] = []
    }

    private let state = NIOLockedValueBox(State())

    /// An empty registry.
    public init() {}

    /// Makes ``shared`` the back end of swift-metrics. To be called once in a process.
    public static func install() {
        MetricsSystem.bootstrap(RegistryMetricsFactory(registry: shared))
    }

    /// The counter of a name and labels.
    public func counter(_ name: String, help: String = "", labels: [(String, String)] = []) -> MetricCounter {
        let made = instrument(name, help: help, labels: labels) { .counter(MetricCounter()) }
        if case .counter(let counter) = made { return counter }
        return MetricCounter()
    }

    /// The gauge of a name and labels.
    public func gauge(_ name: String, help: String = "", labels: [(String, String)] = []) -> MetricGauge {
        let made = instrument(name, help: help, labels: labels) { .gauge(MetricGauge()) }
        if case .gauge(let gauge) = made { return gauge }
        return MetricGauge()
    }

    /// The histogram of a name and labels; the bounds of the first one asked for hold.
    public func histogram(
        _ name: String,
        help: String = "",
        labels: [(String, String)] = [],
        bounds: [Double] = MetricHistogram.secondsBounds
    ) -> MetricHistogram {
        let made = instrument(name, help: help, labels: labels) { .histogram(MetricHistogram(bounds: bounds)) }
        if case .histogram(let histogram) = made { return histogram }
        return MetricHistogram(bounds: bounds)
    }

    /// Runs `run` before each exposition, on the thread that asks for it: for gauges that mirror other state. A second
    /// collector of the same name replaces the first.
    public func collector(_ name: String, _ run: @escaping @Sendable (MetricsRegistry) -> Void) {
        state.withLockedValue { state in
            if let index = state.collectors.firstIndex(where: { $0.name == name }) {
                state.collectors[index].run = run
            } else if state.collectors.count < ObservabilityLimits.collectorsMaximum {
                state.collectors.append((name, run))
            }
        }
    }

    /// Forgets an instrument, as for a volume that is gone.
    public func remove(_ name: String, labels: [(String, String)] = []) {
        let name = MetricText.name(name)
        let key = MetricText.labels(labels)
        state.withLockedValue { state in
            guard state.families[name]?.series.removeValue(forKey: key) != nil else { return }
            state.seriesCount -= 1
            if state.families[name]?.series.isEmpty == true { state.families[name] = nil }
        }
    }

    /// All instruments in Prometheus' text format 0.0.4, in the order of their names.
    public func exposition() -> String {
        for collector in state.withLockedValue({ $0.collectors }) { collector.run(self) }
        let families = state.withLockedValue { $0.families }
        var text = ""
        for (name, family) in families.sorted(by: { $0.key < $1.key }) {
            if !family.help.isEmpty { text += "# HELP \(name) \(MetricText.help(family.help))\n" }
            text += "# TYPE \(name) \(family.typeName)\n"
            for (labels, instrument) in family.series.sorted(by: { $0.key < $1.key }) {
                MetricText.append(name, labels: labels, instrument, to: &text)
            }
        }
        return text
    }

    private func instrument(
        _ name: String,
        help: String,
        labels: [(String, String)],
        make: () -> Instrument
    ) -> Instrument {
        let name = MetricText.name(name)
        let key = MetricText.labels(labels)
        return state.withLockedValue { state in
            if let known = state.families[name]?.series[key] { return known }
            let made = make()
            let family = state.families[name] ?? Family(help: help, typeName: made.typeName)
            guard
                state.seriesCount < ObservabilityLimits.instrumentsMaximum, family.typeName == made.typeName
            else { return made }
            state.families[name] = family
            state.families[name]?.series[key] = made
            state.seriesCount += 1
            return made
        }
    }
}

/// The text format of Prometheus.
enum MetricText {
    /// The name with every character that Prometheus does not allow replaced by an underscore.
    static func name(_ name: String) -> String {
        var result = ""
        for (index, scalar) in name.unicodeScalars.enumerated() {
            let isLetter =
                ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar) || scalar == "_" || scalar == ":"
            let isDigit = ("0"..."9").contains(scalar)
            result += isLetter || (isDigit && index > 0) ? String(scalar) : "_"
        }
        return result.isEmpty ? "_" : result
    }

    static func help(_ help: String) -> String {
        String(help.flatMap { $0 == "\\" ? "\\\\" : $0.isNewline ? "\\n" : String($0) })
    }

    /// `a="1",b="2"`, in the order of the names.
    static func labels(_ labels: [(String, String)]) -> String {
        labels.sorted { $0.0 < $1.0 }.map { key, value in
            let escaped = value.flatMap {
                $0 == "\\" ? "\\\\" : $0 == "\"" ? "\\\"" : $0.isNewline ? "\\n" : String($0)
            }
            return "\(name(key))=\"\(String(escaped))\""
        }.joined(separator: ",")
    }

    static func append(_ name: String, labels: String, _ instrument: MetricsRegistry.Instrument, to text: inout String)
    {
        let suffix = labels.isEmpty ? "" : "{\(labels)}"
        switch instrument {
        case .counter(let counter):
            text += "\(name)\(suffix) \(counter.value)\n"
        case .gauge(let gauge):
            text += "\(name)\(suffix) \(number(gauge.value))\n"
        case .histogram(let histogram):
            let state = histogram.read()
            let prefix = labels.isEmpty ? "" : labels + ","
            var total: UInt64 = 0
            for (bound, count) in zip(histogram.bounds, state.counts) {
                total += count
                text += "\(name)_bucket{\(prefix)le=\"\(number(bound))\"} \(total)\n"
            }
            text += "\(name)_bucket{\(prefix)le=\"+Inf\"} \(state.count)\n"
            text += "\(name)_sum\(suffix) \(number(state.sum))\n"
            text += "\(name)_count\(suffix) \(state.count)\n"
        }
    }

    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        if value == value.rounded(), abs(value) < 1e15 { return String(Int64(value)) }
        return "\(value)"
    }
}
