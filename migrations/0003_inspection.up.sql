-- ashlar: oldest-release 0.1
-- Views with stable names for whoever wants to look with SQL, and a role that may read everything but secrets.

CREATE SCHEMA ashlar_inspect;
COMMENT ON SCHEMA ashlar_inspect IS 'Inspection: names and columns here are kept from release to release; columns may be added.';

CREATE FUNCTION ashlar_inspect.block(
    volume text, block bigint,
    OUT place text, OUT version bigint, OUT moved boolean, OUT checksum bigint, OUT written_at timestamptz,
    OUT unmoved_since timestamptz, OUT object_id bigint, OUT slot bigint, OUT server_id integer
) RETURNS SETOF record LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT CASE
            WHEN i.block_id IS NOT NULL AND x.object_id IS NOT NULL THEN 'both'
            WHEN i.block_id IS NOT NULL THEN 'cache'
            WHEN x.object_id IS NOT NULL THEN 'object'
            ELSE 'nowhere'
        END,
        (i.item ->> 'Version')::bigint, i.item ? 'Moved', (i.item ->> 'Checksum')::bigint,
        (i.item ->> 'WrittenAt')::timestamptz, i.unmoved_since, x.object_id, x.first_slot + (block - x.first_block), o.server_id
    FROM public.volumes v
    LEFT JOIN public.block_items i ON i.volume_id = v.id AND i.block_id = block
    LEFT JOIN LATERAL (
        SELECT p.* FROM (
            SELECT * FROM public.block_extents e WHERE e.volume_id = v.id AND e.first_block <= block
            ORDER BY e.first_block DESC LIMIT 1
        ) p WHERE p.first_block + p.block_count > block
    ) x ON true
    LEFT JOIN public.block_objects o ON o.object_id = x.object_id
    WHERE v.name = volume
$$;
COMMENT ON FUNCTION ashlar_inspect.block(text, bigint) IS
    'Where block n of a volume is: cache, object, both (the item counts) or nowhere (zeros). No row: no such volume.';

CREATE VIEW ashlar_inspect.blocks AS
SELECT v.name AS volume, i.block_id,
    CASE WHEN x.object_id IS NULL THEN 'cache' ELSE 'both' END AS place,
    (i.item ->> 'Version')::bigint AS version, i.item ? 'Moved' AS moved, i.unmoved_since,
    x.object_id, x.first_slot + (i.block_id - x.first_block) AS slot
FROM block_items i
JOIN volumes v ON v.id = i.volume_id
LEFT JOIN LATERAL (
    SELECT p.* FROM (
        SELECT * FROM block_extents e WHERE e.volume_id = i.volume_id AND e.first_block <= i.block_id
        ORDER BY e.first_block DESC LIMIT 1
    ) p WHERE p.first_block + p.block_count > i.block_id
) x ON true
UNION ALL
SELECT v.name, n.block_id, 'object', NULL, NULL, NULL, e.object_id, e.first_slot + (n.block_id - e.first_block)
FROM block_extents e
JOIN volumes v ON v.id = e.volume_id
CROSS JOIN LATERAL generate_series(e.first_block, e.first_block + e.block_count - 1) AS n (block_id)
WHERE NOT EXISTS (SELECT FROM block_items i WHERE i.volume_id = e.volume_id AND i.block_id = n.block_id);
COMMENT ON VIEW ashlar_inspect.blocks IS 'Every written block of every volume and where it is; for one block use ashlar_inspect.block().';

CREATE VIEW ashlar_inspect.unmoved_queue AS
SELECT v.name AS volume, row_number() OVER (PARTITION BY i.volume_id ORDER BY i.unmoved_since, i.block_id) AS position,
    i.block_id, (i.item ->> 'Version')::bigint AS version, i.unmoved_since,
    extract(epoch FROM clock_timestamp() - i.unmoved_since)::float8 AS age_seconds
FROM block_items i JOIN volumes v ON v.id = i.volume_id
WHERE NOT (i.item ? 'Moved');
COMMENT ON VIEW ashlar_inspect.unmoved_queue IS 'Items that are not in an object yet, in the order in which they are to be moved.';

CREATE VIEW ashlar_inspect.objects AS
SELECT o.object_id, o.volume_id, v.name AS volume, o.server_id, o.state, o.slots, o.live_slots,
    CASE WHEN o.slots > 0 THEN o.live_slots::float8 / o.slots END AS live_share, o.size_bytes,
    o.intended_at, o.live_at, o.dead_at
FROM block_objects o LEFT JOIN volumes v ON v.id = o.volume_id;
COMMENT ON VIEW ashlar_inspect.objects IS 'Block objects and how much of each is in use; volume is NULL where the volume is gone.';

CREATE VIEW ashlar_inspect.sessions AS
SELECT v.name AS volume, n.nexus, n.initiator_name, lpad(to_hex(n.isid), 12, '0') AS isid, n.portal_group_tag, n.node,
    n.opened_at, max(m.low_water) AS low_water
FROM nexuses n
JOIN volumes v ON v.id = n.volume_id
LEFT JOIN nexus_marks m ON m.volume_id = n.volume_id AND m.nexus = n.nexus
GROUP BY v.name, n.volume_id, n.nexus;
COMMENT ON VIEW ashlar_inspect.sessions IS 'Initiators that are logged in.';

CREATE VIEW ashlar_inspect.owners AS
SELECT v.name AS volume, e.epoch, s.name AS server, s.endpoint, e.taken_at,
    coalesce(s.lease_end > clock_timestamp(), false) AS lease_valid, s.lease_end
FROM volume_epochs e
JOIN volumes v ON v.id = e.volume_id
LEFT JOIN cache_servers s ON s.id = e.owner;
COMMENT ON VIEW ashlar_inspect.owners IS 'Which cache server owns each volume.';

CREATE VIEW ashlar_inspect.space AS
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
COMMENT ON VIEW ashlar_inspect.space IS 'What each volume takes up in the cache and in objects.';

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ashlar_reader') THEN
        BEGIN
            CREATE ROLE ashlar_reader NOLOGIN;
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'role ashlar_reader was not created: this user may not create roles';
            WHEN duplicate_object OR unique_violation THEN
                NULL;
        END;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ashlar_reader') THEN
        GRANT USAGE ON SCHEMA public, ashlar_inspect TO ashlar_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA ashlar_inspect TO ashlar_reader;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ashlar_inspect TO ashlar_reader;
        GRANT SELECT ON cluster, volumes, access_initiators, cache_servers, volume_epochs, target_nodes, object_servers,
            usage_counters, block_items, block_objects, block_extents, nexuses, nexus_marks TO ashlar_reader;
        GRANT SELECT (volume_id, name, mutual) ON chap_credentials TO ashlar_reader;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role ashlar_reader was not given its rights: %', SQLERRM;
END $$;
