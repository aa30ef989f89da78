import AshlarCore
import CLinux
import Foundation
import Glibc
import Supervision

/// Where everything lies in a data directory.
struct UpLayout: Sendable {
    /// The data directory, absolute, links resolved.
    let root: String

    var lockFile: String { root + "/lock" }
    var clusterFile: String { root + "/cluster.json" }
    var stateFile: String { root + "/state.json" }
    var tokenFile: String { root + "/token" }
    var authorityDirectory: String { root + "/authority" }
    var authorityCertificate: String { authorityDirectory + "/certificate.pem" }
    var authorityKey: String { authorityDirectory + "/key.pem" }
    var postgresDirectory: String { root + "/postgres" }
    /// Its write-ahead log: a directory, or a link to one, which may lie in another file system than the rest.
    var postgresLogDirectory: String { postgresDirectory + "/pg_wal" }
    var runDirectory: String { root + "/run" }
    var logDirectory: String { root + "/log" }
    var scratchDirectory: String { root + "/once" }

    func directory(of instance: RoleInstance) -> String { "\(root)/\(instance.name)" }
    func configuration(of instance: RoleInstance) -> String { directory(of: instance) + "/config.json" }
    func certificate(of instance: RoleInstance) -> String { directory(of: instance) + "/certificate.pem" }
    func key(of instance: RoleInstance) -> String { directory(of: instance) + "/key.pem" }
    func blocks(of instance: RoleInstance) -> String { directory(of: instance) + "/blocks" }
    func log(of process: String) -> String { "\(logDirectory)/\(process).log" }

    /// Resolves what `--data` says: an absolute path without links, of which the last part need not exist yet.
    init(resolving path: String) throws {
        let expanded = (path as NSString).expandingTildeInPath
        let absolute = expanded.hasPrefix("/") ? expanded : FileManager.default.currentDirectoryPath + "/" + expanded
        var url = URL(fileURLWithPath: absolute).standardizedFileURL
        var missing: [String] = []
        while !Files.exists(url.path), url.path != "/" {
            missing.insert(url.lastPathComponent, at: 0)
            url.deleteLastPathComponent()
        }
        guard let resolved = realpath(url.path, nil) else {
            throw UpError.system("resolve", url.path, errno: errno)
        }
        defer { free(resolved) }
        root = ([String(cString: resolved)] + missing).joined(separator: "/").replacingOccurrences(of: "//", with: "/")
    }
}

/// One process of a role.
struct RoleInstance: Sendable, Hashable {
    var role: Role
    /// Counted from 1.
    var number: Int

    /// "target-1".
    var name: String { "\(role.rawValue)-\(number)" }
}

/// What a data directory remembers of its cluster: `cluster.json`.
struct ClusterRecord: Codable, Sendable {
    /// Of the file's format.
    var version = 1
    /// The cluster's UUID.
    var cluster: String
    /// Where PostgreSQL's socket is.
    var socketDirectory: String
    /// Ports by purpose: "cache-1", "cache-1.health"…; iSCSI portals are not among them.
    var ports: [String: Int] = [:]
    /// Whether the first start was completed, with its volumes.
    var isComplete = false

    enum CodingKeys: String, CodingKey {
        case version, cluster, ports
        case socketDirectory = "socket-directory"
        case isComplete = "complete"
    }

    /// Reads the record of a data directory; nil where there is none.
    static func load(_ path: String) throws -> ClusterRecord? {
        guard let data = FileManager.default.contents(atPath: path) else { return nil }
        do {
            let record = try JSONDecoder().decode(ClusterRecord.self, from: data)
            guard record.version == 1 else {
                throw UpError("\(path) is of a later release of Ashlar.", remedy: "Start that release.")
            }
            return record
        } catch let error as UpError {
            throw error
        } catch {
            throw UpError("\(path) cannot be read: it is damaged.", remedy: "Restore it from a backup.")
        }
    }

    func save(_ path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        let text = String(decoding: try encoder.encode(self), as: UTF8.self) + "\n"
        try Files.replace(path, with: text, mode: 0o644)
    }

    /// Gives each purpose a port: the remembered one where it is free, else another.
    mutating func assignPorts(_ purposes: [String], seed: Int) throws {
        let width = UpLimits.portRange.count
        var next = Int(UInt(bitPattern: seed) % UInt(width))
        var taken = Set<Int>()
        for purpose in purposes {
            if let port = ports[purpose], !taken.contains(port), Ports.tryListening(on: port) == 0 {
                taken.insert(port)
                continue
            }
            var chosen: Int?
            for _ in 0..<UpLimits.portAttemptsMaximum {
                let port = UpLimits.portRange.lowerBound + next
                next = (next + 1) % width
                guard !taken.contains(port), Ports.tryListening(on: port) == 0 else { continue }
                chosen = port
                break
            }
            guard let chosen else {
                throw UpError(
                    "No free port was found on 127.0.0.1 from \(UpLimits.portRange.lowerBound) on.",
                    remedy: "Stop what listens there."
                )
            }
            ports[purpose] = chosen
            taken.insert(chosen)
        }
        let wanted = Set(purposes)
        ports = ports.filter { wanted.contains($0.key) }
    }
}

/// The exclusive use of a data directory, for as long as the value lives.
final class DataDirectoryLock: Sendable {
    private let file: Int32

    /// - Throws: ``UpError`` where another `ashlar up` uses the directory.
    init(_ path: String, data: String) throws {
        let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw UpError.system("open", path, errno: errno) }
        guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
            let code = errno
            close(file)
            guard code == EWOULDBLOCK else { throw UpError.system("lock", path, errno: code) }
            let holder = Files.text(path)?.trimmingCharacters(in: .whitespacesAndNewlines) ?? ""
            throw UpError(
                "Another ashlar up\(holder.isEmpty ? "" : " (process \(holder))") runs on \(data).",
                remedy: "Stop it first, or name another directory with --data."
            )
        }
        self.file = file
        let text = "\(getpid())\n"
        ftruncate(file, 0)
        _ = text.withCString { pwrite(file, $0, strlen($0), 0) }
    }

    deinit {
        close(file)
    }
}
