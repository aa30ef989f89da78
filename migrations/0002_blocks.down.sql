DROP FUNCTION delete_volume_step(bigint, integer);
DROP TABLE nexus_marks;
DROP TABLE nexuses;
DROP TABLE block_extents;
DROP TABLE block_objects;
DROP TABLE block_items;
