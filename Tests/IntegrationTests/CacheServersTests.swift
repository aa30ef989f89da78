import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// Several cache servers: volumes go from one to the other while initiators write.
    @Suite(.serialized) struct CacheServersTests {
        private static func owner(_ cluster: TestCluster, _ volume: String = "demo") async throws -> String {
            try await cluster.sql("SELECT server FROM ashlar_inspect.owners WHERE volume = '\(volume)' AND lease_valid")
        }

        /// Waits until another server than `old` owns the volume; returns its name.
        private static func waitForOwner(_ cluster: TestCluster, otherThan old: String) async throws -> String {
            try await ProcessRunner.eventually("another server than \(old) owns the volume", timeout: .seconds(60)) {
                () -> String? in
                let owner = try await Self.owner(cluster)
                return owner.isEmpty || owner == old ? nil : owner
            }
        }

        private static func writes(_ cluster: TestCluster, target: Int, _ milliseconds: Int) throws -> Initiator.Writes
        {
            Initiator.Writes(
                url: try cluster.url(target: target),
                journal: "\(cluster.data)/journal-\(target)",
                milliseconds: milliseconds,
                firstSector: UInt64(target) * 32_768
            )
        }

        @Test func cacheServersAreDrainedAndStoppedWhileTheirVolumesAreWritten_R9() async throws {
            try await TestCluster.with(
                volumes: ["demo:64M", "second:16M", "third:16M"],
                extra: ["--caches", "2"]
            ) { cluster in
                // A volume that nobody has asked for is taken over some time later only.
                for volume in ["second", "third"] {
                    let asked = try await Images.io(cluster.url(volume: volume), ["read 0 4k"])
                    #expect(asked.isSuccess, "\(asked.summary)")
                }
                var runs: [Initiator.Writes] = []
                for target in 1...2 { runs.append(try Self.writes(cluster, target: target, 20_000)) }
                let processes = [
                    try await Initiator.shared.start(runs[0]), try await Initiator.shared.start(runs[1]),
                ]
                var owner = try await Self.waitForOwner(cluster, otherThan: "")
                for _ in 0..<2 {
                    let drained = try await cluster.ashlar(["cache", "drain", owner])
                    #expect(drained.isSuccess && drained.output.contains("draining"), "\(drained.summary)")
                    let next = try await Self.waitForOwner(cluster, otherThan: owner)
                    let left =
                        "SELECT volumes FROM ashlar_inspect.cache_servers WHERE name = '\(owner)' AND lease_valid"
                    _ = try await ProcessRunner.eventually("\(owner) is empty", timeout: .seconds(60)) { () -> Bool? in
                        try await cluster.sql(left) == "0" ? true : nil
                    }
                    let undone = try await cluster.ashlar(["cache", "drain", owner, "--undo"])
                    #expect(undone.isSuccess && undone.output.contains("alive"), "\(undone.summary)")
                    // It gets its share again.
                    _ = try await ProcessRunner.eventually("\(owner) has a volume", timeout: .seconds(60)) {
                        () -> Bool? in
                        (Int(try await cluster.sql(left)) ?? 0) >= 1 ? true : nil
                    }
                    owner = try await Self.owner(cluster)
                    #expect(!next.isEmpty)
                }
                // A server that is told to stop gives its volumes away first.
                let pid = try await Self.process(of: owner, cluster)
                kill(pid, SIGTERM)
                _ = try await Self.waitForOwner(cluster, otherThan: owner)
                for process in processes {
                    let report = try await Initiator.shared.finish(process)
                    #expect(report.acknowledged > 100)
                    #expect(report.repeats == 0 && report.logins == 1, "an initiator saw an error: \(report)")
                }
                for target in 1...2 {
                    try await Initiator.shared.verify([runs[target - 1]], through: cluster.url(target: 1))
                }
                let unknown = try await cluster.ashlar(["cache", "drain", "cache-9"])
                #expect(!unknown.isSuccess && unknown.errors.contains("no cache server"), "\(unknown.summary)")
            }
        }

        @Test func anInitiatorSeesNoErrorWhenCacheServersAreKilled_R9_I9() async throws {
            try await TestCluster.with(extra: ["--caches", "2"]) { cluster in
                let writes = try Self.writes(cluster, target: 1, 12_000)
                let process = try await Initiator.shared.start(writes)
                let served = "SELECT epoch FROM ashlar_inspect.owners WHERE volume = 'demo' AND lease_valid"
                for _ in 0..<3 {
                    let owner = try await Self.waitForOwner(cluster, otherThan: "")
                    let epoch = Int(try await cluster.sql(served)) ?? 0
                    let pid = try await Self.process(of: owner, cluster)
                    kill(pid, SIGKILL)
                    // Whoever comes first: the other one, or the same after its start.
                    _ = try await ProcessRunner.eventually("another epoch is served", timeout: .seconds(60)) {
                        () -> Bool? in (Int(try await cluster.sql(served)) ?? 0) > epoch ? true : nil
                    }
                }
                let report = try await Initiator.shared.finish(process)
                #expect(report.acknowledged > 100)
                #expect(report.repeats == 0 && report.logins == 1, "an initiator saw an error: \(report)")
                try await Initiator.shared.verify([writes], through: cluster.url(target: 2))
            }
        }

        /// The process that a cache server of that name runs in, found by the endpoint that it has registered.
        private static func process(of name: String, _ cluster: TestCluster) async throws -> Int32 {
            let endpoint = try await cluster.sql(
                "SELECT endpoint FROM ashlar_inspect.cache_servers WHERE name = '\(name)' AND lease_valid"
            )
            let found = try cluster.state().roles.first { $0.role == "cache" && $0.endpoint == endpoint }
            guard let found, found.pid > 0 else { throw ProcessFailure("no process serves at \(endpoint)") }
            return found.pid
        }
    }
}
