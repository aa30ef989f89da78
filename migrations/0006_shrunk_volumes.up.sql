-- ashlar: oldest-release 0.2
-- A volume that shrinks leaves items and extents behind its end. They have to become zeros before it grows over them again, which is
-- remembered from the shrink on, however often the size changes and whoever owns the volume meanwhile.

ALTER TABLE volume_epochs ADD COLUMN zero_from bigint CHECK (zero_from > 0);
COMMENT ON COLUMN volume_epochs.zero_from IS
    'Bytes from here on may hold what has to become zeros first: the smallest size since the owner last was rid of that. NULL: none.';
-- What earlier shrinks have left is not known.
UPDATE volume_epochs e SET zero_from = v.size_bytes FROM volumes v WHERE v.id = e.volume_id AND e.epoch > 0;

-- The shrink ends the epoch, so that no write of before it is committed behind it. The owner stays who it is: nobody else can take the
-- volume over as long as its lease lives.
CREATE FUNCTION volumes_shrunk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(NEW.id * 2);
    UPDATE volume_epochs SET epoch = epoch + 1, zero_from = least(zero_from, NEW.size_bytes) WHERE volume_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER volumes_shrunk AFTER UPDATE OF size_bytes ON volumes FOR EACH ROW
    WHEN (NEW.size_bytes < OLD.size_bytes) EXECUTE FUNCTION volumes_shrunk();
