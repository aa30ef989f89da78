import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// `ashlar fsck` says what is wrong, all of it, and nothing else.
    @Suite(.serialized) struct FsckTests {
        private struct Report: Decodable {
            struct Finding: Decodable {
                var kind: String
                var block: Int64?
                var object: Int64?
            }

            var items: Int
            var extents: Int
            var objects: Int
            var objectsVerified: Int
            var findings: [Finding]
            var counts: [String: Int]
            var repairs: [String]
            var incomplete: [String]
        }

        private func check(
            _ cluster: TestCluster,
            exits code: Int32,
            _ arguments: [String] = []
        ) async throws -> Report {
            let result = try await cluster.ashlar(["fsck", "--json"] + arguments)
            #expect(result.status == code, "\(result.summary)")
            return try JSONDecoder().decode(Report.self, from: Data(result.output.utf8))
        }

        @Test func eachDamageIsReportedAndWhatIsSafeIsRepaired_I5_I11() async throws {
            try await TestCluster.with(targets: 1) { cluster in
                let written = try await Images.io(cluster.url(), ["write -P 1 0 2M", "write -P 2 8M 64k"])
                #expect(written.isSuccess, "\(written.summary)")
                try await cluster.moveByAge()
                let again = try await Images.io(cluster.url(), ["write -P 3 0 64k"])
                #expect(again.isSuccess, "\(again.summary)")

                let healthy = try await check(cluster, exits: 0, ["--verify"])
                #expect(healthy.counts.isEmpty && healthy.repairs.isEmpty && healthy.incomplete.isEmpty, "\(healthy)")
                #expect(healthy.items == 528 && healthy.extents > 0 && healthy.objectsVerified > 0, "\(healthy)")

                try await liveSlots(cluster)
                try await checksum(cluster)
                try await objectFile(cluster)
            }
        }

        /// A wrong count loses nothing: it is put right.
        private func liveSlots(_ cluster: TestCluster) async throws {
            let object = "(SELECT min(object_id) FROM block_objects WHERE state = 'live')"
            let count = "SELECT object_id, live_slots FROM block_objects WHERE object_id = \(object)"
            let right = try await cluster.sql(count)
            _ = try await cluster.sql(
                "UPDATE block_objects SET live_slots = live_slots + 7 WHERE object_id = \(object)"
            )
            let looked = try await check(cluster, exits: 0, ["--no-repair"])
            #expect(looked.counts == ["live-slots-wrong": 1] && looked.repairs.isEmpty, "\(looked)")
            #expect(try await cluster.sql(count) != right)
            let repaired = try await check(cluster, exits: 0)
            #expect(repaired.counts == ["live-slots-wrong": 1] && repaired.repairs.count == 1, "\(repaired)")
            #expect(repaired.findings.first?.object.map { right.hasPrefix("\($0)|") } == true, "\(repaired)")
            #expect(try await cluster.sql(count) == right)
            #expect(try await check(cluster, exits: 0).counts.isEmpty)
        }

        private func checksum(_ cluster: TestCluster) async throws {
            let change = { (difference: String) in
                """
                UPDATE block_items SET item = jsonb_set(item, '{Checksum}',
                    to_jsonb((item ->> 'Checksum')::bigint \(difference))) WHERE block_id = 100
                """
            }
            _ = try await cluster.sql(change("# 1"))
            let damaged = try await check(cluster, exits: 3)
            #expect(damaged.counts == ["item-checksum-wrong": 1] && damaged.repairs.isEmpty, "\(damaged)")
            #expect(damaged.findings.map(\.block) == [100], "\(damaged)")
            let text = try await cluster.ashlar(["fsck"])
            #expect(text.status == 3 && text.output.contains("item-checksum-wrong"), "\(text.summary)")
            _ = try await cluster.sql(change("# 1"))
            #expect(try await check(cluster, exits: 0).counts.isEmpty)
        }

        private func objectFile(_ cluster: TestCluster) async throws {
            let object = try await cluster.sql("SELECT min(object_id) FROM block_objects WHERE state = 'live'")
            let name = String(Int64(object) ?? 0, radix: 16)
            let path = try #require(PolicyTests.objectFiles(cluster).first { Self.number(of: $0) == name })
            let bytes = try #require(FileManager.default.contents(atPath: path))
            // A byte of the blocks themselves: only reading the object tells.
            var bad = bytes
            bad[bytes.count - 100] ^= 0xFF
            try Self.overwrite(path, bad)
            #expect(try await check(cluster, exits: 0).counts.isEmpty)
            let damaged = try await check(cluster, exits: 3, ["--verify"])
            #expect(damaged.counts == ["object-damaged": 1], "\(damaged)")
            #expect(damaged.findings.map(\.object) == [Int64(object)], "\(damaged)")
            try Self.overwrite(path, bytes)
            #expect(try await check(cluster, exits: 0, ["--verify"]).counts.isEmpty)

            try FileManager.default.removeItem(atPath: path)
            let missing = try await check(cluster, exits: 3)
            #expect(missing.counts == ["object-missing": 1] && missing.repairs.isEmpty, "\(missing)")
            #expect(missing.findings.map(\.object) == [Int64(object)], "\(missing)")
        }

        /// In place, so that the file keeps its owner.
        private static func overwrite(_ path: String, _ bytes: Data) throws {
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
            try bytes.write(to: URL(fileURLWithPath: path))
        }

        /// The number in a file's name, without leading zeros.
        private static func number(of path: String) -> String {
            let name = URL(fileURLWithPath: path).deletingPathExtension().lastPathComponent
            return String(name.drop { $0 == "0" })
        }
    }
}
