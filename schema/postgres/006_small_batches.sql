-- Batches of one device each, many at a time.

-- The tenant's row is looked at, and held, once by the transaction (see accept_devices), not once by each batch.
ALTER TABLE batch DROP CONSTRAINT batch_tenant_id_fkey;

-- Accepts batches that address one registered device each, the n-th elements of all arrays making one, and says for each in
-- that order the device's seq (-1: not registered) and the number of the batch (0: none was made, for want of the device or
-- because the request id has made one before). No two have the same (tenant, request id), and they come in the order of it,
-- so that two such transactions never wait for each other. Called by a transaction that has locked the tenants' rows FOR KEY
-- SHARE in a statement before: no device is deleted between what this one sees and the commit, so that the leader, which
-- ends the commands of deleted devices, has seen every batch for them.
--
-- Its planner settings: a few rows are joined here, and planned once, whatever the planner thinks of arrays it has not seen.
CREATE FUNCTION accept_devices(p_tenants integer[], p_request_ids text[], p_hashes bytea[], p_descriptions text[],
                               p_commands bytea[], p_priorities smallint[], p_created_ms bigint[], p_expires_ms bigint[],
                               p_devices text[])
RETURNS TABLE (seq integer, batch_id bigint)
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    WITH u AS MATERIALIZED (
        SELECT i.*, (SELECT d.seq FROM device d WHERE d.tenant_id = i.tenant AND d.id = i.device AND d.deleted_ms IS NULL
                     LIMIT 1) AS seq
        FROM unnest(p_tenants, p_request_ids, p_hashes, p_descriptions, p_commands, p_priorities, p_created_ms, p_expires_ms,
                    p_devices) WITH ORDINALITY
             AS i (tenant, request_id, hash, description, command, priority, created_ms, expires_ms, device, n)
    ), made AS (
        INSERT INTO batch AS b (tenant_id, request_id, request_hash, description, command, priority, device_count, created_ms,
                                expires_ms)
        SELECT u.tenant, u.request_id, u.hash, u.description, u.command, u.priority, 1, u.created_ms, u.expires_ms
        FROM u WHERE u.seq IS NOT NULL ORDER BY u.n
        ON CONFLICT (tenant_id, request_id) DO NOTHING
        RETURNING b.id, b.tenant_id, b.request_id
    ), whole AS MATERIALIZED (
        SELECT u.n, u.seq, made.id FROM u LEFT JOIN made ON made.request_id = u.request_id AND made.tenant_id = u.tenant
    ), placed AS (
        INSERT INTO batch_block (batch_id, block, first, targets)
        SELECT w.id, w.seq / 1024, w.seq % 1024 / 8 * 8, set_byte('\x00', 0, 1 << w.seq % 8) FROM whole w
        WHERE w.id IS NOT NULL)
    SELECT coalesce(w.seq, -1), coalesce(w.id, 0) FROM whole w ORDER BY w.n;
END $$;
ALTER FUNCTION accept_devices SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION accept_devices SET enable_nestloop = off;
ALTER FUNCTION accept_devices SET enable_mergejoin = off;
