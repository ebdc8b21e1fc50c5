-- Acceptance of a batch in one call.

-- Writes a batch with its blocks, or finds the one that the same request id made before; the first row column says which.
-- Never raises for a repeated request: the caller compares the hashes. Called in one transaction with others of its kind,
-- it must be called in the order of (tenant, request id), so that two such transactions never wait for each other.
CREATE FUNCTION accept_batch(p_tenant integer, p_request_id text, p_hash bytea, p_description text, p_command bytea,
                             p_priority smallint, p_device_count integer, p_unknown_count integer, p_unknown_ids text[],
                             p_created_ms bigint, p_expires_ms bigint,
                             p_blocks integer[], p_firsts smallint[], p_targets bytea[])
RETURNS TABLE (created boolean, batch_id bigint)
LANGUAGE plpgsql AS $$
DECLARE
    v_id bigint;
BEGIN
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
