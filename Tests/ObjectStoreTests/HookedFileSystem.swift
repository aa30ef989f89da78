import Failpoints

@testable import ObjectStore

/// A file system that calls a function at each failpoint, so that a test can do something in the middle of an operation.
final class HookedFileSystem: FileSystem {
    private let base: any FileSystem
    private let hook: @Sendable (Failpoint) -> Void

    init(_ base: any FileSystem, hook: @escaping @Sendable (Failpoint) -> Void) {
        self.base = base
        self.hook = hook
    }

    func reached(_ failpoint: Failpoint) throws(ObjectStoreError) {
        hook(failpoint)
        try base.reached(failpoint)
    }

    func createDirectory(_ path: String) throws(ObjectStoreError) -> Bool { try base.createDirectory(path) }
    func openDirectory(_ path: String) throws(ObjectStoreError) -> OpenFile { try base.openDirectory(path) }
    func createFile(_ path: String) throws(ObjectStoreError) -> OpenFile { try base.createFile(path) }
    func openFile(_ path: String) throws(ObjectStoreError) -> OpenFile { try base.openFile(path) }
    func byteCount(of file: OpenFile) throws(ObjectStoreError) -> UInt64 { try base.byteCount(of: file) }
    func byteCount(at path: String) throws(ObjectStoreError) -> UInt64? { try base.byteCount(at: path) }
    func read(
        _ file: OpenFile,
        into bytes: UnsafeMutableRawBufferPointer,
        at offset: UInt64
    ) throws(ObjectStoreError) -> Int { try base.read(file, into: bytes, at: offset) }
    func write(_ file: OpenFile, _ bytes: UnsafeRawBufferPointer) throws(ObjectStoreError) -> Int {
        try base.write(file, bytes)
    }
    func writeUncached(_ file: OpenFile, _ bytes: UnsafeRawBufferPointer) throws(ObjectStoreError) -> Int {
        try base.writeUncached(file, bytes)
    }
    func syncFile(_ file: OpenFile) throws(ObjectStoreError) { try base.syncFile(file) }
    func syncDirectory(_ directory: OpenFile) throws(ObjectStoreError) { try base.syncDirectory(directory) }
    func dropCached(_ file: OpenFile) { base.dropCached(file) }
    func close(_ file: OpenFile) throws(ObjectStoreError) { try base.close(file) }
    func discard(_ file: OpenFile) { base.discard(file) }
    func link(_ path: String, as name: String) throws(ObjectStoreError) -> Bool { try base.link(path, as: name) }
    func rename(_ path: String, over name: String) throws(ObjectStoreError) { try base.rename(path, over: name) }
    func unlink(_ path: String) throws(ObjectStoreError) -> Bool { try base.unlink(path) }
    func names(in path: String) throws(ObjectStoreError) -> [String] { try base.names(in: path) }
    func lock(_ directory: OpenFile) throws(ObjectStoreError) -> Bool { try base.lock(directory) }
    func space(at path: String) throws(ObjectStoreError) -> FileSystemSpace { try base.space(at: path) }
    func randomBytes(count: Int) -> [UInt8] { base.randomBytes(count: count) }
}
