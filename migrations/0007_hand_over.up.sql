-- ashlar: oldest-release 0.2
-- Several cache servers: volumes are handed over as planned, and servers are drained.

CREATE TABLE cache_nodes (
    name text PRIMARY KEY,
    draining boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE cache_nodes IS 'What an operator has set for cache servers, by name.';
COMMENT ON COLUMN cache_nodes.draining IS 'Its volumes are to go to other cache servers, also after it is started again.';

ALTER TABLE cache_servers ADD COLUMN stopping boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN cache_servers.stopping IS 'It gives its volumes up and ends; it is given none.';

ALTER TABLE volume_epochs
    ADD COLUMN handed_to bigint,
    ADD COLUMN handed_at timestamptz;
CREATE INDEX volume_epochs_handed ON volume_epochs (handed_to) WHERE handed_to IS NOT NULL;
COMMENT ON COLUMN volume_epochs.handed_to IS
    'cache_servers.id of the server that the last owner gave the volume up for: for 5 s nobody else takes it over.';
COMMENT ON COLUMN volume_epochs.handed_at IS 'When it was given up.';

CREATE VIEW ashlar_inspect.cache_servers AS
SELECT s.name, s.endpoint, s.started_at, s.lease_end, s.lease_end > clock_timestamp() AS lease_valid,
    coalesce(n.draining, false) AS draining, s.stopping,
    (SELECT count(*) FROM volume_epochs e WHERE e.owner = s.id) AS volumes,
    (SELECT count(*) FROM volume_epochs e WHERE e.owner = s.id
        AND EXISTS (SELECT FROM nexuses x WHERE x.volume_id = e.volume_id)) AS volumes_in_use
FROM cache_servers s LEFT JOIN cache_nodes n ON n.name = s.name;
COMMENT ON VIEW ashlar_inspect.cache_servers IS 'Every start of a cache server: its lease, and how many volumes it owns.';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ashlar_reader') THEN
        GRANT SELECT ON ashlar_inspect.cache_servers, cache_nodes TO ashlar_reader;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role ashlar_reader was not given its rights: %', SQLERRM;
END $$;
