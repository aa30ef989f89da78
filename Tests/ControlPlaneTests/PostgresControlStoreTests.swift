import AshlarCore
import NIOConcurrencyHelpers
import NIOCore
import PostgresStore
import Testing

@testable import ControlPlane

@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL's server is not installed"))
struct PostgresControlStoreTests {
    /// Runs `body` with a store on a migrated database of its own.
    private func withStore(
        _ body: (PostgresControlStore, DatabaseWorker, PostgresConfiguration) async throws -> Void
    ) async throws {
        let configuration = try TestCluster.shared.get().emptyDatabase()
        let connection = try PostgresConnection(configuration)
        try MigrationRunner(Migrations(directory: migrationsDirectory), release: "0.3.0", logger: quiet).up(connection)
        connection.close()
        let worker = DatabaseWorker(configuration, settings: PostgresControlStore.settings)
        let result: Result<Void, any Error>
        do {
            try await body(PostgresControlStore(worker: worker), worker, configuration)
            result = .success(())
        } catch {
            result = .failure(error)
        }
        await worker.shutdown()
        try result.get()
    }

    private func draft(_ name: String, bytes: UInt64 = 1 << 30) throws -> VolumeDraft {
        try VolumeRules.draft(CreateVolumeRequest(name: name, sizeBytes: bytes))
    }

    @Test func volumeIsCreatedChangedAndResized() async throws {
        try await withStore { store, _, _ in
            var request = CreateVolumeRequest(name: "a", sizeBytes: 64 << 40)
            request.initiators = ["iqn.1993-08.org.debian:01:x"]
            request.credentials = [CredentialDocument(name: "u", secret: "0123456789ab")]
            request.mutual = CredentialDocument(name: "t", secret: "ba9876543210")
            var policy = PolicyDocument()
            policy.move = "lru"
            request.policy = policy
            let made = try await store.createVolume(try VolumeRules.draft(request))
            #expect(made.sizeBytes == 64 << 40 && made.policy.move == "lru" && made.policy.readFill == "never")
            #expect(made.credentials == ["u"] && made.mutual == "t" && made.initiators.count == 1)
            var change = ChangeVolumeRequest()
            change.readOnly = true
            change.credentials = []
            change.mutual = CredentialDocument(name: "", secret: "")
            var newPolicy = PolicyDocument()
            newPolicy.cachedBytesMaximum = 1 << 20
            change.policy = newPolicy
            let changed = try await store.changeVolume(named: "a", change)
            #expect(changed.readOnly && changed.credentials.isEmpty && changed.mutual == nil)
            #expect(changed.policy.move == "lru" && changed.policy.cachedBytesMaximum == 1 << 20)
            #expect(changed.revision > made.revision)
            var through = ChangeVolumeRequest()
            through.policy = PolicyDocument()
            through.policy?.writeThroughMinimumBytes = 4_096
            #expect(try await store.changeVolume(named: "a", through).policy.writeThroughMinimumBytes == 4_096)
            // It has to fit what the volume has already, or nothing is changed.
            var direct = ChangeVolumeRequest()
            direct.policy = PolicyDocument()
            direct.policy?.directWriteMinimumBytes = 4_096
            direct.readOnly = false
            let refused = await #expect(throws: ControlError.self) { try await store.changeVolume(named: "a", direct) }
            #expect(refused?.code == .invalid && refused?.message.contains("4096") == true)
            #expect(try await store.volume(named: "a")?.readOnly == true)
            let shrink = await #expect(throws: ControlError.self) {
                try await store.resizeVolume(named: "a", sizeBytes: 4_096, force: false)
            }
            #expect(shrink?.code == .wouldShrink)
            #expect(try await store.resizeVolume(named: "a", sizeBytes: 4_096, force: true).sizeBytes == 4_096)
            let odd = await #expect(throws: ControlError.self) {
                try await store.resizeVolume(named: "a", sizeBytes: 5_000, force: true)
            }
            #expect(odd?.code == .invalid)
        }
    }

    @Test func namesAndIQNsAreUnique() async throws {
        try await withStore { store, _, _ in
            _ = try await store.createVolume(try draft("a"))
            let name = await #expect(throws: ControlError.self) { try await store.createVolume(try draft("a")) }
            #expect(name?.code == .volumeExists)
            var request = CreateVolumeRequest(name: "b", sizeBytes: 4_096)
            request.iqn = "iqn.2026-01.io.ashlar:a"
            let second = try VolumeRules.draft(request)
            let iqn = await #expect(throws: ControlError.self) { try await store.createVolume(second) }
            #expect(iqn?.code == .iqnExists)
            let none = await #expect(throws: ControlError.self) {
                try await store.changeVolume(named: "none", ChangeVolumeRequest())
            }
            #expect(none?.code == .noSuchVolume)
        }
    }

    @Test func deletionGoesInSteps() async throws {
        try await withStore { store, _, _ in
            _ = try await store.createVolume(try draft("a"))
            let record = try await store.markDeleting(named: "a", force: false)
            #expect(try await store.deletingVolumes(limit: 10) == ["a"])
            let deleting = await #expect(throws: ControlError.self) {
                try await store.changeVolume(named: "a", ChangeVolumeRequest())
            }
            #expect(deleting?.code == .volumeDeleting)
            while try await !store.deletionStep(volume: record.volume) {}
            #expect(try await store.volume(named: "a") == nil)
        }
    }

    @Test func sessionsKeepAVolume() async throws {
        try await withStore { store, worker, _ in
            let volume = try await store.createVolume(try draft("a"))
            try await worker.run { connection in
                _ = try connection.query(
                    """
                    INSERT INTO nexuses (volume_id, nexus, initiator_name, isid, portal_group_tag, node)
                    VALUES ($1, 1, 'iqn.1993-08.org.debian:01:x', 4096, 1, 't')
                    """,
                    [.int(volume.id)]
                )
            }
            let sessions = try await store.sessions(volume: nil, limit: 10)
            #expect(sessions.map(\.isid) == ["000000001000"])
            let open = await #expect(throws: ControlError.self) {
                try await store.markDeleting(named: "a", force: false)
            }
            #expect(open?.code == .sessionsOpen)
            _ = try await store.markDeleting(named: "a", force: true)
        }
    }

    @Test func aTargetIsDrainedAndKeepsItsReport() async throws {
        try await withStore { store, worker, _ in
            #expect(try await store.setDraining(target: "t-1", true) == nil)
            #expect(try await store.targets().isEmpty, "a target that never reported is not made")
            try await worker.run { connection in
                try connection.script(
                    """
                    INSERT INTO target_nodes (node, portal, portal_group_tag, release, sessions, last_seen) VALUES
                        ('t-1', '10.0.0.1:3260', 1, '0.3.0', 4, now()),
                        ('t-2', '10.0.0.2:3260', 2, '0.3.0', 0, now() - interval '1 h')
                    """
                )
            }
            let drained = try #require(try await store.setDraining(target: "t-1", true))
            #expect(drained.node == "t-1" && drained.draining && drained.alive && drained.sessions == 4)
            #expect(drained.portal == "10.0.0.1:3260" && drained.portalGroupTag == 1)
            #expect(try await store.targets().map(\.draining) == [true, false])
            // One that is silent is drained as soon as it is back.
            #expect(try await store.setDraining(target: "t-2", true)?.alive == false)
            #expect(try await store.setDraining(target: "t-1", false)?.draining == false)
            #expect(try await store.targets().map(\.draining) == [false, true])
        }
    }

    @Test func manyVolumesAreListedPageByPage() async throws {
        try await withStore { store, worker, _ in
            try await worker.run { connection in
                _ = try connection.query(
                    """
                    INSERT INTO volumes (name, iqn, size_bytes)
                    SELECT 'v' || lpad(n::text, 5, '0'), 'iqn.2026-01.io.ashlar:v' || n, 1 << 30
                    FROM generate_series(1, 10000) n
                    """
                )
            }
            var names: [String] = []
            while true {
                let page = try await store.volumes(after: names.last, limit: 1_000)
                if page.isEmpty { break }
                names += page.map(\.name)
            }
            #expect(names.count == 10_000)
            #expect(names == names.sorted())
            #expect(try await store.space(after: nil, limit: 100).count == 100)
            #expect(try await store.space(volume: "v00007")?.unmovedItems == 0)
        }
    }

    @Test func checkFindsAndRepairs() async throws {
        try await withStore { store, worker, configuration in
            var request = CreateVolumeRequest(name: "a", sizeBytes: 1 << 20)
            request.blockSizeBytes = 512
            let volume = try await store.createVolume(try VolumeRules.draft(request))
            try await worker.run { connection in
                _ = try connection.query(
                    """
                    INSERT INTO block_objects (volume_id, server_id, slots, live_slots, size_bytes, state, live_at)
                    VALUES ($1, 1, 8, 5, 4096, 'live', now()), ($1, 1, 8, 8, 4096, 'live', now())
                    """,
                    [.int(volume.id)]
                )
                _ = try connection.query(
                    "INSERT INTO block_objects (volume_id, intended_at) VALUES ($1, now() - interval '2 hours')",
                    [.int(volume.id)]
                )
                _ = try connection.query(
                    "INSERT INTO block_extents VALUES ($1, 0, 4, 1, 0), ($1, 8, 8, 2, 0)",
                    [.int(volume.id)]
                )
                _ = try connection.query(
                    """
                    WITH frame AS (INSERT INTO block_journal VALUES (0, 0, decode(repeat('00', 512), 'hex')))
                    INSERT INTO block_items (volume_id, block_id, unmoved_since, item, segment, frame, frame_offset, data_bytes)
                    VALUES ($1, 3, now(), '{"Version": 1, "Length": 512, "Checksum": 12}', 0, 0, 0, 512)
                    """,
                    [.int(volume.id)]
                )
            }
            let peers = ModelPeers()
            peers.state.withLockedValue { $0.objects = [1: [1, 99]] }
            let snapshot = DatabaseWorker(configuration)
            let runner = FsckRunner(
                store: PostgresFsckStore(snapshot: snapshot, present: worker),
                peers: peers,
                logger: quiet
            )
            let first = try await runner.run(FsckRequest(verify: true), progress: nil)
            #expect(
                first.counts == [
                    "live-slots-wrong": 1, "orphan-intent": 1, "item-checksum-wrong": 1, "object-missing": 1,
                    "object-unknown": 1,
                ]
            )
            #expect(first.repairs.count == 2)
            #expect(first.hasDamage)
            #expect(first.objectsVerified == 1)
            let second = try await runner.run(FsckRequest(verify: false), progress: nil)
            #expect(second.counts == ["item-checksum-wrong": 1, "object-missing": 1, "object-unknown": 1])
            #expect(second.repairs.isEmpty)
            let none = await #expect(throws: ControlError.self) {
                try await runner.run(FsckRequest(volume: "none"), progress: nil)
            }
            #expect(none?.code == .noSuchVolume)
            await snapshot.shutdown()
        }
    }

    @Test func databaseThatIsNotThereIsNamedWithARemedy() async throws {
        let worker = DatabaseWorker(PostgresConfiguration(dsn: "host=/nowhere dbname=x"))
        let store = PostgresControlStore(worker: worker)
        let error = await #expect(throws: ControlError.self) { try await store.volume(named: "a") }
        #expect(error?.code == .databaseUnavailable)
        #expect(error?.remedy.contains("postgres.dsn") == true)
        await worker.shutdown()
    }
}
