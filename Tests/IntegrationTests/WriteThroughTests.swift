import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    @Suite(.serialized) struct WriteThroughTests {
        private func io(_ cluster: TestCluster, target: Int = 1, _ commands: [String]) async throws {
            let result = try await Images.io(cluster.url(target: target), commands)
            #expect(result.isSuccess && !result.output.contains("verification failed"), "\(result.summary)")
        }

        @Test func writesGoToCacheAndObjectsAtOnceAndEitherMayFail_M1_M4_I12() async throws {
            try await TestCluster.with { cluster in
                let set = try await cluster.ashlar(["volume", "set", "demo", "--write-through", "4K"])
                #expect(set.status == 0, "\(set.summary)")
                // Nobody moves anything: what is not unmoved in the end has been reconciled by the writes themselves.
                let agent = try cluster.state().pids("agent")[0]
                try await ProcessRunner.suspend(agent)
                var rounds: [String] = []
                _ = try await ProcessRunner.eventually("writes are in objects without an agent", timeout: .seconds(60))
                {
                    () -> Bool? in
                    // The target knows the policy within a second. The first writes of a session find no object yet, and go to the
                    // cache alone.
                    try await self.io(
                        cluster,
                        (0..<8).map { "write -P 9 \(8_192 + $0 * 4)k 4k" }
                            + (0..<32).map { "aio_write -P \($0 + 1) \(1_024 + $0 * 8)k 8k" } + ["aio_flush"]
                    )
                    let unmoved = try await cluster.sql(
                        "SELECT count(*) FROM block_items WHERE moved_version IS NULL AND block_id BETWEEN 256 AND 319"
                    )
                    rounds.append(unmoved)
                    return unmoved == "0" ? true : nil
                }
                let extents = try await cluster.sql(
                    "SELECT sum(block_count) FROM block_extents WHERE first_block BETWEEN 256 AND 319"
                )
                #expect(extents == "64", "\(rounds)")
                // Overwritten, unaligned, and by another target: the newest wins, whatever is still on its way.
                for round in 1...4 {
                    try await io(
                        cluster,
                        target: 1 + round % 2,
                        ["write -P \(round) 1M 16k", "write -P \(0x40 + round) 1030k 3k"]
                    )
                }
                let expected = [
                    "read -P 4 1M 6k", "read -P 0x44 1030k 3k", "read -P 4 1033k 7k", "read -P 3 1040k 8k",
                    "read -P 32 1272k 8k",
                ]
                for target in 1...2 { try await io(cluster, target: target, expected) }

                // An object server that stands still keeps no write waiting.
                let objects = try cluster.state().pids("objects")[0]
                try await ProcessRunner.suspend(objects)
                try await io(cluster, ["write -P 0x88 4M 8k", "write -P 0x99 5M 1M"])
                #expect(
                    try await cluster.sql(
                        "SELECT count(*) FROM block_items WHERE moved_version IS NULL AND block_id IN (1024, 1025)"
                    ) == "2"
                )
                kill(objects, SIGCONT)
                kill(agent, SIGCONT)
                try await cluster.drain(cachedBytesMaximum: 0)
                for target in 1...2 {
                    try await io(cluster, target: target, expected + ["read -P 0x88 4M 8k", "read -P 0x99 5M 1M"])
                }
                let fsck = try await cluster.ashlar(["fsck", "--verify"])
                #expect(fsck.status == 0, "\(fsck.summary)")
            }
        }
    }
}
