-- Devices that a batch was to address and that were left out, because they had as many open commands as they may: for the answer
-- to a request that comes again.
CREATE TABLE batch_skipped (
    batch_id bigint  PRIMARY KEY,
    count    integer NOT NULL,
    ids      text[]  NOT NULL -- the first of them
);
