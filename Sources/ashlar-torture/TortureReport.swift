/// What a run has shown.
struct TortureReport {
    var history: History
    var findings: [HistoryChecker.Finding]
    /// What was done, by name, and how long clients stood still.
    var stalls: [String: Stalls]
    /// What `ashlar up` said of processes that ended by a fault of their own.
    var crashes: [String] = []
    /// Faults that could not be done here, and why.
    var impossible: [String: String] = [:]
    /// Blocks that flipped bits may have damaged, that could not be read at the end, and that were found by the scrub.
    var damage = (possible: 0, unreadable: 0, found: 0)

    /// Whether nothing was found.
    var isClean: Bool { findings.isEmpty && history.damages.isEmpty && crashes.isEmpty }

    /// A table of counts, and what was found.
    var text: String {
        var lines: [String] = []
        for (name, kind) in [
            ("write", History.Kind.write), ("COMPARE AND WRITE", .compareAndWrite), ("read", .read),
        ] {
            let ends = [
                ("good", History.Status.good), ("miscompare", .miscompare), ("failed", .failed), ("lost", .lost),
                ("aborted", .aborted), ("TASK ABORTED", .taskAborted), ("MEDIUM ERROR", .damaged),
            ]
            // What has become of reads that brought nothing is not written down, but for MEDIUM ERROR.
            let told = ends.filter { kind != .read || $0.1 == .good || $0.1 == .damaged }
            lines.append("\(name): \(told.map { "\(history.count(kind, $0.1)) \($0.0)" }.joined(separator: ", "))")
        }
        let answered = history.functions.count { $0.response == 0 && $0.end != .max }
        lines.append("task management functions: \(history.functions.count), \(answered) complete")
        lines.append(
            "damaged blocks: at most \(damage.possible); at the end \(damage.unreadable) could not be read, and "
                + "\(damage.found) were found by the scrub"
        )
        lines.append("sessions: \(history.counts.logins) logins, \(history.counts.breaks) breaks")
        for (sense, count) in history.counts.senses.sorted(by: { $0.key < $1.key }) {
            lines.append("sense \(sense): \(count)")
        }
        let count = stalls.values.reduce(0) { $0 + $1.count }
        lines.append("faults: \(count); how often each, and how long until all clients went on (median, 99th, longest)")
        for (fault, stalls) in stalls.sorted(by: { $0.key < $1.key }) { lines.append("  \(fault): \(stalls.text)") }
        for (fault, reason) in impossible.sorted(by: { $0.key < $1.key }) {
            lines.append("NOT DONE, \(fault): \(reason)")
        }
        for damage in history.damages { lines.append("DAMAGE, client \(damage.client): \(damage.line)") }
        for finding in findings { lines.append("FOUND, sector \(finding.lba): \(finding.description)") }
        for crash in crashes { lines.append("CRASH: \(crash)") }
        lines.append(isClean ? "torture: nothing was found" : "torture: something was found")
        return lines.joined(separator: "\n")
    }
}
