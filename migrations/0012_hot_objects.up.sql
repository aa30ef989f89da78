-- ashlar: oldest-release 0.3
-- A row of block_objects is updated whenever a block in it is overwritten. Where live_slots itself was in the predicate of an index, each such
-- update made new entries in all indexes of the row; whether it is 0 changes once.
ALTER TABLE block_objects ADD COLUMN is_empty boolean GENERATED ALWAYS AS (live_slots = 0) STORED;
COMMENT ON COLUMN block_objects.is_empty IS 'Whether no extent refers to a slot.';
DROP INDEX block_objects_empty;
CREATE INDEX block_objects_empty ON block_objects (object_id) WHERE state = 'live' AND is_empty;
