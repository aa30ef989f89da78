import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// Back-pressure by the room for PostgreSQL's log, with a real server.
    @Suite(.serialized) struct LogRoomTests {
        /// Where the log lies, in a file system of its own, or as one that pretends to be large.
        private struct Log {
            var directory: String
            var isMounted: Bool

            /// A file that counts as part of the log, and has no bytes.
            private var filler: String { directory + "/filler" }

            /// Leaves less room than that below which writes wait, and more than PostgreSQL needs meanwhile.
            func fill() async throws {
                guard isMounted else {
                    guard FileManager.default.createFile(atPath: filler, contents: nil),
                        let file = FileHandle(forWritingAtPath: filler)
                    else { throw ProcessFailure("cannot create \(filler)") }
                    try file.truncate(atOffset: LogRoomTests.capacityBytes - 100 << 20)
                    return try file.close()
                }
                var status = statvfs()
                guard statvfs(directory, &status) == 0 else { throw ProcessFailure("statvfs: \(errno)") }
                let used = UInt64(status.f_blocks - status.f_bfree) * UInt64(status.f_frsize)
                try await ProcessRunner.check("mount", ["-o", "remount,size=\(used + 200 << 20)", directory])
            }

            func empty() async throws {
                if isMounted {
                    try await ProcessRunner.check("mount", ["-o", "remount,size=8g", directory])
                } else {
                    try FileManager.default.removeItem(atPath: filler)
                }
            }

            /// Puts the log of a cluster that is stopped on a file system of its own; `false` where that is not permitted.
            mutating func mount() async throws -> Bool {
                let script = """
                    set -e
                    mkdir "$1.new"
                    mount -t tmpfs -o size=8g,mode=0700 tmpfs "$1.new"
                    cp -a "$1/." "$1.new"
                    mount --move "$1.new" "$1" || { umount "$1.new"; rmdir "$1.new"; exit 1; }
                    rmdir "$1.new"
                    """
                isMounted = try await ProcessRunner.run("sh", ["-c", script, "sh", directory]).isSuccess
                return isMounted
            }

            func unmount() async throws {
                if isMounted { try await ProcessRunner.check("umount", ["--lazy", directory]) }
            }
        }

        /// What the log may take where it is said to lie on another host.
        private static let capacityBytes: UInt64 = 4 << 30

        private static func superuser(_ cluster: TestCluster, _ statement: String) async throws {
            let connection = try cluster.state().postgres.replacing("user=ashlar", with: "user=postgres")
            try await ProcessRunner.check("psql", ["-X", "-q", "-d", connection, "-c", statement])
        }

        /// Has the cache server take the room for the log from a number, as where PostgreSQL is on another host.
        private static func setCapacity(_ cluster: TestCluster) async throws {
            try await superuser(cluster, "GRANT pg_monitor TO ashlar")
            let path = cluster.data + "/cache-1/config.json"
            let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
            var all = try #require(try JSONSerialization.jsonObject(with: bytes) as? [String: Any])
            var cache = try #require(all["cache"] as? [String: Any])
            cache["wal-directory"] = nil
            cache["wal-capacity"] = "\(capacityBytes >> 30)G"
            all["cache"] = cache
            try JSONSerialization.data(withJSONObject: all).write(to: URL(fileURLWithPath: path))
            try await cluster.killAndWait("cache")
        }

        private static func says(_ cluster: TestCluster, _ text: String) -> Int {
            let bytes = FileManager.default.contents(atPath: cluster.data + "/log/cache-1.log") ?? Data()
            return String(decoding: bytes, as: UTF8.self).ranges(of: text).count
        }

        private static func waitUntil(_ cluster: TestCluster, says text: String, more than: Int) async throws {
            _ = try await ProcessRunner.eventually("the log says: \(text)", timeout: .seconds(60)) { () -> Bool? in
                says(cluster, text) > than ? true : nil
            }
        }

        /// Fills the log's file system while a client writes, and empties it again.
        private static func writesWait(_ cluster: TestCluster, _ log: Log, seed: UInt64) async throws {
            let url = try cluster.url()
            let postgres = try cluster.state().pids("postgres")
            let written = try await Images.io(url, ["write -P 7 48M 64k"])
            #expect(written.isSuccess, "\(written.summary)")
            let writes = Initiator.Writes(
                url: url,
                journal: "\(cluster.data)/journal-\(seed)",
                seed: seed,
                milliseconds: 2_000,
                firstSector: seed * 16_384
            )
            let run = try await Initiator.shared.start(writes)
            let (full, roomy) = ("bytes left for its log: writes wait", "has room for its log again: writes go on")
            let counts = (full: says(cluster, full), roomy: says(cluster, roomy))
            try await log.fill()
            try await waitUntil(cluster, says: full, more: counts.full)
            let single = try BackgroundProcess("qemu-io", ["-f", "raw", "-c", "write -P 9 48M 64k", url])
            let read = try await Images.io(url, ["read -P 7 48M 64k"])
            #expect(read.isSuccess, "reads go on: \(read.summary)")
            #expect(single.isRunning, "the write waits: \(single.output)")
            #expect(run.isRunning, "the writes wait: \(run.output)")
            try await log.empty()
            try await waitUntil(cluster, says: roomy, more: counts.roomy)
            let result = try await single.wait(timeout: .seconds(60))
            #expect(result.isSuccess, "it was not failed: \(result.summary)")
            let report = try await Initiator.shared.finish(run)
            #expect(report.acknowledged > 0)
            try await Initiator.shared.verify([writes], through: url)
            let last = try await Images.io(url, ["read -P 9 48M 64k"])
            #expect(last.isSuccess, "\(last.summary)")
            #expect(try cluster.state().pids("postgres") == postgres, "PostgreSQL had the room that it needed")
        }

        @Test func writesWaitWhileThereIsNoRoomForTheLogAndGoOnThen_I10() async throws {
            var cluster = try await TestCluster.start(targets: 1)
            var log = Log(directory: cluster.data + "/postgres/pg_wal", isMounted: false)
            do {
                try await Self.setCapacity(cluster)
                try await Self.writesWait(cluster, log, seed: 1)
                var stopped = try await cluster.stop()
                #expect(stopped.isSuccess, "\(stopped.summary)")
                if try await log.mount() {
                    // The log's own file system counts, not that of PostgreSQL's other files.
                    cluster = try await TestCluster.start(targets: 1, data: cluster.data, port: cluster.port)
                    try await Self.writesWait(cluster, log, seed: 2)
                    stopped = try await cluster.stop()
                    #expect(stopped.isSuccess, "\(stopped.summary)")
                } else {
                    print("LogRoomTests: no file system can be mounted here: the free room of one was not tried")
                }
            } catch {
                let logs = cluster.logs()
                try? await cluster.killAll()
                try? await log.unmount()
                cluster.remove()
                throw ProcessFailure("\(error)\n\(logs)")
            }
            try await log.unmount()
            cluster.remove()
        }
    }
}
