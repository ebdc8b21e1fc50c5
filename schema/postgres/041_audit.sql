-- What steers and stops batches: of how many devices, and the reason that was given. The functions are those of before but for
-- the entries that they note.

CREATE OR REPLACE FUNCTION pause_batch(p_tenant integer, p_batch bigint, p_paused boolean, p_reason text, p_now_ms bigint,
                                       p_key bigint)
RETURNS TABLE (changed boolean) LANGUAGE plpgsql AS $$
DECLARE
    v_devices integer;
BEGIN
    SELECT b.device_count INTO v_devices FROM batch b WHERE b.id = p_batch AND b.tenant_id = p_tenant AND b.closed_ms IS NULL
                                                        AND b.cancel_requested_ms IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_paused THEN
        INSERT INTO batch_control AS c (batch_id, paused, reason, request) VALUES (p_batch, true, p_reason, 1)
        ON CONFLICT (batch_id) DO UPDATE SET paused = true, reason = p_reason, request = c.request + 1 WHERE NOT c.paused;
    ELSE
        UPDATE batch_control c SET paused = false, freed = c.freed | c.stopped, stopped = 0, reason = p_reason,
                                   request = c.request + 1
        WHERE c.batch_id = p_batch AND (c.paused OR c.stopped <> 0);
    END IF;
    IF NOT FOUND THEN
        RETURN QUERY SELECT false;
        RETURN;
    END IF;
    PERFORM audit_add(p_now_ms, p_tenant, p_key, CASE WHEN p_paused THEN 'pause_batch' ELSE 'resume_batch' END, p_batch::text,
                      v_devices, '', p_reason);
    RETURN QUERY SELECT true;
END $$;

CREATE OR REPLACE FUNCTION release_wave(p_tenant integer, p_batch bigint, p_now_ms bigint, p_key bigint)
RETURNS TABLE (changed boolean) LANGUAGE plpgsql AS $$
DECLARE
    v_changed boolean;
    v_devices integer;
BEGIN
    SELECT b.device_count INTO v_devices FROM batch b WHERE b.id = p_batch AND b.tenant_id = p_tenant AND b.closed_ms IS NULL
                                                        AND b.cancel_requested_ms IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE batch_control c SET by_hand = greatest(c.by_hand, c.wave) + 1, request = c.request + 1
    WHERE c.batch_id = p_batch AND greatest(c.by_hand, c.wave) + 1 < c.waves;
    v_changed := FOUND;
    IF v_changed THEN
        PERFORM audit_add(p_now_ms, p_tenant, p_key, 'release_wave', p_batch::text, v_devices, '');
    END IF;
    RETURN QUERY SELECT v_changed;
END $$;

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
    RETURN QUERY SELECT g.* FROM gate g WHERE g.tenant_id = v_tenant;
END $$;

-- A test sends something to an address outside: it is noted as well.
DROP FUNCTION webhook_test(integer, bigint, bigint);
CREATE FUNCTION webhook_test(p_tenant integer, p_id bigint, p_key bigint, p_now_ms bigint) RETURNS SETOF bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_url text;
BEGIN
    SELECT w.url INTO v_url FROM webhook w WHERE w.tenant_id = p_tenant AND w.id = p_id;
    IF FOUND THEN
        PERFORM event_add(p_tenant, 15, 0, p_now_ms, '{"webhookId":"' || p_id || '"}');
        PERFORM audit_add(p_now_ms, p_tenant, p_key, 'test_webhook', p_id::text, NULL, '', v_url);
        RETURN NEXT p_id;
    END IF;
END $$;
