import CLinux
public import Failpoints
import Glibc

/// The file system of the machine.
public struct LinuxFileSystem: FileSystem {
    /// Who may read and write what the store creates: its own user, and its group may read.
    private static let fileMode: mode_t = 0o640
    private static let directoryMode: mode_t = 0o750

    /// The file system of the machine.
    public init() {}

    /// mkdir(2).
    public func createDirectory(_ path: String) throws(ObjectStoreError) -> Bool {
        if mkdir(path, Self.directoryMode) == 0 { return true }
        let number = errno
        guard number == EEXIST else { throw .system(number, "creating", path) }
        return false
    }

    /// open(2) with O_DIRECTORY.
    public func openDirectory(_ path: String) throws(ObjectStoreError) -> OpenFile {
        try open(path, O_RDONLY | O_DIRECTORY, "opening")
    }

    /// open(2) with O_CREAT and O_EXCL.
    public func createFile(_ path: String) throws(ObjectStoreError) -> OpenFile {
        try open(path, O_WRONLY | O_CREAT | O_EXCL, "creating")
    }

    /// open(2) with O_RDONLY.
    public func openFile(_ path: String) throws(ObjectStoreError) -> OpenFile {
        try open(path, O_RDONLY, "opening")
    }

    private func open(_ path: String, _ flags: Int32, _ operation: String) throws(ObjectStoreError) -> OpenFile {
        while true {
            let descriptor = Glibc.open(path, flags | O_CLOEXEC, Self.fileMode)
            if descriptor >= 0 { return OpenFile(descriptor) }
            let number = errno
            guard number == EINTR else { throw .system(number, operation, path) }
        }
    }

    /// fstat(2).
    public func byteCount(of file: OpenFile) throws(ObjectStoreError) -> UInt64 {
        var status = stat()
        guard fstat(file.rawValue, &status) == 0 else { throw .system(errno, "fstat", "an open file") }
        return UInt64(max(0, status.st_size))
    }

    /// stat(2).
    public func byteCount(at path: String) throws(ObjectStoreError) -> UInt64? {
        var status = stat()
        if stat(path, &status) == 0 { return UInt64(max(0, status.st_size)) }
        let number = errno
        guard number == ENOENT else { throw .system(number, "stat", path) }
        return nil
    }

    /// pread(2).
    public func read(
        _ file: OpenFile,
        into bytes: UnsafeMutableRawBufferPointer,
        at offset: UInt64
    ) throws(ObjectStoreError) -> Int {
        while true {
            let count = pread(file.rawValue, bytes.baseAddress, bytes.count, off_t(offset))
            if count >= 0 { return count }
            let number = errno
            guard number == EINTR else { throw .system(number, "reading", "an open file") }
        }
    }

    /// write(2).
    public func write(_ file: OpenFile, _ bytes: UnsafeRawBufferPointer) throws(ObjectStoreError) -> Int {
        while true {
            let count = Glibc.write(file.rawValue, bytes.baseAddress, bytes.count)
            if count > 0 { return count }
            let number = count == 0 ? EIO : errno
            guard number == EINTR else { throw .system(number, "writing", "an open file") }
        }
    }

    /// write(2) with O_DIRECT, of what makes whole pages. What is smaller, or what the file system or the device do not take that way, goes
    /// through the page cache.
    ///
    /// A page that the page cache has not had lately may cost ten times as much as the copy into it: a virtual machine's host has to find
    /// memory for it first.
    public func writeUncached(_ file: OpenFile, _ bytes: UnsafeRawBufferPointer) throws(ObjectStoreError) -> Int {
        let page = ObjectStoreLimits.directWritePageBytes
        let count = min(bytes.count, ObjectStoreLimits.directWriteMaximumBytes) / page * page
        guard bytes.count >= ObjectStoreLimits.directWriteMinimumBytes, let source = bytes.baseAddress,
            lseek(file.rawValue, 0, SEEK_CUR) % off_t(page) == 0
        else { return try write(file, bytes) }
        let aligned = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: page)
        defer { aligned.deallocate() }
        aligned.copyMemory(from: source, byteCount: count)
        while true {
            let written = ashlar_write_direct(file.rawValue, aligned, count)
            if written > 0 { return written }
            let number = written == 0 ? EIO : errno
            if number == EINVAL { return try write(file, bytes) }
            guard number == EINTR else { throw .system(number, "writing", "an open file") }
        }
    }

    /// fdatasync(2). EINTR counts as a failure like every other, since a second call may then hide one (D12).
    public func syncFile(_ file: OpenFile) throws(ObjectStoreError) {
        guard fdatasync(file.rawValue) == 0 else { throw .system(errno, "fdatasync", "a written file") }
    }

    /// fsync(2).
    public func syncDirectory(_ directory: OpenFile) throws(ObjectStoreError) {
        guard fsync(directory.rawValue) == 0 else { throw .system(errno, "fsync", "a directory") }
    }

    /// posix_fadvise(2) with POSIX_FADV_DONTNEED.
    public func dropCached(_ file: OpenFile) {
        // A hint: where it is not followed the page cache is verified instead of the disk.
        _ = posix_fadvise(file.rawValue, 0, 0, POSIX_FADV_DONTNEED)
    }

    /// close(2).
    public func close(_ file: OpenFile) throws(ObjectStoreError) {
        // After EINTR the descriptor is gone all the same on Linux.
        guard Glibc.close(file.rawValue) == 0 || errno == EINTR else {
            throw .system(errno, "closing", "a written file")
        }
    }

    /// close(2), whatever it says.
    public func discard(_ file: OpenFile) {
        _ = Glibc.close(file.rawValue)
    }

    /// link(2).
    public func link(_ path: String, as name: String) throws(ObjectStoreError) -> Bool {
        if Glibc.link(path, name) == 0 { return true }
        let number = errno
        guard number == EEXIST else { throw .system(number, "linking", name) }
        return false
    }

    /// rename(2).
    public func rename(_ path: String, over name: String) throws(ObjectStoreError) {
        guard Glibc.rename(path, name) == 0 else { throw .system(errno, "renaming", name) }
    }

    /// unlink(2).
    public func unlink(_ path: String) throws(ObjectStoreError) -> Bool {
        if Glibc.unlink(path) == 0 { return true }
        let number = errno
        guard number == ENOENT else { throw .system(number, "removing", path) }
        return false
    }

    /// readdir(3).
    public func names(in path: String) throws(ObjectStoreError) -> [String] {
        guard let directory = opendir(path) else { throw .system(errno, "listing", path) }
        defer { closedir(directory) }
        var names: [String] = []
        while true {
            // readdir tells its end from its failure by errno alone.
            errno = 0
            guard let entry = readdir(directory) else {
                let number = errno
                guard number == 0 else { throw .system(number, "listing", path) }
                return names
            }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: pointer.pointee)) {
                    String(cString: $0)
                }
            }
            if name != ".", name != ".." { names.append(name) }
        }
    }

    /// flock(2), exclusive. Waits only for what ends by itself: a process that was killed and is not quite gone, or one that was forked by
    /// who held the lock and has not begun its program yet.
    public func lock(_ directory: OpenFile) throws(ObjectStoreError) -> Bool {
        for attempt in 1...ObjectStoreLimits.lockAttempts {
            if flock(directory.rawValue, LOCK_EX | LOCK_NB) == 0 { return true }
            let number = errno
            guard number == EWOULDBLOCK else { throw .system(number, "locking", "a root") }
            if attempt < ObjectStoreLimits.lockAttempts { usleep(ObjectStoreLimits.lockPauseMicroseconds) }
        }
        return false
    }

    /// statvfs(3).
    public func space(at path: String) throws(ObjectStoreError) -> FileSystemSpace {
        var status = statvfs()
        guard statvfs(path, &status) == 0 else { throw .system(errno, "statvfs", path) }
        let unit = UInt64(status.f_frsize)
        return FileSystemSpace(
            freeBytes: UInt64(status.f_bavail) * unit,
            totalBytes: UInt64(status.f_blocks) * unit
        )
    }

    /// From the system's generator.
    public func randomBytes(count: Int) -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        return (0..<count).map { _ in generator.next() }
    }

    /// Where the point is armed, the process ends.
    public func reached(_ failpoint: Failpoint) throws(ObjectStoreError) { failpoint.reach() }
}
