LOCK TABLE block_items IN ACCESS EXCLUSIVE MODE;
DROP VIEW ashlar_inspect.journal;
DROP INDEX block_items_unmoved;
DROP INDEX block_items_moved;
ALTER TABLE block_items ADD COLUMN bytes bytea;
ALTER TABLE block_items ALTER COLUMN bytes SET STORAGE EXTERNAL, ALTER COLUMN item SET STATISTICS -1;
ALTER TABLE block_items
    SET (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05,
        toast.autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_cost_delay = 0),
    RESET (fillfactor, autovacuum_analyze_threshold);
UPDATE block_items i SET bytes = data(i);
DROP FUNCTION data(block_items);
ALTER TABLE block_items
    DROP COLUMN moved_version, DROP COLUMN frame, DROP COLUMN segment, DROP COLUMN frame_offset, DROP COLUMN data_bytes;
ALTER TABLE block_items RENAME COLUMN bytes TO data;
ALTER TABLE block_items ALTER COLUMN data SET NOT NULL;
CREATE INDEX block_items_unmoved ON block_items (volume_id, unmoved_since, block_id) WHERE NOT (item ? 'Moved');
CREATE INDEX block_items_moved ON block_items (volume_id, ((item ->> 'Version')::bigint), block_id) WHERE item ? 'Moved';
COMMENT ON TABLE block_items IS 'Cached data blocks: one row each, attributes as a document, bytes beside it.';
COMMENT ON COLUMN block_items.data IS 'The whole block.';
COMMENT ON INDEX block_items_unmoved IS 'The queue of unmoved items, in the order in which they are to be moved.';
COMMENT ON INDEX block_items_moved IS 'Moved items, oldest write first: what may be evicted.';

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
    RETURN QUERY SELECT progress.token + 1, i.volume_id, i.block_id, (i.item ->> 'Version')::bigint,
        coalesce((i.item ->> 'Checksum')::bigint, -1), i.data
    FROM block_items i
    WHERE (i.volume_id, i.block_id) > (progress.volume_id, progress.position)
        AND (i.volume_id, i.block_id) <= (last_volume, last_block)
    ORDER BY i.volume_id, i.block_id;
END $$;

CREATE OR REPLACE VIEW ashlar_inspect.unmoved_queue AS
SELECT v.name AS volume, row_number() OVER (PARTITION BY i.volume_id ORDER BY i.unmoved_since, i.block_id) AS position,
    i.block_id, (i.item ->> 'Version')::bigint AS version, i.unmoved_since,
    extract(epoch FROM clock_timestamp() - i.unmoved_since)::float8 AS age_seconds
FROM block_items i JOIN volumes v ON v.id = i.volume_id
WHERE NOT (i.item ? 'Moved');

CREATE OR REPLACE VIEW ashlar_inspect.space AS
SELECT v.name AS volume, v.size_bytes, v.block_size_bytes,
    i.items, i.items * v.block_size_bytes AS cached_bytes,
    u.items AS unmoved_items, u.items * v.block_size_bytes AS unmoved_bytes,
    x.extents, x.blocks AS mapped_blocks, x.blocks * v.block_size_bytes AS mapped_bytes,
    o.objects, o.bytes AS object_bytes
FROM volumes v
CROSS JOIN LATERAL (SELECT count(*) AS items FROM block_items b WHERE b.volume_id = v.id) i
CROSS JOIN LATERAL (
    SELECT count(*) AS items FROM block_items b WHERE b.volume_id = v.id AND NOT (b.item ? 'Moved')) u
CROSS JOIN LATERAL (
    SELECT count(*) AS extents, coalesce(sum(e.block_count), 0) AS blocks FROM block_extents e WHERE e.volume_id = v.id) x
CROSS JOIN LATERAL (
    SELECT count(*) AS objects, coalesce(sum(b.size_bytes), 0)::bigint AS bytes FROM block_objects b
    WHERE b.volume_id = v.id AND b.state = 'live') o;

DROP FUNCTION journal_clean(bigint, bigint, bigint, bigint);
DROP FUNCTION journal_claim(bigint, bigint);
DROP FUNCTION journal_seal(integer);
DROP FUNCTION journal_take_segment(text, bigint);
DROP FUNCTION journal_add_segment();
DROP TABLE journal_batches;
DROP TABLE journal_segments;
DROP SEQUENCE journal_fills;
DROP TABLE block_journal;
CLUSTER block_items USING block_items_pkey;
ALTER TABLE block_items SET WITHOUT CLUSTER;
