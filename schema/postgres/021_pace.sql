-- Batches that go out at a rate, and parts of a batch's devices.

-- Some of a batch's devices, block by block. kind: 1 the canary group of the first wave, 2 those who joined a dynamic batch, 3 of
-- a batch with a rate those who had their turn (until it is closed).
CREATE TABLE batch_part (
    batch_id bigint   NOT NULL,
    kind     smallint NOT NULL,
    block    integer  NOT NULL,
    slots    bytea    NOT NULL CHECK (length(slots) = 128),
    PRIMARY KEY (batch_id, kind, block)
) WITH (fillfactor = 70);

ALTER TABLE batch_control
    ADD COLUMN rate_steps     integer NOT NULL DEFAULT 0, -- how often its rate has grown,
    ADD COLUMN rate_ended     integer NOT NULL DEFAULT 0, -- and how many commands had an outcome
    ADD COLUMN rate_succeeded integer NOT NULL DEFAULT 0, -- and were good when it did last
    ADD COLUMN paced_ms       bigint  NOT NULL DEFAULT 0; -- when somebody had a turn last; 0: nobody yet
