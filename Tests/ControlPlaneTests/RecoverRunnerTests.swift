import AshlarCore
import Logging
import NIOConcurrencyHelpers
import PostgresStore
import Testing

@testable import ControlPlane

/// Recovery against PostgreSQL, with object servers in memory.
@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL's server is not installed"))
struct RecoverRunnerTests {
    private static let uuid = "00112233-4455-6677-8899-aabbccddeeff"
    private static let uuidBytes: [UInt8] = (0..<16).map { UInt8($0 * 0x11) }

    private struct Bench {
        let peers: ModelPeers
        let connection: PostgresConnection
        let runner: RecoverRunner
        let slept: NIOLockedValueBox<UInt64>

        func put(
            _ object: Int64,
            server: Int32 = 1,
            volume: Int64 = 1,
            uuid: [UInt8] = uuidBytes,
            _ slots: [(UInt64, UInt64)]
        ) {
            peers.state.withLockedValue { state in
                state.objects[server, default: []].append(UInt64(object))
                state.headers[UInt64(object)] = RecoverPlanner.Header(
                    object: object,
                    server: server,
                    volume: volume,
                    uuid: uuid,
                    blockSizeBytes: 4_096,
                    sizeBytes: 100,
                    slots: slots.map { RecoverPlanner.Slot(block: $0.0, version: $0.1) }
                )
            }
        }

        func run(repair: Bool = false) async throws -> RecoverReport {
            try await runner.run(RecoverRequest(repair: repair), progress: nil)
        }

        func text(_ sql: String) throws -> String? {
            try connection.query("SELECT (\(sql))::text AS t", []).first?.string("t")
        }

        /// The map, as `first+count object/slot`.
        func map() throws -> String {
            try text(
                """
                SELECT coalesce(string_agg(first_block || '+' || block_count || ' ' || object_id || '/' || first_slot, ', '
                    ORDER BY first_block), '') FROM block_extents WHERE volume_id = 1
                """
            ) ?? ""
        }
    }

    private func withBench(_ body: (Bench) async throws -> Void) async throws {
        let configuration = try TestCluster.shared.get().emptyDatabase()
        let connection = try PostgresConnection(configuration)
        defer { connection.close() }
        try MigrationRunner(Migrations(directory: migrationsDirectory), release: "0.3.0", logger: quiet).up(connection)
        let workers = (DatabaseWorker(configuration), DatabaseWorker(configuration))
        let slept = NIOLockedValueBox<UInt64>(0)
        let peers = ModelPeers()
        var runner = RecoverRunner(
            store: PostgresRecoverStore(snapshot: workers.0, present: workers.1),
            peers: peers,
            logger: quiet
        )
        runner.sleep = { milliseconds in slept.withLockedValue { $0 += milliseconds } }
        let bench = Bench(peers: peers, connection: connection, runner: runner, slept: slept)
        let result: Result<Void, any Error>
        do {
            try await body(bench)
            result = .success(())
        } catch {
            result = .failure(error)
        }
        await workers.0.shutdown()
        await workers.1.shutdown()
        try result.get()
    }

    private func makeVolume(_ bench: Bench, blocks: Int = 100) throws {
        try bench.connection.query(
            "INSERT INTO volumes (name, iqn, uuid, size_bytes) VALUES ('v1', 'iqn.2026-01.io.ashlar:v1', $1::uuid, $2)",
            [.text(Self.uuid), .int(Int64(blocks * 4_096))]
        )
    }

    @Test func anEmptyDatabaseGetsItsVolumesBack_readOnly() async throws {
        try await withBench { bench in
            bench.put(5, [(0, 1), (1, 2), (2, 3)])
            bench.put(9, [(1, 7), (40, 8)])
            bench.peers.state.withLockedValue { $0.clock = 33 }
            let plan = try await bench.run()
            #expect(plan.isBehind && plan.blocksTaken == 4 && plan.volumes == ["recovered-1"] && !plan.isRepaired)
            #expect(try bench.text("SELECT count(*) FROM volumes") == "0", "a plan changes nothing")

            let report = try await bench.run(repair: true)
            #expect(report.isRepaired && report.blocksTaken == 4 && report.incomplete.isEmpty, "\(report)")
            #expect(try bench.map() == "0+1 5/0, 1+1 9/0, 2+1 5/2, 40+1 9/1")
            #expect(
                try bench.text("SELECT concat_ws(' ', id, uuid, size_bytes, read_only, state) FROM volumes")
                    == "1 \(Self.uuid) \(48 * 4_096) t active"
            )
            #expect(
                try bench.text(
                    "SELECT string_agg(object_id || ' ' || state || ' ' || live_slots || '/' || slots, ', ' ORDER BY 1) FROM block_objects"
                ) == "5 live 2/3, 9 live 2/2"
            )
            // Nothing that was handed out is handed out again, and what was behind is not any more.
            #expect(try bench.text("SELECT nextval('block_objects_object_id_seq')") == "10")
            #expect(try bench.text("SELECT clock > 33 AND behind_since IS NULL FROM database_age") == "true")
            #expect(
                try bench.text("SELECT first_version > 8 AND epoch > 0 AND first_nexus > 1 FROM volume_epochs")
                    == "true"
            )
            let again = try await bench.run()
            #expect(!again.isNeeded && again.counts.isEmpty, "\(again)")
        }
    }

    @Test func aDatabaseThatWentBackGetsWhatIsNewerInObjects() async throws {
        try await withBench { bench in
            try makeVolume(bench)
            // As of the backup: object 3 with blocks 0 to 3; items 2 (newer, unmoved) and 9; object 4 is intended.
            try bench.connection.script(
                """
                INSERT INTO block_objects (object_id, volume_id, server_id, slots, live_slots, state, live_at)
                OVERRIDING SYSTEM VALUE VALUES (3, 1, 1, 4, 4, 'live', now()), (4, 1, NULL, 0, 0, 'intended', NULL);
                SELECT setval('block_objects_object_id_seq', 4);
                INSERT INTO block_extents (volume_id, first_block, block_count, object_id, first_slot) VALUES (1, 0, 4, 3, 0);
                INSERT INTO block_items (volume_id, block_id, unmoved_since, item, segment, frame, frame_offset, data_bytes) VALUES
                    (1, 2, now(), '{"Version": 20}', 0, 0, 0, 0), (1, 9, now(), '{"Version": 21}', 0, 0, 0, 0);
                UPDATE volume_epochs SET first_version = 1000, epoch = 5;
                INSERT INTO nexuses (volume_id, nexus, initiator_name, isid, portal_group_tag, node)
                VALUES (1, 1, 'iqn.a', 1, 1, 't');
                """
            )
            bench.put(3, [(0, 10), (1, 11), (2, 12), (3, 13)])
            bench.put(4, [(2, 20), (9, 30)])
            bench.put(7, [(1, 31), (50, 32)])
            let report = try await bench.run(repair: true)
            #expect(report.isBehind && report.isRepaired && report.blocksTaken == 3 && report.itemsReplaced == 1)
            #expect(report.findings.map(\.kind) == [.newer, .newer, .newer] && !report.hasLoss)
            #expect(try bench.map() == "0+1 3/0, 1+1 7/0, 2+2 3/2, 9+1 4/1, 50+1 7/1")
            #expect(try bench.text("SELECT string_agg(block_id::text, ',') FROM block_items") == "2")
            #expect(
                try bench.text("SELECT string_agg(live_slots::text, ',' ORDER BY object_id) FROM block_objects")
                    == "3,1,2"
            )
            // Nobody goes on where he was: sessions are forgotten, and epochs that were handed out are not used again.
            #expect(try bench.text("SELECT count(*) FROM nexuses") == "0")
            #expect(try bench.text("SELECT epoch > 1000000 AND first_version > 1000 FROM volume_epochs") == "true")
            #expect(bench.peers.state.withLockedValue { $0.reloaded } == [1])
            #expect(try await !bench.run().isNeeded)
        }
    }

    @Test func objectsThatAreGoneAreTold_andItemsAreMovedAgain() async throws {
        try await withBench { bench in
            try makeVolume(bench)
            try bench.connection.script(
                """
                INSERT INTO block_objects (object_id, volume_id, server_id, slots, live_slots, state, live_at)
                OVERRIDING SYSTEM VALUE VALUES (3, 1, 1, 4, 4, 'live', now());
                SELECT setval('block_objects_object_id_seq', 3);
                INSERT INTO block_extents (volume_id, first_block, block_count, object_id, first_slot) VALUES (1, 0, 4, 3, 0);
                INSERT INTO block_items (volume_id, block_id, moved_version, item, segment, frame, frame_offset, data_bytes)
                VALUES (1, 2, 20, '{"Version": 20, "Moved": true}', 0, 0, 0, 0);
                """
            )
            bench.peers.state.withLockedValue { $0.objects[1] = [] }
            let report = try await bench.run(repair: true)
            #expect(!report.isBehind && report.isRepaired && report.hasLoss)
            #expect(report.counts == ["lost": 2, "kept": 1], "\(report)")
            let lost = report.findings.filter { $0.kind == .lost }.map { "\($0.firstBlock ?? 0)+\($0.blockCount ?? 0)" }
            #expect(lost == ["0+2", "3+1"])
            #expect(try bench.map() == "0+2 3/0, 3+1 3/3", "reads of what is lost fail, they do not tell zeros")
            #expect(try bench.text("SELECT item ? 'Moved' OR unmoved_since IS NULL FROM block_items") == "false")
        }
    }

    @Test func nothingIsDoneWhereNotEverythingCanBeSeen() async throws {
        try await withBench { bench in
            try makeVolume(bench)
            bench.put(7, [(1, 31)])
            try bench.connection.script(
                """
                INSERT INTO block_objects (object_id, volume_id, server_id, slots, live_slots, state, live_at)
                OVERRIDING SYSTEM VALUE VALUES (3, 1, 2, 4, 4, 'live', now());
                INSERT INTO block_extents (volume_id, first_block, block_count, object_id, first_slot) VALUES (1, 0, 4, 3, 0);
                """
            )
            let plan = try await bench.run()
            #expect(plan.incomplete.count == 1 && plan.isNeeded)
            let refused = await #expect(throws: ControlError.self) { try await bench.run(repair: true) }
            #expect(refused?.code == .objectsUnavailable)
            #expect(try bench.text("SELECT state FROM volumes") == "active" && bench.map() == "0+4 3/0")
        }
    }

    @Test func aVolumeUnderTheNumberOfAnotherIsNotTouched_andDeletionStaysRefused() async throws {
        try await withBench { bench in
            try makeVolume(bench)
            bench.put(7, uuid: [UInt8](repeating: 1, count: 16), [(1, 31)])
            bench.peers.state.withLockedValue { $0.clock = 33 }
            let report = try await bench.run(repair: true)
            #expect(report.counts == ["other-volume": 1] && report.hasLoss && report.volumes.isEmpty)
            #expect(try bench.map().isEmpty)
            #expect(try bench.text("SELECT clock <= 33 AND behind_since IS NOT NULL FROM database_age") == "true")
        }
    }

    /// The backup is of after a shrink to 40 blocks, whose zeros were not made yet; then the volume grew and was written to.
    @Test func whatWasWrittenBehindAShrinkStaysWhenTheVolumeGrows() async throws {
        try await withBench { bench in
            try makeVolume(bench)
            try bench.connection.script(
                """
                INSERT INTO block_objects (object_id, volume_id, server_id, slots, live_slots, state, live_at)
                OVERRIDING SYSTEM VALUE VALUES (3, 1, 1, 20, 20, 'live', now());
                INSERT INTO block_extents (volume_id, first_block, block_count, object_id, first_slot) VALUES (1, 30, 20, 3, 0);
                INSERT INTO block_items (volume_id, block_id, unmoved_since, item, segment, frame, frame_offset, data_bytes) VALUES
                    (1, 60, now(), '{"Version": 21}', 0, 0, 0, 0);
                UPDATE volume_epochs SET first_version = 1000, epoch = 5;
                UPDATE volumes SET size_bytes = 40 * 4096;
                """
            )
            #expect(
                try bench.text(
                    "SELECT concat_ws(' ', zero_from / 4096, shrunk_to / 4096, shrunk_version) FROM volume_epochs"
                )
                    == "40 40 1000"
            )
            bench.put(3, (0..<20).map { (30 + $0, 1 + $0) })
            // Moved, but not mapped, before the shrink.
            bench.put(4, [(35, 30), (45, 31)])
            bench.put(7, [(41, 2_000), (70, 2_001)])
            let small = try await bench.run(repair: true)
            #expect(small.counts == ["newer": 1, "beyond-end": 1] && small.hasLoss && small.blocksTaken == 1)
            #expect(try bench.map() == "30+5 3/0, 35+1 4/0, 36+14 3/6", "what waits is the owner's")
            let again = try await bench.run()
            #expect(again.isBehind, "what has no place yet is not garbage")

            try bench.connection.script("UPDATE volumes SET size_bytes = 100 * 4096")
            let report = try await bench.run(repair: true)
            #expect(report.counts == ["newer": 2] && !report.hasLoss && report.blocksTaken == 2, "\(report)")
            #expect(try bench.map() == "30+5 3/0, 35+1 4/0, 36+4 3/6, 41+1 7/0, 70+1 7/1")
            #expect(try bench.text("SELECT count(*) FROM block_items") == "0")
            #expect(
                try bench.text("SELECT string_agg(live_slots::text, ',' ORDER BY object_id) FROM block_objects")
                    == "9,1,2"
            )
            #expect(try bench.text("SELECT zero_from IS NULL FROM volume_epochs") == "true")
            #expect(try await !bench.run().isNeeded)
        }
    }

    @Test func anInterruptedRecoveryIsFinished_andALeaseIsWaitedFor() async throws {
        try await withBench { bench in
            try makeVolume(bench)
            bench.put(7, [(1, 31)])
            try bench.connection.script(
                """
                UPDATE volumes SET state = 'recovering';
                INSERT INTO cache_servers (name, endpoint, lease_end) VALUES ('c', 'e', now() + interval '1 day');
                UPDATE volume_epochs SET owner = (SELECT id FROM cache_servers);
                UPDATE database_age SET highest_object = 100;
                """
            )
            bench.peers.state.withLockedValue { $0.untold = ["e: unreachable"] }
            #expect(try await bench.run().counts["interrupted"] == 1)
            let report = try await bench.run(repair: true)
            #expect(report.isRepaired && report.blocksTaken == 1)
            #expect(try bench.text("SELECT state FROM volumes") == "active")
            #expect(try bench.map() == "1+1 7/0")
            let slept = bench.slept.withLockedValue { $0 }
            #expect(
                slept == ControlLimits.recoverLeaseWaitMilliseconds,
                "the owner may serve reads until its lease ends"
            )
        }
    }
}
