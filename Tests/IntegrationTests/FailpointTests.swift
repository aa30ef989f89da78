import AshlarCore
import AshlarTestSupport
import Failpoints
import Foundation
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import RPC
import Testing
import Transport

extension IntegrationTests {
    /// Every failpoint there is: a real process kills itself there and is started again; then every acknowledged write reads back,
    /// `fsck` finds nothing but what is legally left over, and the cluster works on.
    @Suite(.serialized) struct FailpointTests {
        private typealias Node = FailpointCluster.Node

        /// The points of a process, of which `ASHLAR_FAILPOINTS` may choose some; a new one without a scenario fails the test.
        private static func points(_ processes: Substring...) -> [Failpoint] {
            let chosen = ProcessInfo.processInfo.environment["ASHLAR_FAILPOINTS"]?.split(separator: ",").map(
                String.init
            )
            return Failpoint.allCases.filter {
                processes.contains($0.process) && chosen?.contains($0.rawValue) ?? true
            }
        }

        @Test func everyPointIsListedAndNoOtherIsTaken() async throws {
            // What the tests below walk through.
            let walked: Set<Substring> = ["cache", "agent", "objects", "control", "migrate", "certs", "up"]
            #expect(Set(Failpoint.allCases.map(\.process)) == walked)
            let program = try TestEnvironment.program()
            let listed = try await ProcessRunner.check(program, ["failpoints"])
            #expect(listed.split(separator: "\n").map(String.init) == Failpoint.allCases.map(\.rawValue))
            for value in ["cache.no-such-point", "cache.writes-sent:0", "cache.writes-sent:x"] {
                let refused = try await ProcessRunner.run(
                    program,
                    ["failpoints"],
                    environment: [ArmedFailpoint.variable: value]
                )
                #expect(refused.status == 78 && refused.output.isEmpty, "\(refused.summary)")
                #expect(refused.errors.contains(ArmedFailpoint.variable), "\(refused.summary)")
            }
            let armed = try await ProcessRunner.run(
                program,
                ["failpoints"],
                environment: [ArmedFailpoint.variable: "cache.writes-sent:2"]
            )
            #expect(armed.isSuccess && armed.errors.contains("kills itself at failpoint cache.writes-sent"))
        }

        // MARK: ashlar up

        /// Each start goes on from what the one before it left when it was killed, and comes further.
        @Test func aFirstStartThatIsKilledAnywhereIsCompletedByTheNext() async throws {
            let data = try TestEnvironment.temporaryDirectory() + "/data"
            let port = try TestEnvironment.freePorts(1)
            for point in Self.points("up", "certs").sorted(by: { Self.upOrder($0) < Self.upOrder($1) }) {
                let killed = try await ProcessRunner.run(
                    TestEnvironment.program(),
                    [
                        "up", "--json", "--data", data, "--iscsi-port", String(port), "--targets", "1", "--volume",
                        "demo:64M",
                    ],
                    environment: [
                        "ASHLAR_MIGRATIONS": TestEnvironment.sources + "/migrations",
                        ArmedFailpoint.variable: point.rawValue,
                    ],
                    timeout: .seconds(90)
                )
                FailpointCluster.expectDeath(killed, at: point)
            }
            try await TestCluster.start(targets: 1, data: data, port: port).end { cluster in
                let done = try await Images.io(cluster.url(), ["write -P 7 0 1M", "read -P 7 0 1M", "read -P 0 1M 1M"])
                #expect(done.isSuccess && !done.output.contains("verification failed"), "\(done.summary)")
                #expect(try await cluster.ashlar(["fsck"]).isSuccess)
            }
        }

        /// What `ashlar certs` leaves when it is killed is completed, or said to be incomplete, by the next one.
        @Test func certificatesThatAreHalfWrittenAreIssuedAgain() async throws {
            let directory = try TestEnvironment.temporaryDirectory()
            defer { try? FileManager.default.removeItem(atPath: directory) }
            func certs(_ arguments: [String], at point: Failpoint? = nil) async throws -> ProcessResult {
                try await ProcessRunner.run(
                    TestEnvironment.program(),
                    ["certs"] + arguments + ["--authority", directory + "/authority"],
                    environment: [ArmedFailpoint.variable: point?.rawValue ?? ""]
                )
            }
            for point in Self.points("certs") {
                switch point {
                case .certsAuthorityCertificateWritten:
                    FailpointCluster.expectDeath(try await certs(["init"], at: point), at: point)
                    let refused = try await certs(["init"])
                    #expect(!refused.isSuccess && refused.errors.contains("without its key"), "\(refused.summary)")
                    try FileManager.default.removeItem(atPath: directory + "/authority/certificate.pem")
                case .certsNodeKeyWritten:
                    let made = try await certs(["init"])
                    #expect(made.isSuccess, "\(made.summary)")
                    let issue = ["issue", "--role", "agent", "--name", "a", "--out", directory + "/node"]
                    FailpointCluster.expectDeath(try await certs(issue, at: point), at: point)
                    let issued = try await certs(issue)
                    #expect(issued.isSuccess, "\(issued.summary)")
                    let again = try await certs(issue)
                    #expect(!again.isSuccess && again.errors.contains("certs renew"), "\(again.summary)")
                default: Issue.record("there is no scenario for \(point.rawValue)")
                }
            }
        }

        /// The order in which a start comes to the points: those of certificates lie between those of `up`.
        private static func upOrder(_ point: Failpoint) -> Int {
            let before: Failpoint? =
                switch point {
                case .certsAuthorityCertificateWritten: .upTokenWritten
                case .certsNodeKeyWritten: .upAuthorityWritten
                default: nil
                }
            let all = Failpoint.allCases
            return 2 * (all.firstIndex(of: before ?? point) ?? 0) + (before == nil ? 0 : 1)
        }

        // MARK: The roles

        @Test func aRoleThatIsKilledAnywhereLosesNothing_I1_I5_I6_I8_I12() async throws {
            let postgres = try await ExternalPostgres.start()
            let cluster = try FailpointCluster(postgres: postgres)
            do {
                try await migrations(cluster)
                try await cluster.claim()
                for node in [Node.objects, .cache, .control, .agent, .target] { try await cluster.start(node) }
                let load = FailpointLoad(cluster: cluster, url: try await cluster.create("demo", mebibytes: 64))
                try await cluster.granted(
                    "PATCH",
                    "/v1/cluster",
                    #"{"scrubIntervalSeconds":1,"scrubBytesPerSecond":1099511627776}"#
                )
                for point in Self.points("objects") { try await objects(point, cluster, load) }
                for point in Self.points("agent") { try await load.crash(.agent, at: point) }
                for point in Self.points("cache") { try await cache(point, cluster, load) }
                for point in Self.points("control") { try await control(point, cluster, load) }
                try await load.settle()
                try await cluster.stop()
            } catch {
                // Before the logs, which are long: what prints this may cut its end off.
                let state = await cluster.databaseState()
                let logs = cluster.logs()
                await cluster.remove()
                await postgres.stop()
                throw ProcessFailure("\(error)\n\(state)\n\(logs)")
            }
            await cluster.remove()
            await postgres.stop()
        }

        private func migrations(_ cluster: FailpointCluster) async throws {
            for point in Self.points("migrate") {
                switch point {
                case .migrateLedgerCreated:
                    FailpointCluster.expectDeath(try await cluster.migrate(["up"], at: point), at: point)
                    #expect(try await cluster.sql("SELECT count(*) FROM schema_migrations") == "0")
                case .migrateApplied:
                    // Not at the first time that it comes there.
                    FailpointCluster.expectDeath(try await cluster.migrate(["up"], at: point, count: 3), at: point)
                    #expect(try await cluster.sql("SELECT count(*) FROM schema_migrations") == "3")
                case .migrateTakenBack:
                    let up = try await cluster.migrate(["up"])
                    #expect(up.isSuccess, "\(up.summary)")
                    let all = try await cluster.sql("SELECT count(*) FROM schema_migrations")
                    FailpointCluster.expectDeath(
                        try await cluster.migrate(["down", "--to", "2"], at: point),
                        at: point
                    )
                    let left = try await cluster.sql("SELECT count(*) FROM schema_migrations")
                    #expect(Int(left) == Int(all).map { $0 - 1 })
                default: Issue.record("there is no scenario for \(point.rawValue)")
                }
            }
            for command in [["up"], ["check"]] {
                let end = try await cluster.migrate(command)
                #expect(end.isSuccess, "\(command): \(end.summary)")
            }
        }

        // MARK: Object servers

        private func objects(_ point: Failpoint, _ cluster: FailpointCluster, _ load: FailpointLoad) async throws {
            switch point {
            case .identityWritten, .identitySynced, .identityLinked, .identityDirectorySynced, .layoutCreated:
                // Each start goes on with the new root where the one before it was killed.
                try await cluster.start(.spare, at: point)
                try await cluster.death(of: .spare, at: point)
            case .layoutSynced:
                try await cluster.start(.spare, at: point)
                try await cluster.death(of: .spare, at: point)
                try await cluster.start(.spare)
            case .putReplaced:
                try await load.crash(.objects, at: point) { try await putAgain(cluster) }
            default:
                let isOfDelete = point == .deleteUnlinked || point == .deleteDirectorySynced
                try await load.crash(.objects, at: point, restartingAgent: isOfDelete)
            }
        }

        /// Puts an object that is there once more, as an agent may that had no answer.
        private func putAgain(_ cluster: FailpointCluster) async throws {
            let root = cluster.home(.objects) + "/blocks"
            let paths = FileManager.default.enumerator(atPath: root)?.compactMap { $0 as? String } ?? []
            guard let path = paths.first(where: { $0.hasSuffix(".object") }),
                let bytes = FileManager.default.contents(atPath: "\(root)/\(path)")
            else { return }
            let name = URL(fileURLWithPath: path).deletingPathExtension().lastPathComponent
            guard let object = UInt64(name, radix: 16) else { throw ProcessFailure("\(path) is no object") }
            let (identity, endpoint) = try cluster.objectClient()
            let client = RPCClientHandle.connect(
                on: MultiThreadedEventLoopGroup.singleton.any(),
                configuration: RPCClient.Configuration(
                    endpoint: endpoint,
                    identity: identity,
                    expectedRole: .objects,
                    seed: 1
                ),
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            )
            // There is no answer where the server dies of it; where the object was deleted meanwhile, it is garbage now.
            _ = try? await client.call(
                PutObject(object: ObjectID(object)),
                payload: [ByteBuffer(bytes: bytes)],
                deadlineMilliseconds: 5_000
            )
            await client.close()
        }

        // MARK: Cache servers

        private func cache(_ point: Failpoint, _ cluster: FailpointCluster, _ load: FailpointLoad) async throws {
            switch point {
            case .cacheCopyCommitted: try await copy(cluster, load)
            case .cacheUnitChanged: try await register(cluster, load)
            case .cacheDescriptionTold: try await resize(cluster, load)
            case .cacheRemainsForgotten: try await shrink(cluster, load)
            case .cacheVolumeDeletionStepped: try await delete(.cache, at: point, cluster, load)
            case .cacheItemsRelocated, .cacheSegmentTruncated: try await empty(point, cluster, load)
            case .cacheVolumeRelinquished: try await handOver(cluster, load)
            case .cacheStopAnnounced, .cacheLeasesReleased:
                // One that serves nothing yet has nothing to announce.
                let isServing = NIOLockedValueBox(false)
                try await load.crash(.cache, at: point) {
                    if !isServing.withLockedValue({ $0 }) {
                        guard try await cluster.serves("demo") else { return }
                        isServing.withLockedValue { $0 = true }
                    }
                    cluster.send(SIGTERM, to: .cache)
                }
            default:
                try await load.crash(.cache, at: point, restartingAgent: true)
            }
        }

        private func copy(_ cluster: FailpointCluster, _ load: FailpointLoad) async throws {
            try await cluster.io(load.url, ["write -P 0x5c 52M 64k"])
            // Only what lies in objects is copied by reference.
            try await cluster.moveAll("demo")
            let session = try await cluster.session("demo", name: "copies")
            _ = try session.attentions()
            let device = try session.networkAddressIdentifier()
            try await load.crash(.cache, at: .cacheCopyCommitted) {
                session.again { $0.beginCopy(of: device, from: 52 << 11, to: 56 << 11, blocks: 128) }
            }
            try await cluster.io(load.url, ["read -P 0x5c 52M 64k", "read -P 0x5c 56M 64k"])
        }

        private func register(_ cluster: FailpointCluster, _ load: FailpointLoad) async throws {
            let session = try await cluster.session("demo", name: "keeper")
            _ = try session.attentions()
            let list = RawInitiator.bigEndian(0, 8) + RawInitiator.bigEndian(77, 8) + [UInt8](repeating: 0, count: 8)
            try await load.crash(.cache, at: .cacheUnitChanged) {
                session.again { $0.begin([0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0], write: list) }
            }
            #expect(try await cluster.sql("SELECT count(*) FROM registrations") == "1")
        }

        private func resize(_ cluster: FailpointCluster, _ load: FailpointLoad) async throws {
            let session = try await cluster.session("demo", name: "listener")
            _ = try session.attentions()
            let isAsked = NIOLockedValueBox(false)
            try await load.crash(.cache, at: .cacheDescriptionTold) {
                _ = session.receive(milliseconds: 10)
                guard !isAsked.withLockedValue({ $0 }) else { return }
                isAsked.withLockedValue { $0 = true }
                try await cluster.granted("POST", "/v1/volumes/demo/resize", #"{"sizeBytes":\#(65 << 20)}"#)
            }
            try await cluster.io(load.url, ["write -P 0x11 64M 64k", "read -P 0x11 64M 64k"])
        }

        private func shrink(_ cluster: FailpointCluster, _ load: FailpointLoad) async throws {
            let url = try await cluster.create("small", mebibytes: 16)
            try await cluster.io(url, ["write -P 0x22 0 64k", "write -P 0x33 8M 64k"])
            let isAsked = NIOLockedValueBox(false)
            try await load.crash(.cache, at: .cacheRemainsForgotten) {
                guard !isAsked.withLockedValue({ $0 }) else { return }
                isAsked.withLockedValue { $0 = true }
                try await cluster.granted(
                    "POST",
                    "/v1/volumes/small/resize",
                    #"{"sizeBytes":\#(1 << 20),"force":true}"#
                )
            }
            try await cluster.granted("POST", "/v1/volumes/small/resize", #"{"sizeBytes":\#(16 << 20)}"#)
            try await cluster.io(url, ["read -P 0x22 0 64k", "read -P 0 8M 64k"])
        }

        /// Deletes a volume while `node` is killed at a point of it; then it is deleted all the same.
        private func delete(
            _ node: Node,
            at point: Failpoint,
            _ cluster: FailpointCluster,
            _ load: FailpointLoad
        ) async throws {
            let name = "gone-\(point.rawValue.filter { $0.isLetter })"
            let url = try await cluster.create(name, mebibytes: 16)
            try await cluster.io(url, ["write -P 1 0 256k"])
            try await cluster.moveAll(name)
            try await cluster.io(url, ["write -P 2 0 64k"])
            let isAsked = NIOLockedValueBox(false)
            try await load.crash(node, at: point) {
                guard !isAsked.withLockedValue({ $0 }) else { return }
                // The control role does not answer where it is the one that dies.
                let answer = try? await cluster.api("DELETE", "/v1/volumes/\(name)?force=true")
                if let answer, (200..<300).contains(answer.status) { isAsked.withLockedValue { $0 = true } }
            }
            _ = try await ProcessRunner.eventually("\(name) is deleted", timeout: .seconds(60)) { () -> Bool? in
                try await cluster.api("GET", "/v1/volumes/\(name)").status == 404 ? true : nil
            }
        }

        /// Leaves a segment of the journal of which next to nothing is in use, so that the next server empties it.
        private func empty(_ point: Failpoint, _ cluster: FailpointCluster, _ load: FailpointLoad) async throws {
            let name = "kept-\(point.rawValue.filter { $0.isLetter })"
            let url = try await cluster.create(name, mebibytes: 16)
            let policy = #"{"policy":{"cachedBytesMaximum":\#(16 << 20)}}"#
            try await cluster.granted("PATCH", "/v1/volumes/\(name)", policy)
            let others = "SELECT count(*) FROM block_items i JOIN volumes v ON v.id = i.volume_id WHERE v.name = 'demo'"
            // Where no more than an eighth of it is in use.
            let sparse = """
                SELECT s.segment FROM journal_segments s
                JOIN (SELECT segment, sum(cardinality(blocks)) AS blocks FROM journal_batches GROUP BY 1) b USING (segment)
                JOIN (SELECT segment, count(*) AS live FROM block_items GROUP BY 1) u USING (segment)
                JOIN block_items i USING (segment) JOIN volumes v ON v.id = i.volume_id
                WHERE v.name = '\(name)' AND s.state = 'filling' AND u.live * 8 <= b.blocks
                """
            // Another connection may have been given the block than those that were given all the others.
            let segment = try await ProcessRunner.eventually("little of a segment is in use", timeout: .seconds(90)) {
                () -> Int? in
                try await cluster.io(load.url, ["write -P 0x6a 32M 1M"])
                try await cluster.io(url, ["write -P 0x6b 0 4k"])
                try await cluster.moveAll("demo")
                _ = try await ProcessRunner.eventually("what was moved is evicted", timeout: .seconds(60)) {
                    () -> Bool? in
                    try await cluster.sql(others) == "0" ? true : nil
                }
                return Int(try await cluster.sql(sparse))
            }
            // Who reads a segment keeps it from being truncated, not from being emptied.
            let reader = try await point == .cacheItemsRelocated ? cluster.hold("block_journal_\(segment)") : nil
            try await load.crash(.cache, at: point)
            try await cluster.io(url, ["read -P 0x6b 0 4k"])
            if let reader { try await cluster.letGo(reader) }
            let left = "SELECT count(*) FROM journal_segments WHERE state = 'emptying'"
            _ = try await ProcessRunner.eventually("the segments are empty", timeout: .seconds(60)) { () -> Bool? in
                try await cluster.sql(left) == "0" ? true : nil
            }
            try await cluster.io(url, ["read -P 0x6b 0 4k"])
        }

        private func handOver(_ cluster: FailpointCluster, _ load: FailpointLoad) async throws {
            let isAsked = NIOLockedValueBox(false)
            try await load.crash(.cache, at: .cacheVolumeRelinquished) {
                guard !isAsked.withLockedValue({ $0 }) else { return }
                // It has something to give away only once it serves: until then another one must not be there, which would take
                // everything over while this one starts, and keep it, since a server that starts again and again gets nothing.
                guard try await cluster.serves("demo") else { return }
                isAsked.withLockedValue { $0 = true }
                try await cluster.start(.successor)
                try await cluster.granted("PATCH", "/v1/caches/cache", #"{"draining":true}"#)
            }
            try await cluster.granted("PATCH", "/v1/caches/cache", #"{"draining":false}"#)
            cluster.send(SIGTERM, to: .successor)
            let end = try await cluster.end(of: .successor)
            #expect(end.isSuccess, "\(end.summary)")
        }

        // MARK: The control role

        private func control(_ point: Failpoint, _ cluster: FailpointCluster, _ load: FailpointLoad) async throws {
            func die(_ method: String, _ path: String, _ body: String? = nil) async throws {
                try await cluster.kill(.control)
                try await cluster.start(.control, at: point)
                try await cluster.death(of: .control, at: point) { _ = try? await cluster.api(method, path, body) }
                try await cluster.start(.control)
            }
            switch point {
            case .controlVolumeCreated:
                let body =
                    #"{"name":"made","sizeBytes":1048576,"initiators":["iqn.2026-01.org.ashlar.test:initiator"]}"#
                try await die("POST", "/v1/volumes", body)
                #expect(try await cluster.granted("GET", "/v1/volumes/made").contains("ashlar.test:initiator"))
                #expect(try await cluster.api("POST", "/v1/volumes", body).status == 409)
            case .controlVolumeChanged:
                try await die("PATCH", "/v1/volumes/demo", #"{"policy":{"compactBelowPercent":55}}"#)
                #expect(try await cluster.granted("GET", "/v1/volumes/demo").contains("\"compactBelowPercent\":55"))
            case .controlVolumeResized:
                try await die("POST", "/v1/volumes/demo/resize", #"{"sizeBytes":\#(66 << 20)}"#)
                let size = "\(66 << 20)"
                #expect(try await cluster.sql("SELECT size_bytes FROM volumes WHERE name = 'demo'") == size)
                // Nobody told the owner: it finds out by itself.
                _ = try await ProcessRunner.eventually("the new size is served", timeout: .seconds(60)) { () -> Bool? in
                    try await Images.io(load.url, ["write -P 0x44 65M 64k"]).isSuccess ? true : nil
                }
            case .controlDeletionMarked, .controlDeletionStepped, .controlVolumeDeleted:
                try await delete(.control, at: point, cluster, load)
            case .controlDrainingSet:
                try await die("PATCH", "/v1/caches/cache", #"{"draining":false}"#)
            case .controlClusterChanged:
                try await die("PATCH", "/v1/cluster", #"{"scrubIntervalSeconds":3600}"#)
                #expect(try await cluster.granted("GET", "/v1/cluster").contains("\"scrubIntervalSeconds\":3600"))
            case .controlRepairMade:
                try await load.settle()
                _ = try await cluster.sql("UPDATE block_objects SET live_slots = live_slots + 7 WHERE state = 'live'")
                try await die("POST", "/v1/fsck", "{}")
                let left = try await cluster.findings()
                #expect(left.keys.allSatisfy { $0 == "live-slots-wrong" }, "\(left)")
            case .controlRecoveryFenced, .controlRecoveryCreated, .controlRecoveryApplied,
                .controlRecoveryObjectsRaised,
                .controlRecoveryFinished, .controlRecoveryClockRaised:
                if point == .controlRecoveryFenced { try await loseMaps(cluster, load) }
                try await die("POST", "/v1/recover", #"{"repair":true}"#)
                if point == .controlRecoveryClockRaised { try await checkRecovery(cluster) }
            default:
                Issue.record("there is no scenario for \(point.rawValue)")
            }
            if cluster.isRunning(.agent) { try await load.check() }
        }

        /// Takes the map of one volume away, and everything of another, and sets the database's clock back, as after a restore.
        private func loseMaps(_ cluster: FailpointCluster, _ load: FailpointLoad) async throws {
            for (volume, pattern) in [("behind", 0x66), ("lost", 0x77)] {
                let url = try await cluster.create(volume, mebibytes: 16)
                try await cluster.io(url, ["write -P \(pattern) 0 1M"])
                try await cluster.moveAll(volume)
            }
            try await load.settle()
            try await cluster.kill(.agent)
            let clock = try await cluster.sql("SELECT clock FROM database_age")
            #expect((Int(clock) ?? 0) > 1)
            _ = try await cluster.sql(
                """
                SET session_replication_role = replica;
                DELETE FROM block_extents WHERE volume_id IN (SELECT id FROM volumes WHERE name IN ('behind', 'lost'));
                DELETE FROM block_items WHERE volume_id IN (SELECT id FROM volumes WHERE name IN ('behind', 'lost'));
                DELETE FROM block_objects WHERE volume_id IN (SELECT id FROM volumes WHERE name IN ('behind', 'lost'));
                DELETE FROM volume_epochs WHERE volume_id IN (SELECT id FROM volumes WHERE name = 'lost');
                DELETE FROM nexuses WHERE volume_id IN (SELECT id FROM volumes WHERE name = 'lost');
                DELETE FROM logical_units WHERE volume_id IN (SELECT id FROM volumes WHERE name = 'lost');
                DELETE FROM volumes WHERE name = 'lost';
                UPDATE database_age SET clock = 1;
                """
            )
        }

        private func checkRecovery(_ cluster: FailpointCluster) async throws {
            let job = try await cluster.job("POST", "/v1/recover", #"{"repair":true}"#)
            #expect(job["state"] as? String == "done", "\(job)")
            try await cluster.io(cluster.url("behind"), ["read -P 0x66 0 1M"])
            let name = try await cluster.sql("SELECT name FROM volumes WHERE name LIKE 'recovered-%'")
            // Whoever recovers decides whether it may be written.
            try await cluster.granted("PATCH", "/v1/volumes/\(name)", #"{"readOnly":false}"#)
            try await cluster.io(cluster.url(name), ["read -P 0x77 0 1M"])
            try await cluster.start(.agent)
        }
    }
}
