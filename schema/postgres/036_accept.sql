-- As accept_devices_noted and accept_devices before, in one statement, and holding the tenants first (see batch_hold_tenants):
-- where small batches come one by one, each statement more costs PostgreSQL more than what it does.
CREATE OR REPLACE FUNCTION accept_devices_noted(p_tenants integer[], p_request_ids text[], p_hashes bytea[],
                                                p_descriptions text[], p_commands bytea[], p_priorities smallint[],
                                                p_created_ms bigint[], p_expires_ms bigint[], p_devices text[],
                                                p_heads text[], p_tails text[])
RETURNS TABLE (seq integer, batch_id bigint)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_nestloop = off SET enable_mergejoin = off AS $$
DECLARE
    v_refused bigint[]; -- NULL: nobody's quota is to be looked at
BEGIN
    PERFORM FROM tenant t WHERE t.id = ANY (p_tenants) ORDER BY t.id FOR KEY SHARE;
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
                    p_devices, p_heads, p_tails) WITH ORDINALITY
             AS i (tenant, request_id, hash, description, command, priority, created_ms, expires_ms, device, head, tail, n)
    ), made AS (
        INSERT INTO batch AS b (tenant_id, request_id, request_hash, description, command, priority, device_count, created_ms,
                                expires_ms)
        SELECT u.tenant, u.request_id, u.hash, u.description, u.command, u.priority, 1, u.created_ms, u.expires_ms
        FROM u WHERE u.seq IS NOT NULL AND u.refused = 0 ORDER BY u.n
        ON CONFLICT (tenant_id, request_id) DO NOTHING
        RETURNING b.id, b.tenant_id, b.request_id
    ), whole AS MATERIALIZED (
        SELECT u.n, u.seq, u.refused, u.tenant, u.head, u.tail, made.id
        FROM u LEFT JOIN made ON made.request_id = u.request_id AND made.tenant_id = u.tenant
    ), placed AS (
        INSERT INTO batch_block (batch_id, block, first, targets)
        SELECT w.id, w.seq / 1024, w.seq % 1024 / 8 * 8, set_byte('\x00', 0, 1 << w.seq % 8) FROM whole w
        WHERE w.id IS NOT NULL
    ), noted AS ( -- as ledger_submitted
        INSERT INTO audit_log (tenant_id, entries)
        SELECT w.tenant, array_agg(w.head || length(w.id::text) || ':' || w.id || ',' || w.tail ORDER BY w.n)
        FROM whole w WHERE w.id IS NOT NULL GROUP BY w.tenant
        RETURNING id
    ), told AS (
        INSERT INTO ledger_inbox (audits, event_tenants, events)
        SELECT (SELECT array_agg(a.id ORDER BY a.id) FROM noted a), array_agg(w.tenant ORDER BY w.n),
               array_agg('1,' || w.id || ',' || split_part(w.head, ',', 1) || ',{"deviceCount":' || split_part(w.head, ',', 4)
                         || '}' ORDER BY w.n)
        FROM whole w WHERE w.id IS NOT NULL HAVING count(*) > 0
    )
    SELECT coalesce(w.seq, -1), coalesce(w.id, w.refused) FROM whole w ORDER BY w.n;
END $$;
DROP FUNCTION accept_devices(integer[], text[], bytea[], text[], bytea[], smallint[], bigint[], bigint[], text[]);
