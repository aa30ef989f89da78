-- Undoes 0014_sampled_segments.up.sql.
CREATE OR REPLACE FUNCTION journal_clean(rows_maximum bigint, live_percent bigint, frames_maximum bigint, frame_bytes bigint,
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
COMMENT ON COLUMN journal_segments.looked_at IS 'How many segments had become full when its items were last counted.';
COMMENT ON COLUMN journal_segments.live_blocks IS 'Items that referred to it then.';
COMMENT ON VIEW ashlar_inspect.journal IS
    'Segments of the journal of cached bytes; live_blocks: how many of the blocks were in use when they were last counted.';
