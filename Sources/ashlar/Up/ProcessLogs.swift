import CLinux
import Foundation
import Glibc

/// The log file of each process: begun anew by each `ashlar up`, continued by restarts, some old ones kept.
struct ProcessLogs: Sendable {
    var layout: UpLayout

    /// Moves the logs of the last run aside.
    func rotate(_ names: [String]) throws {
        try Files.makeDirectory(layout.logDirectory, mode: 0o755)
        for name in names {
            let path = layout.log(of: name)
            guard let found = Files.attributes(path), found.size > 0 else { continue }
            for number in stride(from: UpLimits.oldLogsMaximum - 1, through: 1, by: -1) {
                let old = "\(path).\(number)"
                if Files.exists(old) { try Files.rename(old, "\(path).\(number + 1)") }
            }
            try Files.rename(path, path + ".1")
        }
    }

    /// Opens the log of a process for appending; the caller closes it.
    func open(_ name: String) throws -> Int32 {
        let path = layout.log(of: name)
        let file = Glibc.open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw UpError.system("open", path, errno: errno) }
        return file
    }

    /// The last lines of a process's log, for a message.
    func tail(_ name: String) -> [String] {
        Files.tail(layout.log(of: name), lines: UpLimits.logLinesShown)
    }
}
