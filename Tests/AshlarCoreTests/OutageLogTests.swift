import AshlarCore
import Testing

@Suite("What is said of an outage")
struct OutageLogTests {
    private static let second: UInt64 = 1_000_000_000

    private func time(_ milliseconds: UInt64) -> MonotonicTime { MonotonicTime(1_000_000 * milliseconds) }

    @Test("it begins, lasts with fewer and fewer lines, and ends with its length")
    func life() {
        var log = OutageLog()
        var lines: [OutageLog.Line] = []
        #expect(log.succeeded(now: time(1_000)) == nil)
        // Ten failures a second for ten minutes.
        for tenth in 0..<6_000 as Range<UInt64> {
            if let line = log.failed("refused", now: time(5_000 + 100 * tenth)) { lines.append(line) }
        }
        #expect(lines.first == .began("refused"))
        #expect(lines.dropFirst().first == .lasts("refused", failures: 11, milliseconds: 1_000))
        #expect(lines.count == 15, "\(lines.count) lines in ten minutes")
        #expect(log.isFailing)
        #expect(log.succeeded(now: time(700_000)) == .ended(failures: 6_000, milliseconds: 695_000))
        #expect(log.succeeded(now: time(700_100)) == nil)
        #expect(!log.isFailing)
    }

    @Test("what comes and goes again and again is told as rarely as what lasts")
    func flapping() {
        var log = OutageLog()
        var lines = 0
        for tenth in 0..<6_000 as Range<UInt64> {
            if log.failed("refused", now: time(100 * tenth)) != nil { lines += 1 }
            if log.succeeded(now: time(100 * tenth + 50)) != nil { lines += 1 }
        }
        #expect(lines == 30)
    }

    @Test("after a long silence the next outage is told at once, and as closely as the first")
    func silence() {
        var log = OutageLog()
        for tenth in 0..<600 as Range<UInt64> { _ = log.failed("a", now: time(100 * tenth)) }
        #expect(log.succeeded(now: time(60_000)) != nil)
        let later = time(60_000).advanced(byNanoseconds: 3 * OutageLog.pauseMaximum)
        #expect(log.failed("b", now: later) == .began("b"))
        #expect(log.failed("b", now: later.advanced(byNanoseconds: OutageLog.pauseMinimum - 1)) == nil)
        #expect(log.failed("b", now: later.advanced(byNanoseconds: OutageLog.pauseMinimum)) != nil)
    }
}
