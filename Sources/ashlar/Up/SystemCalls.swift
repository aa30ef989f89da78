import CLinux
import Failpoints
import Foundation
import Glibc

/// Numbers of `errno` that messages tell apart.
enum SystemErrors {
    static let noSpace = ENOSPC
    static let access = EACCES
    static let notPermitted = EPERM
    static let readOnly = EROFS
}

/// The text of an `errno`.
func systemMessage(_ code: Int32) -> String {
    String(cString: strerror(code))
}

/// Small files and directories, with errors that say what to do.
enum Files {
    /// The kind of what lies at a path.
    static func attributes(_ path: String) -> ashlar_status? {
        var buffer = ashlar_status()
        return ashlar_lstat(path, &buffer) == 0 ? buffer : nil
    }

    /// The attributes of what a path leads to, links followed.
    static func target(_ path: String) -> ashlar_status? {
        var buffer = ashlar_status()
        return ashlar_stat(path, &buffer) == 0 ? buffer : nil
    }

    static func exists(_ path: String) -> Bool {
        attributes(path) != nil
    }

    /// Creates a directory where there is none, and gives it its mode and, as root, its owner.
    static func makeDirectory(_ path: String, mode: mode_t, owner: SystemUser? = nil) throws {
        if mkdir(path, mode) != 0, errno != EEXIST {
            throw UpError.system("create the directory", path, errno: errno)
        }
        guard let found = target(path), found.mode & S_IFMT == S_IFDIR else {
            throw UpError("\(path) is not a directory.", remedy: "Remove it, or name another with --data.")
        }
        if let owner, owner.isOther, chown(path, owner.uid, owner.gid) != 0 {
            throw UpError.system("change the owner of", path, errno: errno)
        }
        if found.mode & 0o7777 != mode, chmod(path, mode) != 0 {
            throw UpError.system("change the mode of", path, errno: errno)
        }
    }

    /// Writes a file so that a reader sees the old contents or the new ones, and the new ones survive a crash.
    static func replace(_ path: String, with contents: String, mode: mode_t, owner: SystemUser? = nil) throws {
        let temporary = path + ".new"
        let file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
        guard file >= 0 else { throw UpError.system("write", temporary, errno: errno) }
        defer { close(file) }
        var bytes = Array(contents.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                throw UpError.system("write", temporary, errno: errno)
            }
            bytes = bytes.dropFirst(count)
        }
        if let owner, owner.isOther, fchown(file, owner.uid, owner.gid) != 0 {
            throw UpError.system("change the owner of", temporary, errno: errno)
        }
        guard fchmod(file, mode) == 0 else { throw UpError.system("change the mode of", temporary, errno: errno) }
        guard fsync(file) == 0 else { throw UpError.system("write", temporary, errno: errno) }
        Failpoint.upFileSynced.reach()
        try rename(temporary, path)
    }

    /// Renames, and makes the new name durable.
    static func rename(_ from: String, _ to: String) throws {
        guard Glibc.rename(from, to) == 0 else { throw UpError.system("rename \(from) to", to, errno: errno) }
        let parent = URL(fileURLWithPath: to).deletingLastPathComponent().path
        let directory = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw UpError.system("open", parent, errno: errno) }
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw UpError.system("sync", parent, errno: errno) }
    }

    /// The text of a file; nil where there is none.
    static func text(_ path: String) -> String? {
        guard let data = FileManager.default.contents(atPath: path) else { return nil }
        return String(decoding: data, as: UTF8.self)
    }

    /// The last lines of a file, without empty ones.
    static func tail(_ path: String, lines: Int) -> [String] {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return [] }
        defer { close(file) }
        return tail(of: file, lines: lines)
    }

    /// The last lines of an open file, without empty ones.
    static func tail(of file: Int32, lines: Int) -> [String] {
        let end = lseek(file, 0, SEEK_END)
        guard end > 0 else { return [] }
        let start = max(0, end - off_t(UpLimits.outputTailBytes))
        var buffer = [UInt8](repeating: 0, count: Int(end - start))
        let count = buffer.withUnsafeMutableBytes { pread(file, $0.baseAddress, $0.count, start) }
        guard count > 0 else { return [] }
        let text = String(decoding: buffer[..<count], as: UTF8.self)
        return text.split(separator: "\n").suffix(lines).map(String.init)
    }

    /// Free bytes of the file system on which `path` lies, for those who are not root.
    static func freeBytes(_ path: String) -> UInt64? {
        var buffer = statvfs()
        guard statvfs(path, &buffer) == 0 else { return nil }
        return UInt64(buffer.f_bavail) * UInt64(buffer.f_frsize)
    }

    /// The target of a symbolic link; nil where it cannot be read.
    static func link(_ path: String) -> String? {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        let count = readlink(path, &buffer, Int(PATH_MAX))
        guard count >= 0 else { return nil }
        return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// Free ports of this machine.
enum Ports {
    /// Whether a server may listen on `127.0.0.1:port` now; 0, or the `errno` of the attempt.
    static func tryListening(on port: Int) -> Int32 {
        let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | O_CLOEXEC, 0)
        guard socket >= 0 else { return errno }
        defer { close(socket) }
        var yes: Int32 = 1
        setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port)).bigEndian
        address.sin_addr = in_addr(s_addr: UInt32(0x7F00_0001).bigEndian)
        let bound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard bound == 0, listen(socket, 1) == 0 else { return errno }
        return 0
    }
}
