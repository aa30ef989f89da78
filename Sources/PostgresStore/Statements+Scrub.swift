import AshlarCore

extension Statements {
    /// $1 servers, $2 their clocks, $3 their highest objects: whether the database is older than one of them, its clock, the
    /// first object id that was never handed out. The clock ticks where it is not older. All of it is in a row, since sequences run
    /// ahead of what they have handed out, after a crash or a restore.
    static let databaseAge = Statement(
        name: "database_age",
        sql: """
            WITH mark AS (
                SELECT * FROM unnest($1::int8[], $2::int8[], $3::int8[]) AS k (server, clock, highest)
            ), kept AS (
                INSERT INTO object_server_marks AS m (server_id, clock, highest_object)
                SELECT server::int4, clock, highest FROM mark
                ON CONFLICT (server_id) DO UPDATE SET clock = excluded.clock, highest_object = excluded.highest_object,
                    checked_at = clock_timestamp()
            ), age AS (
                UPDATE database_age a SET
                    clock = a.clock + CASE WHEN \(knowsLess) THEN 0 ELSE 1 END,
                    behind_since = CASE WHEN \(knowsLess) THEN coalesce(a.behind_since, clock_timestamp()) END
                RETURNING a.behind_since, a.clock, a.highest_object
            )
            SELECT behind_since IS NOT NULL, clock, highest_object + 1 FROM age
            """
    )

    /// What is behind stays behind, however far it goes on: only the rebuilding of the map ends that.
    private static let knowsLess = """
        (a.behind_since IS NOT NULL
                        OR EXISTS (SELECT FROM mark m WHERE m.clock > a.clock OR m.highest > a.highest_object))
        """

    /// $1 number of items, $2 seconds until they are handed out again.
    static let scrubItems = Statement(name: "scrub_items", sql: "SELECT * FROM scrub_items($1::int8, $2::int8)")

    /// $1 piece, $2 items, $3 bytes, $4 damaged ones.
    static let scrubItemsDone = Statement(
        name: "scrub_items_done",
        sql: "SELECT scrub_report('items', $1::int8, $2::int8, $3::int8, $4::int8)"
    )

    /// $1 volumes, $2 blocks, $3 versions.
    static let addDamagedItems = Statement(
        name: "add_damaged_items",
        sql: """
            INSERT INTO damaged_items AS d (volume_id, block_id, version)
            SELECT k.v, k.block, k.version FROM unnest($1::int8[], $2::int8[], $3::int8[]) AS k (v, block, version)
            JOIN volumes v ON v.id = k.v
            ON CONFLICT (volume_id, block_id) DO UPDATE SET version = excluded.version, found_at = excluded.found_at
            WHERE d.version <> excluded.version
            """
    )

    /// $1 number of objects, $2 seconds until they are handed out again.
    static let scrubObjects = Statement(name: "scrub_objects", sql: "SELECT * FROM scrub_objects($1::int8, $2::int8)")

    /// $1 piece, $2 objects, $3 damaged ones.
    static let scrubObjectsDone = Statement(
        name: "scrub_objects_done",
        sql: """
            SELECT scrub_report('objects', $1::int8, cardinality($2::int8[]),
                (SELECT coalesce(sum(o.size_bytes), 0)::int8 FROM block_objects o WHERE o.object_id = ANY ($2::int8[])), $3::int8)
            """
    )

    /// $1 objects that were looked at whole, $2 objects and $3 slots that are damaged: what else was found in them is sound again.
    static let clearDamagedSlots = Statement(
        name: "clear_damaged_slots",
        sql: """
            DELETE FROM damaged_slots d WHERE d.object_id = ANY ($1::int8[]) AND NOT EXISTS (
                SELECT FROM unnest($2::int8[], $3::int8[]) AS k (object, slot)
                WHERE k.object = d.object_id AND k.slot = d.slot)
            """
    )

    /// $1 objects, $2 slots, $3 1: missing.
    static let addDamagedSlots = Statement(
        name: "add_damaged_slots",
        sql: """
            INSERT INTO damaged_slots AS d (object_id, slot, missing)
            SELECT k.object, k.slot::int4, k.missing = 1
            FROM unnest($1::int8[], $2::int8[], $3::int8[]) AS k (object, slot, missing)
            JOIN block_objects o ON \(isKey("o.object_id", "k.object"))
            ON CONFLICT (object_id, slot) DO UPDATE SET missing = excluded.missing WHERE d.missing <> excluded.missing
            """
    )

    static let drainingServers = Statement(
        name: "draining_servers",
        sql: "SELECT s.id::int8 FROM object_servers s WHERE s.draining ORDER BY s.id LIMIT 4096"
    )

    /// The number of blocks of object `o` that refer to slots which are known to be damaged: nothing can be made of those.
    static let damagedReferences = """
        coalesce((
                SELECT sum(CASE WHEN d.slot < 0 THEN x.block_count ELSE 1 END)
                FROM damaged_slots d JOIN block_extents x ON \(isKey("x.object_id", "d.object_id"))
                    AND (d.slot < 0 OR d.slot BETWEEN x.first_slot AND x.first_slot + x.block_count - 1)
                WHERE d.object_id = o.object_id), 0)
        """

    /// Seconds that dead objects are kept: the grace period of who asks, or the window for backups.
    static func deadAge(milliseconds: String) -> String {
        "greatest(\(milliseconds)::int8 * interval '1 ms', (SELECT make_interval(secs => backup_window_seconds) FROM cluster))"
    }

    static let scrubs: [Statement] = [
        databaseAge, scrubItems, scrubItemsDone, addDamagedItems, scrubObjects, scrubObjectsDone, clearDamagedSlots,
        addDamagedSlots, drainingServers,
    ]
}
