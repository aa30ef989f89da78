DO $$
BEGIN
    IF EXISTS (SELECT FROM block_extents WHERE origin_block IS NOT NULL) THEN
        RAISE EXCEPTION 'copies share slots of objects, which the older schema cannot say'
            USING HINT = 'Overwrite or unmap the blocks of SELECT * FROM block_extents WHERE origin_block IS NOT NULL first.';
    END IF;
END $$;
DROP VIEW ashlar_inspect.objects;
ALTER TABLE block_objects ALTER COLUMN live_slots TYPE integer;
COMMENT ON COLUMN block_objects.live_slots IS 'Slots that extents refer to.';
CREATE VIEW ashlar_inspect.objects AS
SELECT o.object_id, o.volume_id, v.name AS volume, o.server_id, o.state, o.slots, o.live_slots,
    CASE WHEN o.slots > 0 THEN o.live_slots::float8 / o.slots END AS live_share, o.size_bytes,
    o.intended_at, o.live_at, o.dead_at
FROM block_objects o LEFT JOIN volumes v ON v.id = o.volume_id;
COMMENT ON VIEW ashlar_inspect.objects IS 'Block objects and how much of each is in use; volume is NULL where the volume is gone.';
GRANT SELECT ON ashlar_inspect.objects TO ashlar_reader;
ALTER TABLE block_extents DROP CONSTRAINT block_extents_copy, DROP COLUMN copy_version, DROP COLUMN origin_block;
