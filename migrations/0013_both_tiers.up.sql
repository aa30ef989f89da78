-- ashlar: oldest-release 0.3
-- Writes that go to the cache and into an object at the same time, from which size on; reads that ask both at once: by volume. A program that
-- does not know the keys leaves them alone.
ALTER TABLE volumes DROP CONSTRAINT volumes_config_is_valid;
ALTER TABLE volumes ADD CONSTRAINT volumes_config_is_valid CHECK (
    jsonb_typeof(config) = 'object'
    AND coalesce(config ->> 'move', 'fifo') IN ('lru', 'fifo', 'count', 'bytes', 'age')
    AND coalesce(config ->> 'readFill', 'never') IN ('never', 'always', 'second')
    AND coalesce((config ->> 'unmovedItemsMaximum')::bigint, 0) >= 0
    AND coalesce((config ->> 'unmovedBytesMaximum')::bigint, 0) >= 0
    AND coalesce((config ->> 'unmovedAgeMaximumSeconds')::bigint, 0) BETWEEN 0 AND 4294967295
    AND coalesce((config ->> 'cachedBytesMaximum')::bigint, 0) >= 0
    AND coalesce((config ->> 'compactBelowPercent')::bigint, 0) BETWEEN 0 AND 100
    AND coalesce((config ->> 'directWriteMinimumBytes')::bigint, 0) BETWEEN 0 AND 4294967295
    AND coalesce((config ->> 'writeThroughMinimumBytes')::bigint, 0) BETWEEN 0 AND 4294967295
    AND jsonb_typeof(coalesce(config -> 'readsBothAtOnce', 'false')) = 'boolean'
);
COMMENT ON COLUMN volumes.config IS
    'Cache policy; keys move, unmovedItemsMaximum, unmovedBytesMaximum, unmovedAgeMaximumSeconds, cachedBytesMaximum, '
    'readFill, compactBelowPercent, directWriteMinimumBytes, writeThroughMinimumBytes, readsBothAtOnce; an absent key has its default.';
