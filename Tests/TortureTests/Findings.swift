import Testing

@testable import ashlar_torture

/// The findings for a history, as a client writes it.
func check(_ lines: String...) -> [HistoryChecker.Finding] {
    var history = History()
    history.add(client: 1, text: (lines + ["E 1000"]).joined(separator: "\n"))
    #expect(history.damages.isEmpty, "\(history.damages)")
    return HistoryChecker.check(history)
}
