DO $$
BEGIN
    IF EXISTS (SELECT FROM volumes WHERE state = 'recovering') THEN
        RAISE EXCEPTION 'a volume is being recovered, which the older schema cannot say'
            USING HINT = 'Run ashlar recover --repair to its end first.';
    END IF;
END $$;
DROP VIEW ashlar_inspect.deletion;
DROP VIEW ashlar_inspect.object_servers;
DROP VIEW ashlar_inspect.scrub;
DROP VIEW ashlar_inspect.damage;
DROP FUNCTION recover_extents(bigint, bigint[], bigint[], bigint[], bigint[]);
DROP FUNCTION scrub_objects(bigint, bigint);
DROP FUNCTION scrub_items(bigint, bigint);
DROP FUNCTION scrub_report(text, bigint, bigint, bigint, bigint);
DROP FUNCTION scrub_end_pass(text);
DROP FUNCTION scrub_hand_out(text, bigint, bigint, bigint);
DROP FUNCTION scrub_begin(text);
DROP TABLE scrub_progress;
DROP TABLE damaged_items;
DROP TABLE damaged_slots;
ALTER TABLE volumes DROP CONSTRAINT volumes_state_check,
    ADD CONSTRAINT volumes_state_check CHECK (state IN ('active', 'deleting'));
COMMENT ON COLUMN volumes.state IS 'active, or deleting: its rows are being removed in steps and nobody may own it.';
ALTER TABLE object_servers DROP COLUMN draining;
DROP TABLE object_server_marks;
DROP SEQUENCE database_clock;
ALTER TABLE cluster DROP COLUMN scrub_interval_seconds, DROP COLUMN scrub_bytes_per_second, DROP COLUMN backup_window_seconds;
