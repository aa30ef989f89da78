DROP SCHEMA ashlar_inspect CASCADE;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ashlar_reader') THEN
        REVOKE USAGE ON SCHEMA public FROM ashlar_reader;
        REVOKE SELECT ON cluster, volumes, access_initiators, cache_servers, volume_epochs, target_nodes, object_servers,
            usage_counters, block_items, block_objects, block_extents, nexuses, nexus_marks FROM ashlar_reader;
        REVOKE SELECT (volume_id, name, mutual) ON chap_credentials FROM ashlar_reader;
    END IF;
END $$;
