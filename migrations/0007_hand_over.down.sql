DROP VIEW ashlar_inspect.cache_servers;
DROP INDEX volume_epochs_handed;
ALTER TABLE volume_epochs DROP COLUMN handed_at, DROP COLUMN handed_to;
ALTER TABLE cache_servers DROP COLUMN stopping;
DROP TABLE cache_nodes;
