-- Batches that have a value per device.

-- It has values: rows below. Said here so that all the others need not look.
ALTER TABLE batch ADD COLUMN valued boolean NOT NULL DEFAULT false;

-- Once per batch. `defaults` and `salt` are emptied when the batch is closed.
CREATE TABLE batch_values (
    batch_id  bigint PRIMARY KEY,
    described bytea  NOT NULL, -- encoded muster.v1.BatchValues, which is told of it
    defaults  bytea  NOT NULL, -- packed values (proto/fill.h) of devices that have none; empty: all have
    salt      bytea  NOT NULL  -- what the command's hash was begun with
);

-- The values of one block, all of them: lib/store/value_block.h. Secrets hardly compress. Deleted when the batch is closed.
CREATE TABLE batch_value_block (
    batch_id bigint  NOT NULL,
    block    integer NOT NULL,
    vals     bytea   NOT NULL,
    PRIMARY KEY (batch_id, block)
);
ALTER TABLE batch_value_block ALTER COLUMN vals SET STORAGE EXTERNAL;

-- Last statement of a transaction that accepts a batch with values: writes them, for a batch that it made.
CREATE FUNCTION values_accepted(p_tenant integer, p_request_id text, p_described bytea, p_defaults bytea, p_salt bytea,
                                p_blocks integer[], p_vals bytea[]) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_id bigint;
BEGIN
    UPDATE batch b SET valued = true
    WHERE b.tenant_id = p_tenant AND b.request_id = p_request_id AND b.xmin = pg_current_xact_id()::xid
    RETURNING b.id INTO v_id;
    IF v_id IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO batch_values (batch_id, described, defaults, salt) VALUES (v_id, p_described, p_defaults, p_salt);
    INSERT INTO batch_value_block (batch_id, block, vals)
    SELECT v_id, u.block, u.vals FROM unnest(p_blocks, p_vals) AS u (block, vals);
    RETURN true;
END $$;

-- Who closes a batch need not know that it has values: they go in the same transaction. What stays is what is told of them.
CREATE FUNCTION forget_values() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM batch_value_block v WHERE v.batch_id = NEW.id;
    UPDATE batch_values v SET defaults = '', salt = '' WHERE v.batch_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER batch_forget_values AFTER UPDATE OF closed_ms ON batch FOR EACH ROW
    WHEN (NEW.valued AND NEW.closed_ms IS NOT NULL) EXECUTE FUNCTION forget_values();
