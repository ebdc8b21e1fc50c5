-- A dynamic batch has its key for devices that have not joined it: its leader ended in between, or one of them was barred. Older
-- batches have ended for them, so they join with whoever leads next, sealed or not, and the key is not taken from them again.

-- Whom newer batches of the key bar, of a sealed batch too.
CREATE OR REPLACE FUNCTION bar_older(p_tenant integer, p_key text, p_batch bigint, p_blocks integer[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO batch_part AS p (batch_id, kind, block, slots)
    SELECT c.batch_id, 4, n.block, bitmap_whole(n.first, n.targets)
    FROM batch_control c JOIN batch b ON b.id = c.batch_id
    JOIN batch_key n ON n.batch_id = p_batch AND (p_blocks IS NULL OR n.block = ANY (p_blocks))
    WHERE c.supersede_key = p_key AND c.target IS NOT NULL AND c.supersede_key <> '' AND c.batch_id < p_batch
      AND b.tenant_id = p_tenant AND b.closed_ms IS NULL
    ORDER BY c.batch_id, n.block
    ON CONFLICT (batch_id, kind, block) DO UPDATE SET slots = bitmap_or(p.slots, excluded.slots);
END $$;

-- Of these bitmaps, which have all slots, the first without what is in the others (NULL: none).
CREATE FUNCTION bitmap_without(p_a bytea, p_b bytea, p_c bytea) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT string_agg(int8send(('x' || encode(substring(p_a FROM 8 * i + 1 FOR 8), 'hex'))::bit(64)::bigint
                               & ~coalesce(('x' || encode(substring(p_b FROM 8 * i + 1 FOR 8), 'hex'))::bit(64)::bigint, 0)
                               & ~coalesce(('x' || encode(substring(p_c FROM 8 * i + 1 FOR 8), 'hex'))::bit(64)::bigint, 0)),
                      '' ORDER BY i)
    FROM generate_series(0, 15) AS i
$$;

-- Whom a dynamic batch has its key for, who has not joined and may: block by block.
CREATE FUNCTION join_taken(p_batch bigint) RETURNS TABLE (block integer, slots bytea) LANGUAGE sql STABLE AS $$
    SELECT k.block, t.slots
    FROM batch_key k
    LEFT JOIN batch_block b ON b.batch_id = k.batch_id AND b.block = k.block
    LEFT JOIN batch_part p ON p.batch_id = k.batch_id AND p.kind = 4 AND p.block = k.block
    CROSS JOIN LATERAL (SELECT bitmap_without(bitmap_whole(k.first, k.targets), bitmap_whole(b.first, b.targets), p.slots) AS slots) t
    WHERE k.batch_id = p_batch AND bit_count(t.slots) > 0
    ORDER BY k.block
$$;

-- As before; once more for those it has its key for already, also when the batch is sealed.
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
    IF NOT FOUND OR NOT EXISTS (SELECT FROM batch_control c WHERE c.batch_id = p_batch AND c.target IS NOT NULL
                                AND (NOT c.sealed OR join_has_key(p_tenant, v_key, p_batch, p_blocks, p_new))) THEN
        RETURN;
    END IF;
    INSERT INTO batch_key AS k (tenant_id, key, block, batch_id, first, targets)
    SELECT p_tenant, v_key, u.block, p_batch, 0, u.targets FROM unnest(p_blocks, p_targets) AS u (block, targets)
    ON CONFLICT (tenant_id, key, block, batch_id)
    DO UPDATE SET first = 0, targets = bitmap_or(bitmap_whole(k.first, k.targets), excluded.targets);
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
