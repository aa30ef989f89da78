import AshlarTestSupport
import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1
import NIOSSL
import Testing

extension IntegrationTests {
    /// Many volumes, large ones, and little memory. Times are printed, not judged.
    @Suite(.serialized) struct ScaleTests {
        private static let volumes = 10_000
        /// One takes some ten milliseconds there.
        private static let volumesCreatedInDebugBuilds = 1_000
        private static let targetBytesMaximum = 64 << 20
        private static let cacheBytesMaximum = 128 << 20
        /// What debug builds take is only printed.
        private static var isDebugBuild: Bool {
            get throws { try TestEnvironment.program().contains("debug") }
        }

        private struct Listed: Decodable {
            var name: String
            var iqn: String
            var sizeBytes: UInt64
        }

        private func timed<Value>(_ what: String, _ body: () async throws -> Value) async throws -> Value {
            let clock = ContinuousClock()
            let start = clock.now
            let value = try await body()
            print("\(what): \(clock.now - start)")
            return value
        }

        private func judge(_ what: String, _ pid: Int32, maximum: Int) throws {
            let bytes = try TestCluster.residentBytes(pid)
            print("\(what): \(bytes >> 20) MiB resident, at most \(maximum >> 20)")
            guard try !Self.isDebugBuild else { return }
            #expect(bytes < maximum, "\(what): \(bytes >> 20) MiB")
        }

        @Test func tenThousandVolumesAreCreatedListedAndDiscovered() async throws {
            try await TestCluster.with(volumes: ["demo:1M"], targets: 1) { cluster in
                let first = try Self.isDebugBuild ? Self.volumesCreatedInDebugBuilds : Self.volumes
                try await timed("\(first) volumes created through the API") { try await create(first, cluster) }
                if first < Self.volumes {
                    // libiscsi takes an answer of one PDU alone, and so no more than some thousand names.
                    let names = try await ProcessRunner.check("iscsi-ls", ["iscsi://127.0.0.1:\(cluster.port)"])
                    for number in [0, first / 2, first - 1] { #expect(names.contains(":many-\(number) ")) }
                    #expect(names.split(separator: "\n").count == first + 1)
                }
                try await insertTheRest(first, cluster)
                let listed = try await timed("listed by the command") {
                    let result = try await cluster.ashlar(["volume", "list", "--json"], timeout: .seconds(120))
                    #expect(result.isSuccess, "\(result.errors.suffix(1_000))")
                    return try JSONDecoder().decode([Listed].self, from: Data(result.output.utf8))
                }
                #expect(listed.count == Self.volumes + 1)
                #expect(Set(listed.map(\.name)).count == listed.count)
                #expect(listed.map(\.name) == listed.map(\.name).sorted(), "in order, so that pages never miss one")
                let discovery = try RawInitiator(port: cluster.port, iqn: nil, name: "discovery")
                try discovery.logIn()
                let found = try await timed("discovered") { try discovery.discover() }
                #expect(found.count == listed.count && Set(found) == Set(listed.map(\.iqn)))
                // The last of them works like the first.
                for name in [listed[0].name, listed[Self.volumes / 2].name, listed[Self.volumes].name] {
                    try await cluster.session("one-of-many", volume: name).writeAndRead(3, fill: 0x21)
                }
                let state = try cluster.state()
                try judge(
                    "target with \(Self.volumes) volumes",
                    state.pids("target")[0],
                    maximum: Self.targetBytesMaximum
                )
                try judge("cache server with them", state.pids("cache")[0], maximum: Self.cacheBytesMaximum)
            }
        }

        /// As the API would, in one statement.
        private func insertTheRest(_ first: Int, _ cluster: TestCluster) async throws {
            _ = try await cluster.sql(
                """
                INSERT INTO volumes (name, iqn, size_bytes)
                SELECT 'many-' || n, 'iqn.2026-01.io.ashlar:many-' || n, 1048576
                FROM generate_series(\(first), \(Self.volumes - 1)) AS n
                """
            )
        }

        /// One connection, kept alive; requests one after the other.
        private func create(_ count: Int, _ cluster: TestCluster) async throws {
            let state = try cluster.state()
            let token = try String(contentsOfFile: state.token, encoding: .utf8)
            var tls = TLSConfiguration.makeClientConfiguration()
            tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(state.authority))
            var configuration = HTTPClient.Configuration(tlsConfiguration: tls)
            configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = 1
            let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
            do {
                for number in 0..<count {
                    var request = HTTPClientRequest(url: state.api + "/v1/volumes")
                    request.method = .POST
                    request.headers.add(
                        name: "Authorization",
                        value: "Bearer \(token.trimmingCharacters(in: .newlines))"
                    )
                    request.headers.add(name: "Content-Type", value: "application/json")
                    let body = "{\"name\":\"many-\(number)\",\"sizeBytes\":\(1 << 20)}"
                    request.body = .bytes(ByteBuffer(string: body))
                    let response = try await client.execute(request, timeout: .seconds(30))
                    let answer = String(buffer: try await response.body.collect(upTo: 1 << 20))
                    guard response.status == .created else { throw ProcessFailure("\(response.status): \(answer)") }
                }
                try await client.shutdown()
            } catch {
                try? await client.shutdown()
                throw error
            }
        }

        @Test func aVolumeOf64TiBServesItsStartMiddleAndEnd() async throws {
            try await TestCluster.with(targets: 1) { cluster in
                try await Task.sleep(for: .seconds(1))
                try judge("idle target", cluster.state().pids("target")[0], maximum: Self.targetBytesMaximum)
                try judge("idle cache server", cluster.state().pids("cache")[0], maximum: Self.cacheBytesMaximum)
                let made = try await timed("64 TiB created") {
                    try await cluster.api(
                        "POST",
                        "/v1/volumes",
                        "{\"name\":\"huge\",\"sizeBytes\":\(UInt64(64) << 40)}"
                    )
                }
                #expect(made.status == 201, "\(made)")
                let end = (UInt64(64) << 40) / 512
                let session = try await timed("logged in") { try await cluster.session("huge", volume: "huge") }
                let addresses = [0, end / 2 - 1, end / 2, end - 1]
                for (index, address) in addresses.enumerated() {
                    try await timed("written and read at \(address)") {
                        try session.writeAndRead(address, fill: UInt8(index + 1))
                    }
                }
                #expect(try session.run(RawInitiator.read16(end, 1), read: 512).sense?.code == 0x2100)
                try await cluster.drain(volume: "huge", cachedBytesMaximum: 0)
                for (index, address) in addresses.enumerated() {
                    let read = try session.runPastAttentions(RawInitiator.read16(address, 1), read: 512).outcome
                    #expect(read.isGood && read.data == [UInt8](repeating: UInt8(index + 1), count: 512), "\(address)")
                }
                session.close()
                try await memory(cluster)
            }
        }

        /// However much is written, the cache server keeps to what is configured.
        private func memory(_ cluster: TestCluster) async throws {
            let configured = 32 << 20
            try await cluster.configure("cache", "cache", ["memory": configured])
            let written = try await timed("60 MiB written") {
                try await Images.io(cluster.url(), (0..<15).map { "write -P \($0 + 1) \($0 * 4)M 4M" })
            }
            #expect(written.isSuccess, "\(written.summary)")
            let read = try await timed("60 MiB read") {
                try await Images.io(cluster.url(), (0..<15).map { "read -P \($0 + 1) \($0 * 4)M 4M" })
            }
            #expect(read.isSuccess && !read.output.contains("verification failed"), "\(read.summary)")
            let state = try cluster.state()
            try judge("cache server after", state.pids("cache")[0], maximum: Self.cacheBytesMaximum + configured)
            try judge("target after", state.pids("target")[0], maximum: Self.targetBytesMaximum)
        }
    }
}
