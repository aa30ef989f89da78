-- Undoes 0012_hot_objects.up.sql.
DROP INDEX block_objects_empty;
CREATE INDEX block_objects_empty ON block_objects (object_id) WHERE state = 'live' AND live_slots = 0;
ALTER TABLE block_objects DROP COLUMN is_empty;
