import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// `kill -9` of one process while an initiator writes: afterwards every acknowledged byte is there.
    @Suite(.serialized) struct KillTests {
        @Test(arguments: ["target", "cache", "objects", "agent", "control", "postgres"])
        func everyAcknowledgedByteSurvivesAKill_I1_I8_I9(role: String) async throws {
            try await TestCluster.with(extra: ["--target-loops", "2"]) { cluster in
                let writes = Initiator.Writes(
                    url: try cluster.url(target: 1),
                    journal: cluster.data + "/journal",
                    milliseconds: 8_000
                )
                let process = try await Initiator.shared.start(writes)
                // Blocks are moved all the while, so that the kill meets moves as well as writes.
                let moving = Task {
                    while !Task.isCancelled {
                        _ = try? await cluster.api("POST", "/v1/volumes/demo/move")
                        try await Task.sleep(for: .milliseconds(300))
                    }
                }
                defer { moving.cancel() }
                for _ in 0..<2 {
                    try await Task.sleep(for: .seconds(2))
                    try await cluster.killAndWait(role)
                }
                let report = try await Initiator.shared.finish(process)
                moving.cancel()
                #expect(report.acknowledged > 100)
                try await Initiator.shared.verify([writes], through: cluster.url(target: 2))
                try await cluster.drain(cachedBytesMaximum: 0)
                try await Initiator.shared.verify([writes], through: cluster.url(target: 1))
            }
        }

        @Test func everyAcknowledgedByteSurvivesAKillOfEverything_I1_I8() async throws {
            let cluster = try await TestCluster.start()
            let writes = Initiator.Writes(
                url: try cluster.url(target: 1),
                journal: URL(fileURLWithPath: cluster.data).deletingLastPathComponent().path + "/journal",
                milliseconds: 10_000
            )
            let process = try await Initiator.shared.start(writes)
            try await Task.sleep(for: .seconds(3))
            try await cluster.killAll()
            let again = try await TestCluster.start(volumes: [], data: cluster.data, port: cluster.port)
            let report = try await Initiator.shared.finish(process)
            #expect(report.logins > 1)
            try await Initiator.shared.verify([writes], through: again.url(target: 2))
            let end = try await again.stop()
            #expect(end.isSuccess, "\(end.summary)")
            again.remove()
        }

        @Test func qemuRidesThroughAKilledTarget_I9() async throws {
            try await TestCluster.with(volumes: ["demo:128M"]) { cluster in
                let image = URL(fileURLWithPath: cluster.data).deletingLastPathComponent().path + "/image"
                try Images.make(image, mebibytes: 128, seed: 12)
                let url = try cluster.url(target: 1)
                // Slow enough to be killed in the middle.
                let convert = try BackgroundProcess(
                    "qemu-img",
                    ["convert", "-n", "-r", "16M", "-f", "raw", "-O", "raw", image, url]
                )
                try await Task.sleep(for: .seconds(2))
                #expect(convert.isRunning, "qemu-img was done before the target could be killed")
                try await cluster.killAndWait("target", 0)
                let result = try await convert.wait(timeout: .seconds(180))
                #expect(result.isSuccess, "\(result.summary)")
                try await Images.compare(image, with: cluster.url(target: 2))
            }
        }

        @Test func aDeadCacheServersLeaseIsReleasedAtOnce() async throws {
            try await TestCluster.with { cluster in
                let before = try await Images.io(cluster.url(target: 1), ["write -P 0x11 0 4k"])
                #expect(before.isSuccess, "\(before.summary)")
                let epoch = "SELECT epoch FROM ashlar_inspect.owners WHERE volume = 'demo'"
                let first = Int(try await cluster.sql(epoch)) ?? 0
                try await cluster.killAndWait("cache")
                let living = "SELECT count(*) FROM cache_servers WHERE lease_end > clock_timestamp()"
                #expect(try await cluster.sql(living) == "1")
                let after = try await Images.io(cluster.url(target: 1), ["read -P 0x11 0 4k"])
                #expect(after.isSuccess && !after.output.contains("verification failed"), "\(after.summary)")
                #expect((Int(try await cluster.sql(epoch)) ?? 0) > first, "a takeover bumps the epoch (I3)")
            }
        }
    }
}
