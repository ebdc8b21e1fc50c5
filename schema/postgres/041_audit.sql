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

CREATE OR REPLACE FUNCTION cancel_some(p_tenant integer, p_batch bigint, p_blocks integer[], p_slots bytea[], p_now_ms bigint,
                                       p_key bigint)
RETURNS TABLE (changed boolean) LANGUAGE plpgsql AS $$
DECLARE
    v_request integer;
BEGIN
    PERFORM FROM batch b WHERE b.id = p_batch AND b.tenant_id = p_tenant AND b.closed_ms IS NULL
                           AND b.cancel_requested_ms IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO batch_control AS c (batch_id, request) VALUES (p_batch, 1)
    ON CONFLICT (batch_id) DO UPDATE SET request = c.request + 1 RETURNING c.request INTO v_request;
    INSERT INTO batch_cancel (batch_id, request, block, slots)
    SELECT p_batch, v_request, u.block, u.slots FROM unnest(p_blocks, p_slots) AS u (block, slots);
    PERFORM audit_add(p_now_ms, p_tenant, p_key, 'cancel_batch_for_some', p_batch::text,
                      (SELECT sum(bit_count(u.slots)) FROM unnest(p_slots) AS u (slots))::integer, '');
    RETURN QUERY SELECT true;
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

CREATE OR REPLACE FUNCTION decide_batch(p_tenant integer, p_batch bigint, p_key bigint, p_approve boolean, p_digest text,
                                        p_command_hash text, p_reason text, p_now_ms bigint)
RETURNS TABLE (refused text)
LANGUAGE plpgsql AS $$
DECLARE
    a batch_approval;
    v_refused text;
    v_cooling bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM batch b WHERE b.id = p_batch AND b.tenant_id = p_tenant) THEN
        RETURN;
    END IF;
    -- The order of locks is that of a cancel: the batch, then its approval.
    PERFORM FROM batch b WHERE b.id = p_batch FOR UPDATE;
    SELECT x.* INTO a FROM batch_approval x WHERE x.batch_id = p_batch FOR UPDATE;
    v_refused := CASE WHEN a.batch_id IS NULL OR a.state <> 1 THEN 'NOT_AWAITING_APPROVAL'
                      WHEN a.expires_ms <= p_now_ms THEN 'APPROVAL_EXPIRED'
                      WHEN p_approve AND a.requested_by = p_key THEN 'SAME_KEY'
                      WHEN p_approve AND a.target_digest <> p_digest THEN 'TARGET_CHANGED'
                      WHEN p_approve AND a.command_hash <> p_command_hash THEN 'COMMAND_CHANGED'
                      ELSE '' END;
    IF v_refused = '' AND p_approve THEN
        PERFORM FROM guard_policy p WHERE p.tenant_id = p_tenant FOR UPDATE;
        v_cooling := (guard_policy_of(p_tenant)).cooling_off_ms;
        UPDATE batch_approval x SET state = 2, decided_by = p_key, decided_ms = p_now_ms, release_ms = p_now_ms + v_cooling,
                                    reason = p_reason
        WHERE x.batch_id = p_batch;
        PERFORM guard_take(p_tenant, p_batch, a.devices, p_now_ms);
        PERFORM FROM release_batch(p_batch, p_now_ms);
    ELSIF v_refused = '' THEN
        UPDATE batch_approval x SET state = 4, decided_by = p_key, decided_ms = p_now_ms, reason = p_reason
        WHERE x.batch_id = p_batch;
        UPDATE batch b SET cancel_requested_ms = p_now_ms WHERE b.id = p_batch AND b.cancel_requested_ms IS NULL;
    END IF;
    PERFORM audit_add(p_now_ms, p_tenant, p_key, CASE WHEN p_approve THEN 'approve_batch' ELSE 'reject_batch' END, p_batch::text,
                      a.devices, CASE WHEN v_refused = '' THEN 'done' ELSE v_refused END, p_reason);
    RETURN QUERY SELECT v_refused;
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
