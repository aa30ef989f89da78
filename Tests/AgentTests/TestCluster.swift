import AshlarCore
import Foundation
import Logging
import NIOCore
import NIOPosix
import ObjectStore
import RPC
import Transport

@testable import ObjectServer

/// A cluster's authority in a directory of its own, which goes away with it.
final class TestCluster: Sendable {
    let directory: String
    let id = ClusterID(high: 0x0123_4567_89AB_4DEF, low: 0x8123_4567_89AB_CDEF)
    private let authority: CertificateAuthority

    init() throws {
        directory = NSTemporaryDirectory() + "/ashlar-agent-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        authority = try CertificateAuthority.create(cluster: id, now: Date())
        try authority.write(certificatePath: directory + "/ca.pem", keyPath: directory + "/ca.key")
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    /// Issues a certificate, and tells where it lies.
    func node(_ role: Role, _ name: String) throws -> NodeConfiguration {
        guard let identity = NodeIdentity(cluster: id, role: role, name: name) else { throw CocoaError(.formatting) }
        let issued = try authority.issue(CertificateRequest(node: identity, ipAddresses: ["127.0.0.1"]), now: Date())
        let path = "\(directory)/\(role.rawValue)-\(name)"
        try issued.write(certificatePath: path + ".pem", keyPath: path + ".key")
        return NodeConfiguration(
            name: name,
            clusterID: "\(id)",
            certificatePath: path + ".pem",
            keyPath: path + ".key",
            authorityPath: directory + "/ca.pem"
        )
    }

    func identity(_ role: Role, _ name: String) throws -> TLSIdentity {
        let node = try node(role, name)
        return try TLSIdentity(
            certificatePath: node.certificatePath,
            keyPath: node.keyPath,
            authorityPath: node.authorityPath
        )
    }

    /// An object server with the number `id`, on one root of its own; `port` 0 for any.
    func objectServer(_ id: Int32, port: Int = 0) async throws -> ObjectServerService {
        let configuration = ObjectServerConfiguration(
            node: try node(.objects, "objects-\(id)"),
            listenPort: port,
            serverID: ObjectServerID(id),
            roots: [ObjectServerConfiguration.Root(path: "\(directory)/root-\(id)")]
        )
        return try await ObjectServerService.startSmall(configuration)
    }

    func client(of server: ObjectServerService) throws -> RPCClientHandle {
        RPCClientHandle.connect(
            on: MultiThreadedEventLoopGroup.singleton.any(),
            configuration: RPCClient.Configuration(
                endpoint: server.endpoint,
                identity: try identity(.control, "test"),
                expectedRole: .objects,
                seed: 1
            ),
            logger: quiet
        )
    }
}

/// Logs nothing.
let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// How long a request of a test may take, in milliseconds.
let patience: UInt32 = 10_000

extension ObjectServerService {
    /// Starts with few directories, which are quickly made.
    static func startSmall(_ configuration: ObjectServerConfiguration) async throws -> ObjectServerService {
        try await start(configuration, logger: quiet) { $0.directoryBits = 1 }
    }
}
