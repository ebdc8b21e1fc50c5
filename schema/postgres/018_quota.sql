-- Quotas: how much of what all tenants share one of them may have.

-- A tenant without a row has no limits, and 0 is none. Whoever takes from one holds the lock on its row until the commit, so
-- that it holds whatever number of dispatchers accept.
CREATE TABLE quota (
    tenant_id           integer PRIMARY KEY,
    devices             integer NOT NULL DEFAULT 0,   -- registered at a time
    open_batches        integer NOT NULL DEFAULT 0,   -- at a time
    commands_per_second integer NOT NULL DEFAULT 0,
    burst               integer NOT NULL DEFAULT 0,   -- the most that is saved up; also 0: a second's
    commands_left       double precision NOT NULL DEFAULT 0,   -- saved up; less than 0: owed
    filled_ms           double precision NOT NULL DEFAULT 0,   -- when, by this server's clock
    counted_open        integer NOT NULL DEFAULT 0,   -- open batches, at least
    counted_ms          double precision NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- Batches of tenants with a limit of open ones, by the request that made each; those that have closed go when the limit is met.
CREATE TABLE quota_open (
    tenant_id  integer NOT NULL,
    request_id text    NOT NULL,
    PRIMARY KEY (tenant_id, request_id)
);

CREATE FUNCTION clock_ms() RETURNS double precision LANGUAGE sql VOLATILE AS $$
    SELECT extract(epoch FROM clock_timestamp())::double precision * 1000
$$;

CREATE FUNCTION quota_burst(p quota) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p.burst > 0 THEN p.burst ELSE p.commands_per_second END
$$;

-- Of which kind a refusal is, and when to come again, in a number that is none of a batch: see lib/store/db_quota.h.
CREATE FUNCTION quota_refusal(p_kind integer, p_retry_ms double precision) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT -(ceil(greatest(1, least(p_retry_ms, 86400000)))::bigint * 4 + p_kind)
$$;

-- What the tenant's bucket holds at that time. A clock that went back fills nothing.
CREATE FUNCTION quota_filled(p quota, p_now_ms double precision) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$
    SELECT least(quota_burst(p), p.commands_left + p.commands_per_second * greatest(0, p_now_ms - p.filled_ms) / 1000)
$$;

-- How many batches of the tenant are open, by its row, which the caller has locked. Counting takes time with their number, so
-- where they are many that is done now and then only, at most about a tenth of the time.
CREATE FUNCTION quota_count(p quota, p_now_ms double precision) RETURNS quota LANGUAGE plpgsql AS $$
BEGIN
    IF p.counted_open >= p.open_batches
       AND (p_now_ms < p.counted_ms OR p_now_ms >= p.counted_ms + p.open_batches / 50) THEN
        -- Not those of this transaction: their batches are still to come.
        DELETE FROM quota_open o
        WHERE o.tenant_id = p.tenant_id AND o.xmin <> pg_current_xact_id()::xid AND NOT EXISTS (
            SELECT FROM batch b WHERE b.tenant_id = o.tenant_id AND b.request_id = o.request_id AND b.closed_ms IS NULL);
        p.counted_open := (SELECT count(*) FROM quota_open o WHERE o.tenant_id = p.tenant_id);
        p.counted_ms := p_now_ms;
    END IF;
    RETURN p;
END $$;

-- In this language because its plan is kept.
CREATE FUNCTION quota_keep(p quota) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE quota q SET commands_left = p.commands_left, filled_ms = p.filled_ms, counted_open = p.counted_open,
                       counted_ms = p.counted_ms
    WHERE q.tenant_id = p.tenant_id AND (q.commands_left <> p.commands_left OR q.counted_open <> p.counted_open
                                         OR q.counted_ms <> p.counted_ms);
END $$;

-- Takes for batches of so many commands what their tenants' quotas have left, one after the other: 0 for each that may be
-- made, else its refusal. Nothing is taken for one without commands, or whose request id has made a batch before. In the
-- order of tenants, as all who accept come. What is more than the bucket ever holds may go when that is full: it owes the
-- rest.
CREATE FUNCTION quota_take(p_tenants integer[], p_request_ids text[], p_commands integer[]) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    q quota;
    v bigint[] := '{}';
    v_now_ms double precision;
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
        v_need := least(p_commands[i], quota_burst(q));
        IF q.commands_per_second > 0 AND q.commands_left < v_need THEN
            v[i] := quota_refusal(3, (v_need - q.commands_left) * 1000 / q.commands_per_second);
            CONTINUE;
        END IF;
        IF q.commands_per_second > 0 THEN
            q.commands_left := q.commands_left - p_commands[i];
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

-- As before; `batch_id` of what the tenant's quota refuses is its refusal, and then nothing was written.
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
        v_id := (quota_take(ARRAY[p_tenant], ARRAY[p_request_id], ARRAY[p_device_count]))[1];
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

-- As before; the number of a batch that its tenant's quota refuses is the refusal.
CREATE OR REPLACE FUNCTION accept_devices(p_tenants integer[], p_request_ids text[], p_hashes bytea[], p_descriptions text[],
                                          p_commands bytea[], p_priorities smallint[], p_created_ms bigint[],
                                          p_expires_ms bigint[], p_devices text[])
RETURNS TABLE (seq integer, batch_id bigint)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_nestloop = off SET enable_mergejoin = off AS $$
DECLARE
    v_refused bigint[]; -- NULL: nobody's quota is to be looked at
BEGIN
    IF EXISTS (SELECT FROM quota q
               WHERE q.tenant_id = ANY (p_tenants) AND (q.open_batches > 0 OR q.commands_per_second > 0)) THEN
        v_refused := quota_take(p_tenants, p_request_ids, ARRAY(
            SELECT (SELECT count(*) FROM device d WHERE d.tenant_id = i.tenant AND d.id = i.device AND d.deleted_ms IS NULL)
            FROM unnest(p_tenants, p_devices) WITH ORDINALITY AS i (tenant, device, n) ORDER BY i.n)::integer[]);
    END IF;
    RETURN QUERY
    WITH u AS MATERIALIZED (
        SELECT i.*, (SELECT d.seq FROM device d WHERE d.tenant_id = i.tenant AND d.id = i.device AND d.deleted_ms IS NULL
                     LIMIT 1) AS seq, coalesce(v_refused[i.n], 0) AS refused
        FROM unnest(p_tenants, p_request_ids, p_hashes, p_descriptions, p_commands, p_priorities, p_created_ms, p_expires_ms,
                    p_devices) WITH ORDINALITY
             AS i (tenant, request_id, hash, description, command, priority, created_ms, expires_ms, device, n)
    ), made AS (
        INSERT INTO batch AS b (tenant_id, request_id, request_hash, description, command, priority, device_count, created_ms,
                                expires_ms)
        SELECT u.tenant, u.request_id, u.hash, u.description, u.command, u.priority, 1, u.created_ms, u.expires_ms
        FROM u WHERE u.seq IS NOT NULL AND u.refused = 0 ORDER BY u.n
        ON CONFLICT (tenant_id, request_id) DO NOTHING
        RETURNING b.id, b.tenant_id, b.request_id
    ), whole AS MATERIALIZED (
        SELECT u.n, u.seq, u.refused, made.id
        FROM u LEFT JOIN made ON made.request_id = u.request_id AND made.tenant_id = u.tenant
    ), placed AS (
        INSERT INTO batch_block (batch_id, block, first, targets)
        SELECT w.id, w.seq / 1024, w.seq % 1024 / 8 * 8, set_byte('\x00', 0, 1 << w.seq % 8) FROM whole w
        WHERE w.id IS NOT NULL)
    SELECT coalesce(w.seq, -1), coalesce(w.id, w.refused) FROM whole w ORDER BY w.n;
END $$;

-- No tenant gets more devices than its quota allows, in whatever way. Whoever sets a quota and whoever registers devices hold
-- the lock on the tenant's row.
CREATE FUNCTION quota_devices() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_limit integer := (SELECT q.devices FROM quota q WHERE q.tenant_id = NEW.id);
BEGIN
    IF v_limit > 0 AND NEW.devices > v_limit THEN
        RAISE EXCEPTION '% %', v_limit, OLD.devices USING ERRCODE = 'MU004';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER tenant_quota_devices BEFORE UPDATE OF devices ON tenant FOR EACH ROW
    WHEN (NEW.devices > OLD.devices) EXECUTE FUNCTION quota_devices();

-- Changes a tenant's quota; what is saved up stays, as far as it fits. The lock keeps those out who accept without one.
CREATE FUNCTION set_quota(p_name text, p_devices integer, p_open_batches integer, p_commands_per_second integer, p_burst integer,
                          p_key bigint, p_now_ms bigint)
RETURNS SETOF quota LANGUAGE plpgsql AS $$
DECLARE
    q quota;
BEGIN
    SELECT t.id INTO q.tenant_id FROM tenant t WHERE t.name = p_name FOR UPDATE;
    IF q.tenant_id IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO quota (tenant_id) VALUES (q.tenant_id) ON CONFLICT DO NOTHING;
    SELECT x.* INTO q FROM quota x WHERE x.tenant_id = q.tenant_id FOR UPDATE;
    IF q.open_batches = 0 AND p_open_batches > 0 THEN
        INSERT INTO quota_open (tenant_id, request_id)
        SELECT b.tenant_id, b.request_id FROM batch b WHERE b.closed_ms IS NULL AND b.tenant_id = q.tenant_id
        ON CONFLICT DO NOTHING;
        q.counted_open := (SELECT count(*) FROM quota_open o WHERE o.tenant_id = q.tenant_id);
    ELSIF p_open_batches = 0 THEN
        DELETE FROM quota_open o WHERE o.tenant_id = q.tenant_id;
        q.counted_open := 0;
    END IF;
    IF q.commands_per_second > 0 THEN
        q.commands_left := quota_filled(q, clock_ms());
    END IF;
    q := ROW(q.tenant_id, p_devices, p_open_batches, p_commands_per_second, p_burst,
             CASE WHEN q.commands_per_second > 0 THEN q.commands_left ELSE 'infinity' END, clock_ms(), q.counted_open, 0)::quota;
    q.commands_left := CASE WHEN p_commands_per_second > 0 THEN least(q.commands_left, quota_burst(q)) ELSE 0 END;
    DELETE FROM quota x WHERE x.tenant_id = q.tenant_id;
    IF p_devices > 0 OR p_open_batches > 0 OR p_commands_per_second > 0 THEN
        INSERT INTO quota VALUES (q.*);
    END IF;
    PERFORM audit_add(p_now_ms, q.tenant_id, p_key, 'set_quota',
                      format('%s devices, %s open batches, %s commands a second, burst %s', p_devices, p_open_batches,
                             p_commands_per_second, p_burst), NULL, 'done');
    RETURN NEXT q;
END $$;

-- A tenant's quota and what is used of it. No row when there is no such tenant.
CREATE FUNCTION quota_of(p_name text)
RETURNS TABLE (devices integer, open_batches integer, commands_per_second integer, burst integer, used_devices integer,
               used_batches integer, commands_left bigint)
LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(q.devices, 0), coalesce(q.open_batches, 0), coalesce(q.commands_per_second, 0), coalesce(q.burst, 0),
           t.devices,
           (SELECT count(*)::integer FROM batch b WHERE b.closed_ms IS NULL AND b.tenant_id = t.id),
           CASE WHEN q.commands_per_second > 0 THEN floor(quota_filled(q, clock_ms()))::bigint ELSE 0 END
    FROM tenant t LEFT JOIN quota q ON q.tenant_id = t.id WHERE t.name = p_name
$$;
