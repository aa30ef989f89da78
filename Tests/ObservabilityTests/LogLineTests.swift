import Logging
import NIOConcurrencyHelpers
import Testing

@testable import Observability

@Suite struct LogLineTests {
    @Test func lineHasTimeLevelLabelMessageAndSortedFields() {
        let line = LogLine.text(
            time: "2026-01-02T03:04:05.006Z",
            level: .notice,
            label: "ashlar.cache",
            message: "volume owned",
            fields: ["volume": "demo", "epoch": "7"]
        )
        #expect(line == "2026-01-02T03:04:05.006Z notice ashlar.cache volume owned epoch=7 volume=demo\n")
    }

    @Test(arguments: ["secret", "chap-secret", "Password", "apiToken", "private-key"])
    func secretsAreHidden(key: String) {
        let line = LogLine.text(time: "t", level: .info, label: "l", message: "m", fields: [key: "hunter2"])
        #expect(!line.contains("hunter2"))
        #expect(line.contains("\(key)=<hidden>"))
    }

    @Test func noPeerCanForgeALine() {
        let line = LogLine.text(
            time: "t",
            level: .info,
            label: "l",
            message: "a\nb\u{1B}[2J",
            fields: ["initiator": "iqn\r\nfake \"x\""]
        )
        #expect(line.filter(\.isNewline).count == 1)
        #expect(line == "t info l a\\u{a}b\\u{1b}[2J initiator=\"iqn\\\\u{d}\\\\u{a}fake \\\"x\\\"\"\n")
    }

    @Test func longLinesAreCutAtTheLimit() {
        let message = String(repeating: "x", count: ObservabilityLimits.logLineMaximumBytes * 2)
        let line = LogLine.text(time: "t", level: .info, label: "l", message: message, fields: [:])
        #expect(line.utf8.count <= ObservabilityLimits.logLineMaximumBytes + 4)
        #expect(line.hasSuffix("…\n"))
    }

    @Test func timeIsRFC3339() {
        #expect(LogLine.text(seconds: 0, milliseconds: 7) == "1970-01-01T00:00:00.007Z")
        #expect(LogLine.text(seconds: 1_767_323_045, milliseconds: 999) == "2026-01-02T03:04:05.999Z")
    }

    @Test func handlerMergesFieldsAndRespectsLevel() {
        let lines = NIOLockedValueBox<[String]>([])
        var handler = StandardErrorLogHandler(label: "l") { line in lines.withLockedValue { $0.append(line) } }
        handler.logLevel = .info
        handler.metadata = ["node": "a"]
        let logger = Logger(label: "l") { _ in handler }
        logger.debug("not shown")
        logger.warning("shown", metadata: ["volume": "v"])
        let written = lines.withLockedValue { $0 }
        #expect(written.count == 1)
        #expect(written.first?.hasSuffix(" warning l shown node=a volume=v\n") == true)
    }
}
