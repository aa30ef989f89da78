import AshlarCore
import Ownership
import Testing

@testable import PostgresStore

/// The verification of items and objects, what becomes of damaged ones, and the age of the database.
@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"))
struct ScrubTests {
    /// Has the next pass begin at once, however long the pace or the rest between passes is.
    private func hurry(_ fixture: Fixture) throws {
        try fixture.connect().script("UPDATE scrub_progress SET next_at = now() - interval '1 hour'")
    }

    private func scrubItems(_ fixture: Fixture) async throws -> ScrubbedItems {
        try hurry(fixture)
        return try await ask { fixture.store.scrubItems(completion: $0) }
    }

    private func scrubObjects(_ fixture: Fixture) async throws -> ScrubPiece {
        try hurry(fixture)
        return try await ask { fixture.store.scrubObjects(completion: $0) }
    }

    private func report(_ fixture: Fixture, token: UInt64, _ findings: [ObjectFinding]) async throws {
        try await ask { fixture.store.reportObjects(token: token, findings, completion: $0) }
    }

    private func sound(_ object: ObjectID) -> ObjectFinding {
        ObjectFinding(object: object, slots: [], isMissing: false, isWhole: true)
    }

    /// `count` live objects of four blocks each, one behind the other from block 0 on.
    private func makeObjects(_ fixture: Fixture, _ count: Int) async throws -> [ObjectID] {
        let objects = try await fixture.reserve(count)
        try await fixture.commit { part in
            part.maps = objects.enumerated().map { index, object in
                map(object, (0..<4).map { (UInt64(index * 4 + $0), 1) }, .always)
            }
        }
        return objects
    }

    @Test func I11_damagedItemsAreFoundAndForgottenOnceTheyAreWrittenAnew() async throws {
        let fixture = try await Fixture()
        let count = UInt64(PostgresStoreLimits.scrubItemsMaximum) + 10
        try await fixture.commit { part in part.writes = (0..<count).map { write($0, $0 + 1) } }
        let connection = try fixture.connect()
        try connection.script(
            """
            UPDATE block_journal j SET data = set_byte(j.data, i.frame_offset + 3, get_byte(j.data, i.frame_offset + 3) # 1)
            FROM block_items i WHERE i.block_id = 5 AND j.segment = i.segment AND j.frame = i.frame
            """
        )
        let first = try await scrubItems(fixture)
        #expect(first.count == UInt64(PostgresStoreLimits.scrubItemsMaximum))
        #expect(first.damaged.map(\.block) == [BlockID(5)])
        let second = try await scrubItems(fixture)
        #expect(second.count == 10 && second.damaged.isEmpty)
        // The pass ends, and the next one begins after its rest.
        #expect(try await scrubItems(fixture).count == 0)
        #expect(try await ask { fixture.store.scrubItems(completion: $0) }.count == 0)
        let scrub = try connection.query("SELECT * FROM ashlar_inspect.scrub WHERE kind = 'items'")[0]
        #expect(try scrub.int64("pass") == 2 && scrub.int64("last_checked") == Int64(count))
        #expect(try scrub.int64("last_damaged") == 1)
        let damage = try connection.query("SELECT * FROM ashlar_inspect.damage")
        #expect(try damage.map { try $0.int64("block_id") } == [5])
        #expect(try damage[0].string("place") == "item" && damage[0].string("volume") == "v1")
        try await fixture.commit { $0.writes = [write(5, count + 1)] }
        #expect(try connection.query("SELECT * FROM ashlar_inspect.damage").isEmpty)
    }

    @Test func onePieceIsHandedOutAtATimeAndAnOldReportMovesNothing() async throws {
        let fixture = try await Fixture()
        let count = PostgresStoreLimits.scrubObjectsMaximum + 1
        let objects = try await makeObjects(fixture, count)
        let first = try await scrubObjects(fixture)
        #expect(first.objects.map(\.object) == Array(objects.dropLast()))
        #expect(first.objects.allSatisfy { $0.slots == 4 && $0.server == ObjectServerID(1) })
        #expect(try await scrubObjects(fixture).objects.isEmpty, "another agent has it")
        // Its agent is gone: the same piece is handed out again.
        let connection = try fixture.connect()
        try connection.script("UPDATE scrub_progress SET handed_until = now() - interval '1 s'")
        let again = try await scrubObjects(fixture)
        #expect(again.objects == first.objects && again.token != first.token)
        try await report(fixture, token: first.token, first.objects.map { sound($0.object) })
        #expect(try await scrubObjects(fixture).objects.isEmpty, "the late report ended nothing")
        try await report(fixture, token: again.token, again.objects.map { sound($0.object) })
        // The pace: what was read has to be paid for with time, but for a second in advance.
        try connection.script("UPDATE cluster SET scrub_bytes_per_second = 1")
        let last = try await scrubObjects(fixture)
        #expect(last.objects.map(\.object) == objects.suffix(1))
        try await report(fixture, token: last.token, [sound(objects[count - 1])])
        #expect(try await ask { fixture.store.scrubObjects(completion: $0) }.objects.isEmpty)
        let wait = try connection.query(
            "SELECT next_at > now() + interval '10 s' AS later FROM scrub_progress WHERE kind = 'objects'"
        )
        #expect(try wait[0].bool("later") == true)
        try connection.script("UPDATE cluster SET scrub_bytes_per_second = 0")
        #expect(try await scrubObjects(fixture).objects.isEmpty, "switched off")
    }

    @Test func I11_damagedSlotsAreShownAsBlocksUntilTheyAreSoundOrWrittenAnew() async throws {
        let fixture = try await Fixture()
        let objects = try await makeObjects(fixture, 3)
        let connection = try fixture.connect()
        func damaged() throws -> [Int64?] {
            try connection.query("SELECT block_id FROM ashlar_inspect.damage ORDER BY 1").map {
                try $0.int64("block_id")
            }
        }
        try await report(
            fixture,
            token: 0,
            [
                ObjectFinding(object: objects[0], slots: [1, 3], isMissing: false, isWhole: true),
                ObjectFinding(object: objects[1], slots: [-1], isMissing: true, isWhole: true), sound(objects[2]),
                ObjectFinding(object: ObjectID(9_999), slots: [0], isMissing: false, isWhole: true),
            ]
        )
        #expect(try damaged() == [1, 3, 4, 5, 6, 7])
        let missing = try connection.query("SELECT missing, slot FROM ashlar_inspect.damage WHERE block_id = 6")[0]
        #expect(try missing.bool("missing") == true && missing.int64("slot") == 2)
        // Seen in part, nothing is sound again; seen whole, what is not named is.
        try await report(
            fixture,
            token: 0,
            [ObjectFinding(object: objects[0], slots: [2], isMissing: false, isWhole: false), sound(objects[1])]
        )
        #expect(try damaged() == [1, 2, 3])
        try await fixture.commit { $0.zeros = [BlockRange(first: BlockID(1), count: 1)] }
        #expect(try damaged() == [2, 3])
        try await report(
            fixture,
            token: 0,
            [ObjectFinding(object: objects[0], slots: [3], isMissing: false, isWhole: true)]
        )
        #expect(try damaged() == [3])
    }

    @Test func I11_anObjectOfWhichOnlyDamagedSlotsAreLeftIsNotCompactedForEver() async throws {
        let fixture = try await Fixture()
        let objects = try await makeObjects(fixture, 2)
        try await fixture.commit { part in
            part.zeros = [BlockRange(first: BlockID(0), count: 2), BlockRange(first: BlockID(4), count: 3)]
        }
        func candidates(percent: UInt8 = 60) async throws -> [ObjectID] {
            try await ask {
                fixture.store.fetchCompactionCandidates(
                    volume: fixture.volume,
                    belowPercent: percent,
                    limit: 10,
                    completion: $0
                )
            }.map(\.0.object)
        }
        #expect(try await candidates() == [objects[1], objects[0]])
        // Block 2 is damaged, block 3 is not: it can still be saved.
        try await report(
            fixture,
            token: 0,
            [ObjectFinding(object: objects[0], slots: [2], isMissing: false, isWhole: true)]
        )
        #expect(try await candidates() == [objects[1], objects[0]])
        try await fixture.commit { $0.zeros = [BlockRange(first: BlockID(3), count: 1)] }
        #expect(try await candidates() == [objects[1]])
        try await report(
            fixture,
            token: 0,
            [ObjectFinding(object: objects[1], slots: [-1], isMissing: true, isWhole: true)]
        )
        #expect(try await candidates().isEmpty)
        // On a server that is drained they are rewritten whatever the policy says, as far as they can be.
        #expect(try await candidates(percent: 0).isEmpty)
        try await report(fixture, token: 0, objects.map(sound))
        #expect(try await candidates(percent: 0).isEmpty)
        try fixture.connect().script(
            """
            INSERT INTO object_servers (id, name, endpoint, cluster_uuid, draining)
            SELECT 1, 'objects-1', '127.0.0.1:7501', uuid, true FROM cluster
            """
        )
        #expect(try await Set(candidates(percent: 0)) == Set(objects))
        #expect(try await ask { fixture.store.drainingServers(completion: $0) } == [ObjectServerID(1)])
    }

    @Test func deadObjectsAreKeptAsLongAsABackupMayNeedThem() async throws {
        let fixture = try await Fixture()
        let objects = try await makeObjects(fixture, 1)
        try await fixture.commit { $0.zeros = [BlockRange(first: BlockID(0), count: 4)] }
        let connection = try fixture.connect()
        func collected() async throws -> [ObjectID] {
            try await ask {
                fixture.store.collectObjects(
                    intentAgeMilliseconds: 600_000,
                    graceMilliseconds: 1,
                    limit: 10,
                    completion: $0
                )
            }.map(\.object)
        }
        try connection.script("UPDATE cluster SET backup_window_seconds = 3600")
        #expect(try await collected().isEmpty)
        try connection.script("UPDATE block_objects SET dead_at = dead_at - interval '59 min'")
        #expect(try await collected().isEmpty)
        try connection.script("UPDATE block_objects SET dead_at = dead_at - interval '2 min'")
        #expect(try await collected() == objects)
    }

    @Test func M8_aDatabaseThatWentBackIsKnownByItsClockAndItsIDs() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(3)
        func age(clock: UInt64, highest: ObjectID) async throws -> DatabaseAgeRow {
            let mark = ObjectServerMark(server: ObjectServerID(1), clock: clock, highestObject: highest)
            return try await ask { fixture.store.databaseAge([mark], completion: $0) }
        }
        let first = try await age(clock: 0, highest: ObjectID(0))
        #expect(!first.isBehind && first.nextObject == ObjectID(objects[2].rawValue + 1))
        let second = try await age(clock: first.clock, highest: objects[2])
        #expect(!second.isBehind && second.clock == first.clock + 1, "it ticks")
        #expect(try await age(clock: second.clock + 1, highest: ObjectID(0)).isBehind)
        let behind = try await age(clock: second.clock, highest: first.nextObject)
        #expect(behind.isBehind && behind.clock == second.clock, "a database that is behind does not tick")
        let shown = try fixture.connect().query("SELECT * FROM ashlar_inspect.deletion")
        #expect(try shown.count == 1 && shown[0].bool("allowed") == false)
        let connection = try fixture.connect()
        try connection.script("UPDATE database_age SET behind_since = NULL")
        #expect(try await age(clock: second.clock, highest: objects[2]).isBehind == false)
        // Going on, a database that is behind gets as far as what it does not know. It stays behind.
        #expect(try await age(clock: 0, highest: ObjectID(objects[2].rawValue + 2)).isBehind)
        _ = try await fixture.reserve(3)
        #expect(try await age(clock: 0, highest: ObjectID(objects[2].rawValue + 2)).isBehind)
        #expect(try connection.query("SELECT allowed FROM ashlar_inspect.deletion")[0].bool("allowed") == false)
    }

    /// A sequence would be up to 32 ahead of what it has handed out, and hide as many ticks and objects that were lost.
    @Test func M8_whatADatabaseHasComeToIsExactAfterItsRecovery() async throws {
        let cluster = try TestCluster(settings: ["fsync=on"])
        let fixture = try await Fixture(cluster: cluster)
        let objects = try await fixture.reserve(3)
        let first = try await ask { fixture.store.databaseAge([], completion: $0) }
        cluster.crash()
        try cluster.start()
        var after: DatabaseAgeRow?
        try await until("the server is there again") {
            after = try? await ask { fixture.store.databaseAge([], completion: $0) }
            return after != nil
        }
        #expect(after?.clock == first.clock + 1 && after?.nextObject == first.nextObject)
        #expect(first.nextObject.rawValue == objects[2].rawValue + 1)
        let behind = try await ask {
            fixture.store.databaseAge(
                [ObjectServerMark(server: ObjectServerID(1), clock: first.clock + 2, highestObject: objects[2])],
                completion: $0
            )
        }
        #expect(behind.isBehind)
    }

    @Test func recoveredRunsReplaceWhatTheyCoverAndNothingElse() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(2)
        try await fixture.commit { part in
            part.maps = [
                map(objects[0], (0..<12).map { ($0, 1) }, .always),
                map(objects[1], (100..<106).map { ($0, 1) }, .always),
            ]
            part.references = []
        }
        let connection = try fixture.connect()
        // In the middle of an extent, over two of them, and to nothing.
        try connection.query(
            "SELECT recover_extents($1, '{3,9,101}', '{2,4,1}', $2::bigint[], '{0,2,0}')",
            [.int(fixture.volume.rawValue), .text("{\(objects[1]),\(objects[1]),0}")]
        )
        let region = try await fixture.region()
        let found = region.extents.map {
            "\($0.blocks.first)+\($0.blocks.count) \($0.object == objects[0] ? "a" : "b")\($0.firstSlot)"
        }
        #expect(found == ["0+3 a0", "3+2 b0", "5+4 a5", "9+4 b2", "100+1 b0", "102+4 b2"])
        for object in objects {
            let counted = try fixture.number("SELECT sum(block_count) FROM block_extents WHERE object_id = \(object)")
            #expect(try fixture.number("SELECT live_slots FROM block_objects WHERE object_id = \(object)") == counted)
        }
    }
}
