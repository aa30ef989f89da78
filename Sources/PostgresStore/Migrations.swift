import Crypto
import Foundation

/// One step of the schema: `NNNN_name.up.sql` and `NNNN_name.down.sql`.
public struct Migration: Sendable, Hashable {
    /// The number its file names begin with.
    public let version: Int
    /// The name behind the number.
    public let name: String
    /// Statements that take the step.
    public let up: String
    /// Statements that take it back.
    public let down: String
    /// Oldest release that can work with the schema once this step has been taken: the line
    /// `-- ashlar: oldest-release X.Y` of the up file; nil where any can.
    public let oldestRelease: Release?
    /// SHA-256 over both files, in hexadecimal.
    public let checksum: String

    init(version: Int, name: String, up: String, down: String) throws(PostgresError) {
        self.version = version
        self.name = name
        self.up = up
        self.down = down
        var hash = SHA256()
        hash.update(data: Data(up.utf8))
        hash.update(data: Data([0]))
        hash.update(data: Data(down.utf8))
        checksum = hash.finalize().map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
        oldestRelease = try Self.header(up, version: version)
    }

    /// The number and the name, as in the file names.
    public var title: String { Self.title(version, name) }

    static func title(_ version: Int, _ name: String) -> String {
        let digits = String(version)
        return String(repeating: "0", count: max(0, 4 - digits.count)) + digits + "_" + name
    }

    private static func header(_ text: String, version: Int) throws(PostgresError) -> Release? {
        let mark = "-- ashlar: oldest-release "
        for line in text.split(separator: "\n") where line.hasPrefix(mark) {
            let value = line.dropFirst(mark.count)
            guard let release = Release(String(value)) else {
                throw PostgresError(.migration, "migration \(version): \(value) is no release number")
            }
            return release
        }
        return nil
    }
}

/// A release number: numbers with dots between; what follows a hyphen or a plus sign does not count.
public struct Release: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// The numbers, without zeros at the end.
    private let parts: [Int]
    /// As it was given.
    public let description: String

    /// Reads a release number; nil where it is none.
    public init?(_ text: String) {
        let trimmed = text.trimmingCharacters(in: .whitespaces)
        let core = trimmed.prefix { $0 != "-" && $0 != "+" }
        var parts: [Int] = []
        for part in core.split(separator: ".", omittingEmptySubsequences: false) {
            guard let number = Int(part), number >= 0 else { return nil }
            parts.append(number)
        }
        while parts.last == 0 && parts.count > 1 { parts.removeLast() }
        self.parts = parts
        description = trimmed
    }

    /// Compares number by number.
    public static func < (lhs: Release, rhs: Release) -> Bool { lhs.parts.lexicographicallyPrecedes(rhs.parts) }
    /// Whether the numbers are the same.
    public static func == (lhs: Release, rhs: Release) -> Bool { lhs.parts == rhs.parts }
    /// Hashes the numbers.
    public func hash(into hasher: inout Hasher) { hasher.combine(parts) }
}

/// The migrations of a directory, in order.
public struct Migrations: Sendable {
    /// Ascending by version, from 1 without gaps.
    public let all: [Migration]

    /// Reads a directory.
    ///
    /// - Throws: ``PostgresError`` that names the file: unreadable, without its counterpart, a number twice or left out.
    public init(directory: String) throws(PostgresError) {
        var found: [Int: (name: String, up: String?, down: String?)] = [:]
        for file in try Self.files(in: directory) {
            guard let (version, name, isUp) = Self.parse(file) else {
                throw PostgresError(.migration, "\(file) is not named like NNNN_name.up.sql or NNNN_name.down.sql")
            }
            var entry = found[version] ?? (name, nil, nil)
            guard entry.name == name else {
                throw PostgresError(.migration, "\(file) has the number of \(Migration.title(version, entry.name))")
            }
            let text = try Self.read(directory + "/" + file)
            if isUp { entry.up = text } else { entry.down = text }
            found[version] = entry
        }
        var all: [Migration] = []
        for (version, entry) in found.sorted(by: { $0.key < $1.key }) {
            guard let up = entry.up, let down = entry.down else {
                let missing = entry.up == nil ? "up" : "down"
                throw PostgresError(
                    .migration,
                    "\(Migration.title(version, entry.name)).\(missing).sql is missing in \(directory)"
                )
            }
            guard version == all.count + 1 else {
                throw PostgresError(.migration, "there is no migration \(all.count + 1) in \(directory)")
            }
            all.append(try Migration(version: version, name: entry.name, up: up, down: down))
        }
        self.all = all
    }

    /// Writes an empty pair of files with the next number.
    ///
    /// - Returns: their paths.
    /// - Throws: ``PostgresError`` where the name has other characters than a–z, 0–9 and `_`, or files cannot be written.
    public static func new(name: String, directory: String) throws(PostgresError) -> (up: String, down: String) {
        guard !name.isEmpty, name.utf8.allSatisfy(isNameByte) else {
            throw PostgresError(.migration, "the name of a migration consists of a-z, 0-9 and _")
        }
        let version = try Migrations(directory: directory).all.count + 1
        let base = directory + "/" + Migration.title(version, name)
        let paths = (up: base + ".up.sql", down: base + ".down.sql")
        for path in [paths.up, paths.down] {
            do {
                try Data().write(to: URL(fileURLWithPath: path), options: .withoutOverwriting)
            } catch {
                throw PostgresError(.migration, "\(path) cannot be written: \(error.localizedDescription)")
            }
        }
        return paths
    }

    private static func files(in directory: String) throws(PostgresError) -> [String] {
        do {
            return try FileManager.default.contentsOfDirectory(atPath: directory).filter { $0.hasSuffix(".sql") }
                .sorted()
        } catch {
            throw PostgresError(.migration, "directory \(directory) cannot be read: \(error.localizedDescription)")
        }
    }

    private static func read(_ path: String) throws(PostgresError) -> String {
        guard
            let data = FileManager.default.contents(atPath: path),
            data.count <= PostgresStoreLimits.migrationFileMaximumBytes, let text = String(data: data, encoding: .utf8)
        else {
            throw PostgresError(.migration, "\(path) cannot be read, is too long, or is not UTF-8")
        }
        return text
    }

    private static func parse(_ file: String) -> (version: Int, name: String, isUp: Bool)? {
        let isUp = file.hasSuffix(".up.sql")
        guard isUp || file.hasSuffix(".down.sql") else { return nil }
        let stem = file.dropLast(isUp ? 7 : 9)
        let digits = stem.prefix { $0.isASCII && $0.isNumber }
        let rest = stem.dropFirst(digits.count)
        guard digits.count >= 4, let version = Int(digits), version > 0, rest.first == "_", rest.count > 1 else {
            return nil
        }
        return (version, String(rest.dropFirst()), isUp)
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"): true
        default: false
        }
    }
}
