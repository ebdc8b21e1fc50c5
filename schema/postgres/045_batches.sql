-- A dynamic batch that addresses nobody yet is a batch like others: it counts among the open ones that a quota allows, and is
-- refused beyond.

-- As before, with a number of commands of NULL for a batch that has none yet. 0 is none that would be made.
CREATE OR REPLACE FUNCTION quota_take(p_tenants integer[], p_request_ids text[], p_commands integer[]) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    q quota;
    v bigint[] := '{}';
    v_now_ms double precision;
    v_commands integer;
    v_need double precision;
BEGIN
    FOR i IN 1 .. cardinality(p_tenants) LOOP
        v[i] := 0;
        IF i = 1 OR p_tenants[i] <> p_tenants[i - 1] THEN
            IF q.tenant_id IS NOT NULL THEN
                PERFORM quota_keep(q);
            END IF;
            SELECT x.* INTO q FROM quota x
            WHERE x.tenant_id = p_tenants[i] AND (x.open_batches > 0 OR x.commands_per_second > 0) FOR UPDATE;
            IF q.commands_per_second > 0 THEN
                v_now_ms := clock_ms();
                q.commands_left := quota_filled(q, v_now_ms);
                q.filled_ms := v_now_ms;
            END IF;
        END IF;
        CONTINUE WHEN q.tenant_id IS NULL OR p_commands[i] = 0;
        CONTINUE WHEN EXISTS (SELECT FROM batch b WHERE b.tenant_id = p_tenants[i] AND b.request_id = p_request_ids[i]);
        IF q.open_batches > 0 THEN
            q := quota_count(q, clock_ms());
            IF q.counted_open >= q.open_batches THEN
                v[i] := quota_refusal(2, 1000);
                CONTINUE;
            END IF;
        END IF;
        v_commands := coalesce(p_commands[i], 0);
        v_need := least(v_commands, quota_burst(q));
        IF q.commands_per_second > 0 AND v_commands > 0 AND q.commands_left < v_need THEN
            v[i] := quota_refusal(3, (v_need - q.commands_left) * 1000 / q.commands_per_second);
            CONTINUE;
        END IF;
        IF q.commands_per_second > 0 THEN
            q.commands_left := q.commands_left - v_commands;
        END IF;
        IF q.open_batches > 0 THEN
            INSERT INTO quota_open (tenant_id, request_id) VALUES (p_tenants[i], p_request_ids[i]) ON CONFLICT DO NOTHING;
            q.counted_open := q.counted_open + 1;
        END IF;
    END LOOP;
    IF q.tenant_id IS NOT NULL THEN
        PERFORM quota_keep(q);
    END IF;
    RETURN v;
END $$;

-- As before.
CREATE OR REPLACE FUNCTION accept_batch(p_tenant integer, p_request_id text, p_hash bytea, p_description text, p_command bytea,
                                        p_priority smallint, p_device_count integer, p_unknown_count integer,
                                        p_unknown_ids text[], p_created_ms bigint, p_expires_ms bigint,
                                        p_blocks integer[], p_firsts smallint[], p_targets bytea[])
RETURNS TABLE (created boolean, batch_id bigint)
LANGUAGE plpgsql AS $$
DECLARE
    v_id bigint;
BEGIN
    IF EXISTS (SELECT FROM quota q WHERE q.tenant_id = p_tenant) THEN
        v_id := (quota_take(ARRAY[p_tenant], ARRAY[p_request_id], ARRAY[nullif(p_device_count, 0)]))[1];
        IF v_id < 0 THEN
            RETURN QUERY SELECT false, v_id;
            RETURN;
        END IF;
    END IF;
    INSERT INTO batch AS b (tenant_id, request_id, request_hash, description, command, priority, device_count,
                            unknown_count, unknown_ids, created_ms, expires_ms)
    VALUES (p_tenant, p_request_id, p_hash, p_description, p_command, p_priority, p_device_count,
            p_unknown_count, p_unknown_ids, p_created_ms, p_expires_ms)
    ON CONFLICT (tenant_id, request_id) DO NOTHING
    RETURNING b.id INTO v_id;
    IF v_id IS NULL THEN
        RETURN QUERY SELECT false, b.id FROM batch b WHERE b.tenant_id = p_tenant AND b.request_id = p_request_id;
    ELSE
        INSERT INTO batch_block (batch_id, block, first, targets)
        SELECT v_id, u.block, u.first, u.targets FROM unnest(p_blocks, p_firsts, p_targets) AS u (block, first, targets);
        -- A device may have been deleted since the target was resolved, and what was open for it ended before this batch was
        -- there: the leader looks once more. A few seconds more than resolving takes, for clocks that differ.
        INSERT INTO device_cancel (tenant_id, seq)
        SELECT p_tenant, d.seq FROM device d WHERE d.tenant_id = p_tenant AND d.deleted_ms > p_created_ms - 10000
        ORDER BY d.seq
        ON CONFLICT DO NOTHING;
        RETURN QUERY SELECT true, v_id;
    END IF;
END $$;

-- Those that are open and were not counted.
INSERT INTO quota_open (tenant_id, request_id)
SELECT b.tenant_id, b.request_id FROM quota q JOIN batch b ON b.tenant_id = q.tenant_id AND b.closed_ms IS NULL
WHERE q.open_batches > 0
ON CONFLICT DO NOTHING;
UPDATE quota q SET counted_open = (SELECT count(*) FROM quota_open o WHERE o.tenant_id = q.tenant_id), counted_ms = 0
WHERE q.open_batches > 0;

-- What an older batch has been superseded for already is not asked of it again. It was with each newer batch: where some device
-- that had been sent an older one did not answer, so that this stayed open, each newer one to the fleet left a row a block there, for
-- all that were open, had it taken back from the workers, and read all of the rows.
CREATE INDEX batch_cancel_superseded ON batch_cancel (batch_id, block) WHERE superseded;

-- Of a bitmap as in batch_cancel, to count in.
CREATE FUNCTION bitmap_bits(p bytea) RETURNS bit(1024) LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('x' || encode(p, 'hex'))::bit(1024)
$$;

-- As before, but for that. All older ones are waited for still: what was asked of them may not have been carried out.
CREATE OR REPLACE FUNCTION supersede_older(p_tenant integer, p_key text, p_batch bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    r record;
    v_request integer;
    v_older bigint[] := '{}';
BEGIN
    PERFORM bar_older(p_tenant, p_key, p_batch, NULL);
    FOR r IN
        SELECT o.batch_id, array_agg(n.block) FILTER (WHERE f.more) AS blocks, array_agg(t.slots) FILTER (WHERE f.more) AS slots
        FROM batch_key n
        JOIN batch_key o ON o.tenant_id = p_tenant AND o.key = p_key AND o.block = n.block AND o.batch_id < p_batch
        CROSS JOIN LATERAL (SELECT bitmap_whole(n.first, n.targets) AS slots, bitmap_bits(bitmap_whole(n.first, n.targets))
                                   & bitmap_bits(bitmap_whole(o.first, o.targets)) AS both OFFSET 0) t
        CROSS JOIN LATERAL (SELECT bit_count(t.both & ~coalesce(bit_or(bitmap_bits(c.slots)), repeat('0', 1024)::bit(1024))) > 0 AS more
                            FROM batch_cancel c WHERE c.batch_id = o.batch_id AND c.block = o.block AND c.superseded) f
        WHERE n.batch_id = p_batch
          AND o.first < n.first + 8 * length(n.targets) AND n.first < o.first + 8 * length(o.targets)
          AND bit_count(t.both) > 0
        GROUP BY o.batch_id ORDER BY o.batch_id
    LOOP
        v_older := v_older || r.batch_id;
        CONTINUE WHEN r.blocks IS NULL;
        INSERT INTO batch_control AS c (batch_id, request) VALUES (r.batch_id, 1)
        ON CONFLICT (batch_id) DO UPDATE SET request = c.request + 1 RETURNING c.request INTO v_request;
        INSERT INTO batch_cancel (batch_id, request, block, slots, superseded)
        SELECT r.batch_id, v_request, u.block, u.slots, true FROM unnest(r.blocks, r.slots) AS u (block, slots);
    END LOOP;
    IF v_older <> '{}' THEN
        UPDATE batch_control c SET supersedes = v_older WHERE c.batch_id = p_batch;
    END IF;
    RETURN cardinality(v_older);
END $$;
ALTER FUNCTION supersede_older SET enable_seqscan = off;
ALTER FUNCTION supersede_older SET enable_hashjoin = off;
ALTER FUNCTION supersede_older SET enable_mergejoin = off;
