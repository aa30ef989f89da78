DROP TRIGGER volumes_shrunk ON volumes;
DROP FUNCTION volumes_shrunk();
ALTER TABLE volume_epochs DROP COLUMN zero_from;
