import AshlarTestSupport
import AsyncHTTPClient
import Foundation
import NIOCore
import Testing

extension IntegrationTests {
    @Suite(.serialized) struct BothAtOnceTests {
        private func io(_ cluster: TestCluster, target: Int = 1, _ commands: [String]) async throws {
            let result = try await Images.io(cluster.url(target: target), commands)
            #expect(result.isSuccess && !result.output.contains("verification failed"), "\(result.summary)")
        }

        @Test func whatIsSentForAtOnceIsUsedOnlyWhereTheOwnerMeansIt_I2_I7() async throws {
            try await TestCluster.with { cluster in
                // Less memory than what is read, so that it has to be read again.
                try await cluster.configure("target", "target", ["read-cache": "1M"])
                let set = try await cluster.ashlar(["volume", "set", "demo", "--read-both-at-once"])
                #expect(set.status == 0, "\(set.summary)")
                try await io(cluster, target: 2, (0..<32).map { "write -P \($0 + 1) \($0 * 64)k 64k" })
                try await cluster.drain(cachedBytesMaximum: 0)
                // As long as somebody is logged in, the target remembers.
                let holder = try await cluster.session("holder")
                // Backwards, so that nothing is read ahead.
                func pass(_ changed: [Int: Int] = [:]) -> [String] {
                    (0..<128).reversed().map { "read -P \(changed[$0] ?? $0 / 4 + 1) \($0 * 16)k 16k" }
                }
                func ahead() async throws -> Int {
                    try await cluster.metric("target-1", "ashlar_target_read_ahead_blocks_total")
                }
                try await io(cluster, pass())
                let first = try await ahead()
                try await io(cluster, pass())
                let second = try await ahead()
                #expect(second > first, "nothing was sent for at once")

                // Through another target: some of it lies in the cache then, some in another object, some nowhere.
                try await io(cluster, target: 2, ["write -P 0xaa 64k 16k", "write -P 0xbb 1M 16k"])
                try await io(cluster, pass([4: 0xAA, 64: 0xBB]))
                try await cluster.drain(cachedBytesMaximum: 0)
                try await io(cluster, target: 2, ["write -P 0xcc 1M 16k", "discard 512k 16k"])
                for _ in 0..<2 { try await io(cluster, pass([4: 0xAA, 64: 0xCC, 32: 0])) }
                #expect(try await ahead() > second)
                holder.close()
            }
        }
    }
}
