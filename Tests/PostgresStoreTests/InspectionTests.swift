import AshlarCore
import Ownership
import Testing

@testable import PostgresStore

/// Views, the reading role, the registry, and the plans of statements.
@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"))
struct InspectionTests {
    /// A volume with block 1 in the cache, 2 in both, 3 in an object.
    private func fill(_ fixture: Fixture) async throws -> ObjectID {
        let object = try await fixture.reserve()[0]
        try await fixture.commit { $0.writes = [write(1, 1), write(2, 2), write(3, 3)] }
        try await fixture.commit {
            $0.maps = [map(object, [(2, 2), (3, 3)], .itemHasVersion)]
            $0.evictions = [Eviction(block: BlockID(3), version: Version(3))]
        }
        return object
    }

    @Test func theViewsSayWhereBlocksAre() async throws {
        let fixture = try await Fixture()
        let object = try await fill(fixture)
        let connection = try fixture.connect()
        var places: [String?] = []
        for block in 0...3 {
            let rows = try connection.query("SELECT * FROM ashlar_inspect.block('v1', $1)", [.int(Int64(block))])
            places.append(try rows.first?.string("place"))
        }
        #expect(places == ["nowhere", "cache", "both", "object"])
        #expect(try connection.query("SELECT * FROM ashlar_inspect.block('none', 1)").isEmpty)
        let all = try connection.query("SELECT block_id, place, slot FROM ashlar_inspect.blocks ORDER BY 1")
        #expect(try all.map { try $0.string("place") } == ["cache", "both", "object"])
        #expect(try all.map { try $0.int64("slot") } == [nil, 0, 1])
        let queue = try connection.query("SELECT * FROM ashlar_inspect.unmoved_queue")
        #expect(try queue.map { try $0.int64("block_id") } == [1])
        #expect(try queue[0].double("age_seconds") ?? -1 >= 0)
        let objects = try connection.query("SELECT * FROM ashlar_inspect.objects")
        #expect(try objects[0].int64("object_id") == Int64(object.rawValue) && objects[0].double("live_share") == 1)
        let space = try connection.query("SELECT * FROM ashlar_inspect.space")
        #expect(try space[0].int64("cached_bytes") == 1_024 && space[0].int64("unmoved_bytes") == 512)
        #expect(try space[0].int64("mapped_blocks") == 2)
        let owner = try connection.query("SELECT * FROM ashlar_inspect.owners")
        #expect(try owner[0].string("server") == "a" && owner[0].bool("lease_valid") == true)
        #expect(try connection.query("SELECT * FROM ashlar_inspect.sessions").isEmpty)
    }

    @Test func attributesAreADocumentWithoutNulls() async throws {
        let fixture = try await Fixture()
        _ = try await fill(fixture)
        let rows = try fixture.connect().query(
            """
            SELECT array_to_string(ARRAY(SELECT jsonb_object_keys(item) ORDER BY 1), ',') AS keys, item ->> 'Moved' AS moved,
                jsonb_path_exists(item, '$.* ? (@ == null)') AS nulls FROM block_items ORDER BY block_id
            """
        )
        #expect(
            try rows.map { try $0.string("keys") } == [
                "Checksum,Length,Version,WrittenAt", "Checksum,Length,Moved,MovedAt,Version,WrittenAt",
            ]
        )
        #expect(try rows.map { try $0.string("moved") } == [nil, "true"])
        #expect(try rows.allSatisfy { try $0.bool("nulls") == false })
    }

    @Test func registrationsAreShownWithWhatTheyHold() async throws {
        let fixture = try await Fixture()
        var unit = LogicalUnitState()
        let ports = ["a", "b"].map {
            InitiatorTargetNexus(initiatorName: "iqn.host:\($0)", isid: 0x0002_3D00_0001, portalGroupTag: 2)
        }
        unit.reservations.generation = 4_294_967_295
        unit.reservations.registrations = zip(ports, [0x8000_0000_0000_00A1, 2] as [UInt64]).map {
            Registration(ports: $0, relativePortIdentifier: 7, key: ReservationKey($1))
        }
        let names: [ReservationType: String] = [
            .writeExclusive: "write exclusive", .exclusiveAccess: "exclusive access",
            .writeExclusiveRegistrantsOnly: "write exclusive, registrants only",
            .exclusiveAccessRegistrantsOnly: "exclusive access, registrants only",
            .writeExclusiveAllRegistrants: "write exclusive, all registrants",
            .exclusiveAccessAllRegistrants: "exclusive access, all registrants",
        ]
        let connection = try fixture.connect()
        try connection.script("SET ROLE ashlar_reader")
        for type in [nil] + ReservationType.allCases {
            unit.reservations.type = type
            unit.reservations.holder = type.map { $0.isOfAllRegistrants ? nil : ports[0] } ?? nil
            let state = unit
            try await fixture.commit { $0.unit = state }
            let rows = try connection.query("SELECT * FROM ashlar_inspect.reservations ORDER BY initiator_name")
            let name = type.flatMap { names[$0] }
            let isOfAll = type?.isOfAllRegistrants == true
            #expect(try rows.map { try $0.string("holds") } == [name, isOfAll ? name : nil])
            #expect(try rows.map { try $0.string("initiator_name") } == ports.map(\.initiatorName))
            #expect(try rows[0].string("volume") == "v1" && rows[0].string("isid") == "00023d000001")
            #expect(try rows[0].int64("portal_group_tag") == 2 && rows[0].int64("relative_port_identifier") == 7)
            #expect(
                try rows.map { try $0.string("reservation_key") } == ["0x80000000000000a1", "0x0000000000000002"]
            )
            #expect(try rows[0].int64("generation") == 4_294_967_295)
        }
    }

    @Test func theStateOfUnitsIsShown() async throws {
        let fixture = try await Fixture()
        let connection = try fixture.connect()
        _ = try Fixture.makeVolume(connection, "fresh")
        let row = NexusRow(
            number: NexusNumber(3),
            ports: InitiatorTargetNexus(initiatorName: "iqn.host:a", isid: 1, portalGroupTag: 1),
            node: "t1",
            mark: NexusMark(nexus: NexusNumber(3), lowWater: CommandID(0), done: [])
        )
        _ = try await ask {
            fixture.store.openNexus(volume: fixture.volume, epoch: fixture.epoch, nexus: row, completion: $0)
        }
        var unit = LogicalUnitState()
        unit.reservedBy = NexusNumber(3)
        unit.mode = ModeParameters(isSoftwareWriteProtected: true, exceptionReportingMethod: 6)
        unit.savedMode = ModeParameters(isSenseInDescriptorFormat: true, isExceptionReportingDisabled: true)
        unit.identifyingText = Array("not for the view".utf8)
        let kinds: [(Erasure.Kind, String)] = [
            (.blockErase, "block erase"), (.cryptographicErase, "cryptographic erase"), (.overwrite, "overwrite"),
            (.format, "format"),
        ]
        try connection.script("SET ROLE ashlar_reader")
        func rows() throws -> [PostgresRow] {
            let all = try connection.query("SELECT * FROM ashlar_inspect.logical_units ORDER BY volume")
            return (0..<all.count).map { all[$0] }
        }
        for (kind, name) in kinds {
            unit.erasure = Erasure(kind: kind, pattern: [1], position: 1 << 28)
            let state = unit
            try await fixture.commit { $0.unit = state }
            let shown = try rows()[1]
            #expect(try shown.string("erasure") == name && shown.double("erased_share") == 0.25)
            #expect(try shown.string("reserved_by") == "iqn.host:a" && shown.bool("write_protected") == true)
            #expect(try shown.string("mode") == #"{"SWP": true, "MRIE": 6}"#)
            #expect(try shown.string("saved_mode") == #"{"DExcpt": true, "DSense": true}"#)
        }
        let fresh = try rows()[0]
        #expect(try fresh.string("volume") == "fresh" && fresh.bool("write_protected") == false)
        #expect(try fresh.string("mode") == "{}" && fresh.string("saved_mode") == "{}")
        #expect(try fresh.string("erasure") == nil && fresh.string("reserved_by") == nil)
        #expect(try fresh.double("erased_share") == nil)
        // A nexus that is gone holds nothing, and a volume that is read-only is protected whatever initiators say.
        try connection.script(
            "RESET ROLE; DELETE FROM nexuses; UPDATE volumes SET read_only = true WHERE name = 'fresh'"
        )
        #expect(try rows().map { try $0.string("reserved_by") } == [nil, nil])
        #expect(try rows().map { try $0.bool("write_protected") } == [true, true])
    }

    @Test func theReaderSeesEverythingButSecrets() async throws {
        let fixture = try await Fixture()
        let connection = try fixture.connect()
        try connection.script(
            """
            INSERT INTO chap_credentials (volume_id, name, secret) VALUES (\(fixture.volume), 'user', 'secret');
            SET ROLE ashlar_reader;
            """
        )
        let tables = try connection.query(
            "SELECT schemaname || '.' || tablename AS t FROM pg_tables WHERE schemaname = 'public' "
                + "UNION ALL SELECT schemaname || '.' || viewname FROM pg_views WHERE schemaname = 'ashlar_inspect'"
        )
        for table in try tables.compactMap({ try $0.string("t") })
        where !["public.chap_credentials", "public.schema_migrations"].contains(table) {
            try connection.query("SELECT count(*) FROM \(table)")
        }
        #expect(tables.count > 15)
        let secret = try connection.query(
            """
            SELECT count(*) AS n FROM information_schema.columns
            WHERE table_schema = 'ashlar_inspect' AND column_name ~ 'secret|credential|password'
            """
        )
        #expect(try secret[0].int64("n") == 0)
        try connection.query("SELECT volume_id, name, mutual FROM chap_credentials")
        let denied = #expect(throws: PostgresError.self) { try connection.query("SELECT secret FROM chap_credentials") }
        #expect(denied?.sqlState == "42501")
        for statement in [
            "DELETE FROM block_items", "DELETE FROM registrations", "UPDATE logical_units SET generation = 1",
        ] {
            #expect(throws: PostgresError.self, "\(statement)") { try connection.query(statement) }
        }
    }

    @Test func volumesAreDescribedWhole() async throws {
        let fixture = try await Fixture()
        let connection = try fixture.connect()
        try connection.script(
            #"""
            UPDATE volumes SET read_only = true, config = '{"move": "age", "readFill": "second", "cachedBytesMaximum": 77,
                "unmovedItemsMaximum": 5, "unmovedBytesMaximum": 6, "unmovedAgeMaximumSeconds": 7, "compactBelowPercent": 8,
                "directWriteMinimumBytes": 9, "writeThroughMinimumBytes": 4,
                "readsBothAtOnce": true}';
            INSERT INTO access_initiators VALUES (1, 'iqn.b'), (1, 'iqn.a');
            INSERT INTO chap_credentials (volume_id, name, secret, mutual)
            VALUES (1, 'u', 'p', false), (1, 't', 'q', true);
            """#
        )
        let found = try await ask { fixture.store.volume(iqn: "iqn.2026-01.test:v1", completion: $0) }
        let volume = try #require(found)
        #expect(volume.id == fixture.volume && volume.name == "v1" && volume.isReadOnly && volume.uuid.count == 16)
        #expect(volume.geometry.sizeBytes == 1 << 30 && volume.geometry.blockSizeBytes == 512)
        #expect(
            volume.policy
                == CachePolicy(
                    move: .age,
                    unmovedItemsMaximum: 5,
                    unmovedBytesMaximum: 6,
                    unmovedAgeMaximumSeconds: 7,
                    cachedBytesMaximum: 77,
                    readFill: .second,
                    compactBelowPercent: 8,
                    directWriteMinimumBytes: 9,
                    writeThroughMinimumBytes: 4,
                    readsBothAtOnce: true
                )
        )
        #expect(volume.access.initiators == ["iqn.a", "iqn.b"])
        #expect(volume.access.credentials == [CHAPCredential(name: "u", secret: "p")])
        #expect(volume.access.mutual == CHAPCredential(name: "t", secret: "q"))
        #expect(volume.revision == 6, "one for the row, two for each list")
        #expect(try await ask { fixture.store.volume(iqn: "iqn.none", completion: $0) } == nil)
    }

    @Test func volumesArePagedByName() async throws {
        let fixture = try await Fixture()
        let connection = try fixture.connect()
        for name in ["b", "a", "z"] { _ = try Fixture.makeVolume(connection, name) }
        try connection.script("UPDATE volumes SET state = 'deleting' WHERE name = 'z'")
        let first = try await ask { fixture.store.volumes(after: nil, limit: 2, completion: $0) }
        #expect(first.map(\.name) == ["a", "b"] && first[0].policy == .standard && first[0].access == AccessRules())
        let next = try await ask { fixture.store.volumes(after: "b", limit: 2, completion: $0) }
        #expect(next.map(\.name) == ["v1"])
    }

    @Test(arguments: [
        #"{"move": "never"}"#, #"{"readFill": "maybe"}"#, #"{"compactBelowPercent": 101}"#, "[]",
        #"{"cachedBytesMaximum": "many"}"#,
    ])
    func impossibleConfigurationsAreRefused(config: String) async throws {
        let fixture = try await Fixture()
        let connection = try fixture.connect()
        #expect(throws: PostgresError.self) {
            try connection.query("UPDATE volumes SET config = $1::jsonb", [.text(config)])
        }
    }

    @Test func heartbeatsReplaceEachOther() async throws {
        let fixture = try await Fixture()
        for sessions in [1, 2] as [UInt32] {
            let beat = TargetHeartbeat(
                node: "t1",
                portal: "10.0.0.1:3260",
                portalGroupTag: 7,
                release: "1.0",
                sessions: sessions
            )
            try await ask { fixture.store.heartbeat(beat, completion: $0) }
        }
        #expect(try fixture.number("SELECT sum(sessions) FROM target_nodes") == 2)
    }

    @Test func aVolumeIsDeletedInSteps() async throws {
        let fixture = try await Fixture()
        let other = try Fixture.makeVolume(try fixture.connect(), "v2")
        _ = try await fill(fixture)
        try await fixture.commit { $0.writes = (100..<150).map { write($0, $0) } }
        func step() async throws -> Bool {
            try await ask { fixture.store.deleteVolumeStep(volume: fixture.volume, rowsMaximum: 20, completion: $0) }
        }
        #expect(try await !step(), "only a volume that is being deleted")
        #expect(try fixture.number("SELECT count(*) FROM block_items") == 52)
        try fixture.connect().script("UPDATE volumes SET state = 'deleting' WHERE id = \(fixture.volume)")
        #expect(try await !step())
        let late = [fixture.part()]
        let fenced = try await ask { fixture.store.commit(late, completion: $0) }
        guard case .fenced = fenced[0] else {
            Issue.record("the owner of a volume that is being deleted was not fenced")
            return
        }
        var steps = 1
        while try await !step() { steps += 1 }
        #expect(steps >= 5 && steps < 12)
        #expect(try fixture.number("SELECT count(*) FROM block_items") == 0)
        #expect(try fixture.number("SELECT count(*) FROM block_extents") == 0)
        #expect(try fixture.number("SELECT count(*) FROM block_objects WHERE state = 'dead'") == 1)
        #expect(try fixture.number("SELECT id FROM volumes") == other.rawValue)
        #expect(try await step(), "a volume that is gone stays gone")
    }

    @Test func candidatesComeOldestFirstAndByBlock() async throws {
        let fixture = try await Fixture()
        for block in [9, 4, 7] as [UInt64] { try await fixture.commit { $0.writes = [write(block, block)] } }
        try await fixture.commit { $0.writes = [write(9, 20)] }
        let store = fixture.store
        let queue = try await ask {
            store.fetchMoveCandidates(volume: fixture.volume, from: nil, limit: 2, completion: $0)
        }
        #expect(queue.items.map(\.block) == [BlockID(9), BlockID(4)], "an overwrite keeps its place")
        #expect(queue.agesMilliseconds[0] >= queue.agesMilliseconds[1])
        let neighbours = try await ask {
            store.fetchMoveCandidates(volume: fixture.volume, from: BlockID(5), limit: 9, completion: $0)
        }
        #expect(neighbours.items.map(\.block) == [BlockID(7), BlockID(9)])
    }

    // MARK: Plans

    /// The plan that a session of the store uses, whatever the parameters are.
    private func plan(_ connection: PostgresConnection, _ statement: Statement) throws -> String {
        try connection.script("PREPARE \(statement.name) AS \(statement.sql)")
        let count = (1...12).last { statement.sql.contains("$\($0)") } ?? 0
        let arguments = count == 0 ? "" : "(" + [String](repeating: "NULL", count: count).joined(separator: ", ") + ")"
        let rows = try connection.query("EXPLAIN (COSTS OFF) EXECUTE \(statement.name)\(arguments)")
        return try rows.compactMap { try $0.string("QUERY PLAN") }.joined(separator: "\n")
    }

    /// Planned while the tables are new, while they are known to be empty, while half of the items are unmoved, and while none is: a
    /// connection keeps a plan although the tables grow.
    @Test(arguments: [0, -1, 2, 10_000])
    func noStatementReadsAWholeTable(oneUnmovedOf part: Int) async throws {
        let fixture = try await Fixture()
        let connection = try fixture.connect()
        if part < 0 {
            for table in ["block_items", "block_extents", "block_objects"] {
                try connection.script("VACUUM ANALYZE \(table)")
            }
        }
        if part > 0 {
            try connection.script(
                """
                INSERT INTO block_items (volume_id, block_id, unmoved_since, moved_version, item, segment, frame, frame_offset, data_bytes)
                SELECT 1, n, CASE WHEN n % \(part) = 0 THEN now() END, CASE WHEN n % \(part) > 0 THEN 1 END, CASE WHEN n % \(part) = 0
                    THEN '{"Version": 1, "Checksum": 1}'::jsonb ELSE '{"Version": 1, "Checksum": 1, "Moved": true}' END, 0, 0, 0, 0
                FROM generate_series(1, 5000) n;
                INSERT INTO block_objects (volume_id) SELECT 1 FROM generate_series(1, 5000);
                INSERT INTO block_extents SELECT 1, n * 10, 10, n, 0 FROM generate_series(1, 5000) n;
                ANALYZE;
                """
            )
        }
        try connection.script(Session.settings(.store(statementTimeoutMilliseconds: 10_000)))
        let transactionControl = Set(Statements.blocks.map(\.name))
        var seen: Set<String> = []
        let all = [Statements.commits, Statements.reads, Statements.leases, Statements.takeovers, Statements.sessions]
        for statement in all.joined() + Statements.background
        where !transactionControl.contains(statement.name) && seen.insert(statement.name).inserted {
            // A sequence is a table of one row.
            let plan = try plan(connection, statement)
                .replacing("Seq Scan on block_objects_object_id_seq", with: "Scan of a sequence")
            #expect(!plan.contains("Seq Scan on block_"), "\(statement.name)\n\(plan)")
            #expect(!plan.contains("Hash Join") && !plan.contains("Merge Join"), "\(statement.name)\n\(plan)")
            // Nor a whole index of one: what is committed knows its blocks and objects.
            if Statements.commits.contains(where: { $0.name == statement.name }) {
                #expect(Self.wholeScans(plan).isEmpty, "\(statement.name)\n\(plan)")
            }
            let isQueue = statement.name == Statements.moveCandidates.name
            if isQueue || statement.name == Statements.countItems.name {
                #expect(plan.contains("using block_items_unmoved"), "\(plan)")
            }
            if isQueue { #expect(!plan.contains("Sort"), "\(plan)") }
            if statement.name == Statements.evictionCandidates.name {
                #expect(plan.contains("using block_items_moved") && !plan.contains("Sort"), "\(plan)")
            }
            // Those that know the block find its item by it.
            if [Statements.mapItems.name, Statements.mapExtents.name, Statements.writeItems.name].contains(
                statement.name
            ) {
                #expect(!plan.contains("block_items_unmoved"), "\(plan)")
            }
            if statement.name == Statements.sweepEmpty.name {
                #expect(plan.contains("using block_objects_empty"), "\(plan)")
            }
        }
        #expect(seen.count > 40)
    }

    /// The scans of a large table's indexes in a plan that have no condition.
    private static func wholeScans(_ plan: String) -> [String] {
        let lines = plan.split(separator: "\n").map(String.init)
        return lines.indices.filter { index in
            guard lines[index].contains("Scan using"), lines[index].contains(" on block_") else { return false }
            return index + 1 == lines.count || !lines[index + 1].contains("Index Cond:")
        }.map { lines[$0] }
    }
}
