DROP VIEW ashlar_inspect.logical_units;
DROP VIEW ashlar_inspect.reservations;
ALTER TABLE target_nodes DROP COLUMN draining, DROP COLUMN receives_logins, DROP COLUMN relative_port_identifier;
ALTER TABLE nexuses DROP COLUMN attentions;
DROP TABLE registrations;
DROP TABLE logical_units;
