-- ashlar: oldest-release 0.3
-- The bytes of cached blocks go to an append-only journal, apart from what is known of the blocks: a row of block_items is small and is
-- overwritten in place (HOT), bytes are written once, and what they took is given back by TRUNCATE instead of by a vacuum.
--
-- Advisory locks: (19023, segment) is held shared by the session that fills a segment, as long as it may still commit something into it;
-- (19023, -1) by whoever cleans, (19023, -2) by whoever adds a segment.

LOCK TABLE block_items IN ACCESS EXCLUSIVE MODE;

CREATE TABLE block_journal (
    segment integer NOT NULL,
    frame bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (segment, frame)
) PARTITION BY RANGE (segment);
ALTER TABLE block_journal ALTER COLUMN data SET STORAGE EXTERNAL;
COMMENT ON TABLE block_journal IS
    'Bytes of cached blocks, in frames of 8000; a partition is a segment, which is truncated once no item refers to it.';
COMMENT ON COLUMN block_journal.frame IS 'Number in the segment; never reused, also not after the segment was truncated.';
COMMENT ON COLUMN block_journal.data IS 'Bytes of blocks, one behind the other, on to the next frame where they do not fit.';

CREATE SEQUENCE journal_fills;
CREATE TABLE journal_segments (
    segment integer PRIMARY KEY CHECK (segment >= 0),
    state text NOT NULL DEFAULT 'free' CHECK (state IN ('free', 'filling', 'relocating', 'full', 'emptying')),
    next_frame bigint NOT NULL DEFAULT 0,
    end_frame bigint NOT NULL DEFAULT 0,
    filled bigint,
    looked_at bigint,
    live_blocks bigint,
    blocks bigint
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE journal_segments IS 'Segments of the journal and what they are used for.';
COMMENT ON COLUMN journal_segments.state IS
    'free: empty. filling: a session of a cache server adds to it. relocating: the cleaner does. full: nothing is added any more. '
    'emptying: the cleaner takes out what is left.';
COMMENT ON COLUMN journal_segments.next_frame IS
    'The first frame that the next use may take; while it is being relocated to, the next one.';
COMMENT ON COLUMN journal_segments.end_frame IS 'The end of the frames that the present use may take.';
COMMENT ON COLUMN journal_segments.filled IS 'Its place in the order in which segments became full.';
COMMENT ON COLUMN journal_segments.looked_at IS 'How many segments had become full when its items were last counted.';
COMMENT ON COLUMN journal_segments.live_blocks IS 'Items that referred to it then.';
COMMENT ON COLUMN journal_segments.blocks IS 'Blocks whose bytes were put there.';

CREATE TABLE journal_batches (
    segment integer NOT NULL,
    first_frame bigint NOT NULL,
    volume_id bigint NOT NULL,
    blocks bigint[] NOT NULL,
    PRIMARY KEY (segment, first_frame, volume_id)
) WITH (autovacuum_vacuum_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_threshold = 100000);
ALTER TABLE journal_batches ALTER COLUMN blocks SET STATISTICS 0;
COMMENT ON TABLE journal_batches IS 'Whose bytes lie in a segment: how the items that refer to it are found.';

CREATE FUNCTION journal_add_segment() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    number integer;
BEGIN
    SELECT coalesce(max(segment) + 1, 0) INTO number FROM journal_segments;
    -- Attached, not created as a partition, so that nobody who reads or writes the journal is locked out.
    EXECUTE format('CREATE TABLE block_journal_%s (LIKE block_journal INCLUDING ALL)
        WITH (toast_tuple_target = 8160, autovacuum_enabled = false)', number);
    EXECUTE format('ALTER TABLE block_journal ATTACH PARTITION block_journal_%s FOR VALUES FROM (%s) TO (%s)',
        number, number, number + 1);
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ashlar_reader') THEN
        EXECUTE format('GRANT SELECT ON block_journal_%s TO ashlar_reader', number);
    END IF;
    INSERT INTO journal_segments (segment) VALUES (number);
    RETURN number;
END $$;
COMMENT ON FUNCTION journal_add_segment() IS 'Makes one more segment, which is free.';

CREATE FUNCTION journal_take_segment(new_state text, frames_maximum bigint, OUT number integer, OUT first bigint) LANGUAGE plpgsql AS $$
BEGIN
    SELECT s.segment INTO number FROM journal_segments s WHERE s.state = 'free' ORDER BY s.segment LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF number IS NULL THEN
        PERFORM pg_advisory_xact_lock(19023, -2);
        SELECT s.segment INTO number FROM journal_segments s
        WHERE s.state = 'free' ORDER BY s.segment LIMIT 1 FOR UPDATE SKIP LOCKED;
        IF number IS NULL THEN
            number := journal_add_segment();
        END IF;
    END IF;
    SELECT s.next_frame INTO first FROM journal_segments s WHERE s.segment = number;
    UPDATE journal_segments s SET state = new_state, end_frame = first + frames_maximum,
        next_frame = CASE WHEN new_state = 'relocating' THEN first ELSE first + frames_maximum END
    WHERE s.segment = number;
END $$;
COMMENT ON FUNCTION journal_take_segment(text, bigint) IS 'Takes a free segment, or makes one.';

CREATE FUNCTION journal_seal(number integer) RETURNS void LANGUAGE sql AS $$
    UPDATE journal_segments SET state = 'full', filled = nextval('journal_fills'), next_frame = greatest(next_frame, end_frame),
        looked_at = NULL, live_blocks = NULL,
        blocks = (SELECT coalesce(sum(cardinality(b.blocks)), 0) FROM journal_batches b WHERE b.segment = number)
    WHERE segment = number AND state IN ('filling', 'relocating')
$$;
COMMENT ON FUNCTION journal_seal(integer) IS 'Ends the use of a segment: nothing is added any more.';

CREATE FUNCTION journal_claim(old bigint, frames_maximum bigint, OUT segment bigint, OUT first bigint) LANGUAGE plpgsql AS $$
DECLARE
    taken record;
BEGIN
    IF old >= 0 THEN
        PERFORM journal_seal(old::integer);
        PERFORM pg_advisory_unlock_shared(19023, old::integer);
    END IF;
    SELECT * INTO taken FROM journal_take_segment('filling', frames_maximum);
    PERFORM pg_advisory_lock_shared(19023, taken.number);
    segment := taken.number;
    first := taken.first;
END $$;
COMMENT ON FUNCTION journal_claim(bigint, bigint) IS
    'Gives this session a segment to fill, in place of the one that it has filled (-1: none). It is its own until the session ends: by '
    'then all that it sent has been committed or never will be.';

CREATE FUNCTION journal_clean(rows_maximum bigint, live_percent bigint, frames_maximum bigint, frame_bytes bigint,
    OUT is_done boolean, OUT relocated bigint, OUT emptied bigint) LANGUAGE plpgsql AS $$
DECLARE
    victim journal_segments;
    goal journal_segments;
    fills bigint;
    frames bigint;
    s record;
    taken record;
    moving record;
BEGIN
    is_done := true;
    relocated := 0;
    emptied := 0;
    IF NOT pg_try_advisory_xact_lock(19023, -1) THEN
        RETURN;
    END IF;
    -- Segments of sessions that are gone.
    FOR s IN SELECT j.segment FROM journal_segments j WHERE j.state = 'filling' ORDER BY j.segment LOOP
        IF pg_try_advisory_xact_lock(19023, s.segment) THEN
            PERFORM journal_seal(s.segment);
        END IF;
    END LOOP;
    SELECT * INTO victim FROM journal_segments j WHERE j.state = 'emptying' ORDER BY j.filled LIMIT 1;
    IF victim.segment IS NULL THEN
        SELECT coalesce(max(filled), 0) INTO fills FROM journal_segments;
        -- Each is looked at again whenever another one has become full, those that were full first before others.
        SELECT * INTO victim FROM journal_segments j WHERE j.state = 'full' AND (j.looked_at IS NULL OR j.looked_at < fills)
        ORDER BY coalesce(j.looked_at, j.filled), j.filled LIMIT 1;
        IF victim.segment IS NULL THEN
            RETURN;
        END IF;
        SELECT count(*) INTO victim.live_blocks FROM (
            SELECT DISTINCT b.volume_id, k.block_id FROM journal_batches b, unnest(b.blocks) AS k (block_id)
            WHERE b.segment = victim.segment
        ) k JOIN block_items i ON i.volume_id = k.volume_id AND i.block_id = k.block_id AND i.segment = victim.segment;
        UPDATE journal_segments SET looked_at = fills, live_blocks = victim.live_blocks,
            state = CASE WHEN victim.live_blocks * 100 < victim.blocks * live_percent OR victim.live_blocks = 0
                THEN 'emptying' ELSE 'full' END
        WHERE segment = victim.segment;
        is_done := false;
        RETURN;
    END IF;
    is_done := false;
    WITH part AS (
        DELETE FROM journal_batches b USING (
            SELECT a.segment, a.first_frame, a.volume_id,
                sum(cardinality(a.blocks)) OVER (ORDER BY a.first_frame, a.volume_id) - cardinality(a.blocks) AS before
            FROM (
                SELECT * FROM journal_batches j WHERE j.segment = victim.segment
                ORDER BY j.first_frame, j.volume_id LIMIT rows_maximum
            ) a
        ) k
        WHERE b.segment = k.segment AND b.first_frame = k.first_frame AND b.volume_id = k.volume_id AND k.before < rows_maximum
        RETURNING b.volume_id, b.blocks
    )
    SELECT count(*) AS items, array_agg(m.volume_id ORDER BY m.volume_id, m.block_id) AS volumes,
        array_agg(m.block_id ORDER BY m.volume_id, m.block_id) AS blocks,
        array_agg(m.frame ORDER BY m.volume_id, m.block_id) AS frames,
        array_agg(m.frame_offset ORDER BY m.volume_id, m.block_id) AS offsets,
        -- What is there, not what should be: an item of which bytes are missing must not shift those of others (I11).
        array_agg(length(m.data) ORDER BY m.volume_id, m.block_id) AS lengths,
        string_agg(m.data, ''::bytea ORDER BY m.volume_id, m.block_id) AS bytes
    INTO moving FROM (
        SELECT i.volume_id, i.block_id, i.frame, i.frame_offset, data(i) AS data FROM (
            SELECT DISTINCT p.volume_id, k.block_id FROM part p, unnest(p.blocks) AS k (block_id)
        ) k JOIN block_items i ON i.volume_id = k.volume_id AND i.block_id = k.block_id AND i.segment = victim.segment
    ) m;
    IF moving.items > 0 THEN
        frames := (length(moving.bytes) + frame_bytes - 1) / frame_bytes;
        SELECT * INTO goal FROM journal_segments j WHERE j.state = 'relocating';
        IF goal.segment IS NULL OR goal.end_frame - goal.next_frame < frames THEN
            IF goal.segment IS NOT NULL THEN
                PERFORM journal_seal(goal.segment);
            END IF;
            SELECT * INTO taken FROM journal_take_segment('relocating', greatest(frames_maximum, frames));
            SELECT * INTO goal FROM journal_segments j WHERE j.segment = taken.number;
        END IF;
        INSERT INTO block_journal (segment, frame, data)
        SELECT goal.segment, goal.next_frame + n, substr(moving.bytes, (n * frame_bytes)::integer + 1, frame_bytes::integer)
        FROM generate_series(0, frames - 1) AS n;
        INSERT INTO journal_batches (segment, first_frame, volume_id, blocks)
        SELECT goal.segment, goal.next_frame, k.v, array_agg(k.b ORDER BY k.b)
        FROM unnest(moving.volumes, moving.blocks) AS k (v, b) GROUP BY k.v;
        -- In the order in which commits lock rows; what was written anew meanwhile lies elsewhere already.
        PERFORM 1 FROM block_items i JOIN unnest(moving.volumes, moving.blocks) AS k (v, b) ON i.volume_id = k.v AND i.block_id = k.b
        ORDER BY i.volume_id, i.block_id FOR UPDATE OF i;
        UPDATE block_items i SET segment = goal.segment, frame = goal.next_frame + m.place / frame_bytes,
            frame_offset = (m.place % frame_bytes)::integer
        FROM (
            SELECT k.v, k.b, k.f, k.o, sum(k.n) OVER (ORDER BY k.position) - k.n AS place
            FROM unnest(moving.volumes, moving.blocks, moving.frames, moving.offsets, moving.lengths) WITH ORDINALITY
                AS k (v, b, f, o, n, position)
        ) m
        WHERE i.volume_id = m.v AND i.block_id = m.b AND i.segment = victim.segment AND i.frame = m.f AND i.frame_offset = m.o;
        GET DIAGNOSTICS relocated = ROW_COUNT;
        UPDATE journal_segments SET next_frame = next_frame + frames WHERE segment = goal.segment;
    END IF;
    IF EXISTS (SELECT FROM journal_batches b WHERE b.segment = victim.segment) THEN
        RETURN;
    END IF;
    -- No reader may wait for long behind this; a check or a dump holds it off for as long as it lasts.
    BEGIN
        SET LOCAL lock_timeout = '20ms';
        EXECUTE format('TRUNCATE block_journal_%s', victim.segment);
    EXCEPTION
        WHEN lock_not_available THEN
            is_done := true;
            RETURN;
    END;
    UPDATE journal_segments SET state = 'free', filled = NULL, looked_at = NULL, live_blocks = NULL, blocks = NULL
    WHERE segment = victim.segment;
    emptied := 1;
END $$;
COMMENT ON FUNCTION journal_clean(bigint, bigint, bigint, bigint) IS
    'A step of cleaning: what is left in a segment of which few blocks are in use goes to another one, and one of which none is becomes '
    'free. is_done: there is nothing to do until another segment is full.';

ALTER TABLE block_items
    ADD COLUMN moved_version bigint, ADD COLUMN frame bigint, ADD COLUMN segment integer, ADD COLUMN frame_offset integer,
    ADD COLUMN data_bytes integer;
DROP INDEX block_items_unmoved;
DROP INDEX block_items_moved;

DO $$
DECLARE
    frame_bytes CONSTANT integer := 8000;
    frames_maximum CONSTANT integer := 32768;
    taken record;
    i record;
    next bigint;
    last bigint;
    pieces bigint;
    found boolean := false;
BEGIN
    FOR i IN SELECT volume_id, block_id, data FROM block_items LOOP
        pieces := (length(i.data) + frame_bytes - 1) / frame_bytes;
        IF NOT found OR next + pieces > last THEN
            IF found THEN
                PERFORM journal_seal(taken.number);
            END IF;
            SELECT * INTO taken FROM journal_take_segment('filling', frames_maximum);
            next := taken.first;
            last := taken.first + frames_maximum;
            found := true;
        END IF;
        INSERT INTO block_journal (segment, frame, data)
        SELECT taken.number, next + n, substr(i.data, n * frame_bytes + 1, frame_bytes) FROM generate_series(0, pieces::integer - 1) AS n;
        INSERT INTO journal_batches (segment, first_frame, volume_id, blocks)
        VALUES (taken.number, next, i.volume_id, ARRAY[i.block_id]);
        UPDATE block_items b SET segment = taken.number, frame = next, frame_offset = 0, data_bytes = length(i.data),
            moved_version = CASE WHEN b.item ? 'Moved' THEN (b.item ->> 'Version')::bigint END
        WHERE b.volume_id = i.volume_id AND b.block_id = i.block_id;
        next := next + pieces;
    END LOOP;
    IF found THEN
        PERFORM journal_seal(taken.number);
    END IF;
END $$;

ALTER TABLE block_items DROP COLUMN data;
ALTER TABLE block_items
    ALTER COLUMN frame SET NOT NULL, ALTER COLUMN segment SET NOT NULL, ALTER COLUMN frame_offset SET NOT NULL,
    ALTER COLUMN data_bytes SET NOT NULL, ALTER COLUMN item SET STATISTICS 0,
    ADD CONSTRAINT block_items_moved_version CHECK ((moved_version IS NULL) = (unmoved_since IS NOT NULL)),
    RESET (toast_tuple_target, toast.autovacuum_vacuum_scale_factor, toast.autovacuum_vacuum_cost_delay),
    -- An overwrite finds room in its page, and takes back what earlier ones left there: there is little for a vacuum to do.
    SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.2, autovacuum_vacuum_threshold = 10000,
        autovacuum_vacuum_insert_scale_factor = 0.5, autovacuum_analyze_scale_factor = 1, autovacuum_analyze_threshold = 50000);
-- Neither index may have a column that an overwrite of an unmoved item changes: then it could not be made in place.
CREATE INDEX block_items_unmoved ON block_items (volume_id, unmoved_since, block_id) WHERE unmoved_since IS NOT NULL;
CREATE INDEX block_items_moved ON block_items (volume_id, moved_version, block_id) WHERE moved_version IS NOT NULL;
CLUSTER block_items USING block_items_pkey;
ALTER TABLE block_items SET WITHOUT CLUSTER;
COMMENT ON INDEX block_items_unmoved IS 'The queue of unmoved items, in the order in which they are to be moved.';
COMMENT ON INDEX block_items_moved IS 'Moved items, oldest write first: what may be evicted.';
COMMENT ON TABLE block_items IS 'Cached data blocks: one row each, attributes as a document, and where in the journal the bytes lie.';
COMMENT ON COLUMN block_items.moved_version IS 'Version of a moved item: its place among those that may be evicted. NULL: unmoved.';
COMMENT ON COLUMN block_items.segment IS 'Segment of the journal with the bytes.';
COMMENT ON COLUMN block_items.frame IS 'The frame in which the bytes begin.';
COMMENT ON COLUMN block_items.frame_offset IS 'Bytes of that frame before them.';
COMMENT ON COLUMN block_items.data_bytes IS 'How many bytes they are.';

CREATE FUNCTION data(block_items) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(substr(string_agg(j.data, ''::bytea ORDER BY j.frame), $1.frame_offset + 1, $1.data_bytes), ''::bytea)
    FROM public.block_journal j
    WHERE j.segment = $1.segment AND j.frame >= $1.frame
        AND j.frame <= $1.frame + ($1.frame_offset + $1.data_bytes - 1) / 8000
$$;
COMMENT ON FUNCTION data(block_items) IS 'The bytes of an item, from the journal; as in SELECT i.data FROM block_items i.';

CREATE OR REPLACE FUNCTION scrub_items(rows_maximum bigint, timeout_seconds bigint)
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
    -- The journal is in the query itself, not in a function: so it is locked before the snapshot is taken, and what the snapshot refers
    -- to has not been truncated.
    RETURN QUERY SELECT progress.token + 1, i.volume_id, i.block_id, (i.item ->> 'Version')::bigint,
        coalesce((i.item ->> 'Checksum')::bigint, -1), coalesce(substr(j.data, i.frame_offset + 1, i.data_bytes), ''::bytea)
    FROM block_items i CROSS JOIN LATERAL (
        SELECT string_agg(f.data, ''::bytea ORDER BY f.frame) AS data FROM block_journal f
        WHERE f.segment = i.segment AND f.frame >= i.frame AND f.frame <= i.frame + (i.frame_offset + i.data_bytes - 1) / 8000
    ) j
    WHERE (i.volume_id, i.block_id) > (progress.volume_id, progress.position)
        AND (i.volume_id, i.block_id) <= (last_volume, last_block)
    ORDER BY i.volume_id, i.block_id;
END $$;

CREATE OR REPLACE VIEW ashlar_inspect.unmoved_queue AS
SELECT v.name AS volume, row_number() OVER (PARTITION BY i.volume_id ORDER BY i.unmoved_since, i.block_id) AS position,
    i.block_id, (i.item ->> 'Version')::bigint AS version, i.unmoved_since,
    extract(epoch FROM clock_timestamp() - i.unmoved_since)::float8 AS age_seconds
FROM block_items i JOIN volumes v ON v.id = i.volume_id
WHERE i.unmoved_since IS NOT NULL;

CREATE OR REPLACE VIEW ashlar_inspect.space AS
SELECT v.name AS volume, v.size_bytes, v.block_size_bytes,
    i.items, i.items * v.block_size_bytes AS cached_bytes,
    u.items AS unmoved_items, u.items * v.block_size_bytes AS unmoved_bytes,
    x.extents, x.blocks AS mapped_blocks, x.blocks * v.block_size_bytes AS mapped_bytes,
    o.objects, o.bytes AS object_bytes
FROM volumes v
CROSS JOIN LATERAL (SELECT count(*) AS items FROM block_items b WHERE b.volume_id = v.id) i
CROSS JOIN LATERAL (
    SELECT count(*) AS items FROM block_items b WHERE b.volume_id = v.id AND b.unmoved_since IS NOT NULL) u
CROSS JOIN LATERAL (
    SELECT count(*) AS extents, coalesce(sum(e.block_count), 0) AS blocks FROM block_extents e WHERE e.volume_id = v.id) x
CROSS JOIN LATERAL (
    SELECT count(*) AS objects, coalesce(sum(b.size_bytes), 0)::bigint AS bytes FROM block_objects b
    WHERE b.volume_id = v.id AND b.state = 'live') o;

CREATE VIEW ashlar_inspect.journal AS
SELECT s.segment, s.state, s.blocks, s.live_blocks, pg_relation_size(p.inhrelid) AS bytes
FROM journal_segments s
LEFT JOIN pg_inherits p ON p.inhparent = 'public.block_journal'::regclass
    AND p.inhrelid = to_regclass('public.block_journal_' || s.segment);
COMMENT ON VIEW ashlar_inspect.journal IS
    'Segments of the journal of cached bytes; live_blocks: how many of the blocks were in use when they were last counted.';

DO $$
BEGIN
    FOR n IN (SELECT count(*) FROM journal_segments)..3 LOOP
        PERFORM journal_add_segment();
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ashlar_reader') THEN
        GRANT SELECT ON block_journal, journal_segments, journal_batches, ashlar_inspect.journal TO ashlar_reader;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role ashlar_reader was not given its rights: %', SQLERRM;
END $$;
