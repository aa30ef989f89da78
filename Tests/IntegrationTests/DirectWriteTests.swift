import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    @Suite(.serialized) struct DirectWriteTests {
        private static let mebibyte = 256

        /// Rows of items in a run of blocks.
        private func items(_ cluster: TestCluster, _ first: Int, _ count: Int) async throws -> Int? {
            let rows = "SELECT count(*) FROM block_items WHERE block_id >= \(first) AND block_id < \(first + count)"
            return Int(try await cluster.sql(rows))
        }

        private func io(_ cluster: TestCluster, target: Int = 1, _ commands: [String]) async throws {
            let result = try await Images.io(cluster.url(target: target), commands)
            #expect(result.isSuccess && !result.output.contains("verification failed"), "\(result.summary)")
        }

        @Test func largeWritesGoStraightToObjectsAndThroughTheCacheWhereNoneAnswers_M4_I12() async throws {
            try await TestCluster.with(directWrites: true) { cluster in
                var attempts = 0
                // The first one finds no objects to be had yet; it may lie in the cache before it is replaced.
                _ = try await ProcessRunner.eventually("a write goes straight to an object", timeout: .seconds(60)) {
                    () -> Bool? in
                    attempts += 1
                    try await self.io(cluster, ["write -P 0x11 1M 64k"])
                    return try await self.items(cluster, Self.mebibyte, 16) == 0 ? true : nil
                }
                // Several in flight share objects; a write that overlaps one is a small one over a large one.
                let many = (0..<16).map { "aio_write -P \($0 + 1) \(8 + $0)M 256k" }
                // On a busy machine one may wait for too long, and goes through the cache.
                _ = try await ProcessRunner.eventually("all writes go straight to objects", timeout: .seconds(120)) {
                    () -> Bool? in
                    attempts += 1
                    try await self.io(
                        cluster,
                        ["write -P 0x22 2M 1M", "write -P 0x33 4M 256k"] + many + ["aio_flush"]
                    )
                    return try await self.items(cluster, 2 * Self.mebibyte, 22 * Self.mebibyte) == 0 ? true : nil
                }
                let objects = "SELECT count(*) FROM block_objects WHERE state = 'live'"
                let live = Int(try await cluster.sql(objects)) ?? 0
                #expect(live > 2 && live <= 20 * attempts, "\(live) objects after \(attempts) attempts")
                try await io(cluster, target: 2, ["write -P 0x44 2052k 4k", "write -P 0x55 4100k 64k"])
                // Neither small nor unaligned writes are direct.
                try await io(cluster, ["write -P 0x66 6M 60k", "write -P 0x77 7169k 64k"])
                #expect(try await items(cluster, 6 * Self.mebibyte, 2 * Self.mebibyte) != 0)
                let expected = [
                    "read -P 0x11 1M 64k", "read -P 0x22 2M 4k", "read -P 0x44 2052k 4k", "read -P 0x22 2056k 1016k",
                    "read -P 0x33 4M 4k", "read -P 0x55 4100k 64k", "read -P 0x33 4164k 188k", "read -P 0x66 6M 60k",
                    "read -P 0x77 7169k 64k", "read -P 16 23M 256k", "read -P 1 8M 256k",
                ]
                for target in 1...2 { try await io(cluster, target: target, expected) }

                // An object server that stands still: writes are done all the same, through the cache.
                let pid = try cluster.state().pids("objects")[0]
                try await ProcessRunner.suspend(pid)
                try await io(cluster, ["write -P 0x88 32M 64k", "write -P 0x99 33M 1M", "write -P 0xaa 2M 64k"])
                #expect(try await items(cluster, 33 * Self.mebibyte, Self.mebibyte) == Self.mebibyte)
                kill(pid, SIGCONT)
                try await io(
                    cluster,
                    target: 2,
                    ["read -P 0x88 32M 64k", "read -P 0x99 33M 1M", "read -P 0xaa 2M 64k"]
                )
                try await cluster.drain(cachedBytesMaximum: 0)
                try await io(cluster, ["read -P 0xaa 2M 64k", "read -P 0x22 2112k 960k", "read -P 0x99 33M 1M"])
                let fsck = try await cluster.ashlar(["fsck", "--verify"])
                #expect(fsck.status == 0, "\(fsck.summary)")
            }
        }
    }
}
