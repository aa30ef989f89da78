import Foundation
import Glibc

/// What a process knows of the server beyond its own life (``ServerHistory``), as a line of text.
struct ServerMemory: Sendable, Hashable {
    var systemIdentifier: Int64
    var timeline: UInt32
    /// Commits up to here were acknowledged, at least.
    var acknowledged: WALPosition

    private static let format = "ashlar-postgresql-1"

    /// The line.
    var text: String { "\(Self.format) \(systemIdentifier) \(timeline) \(acknowledged)\n" }

    init(systemIdentifier: Int64, timeline: UInt32, acknowledged: WALPosition) {
        self.systemIdentifier = systemIdentifier
        self.timeline = timeline
        self.acknowledged = acknowledged
    }

    /// Reads the line; nil where it is not one.
    init?(text: String) {
        let fields = text.split(separator: " ", omittingEmptySubsequences: false)
        guard fields.count == 4, fields[0] == Self.format, fields[3].last == "\n", let system = Int64(fields[1]),
            let timeline = UInt32(fields[2]), let position = WALPosition(text: fields[3].dropLast())
        else { return nil }
        self.init(systemIdentifier: system, timeline: timeline, acknowledged: position)
    }
}

/// The file in which a process keeps what it knows of the server that it has worked with, so that a restart forgets nothing of it.
///
/// It is no part of anybody's data: without it a process begins as one that has seen nothing. Calls block; any thread, one at a time.
public struct ServerMemoryFile: Sendable, Hashable {
    /// The name of the file in its directory.
    public static let name = "postgresql-server"
    /// Where it lies.
    public let path: String
    private let directory: String

    /// The file in a directory, which must be there and be used by one process alone.
    public init(directory: String) {
        self.directory = directory
        path = directory + "/" + Self.name
    }

    /// Looks whether it can be used, where nothing has been done yet.
    ///
    /// - Throws: ``PostgresError`` where there is no such directory, or the file says nothing that makes sense.
    public func verify() throws(PostgresError) {
        try syncDirectory()
        _ = try read()
    }

    /// What is remembered, in words; nil: nothing.
    ///
    /// - Throws: ``PostgresError``.
    public func remembered() throws(PostgresError) -> String? {
        try read().map {
            "database system \($0.systemIdentifier) on timeline \($0.timeline), with writes up to \($0.acknowledged)"
        }
    }

    /// Forgets what is remembered, durably: the next process begins with the server that it finds.
    ///
    /// - Throws: ``PostgresError``.
    public func forget() throws(PostgresError) {
        guard unlink(path) == 0 || errno == ENOENT else { throw failure("be removed") }
        try syncDirectory()
    }

    /// What is remembered; nil: nothing.
    ///
    /// - Throws: ``PostgresError`` where the file cannot be read, or says nothing that makes sense.
    func read() throws(PostgresError) -> ServerMemory? {
        var information = stat()
        guard stat(path, &information) == 0 else {
            guard errno == ENOENT else { throw failure("be read") }
            return nil
        }
        guard
            information.st_size <= PostgresStoreLimits.serverMemoryMaximumBytes,
            let data = FileManager.default.contents(atPath: path),
            let memory = ServerMemory(text: String(decoding: data, as: UTF8.self))
        else {
            throw PostgresError(
                .configuration,
                "\(path) does not say which PostgreSQL server was worked with; where none can have lost acknowledged writes "
                    + "since, remove it"
            )
        }
        return memory
    }

    /// Keeps what is to be remembered, durably, in place of what was.
    ///
    /// - Throws: ``PostgresError``; then what was remembered before still is.
    func write(_ memory: ServerMemory) throws(PostgresError) {
        let temporary = path + ".new"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failure("be written") }
        let bytes = Array(memory.text.utf8)
        let isWritten = Glibc.write(descriptor, bytes, bytes.count) == bytes.count && fsync(descriptor) == 0
        let reason = errno
        guard close(descriptor) == 0, isWritten else {
            errno = reason
            throw failure("be written")
        }
        guard rename(temporary, path) == 0 else { throw failure("be replaced") }
        try syncDirectory()
    }

    private func syncDirectory() throws(PostgresError) {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure("be synced") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw failure("be synced") }
    }

    private func failure(_ what: String) -> PostgresError {
        PostgresError(.configuration, "\(path) cannot \(what): \(String(cString: strerror(errno)))")
    }
}
