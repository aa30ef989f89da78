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
        directory = NSTemporaryDirectory() + "/ashlar-objects-" + UUID().uuidString
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

    func configuration(roots: [String] = ["root"]) throws -> ObjectServerConfiguration {
        ObjectServerConfiguration(
            node: try node(.objects, "objects-1"),
            listenPort: 0,
            serverID: ObjectServerID(7),
            roots: roots.map { ObjectServerConfiguration.Root(path: "\(directory)/\($0)") }
        )
    }

    func client(of server: ObjectServerService, as role: Role) throws -> RPCClientHandle {
        RPCClientHandle.connect(
            on: MultiThreadedEventLoopGroup.singleton.any(),
            configuration: RPCClient.Configuration(
                endpoint: server.endpoint,
                identity: try identity(role, "client"),
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

/// Runs `body` against a server with an agent's client, and closes both whatever happens.
func withServer(
    as role: Role = .agent,
    roots: [String] = ["root"],
    _ body: (TestCluster, ObjectServerService, RPCClientHandle) async throws -> Void
) async throws {
    let cluster = try TestCluster()
    let server = try await ObjectServerService.startSmall(try cluster.configuration(roots: roots))
    let client = try cluster.client(of: server, as: role)
    do {
        try await body(cluster, server, client)
    } catch {
        await client.close()
        await server.stop()
        throw error
    }
    await client.close()
    await server.stop()
}

extension ObjectServerService {
    /// Starts with few directories, which are quickly made.
    static func startSmall(_ configuration: ObjectServerConfiguration) async throws -> ObjectServerService {
        try await start(configuration, logger: quiet) { $0.directoryBits = 1 }
    }
}
