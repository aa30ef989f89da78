import Foundation

/// Files with certificates and keys.
enum PEMFiles {
    /// Reads a file of bounded size as text.
    static func read(_ path: String) throws(TransportError) -> String {
        let data: Data
        do {
            let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
            defer { try? handle.close() }
            data = try handle.read(upToCount: TransportLimits.pemFileMaximumBytes + 1) ?? Data()
        } catch {
            throw TransportError(.file, "cannot read \(path)", underlying: error)
        }
        guard data.count <= TransportLimits.pemFileMaximumBytes else {
            throw TransportError(.file, "\(path) is larger than \(TransportLimits.pemFileMaximumBytes) bytes")
        }
        guard let text = String(data: data, encoding: .utf8) else {
            throw TransportError(.file, "\(path) is not PEM")
        }
        return text
    }

    /// Replaces a file at once: a reader sees the old text or the new one, never a part, also after a crash.
    static func write(_ text: String, to path: String, mode: mode_t) throws(TransportError) {
        let temporary = path + ".new"
        unlink(temporary)
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw failure("create", temporary) }
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 else {
                let error = failure("write", temporary)
                close(descriptor)
                unlink(temporary)
                throw error
            }
            bytes = bytes.dropFirst(count)
        }
        guard fchmod(descriptor, mode) == 0, fsync(descriptor) == 0, close(descriptor) == 0 else {
            let error = failure("sync", temporary)
            unlink(temporary)
            throw error
        }
        guard rename(temporary, path) == 0 else {
            let error = failure("rename to", path)
            unlink(temporary)
            throw error
        }
        try syncDirectory(of: path)
    }

    private static func syncDirectory(of path: String) throws(TransportError) {
        let directory = URL(fileURLWithPath: path).deletingLastPathComponent().path
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure("open", directory) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw failure("sync", directory) }
    }

    /// What tells one state of a file from another.
    struct Mark: Hashable, Sendable {
        let inode: UInt64
        let size: Int64
        let seconds: Int64
        let nanoseconds: Int64
    }

    static func mark(_ path: String) throws(TransportError) -> Mark {
        var status = stat()
        guard stat(path, &status) == 0 else { throw failure("look at", path) }
        return Mark(
            inode: UInt64(status.st_ino),
            size: Int64(status.st_size),
            seconds: Int64(status.st_mtim.tv_sec),
            nanoseconds: Int64(status.st_mtim.tv_nsec)
        )
    }

    private static func failure(_ verb: String, _ path: String) -> TransportError {
        TransportError(.file, "cannot \(verb) \(path): \(String(cString: strerror(errno)))")
    }
}
