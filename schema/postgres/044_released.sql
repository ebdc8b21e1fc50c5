-- A release is told again only until it is confirmed: then its tenant is not held, however long its row stays for the leader
-- to route what waited behind it.
CREATE OR REPLACE FUNCTION set_gate(p_tenant integer, p_name text, p_closed boolean, p_reason text, p_now_ms bigint, p_key bigint)
RETURNS SETOF gate LANGUAGE plpgsql AS $$
DECLARE
    v_number bigint;
    v_tenant integer := p_tenant;
BEGIN
    IF p_name IS NOT NULL THEN
        SELECT t.id INTO v_tenant FROM tenant t WHERE t.name = p_name;
        IF v_tenant IS NULL THEN
            RETURN;
        END IF;
    END IF;
    UPDATE gate_state s SET number = s.number + 1 RETURNING s.number INTO v_number;
    IF p_closed THEN
        INSERT INTO gate AS g (tenant_id, closed, number, reason, changed_ms)
        VALUES (v_tenant, true, v_number, p_reason, p_now_ms)
        ON CONFLICT (tenant_id) DO UPDATE SET closed = true, number = v_number, reason = p_reason, changed_ms = p_now_ms,
                                              confirmed_ms = NULL
            WHERE NOT g.closed;
    ELSE
        UPDATE gate g SET closed = false, number = v_number, reason = p_reason, changed_ms = p_now_ms, confirmed_ms = NULL
        WHERE g.tenant_id = v_tenant AND g.closed;
    END IF;
    IF FOUND THEN
        PERFORM audit_add(p_now_ms, v_tenant, p_key, CASE WHEN p_closed THEN 'hold' ELSE 'release' END, p_reason,
                          (SELECT sum(t.devices) FROM tenant t WHERE t.id = v_tenant OR v_tenant = 0)::integer, '');
    END IF;
    RETURN QUERY SELECT g.* FROM gate g WHERE g.tenant_id = v_tenant AND (g.closed OR g.confirmed_ms IS NULL);
END $$;
