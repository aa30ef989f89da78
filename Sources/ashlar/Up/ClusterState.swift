import Foundation

/// What `--json` prints and `state.json` holds.
struct ClusterState: Codable, Sendable, Hashable {
    struct Portal: Codable, Sendable, Hashable {
        var volume: String
        var address: String
        var port: Int
        var iqn: String
        var pid: Int32
    }

    struct RoleProcess: Codable, Sendable, Hashable {
        var role: String
        /// 0 while it is being restarted.
        var pid: Int32
        var endpoint: String
    }

    /// Whether every process is ready now.
    var ready: Bool
    var portals: [Portal]
    /// `host:port` of the balancer that all portals advertise, where there is one.
    var balancedPortal: String?
    var postgres: String
    var api: String
    var roles: [RoleProcess]
    var data: String
    /// Files that a program needs to use the API.
    var token: String
    var authority: String

    /// One line of JSON.
    func line() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }
}
