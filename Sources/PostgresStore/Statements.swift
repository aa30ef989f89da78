/// The SQL of the store. Parameters are int8, text, int8[] and bytea[]; results are read in binary format.
///
/// Every statement that changes rows of a volume joins `volume_epochs` on the epoch it was made under, and its transaction
/// has taken the volume's shared advisory lock in an earlier statement (I3). Arrays come in key order.
enum Statements {
    static let begin = Statement(name: "begin", sql: "BEGIN")
    static let commit = Statement(name: "commit", sql: "COMMIT")
    static let rollback = Statement(name: "rollback", sql: "ROLLBACK")
    static let blocks: [Statement] = [begin, commit, rollback]

    /// $1 volumes, ascending: transactions of these volumes are under way.
    static let lockShared = Statement(
        name: "lock_shared",
        sql: "SELECT pg_advisory_xact_lock_shared(k.v * 2) FROM unnest($1::int8[]) AS k (v)"
    )

    /// $1 volumes, ascending: this transaction alone changes their extents. What it computes from extents in a later
    /// statement stays true until it commits.
    static let lockExtents = Statement(
        name: "lock_extents",
        sql: "SELECT pg_advisory_xact_lock(k.v * 2 + 1) FROM unnest($1::int8[]) AS k (v)"
    )

    /// $1 volumes, $2 epochs: positions, from 1, of the pairs that are current.
    static let guardEpochs = Statement(
        name: "guard_epochs",
        sql: """
            SELECT k.n FROM unnest($1::int8[], $2::int8[]) WITH ORDINALITY AS k (v, e, n)
            JOIN volume_epochs g ON g.volume_id = k.v AND g.epoch = k.e
            """
    )

    /// The first column of a large table's key is that of the row at hand, in a join.
    ///
    /// Equal to one of an array, and not just equal: what is equal could be merged, for which PostgreSQL weighs the scan of a whole index. With a
    /// table that was vacuumed while it was empty that seems as cheap as looking keys up, and connections keep the plan when it has grown.
    /// An array leaves the scan of the table, which sessions have switched off. `OFFSET 0` does the same for a lateral query, and naming the
    /// states that an object is not in does it for partial indexes.
    static func isKey(_ column: String, _ value: String) -> String { "\(column) = ANY (ARRAY[\(value)])" }

    // MARK: Parts of a commit

    /// $1 volumes, $2 epochs, $3 first blocks, $4 ends: items in the runs are deleted.
    static let zeroItems = Statement(
        name: "zero_items",
        sql: """
            DELETE FROM block_items i USING unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[]) AS k (v, e, first, stop),
                volume_epochs g
            WHERE g.volume_id = k.v AND g.epoch = k.e AND \(isKey("i.volume_id", "k.v")) AND i.block_id >= k.first AND i.block_id < k.stop
            """
    )

    /// Parameters as for ``zeroItems``: extents that lie inside a run go. A fifth of what ``zeroExtents`` takes for one, which is left with
    /// those across the ends of the runs.
    static let zeroWholeExtents = Statement(
        name: "zero_whole_extents",
        sql: """
            WITH run AS MATERIALIZED (
                SELECT k.v, k.first, k.stop FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[]) AS k (v, e, first, stop)
                JOIN volume_epochs g ON g.volume_id = k.v AND g.epoch = k.e
            ), gone AS (
                DELETE FROM block_extents x USING run r
                WHERE \(isKey("x.volume_id", "r.v")) AND x.first_block >= r.first AND x.first_block < r.stop
                    AND x.first_block + x.block_count <= r.stop
                RETURNING x.object_id, x.block_count
            ), counted AS (
                UPDATE block_objects o SET live_slots = o.live_slots - d.lost
                FROM (SELECT object_id, sum(block_count)::int8 AS lost FROM gone GROUP BY object_id) d
                WHERE \(isKey("o.object_id", "d.object_id"))
            )
            SELECT count(*) FROM gone
            """
    )

    /// Parameters as for ``zeroItems``: extents lose the blocks in the runs.
    static let zeroExtents = Statement(
        name: "zero_extents",
        sql: """
            WITH run AS MATERIALIZED (
                SELECT k.v, NULL::int8 AS object, k.first, k.stop - k.first AS count, 0::int8 AS slot
                FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[]) AS k (v, e, first, stop)
                JOIN volume_epochs g ON g.volume_id = k.v AND g.epoch = k.e
            ), \(hitExtents(replacing: false)), put AS (
                \(insertExtents)
                SELECT volume_id, first, count, object_id, slot, origin, version FROM piece \(overwriteExtent)
            ), counted AS (
                UPDATE block_objects o SET live_slots = o.live_slots - d.lost
                FROM (SELECT object_id, sum(lost)::int8 AS lost FROM hit GROUP BY object_id) d
                WHERE \(isKey("o.object_id", "d.object_id"))
            )
            SELECT count(*) FROM hit
            """
    )

    /// $1 volumes, $2 epochs, $3 objects, $4 source blocks, $5 their slots, $6 destination blocks, $7 counts, $8 origins,
    /// $9 versions: copies by reference of runs whose source extents name that object and these slots; returns how many blocks
    /// were copied (M11).
    static let referenceExtents = Statement(
        name: "reference_extents",
        sql: """
            WITH run AS MATERIALIZED (
                SELECT k.v, k.object, k.destination AS first, k.count, k.slot, k.origin, k.version
                FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[],
                    $9::int8[]) AS k (v, e, object, source, slot, destination, count, origin, version)
                JOIN volume_epochs g ON g.volume_id = k.v AND g.epoch = k.e
                JOIN block_objects o ON \(isKey("o.object_id", "k.object")) AND o.volume_id = k.v
                    AND o.state NOT IN ('intended', 'dead')
                WHERE k.count = (
                    SELECT sum(least(x.first_block + x.block_count, k.source + k.count) - greatest(x.first_block, k.source))
                    FROM block_extents x
                    WHERE \(overlap("x", volume: "k.v", first: "k.source", end: "k.source + k.count"))
                        AND x.object_id = k.object AND x.first_slot - x.first_block = k.slot - k.source
                )
            ), \(hitExtents(replacing: true)), \(putExtents(origin: "origin", version: "version")), \(dropItems), counted AS (
                \(countLiveSlots(also: ""))
            )
            SELECT coalesce(sum(count), 0)::int8 FROM run
            """
    )

    /// $1 segment of the journal, $2 first frame, $3 volumes, $4 first and $5 last positions in $6 of their blocks, $6 blocks, $7 frames:
    /// the bytes of a batch, and whose they are.
    static let writeFrames = Statement(
        name: "write_frames",
        sql: """
            WITH batch AS (
                INSERT INTO journal_batches (segment, first_frame, volume_id, blocks)
                SELECT $1::int8::int4, $2::int8, k.v, ($6::int8[])[k.first:k.last]
                FROM unnest($3::int8[], $4::int8[], $5::int8[]) AS k (v, first, last)
            )
            INSERT INTO block_journal (segment, frame, data)
            SELECT $1::int8::int4, $2::int8 + k.n - 1, k.data FROM unnest($7::bytea[]) WITH ORDINALITY AS k (data, n)
            """
    )

    /// $1 segment that this session has filled, or -1, $2 frames that may be put into one: the segment that it may fill from now on, and
    /// the first frame.
    static let claimSegment = Statement(
        name: "claim_segment",
        sql: "SELECT c.segment, c.first FROM journal_claim($1::int8, $2::int8) c"
    )

    private static let itemKeys = """
        unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[])
                AS k (v, e, block, version, checksum, bytes, frame, frame_offset)
            JOIN volume_epochs g ON g.volume_id = k.v AND g.epoch = k.e
        """

    /// $1 volumes, $2 epochs, $3 blocks, $4 versions, $5 checksums, $6 lengths, $7 frames, $8 offsets in these, $9 segment.
    static let writeItems = Statement(
        name: "write_items",
        sql: """
            INSERT INTO block_items AS b
                (volume_id, block_id, unmoved_since, segment, frame, frame_offset, data_bytes, item)
            SELECT k.v, k.block, now(), $9::int8::int4, k.frame, k.frame_offset::int4, k.bytes::int4,
                jsonb_build_object('Version', k.version, 'Length', k.bytes, 'Checksum', k.checksum,
                    'WrittenAt', (SELECT to_jsonb(now())))
            FROM \(itemKeys)
            ON CONFLICT (volume_id, block_id) DO UPDATE SET item = excluded.item, segment = excluded.segment,
                frame = excluded.frame, frame_offset = excluded.frame_offset, data_bytes = excluded.data_bytes,
                moved_version = NULL, unmoved_since = coalesce(b.unmoved_since, excluded.unmoved_since)
            """
    )

    /// $1 volumes, $2 epochs, $3 objects, $4 servers, $5 slots, $6 sizes: positions of the maps whose object was intended. That it was is asked in a
    /// way that the index of intents does not answer.
    static let mapObjects = Statement(
        name: "map_objects",
        sql: """
            UPDATE block_objects o SET state = 'live', server_id = k.server::int4, slots = k.slots::int4,
                size_bytes = k.size, live_slots = 0, live_at = now(), mapped_in = pg_current_xact_id()
            FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[]) WITH ORDINALITY
                AS k (v, e, object, server, slots, size, n), volume_epochs g
            WHERE g.volume_id = k.v AND g.epoch = k.e AND \(isKey("o.object_id", "k.object")) AND o.volume_id = k.v
                AND o.state NOT IN ('live', 'dead')
            RETURNING k.n
            """
    )

    /// $1 volumes, $2 epochs, $3 objects: fails, and the transaction with it, where one of the objects was not turned to live by it:
    /// commands are marked as done with these maps.
    static let requireMaps = Statement(
        name: "require_maps",
        sql: """
            SELECT 1 / (count(*) = 0)::int FROM unnest($1::int8[], $2::int8[], $3::int8[]) AS k (v, e, object)
            JOIN volume_epochs g ON g.volume_id = k.v AND g.epoch = k.e
            LEFT JOIN block_objects o ON \(isKey("o.object_id", "k.object"))
            WHERE o.mapped_in IS DISTINCT FROM pg_current_xact_id()
            """
    )

    /// $1 volumes, $2 epochs, $3 objects, $4 blocks, $5 versions, $6 conditions: items of a move become moved (M1). That they are unmoved
    /// is asked of the column that the index of unmoved items is not made by: planned while that is small, it would be read for each.
    static let mapItems = Statement(
        name: "map_items",
        sql: """
            UPDATE block_items i SET item = i.item || jsonb_build_object('Moved', true, 'MovedAt', (SELECT to_jsonb(now()))),
                unmoved_since = NULL, moved_version = k.version
            FROM \(slotKeys)
            WHERE \(slotIsGuarded) AND k.kind = \(SlotKind.itemHasVersion) AND \(isKey("i.volume_id", "k.v")) AND i.block_id = k.block
                AND (i.item ->> 'Version')::int8 = k.version AND i.moved_version IS NULL
            """
    )

    /// $1 volumes, $2 epochs, $3 objects, $4 first blocks, $5 counts, $6 first slots: extents of direct writes, by runs of blocks and
    /// slots; the items under them go (M4).
    static let mapRuns = Statement(
        name: "map_runs",
        sql: """
            WITH run AS MATERIALIZED (
                SELECT k.v, k.object, k.first, k.count, k.slot
                FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[])
                    AS k (v, e, object, first, count, slot), volume_epochs g, block_objects o
                WHERE \(slotIsGuarded)
            ), \(dropItems), \(hitExtents(replacing: true)), \(putExtents(origin: "NULL", version: "NULL")), counted AS (
                \(countLiveSlots(also: ""))
            )
            SELECT count(*) FROM run
            """
    )

    /// $1 volumes, $2 epochs, $3 objects, $4 blocks, $5 versions, $6 conditions, $7 positions of the maps, $8 slots,
    /// $9 source objects, $10 source slots: extents of the slots whose condition holds; returns those slots by map.
    static let mapExtents = Statement(
        name: "map_extents",
        sql: """
            WITH slot AS MATERIALIZED (
                SELECT k.v, k.object, k.block, k.version, k.kind, k.n, k.slot, k.source, k.source_slot
                FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[],
                    $9::int8[], $10::int8[]) AS k (v, e, object, block, version, kind, n, slot, source, source_slot),
                    volume_epochs g, block_objects o
                WHERE \(slotIsGuarded)
            ), mapped AS MATERIALIZED (
                SELECT s.v, s.object, s.block, s.n, s.slot FROM slot s
                JOIN block_items i ON \(isKey("i.volume_id", "s.v")) AND i.block_id = s.block
                WHERE s.kind = \(SlotKind.itemHasVersion) AND (i.item ->> 'Version')::int8 = s.version
                UNION ALL
                SELECT s.v, s.object, s.block, s.n, s.slot FROM slot s CROSS JOIN LATERAL (
                    SELECT * FROM block_extents p WHERE p.volume_id = s.v AND p.first_block <= s.block
                    ORDER BY p.first_block DESC LIMIT 1
                ) x
                WHERE s.kind = \(SlotKind.extentNames) AND x.object_id = s.source AND s.block - x.first_block < x.block_count
                    AND x.first_slot + (s.block - x.first_block) = s.source_slot
            ), run AS MATERIALIZED (
                SELECT v, object, min(block) AS first, count(*) AS count, min(slot) AS slot FROM (
                    SELECT v, object, n, block, slot,
                        slot - row_number() OVER (PARTITION BY n, block - slot ORDER BY slot) AS island
                    FROM mapped
                ) m GROUP BY v, object, n, block - slot, island
            ), \(hitExtents(replacing: true)), \(putExtents(origin: "NULL", version: "NULL")), counted AS (
                \(countLiveSlots(also: "UNION ALL SELECT object, 0 FROM slot"))
            )
            SELECT n, array_agg(slot ORDER BY slot) FROM mapped GROUP BY n
            """
    )

    /// $1 volumes, $2 epochs, $3 blocks, $4 versions: positions of the items that were dropped (M3), or that have the last intact copy of
    /// their block, since its slot is known to be damaged: those become unmoved again (I11), and are marked true.
    static let evictItems = Statement(
        name: "evict_items",
        sql: """
            WITH k AS MATERIALIZED (
                SELECT k.v, k.block, k.version, k.n,
                    (SELECT EXISTS (SELECT FROM damaged_slots)) AND EXISTS (
                        SELECT FROM (
                            SELECT * FROM block_extents p WHERE p.volume_id = k.v AND p.first_block <= k.block
                            ORDER BY p.first_block DESC LIMIT 1
                        ) x JOIN damaged_slots d ON d.object_id = x.object_id
                            AND d.slot IN (-1, x.first_slot + (k.block - x.first_block))
                        WHERE k.block - x.first_block < x.block_count
                    ) AND NOT EXISTS (
                        SELECT FROM damaged_items d
                        WHERE d.volume_id = k.v AND d.block_id = k.block AND d.version = k.version
                    ) AS is_last
                FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[]) WITH ORDINALITY AS k (v, e, block, version, n)
                JOIN volume_epochs g ON g.volume_id = k.v AND g.epoch = k.e
            ), gone AS (
                DELETE FROM block_items i USING k
                WHERE NOT k.is_last AND \(isKey("i.volume_id", "k.v")) AND i.block_id = k.block
                    AND i.item ? 'Moved' AND (i.item ->> 'Version')::int8 = k.version
                RETURNING k.n
            ), kept AS (
                UPDATE block_items i SET item = i.item - 'Moved' - 'MovedAt', unmoved_since = now(), moved_version = NULL
                FROM k
                WHERE k.is_last AND \(isKey("i.volume_id", "k.v")) AND i.block_id = k.block
                    AND i.item ? 'Moved' AND (i.item ->> 'Version')::int8 = k.version
                RETURNING k.n
            )
            SELECT n, false FROM gone UNION ALL SELECT n, true FROM kept
            """
    )

    /// Parameters as for ``writeItems``: volumes and blocks of the copies that were inserted.
    static let fillItems = Statement(
        name: "fill_items",
        sql: """
            INSERT INTO block_items (volume_id, block_id, moved_version, segment, frame, frame_offset, data_bytes, item)
            SELECT k.v, k.block, k.version, $9::int8::int4, k.frame, k.frame_offset::int4, k.bytes::int4,
                jsonb_build_object('Version', k.version, 'Length', k.bytes, 'Checksum', k.checksum,
                    'WrittenAt', (SELECT to_jsonb(now())), 'Moved', true)
            FROM \(itemKeys)
            ON CONFLICT (volume_id, block_id) DO NOTHING RETURNING volume_id, block_id
            """
    )

    /// $1 volumes, $2 epochs, $3 nexuses, $4 low-water marks, $5 first and $6 last positions in $7 of the commands done,
    /// $7 commands, $8 lane.
    static let markNexuses = Statement(
        name: "mark_nexuses",
        sql: """
            INSERT INTO nexus_marks AS m (volume_id, nexus, lane, low_water, done)
            SELECT k.v, k.nexus, $8::int8::int2, k.low, ($7::int8[])[k.first:k.last]
            FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[])
                AS k (v, e, nexus, low, first, last)
            JOIN volume_epochs g ON g.volume_id = k.v AND g.epoch = k.e
            JOIN nexuses x ON x.volume_id = k.v AND x.nexus = k.nexus
            ON CONFLICT (volume_id, nexus, lane) DO UPDATE SET low_water = greatest(m.low_water, excluded.low_water),
                done = ARRAY(SELECT DISTINCT d FROM unnest(m.done || excluded.done) AS d
                    WHERE d >= greatest(m.low_water, excluded.low_water) ORDER BY d)
            """
    )

    /// $1 volumes, $2 epochs, $3 versions.
    static let raiseVersions = Statement(
        name: "raise_versions",
        sql: """
            UPDATE volume_epochs g SET first_version = k.version
            FROM unnest($1::int8[], $2::int8[], $3::int8[]) AS k (v, e, version)
            WHERE g.volume_id = k.v AND g.epoch = k.e AND g.first_version < k.version
            """
    )

    /// $1 volumes, $2 epochs: nothing lies behind their ends any more.
    static let forgetRemains = Statement(
        name: "forget_remains",
        sql: """
            UPDATE volume_epochs g SET zero_from = NULL FROM unnest($1::int8[], $2::int8[]) AS k (v, e)
            WHERE g.volume_id = k.v AND g.epoch = k.e
            """
    )

    /// A position of the log that is durable once this transaction is; NULL where it has changed nothing.
    static let position = Statement(
        name: "position",
        sql: """
            SELECT CASE WHEN pg_current_xact_id_if_assigned() IS NOT NULL
                THEN (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8 END
            """
    )

    static let commits: [Statement] =
        blocks + units + [
            lockShared, lockExtents, guardEpochs, claimSegment, writeFrames, zeroItems, zeroWholeExtents, zeroExtents,
            referenceExtents,
            writeItems, mapObjects, requireMaps, mapItems, mapExtents, mapRuns, evictItems, fillItems, markNexuses,
            raiseVersions,
            forgetRemains, position,
        ]

    /// How ``ObjectMap/Condition`` is told to PostgreSQL.
    enum SlotKind {
        static let itemHasVersion: Int64 = 0
        static let extentNames: Int64 = 1
    }

    private static let slotKeys = """
        unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[])
                AS k (v, e, object, block, version, kind), volume_epochs g, block_objects o
        """

    /// The epoch is current, and the object was turned from intended to live by this transaction.
    private static let slotIsGuarded = """
        g.volume_id = k.v AND g.epoch = k.e AND \(isKey("o.object_id", "k.object")) AND o.mapped_in = pg_current_xact_id()
        """

    private static let insertExtents = """
        INSERT INTO block_extents AS x (volume_id, first_block, block_count, object_id, first_slot, origin_block, copy_version)
        """

    private static let overwriteExtent = """
        ON CONFLICT (volume_id, first_block) DO UPDATE SET block_count = excluded.block_count,
                    object_id = excluded.object_id, first_slot = excluded.first_slot,
                    origin_block = excluded.origin_block, copy_version = excluded.copy_version
        """

    /// The pieces that stay, and the runs in the place of what was there. `origin` and `version`: of a run that a copy makes.
    private static func putExtents(origin: String, version: String) -> String {
        """
        put AS (
                \(insertExtents)
                SELECT volume_id, first, count, object_id, slot, origin, version FROM piece
                UNION ALL SELECT v, first, count, object, slot, \(origin), \(version) FROM run \(overwriteExtent)
            )
        """
    }

    /// The items under the runs go.
    private static let dropItems = """
        dropped AS (
                DELETE FROM block_items i USING run r
                WHERE \(isKey("i.volume_id", "r.v")) AND i.block_id >= r.first AND i.block_id < r.first + r.count
            )
        """

    /// What objects lose by `hit` and gain by `run`; those that are given `also` have been mapped, too.
    private static func countLiveSlots(also: String) -> String {
        """
        UPDATE block_objects o SET live_slots = o.live_slots + d.change, mapped_in = NULL
                FROM (
                    SELECT object_id, sum(change)::int8 AS change FROM (
                        SELECT object_id, -lost AS change FROM hit
                        UNION ALL SELECT object, count FROM run
                        \(also)
                    ) c GROUP BY object_id
                ) d WHERE \(isKey("o.object_id", "d.object_id"))
        """
    }

    /// The condition by which extents `x` of a volume overlap a run of blocks. The extent at or before its first block is looked up
    /// first, so that the index need not be read from the volume's beginning.
    static func overlap(_ x: String, volume: String, first: String, end: String) -> String {
        """
        \(x).volume_id = \(volume) AND \(x).first_block < \(end) AND \(x).first_block + \(x).block_count > \(first)
                        AND \(x).first_block >= coalesce((
                            SELECT p.first_block FROM block_extents p WHERE p.volume_id = \(volume) AND p.first_block <= \(first)
                            ORDER BY p.first_block DESC LIMIT 1), \(first))
        """
    }

    /// From `run` (v, first, count), none overlapping another: `hit` is the extents that lose blocks to runs, `piece` is what
    /// stays of them. Those of which neither a piece nor a run keeps the first block are deleted; the others are overwritten
    /// in place, because one statement cannot delete a key and insert it again.
    private static func hitExtents(replacing: Bool) -> String {
        """
        hit AS MATERIALIZED (
                SELECT x.volume_id, x.first_block, x.block_count, x.object_id, x.first_slot, x.origin_block, x.copy_version,
                    range_agg(int8range(r.first, r.first + r.count)) AS holes,
                    bool_or(r.first = x.first_block) AND \(replacing) AS is_replaced,
                    sum(least(r.first + r.count, x.first_block + x.block_count) - greatest(r.first, x.first_block)) AS lost
                FROM run r CROSS JOIN LATERAL (
                    SELECT * FROM block_extents e
                    WHERE \(overlap("e", volume: "r.v", first: "r.first", end: "r.first + r.count"))
                    OFFSET 0
                ) x GROUP BY 1, 2, 3, 4, 5, 6, 7
            ), piece AS MATERIALIZED (
                SELECT h.volume_id, lower(p) AS first, upper(p) - lower(p) AS count, h.object_id,
                    h.first_slot + (lower(p) - h.first_block) AS slot,
                    h.origin_block + (lower(p) - h.first_block) AS origin, h.copy_version AS version
                FROM hit h, unnest(int8multirange(int8range(h.first_block, h.first_block + h.block_count)) - h.holes) AS p
            ), gone AS (
                DELETE FROM block_extents x USING hit h
                WHERE \(isKey("x.volume_id", "h.volume_id")) AND x.first_block = h.first_block AND h.holes @> h.first_block
                    AND NOT h.is_replaced
            )
        """
    }
}
