-- ashlar: oldest-release 0.2
-- Copies by reference (EXTENDED COPY inside a volume): an extent may name slots that were written as other blocks. A program that does
-- not know them would take such slots for damaged.

ALTER TABLE block_extents
    ADD COLUMN origin_block bigint,
    ADD COLUMN copy_version bigint,
    ADD CONSTRAINT block_extents_copy CHECK ((origin_block IS NULL) = (copy_version IS NULL));
COMMENT ON COLUMN block_extents.origin_block IS
    'Where a copy made the extent: the data block that the slot of first_block was written as; the others follow. Else NULL: the slots '
    'were written as the blocks that they are.';
COMMENT ON COLUMN block_extents.copy_version IS
    'Where a copy made the extent: the version of the copy, which is newer than those in the slots.';

-- A slot may be shared by any number of blocks.
DROP VIEW ashlar_inspect.objects;
ALTER TABLE block_objects ALTER COLUMN live_slots TYPE bigint;
COMMENT ON COLUMN block_objects.live_slots IS 'Blocks whose extents refer to its slots: a slot that several share counts for each.';
CREATE VIEW ashlar_inspect.objects AS
SELECT o.object_id, o.volume_id, v.name AS volume, o.server_id, o.state, o.slots, o.live_slots,
    CASE WHEN o.slots > 0 THEN o.live_slots::float8 / o.slots END AS live_share, o.size_bytes,
    o.intended_at, o.live_at, o.dead_at
FROM block_objects o LEFT JOIN volumes v ON v.id = o.volume_id;
COMMENT ON VIEW ashlar_inspect.objects IS
    'Block objects and how much of each is in use, over 1 where copies share slots; volume is NULL where the volume is gone.';
GRANT SELECT ON ashlar_inspect.objects TO ashlar_reader;
