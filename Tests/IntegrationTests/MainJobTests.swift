import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    @Suite(.serialized) struct MainJobTests {
        @Test func onceDoesTheMainJobAndExitsWithZero() async throws {
            let directory = try TestEnvironment.temporaryDirectory()
            defer { try? FileManager.default.removeItem(atPath: directory) }
            let result = try await ProcessRunner.run(
                TestEnvironment.program(),
                [
                    "up", "--once", "--data", directory + "/data", "--volume", "demo:64M",
                    "--iscsi-port", String(TestEnvironment.freePorts(2)),
                ],
                environment: ["ASHLAR_MIGRATIONS": TestEnvironment.sources + "/migrations"],
                timeout: .seconds(300)
            )
            #expect(result.isSuccess, "\(result.summary)")
            for words in ["qemu-img convert", "qemu-img compare", "moved every block", "evicted", "after the restart"] {
                #expect(result.output.contains(words), "the output does not tell of \(words)")
            }
        }

        @Test func anImageIsMovedEvictedAndFoundAgainAfterARestart() async throws {
            let cluster = try await TestCluster.start(volumes: ["demo:64M"])
            let image = URL(fileURLWithPath: cluster.data).deletingLastPathComponent().path + "/image"
            try Images.make(image, mebibytes: 64, seed: 11)
            try await Images.convert(image, to: cluster.url(target: 1))
            try await Images.compare(image, with: cluster.url(target: 2))
            try await cluster.drain(cachedBytesMaximum: 1 << 20)
            #expect(
                try await cluster.sql("SELECT count(*) > 0 FROM ashlar_inspect.objects WHERE volume = 'demo'") == "t"
            )
            try await Images.compare(image, with: cluster.url(target: 2))
            let stopped = try await cluster.stop()
            #expect(stopped.isSuccess, "\(stopped.summary)")

            let again = try await TestCluster.start(volumes: [], data: cluster.data, port: cluster.port)
            try await Images.compare(image, with: again.url(target: 1))
            try await Images.compare(image, with: again.url(target: 2))
            let end = try await again.stop()
            #expect(end.isSuccess, "\(end.summary)")
            again.remove()
        }

        @Test func aBlockSizeOf64KiBServesSmallWrites() async throws {
            try await TestCluster.with(volumes: ["demo:64M:64K"]) { cluster in
                let writes = Initiator.Writes(
                    url: try cluster.url(target: 1),
                    journal: cluster.data + "/journal",
                    milliseconds: 2_000,
                    sectors: 4_096
                )
                _ = try await Initiator.shared.finish(try await Initiator.shared.start(writes))
                try await Initiator.shared.verify([writes], through: cluster.url(target: 2))
                try await cluster.drain(cachedBytesMaximum: 0)
                try await Initiator.shared.verify([writes], through: cluster.url(target: 1))
            }
        }
    }
}
