-- ashlar: oldest-release 0.1
-- The cluster, its nodes, its volumes and who may use them. All times are on the clock of this database.

CREATE TABLE cluster (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    uuid uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE cluster IS 'One row: the identity of this cluster; certificates and object server roots carry the same uuid.';
INSERT INTO cluster DEFAULT VALUES;

CREATE TABLE volumes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (octet_length(name) BETWEEN 1 AND 64),
    iqn text NOT NULL UNIQUE CHECK (octet_length(iqn) BETWEEN 1 AND 223),
    uuid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    size_bytes bigint NOT NULL CHECK (size_bytes BETWEEN 512 AND 1125899906842624),
    block_size_bytes integer NOT NULL DEFAULT 4096
        CHECK (block_size_bytes BETWEEN 512 AND 65536 AND (block_size_bytes & (block_size_bytes - 1)) = 0),
    logical_block_size_bytes integer NOT NULL DEFAULT 512 CHECK (logical_block_size_bytes IN (512, 4096)),
    read_only boolean NOT NULL DEFAULT false,
    config jsonb NOT NULL DEFAULT '{}',
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'deleting')),
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT volumes_size_is_whole_blocks CHECK (size_bytes % block_size_bytes = 0),
    CONSTRAINT volumes_logical_block_fits CHECK (logical_block_size_bytes <= block_size_bytes),
    CONSTRAINT volumes_config_is_valid CHECK (
        jsonb_typeof(config) = 'object'
        AND coalesce(config ->> 'move', 'fifo') IN ('lru', 'fifo', 'count', 'bytes', 'age')
        AND coalesce(config ->> 'readFill', 'never') IN ('never', 'always', 'second')
        AND coalesce((config ->> 'unmovedItemsMaximum')::bigint, 0) >= 0
        AND coalesce((config ->> 'unmovedBytesMaximum')::bigint, 0) >= 0
        AND coalesce((config ->> 'unmovedAgeMaximumSeconds')::bigint, 0) BETWEEN 0 AND 4294967295
        AND coalesce((config ->> 'cachedBytesMaximum')::bigint, 0) >= 0
        AND coalesce((config ->> 'compactBelowPercent')::bigint, 0) BETWEEN 0 AND 100
        AND coalesce((config ->> 'directWriteMinimumBytes')::bigint, 0) BETWEEN 0 AND 4294967295
    )
);
COMMENT ON TABLE volumes IS 'Virtual disks: identity, geometry, cache policy.';
COMMENT ON COLUMN volumes.id IS 'Key of the volume in every other table; never reused.';
COMMENT ON COLUMN volumes.iqn IS 'iSCSI name under which initiators find it.';
COMMENT ON COLUMN volumes.uuid IS 'What VPD page 83h and the serial number are made of.';
COMMENT ON COLUMN volumes.config IS
    'Cache policy; keys move, unmovedItemsMaximum, unmovedBytesMaximum, unmovedAgeMaximumSeconds, cachedBytesMaximum, '
    'readFill, compactBelowPercent, directWriteMinimumBytes; an absent key has its default.';
COMMENT ON COLUMN volumes.state IS 'active, or deleting: its rows are being removed in steps and nobody may own it.';
COMMENT ON COLUMN volumes.revision IS 'Grows with every change of the row, its access list or its credentials.';

CREATE TABLE access_initiators (
    volume_id bigint NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    initiator_name text NOT NULL CHECK (octet_length(initiator_name) BETWEEN 1 AND 223),
    PRIMARY KEY (volume_id, initiator_name)
);
COMMENT ON TABLE access_initiators IS 'iSCSI names that may log in to a volume; a volume without a row here admits any.';

CREATE TABLE chap_credentials (
    volume_id bigint NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 255),
    mutual boolean NOT NULL DEFAULT false,
    secret text NOT NULL CHECK (octet_length(secret) BETWEEN 1 AND 255),
    PRIMARY KEY (volume_id, mutual, name)
);
CREATE UNIQUE INDEX chap_credentials_one_mutual ON chap_credentials (volume_id) WHERE mutual;
COMMENT ON TABLE chap_credentials IS 'CHAP names and secrets of a volume; without a row that is not mutual, initiators need none.';
COMMENT ON COLUMN chap_credentials.mutual IS 'true: the target proves itself with this one; at most one a volume.';
COMMENT ON COLUMN chap_credentials.secret IS 'The shared secret; not readable by ashlar_reader.';

CREATE TABLE cache_servers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    endpoint text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    lease_end timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
CREATE INDEX cache_servers_name ON cache_servers (name);
COMMENT ON TABLE cache_servers IS 'A row for every start of a cache server.';
COMMENT ON COLUMN cache_servers.lease_end IS 'Until then it may own volumes; an ended lease is never extended.';

CREATE TABLE volume_epochs (
    volume_id bigint PRIMARY KEY REFERENCES volumes (id) ON DELETE CASCADE,
    epoch bigint NOT NULL DEFAULT 0,
    owner bigint,
    taken_at timestamptz,
    first_version bigint NOT NULL DEFAULT 1,
    first_nexus bigint NOT NULL DEFAULT 1
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
CREATE INDEX volume_epochs_owner ON volume_epochs (owner);
COMMENT ON TABLE volume_epochs IS 'Who owns a volume (I3). A row comes into being with its volume.';
COMMENT ON COLUMN volume_epochs.epoch IS 'Number of the ownership; grows with every takeover; 0: never owned.';
COMMENT ON COLUMN volume_epochs.owner IS 'cache_servers.id of the owner; its lease says whether it still lives.';
COMMENT ON COLUMN volume_epochs.first_version IS 'Block versions from this one on have never been handed out (M2).';
COMMENT ON COLUMN volume_epochs.first_nexus IS 'Nexus numbers from this one on have never been handed out (R3).';

CREATE FUNCTION volumes_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := OLD.revision + 1;
    NEW.changed_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER volumes_revision BEFORE UPDATE ON volumes FOR EACH ROW EXECUTE FUNCTION volumes_changed();

CREATE FUNCTION volumes_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO volume_epochs (volume_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER volumes_epoch AFTER INSERT ON volumes FOR EACH ROW EXECUTE FUNCTION volumes_inserted();

CREATE FUNCTION volume_access_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE volumes SET revision = revision WHERE id = OLD.volume_id;
    END IF;
    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.volume_id <> OLD.volume_id) THEN
        UPDATE volumes SET revision = revision WHERE id = NEW.volume_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER access_initiators_revision AFTER INSERT OR UPDATE OR DELETE ON access_initiators
    FOR EACH ROW EXECUTE FUNCTION volume_access_changed();
CREATE TRIGGER chap_credentials_revision AFTER INSERT OR UPDATE OR DELETE ON chap_credentials
    FOR EACH ROW EXECUTE FUNCTION volume_access_changed();

CREATE TABLE target_nodes (
    node text PRIMARY KEY,
    portal text NOT NULL,
    portal_group_tag integer NOT NULL,
    release text NOT NULL,
    sessions bigint NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE target_nodes IS 'The last heartbeat of every target node.';
COMMENT ON COLUMN target_nodes.portal IS 'Advertised iSCSI portal, address:port.';

CREATE TABLE object_servers (
    id integer PRIMARY KEY CHECK (id > 0),
    name text NOT NULL UNIQUE,
    endpoint text NOT NULL,
    cluster_uuid uuid NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    last_seen timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON TABLE object_servers IS 'Object servers by the number that block_objects.server_id names.';
COMMENT ON COLUMN object_servers.cluster_uuid IS 'Cluster that the roots of the server were made for; equals cluster.uuid.';

CREATE TABLE usage_counters (
    volume_id bigint NOT NULL,
    hour timestamptz NOT NULL,
    source text NOT NULL,
    read_commands bigint NOT NULL DEFAULT 0,
    write_commands bigint NOT NULL DEFAULT 0,
    read_bytes bigint NOT NULL DEFAULT 0,
    written_bytes bigint NOT NULL DEFAULT 0,
    zeroed_bytes bigint NOT NULL DEFAULT 0,
    stored_bytes bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (volume_id, hour, source)
) WITH (fillfactor = 80);
COMMENT ON TABLE usage_counters IS 'Metering: what a volume did in an hour, counted by one source. Kept after the volume is gone.';
COMMENT ON COLUMN usage_counters.source IS 'Node that counted, so that nodes add without waiting for each other.';
COMMENT ON COLUMN usage_counters.stored_bytes IS 'Bytes stored for the volume when last looked at in that hour.';
