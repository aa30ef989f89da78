import AshlarCore
import NIOCore
import Ownership
import Testing

@testable import PostgresStore

/// Where the bytes of cached blocks are kept, and how their room is given back.
@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"))
struct JournalTests {
    private func clean(_ fixture: Fixture) async throws -> JournalCleaning {
        try await ask { fixture.store.cleanJournal(completion: $0) }
    }

    /// Cleans until there is nothing to do.
    private func cleanAll(_ fixture: Fixture) async throws -> (relocated: UInt64, emptied: UInt64) {
        var sum: (relocated: UInt64, emptied: UInt64) = (0, 0)
        while true {
            let step = try await clean(fixture)
            sum.relocated += step.relocatedBlocks
            sum.emptied += step.emptiedSegments
            if step.isDone { return sum }
        }
    }

    private func bytes(_ fixture: Fixture, _ blocks: [BlockID]) async throws -> [BlockID: ByteBuffer] {
        let items = try await ask { fixture.store.loadBytes(volume: fixture.volume, blocks: blocks, completion: $0) }
        return Dictionary(uniqueKeysWithValues: items.map { ($0.row.block, $0.bytes) })
    }

    private func expect(_ writes: [ItemWrite], in fixture: Fixture) async throws {
        let found = try await bytes(fixture, writes.map(\.block))
        for write in writes { #expect(found[write.block] == write.bytes, "block \(write.block)") }
    }

    /// Ends the sessions that fill segments, as the end of a cache server does.
    private func endSessions(_ fixture: Fixture) async throws {
        let sql = """
            SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.locktype = 'advisory' AND l.classid = 19023 AND l.objsubid = 2 AND a.datname = current_database()
            """
        #expect(try fixture.number(sql) > 0)
        try await until("the sessions are gone") { try fixture.number(sql) == 0 }
    }

    @Test func blocksOfAnySizeComeBackFromTheirFrames() async throws {
        let fixture = try await Fixture()
        let sizes = [512, 4_096, 7_488, JournalLayout.frameBytes, 8_008, 65_536, 8]
        let writes = sizes.enumerated().map { write(UInt64($0.offset), UInt64($0.offset) + 1, bytes: $0.element) }
        let fills = [write(100, 101, bytes: 4_096), write(101, 102, bytes: 4_096)]
        try await fixture.commit {
            $0.writes = writes
            $0.fills = fills
        }
        try await expect(writes + fills, in: fixture)
        // SQL reads the same bytes as a column.
        let rows = try fixture.connect().query(
            "SELECT i.block_id, encode(i.data, 'hex') AS data, i.data_bytes::bigint FROM block_items i ORDER BY i.block_id"
        )
        #expect(rows.count == writes.count + fills.count)
        for (row, write) in zip(rows, writes + fills) {
            let hexadecimal = write.bytes.readableBytesView.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }
                .joined()
            #expect(try row.string("data") == hexadecimal)
            #expect(try row.int64("data_bytes") == Int64(write.bytes.readableBytes))
        }
        let total = (writes + fills).reduce(0) { $0 + $1.bytes.readableBytes }
        #expect(try fixture.number("SELECT count(*) FROM block_journal") == JournalLayout.frames(bytes: total))
    }

    @Test func I3_aSegmentIsFilledByOneSession_andSealedOnceThatIsGone() async throws {
        let fixture = try await Fixture()
        try await fixture.commit { $0.writes = [write(1, 1)] }
        let filling = "SELECT min(segment) FROM journal_segments WHERE state = 'filling'"
        let first = try fixture.number(filling)
        // As long as the session lives, what it has sent may still be committed.
        #expect(try await cleanAll(fixture) == (0, 0))
        #expect(try fixture.number(filling) == first)
        try await endSessions(fixture)
        // The store may not have noticed yet.
        try await until("it is connected again") { (try? await fixture.commit { $0.writes = [write(2, 2)] }) != nil }
        #expect(try fixture.number("SELECT count(*) FROM journal_segments WHERE state = 'filling'") == 2)
        _ = try await cleanAll(fixture)
        #expect(try fixture.number("SELECT count(*) FROM journal_segments WHERE state = 'filling'") == 1)
        #expect(try fixture.number(filling) != first)
        try await expect([write(1, 1), write(2, 2)], in: fixture)
    }

    @Test func I8_aSegmentOfWhichLittleIsInUseIsEmptied_andNothingIsLost() async throws {
        let fixture = try await Fixture(journalSegmentFrames: 40)
        let old = (0..<60).map { write(UInt64($0), UInt64($0) + 1, bytes: 4_096) }
        try await fixture.commit { $0.writes = old }
        // Fills the rest of the first segment, and the next one.
        let new = (0..<54).map { write(UInt64($0), UInt64($0) + 100, bytes: 4_096) }
        try await fixture.commit { $0.writes = new }
        #expect(try fixture.number("SELECT count(*) FROM journal_segments WHERE state = 'full'") == 1)
        let kept = old.suffix(6) + new
        let frames = "SELECT max(next_frame) FROM journal_segments WHERE segment = 0"
        #expect(try fixture.number(frames) == 40)

        // A check that reads in a snapshot holds off that bytes are taken from under it.
        let reader = try fixture.connect()
        try reader.script("BEGIN; LOCK TABLE block_journal IN ACCESS SHARE MODE")
        let held = try await cleanAll(fixture)
        #expect(held == (6, 0))
        #expect(try fixture.number("SELECT count(*) FROM block_journal WHERE segment = 0") > 0)
        try await expect(kept, in: fixture)
        try reader.script("COMMIT")

        #expect(try await cleanAll(fixture) == (0, 1))
        #expect(try fixture.number("SELECT count(*) FROM block_journal WHERE segment = 0") == 0)
        #expect(try fixture.number("SELECT count(*) FROM journal_segments WHERE segment = 0 AND state = 'free'") == 1)
        try await expect(kept, in: fixture)
        // Used again, it goes on with frames that it never had.
        let again = (0..<60).map { write(UInt64($0) + 200, UInt64($0) + 200, bytes: 4_096) }
        try await fixture.commit { $0.writes = again }
        #expect(try fixture.number("SELECT min(frame) FROM block_journal WHERE segment = 0") >= 40)
        try await expect(kept + again, in: fixture)
    }

    @Test func whatIsInUseStaysWhereItIs() async throws {
        let fixture = try await Fixture(journalSegmentFrames: 20)
        for round in 0..<4 {
            try await fixture.commit {
                $0.writes = (0..<30).map { write(UInt64(round * 30 + $0), UInt64(round * 30 + $0) + 1, bytes: 4_096) }
            }
        }
        #expect(try await cleanAll(fixture) == (0, 0))
        #expect(try fixture.number("SELECT sum(live_blocks) FROM journal_segments WHERE state = 'full'") == 90)
        // It is looked at again when another segment is full, not before.
        #expect(try await clean(fixture).isDone)
    }

    /// Segments of more blocks than a sample has, of which a tenth, a half and all are in use.
    @Test func I8_howMuchOfALargeSegmentIsInUseIsToldFromASample() async throws {
        let fixture = try await Fixture(journalSegmentFrames: 1_100)
        var kept: [UInt64: ItemWrite] = [:]
        var version: UInt64 = 0
        for blocks in [[0..<2_000], [0..<1_800, 5_000..<5_200], [0..<1_000, 6_000..<7_000], [8_000..<8_200]] {
            let all = blocks.flatMap { $0 }.map { block in
                version += 1
                return write(UInt64(block), version, bytes: 4_096)
            }
            for write in all { kept[write.block.rawValue] = write }
            for first in stride(from: 0, to: all.count, by: 200) {
                try await fixture.commit { $0.writes = Array(all[first..<min(first + 200, all.count)]) }
            }
        }
        let full = "SELECT sum(blocks) FROM journal_segments WHERE state = 'full'"
        #expect(try fixture.number(full) == 6_000)
        #expect(try await cleanAll(fixture) == (200, 1))
        func live(_ segment: Int) throws -> Int64 {
            try fixture.number("SELECT live_blocks FROM journal_segments WHERE segment = \(segment)")
        }
        #expect(try (700...1_300).contains(live(1)), "half of them, within many times what a sample may err")
        #expect(try live(2) == 2_000)
        try await expect(Array(kept.values), in: fixture)
    }

    @Test func aBatchLargerThanASegmentHasOneOfItsOwn() async throws {
        let fixture = try await Fixture(journalSegmentFrames: 4)
        let writes = (0..<30).map { write(UInt64($0), UInt64($0) + 1, bytes: 4_096) }
        try await fixture.commit { $0.writes = writes }
        try await fixture.commit { $0.writes = [write(100, 100)] }
        try await expect(writes + [write(100, 100)], in: fixture)
    }

    @Test func whatIsDeletedOrWrittenWhileItsBytesAreMovedStaysSo() async throws {
        let fixture = try await Fixture(journalSegmentFrames: 40)
        try await fixture.commit { $0.writes = (0..<60).map { write($0, $0 + 1, bytes: 4_096) } }
        try await fixture.commit { $0.writes = (0..<55).map { write($0, $0 + 100, bytes: 4_096) } }
        let other = try fixture.connect()
        try other.script("BEGIN; DELETE FROM block_items WHERE block_id = 57")
        async let cleaned = cleanAll(fixture)
        try await until("the cleaner waits for the row") {
            try fixture.number(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
                > 0
        }
        try other.script("COMMIT")
        let sum = try await cleaned
        #expect(sum == (4, 1))
        #expect(try await bytes(fixture, [BlockID(57)]).isEmpty)
        try await expect(
            [write(56, 57, bytes: 4_096), write(58, 59, bytes: 4_096), write(3, 103, bytes: 4_096)],
            in: fixture
        )
    }

    @Test func I11_anItemOfWhichBytesAreMissingDoesNotDamageOthers() async throws {
        let fixture = try await Fixture(journalSegmentFrames: 40)
        try await fixture.commit { $0.writes = (0..<60).map { write($0, $0 + 1, bytes: JournalLayout.frameBytes) } }
        try await fixture.commit { $0.writes = (0..<55).map { write($0, $0 + 100, bytes: JournalLayout.frameBytes) } }
        try fixture.connect().script(
            """
            DELETE FROM block_journal j USING block_items i
            WHERE i.block_id = 56 AND j.segment = i.segment AND j.frame = i.frame
            """
        )
        let sum = try await cleanAll(fixture)
        #expect(sum == (5, 1))
        try await expect(
            [55, 57, 58, 59].map { write($0, $0 + 1, bytes: JournalLayout.frameBytes) } + [
                write(3, 103, bytes: JournalLayout.frameBytes)
            ],
            in: fixture
        )
        #expect(
            try await bytes(fixture, [BlockID(56)])[BlockID(56)] != write(56, 57, bytes: JournalLayout.frameBytes).bytes
        )
    }

    @Test func theMigrationKeepsBytesForwardAndBack() async throws {
        let fixture = try await Fixture()
        let writes = (0..<50).map { write(UInt64($0), UInt64($0) + 1, bytes: $0 % 2 == 0 ? 512 : 9_000) }
        try await fixture.commit { $0.writes = writes }
        let objects = try await fixture.reserve()
        try await fixture.commit { $0.maps = [map(objects[0], [(1, 2), (2, 3)], .itemHasVersion)] }
        fixture.store.shutdown()
        let sum = """
            SELECT ('x' || substr(md5(string_agg(concat_ws(' ', i.block_id, i.item, i.unmoved_since, md5(i.data)), ',' ORDER BY i.block_id)),
                1, 15))::bit(60) FROM block_items i
            """
        let before = try fixture.number(sum)
        let connection = try fixture.connect()
        let runner = MigrationRunner(try Migrations(directory: migrationsDirectory), release: "1.0", logger: quiet)
        try runner.down(connection, to: 10)
        #expect(try fixture.number(sum) == before)
        try runner.up(connection)
        #expect(try fixture.number(sum) == before)
        #expect(try fixture.number("SELECT count(*) FROM block_items WHERE moved_version IS NOT NULL") == 2)
        #expect(try fixture.number("SELECT count(*) FROM journal_segments WHERE state = 'filling'") == 0)
    }
}
