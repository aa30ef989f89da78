-- ashlar: oldest-release 0.1
-- Where the data blocks of volumes are: items (cached), objects and extents; and the nexuses through which they are used.
-- Only the owner of a volume writes these tables, under its epoch (I3).
--
-- Advisory locks: key volume_id * 2 is held shared by every transaction that changes rows of the volume, and exclusively by
-- a takeover; key volume_id * 2 + 1 is held exclusively by transactions that change extents.

CREATE TABLE block_items (
    volume_id bigint NOT NULL,
    block_id bigint NOT NULL,
    unmoved_since timestamptz,
    item jsonb NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (volume_id, block_id),
    CONSTRAINT block_items_unmoved_since CHECK ((unmoved_since IS NULL) = (item ? 'Moved'))
) WITH (
    -- A 4 KiB block and its attributes stay in the row; only larger blocks go to the TOAST table.
    toast_tuple_target = 8160,
    -- An overwrite leaves a whole dead page behind: vacuum early and without pauses.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05,
    toast.autovacuum_vacuum_scale_factor = 0.02,
    toast.autovacuum_vacuum_cost_delay = 0
);
ALTER TABLE block_items ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX block_items_unmoved ON block_items (volume_id, unmoved_since, block_id) WHERE NOT (item ? 'Moved');
CREATE INDEX block_items_moved ON block_items (volume_id, ((item ->> 'Version')::bigint), block_id) WHERE item ? 'Moved';
COMMENT ON TABLE block_items IS 'Cached data blocks: one row each, attributes as a document, bytes beside it.';
COMMENT ON COLUMN block_items.block_id IS 'Byte offset in the volume divided by its block size.';
COMMENT ON COLUMN block_items.unmoved_since IS
    'When the item first became unmoved, kept across overwrites: its place in the queue. NULL: moved.';
COMMENT ON COLUMN block_items.item IS
    'Version: number of the write that made it. Length: bytes. Checksum: CRC-32C of the bytes. WrittenAt: time of the write, '
    'database clock. Moved: true where the bytes are in a mapped object as well, else absent. MovedAt: when that came about.';
COMMENT ON COLUMN block_items.data IS 'The whole block.';
COMMENT ON INDEX block_items_unmoved IS 'The queue of unmoved items, in the order in which they are to be moved.';
COMMENT ON INDEX block_items_moved IS 'Moved items, oldest write first: what may be evicted.';

CREATE TABLE block_objects (
    object_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    volume_id bigint NOT NULL,
    server_id integer,
    slots integer NOT NULL DEFAULT 0 CHECK (slots BETWEEN 0 AND 4096),
    live_slots integer NOT NULL DEFAULT 0 CHECK (live_slots >= 0),
    size_bytes bigint NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'intended' CHECK (state IN ('intended', 'live', 'dead')),
    intended_at timestamptz NOT NULL DEFAULT now(),
    live_at timestamptz,
    dead_at timestamptz,
    mapped_in xid8,
    CONSTRAINT block_objects_times CHECK (
        (state <> 'live' OR (live_at IS NOT NULL AND server_id IS NOT NULL)) AND (state = 'dead') = (dead_at IS NOT NULL)
    )
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX block_objects_intended ON block_objects (intended_at) WHERE state = 'intended';
CREATE INDEX block_objects_empty ON block_objects (object_id) WHERE state = 'live' AND live_slots = 0;
CREATE INDEX block_objects_dead ON block_objects (dead_at) WHERE state = 'dead';
CREATE INDEX block_objects_live ON block_objects (volume_id) WHERE state = 'live';
COMMENT ON TABLE block_objects IS 'Immutable objects with data blocks; a row is there before the first byte is put (I6).';
COMMENT ON COLUMN block_objects.object_id IS 'Also the key under which the object server keeps it; never reused.';
COMMENT ON COLUMN block_objects.server_id IS 'object_servers.id; known once the object is live.';
COMMENT ON COLUMN block_objects.slots IS 'Data blocks that it holds.';
COMMENT ON COLUMN block_objects.live_slots IS 'Slots that extents refer to.';
COMMENT ON COLUMN block_objects.state IS 'intended: handed out. live: mapped. dead: its bytes go after a grace period; final (M7).';
COMMENT ON COLUMN block_objects.mapped_in IS 'Set inside the transaction that maps it, cleared before that ends.';

CREATE TABLE block_extents (
    volume_id bigint NOT NULL,
    first_block bigint NOT NULL,
    block_count integer NOT NULL CHECK (block_count BETWEEN 1 AND 4096),
    object_id bigint NOT NULL,
    first_slot integer NOT NULL CHECK (first_slot >= 0),
    PRIMARY KEY (volume_id, first_block)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX block_extents_object ON block_extents (object_id);
COMMENT ON TABLE block_extents IS 'Runs of data blocks and where they lie; the extents of a volume never overlap.';
COMMENT ON COLUMN block_extents.first_slot IS 'Slot of first_block in the object; the others follow.';

CREATE TABLE nexuses (
    volume_id bigint NOT NULL,
    nexus bigint NOT NULL,
    initiator_name text NOT NULL,
    isid bigint NOT NULL,
    portal_group_tag integer NOT NULL,
    node text NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (volume_id, nexus)
);
COMMENT ON TABLE nexuses IS 'Initiator ports that are logged in to a volume (I_T_L nexuses).';
COMMENT ON COLUMN nexuses.nexus IS 'Grows with every login to the volume (R3).';
COMMENT ON COLUMN nexuses.isid IS 'Initiator session id, 48 bits.';
COMMENT ON COLUMN nexuses.node IS 'Target node through which it was opened.';

CREATE TABLE nexus_marks (
    volume_id bigint NOT NULL,
    nexus bigint NOT NULL,
    lane smallint NOT NULL,
    low_water bigint NOT NULL,
    done bigint[] NOT NULL,
    PRIMARY KEY (volume_id, nexus, lane)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE nexus_marks IS 'Which commands of a nexus are durable (R4): the highest low_water and the union of done count.';
COMMENT ON COLUMN nexus_marks.lane IS 'Number of the connection that commits, so that commits do not wait for each other.';
COMMENT ON COLUMN nexus_marks.low_water IS 'Every command below is answered and forgotten.';
COMMENT ON COLUMN nexus_marks.done IS 'Commands at or above low_water whose effects are durable.';

CREATE FUNCTION delete_volume_step(volume bigint, rows_maximum integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    touched bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(volume * 2);
    PERFORM pg_advisory_xact_lock(volume * 2 + 1);
    PERFORM 1 FROM volumes WHERE id = volume AND state = 'deleting' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NOT EXISTS (SELECT FROM volumes WHERE id = volume);
    END IF;
    UPDATE volume_epochs SET epoch = epoch + 1, owner = NULL WHERE volume_id = volume AND owner IS NOT NULL;
    DELETE FROM block_items WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM block_items WHERE volume_id = volume ORDER BY block_id LIMIT rows_maximum));
    GET DIAGNOSTICS touched = ROW_COUNT;
    IF touched > 0 THEN
        RETURN false;
    END IF;
    WITH gone AS (
        DELETE FROM block_extents WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM block_extents WHERE volume_id = volume ORDER BY first_block LIMIT rows_maximum))
        RETURNING object_id, block_count
    ), lost AS (
        SELECT object_id, sum(block_count) AS blocks FROM gone GROUP BY object_id ORDER BY object_id
    ), changed AS (
        UPDATE block_objects o SET live_slots = o.live_slots - lost.blocks FROM lost WHERE o.object_id = lost.object_id
    )
    SELECT count(*) INTO touched FROM gone;
    IF touched > 0 THEN
        RETURN false;
    END IF;
    UPDATE block_objects SET state = 'dead', dead_at = now() WHERE object_id = ANY (ARRAY(
        SELECT object_id FROM block_objects WHERE volume_id = volume AND state <> 'dead' LIMIT rows_maximum));
    GET DIAGNOSTICS touched = ROW_COUNT;
    IF touched > 0 THEN
        RETURN false;
    END IF;
    DELETE FROM nexus_marks WHERE volume_id = volume;
    DELETE FROM nexuses WHERE volume_id = volume;
    DELETE FROM volumes WHERE id = volume;
    RETURN true;
END $$;
COMMENT ON FUNCTION delete_volume_step(bigint, integer) IS
    'Removes a bounded number of rows of a volume whose state is deleting; true once the volume is gone. Its objects stay behind, '
    'dead, until their bytes have been deleted.';
