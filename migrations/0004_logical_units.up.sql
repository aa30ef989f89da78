-- ashlar: oldest-release 0.2
-- What belongs to the logical unit of a volume beside its blocks: persistent reservations, mode parameters, identifying
-- information, an erasure under way, and the unit attention conditions of its nexuses. Only the owner of a volume writes these
-- tables, under its epoch (I3). A program that does not know them would let writes through that a reservation forbids.

CREATE TABLE logical_units (
    volume_id bigint PRIMARY KEY REFERENCES volumes (id) ON DELETE CASCADE,
    generation bigint NOT NULL DEFAULT 0 CHECK (generation BETWEEN 0 AND 4294967295),
    reservation_type smallint CHECK (reservation_type IN (1, 3, 5, 6, 7, 8)),
    reserved_by bigint,
    mode jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(mode) = 'object'),
    saved_mode jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(saved_mode) = 'object'),
    identifying_information bytea NOT NULL DEFAULT '' CHECK (length(identifying_information) <= 64),
    identifying_text bytea NOT NULL DEFAULT '' CHECK (length(identifying_text) <= 256),
    erasure_kind smallint CHECK (erasure_kind BETWEEN 1 AND 4),
    erasure_position bigint NOT NULL DEFAULT 0 CHECK (erasure_position >= 0),
    erasure_pattern bytea NOT NULL DEFAULT '',
    told_size_bytes bigint,
    told_read_only boolean
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE logical_units IS
    'State of a volume''s logical unit, the same through every target. A volume without a row has that of a fresh one.';
COMMENT ON COLUMN logical_units.generation IS 'PRGENERATION of persistent reservations.';
COMMENT ON COLUMN logical_units.reservation_type IS
    'Persistent reservation. 1: write exclusive, 3: exclusive access, 5 and 6: the same, registrants only, 7 and 8: all '
    'registrants. NULL: none.';
COMMENT ON COLUMN logical_units.reserved_by IS 'Nexus that holds the unit by RESERVE (6), as long as it is in nexuses.';
COMMENT ON COLUMN logical_units.mode IS
    'Mode parameters in force. SWP: software write protection. DSense: sense data in descriptor format. DExcpt, MRIE: '
    'informational exceptions. An absent key is false or 0.';
COMMENT ON COLUMN logical_units.saved_mode IS 'Mode parameters that come back with a reset.';
COMMENT ON COLUMN logical_units.erasure_kind IS
    'What SANITIZE or FORMAT UNIT does now. 1: block erase, 2: cryptographic erase, 3: overwrite, 4: format. NULL: nothing.';
COMMENT ON COLUMN logical_units.erasure_position IS 'All bytes of the volume below it are erased.';
COMMENT ON COLUMN logical_units.erasure_pattern IS 'One logical block to overwrite with.';
COMMENT ON COLUMN logical_units.told_size_bytes IS
    'Size of the volume that its nexuses know of: by a login, or by a unit attention condition. NULL: nobody logged in yet.';
COMMENT ON COLUMN logical_units.told_read_only IS 'Read-only, as its nexuses know of.';

CREATE TABLE registrations (
    volume_id bigint NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    initiator_name text NOT NULL,
    isid bigint NOT NULL CHECK (isid BETWEEN 0 AND 281474976710655),
    portal_group_tag integer NOT NULL,
    relative_port_identifier integer NOT NULL,
    reservation_key bigint NOT NULL CHECK (reservation_key <> 0),
    holder boolean NOT NULL,
    place integer NOT NULL,
    PRIMARY KEY (volume_id, initiator_name, isid, portal_group_tag)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE registrations IS 'Nexuses that are registered for persistent reservations; they need not be logged in.';
COMMENT ON COLUMN registrations.reservation_key IS 'The 64 bits of the key, as a signed number.';
COMMENT ON COLUMN registrations.holder IS 'Holds the reservation; of those of all registrants nobody does alone.';
COMMENT ON COLUMN registrations.place IS 'In the order in which they were made.';

ALTER TABLE nexuses ADD COLUMN attentions smallint[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN nexuses.attentions IS
    'Unit attention conditions that wait to be reported, oldest first; what was reported since the last commit still stands here.';

ALTER TABLE target_nodes
    ADD COLUMN relative_port_identifier integer NOT NULL DEFAULT 0,
    ADD COLUMN receives_logins boolean NOT NULL DEFAULT true,
    ADD COLUMN draining boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN target_nodes.relative_port_identifier IS 'SCSI''s number of the target port; 0: told by an older release.';
COMMENT ON COLUMN target_nodes.receives_logins IS 'Other nodes may send logins there: it does not send them elsewhere itself.';
COMMENT ON COLUMN target_nodes.draining IS 'An operator wants the node''s sessions to go elsewhere.';

CREATE VIEW ashlar_inspect.reservations AS
SELECT v.name AS volume, r.initiator_name, lpad(to_hex(r.isid), 12, '0') AS isid, r.portal_group_tag,
    r.relative_port_identifier, '0x' || lpad(to_hex(r.reservation_key), 16, '0') AS reservation_key,
    CASE WHEN u.reservation_type IN (7, 8) OR r.holder THEN CASE u.reservation_type
        WHEN 1 THEN 'write exclusive'
        WHEN 3 THEN 'exclusive access'
        WHEN 5 THEN 'write exclusive, registrants only'
        WHEN 6 THEN 'exclusive access, registrants only'
        WHEN 7 THEN 'write exclusive, all registrants'
        WHEN 8 THEN 'exclusive access, all registrants'
    END END AS holds,
    u.generation
FROM registrations r
JOIN volumes v ON v.id = r.volume_id
JOIN logical_units u ON u.volume_id = r.volume_id;
COMMENT ON VIEW ashlar_inspect.reservations IS 'Registrations of persistent reservations; holds is NULL where one holds nothing.';

CREATE VIEW ashlar_inspect.logical_units AS
SELECT v.name AS volume, v.read_only OR coalesce((u.mode ->> 'SWP')::boolean, false) AS write_protected,
    n.initiator_name AS reserved_by, coalesce(u.mode, '{}') AS mode, coalesce(u.saved_mode, '{}') AS saved_mode,
    CASE u.erasure_kind
        WHEN 1 THEN 'block erase' WHEN 2 THEN 'cryptographic erase' WHEN 3 THEN 'overwrite' WHEN 4 THEN 'format'
    END AS erasure,
    CASE WHEN u.erasure_kind IS NOT NULL THEN u.erasure_position::float8 / v.size_bytes END AS erased_share
FROM volumes v
LEFT JOIN logical_units u ON u.volume_id = v.id
LEFT JOIN nexuses n ON n.volume_id = v.id AND n.nexus = u.reserved_by;
COMMENT ON VIEW ashlar_inspect.logical_units IS 'State of the logical units: protection, RESERVE (6), mode parameters, erasure.';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ashlar_reader') THEN
        GRANT SELECT ON logical_units, registrations, ashlar_inspect.reservations, ashlar_inspect.logical_units TO ashlar_reader;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role ashlar_reader was not given its rights: %', SQLERRM;
END $$;
