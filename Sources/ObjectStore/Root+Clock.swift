import AshlarCore
import Failpoints
import Logging
import NIOCore

// The clock of the database that the objects belong to: by it an older database is known, which must not have objects deleted (M8).
extension Root {
    /// Bytes of the file: the clock, and the CRC-32C of it.
    private static let clockFileBytes = 12

    /// The clock that is kept here; 0 where there is none.
    func readClock() throws(ObjectStoreError) -> UInt64 {
        let file: OpenFile
        do throws(ObjectStoreError) {
            file = try fileSystem.openFile(layout.clock)
        } catch {
            guard error.code == .notFound else { throw error }
            return 0
        }
        defer { fileSystem.discard(file) }
        var bytes = try fileSystem.readAll(file, count: Self.clockFileBytes, at: 0)
        let covered = bytes.getSlice(at: bytes.readerIndex, length: 8)
        guard
            let clock = bytes.readInteger(as: UInt64.self), let checksum = bytes.readInteger(as: UInt32.self),
            let covered, covered.withUnsafeReadableBytes({ Checksum(of: $0) }).rawValue == checksum
        else {
            // The other roots have it as well.
            logger.error(
                "the clock of an object root is damaged; it is written anew",
                metadata: ["path": "\(layout.clock)"]
            )
            return 0
        }
        return clock
    }

    /// Keeps a clock durably in place of the one that is kept. Not to be called by two threads at once.
    func writeClock(_ clock: UInt64) throws(ObjectStoreError) {
        try requireInService()
        let directory = try fileSystem.openDirectory(layout.root)
        defer { fileSystem.discard(directory) }
        _ = try fileSystem.unlink(layout.clockTemporary)
        var bytes = ByteBuffer()
        bytes.writeInteger(clock)
        bytes.writeInteger(bytes.withUnsafeReadableBytes { Checksum(of: $0) }.rawValue)
        let file = try fileSystem.createFile(layout.clockTemporary)
        do throws(ObjectStoreError) {
            try fileSystem.writeAll(bytes, to: file)
            try fileSystem.reached(.clockWritten)
            try syncFile(file)
            try fileSystem.reached(.clockSynced)
        } catch {
            fileSystem.discard(file)
            throw error
        }
        try fileSystem.close(file)
        try fileSystem.rename(layout.clockTemporary, over: layout.clock)
        try fileSystem.reached(.clockRenamed)
        try syncDirectory(directory)
        try fileSystem.reached(.clockDirectorySynced)
    }
}
