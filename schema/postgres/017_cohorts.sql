-- Thresholds that cancel a batch for the devices of a platform.

ALTER TABLE batch_control
    ADD COLUMN canceled integer NOT NULL DEFAULT 0; -- platforms for which a threshold has canceled it: bit n for platform n

-- Several platforms at once have several rows of a block.
ALTER TABLE batch_cancel DROP CONSTRAINT batch_cancel_pkey;
CREATE INDEX batch_cancel_batch ON batch_cancel (batch_id, request);
