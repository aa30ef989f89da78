import Testing

@testable import Observability

@Suite struct MetricsRegistryTests {
    @Test func expositionIsPrometheusText() {
        let registry = MetricsRegistry()
        registry.counter("ashlar_reads_total", help: "Reads.", labels: [("volume", "b")]).increment(by: 3)
        registry.counter("ashlar_reads_total", labels: [("volume", "a\"\\")]).increment()
        registry.gauge("ashlar_open").set(1.5)
        let histogram = registry.histogram("ashlar_commit_seconds", bounds: [0.1, 1])
        histogram.observe(0.1)
        histogram.observe(0.5)
        histogram.observe(9)
        #expect(
            registry.exposition() == """
                # TYPE ashlar_commit_seconds histogram
                ashlar_commit_seconds_bucket{le="0.1"} 1
                ashlar_commit_seconds_bucket{le="1"} 2
                ashlar_commit_seconds_bucket{le="+Inf"} 3
                ashlar_commit_seconds_sum 9.6
                ashlar_commit_seconds_count 3
                # TYPE ashlar_open gauge
                ashlar_open 1.5
                # HELP ashlar_reads_total Reads.
                # TYPE ashlar_reads_total counter
                ashlar_reads_total{volume="a\\"\\\\"} 1
                ashlar_reads_total{volume="b"} 3

                """
        )
    }

    @Test func sameNameAndLabelsAreOneInstrument() {
        let registry = MetricsRegistry()
        registry.counter("a", labels: [("x", "1"), ("y", "2")]).increment()
        registry.counter("a", labels: [("y", "2"), ("x", "1")]).increment()
        #expect(registry.counter("a", labels: [("x", "1"), ("y", "2")]).value == 2)
    }

    @Test func nameOfAnotherKindIsNotShownButWorks() {
        let registry = MetricsRegistry()
        registry.counter("a").increment()
        registry.gauge("a").set(Int64(9))
        #expect(registry.exposition() == "# TYPE a counter\na 1\n")
    }

    @Test func instrumentsAreBounded_I10() {
        let registry = MetricsRegistry()
        for index in 0...ObservabilityLimits.instrumentsMaximum {
            registry.counter("c", labels: [("i", "\(index)")]).increment()
        }
        let lines = registry.exposition().split(separator: "\n").count
        #expect(lines == ObservabilityLimits.instrumentsMaximum + 1)
        registry.remove("c", labels: [("i", "0")])
        registry.gauge("g").set(Int64(1))
        #expect(registry.exposition().contains("\ng 1\n"))
    }

    @Test func collectorsRunBeforeEachExposition() {
        let registry = MetricsRegistry()
        registry.collector("one") { $0.gauge("late").add(Int64(1)) }
        #expect(registry.exposition().contains("late 1\n"))
        #expect(registry.exposition().contains("late 2\n"))
    }

    @Test func namesAreMadeValid() {
        #expect(MetricText.name("9a.b-c") == "_a_b_c")
        #expect(MetricText.number(.infinity) == "+Inf")
        #expect(MetricText.number(1e20) == "1e+20")
    }
}
