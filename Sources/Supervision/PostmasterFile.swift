/// What `postmaster.pid` in a PostgreSQL data directory tells.
///
/// Lines: process number, data directory, start time, port, socket directory, listen address, System V shared memory key and
/// id, status (`starting`, `ready`, `standby`, `stopping`). A file that is still being written has fewer.
public struct PostmasterFile: Sendable, Hashable {
    /// The postmaster's process number.
    public var pid: Int32
    /// The id of its System V shared memory segment, which every one of its processes is attached to.
    public var sharedMemoryID: Int64?
    /// Whether it accepts connections.
    public var isReady: Bool

    /// The contents of the file; nil where its first line is no process number.
    public init?(_ text: String) {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard let first = lines.first, let number = Int32(trimmed(first)), number != 0 else { return nil }
        // A stand-alone backend writes its number negated.
        pid = number < 0 ? -number : number
        let memory = lines.count > 6 ? lines[6].split(separator: " ") : []
        sharedMemoryID = memory.count == 2 ? Int64(memory[1]) : nil
        isReady = lines.count > 7 && trimmed(lines[7]) == "ready"
    }

    /// How many processes are attached to segment `id`, by the text of `/proc/sysvipc/shm`; 0 where there is none.
    public static func attachments(sharedMemoryID id: Int64, table: String) -> Int {
        let lines = table.split(separator: "\n")
        guard let head = lines.first?.split(separator: " "),
            let idColumn = head.firstIndex(of: "shmid"), let countColumn = head.firstIndex(of: "nattch")
        else { return 0 }
        for line in lines.dropFirst() {
            let fields = line.split(separator: " ")
            guard fields.count > max(idColumn, countColumn), Int64(fields[idColumn]) == id else { continue }
            return Int(fields[countColumn]) ?? 0
        }
        return 0
    }

    /// What is to be done about the file before a postmaster is started.
    public enum Verdict: Sendable, Hashable {
        /// A postmaster of this data directory runs: wait for its end, or end it.
        case running
        /// The postmaster is gone, but processes of it are still attached to its memory: wait.
        case lingering
        /// Nothing of it is left: the file may be removed.
        case stale
    }

    /// Decides by whether its process is alive *as a postmaster of this directory*, and how many are attached to its memory.
    public func verdict(isPostmasterAlive: Bool, attachments: Int) -> Verdict {
        if isPostmasterAlive { return .running }
        return attachments > 0 ? .lingering : .stale
    }
}

private func trimmed(_ text: some StringProtocol) -> String {
    let isBlank: (Character) -> Bool = { $0 == " " || $0 == "\t" || $0 == "\r" }
    let head = text.drop(while: isBlank)
    return String(head.reversed().drop(while: isBlank).reversed())
}
