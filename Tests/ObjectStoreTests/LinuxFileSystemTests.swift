import Foundation
import NIOCore
import Testing

@testable import ObjectStore

/// What the file system of the machine does with writes that need not stay in the page cache.
@Suite struct LinuxFileSystemTests {
    private static let page = ObjectStoreLimits.directWritePageBytes
    private static let most = ObjectStoreLimits.directWriteMaximumBytes

    /// Bytes of which no two pages are alike.
    private static func bytes(_ count: Int) -> ByteBuffer {
        ByteBuffer(bytes: (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 / page) })
    }

    @Test(arguments: [
        0, 1, ObjectStoreLimits.directWriteMinimumBytes - 1, ObjectStoreLimits.directWriteMinimumBytes,
        ObjectStoreLimits.directWriteMinimumBytes + 1, most, most + page - 1, 3 * most + page + 5,
    ])
    func whatIsWrittenPastThePageCacheIsWhole(count: Int) throws {
        let path = NSTemporaryDirectory() + "ashlar-direct-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let fileSystem = LinuxFileSystem()
        let bytes = Self.bytes(count)
        let file = try fileSystem.createFile(path)
        try fileSystem.writeAll(bytes, to: file, isCached: false)
        try fileSystem.syncFile(file)
        // What follows lies behind it, wherever that is.
        let more = Self.bytes(Self.most)
        try fileSystem.writeAll(more, to: file, isCached: false)
        try fileSystem.close(file)
        let found = try #require(FileManager.default.contents(atPath: path))
        #expect(found.elementsEqual(Array(bytes.readableBytesView) + Array(more.readableBytesView)))
    }

    @Test func aFileThatCannotBeWrittenIsAnError() throws {
        let path = NSTemporaryDirectory() + "ashlar-direct-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let fileSystem = LinuxFileSystem()
        try fileSystem.close(try fileSystem.createFile(path))
        let file = try fileSystem.openFile(path)
        defer { fileSystem.discard(file) }
        #expect(Fixtures.code { try fileSystem.writeAll(Self.bytes(Self.most), to: file, isCached: false) } != nil)
    }
}
