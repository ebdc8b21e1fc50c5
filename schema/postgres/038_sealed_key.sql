-- A dynamic batch with a key that was sealed while devices were to join it. With join_key older batches have ended for them and
-- bar them: from then on they join, sealed or not, or they would be left with neither; and a sealed batch takes its key for nobody
-- more. Before, the one and the other hung on when it was sealed.

-- Whether the batch has its key for all of these.
CREATE FUNCTION join_has_key(p_tenant integer, p_key text, p_batch bigint, p_blocks integer[], p_new bytea[]) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    RETURN NOT EXISTS (
        SELECT FROM unnest(p_blocks, p_new) AS u (block, new)
        LEFT JOIN batch_key k ON k.tenant_id = p_tenant AND k.key = p_key AND k.block = u.block AND k.batch_id = p_batch
        WHERE k.batch_id IS NULL OR bit_count(slots_of_bitmap(u.new) & ~slots_of_bitmap(bitmap_whole(k.first, k.targets))) > 0);
END $$;

-- As before, and no rows when the batch is sealed, or over.
CREATE OR REPLACE FUNCTION join_key(p_tenant integer, p_batch bigint, p_blocks integer[], p_targets bytea[], p_new bytea[])
RETURNS TABLE (older bigint, asked integer) LANGUAGE plpgsql AS $$
DECLARE
    v_key text := (SELECT c.supersede_key FROM batch_control c WHERE c.batch_id = p_batch);
    r record;
BEGIN
    PERFORM hold_keys(ARRAY[p_tenant], ARRAY[v_key]);
    IF join_barred(p_batch, p_blocks, p_new) THEN
        RETURN QUERY SELECT 0::bigint, 0;
        RETURN;
    END IF;
    PERFORM FROM batch b WHERE b.id = p_batch AND b.closed_ms IS NULL AND b.cancel_requested_ms IS NULL FOR UPDATE;
    IF NOT FOUND OR EXISTS (SELECT FROM batch_control c WHERE c.batch_id = p_batch AND (c.target IS NULL OR c.sealed)) THEN
        RETURN;
    END IF;
    INSERT INTO batch_key (tenant_id, key, block, batch_id, first, targets)
    SELECT p_tenant, v_key, u.block, p_batch, 0, u.targets FROM unnest(p_blocks, p_targets) AS u (block, targets)
    ON CONFLICT (tenant_id, key, block, batch_id) DO UPDATE SET first = 0, targets = excluded.targets;
    PERFORM bar_older(p_tenant, v_key, p_batch, p_blocks);
    FOR r IN
        SELECT o.batch_id, array_agg(u.block) AS blocks, array_agg(u.new) AS slots
        FROM unnest(p_blocks, p_new) AS u (block, new)
        JOIN batch_key o ON o.tenant_id = p_tenant AND o.key = v_key AND o.block = u.block AND o.batch_id < p_batch
        WHERE bit_count(slots_of_bitmap(u.new) & slots_of_bitmap(bitmap_whole(o.first, o.targets))) > 0
        GROUP BY o.batch_id ORDER BY o.batch_id
    LOOP
        older := r.batch_id;
        INSERT INTO batch_control AS c (batch_id, request) VALUES (r.batch_id, 1)
        ON CONFLICT (batch_id) DO UPDATE SET request = c.request + 1 RETURNING c.request INTO asked;
        INSERT INTO batch_cancel (batch_id, request, block, slots, superseded)
        SELECT r.batch_id, asked, u.block, u.slots, true FROM unnest(r.blocks, r.slots) AS u (block, slots);
        RETURN NEXT;
    END LOOP;
END $$;
ALTER FUNCTION join_key SET enable_seqscan = off;
ALTER FUNCTION join_key SET enable_hashjoin = off;
ALTER FUNCTION join_key SET enable_mergejoin = off;

-- As before; also of a sealed batch that has its key for them.
CREATE OR REPLACE FUNCTION join_batch(p_tenant integer, p_batch bigint, p_devices integer, p_blocks integer[], p_targets bytea[],
                                      p_joined bytea[], p_new bytea[], p_since_ms bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    r record;
    v_states bytea;
    v_key text := (SELECT c.supersede_key FROM batch_control c WHERE c.batch_id = p_batch);
BEGIN
    -- As acceptance does, and for its reasons: see accept_batch.
    PERFORM FROM tenant t WHERE t.id = p_tenant FOR KEY SHARE;
    IF v_key <> '' THEN
        PERFORM hold_keys(ARRAY[p_tenant], ARRAY[v_key]);
        IF join_barred(p_batch, p_blocks, p_new) THEN
            RETURN false;
        END IF;
    END IF;
    PERFORM FROM batch b JOIN batch_control c ON c.batch_id = b.id
    WHERE b.id = p_batch AND b.closed_ms IS NULL AND b.cancel_requested_ms IS NULL AND c.target IS NOT NULL
      AND (NOT c.sealed OR (v_key <> '' AND join_has_key(p_tenant, v_key, p_batch, p_blocks, p_new)))
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
