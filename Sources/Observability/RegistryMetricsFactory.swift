import Metrics

/// Makes the instruments of swift-metrics in a registry.
struct RegistryMetricsFactory: MetricsFactory {
    let registry: MetricsRegistry

    func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        Counter(counter: registry.counter(label, labels: dimensions))
    }

    func makeFloatingPointCounter(label: String, dimensions: [(String, String)]) -> any FloatingPointCounterHandler {
        FloatingPointCounter(gauge: registry.gauge(label, labels: dimensions))
    }

    func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
        Meter(gauge: registry.gauge(label, labels: dimensions))
    }

    func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
        guard aggregate else { return Meter(gauge: registry.gauge(label, labels: dimensions)) }
        return Recorder(
            histogram: registry.histogram(label, labels: dimensions, bounds: MetricHistogram.sizeBounds)
        )
    }

    func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        Timer(histogram: registry.histogram(label, labels: dimensions, bounds: MetricHistogram.secondsBounds))
    }

    // Instruments live as long as the registry; ``MetricsRegistry/remove(_:labels:)`` forgets one.
    func destroyCounter(_ handler: any CounterHandler) {}
    func destroyMeter(_ handler: any MeterHandler) {}
    func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) {}
    func destroyRecorder(_ handler: any RecorderHandler) {}
    func destroyTimer(_ handler: any TimerHandler) {}

    private final class Counter: CounterHandler {
        let counter: MetricCounter
        init(counter: MetricCounter) { self.counter = counter }
        func increment(by amount: Int64) { counter.increment(by: UInt64(max(0, amount))) }
        func reset() { counter.reset() }
    }

    private final class FloatingPointCounter: FloatingPointCounterHandler {
        let gauge: MetricGauge
        init(gauge: MetricGauge) { self.gauge = gauge }
        func increment(by amount: Double) { if amount > 0 { gauge.add(amount) } }
        func reset() { gauge.set(0.0) }
    }

    private final class Meter: MeterHandler, RecorderHandler {
        let gauge: MetricGauge
        init(gauge: MetricGauge) { self.gauge = gauge }
        func set(_ value: Int64) { gauge.set(value) }
        func set(_ value: Double) { gauge.set(value) }
        func increment(by amount: Double) { gauge.add(amount) }
        func decrement(by amount: Double) { gauge.add(-amount) }
        func record(_ value: Int64) { gauge.set(value) }
        func record(_ value: Double) { gauge.set(value) }
    }

    private final class Recorder: RecorderHandler {
        let histogram: MetricHistogram
        init(histogram: MetricHistogram) { self.histogram = histogram }
        func record(_ value: Int64) { histogram.observe(Double(value)) }
        func record(_ value: Double) { histogram.observe(value) }
    }

    private final class Timer: TimerHandler {
        let histogram: MetricHistogram
        init(histogram: MetricHistogram) { self.histogram = histogram }
        func recordNanoseconds(_ duration: Int64) { histogram.observe(nanoseconds: UInt64(max(0, duration))) }
        func preferDisplayUnit(_ unit: TimeUnit) {}
    }
}
