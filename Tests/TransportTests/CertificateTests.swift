import AshlarCore
import Foundation
import NIOCore
import NIOPosix
import RPC
import Testing

@testable import Transport

@Suite(.timeLimit(.minutes(2)))
struct CertificateTests {
    private let directory: URL

    init() throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("ashlar-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    }

    private func path(_ name: String) -> String { directory.appendingPathComponent(name).path }

    private func mode(_ path: String) throws -> Int {
        try #require(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int)
    }

    @Test func authorityIsWrittenAndLoaded() throws {
        defer { try? FileManager.default.removeItem(at: directory) }
        let cluster = try TestCluster(3)
        try cluster.authority.write(certificatePath: path("ca.pem"), keyPath: path("ca.key"))
        #expect(try mode(path("ca.key")) == 0o600)
        #expect(try mode(path("ca.pem")) == 0o644)
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted() == ["ca.key", "ca.pem"])
        let loaded = try CertificateAuthority.load(certificatePath: path("ca.pem"), keyPath: path("ca.key"))
        #expect(loaded.cluster == cluster.authority.cluster)
        let description = try loaded.describe()
        #expect(description.isAuthority)
        #expect(description.node == nil)
        #expect((3_649...3_650).contains(description.daysLeft(now: TestCluster.present)))
        // Written again over what is there.
        try cluster.authority.write(certificatePath: path("ca.pem"), keyPath: path("ca.key"))
        #expect(try mode(path("ca.key")) == 0o600)
    }

    @Test func issuedCertificateSaysWhatWasAsked() throws {
        let cluster = try TestCluster()
        let node = try cluster.node(.objects, "objects-7")
        let issued = try cluster.authority.issue(
            CertificateRequest(
                node: node,
                dnsNames: ["objects-7.example"],
                ipAddresses: ["10.0.0.7", "fd00::7"],
                validityDays: 10
            ),
            now: TestCluster.present
        )
        let description = issued.description
        #expect(description.node == node)
        #expect(!description.isAuthority)
        #expect(description.dnsNames == ["objects-7.example"])
        #expect(description.ipAddresses == ["10.0.0.7", "fd00::7"])
        #expect(description.isValid(now: TestCluster.present))
        #expect(!description.isValid(now: TestCluster.present.addingTimeInterval(11 * 86_400)))
        #expect(description.daysLeft(now: TestCluster.present.addingTimeInterval(12 * 86_400)) < 0)
        #expect(description.description.contains(node.uri))
    }

    @Test func renewedCertificateKeepsItsNamesAndHasAnotherKey() throws {
        let cluster = try TestCluster()
        let request = CertificateRequest(
            node: try cluster.node(.cache),
            dnsNames: ["c.example"],
            ipAddresses: ["::1"],
            validityDays: 1
        )
        let old = try cluster.authority.issue(request, now: TestCluster.present)
        let later = TestCluster.present.addingTimeInterval(5 * 86_400)
        let new = try cluster.authority.renew(certificatePEM: old.certificatePEM, now: later)
        #expect(new.description.node == old.description.node)
        #expect(new.description.dnsNames == ["c.example"])
        #expect(new.description.ipAddresses == ["::1"])
        #expect(new.description.serial != old.description.serial)
        #expect(new.keyPEM != old.keyPEM)
        #expect(new.description.isValid(now: later))
        let foreign = try TestCluster(2)
        #expect(throws: TransportError.self) {
            try foreign.authority.renew(certificatePEM: old.certificatePEM, now: later)
        }
    }

    @Test func requestsThatAreRefused() throws {
        let cluster = try TestCluster()
        let foreign = try TestCluster(2).node(.cache)
        let own = try cluster.node(.cache)
        let refused = [
            CertificateRequest(node: foreign),
            CertificateRequest(node: own, ipAddresses: ["not-an-address"]),
            CertificateRequest(node: own, validityDays: 0),
            CertificateRequest(node: own, validityDays: 100_000),
        ]
        for request in refused {
            #expect(throws: TransportError.self) { try cluster.authority.issue(request, now: TestCluster.present) }
        }
        let leaf = try cluster.authority.issue(CertificateRequest(node: own), now: TestCluster.present)
        #expect(throws: TransportError.self) {
            try CertificateAuthority(certificatePEM: leaf.certificatePEM, keyPEM: leaf.keyPEM)
        }
        #expect(throws: TransportError.self) {
            try CertificateAuthority(certificatePEM: cluster.authority.certificatePEM, keyPEM: leaf.keyPEM)
        }
    }

    @Test func identityRefusesWhatDoesNotBelongTogether() throws {
        let cluster = try TestCluster()
        let request = CertificateRequest(node: try cluster.node(.cache))
        let one = try cluster.authority.issue(request, now: TestCluster.present)
        let two = try cluster.authority.issue(request, now: TestCluster.present)
        let authority = cluster.authority.certificatePEM
        #expect(throws: TransportError.self) {
            try TLSIdentity(certificatePEM: one.certificatePEM, keyPEM: two.keyPEM, authorityPEM: authority)
        }
        #expect(throws: TransportError.self) {
            try TLSIdentity(certificatePEM: authority, keyPEM: cluster.authority.keyPEM, authorityPEM: authority)
        }
        #expect(throws: TransportError.self) {
            try TLSIdentity(certificatePEM: "nonsense", keyPEM: one.keyPEM, authorityPEM: authority)
        }
        #expect(throws: TransportError.self) {
            try TLSIdentity(certificatePEM: one.certificatePEM, keyPEM: one.keyPEM, authorityPEM: "")
        }
        let error = #expect(throws: TransportError.self) {
            try TLSIdentity(certificatePath: "/nowhere/c", keyPath: "/nowhere/k", authorityPath: "/nowhere/a")
        }
        #expect(error?.code == .file)
    }

    @Test func errorsDoNotShowKeys() throws {
        let cluster = try TestCluster()
        let key = cluster.authority.keyPEM
        let error = #expect(throws: TransportError.self) {
            try TLSIdentity(certificatePEM: key, keyPEM: key, authorityPEM: key)
        }
        let secret = try #require(key.split(separator: "\n").dropFirst().first)
        #expect(error?.description.contains(secret) == false)
    }

    @Test func certificateIsRenewedWithoutARestart() async throws {
        defer { try? FileManager.default.removeItem(at: directory) }
        let cluster = try TestCluster()
        try Data(cluster.authority.certificatePEM.utf8).write(to: URL(fileURLWithPath: path("ca.pem")))
        let longAgo = TestCluster.present.addingTimeInterval(-90 * 86_400)
        let request = CertificateRequest(node: try cluster.node(.cache), validityDays: 30)
        let expired = try cluster.authority.issue(request, now: longAgo)
        try expired.write(certificatePath: path("c.pem"), keyPath: path("c.key"))
        let identity = try TLSIdentity(
            certificatePath: path("c.pem"),
            keyPath: path("c.key"),
            authorityPath: path("ca.pem")
        )
        #expect(try !identity.reloadIfChanged())
        let server = try await TestServer.start(identity)
        let client = TestClient(try cluster.identity(.target), to: server.server.endpoint)
        let reason = try await client.disconnection()
        #expect(reason.contains("expired"), "\(reason)")

        identity.startWatching(
            on: MultiThreadedEventLoopGroup.singleton.next(),
            every: .milliseconds(10),
            logger: quietLogger
        )
        let fresh = try cluster.authority.renew(certificatePEM: expired.certificatePEM, now: TestCluster.present)
        try fresh.write(certificatePath: path("c.pem"), keyPath: path("c.key"))
        #expect(try await client.call(1) == 1)
        #expect(identity.description.serial == fresh.description.serial)

        // A certificate of another node, or one that does not fit its key, changes nothing.
        let other = try cluster.authority.issue(
            CertificateRequest(node: cluster.node(.cache, "another")),
            now: TestCluster.present
        )
        identity.stopWatching()
        try other.write(certificatePath: path("c.pem"), keyPath: path("c.key"))
        #expect(throws: TransportError.self) { try identity.reloadIfChanged() }
        #expect(identity.description.serial == fresh.description.serial)
        #expect(try await client.call(2) == 2)
        await client.handle.close()
        await server.stop()
    }
}
