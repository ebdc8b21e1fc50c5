-- The guard goes by PostgreSQL's own clock, as the quotas do. By a dispatcher's, one of several that was an hour fast let go at once
-- what had to cool off, ended approvals that others waited for and gave back a budget that was spent; with one that was an hour
-- slow nothing cooled off, and what it took did not count.

DROP FUNCTION guard_left(guard_policy, bigint);
DROP FUNCTION guard_take(integer, bigint, integer, bigint);
DROP FUNCTION decide_batch(integer, bigint, bigint, boolean, text, text, text, bigint);
DROP FUNCTION release_batch(bigint, bigint);
DROP FUNCTION release_due(bigint, integer);
DROP FUNCTION set_guard_policy(text, boolean, integer, integer, integer, bigint, bigint, bigint, bigint, bigint);

-- ends_ms: when its commands end that were not sent. due_ms: when there is something to do about it.
CREATE FUNCTION guard_ends(p_batch bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT least(b.expires_ms, nullif(c.deliver_by_ms, 0)) FROM batch b LEFT JOIN batch_control c ON c.batch_id = b.id
    WHERE b.id = p_batch
$$;
ALTER TABLE batch_approval ADD COLUMN ends_ms bigint;
UPDATE batch_approval a SET ends_ms = coalesce(guard_ends(a.batch_id), a.expires_ms);
ALTER TABLE batch_approval ALTER COLUMN ends_ms SET NOT NULL,
    ADD COLUMN due_ms bigint GENERATED ALWAYS AS (CASE WHEN state = 1 THEN expires_ms ELSE least(release_ms, ends_ms) END) STORED;
DROP INDEX batch_approval_due;
CREATE INDEX batch_approval_due ON batch_approval (due_ms) WHERE state IN (1, 2);

-- How long the policy would keep a batch from now on, if it is over by then; 0: in time. p_over: beyond the budget, so that it
-- cools off after an approval.
CREATE FUNCTION guard_too_long(p_policy guard_policy, p_over boolean, p_now_ms bigint, p_ends_ms bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN w.ms > 0 AND p_now_ms + w.ms >= p_ends_ms THEN w.ms ELSE 0 END
    FROM (SELECT CASE WHEN p_over THEN p_policy.cooling_off_ms ELSE p_policy.delay_ms END AS ms) w
$$;

-- How many devices more may be reached now.
CREATE FUNCTION guard_left(p_policy guard_policy) RETURNS integer LANGUAGE sql AS $$
    SELECT greatest(0, least(p_policy.devices_per_hour::bigint,
                             (t.devices::bigint * p_policy.percent_per_hour + 99) / 100)
                       - coalesce((SELECT sum(u.devices) FROM guard_use u
                                   WHERE u.tenant_id = p_policy.tenant_id AND u.at_ms > (SELECT server_ms()) - 3600000), 0))::integer
    FROM tenant t WHERE t.id = p_policy.tenant_id
$$;

CREATE FUNCTION guard_take(p_tenant integer, p_batch bigint, p_devices integer) RETURNS void LANGUAGE sql AS $$
    DELETE FROM guard_use u WHERE u.tenant_id = p_tenant AND u.at_ms <= (SELECT server_ms()) - 3600000;
    INSERT INTO guard_use (tenant_id, at_ms, batch_id, devices) VALUES (p_tenant, server_ms(), p_batch, p_devices);
$$;

-- What guard_accepted would say of so many devices more: whether it would hold them, and guard_too_long.
CREATE FUNCTION guard_foresee(p_tenant integer, p_kind integer, p_devices integer, p_ends_ms bigint)
RETURNS TABLE (held boolean, too_long_ms bigint) LANGUAGE plpgsql AS $$
DECLARE
    v_policy guard_policy := guard_policy_of(p_tenant);
BEGIN
    held := false;
    too_long_ms := 0;
    IF v_policy.enabled AND (v_policy.kinds >> p_kind) & 1 = 1 THEN
        held := p_devices > guard_left(v_policy);
        too_long_ms := guard_too_long(v_policy, held, server_ms(), p_ends_ms);
    END IF;
    RETURN NEXT;
END $$;

-- As before. What could not be let go before it is over is refused: MU007, the message is how long it would be kept, in ms.
CREATE OR REPLACE FUNCTION guard_accepted(p_tenant integer, p_request_id text, p_kind integer, p_key bigint, p_digest text,
                                          p_command_hash text) RETURNS smallint
LANGUAGE plpgsql AS $$
DECLARE
    v_policy guard_policy := guard_policy_of(p_tenant);
    v_id bigint;
    v_devices integer;
    v_now_ms bigint := server_ms();
    v_ends_ms bigint;
    v_too_long_ms bigint;
    v_over boolean;
    v_state smallint := 0;
BEGIN
    IF NOT v_policy.enabled OR (v_policy.kinds >> p_kind) & 1 = 0 THEN
        RETURN 0;
    END IF;
    SELECT b.id, b.device_count, guard_ends(b.id) INTO v_id, v_devices, v_ends_ms FROM batch b
    WHERE b.tenant_id = p_tenant AND b.request_id = p_request_id AND b.xmin = pg_current_xact_id()::xid;
    IF v_id IS NULL THEN
        RETURN 0;
    END IF;
    v_over := v_devices > guard_left(v_policy);
    v_too_long_ms := guard_too_long(v_policy, v_over, v_now_ms, v_ends_ms);
    IF v_too_long_ms > 0 THEN
        RAISE EXCEPTION '%', v_too_long_ms USING ERRCODE = 'MU007';
    END IF;
    IF v_over THEN
        v_state := 1;
    ELSE
        PERFORM guard_take(p_tenant, v_id, v_devices);
        v_state := CASE WHEN v_policy.delay_ms > 0 THEN 2 ELSE 0 END;
    END IF;
    IF v_state > 0 THEN
        UPDATE batch b SET held_ms = v_now_ms WHERE b.id = v_id;
        INSERT INTO batch_approval (batch_id, tenant_id, state, needed, requested_by, target_digest, command_hash, devices,
                                    expires_ms, release_ms, ends_ms)
        VALUES (v_id, p_tenant, v_state, v_over, p_key, p_digest, p_command_hash, v_devices,
                least(v_ends_ms, v_now_ms + v_policy.approval_ms), CASE WHEN NOT v_over THEN v_now_ms + v_policy.delay_ms END,
                v_ends_ms);
    END IF;
    PERFORM audit_add(v_now_ms, p_tenant, p_key, 'guarded_batch', v_id::text, v_devices,
                      CASE v_state WHEN 0 THEN 'within_budget' WHEN 1 THEN 'held_for_approval' ELSE 'delayed' END);
    RETURN v_state;
END $$;

-- As before; neither is anything approved that is over before it has cooled off.
CREATE FUNCTION decide_batch(p_tenant integer, p_batch bigint, p_key bigint, p_approve boolean, p_digest text,
                             p_command_hash text, p_reason text)
RETURNS TABLE (refused text)
LANGUAGE plpgsql AS $$
DECLARE
    a batch_approval;
    v_refused text;
    v_policy guard_policy;
    v_now_ms bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM batch b WHERE b.id = p_batch AND b.tenant_id = p_tenant) THEN
        RETURN;
    END IF;
    -- The order of locks is that of a cancel: the batch, then its approval.
    PERFORM FROM batch b WHERE b.id = p_batch FOR UPDATE;
    SELECT x.* INTO a FROM batch_approval x WHERE x.batch_id = p_batch FOR UPDATE;
    IF p_approve AND a.state = 1 THEN
        PERFORM FROM guard_policy p WHERE p.tenant_id = p_tenant FOR UPDATE;
        v_policy := guard_policy_of(p_tenant);
    END IF;
    v_now_ms := server_ms();
    v_refused := CASE WHEN a.batch_id IS NULL OR a.state <> 1 THEN 'NOT_AWAITING_APPROVAL'
                      WHEN a.expires_ms <= v_now_ms THEN 'APPROVAL_EXPIRED'
                      WHEN p_approve AND a.requested_by = p_key THEN 'SAME_KEY'
                      WHEN p_approve AND a.target_digest <> p_digest THEN 'TARGET_CHANGED'
                      WHEN p_approve AND a.command_hash <> p_command_hash THEN 'COMMAND_CHANGED'
                      WHEN p_approve AND guard_too_long(v_policy, true, v_now_ms, a.ends_ms) > 0 THEN 'EXPIRES_BEFORE_RELEASE'
                      ELSE '' END;
    IF v_refused = '' AND p_approve THEN
        UPDATE batch_approval x SET state = 2, decided_by = p_key, decided_ms = v_now_ms,
                                    release_ms = v_now_ms + v_policy.cooling_off_ms, reason = p_reason
        WHERE x.batch_id = p_batch;
        PERFORM guard_take(p_tenant, p_batch, a.devices);
        PERFORM FROM release_batch(p_batch);
    ELSIF v_refused = '' THEN
        UPDATE batch_approval x SET state = 4, decided_by = p_key, decided_ms = v_now_ms, reason = p_reason
        WHERE x.batch_id = p_batch;
        UPDATE batch b SET cancel_requested_ms = v_now_ms WHERE b.id = p_batch AND b.cancel_requested_ms IS NULL;
    END IF;
    PERFORM audit_add(v_now_ms, p_tenant, p_key, CASE WHEN p_approve THEN 'approve_batch' ELSE 'reject_batch' END, p_batch::text,
                      a.devices, CASE WHEN v_refused = '' THEN 'done' ELSE v_refused END, p_reason);
    RETURN QUERY SELECT v_refused;
END $$;

-- As before.
CREATE FUNCTION release_batch(p_batch bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_now_ms bigint := server_ms();
BEGIN
    UPDATE batch b SET held_ms = NULL FROM batch_approval a
    WHERE b.id = p_batch AND b.held_ms IS NOT NULL AND b.cancel_requested_ms IS NULL
      AND a.batch_id = b.id AND a.state = 2 AND a.release_ms <= v_now_ms;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE batch_approval a SET state = 3 WHERE a.batch_id = p_batch;
    -- Of devices deleted meanwhile the leader has looked for open commands, and did not see this batch: see accept_batch.
    INSERT INTO device_cancel (tenant_id, seq)
    SELECT d.tenant_id, d.seq FROM batch b JOIN device d ON d.tenant_id = b.tenant_id AND d.deleted_ms > b.created_ms - 10000
    WHERE b.id = p_batch ORDER BY 1, 2
    ON CONFLICT DO NOTHING;
    PERFORM audit_add(v_now_ms, a.tenant_id, 0, 'release_batch', p_batch::text, a.devices, 'done') FROM batch_approval a
    WHERE a.batch_id = p_batch;
    RETURN true;
END $$;

-- As before, what has been due for longest first, and nothing that there is nothing to do about. What is over before it is let go
-- (of what was accepted before that was refused) is canceled then, not expired: no leader's clock must let it be sent.
CREATE FUNCTION release_due(p_limit integer) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    r record;
    v_now_ms bigint := server_ms();
BEGIN
    FOR r IN SELECT a.batch_id, a.tenant_id, a.state, a.devices, a.release_ms FROM batch_approval a
             JOIN batch b ON b.id = a.batch_id
             WHERE a.state IN (1, 2) AND a.due_ms <= v_now_ms AND b.held_ms IS NOT NULL AND b.cancel_requested_ms IS NULL
             ORDER BY a.due_ms, a.batch_id LIMIT p_limit FOR UPDATE OF b SKIP LOCKED
    LOOP
        IF r.state = 2 AND r.release_ms <= v_now_ms THEN
            IF release_batch(r.batch_id) THEN
                RETURN NEXT r.batch_id;
            END IF;
        ELSE
            UPDATE batch_approval a SET state = 5, decided_ms = coalesce(a.decided_ms, v_now_ms)
            WHERE a.batch_id = r.batch_id AND a.state = r.state;
            IF FOUND THEN
                UPDATE batch b SET cancel_requested_ms = v_now_ms WHERE b.id = r.batch_id AND b.cancel_requested_ms IS NULL;
                PERFORM audit_add(v_now_ms, r.tenant_id, 0, CASE WHEN r.state = 1 THEN 'approval_expired' ELSE 'release_batch' END,
                                  r.batch_id::text, r.devices, 'canceled');
                RETURN NEXT r.batch_id;
            END IF;
        END IF;
    END LOOP;
END $$;

-- Few are due, whatever the planner thinks of tables that were empty when it looked.
ALTER FUNCTION release_due SET enable_seqscan = off;
ALTER FUNCTION release_due SET enable_hashjoin = off;
ALTER FUNCTION release_due SET enable_mergejoin = off;

-- Whether a mask of commands has this one, encoded: it begins with its field's number, and those of masks are less than 32.
CREATE FUNCTION guard_mask_has(p_mask integer, p_command bytea) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT length(p_command) > 0 AND (p_mask >> (get_byte(p_command, 0) >> 3)) & 1 = 1
$$;

-- As before, and seals the dynamic batches whose commands it guards: nobody joins them any more. Whoever accepts holds the tenant's
-- row, so that what was accepted by the policy of before is seen here; what is accepted later is sealed from the beginning (see
-- db_dynamic_accept). Newest first, as one that takes its key holds it before older ones.
CREATE FUNCTION set_guard_policy(p_name text, p_enabled boolean, p_kinds integer, p_devices integer, p_percent integer,
                                 p_cooling_off_ms bigint, p_delay_ms bigint, p_approval_ms bigint, p_key bigint)
RETURNS SETOF guard_policy LANGUAGE plpgsql AS $$
DECLARE
    v_tenant integer;
    v_batch bigint;
BEGIN
    SELECT t.id INTO v_tenant FROM tenant t WHERE t.name = p_name FOR UPDATE;
    IF v_tenant IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    INSERT INTO guard_policy AS p VALUES (v_tenant, p_enabled, p_kinds, p_devices, p_percent, p_cooling_off_ms, p_delay_ms,
                                          p_approval_ms)
    ON CONFLICT (tenant_id) DO UPDATE SET enabled = p_enabled, kinds = p_kinds, devices_per_hour = p_devices,
        percent_per_hour = p_percent, cooling_off_ms = p_cooling_off_ms, delay_ms = p_delay_ms, approval_ms = p_approval_ms
    RETURNING p.*;
    PERFORM audit_add(server_ms(), v_tenant, p_key, 'set_policy',
                      format('kinds %s, %s devices, %s %% an hour, cooling off %s ms, delay %s ms, approval %s ms', p_kinds,
                             p_devices, p_percent, p_cooling_off_ms, p_delay_ms, p_approval_ms),
                      NULL, CASE WHEN p_enabled THEN 'on' ELSE 'off' END);
    FOR v_batch IN SELECT b.id FROM batch_control c JOIN batch b ON b.id = c.batch_id
                   WHERE p_enabled AND c.target IS NOT NULL AND NOT c.sealed AND b.tenant_id = v_tenant AND b.closed_ms IS NULL
                     AND b.cancel_requested_ms IS NULL AND guard_mask_has(p_kinds, b.command)
                   ORDER BY b.id DESC
    LOOP
        PERFORM FROM seal_batch(v_tenant, v_batch, server_ms(), p_key);
    END LOOP;
END $$;
