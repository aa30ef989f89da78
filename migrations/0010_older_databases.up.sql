-- ashlar: oldest-release 0.2
-- What an older database has to be known by, exactly: a clock and the highest object id in a row, and what shrinks have taken away.

-- Locks in the order in which commits take them: first those of volumes whose epoch is going to end, and no more such volumes.
LOCK TABLE volumes IN SHARE ROW EXCLUSIVE MODE;
SELECT pg_advisory_xact_lock(volume_id * 2) FROM volume_epochs WHERE zero_from IS NOT NULL;

-- Which versions a shrink has taken away. A database that went back to before the volume grew again and was written to needs it to
-- tell what was written since from what the shrink has taken.
ALTER TABLE volume_epochs ADD COLUMN shrunk_to bigint CHECK (shrunk_to > 0), ADD COLUMN shrunk_version bigint,
    ADD CONSTRAINT volume_epochs_shrunk CHECK ((shrunk_to IS NULL) = (shrunk_version IS NULL));
COMMENT ON COLUMN volume_epochs.shrunk_to IS 'Bytes from here on were taken away by the last shrink. NULL: it never shrank.';
COMMENT ON COLUMN volume_epochs.shrunk_version IS 'What lies behind shrunk_to under a version below this one is of before the last shrink.';

-- What waits to become zeros is of before an epoch that begins now.
UPDATE volume_epochs SET epoch = epoch + 1, shrunk_to = zero_from, shrunk_version = first_version WHERE zero_from IS NOT NULL;

-- A sequence is up to 32 numbers ahead after a crash, on a promoted standby and after a restore to a point in time, and a dump has its
-- value from after the dump's snapshot: it hides that a database went back. A row is as old as everything else.
CREATE TABLE database_age (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    clock bigint NOT NULL,
    highest_object bigint NOT NULL,
    behind_since timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE database_age IS 'How far this database has come, as object servers are told; by it they know an older one (M8).';
COMMENT ON COLUMN database_age.clock IS 'Ticks whenever agents ask whether they may delete.';
COMMENT ON COLUMN database_age.highest_object IS 'The highest object id that was ever handed out.';
COMMENT ON COLUMN database_age.behind_since IS
    'Since when an object server is known to know more than this database: nothing is deleted until its map was rebuilt.';

CREATE FUNCTION block_objects_handed_out() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE database_age a SET highest_object = n.highest FROM (SELECT max(object_id) AS highest FROM handed_out) n
    WHERE a.highest_object < n.highest;
    RETURN NULL;
END $$;
CREATE TRIGGER block_objects_handed_out AFTER INSERT ON block_objects REFERENCING NEW TABLE AS handed_out
    FOR EACH STATEMENT EXECUTE FUNCTION block_objects_handed_out();
-- From here on nothing is handed out until this is committed.
-- Far ahead of the old clock, on which cache servers of before go on until they are restarted: they let nothing be deleted meanwhile.
INSERT INTO database_age (clock, highest_object)
SELECT CASE WHEN c.is_called THEN c.last_value + 1000000 ELSE 0 END, CASE WHEN n.is_called THEN n.last_value ELSE n.last_value - 1 END
FROM database_clock c, block_objects_object_id_seq n;
COMMENT ON SEQUENCE database_clock IS 'The clock of releases before database_age.';

CREATE OR REPLACE VIEW ashlar_inspect.deletion AS
SELECT m.server_id, m.clock <= a.clock AND m.highest_object <= a.highest_object AND a.behind_since IS NULL AS allowed,
    m.clock AS server_clock, a.clock AS database_clock, m.highest_object, a.highest_object + 1 AS next_object, m.checked_at
FROM object_server_marks m CROSS JOIN database_age a;

CREATE OR REPLACE FUNCTION volumes_shrunk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(NEW.id * 2);
    -- Between the smallest size and the new one nothing was written since that smaller shrink, as long as its mark is there.
    UPDATE volume_epochs SET epoch = epoch + 1, zero_from = least(zero_from, NEW.size_bytes),
        shrunk_to = least(zero_from, NEW.size_bytes), shrunk_version = first_version
    WHERE volume_id = NEW.id;
    RETURN NULL;
END $$;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ashlar_reader') THEN
        GRANT SELECT ON database_age TO ashlar_reader;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role ashlar_reader was not given its rights: %', SQLERRM;
END $$;
