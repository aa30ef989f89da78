import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// What keeps data whole: recovery after a restore, scrubbing, draining of object servers.
    @Suite(.serialized) struct RecoveryTests {
        private func io(_ cluster: TestCluster, _ commands: [String]) async throws {
            let result = try await Images.io(cluster.url(), commands)
            #expect(result.isSuccess && !result.output.contains("verification failed"), "\(result.summary)")
        }

        private func set(_ cluster: TestCluster, _ body: String) async throws {
            let answer = try await cluster.api("PATCH", "/v1/cluster", body)
            #expect(answer.status == 200, "\(answer)")
        }

        // MARK: Recovery

        @Test func aDatabaseThatWentBackGetsWhatObjectsKnow_andNothingIsDeletedBefore_M8() async throws {
            let first = try await TestCluster.start(targets: 1)
            let (data, port) = (first.data, first.port)
            var running: TestCluster? = first
            do {
                try await io(first, ["write -P 1 0 4M", "write -P 2 8M 1M"])
                try await first.moveByAge()
                try await set(first, #"{"backupWindowSeconds":3600}"#)
                try await stop(&running)
                try await copy("\(data)/postgres", to: "\(data)/backup")

                let second = try await TestCluster.start(volumes: [], targets: 1, data: data, port: port)
                running = second
                // Written anew, and written for the first time: all of it moves, and what it replaces dies.
                try await io(second, ["write -P 3 0 4M", "write -P 4 16M 1M"])
                try await second.moveByAge()
                try await stop(&running)
                try FileManager.default.moveItem(atPath: "\(data)/postgres", toPath: "\(data)/lost")
                try FileManager.default.moveItem(atPath: "\(data)/backup", toPath: "\(data)/postgres")

                let third = try await TestCluster.start(volumes: [], targets: 1, data: data, port: port)
                running = third
                try await recover(third)
                try await stop(&running)
            } catch {
                let logs = running?.logs() ?? ""
                _ = try? await running?.stop()
                first.remove()
                throw ProcessFailure("\(error)\n\(logs)")
            }
            first.remove()
        }

        private func recover(_ cluster: TestCluster) async throws {
            try await cluster.wait(
                "deletion is refused",
                "SELECT bool_or(NOT allowed) FROM ashlar_inspect.deletion",
                is: "t"
            )
            try await io(cluster, ["read -P 1 0 4M", "read -P 0 16M 1M"])
            let plan = try await cluster.ashlar(["recover"])
            #expect(plan.status == 3 && plan.output.contains("newer"), "\(plan.summary)")
            try await io(cluster, ["read -P 1 0 4M"])

            let repaired = try await cluster.ashlar(["recover", "--repair"])
            #expect(repaired.status == 0 && repaired.output.contains("Mapped 1280 blocks"), "\(repaired.summary)")
            try await io(cluster, ["read -P 3 0 4M", "read -P 2 8M 1M", "read -P 4 16M 1M", "read -P 0 4M 4M"])
            let checked = try await cluster.ashlar(["fsck", "--verify"])
            #expect(checked.status == 0, "\(checked.summary)")
            try await cluster.wait(
                "deletion is allowed",
                "SELECT bool_and(allowed) FROM ashlar_inspect.deletion",
                is: "t"
            )
            #expect(try await cluster.ashlar(["recover"]).status == 0)
            // And it goes on as ever.
            try await io(cluster, ["write -P 5 0 64k", "read -P 5 0 64k", "read -P 3 64k 1M"])
        }

        private func stop(_ cluster: inout TestCluster?) async throws {
            guard let running = cluster else { return }
            cluster = nil
            let result = try await running.stop()
            #expect(result.isSuccess, "ashlar up: \(result.summary)")
        }

        private func copy(_ path: String, to copy: String) async throws {
            let result = try await ProcessRunner.run("cp", ["-a", path, copy])
            #expect(result.isSuccess, "\(result.summary)")
        }

        // MARK: Scrub and draining

        @Test func damageIsFoundAndTold_andAnObjectServerIsDrained_I11() async throws {
            try await TestCluster.with(targets: 1, extra: ["--objects", "2"]) { cluster in
                try await io(cluster, (0..<8).map { "write -P \($0 + 1) \($0 * 4)M 4M" })
                try await cluster.moveByAge(cachedBytesMaximum: 0)
                try await drain(cluster)
                try await scrub(cluster)
            }
        }

        private func drain(_ cluster: TestCluster) async throws {
            let servers = "SELECT count(*) FROM ashlar_inspect.object_servers"
            try await cluster.wait("both object servers are recorded", servers, is: "2")
            let full = try await cluster.sql(
                "SELECT server_id FROM ashlar_inspect.object_servers ORDER BY objects DESC, server_id LIMIT 1"
            )
            let other = full == "1" ? "2" : "1"
            let drained = try await cluster.ashlar(["objects", "drain", full])
            #expect(drained.isSuccess && drained.output.contains("draining"), "\(drained.summary)")
            let last = try await cluster.ashlar(["objects", "drain", other])
            #expect(!last.isSuccess && last.errors.contains("No object server would be left"), "\(last.summary)")
            try await cluster.wait(
                "all objects are elsewhere",
                "SELECT objects FROM ashlar_inspect.object_servers WHERE server_id = \(full)",
                is: "0"
            )
            try await io(cluster, (0..<8).map { "read -P \($0 + 1) \($0 * 4)M 4M" })
            // New ones go elsewhere, too.
            try await io(cluster, ["write -P 9 40M 4M"])
            try await cluster.moveByAge(cachedBytesMaximum: 0)
            let there = "SELECT count(*) FROM block_objects WHERE state = 'live' AND server_id = \(full)"
            #expect(try await cluster.sql(there) == "0")
            let undone = try await cluster.ashlar(["objects", "drain", full, "--undo"])
            #expect(undone.isSuccess && undone.output.contains("alive"), "\(undone.summary)")
        }

        /// A byte of the last slot of an object changes: reads say which block it is, and a scrub finds it.
        private func scrub(_ cluster: TestCluster) async throws {
            let row = try await cluster.sql(
                """
                SELECT o.object_id || ' ' || o.server_id || ' ' || x.first_block + (o.slots - 1 - x.first_slot)
                FROM block_objects o JOIN block_extents x ON x.object_id = o.object_id
                    AND o.slots - 1 BETWEEN x.first_slot AND x.first_slot + x.block_count - 1
                WHERE o.state = 'live' ORDER BY o.object_id DESC LIMIT 1
                """
            ).split(separator: " ").compactMap { UInt64($0) }
            guard row.count == 3 else { throw ProcessFailure("no object: \(row)") }
            let (object, block) = (row[0], row[2])
            let root = "\(cluster.data)/objects-\(row[1])/blocks"
            let name = String(object, radix: 16)
            let found = FileManager.default.enumerator(atPath: root)?.compactMap { $0 as? String }.first { path in
                let file = URL(fileURLWithPath: path).deletingPathExtension().lastPathComponent
                return path.hasSuffix(".object") && file.drop { $0 == "0" } == name
            }
            let path = "\(root)/\(try #require(found))"
            var bytes = try #require(FileManager.default.contents(atPath: path))
            bytes[bytes.count - 1] ^= 0x10
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
            try bytes.write(to: URL(fileURLWithPath: path))

            let session = try await cluster.session("reader")
            // From three blocks before the damaged one on.
            let failed = try session.runPastAttentions(
                RawInitiator.read16((block - 3) * 8, 40),
                read: 40 * 512
            ).outcome
            #expect(failed.sense == RawInitiator.Sense(key: 3, code: 0x1100), "\(failed)")
            #expect(failed.information == block * 8, "\(failed)")
            _ = try session.read((block - 3) * 8, 24)

            try await set(cluster, #"{"scrubIntervalSeconds":1,"scrubBytesPerSecond":1099511627776}"#)
            try await cluster.wait(
                "the scrub finds it",
                "SELECT string_agg(concat_ws(' ', block_id, place, object_id), ',') FROM ashlar_inspect.damage",
                is: "\(block) object \(object)"
            )
            let shown = try await cluster.ashlar(["cluster", "show"])
            #expect(shown.isSuccess && shown.output.contains("damaged blocks"), "\(shown.summary)")
            // Writing the whole block anew heals it.
            let healed = try session.runPastAttentions(
                RawInitiator.write16(block * 8, 8),
                write: [UInt8](repeating: 7, count: 4_096)
            ).outcome
            #expect(healed.isGood, "\(healed)")
            #expect(try session.read(block * 8, 8) == [UInt8](repeating: 7, count: 4_096))
            try await cluster.change(#"{"policy":{"unmovedAgeMaximumSeconds":0}}"#)
            try await cluster.wait("nothing is damaged", "SELECT count(*) FROM ashlar_inspect.damage", is: "0")
        }
    }
}
