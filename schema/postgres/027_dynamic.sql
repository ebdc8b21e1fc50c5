-- Dynamic batches: who comes to be meant by their target later joins them.

-- The blocks of a dynamic batch have all 1,024 slots (first 0, 128 bytes of targets), so that devices can join in their place.
ALTER TABLE batch_control
    ADD COLUMN target bytea,                           -- encoded muster.v1.Target of a dynamic batch; NULL: it is none
    ADD COLUMN sealed boolean NOT NULL DEFAULT false,  -- nobody joins any more
    ADD COLUMN joined integer NOT NULL DEFAULT 0;      -- devices that have, which device_count has too
CREATE INDEX batch_control_dynamic ON batch_control (batch_id) WHERE target IS NOT NULL;

-- Lets nobody join any more. No row: no such batch, or it is ending.
CREATE FUNCTION seal_batch(p_tenant integer, p_batch bigint, p_now_ms bigint, p_key bigint)
RETURNS TABLE (changed boolean, dynamic boolean) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM batch b WHERE b.id = p_batch AND b.tenant_id = p_tenant AND b.closed_ms IS NULL
                           AND b.cancel_requested_ms IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE batch_control c SET sealed = true, request = c.request + 1
    WHERE c.batch_id = p_batch AND c.target IS NOT NULL AND NOT c.sealed;
    changed := FOUND;
    dynamic := EXISTS (SELECT FROM batch_control c WHERE c.batch_id = p_batch AND c.target IS NOT NULL);
    IF changed THEN
        PERFORM audit_add(p_now_ms, p_tenant, p_key, 'seal_batch', p_batch::text, NULL, 'done');
    END IF;
    RETURN NEXT;
END $$;

-- Devices join: p_targets is whom the batch addresses in each of the blocks then, p_joined who of them has ever joined, p_new
-- who does now. Their target was resolved since p_since_ms. False when it is too late.
CREATE FUNCTION join_batch(p_tenant integer, p_batch bigint, p_devices integer, p_blocks integer[], p_targets bytea[],
                           p_joined bytea[], p_new bytea[], p_since_ms bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    r record;
    v_states bytea;
BEGIN
    -- As acceptance does, and for its reasons: see accept_batch.
    PERFORM FROM tenant t WHERE t.id = p_tenant FOR KEY SHARE;
    PERFORM FROM batch b JOIN batch_control c ON c.batch_id = b.id
    WHERE b.id = p_batch AND b.closed_ms IS NULL AND b.cancel_requested_ms IS NULL AND c.target IS NOT NULL AND NOT c.sealed
    FOR UPDATE OF b;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- A state of 0 would be nobody's: those who join are QUEUED.
    FOR r IN SELECT k.block, k.states, u.new FROM unnest(p_blocks, p_new) AS u (block, new)
             JOIN batch_block k ON k.batch_id = p_batch AND k.block = u.block WHERE k.states IS NOT NULL
    LOOP
        v_states := r.states;
        FOR i IN 0 .. 1023 LOOP
            IF get_bit(r.new, i) = 1 THEN
                v_states := set_byte(v_states, i, 2);
            END IF;
        END LOOP;
        UPDATE batch_block k SET states = v_states WHERE k.batch_id = p_batch AND k.block = r.block;
    END LOOP;
    INSERT INTO batch_block (batch_id, block, first, targets)
    SELECT p_batch, u.block, 0, u.targets FROM unnest(p_blocks, p_targets) AS u (block, targets)
    ON CONFLICT (batch_id, block) DO UPDATE SET targets = excluded.targets;
    INSERT INTO batch_part (batch_id, kind, block, slots)
    SELECT p_batch, 2, u.block, u.joined FROM unnest(p_blocks, p_joined) AS u (block, joined)
    ON CONFLICT (batch_id, kind, block) DO UPDATE SET slots = excluded.slots;
    UPDATE batch b SET device_count = b.device_count + p_devices WHERE b.id = p_batch;
    UPDATE batch_control c SET joined = c.joined + p_devices WHERE c.batch_id = p_batch;
    INSERT INTO device_cancel (tenant_id, seq)
    SELECT p_tenant, d.seq FROM device d WHERE d.tenant_id = p_tenant AND d.deleted_ms > p_since_ms - 10000
    ORDER BY d.seq
    ON CONFLICT DO NOTHING;
    RETURN true;
END $$;
