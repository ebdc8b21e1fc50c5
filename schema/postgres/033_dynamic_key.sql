-- Dynamic batches with a key: who joins loses what older batches of the key have not sent, and who has been addressed by a newer
-- one joins no more.

-- batch_part, kind 4: whom newer batches of its key have addressed, of a dynamic batch (until it is closed).
CREATE INDEX batch_control_dynamic_key ON batch_control (supersede_key) WHERE target IS NOT NULL AND supersede_key <> '';

CREATE FUNCTION bitmap_or(p_a bytea, p_b bytea) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT string_agg(int8send(('x' || encode(substring(p_a FROM 8 * i + 1 FOR 8), 'hex'))::bit(64)::bigint
                               | ('x' || encode(substring(p_b FROM 8 * i + 1 FOR 8), 'hex'))::bit(64)::bigint), '' ORDER BY i)
    FROM generate_series(0, 15) AS i
$$;

-- Those whom the batch addresses, in these blocks (NULL: all), join no older dynamic batch of the key.
CREATE FUNCTION bar_older(p_tenant integer, p_key text, p_batch bigint, p_blocks integer[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO batch_part AS p (batch_id, kind, block, slots)
    SELECT c.batch_id, 4, n.block, bitmap_whole(n.first, n.targets)
    FROM batch_control c JOIN batch b ON b.id = c.batch_id
    JOIN batch_key n ON n.batch_id = p_batch AND (p_blocks IS NULL OR n.block = ANY (p_blocks))
    WHERE c.supersede_key = p_key AND c.target IS NOT NULL AND c.supersede_key <> '' AND NOT c.sealed AND c.batch_id < p_batch
      AND b.tenant_id = p_tenant AND b.closed_ms IS NULL
    ORDER BY c.batch_id, n.block
    ON CONFLICT (batch_id, kind, block) DO UPDATE SET slots = bitmap_or(p.slots, excluded.slots);
END $$;

-- As before, and bars its devices from joining older ones.
CREATE OR REPLACE FUNCTION supersede_older(p_tenant integer, p_key text, p_batch bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    r record;
    v_request integer;
    v_older bigint[] := '{}';
BEGIN
    PERFORM bar_older(p_tenant, p_key, p_batch, NULL);
    FOR r IN
        SELECT o.batch_id, array_agg(n.block) AS blocks, array_agg(bitmap_whole(n.first, n.targets)) AS slots
        FROM batch_key n
        JOIN batch_key o ON o.tenant_id = p_tenant AND o.key = p_key AND o.block = n.block AND o.batch_id < p_batch
        WHERE n.batch_id = p_batch
          AND o.first < n.first + 8 * length(n.targets) AND n.first < o.first + 8 * length(o.targets)
          AND bit_count(('x' || encode(bitmap_whole(n.first, n.targets), 'hex'))::bit(1024)
                        & ('x' || encode(bitmap_whole(o.first, o.targets), 'hex'))::bit(1024)) > 0
        GROUP BY o.batch_id ORDER BY o.batch_id
    LOOP
        INSERT INTO batch_control AS c (batch_id, request) VALUES (r.batch_id, 1)
        ON CONFLICT (batch_id) DO UPDATE SET request = c.request + 1 RETURNING c.request INTO v_request;
        INSERT INTO batch_cancel (batch_id, request, block, slots, superseded)
        SELECT r.batch_id, v_request, u.block, u.slots, true FROM unnest(r.blocks, r.slots) AS u (block, slots);
        v_older := v_older || r.batch_id;
    END LOOP;
    IF v_older <> '{}' THEN
        UPDATE batch_control c SET supersedes = v_older WHERE c.batch_id = p_batch;
    END IF;
    RETURN cardinality(v_older);
END $$;

-- Whether a newer batch has addressed some of these, who were to join.
CREATE FUNCTION join_barred(p_batch bigint, p_blocks integer[], p_new bytea[]) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (SELECT FROM unnest(p_blocks, p_new) AS u (block, new)
                   JOIN batch_part p ON p.batch_id = p_batch AND p.kind = 4 AND p.block = u.block
                   WHERE bit_count(slots_of_bitmap(p.slots) & slots_of_bitmap(u.new)) > 0);
END $$;

-- Before devices join a batch with a key: it has the key for them from now on, and older batches of the key end for them. Rows
-- tell which, and what was asked of each (see supersede_older); the one row (0, 0) that some are barred, and nothing was done.
-- The arrays are those of join_batch.
CREATE FUNCTION join_key(p_tenant integer, p_batch bigint, p_blocks integer[], p_targets bytea[], p_new bytea[])
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
    IF NOT EXISTS (SELECT FROM batch b WHERE b.id = p_batch AND b.closed_ms IS NULL AND b.cancel_requested_ms IS NULL) THEN
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

-- As before; false too when a newer batch of its key has addressed some of them since join_key.
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
-- See supersede_older in 020.
ALTER FUNCTION supersede_older SET enable_seqscan = off;
ALTER FUNCTION supersede_older SET enable_hashjoin = off;
ALTER FUNCTION supersede_older SET enable_mergejoin = off;
ALTER FUNCTION join_key SET enable_seqscan = off;
ALTER FUNCTION join_key SET enable_hashjoin = off;
ALTER FUNCTION join_key SET enable_mergejoin = off;
