-- Undoes 0009_aborts.up.sql.
ALTER TABLE nexuses DROP COLUMN aborted_epoch, DROP COLUMN aborted_ns;
