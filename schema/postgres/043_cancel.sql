-- Who a batch is canceled for is kept until it is closed: what was sent then, and is put off or to be tried again later, ends.

ALTER FUNCTION bitmap_or(bytea, bytea) STRICT;
CREATE AGGREGATE bitmap_union(bytea) (SFUNC = bitmap_or, STYPE = bytea, PARALLEL = SAFE);

-- One row of a block, however often it was asked for: with the last request.
WITH asked AS (DELETE FROM batch_cancel WHERE NOT superseded RETURNING batch_id, request, block, slots)
INSERT INTO batch_cancel (batch_id, request, block, slots)
SELECT a.batch_id, max(a.request), a.block, bitmap_union(a.slots) FROM asked a GROUP BY a.batch_id, a.block;
CREATE UNIQUE INDEX batch_cancel_some ON batch_cancel (batch_id, block) WHERE NOT superseded;

-- As before, and keeps one row of a block.
CREATE OR REPLACE FUNCTION cancel_some(p_tenant integer, p_batch bigint, p_blocks integer[], p_slots bytea[], p_now_ms bigint,
                                       p_key bigint)
RETURNS TABLE (changed boolean) LANGUAGE plpgsql AS $$
DECLARE
    v_request integer;
BEGIN
    PERFORM FROM batch b WHERE b.id = p_batch AND b.tenant_id = p_tenant AND b.closed_ms IS NULL
                           AND b.cancel_requested_ms IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO batch_control AS c (batch_id, request) VALUES (p_batch, 1)
    ON CONFLICT (batch_id) DO UPDATE SET request = c.request + 1 RETURNING c.request INTO v_request;
    INSERT INTO batch_cancel AS x (batch_id, request, block, slots)
    SELECT p_batch, v_request, u.block, u.slots FROM unnest(p_blocks, p_slots) AS u (block, slots)
    ON CONFLICT (batch_id, block) WHERE NOT superseded
    DO UPDATE SET slots = bitmap_or(x.slots, excluded.slots), request = excluded.request;
    PERFORM audit_add(p_now_ms, p_tenant, p_key, 'cancel_batch_for_some', p_batch::text,
                      (SELECT sum(bit_count(u.slots)) FROM unnest(p_slots) AS u (slots))::integer, '');
    RETURN QUERY SELECT true;
END $$;
