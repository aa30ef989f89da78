/// A TCP connection in which a process of the cluster takes part.
struct Connection: Equatable {
    /// An address and a port as `ss` writes them.
    struct End: Equatable, Hashable {
        var host: String
        var port: Int
    }

    /// A socket of a process.
    struct Socket: Equatable {
        var pid: Int32
        var descriptor: Int32
    }

    var local: End
    var peer: End
    /// The sockets of both ends, as far as their processes are known.
    var sockets: [Socket]
    /// The roles of its ends, in alphabetical order.
    var name: String

    /// The connections of which at least one end belongs to a role, from what `ss -Htnp state established` prints: receive
    /// queue, send queue, local address, peer's address, processes.
    static func parse(_ text: String, roles: [Int32: String]) -> [Connection] {
        var owners: [[End]: String] = [:]
        var sockets: [[End]: Socket] = [:]
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ", omittingEmptySubsequences: true)
            guard words.count >= 4, let local = end(words[2]), let peer = end(words[3]) else { continue }
            let parts = words.dropFirst(4).joined().split { $0 == "," || $0 == ")" }
            let pids = parts.compactMap { $0.hasPrefix("pid=") ? Int32($0.dropFirst(4)) : nil }
            let descriptors = parts.compactMap { $0.hasPrefix("fd=") ? Int32($0.dropFirst(3)) : nil }
            owners[[local, peer]] = pids.lazy.compactMap { roles[$0] }.first ?? "client"
            if let pid = pids.first, let descriptor = descriptors.first {
                sockets[[local, peer]] = Socket(pid: pid, descriptor: descriptor)
            }
        }
        var result: [Connection] = []
        for (ends, role) in owners {
            guard let other = owners[[ends[1], ends[0]]], role != "client" || other != "client" else { continue }
            // Each connection is there twice, once for each end.
            guard (ends[0].host, ends[0].port) < (ends[1].host, ends[1].port) else { continue }
            let name = [role, other].sorted().joined(separator: "-")
            let known = [sockets[ends], sockets[[ends[1], ends[0]]]].compactMap { $0 }
            result.append(Connection(local: ends[0], peer: ends[1], sockets: known, name: name))
        }
        // Dictionaries have no order of their own, and a seed must give the same run.
        return result.sorted { ($0.name, $0.local.port, $0.peer.port) < ($1.name, $1.local.port, $1.peer.port) }
    }

    private static func end(_ text: Substring) -> End? {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]) else { return nil }
        return End(host: String(text[..<colon]), port: port)
    }
}
