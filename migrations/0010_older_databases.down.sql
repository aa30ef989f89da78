CREATE OR REPLACE FUNCTION volumes_shrunk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(NEW.id * 2);
    UPDATE volume_epochs SET epoch = epoch + 1, zero_from = least(zero_from, NEW.size_bytes) WHERE volume_id = NEW.id;
    RETURN NULL;
END $$;
ALTER TABLE volume_epochs DROP COLUMN shrunk_to, DROP COLUMN shrunk_version;
CREATE OR REPLACE VIEW ashlar_inspect.deletion AS
SELECT m.server_id, m.clock <= q.clock AND m.highest_object < q.next_object AS allowed, m.clock AS server_clock,
    q.clock AS database_clock, m.highest_object, q.next_object, m.checked_at
FROM object_server_marks m
CROSS JOIN (
    SELECT CASE WHEN c.is_called THEN c.last_value ELSE 0 END AS clock,
        CASE WHEN n.is_called THEN n.last_value + 1 ELSE n.last_value END AS next_object
    FROM database_clock c, block_objects_object_id_seq n) q;
DROP TRIGGER block_objects_handed_out ON block_objects;
DROP FUNCTION block_objects_handed_out();
-- Object servers were told the clock of the row.
SELECT setval('database_clock', greatest((SELECT last_value FROM database_clock), (SELECT clock FROM database_age)));
COMMENT ON SEQUENCE database_clock IS NULL;
DROP TABLE database_age;
