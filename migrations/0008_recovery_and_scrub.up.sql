-- ashlar: oldest-release 0.2
-- What keeps data whole over the years: a clock by which an older database is known, a window for backups, the verification of
-- items and objects against their checksums, object servers that are drained, and the rebuilding of the map from objects.

ALTER TABLE cluster
    ADD COLUMN backup_window_seconds bigint NOT NULL DEFAULT 0 CHECK (backup_window_seconds BETWEEN 0 AND 31536000),
    ADD COLUMN scrub_bytes_per_second bigint NOT NULL DEFAULT 8388608
        CHECK (scrub_bytes_per_second BETWEEN 0 AND 1099511627776),
    ADD COLUMN scrub_interval_seconds bigint NOT NULL DEFAULT 604800 CHECK (scrub_interval_seconds BETWEEN 1 AND 31536000);
COMMENT ON COLUMN cluster.backup_window_seconds IS
    'Dead objects keep their bytes for at least so long, so that the extents of a backup of this age find them.';
COMMENT ON COLUMN cluster.scrub_bytes_per_second IS 'How fast items, and objects, are verified, over all agents; 0: not at all.';
COMMENT ON COLUMN cluster.scrub_interval_seconds IS 'From the beginning of one pass over all items, or objects, to that of the next.';

-- Ticks whenever agents ask whether they may delete, and is kept by the object servers: one that knows a later time than the
-- database sees that the database went back (M8).
CREATE SEQUENCE database_clock;

CREATE TABLE object_server_marks (
    server_id integer PRIMARY KEY,
    clock bigint NOT NULL,
    highest_object bigint NOT NULL,
    checked_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE object_server_marks IS 'What object servers knew of the database when agents last asked whether they may delete.';
COMMENT ON COLUMN object_server_marks.clock IS 'The highest database_clock that the server was ever told.';
COMMENT ON COLUMN object_server_marks.highest_object IS 'The highest object id that lay there since it was started.';

ALTER TABLE object_servers ADD COLUMN draining boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN object_servers.draining IS 'An operator wants its objects to go elsewhere: it gets no new ones.';

ALTER TABLE volumes DROP CONSTRAINT volumes_state_check,
    ADD CONSTRAINT volumes_state_check CHECK (state IN ('active', 'deleting', 'recovering'));
COMMENT ON COLUMN volumes.state IS
    'active; deleting: its rows are being removed in steps; recovering: its map is being rebuilt from objects. Nobody may own a volume '
    'that is not active.';

CREATE TABLE damaged_slots (
    object_id bigint NOT NULL REFERENCES block_objects (object_id) ON DELETE CASCADE,
    slot integer NOT NULL CHECK (slot >= -1),
    missing boolean NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (object_id, slot)
);
COMMENT ON TABLE damaged_slots IS 'Slots of objects that did not match their checksums when they were last read.';
COMMENT ON COLUMN damaged_slots.slot IS 'The slot; -1: the whole object.';
COMMENT ON COLUMN damaged_slots.missing IS 'The object does not lie on its server.';

CREATE TABLE damaged_items (
    volume_id bigint NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    block_id bigint NOT NULL,
    version bigint NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (volume_id, block_id)
);
COMMENT ON TABLE damaged_items IS 'Items that did not match their checksums; one that was written anew since has another version.';

CREATE TABLE scrub_progress (
    kind text PRIMARY KEY CHECK (kind IN ('items', 'objects')),
    pass bigint NOT NULL DEFAULT 1,
    started_at timestamptz,
    volume_id bigint NOT NULL DEFAULT 0,
    position bigint NOT NULL DEFAULT -1,
    checked bigint NOT NULL DEFAULT 0,
    checked_bytes bigint NOT NULL DEFAULT 0,
    damaged bigint NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    token bigint NOT NULL DEFAULT 0,
    handed_until timestamptz,
    handed_volume bigint NOT NULL DEFAULT 0,
    handed_position bigint NOT NULL DEFAULT -1,
    last_ended_at timestamptz,
    last_checked bigint,
    last_damaged bigint
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE scrub_progress IS 'How far the verification of items and of objects is; one piece of each is handed out at a time.';
COMMENT ON COLUMN scrub_progress.position IS 'Everything up to this block (of volume_id and the volumes before it), or object, is verified.';
COMMENT ON COLUMN scrub_progress.next_at IS 'Not before a second before this time is the next piece handed out: the pace, or the rest between passes.';
COMMENT ON COLUMN scrub_progress.token IS 'Number of the piece that is handed out; a report of an older one changes nothing.';
INSERT INTO scrub_progress (kind) VALUES ('items'), ('objects');

CREATE FUNCTION scrub_begin(which text) RETURNS scrub_progress LANGUAGE plpgsql AS $$
DECLARE
    found scrub_progress;
BEGIN
    SELECT s.* INTO found FROM scrub_progress s, cluster c
    WHERE s.kind = which AND c.scrub_bytes_per_second > 0 AND s.next_at <= clock_timestamp() + interval '1 s'
        AND coalesce(s.handed_until, '-infinity') <= clock_timestamp()
    FOR UPDATE OF s SKIP LOCKED;
    RETURN found;
END $$;
COMMENT ON FUNCTION scrub_begin(text) IS 'The progress of a scrub, locked, where a piece of it may be handed out now; else NULL.';

CREATE FUNCTION scrub_hand_out(which text, volume bigint, place bigint, timeout_seconds bigint) RETURNS void LANGUAGE sql AS $$
    UPDATE scrub_progress SET token = token + 1, handed_volume = volume, handed_position = place,
        started_at = coalesce(started_at, clock_timestamp()),
        handed_until = clock_timestamp() + make_interval(secs => timeout_seconds)
    WHERE kind = which
$$;

CREATE FUNCTION scrub_end_pass(which text) RETURNS void LANGUAGE sql AS $$
    UPDATE scrub_progress SET pass = pass + 1, volume_id = 0, position = -1, checked = 0, checked_bytes = 0, damaged = 0,
        last_ended_at = clock_timestamp(), last_checked = checked, last_damaged = damaged, started_at = NULL, handed_until = NULL,
        next_at = coalesce(started_at, clock_timestamp())
            + (SELECT make_interval(secs => scrub_interval_seconds) FROM cluster)
    WHERE kind = which
$$;

CREATE FUNCTION scrub_report(which text, piece bigint, count bigint, bytes bigint, bad bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE scrub_progress SET volume_id = handed_volume, position = handed_position, handed_until = NULL,
        checked = checked + count, checked_bytes = checked_bytes + bytes, damaged = damaged + bad,
        next_at = greatest(next_at, clock_timestamp())
            + (SELECT make_interval(secs => bytes::float8 / greatest(scrub_bytes_per_second, 1)) FROM cluster)
    WHERE kind = which AND token = piece AND handed_until IS NOT NULL;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION scrub_report(text, bigint, bigint, bigint, bigint) IS
    'Ends a piece of a scrub; false where another has been handed out since.';

CREATE FUNCTION scrub_items(rows_maximum bigint, timeout_seconds bigint)
RETURNS TABLE (piece bigint, of_volume bigint, block bigint, version bigint, checksum bigint, bytes bytea) LANGUAGE plpgsql AS $$
DECLARE
    progress scrub_progress := scrub_begin('items');
    last_volume bigint;
    last_block bigint;
BEGIN
    IF progress.kind IS NULL THEN
        RETURN;
    END IF;
    SELECT p.volume_id, p.block_id INTO last_volume, last_block FROM (
        SELECT i.volume_id, i.block_id FROM block_items i
        WHERE (i.volume_id, i.block_id) > (progress.volume_id, progress.position)
        ORDER BY i.volume_id, i.block_id LIMIT rows_maximum
    ) p ORDER BY p.volume_id DESC, p.block_id DESC LIMIT 1;
    IF NOT FOUND THEN
        PERFORM scrub_end_pass('items');
        RETURN;
    END IF;
    PERFORM scrub_hand_out('items', last_volume, last_block, timeout_seconds);
    RETURN QUERY SELECT progress.token + 1, i.volume_id, i.block_id, (i.item ->> 'Version')::bigint,
        coalesce((i.item ->> 'Checksum')::bigint, -1), i.data
    FROM block_items i
    WHERE (i.volume_id, i.block_id) > (progress.volume_id, progress.position)
        AND (i.volume_id, i.block_id) <= (last_volume, last_block)
    ORDER BY i.volume_id, i.block_id;
END $$;
COMMENT ON FUNCTION scrub_items(bigint, bigint) IS 'Hands out items to be verified; none: nothing is due.';

CREATE FUNCTION scrub_objects(rows_maximum bigint, timeout_seconds bigint)
RETURNS TABLE (piece bigint, object bigint, server bigint, slot_count bigint, bytes bigint) LANGUAGE plpgsql AS $$
DECLARE
    progress scrub_progress := scrub_begin('objects');
    last_object bigint;
BEGIN
    IF progress.kind IS NULL THEN
        RETURN;
    END IF;
    SELECT max(p.object_id) INTO last_object FROM (
        SELECT o.object_id FROM block_objects o WHERE o.object_id > progress.position AND o.state = 'live'
        ORDER BY o.object_id LIMIT rows_maximum
    ) p;
    IF last_object IS NULL THEN
        PERFORM scrub_end_pass('objects');
        RETURN;
    END IF;
    PERFORM scrub_hand_out('objects', 0, last_object, timeout_seconds);
    RETURN QUERY SELECT progress.token + 1, o.object_id, o.server_id::bigint, o.slots::bigint, o.size_bytes
    FROM block_objects o
    WHERE o.object_id > progress.position AND o.object_id <= last_object AND o.state = 'live'
    ORDER BY o.object_id;
END $$;
COMMENT ON FUNCTION scrub_objects(bigint, bigint) IS 'Hands out objects to be verified; none: nothing is due.';

CREATE FUNCTION recover_extents(volume bigint, firsts bigint[], counts bigint[], objects bigint[], slots bigint[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    r record;
    x record;
BEGIN
    FOR r IN SELECT * FROM unnest(firsts, counts, objects, slots) AS k (first, count, object, slot) LOOP
        FOR x IN DELETE FROM block_extents e WHERE e.volume_id = volume AND e.first_block < r.first + r.count
            AND e.first_block > r.first - 4096 AND e.first_block + e.block_count > r.first RETURNING e.*
        LOOP
            UPDATE block_objects o SET live_slots = o.live_slots
                - (least(x.first_block + x.block_count, r.first + r.count) - greatest(x.first_block, r.first))
            WHERE o.object_id = x.object_id;
            IF x.first_block < r.first THEN
                INSERT INTO block_extents VALUES (volume, x.first_block, r.first - x.first_block, x.object_id, x.first_slot,
                    x.origin_block, x.copy_version);
            END IF;
            IF x.first_block + x.block_count > r.first + r.count THEN
                INSERT INTO block_extents VALUES (volume, r.first + r.count, x.first_block + x.block_count - r.first - r.count,
                    x.object_id, x.first_slot + (r.first + r.count - x.first_block),
                    x.origin_block + (r.first + r.count - x.first_block), x.copy_version);
            END IF;
        END LOOP;
        IF r.object > 0 THEN
            INSERT INTO block_extents (volume_id, first_block, block_count, object_id, first_slot)
            VALUES (volume, r.first, r.count, r.object, r.slot);
            UPDATE block_objects o SET live_slots = o.live_slots + r.count WHERE o.object_id = r.object;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION recover_extents(bigint, bigint[], bigint[], bigint[], bigint[]) IS
    'Maps runs of at most 4096 blocks to slots of objects (object 0: to nothing), for a volume that is being recovered.';

CREATE VIEW ashlar_inspect.damage AS
SELECT v.name AS volume, d.block_id, 'item' AS place, NULL::bigint AS object_id, NULL::bigint AS slot, NULL::integer AS server_id,
    false AS missing, d.found_at
FROM damaged_items d
JOIN volumes v ON v.id = d.volume_id
JOIN block_items i ON i.volume_id = d.volume_id AND i.block_id = d.block_id AND (i.item ->> 'Version')::bigint = d.version
UNION ALL
SELECT v.name, n.block_id, 'object', d.object_id, x.first_slot + (n.block_id - x.first_block), o.server_id, d.missing, d.found_at
FROM damaged_slots d
JOIN block_objects o ON o.object_id = d.object_id
JOIN block_extents x ON x.object_id = d.object_id
    AND (d.slot < 0 OR d.slot BETWEEN x.first_slot AND x.first_slot + x.block_count - 1)
JOIN volumes v ON v.id = x.volume_id
CROSS JOIN LATERAL generate_series(
    CASE WHEN d.slot < 0 THEN x.first_block ELSE x.first_block + d.slot - x.first_slot END,
    CASE WHEN d.slot < 0 THEN x.first_block + x.block_count - 1 ELSE x.first_block + d.slot - x.first_slot END) AS n (block_id);
COMMENT ON VIEW ashlar_inspect.damage IS 'Blocks that were found damaged or missing and have not been written anew since.';

CREATE VIEW ashlar_inspect.scrub AS
SELECT kind, pass, started_at, checked, checked_bytes, damaged, next_at, last_ended_at, last_checked, last_damaged
FROM scrub_progress;
COMMENT ON VIEW ashlar_inspect.scrub IS 'How far the verification of items and objects is, and what the last pass found.';

CREATE VIEW ashlar_inspect.object_servers AS
SELECT s.id AS server_id, s.name, s.endpoint, s.draining, o.objects, o.bytes, s.last_seen
FROM object_servers s
CROSS JOIN LATERAL (
    SELECT count(*) AS objects, coalesce(sum(b.size_bytes), 0)::bigint AS bytes FROM block_objects b
    WHERE b.server_id = s.id AND b.state = 'live') o;
COMMENT ON VIEW ashlar_inspect.object_servers IS 'Object servers and the live objects there; one that is drained loses them.';

CREATE VIEW ashlar_inspect.deletion AS
SELECT m.server_id, m.clock <= q.clock AND m.highest_object < q.next_object AS allowed, m.clock AS server_clock,
    q.clock AS database_clock, m.highest_object, q.next_object, m.checked_at
FROM object_server_marks m
CROSS JOIN (
    SELECT CASE WHEN c.is_called THEN c.last_value ELSE 0 END AS clock,
        CASE WHEN n.is_called THEN n.last_value + 1 ELSE n.last_value END AS next_object
    FROM database_clock c, block_objects_object_id_seq n) q;
COMMENT ON VIEW ashlar_inspect.deletion IS
    'Whether objects may be deleted: not where an object server knows more than the database, which then is an older one.';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ashlar_reader') THEN
        GRANT SELECT ON object_server_marks, damaged_slots, damaged_items, scrub_progress, ashlar_inspect.damage,
            ashlar_inspect.scrub, ashlar_inspect.object_servers, ashlar_inspect.deletion TO ashlar_reader;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role ashlar_reader was not given its rights: %', SQLERRM;
END $$;
