import Foundation
import Glibc

/// A disk image with an ext4 file system and files in it, made from a seed.
struct DiskImage: Sendable {
    /// The raw image.
    var path: String
    /// Its size; a sparse file.
    var sizeBytes: UInt64
    /// Bytes of the files in it.
    var contentBytes: UInt64
    /// How many files.
    var fileCount: Int

    /// Largest image that is made, whatever the size of the volume.
    private static let sizeMaximumBytes: UInt64 = 1 << 30
    /// Most bytes of files.
    private static let contentMaximumBytes: UInt64 = 400 << 20

    /// Makes an image for a volume of `volumeBytes` in `directory`, which is emptied first.
    static func make(in directory: String, volumeBytes: UInt64, seed: UInt64) async throws -> DiskImage {
        guard let mke2fs = Command.find("mke2fs") else {
            throw UpError("mke2fs is not installed.", remedy: "Install it (apt-get install e2fsprogs).")
        }
        if Files.exists(directory) { try FileManager.default.removeItem(atPath: directory) }
        try Files.makeDirectory(directory, mode: 0o700)
        let size = min(volumeBytes, sizeMaximumBytes) / 1_024 * 1_024
        let content = min(contentMaximumBytes, size / 5 * 2)
        let tree = directory + "/tree"
        try Files.makeDirectory(tree, mode: 0o755)
        var files = SeededFiles(seed: seed)
        try files.fill(tree, bytes: content)
        let image = directory + "/disk.img"
        try await Command(
            path: mke2fs,
            arguments: ["-q", "-F", "-t", "ext4", "-L", "ashlar", "-d", tree, image, "\(size / 1_024)k"]
        ).check(timeout: .seconds(600))
        try FileManager.default.removeItem(atPath: tree)
        return DiskImage(path: image, sizeBytes: size, contentBytes: content, fileCount: files.count)
    }
}

/// Files whose names, sizes and contents follow from a seed: some compress, some do not, some are holes of zeros.
struct SeededFiles {
    private var state: UInt64
    /// Files written so far.
    private(set) var count = 0

    init(seed: UInt64) {
        state = seed
    }

    /// SplitMix64.
    private mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// Writes files of about `bytes` in all below `directory`.
    mutating func fill(_ directory: String, bytes: UInt64) throws {
        var left = Int(bytes)
        var folder = directory
        while left > 0 {
            if count % 50 == 0 {
                folder = "\(directory)/folder-\(count / 50)"
                try Files.makeDirectory(folder, mode: 0o755)
            }
            let sizes = [300, 5_000, 60_000, 400_000, 3 << 20, 12 << 20]
            let scale = sizes[Int(next() % UInt64(sizes.count))]
            let size = min(left, 1 + Int(next() % UInt64(scale)))
            try write(size: size, to: "\(folder)/file-\(count)")
            left -= size
            count += 1
        }
    }

    private mutating func write(size: Int, to path: String) throws {
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw UpError.system("create", path, errno: errno) }
        defer { close(file) }
        let kind = next() % 4
        var left = size
        var buffer = [UInt64](repeating: 0, count: 8_192)
        while left > 0 {
            for index in buffer.indices {
                // 0 and 1: random; 2: text-like, each word from few; 3: mostly zeros.
                switch kind {
                case 2: buffer[index] = 0x2020_6173_686C_6172 &+ (next() % 16)
                case 3: buffer[index] = index % 64 == 0 ? next() : 0
                default: buffer[index] = next()
                }
            }
            let part = min(left, buffer.count * 8)
            let written = buffer.withUnsafeBytes { Glibc.write(file, $0.baseAddress, part) }
            guard written > 0 else { throw UpError.system("write", path, errno: errno) }
            left -= written
        }
    }
}
