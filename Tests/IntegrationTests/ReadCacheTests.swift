import AshlarTestSupport
import AsyncHTTPClient
import Foundation
import NIOCore
import Testing

extension IntegrationTests {
    /// What a target keeps of the objects that it has read, and what it reads ahead.
    @Suite(.serialized) struct ReadCacheTests {
        private func io(_ cluster: TestCluster, target: Int = 1, _ commands: [String]) async throws {
            let result = try await Images.io(cluster.url(target: target), commands)
            #expect(result.isSuccess && !result.output.contains("verification failed"), "\(result.summary)")
        }

        private func gets(_ cluster: TestCluster) async throws -> Int {
            try await cluster.metric("objects-1", "ashlar_objects_requests_total", "\"get\"")
        }

        private func hits(_ cluster: TestCluster, target: Int = 1) async throws -> Int {
            try await cluster.metric("target-\(target)", "ashlar_target_read_cache_hits_total")
        }

        @Test func whatWasReadFromObjectsIsReadFromMemoryAndNeverOutOfDate_I2_I5() async throws {
            try await TestCluster.with { cluster in
                try await io(cluster, ["write -P 0x11 0 1M", "write -P 0x33 4M 4M"])
                try await cluster.drain(cachedBytesMaximum: 0)

                let before = try await gets(cluster)
                try await io(cluster, ["read -P 0x11 0 1M"])
                let first = (try await gets(cluster), try await hits(cluster))
                #expect(first.0 > before)
                try await io(cluster, ["read -P 0x11 0 1M", "read -P 0x11 6k 3k"])
                let second = (try await gets(cluster), try await hits(cluster))
                #expect(second.0 == first.0, "the object server was asked again")
                #expect(second.1 >= first.1 + 256)
                #expect(try await cluster.metric("target-1", "ashlar_target_read_cache_bytes") > 1 << 20)

                // Written through another target: the owner says so, and only the rest comes from memory.
                try await io(cluster, target: 2, ["write -P 0x22 64k 8k", "write -P 0x44 129k 1k"])
                let afterwards = [
                    "read -P 0x11 0 64k", "read -P 0x22 64k 8k", "read -P 0x11 72k 57k", "read -P 0x44 129k 1k",
                    "read -P 0x11 130k 894k",
                ]
                for target in 1...2 { try await io(cluster, target: target, afterwards) }
                // Moved and evicted: the same blocks under other keys.
                try await cluster.drain(cachedBytesMaximum: 0)
                for target in 1...2 { try await io(cluster, target: target, afterwards) }

                // In order, one at a time: what comes next is there before it is asked for.
                let blocks = try await cluster.metric("target-2", "ashlar_target_read_ahead_blocks_total")
                let inOrder = (0..<64).map { "read -P 0x33 \(4_096 + 64 * $0)k 64k" }
                try await io(cluster, target: 2, inOrder)
                #expect(try await cluster.metric("target-2", "ashlar_target_read_ahead_blocks_total") >= blocks + 64)
                #expect(try await hits(cluster, target: 2) > 0)
            }
        }
    }
}
