import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// What is set for a volume, changed while it is in use.
    @Suite(.serialized) struct PolicyTests {
        private static let unmoved = "SELECT count(*) FROM ashlar_inspect.unmoved_queue WHERE volume = 'demo'"

        private func place(_ block: Int, _ cluster: TestCluster) async throws -> String {
            try await cluster.sql("SELECT place FROM ashlar_inspect.block('demo', \(block))")
        }

        private func write(_ cluster: TestCluster, _ command: String) async throws {
            let result = try await Images.io(cluster.url(), ["write \(command)"])
            #expect(result.isSuccess, "\(result.summary)")
        }

        @Test func theMovePolicyIsChangedWhileRunning_M1() async throws {
            try await TestCluster.with(targets: 1) { cluster in
                // Nothing of this is over its bound: the blocks stay.
                try await cluster.change(#"{"policy":{"move":"count","unmovedItemsMaximum":1000}}"#)
                try await write(cluster, "-P 1 0 1M")
                try await Task.sleep(for: .seconds(3))
                #expect(try await cluster.sql(Self.unmoved) == "256")

                try await cluster.change(#"{"policy":{"unmovedItemsMaximum":100}}"#)
                try await waitForUnmoved(atMost: 100, cluster)
                try await expectUnmoved(100, cluster)

                try await cluster.change(#"{"policy":{"move":"bytes","unmovedBytesMaximum":4194304}}"#)
                try await write(cluster, "-P 1 0 1M")
                try await Task.sleep(for: .seconds(1))
                #expect(try await cluster.sql(Self.unmoved) == "256")
                try await cluster.change(#"{"policy":{"unmovedBytesMaximum":40960}}"#)
                try await waitForUnmoved(atMost: 10, cluster)
                try await expectUnmoved(10, cluster)

                try await cluster.change(#"{"policy":{"move":"age","unmovedAgeMaximumSeconds":3600}}"#)
                try await write(cluster, "-P 2 2M 64k")
                try await Task.sleep(for: .seconds(2))
                #expect(try await cluster.sql("\(Self.unmoved) AND block_id >= 512") == "16")
                try await cluster.change(#"{"policy":{"unmovedAgeMaximumSeconds":1}}"#)
                try await cluster.wait("all are older", Self.unmoved, is: "0")
                let read = try await Images.io(
                    cluster.url(),
                    ["read -P 1 0 1M", "read -P 2 2M 64k", "read -P 0 1M 1M"]
                )
                #expect(read.isSuccess && !read.output.contains("verification failed"), "\(read.summary)")

                try await readFill(cluster)
                try await afterMoveNow(cluster)
            }
        }

        private func waitForUnmoved(atMost maximum: Int, _ cluster: TestCluster) async throws {
            try await cluster.wait("at most \(maximum)", "SELECT (\(Self.unmoved)) <= \(maximum)", is: "t")
        }

        /// Only what is over a bound is moved, oldest first.
        private func expectUnmoved(_ count: Int, _ cluster: TestCluster) async throws {
            try await Task.sleep(for: .seconds(1))
            let left = try await cluster.sql(Self.unmoved)
            #expect(left == "\(count)")
        }

        /// A request to move now covers what is unmoved then; the policy holds again for what comes later.
        private func afterMoveNow(_ cluster: TestCluster) async throws {
            try await cluster.change(#"{"policy":{"move":"age","unmovedAgeMaximumSeconds":3600}}"#)
            try await write(cluster, "-P 3 3M 64k")
            try await cluster.drain()
            try await Task.sleep(for: .seconds(1))
            try await write(cluster, "-P 4 3M 64k")
            try await Task.sleep(for: .seconds(2))
            let left = try await cluster.sql(Self.unmoved)
            #expect(left == "16")
        }

        /// At the second read of a block that lies in an object alone, a copy goes into the cache.
        private func readFill(_ cluster: TestCluster) async throws {
            try await cluster.drain(cachedBytesMaximum: 0)
            #expect(try await place(7, cluster) == "object")
            try await cluster.change(#"{"policy":{"cachedBytesMaximum":16777216}}"#)
            let session = try await cluster.session("reader")
            let content = [UInt8](repeating: 1, count: 4_096)
            func read(_ block: Int) throws {
                let result = try session.runPastAttentions(RawInitiator.read16(UInt64(block) * 8, 8), read: 4_096)
                #expect(result.outcome.isGood && result.outcome.data == content, "block \(block): \(result)")
            }
            for _ in 0..<3 { try read(7) }
            try await Task.sleep(for: .milliseconds(500))
            #expect(try await place(7, cluster) == "object", "read-fill is off")

            try await cluster.change(#"{"policy":{"readFill":"second"}}"#)
            try read(8)
            try await Task.sleep(for: .milliseconds(500))
            #expect(try await place(8, cluster) == "object", "it has been read once")
            try read(8)
            try await cluster.wait(
                "the second read fills",
                "SELECT place, moved FROM ashlar_inspect.blocks WHERE volume = 'demo' AND block_id = 8",
                is: "both|t"
            )
            try read(8)

            try await cluster.change(#"{"policy":{"readFill":"always"}}"#)
            try read(9)
            try await cluster.wait(
                "the first read fills",
                "SELECT place FROM ashlar_inspect.block('demo', 9)",
                is: "both"
            )
            #expect(try await place(7, cluster) == "object")
        }

        @Test func aVolumeBecomesReadOnlyGrowsAndGoes() async throws {
            try await TestCluster.with(targets: 1) { cluster in
                try await readOnly(cluster)
                try await resize(cluster)
                try await delete(cluster)
            }
        }

        private func readOnly(_ cluster: TestCluster) async throws {
            let session = try await cluster.session("read-only")
            let block = [UInt8](repeating: 0x77, count: 512)
            try session.writeAndRead(5, fill: 0x77)
            try await cluster.change(#"{"readOnly":true}"#)
            let refused = try await ProcessRunner.eventually("writes are refused") { () -> RawInitiator.Outcome? in
                let result = try session.runPastAttentions(RawInitiator.write16(5, 1), write: block).outcome
                return result.isGood ? nil : result
            }
            #expect(refused.status == 2 && refused.sense == RawInitiator.Sense(key: 7, code: 0x2700), "\(refused)")
            let read = try session.runPastAttentions(RawInitiator.read16(5, 1), read: 512).outcome
            #expect(read.isGood && read.data == block, "\(read)")
            // Also for who comes now.
            let late = try await cluster.session("read-only-late")
            let write = try late.runPastAttentions(RawInitiator.write16(6, 1), write: block).outcome
            #expect(write.sense == RawInitiator.Sense(key: 7, code: 0x2700), "\(write)")
            let mode = try late.runPastAttentions([0x1A, 0, 0x3F, 0, 64, 0], read: 64).outcome
            #expect(mode.isGood && mode.data.count > 3 && mode.data[2] & 0x80 != 0, "MODE SENSE says WP: \(mode)")

            try await cluster.change(#"{"readOnly":false}"#)
            _ = try await ProcessRunner.eventually("writes are taken") { () -> Bool? in
                try session.runPastAttentions(RawInitiator.write16(5, 1), write: block).outcome.isGood ? true : nil
            }
        }

        private func resize(_ cluster: TestCluster) async throws {
            let session = try await cluster.session("growing")
            let (oldEnd, newEnd) = (UInt64(64 << 20) / 512, UInt64(96 << 20) / 512)
            #expect(
                try session.runPastAttentions(RawInitiator.read16(oldEnd, 1), read: 512).outcome.sense?.code == 0x2100
            )
            let grown = try await cluster.ashlar(["volume", "resize", "demo", "96M"])
            #expect(grown.isSuccess, "\(grown.summary)")
            var attentions: [RawInitiator.Sense] = []
            _ = try await ProcessRunner.eventually("the new end is told") { () -> Bool? in
                let result = try session.runPastAttentions(RawInitiator.readCapacity, read: 32)
                attentions += result.attentions
                let last = result.outcome.data.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
                return last == newEnd - 1 ? true : nil
            }
            #expect(attentions.contains(RawInitiator.Sense(key: 6, code: 0x2A09)), "CAPACITY DATA HAS CHANGED")
            try session.writeAndRead(newEnd - 1, fill: 0x66)
            try session.writeAndRead(oldEnd, fill: 0x65)
            #expect(try session.run(RawInitiator.read16(newEnd, 1), read: 512).sense?.code == 0x2100)
            let shrunk = try await cluster.ashlar(["volume", "resize", "demo", "64M"])
            #expect(!shrunk.isSuccess, "a volume was made smaller without --force")
        }

        private func delete(_ cluster: TestCluster) async throws {
            try await write(cluster, "-P 9 0 4M")
            try await cluster.drain()
            let id = try await cluster.sql("SELECT id FROM volumes WHERE name = 'demo'")
            #expect(Self.objectFiles(cluster).count > 0)
            try await cluster.configure("agent", "agent", ["grace-seconds": 1])
            let session = try await cluster.session("logged-in")
            try session.writeAndRead(0, fill: 1)
            let refused = try await cluster.ashlar(["volume", "delete", "demo"])
            #expect(!refused.isSuccess, "a volume that is in use was deleted without --force")
            try session.writeAndRead(0, fill: 2)
            session.close()
            let deleted = try await cluster.ashlar(["volume", "delete", "demo", "--force"])
            #expect(deleted.isSuccess, "\(deleted.summary)")
            for table in ["volumes WHERE id", "block_items WHERE volume_id", "block_extents WHERE volume_id"] {
                #expect(try await cluster.sql("SELECT count(*) FROM \(table) = \(id)") == "0", "\(table)")
            }
            _ = try await ProcessRunner.eventually("the object files are gone") { () -> Bool? in
                Self.objectFiles(cluster).isEmpty ? true : nil
            }
            let left = "SELECT count(*) FROM block_objects WHERE volume_id = \(id) AND state = 'live'"
            #expect(try await cluster.sql(left) == "0")
            let gone = try await ProcessRunner.run("iscsi-ls", ["iscsi://127.0.0.1:\(cluster.port)"])
            #expect(!gone.output.contains("demo"), "\(gone.summary)")
        }

        static func objectFiles(_ cluster: TestCluster) -> [String] {
            let root = cluster.data + "/objects-1/blocks"
            let all = FileManager.default.enumerator(atPath: root)?.compactMap { $0 as? String } ?? []
            return all.filter { $0.hasSuffix(".object") }.map { "\(root)/\($0)" }
        }
    }
}
