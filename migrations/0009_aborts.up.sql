-- When another nexus last aborted the changes of one: by a reset, CLEAR TASK SET, or PREEMPT AND ABORT. A change that came with an older
-- proof is not sent again behind a takeover (R9).
ALTER TABLE nexuses
    ADD COLUMN aborted_epoch bigint,
    ADD COLUMN aborted_ns bigint,
    ADD CHECK ((aborted_epoch IS NULL) = (aborted_ns IS NULL));
COMMENT ON COLUMN nexuses.aborted_epoch IS 'Epoch in which another nexus last aborted the commands of this one. NULL: none ever did.';
COMMENT ON COLUMN nexuses.aborted_ns IS 'When that was, in nanoseconds on the clock of who served that epoch.';
