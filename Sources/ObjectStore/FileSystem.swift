public import Failpoints

/// A descriptor of an open file or directory, of the file system that gave it.
public struct OpenFile: Sendable, Hashable {
    /// The number of the descriptor.
    public let rawValue: Int32

    /// Wraps a descriptor.
    public init(_ rawValue: Int32) { self.rawValue = rawValue }
}

/// The room on the file system of a root, in bytes.
public struct FileSystemSpace: Sendable, Hashable {
    /// What an unprivileged process may still write.
    public var freeBytes: UInt64
    /// All of it.
    public var totalBytes: UInt64

    /// Free and total bytes.
    public init(freeBytes: UInt64, totalBytes: UInt64) {
        self.freeBytes = freeBytes
        self.totalBytes = totalBytes
    }
}

/// All that the store asks of the operating system, so that a test can put a failing or a forgetful disk in its place.
///
/// Every call blocks and may be made from any thread. Errors are those of ``ObjectStoreError/system(_:_:_:)``.
public protocol FileSystem: Sendable {
    /// Creates a directory; false where it exists already.
    func createDirectory(_ path: String) throws(ObjectStoreError) -> Bool
    /// Opens a directory, to be locked or synced.
    func openDirectory(_ path: String) throws(ObjectStoreError) -> OpenFile
    /// Creates a file that must not exist, to be written.
    func createFile(_ path: String) throws(ObjectStoreError) -> OpenFile
    /// Opens a file to be read.
    func openFile(_ path: String) throws(ObjectStoreError) -> OpenFile
    /// Bytes of an open file.
    func byteCount(of file: OpenFile) throws(ObjectStoreError) -> UInt64
    /// Bytes of the file at `path`; nil where there is none.
    func byteCount(at path: String) throws(ObjectStoreError) -> UInt64?
    /// Reads from `offset` on, as much as one call gives; 0 at the end of the file.
    func read(
        _ file: OpenFile,
        into bytes: UnsafeMutableRawBufferPointer,
        at offset: UInt64
    ) throws(ObjectStoreError) -> Int
    /// Appends as much of `bytes` as one call takes, at least one byte.
    func write(_ file: OpenFile, _ bytes: UnsafeRawBufferPointer) throws(ObjectStoreError) -> Int
    /// As ``write(_:_:)``, but what is written need not stay in the page cache.
    func writeUncached(_ file: OpenFile, _ bytes: UnsafeRawBufferPointer) throws(ObjectStoreError) -> Int
    /// Makes the contents and the size of a file durable. Never called again on a descriptor for which it failed.
    func syncFile(_ file: OpenFile) throws(ObjectStoreError)
    /// Makes the names in a directory durable. Never called again on a descriptor for which it failed.
    func syncDirectory(_ directory: OpenFile) throws(ObjectStoreError)
    /// Drops what the page cache holds of a file, so that reading it reads the disk; a hint.
    func dropCached(_ file: OpenFile)
    /// Closes a file that was written; an error counts as a failed write.
    func close(_ file: OpenFile) throws(ObjectStoreError)
    /// Closes a file or directory of which nothing can be lost any more.
    func discard(_ file: OpenFile)
    /// Gives a file a second name; false, and nothing done, where that name is taken.
    func link(_ path: String, as name: String) throws(ObjectStoreError) -> Bool
    /// Renames a file over another one.
    func rename(_ path: String, over name: String) throws(ObjectStoreError)
    /// Removes a name of a file; false where there is none.
    func unlink(_ path: String) throws(ObjectStoreError) -> Bool
    /// The names in a directory, without "." and "..", in any order.
    func names(in path: String) throws(ObjectStoreError) -> [String]
    /// Locks a directory against every other descriptor, until this one is closed; false where it is locked already.
    func lock(_ directory: OpenFile) throws(ObjectStoreError) -> Bool
    /// The room on the file system that holds `path`.
    func space(at path: String) throws(ObjectStoreError) -> FileSystemSpace
    /// Random bytes, for the uuid of a new root.
    func randomBytes(count: Int) -> [UInt8]
    /// Called at each named point; what it throws is the error of the operation.
    func reached(_ failpoint: Failpoint) throws(ObjectStoreError)
}
