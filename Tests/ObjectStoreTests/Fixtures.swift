import AshlarCore
import BlockObjects
import Glibc
import Logging
import NIOConcurrencyHelpers
import NIOCore
import Testing

@testable import ObjectStore

enum Fixtures {
    static let clusterID = "8f14e45f-ceea-467f-9a5c-111111111111"

    /// Errors of the store are asked for by tests, not read by people.
    static let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

    static func configuration(
        _ paths: [String] = ["/disk"],
        weights: [UInt32] = [],
        cluster: String = clusterID,
        server: Int32 = 3
    ) -> ObjectStoreConfiguration {
        var configuration = ObjectStoreConfiguration(
            roots: paths.enumerated().map { index, path in
                ObjectStoreConfiguration.Root(path: path, weight: index < weights.count ? weights[index] : 100)
            },
            clusterID: cluster,
            serverID: ObjectServerID(server)
        )
        configuration.directoryBits = 1
        return configuration
    }

    static func files(
        _ fileSystem: any FileSystem,
        _ configuration: ObjectStoreConfiguration = configuration()
    ) throws -> ObjectFiles {
        try ObjectFiles(configuration: configuration, fileSystem: fileSystem, logger: logger)
    }

    /// An object of `blocks` noisy blocks of 512 bytes, other bytes for each `variant`.
    static func object(_ id: UInt64, blocks: Int = 3, variant: UInt64 = 0) throws -> ByteBuffer {
        var builder = try BlockObjectBuilder(
            objectID: ObjectID(id),
            volumeID: VolumeID(1),
            volumeUUID: Array(0..<16),
            blockSizeBytes: 512,
            compressor: nil
        )
        for index in 0..<UInt64(blocks) {
            let bytes = block(id, index, variant)
            let checksum = bytes.withUnsafeReadableBytes { Checksum(of: $0) }
            try builder.add(block: BlockID(index), version: Version(id + 1), checksum: checksum, bytes: bytes)
        }
        return try builder.finish()
    }

    static func block(_ id: UInt64, _ index: UInt64, _ variant: UInt64 = 0) -> ByteBuffer {
        var generator = SeededGenerator(seed: id &* 1_000 &+ index &+ variant &* 1_000_000)
        return ByteBuffer(bytes: (0..<64).flatMap { _ in withUnsafeBytes(of: generator.next()) { Array($0) } })
    }

    /// The code of what an operation throws.
    static func code(_ body: () throws -> Void) -> ObjectStoreError.Code? { error(body)?.code }

    static func error(_ body: () throws -> Void) -> ObjectStoreError? {
        do {
            try body()
            return nil
        } catch {
            return error as? ObjectStoreError
        }
    }
}

/// A directory of the machine that is removed in the end.
final class ScratchDirectory {
    let path: String

    init() throws {
        var template = Array("/tmp/ashlar-objectstore-XXXXXX\0".utf8CString)
        guard mkdtemp(&template) != nil else { throw ObjectStoreError.system(errno, "mkdtemp", "/tmp") }
        path = template.withUnsafeBufferPointer { buffer in
            String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }

    func subdirectory(_ name: String) throws -> String {
        _ = try LinuxFileSystem().createDirectory("\(path)/\(name)")
        return "\(path)/\(name)"
    }

    deinit { Self.remove(path) }

    private static func remove(_ path: String) {
        let names = (try? LinuxFileSystem().names(in: path)) ?? []
        for name in names where Glibc.unlink("\(path)/\(name)") != 0 {
            remove("\(path)/\(name)")
        }
        rmdir(path)
    }
}

/// Waits for a completion.
func outcome<Value: Sendable>(
    _ operation: (@escaping ObjectStore.Completion<Value>) -> Void
) async throws -> Value {
    let result = await withCheckedContinuation { continuation in
        operation { continuation.resume(returning: $0) }
    }
    return try result.get()
}

/// A generator with a seed, so that a failing test can be repeated.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return Placement.hash(state)
    }
}
