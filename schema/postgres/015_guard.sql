-- The blast radius: how many devices irreversible commands may reach in an hour before somebody else must approve.

-- Role 4 approves (muster.v1.Role).
ALTER TABLE api_key DROP CONSTRAINT api_key_role_check;
ALTER TABLE api_key ADD CONSTRAINT api_key_role_check CHECK (role BETWEEN 1 AND 4);

-- Who did what, to how many devices, and how it ended. Only ever added to.
ALTER TABLE audit ADD COLUMN devices integer, ADD COLUMN outcome text NOT NULL DEFAULT '';

-- The one way in for what is written from now on, in the transaction that does it. Key 0 is nobody's: Muster itself.
CREATE FUNCTION audit_add(p_at_ms bigint, p_tenant integer, p_key bigint, p_action text, p_detail text, p_devices integer,
                          p_outcome text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO audit (at_ms, tenant_id, key_id, action, detail, devices, outcome)
    VALUES (p_at_ms, p_tenant, nullif(p_key, 0), p_action, p_detail, p_devices, p_outcome)
$$;

-- A tenant without a row has the defaults. kinds: bit n is field n of muster.v1.Command; wipe, remove_application, restore.
CREATE TABLE guard_policy (
    tenant_id        integer PRIMARY KEY,
    enabled          boolean NOT NULL DEFAULT true,
    kinds            integer NOT NULL DEFAULT (1 << 3) | (1 << 8) | (1 << 10),
    devices_per_hour integer NOT NULL DEFAULT 100,
    percent_per_hour integer NOT NULL DEFAULT 10,      -- of the registered devices, rounded up
    cooling_off_ms   bigint  NOT NULL DEFAULT 60000,   -- after an approval
    delay_ms         bigint  NOT NULL DEFAULT 0,       -- after an acceptance within the budget
    approval_ms      bigint  NOT NULL DEFAULT 86400000 -- how long an approval is waited for
);

-- What was taken from the budget; rows older than an hour mean nothing and go.
CREATE TABLE guard_use (
    tenant_id integer NOT NULL,
    at_ms     bigint  NOT NULL,
    batch_id  bigint  NOT NULL,
    devices   integer NOT NULL,
    PRIMARY KEY (tenant_id, at_ms, batch_id)
);

-- A held batch does not exist for the leader: nothing of it can be routed. NULL: not held.
ALTER TABLE batch ADD COLUMN held_ms bigint;           -- since when

-- How a held batch came to be held, and what became of it. muster.v1.ApprovalState: 1 pending, 2 cooling off, 3 released,
-- 4 rejected, 5 expired, 6 canceled.
CREATE TABLE batch_approval (
    batch_id      bigint   PRIMARY KEY,
    tenant_id     integer  NOT NULL,
    state         smallint NOT NULL,
    needed        boolean  NOT NULL,           -- else the batch was within the budget, and only waits
    requested_by  bigint   NOT NULL,           -- the key
    target_digest text     NOT NULL,
    command_hash  text     NOT NULL,           -- SHA-256 of the encoded command
    devices       integer  NOT NULL,
    expires_ms    bigint   NOT NULL,           -- when it ends unapproved
    decided_by    bigint,
    decided_ms    bigint,
    release_ms    bigint,                      -- when it may be routed
    reason        text     NOT NULL DEFAULT ''
);
CREATE INDEX batch_approval_due ON batch_approval (least(expires_ms, release_ms)) WHERE state IN (1, 2);

-- The policy that holds for a tenant.
CREATE FUNCTION guard_policy_of(p_tenant integer) RETURNS guard_policy LANGUAGE plpgsql STABLE AS $$
DECLARE
    v guard_policy;
BEGIN
    SELECT p.* INTO v FROM guard_policy p WHERE p.tenant_id = p_tenant;
    IF NOT FOUND THEN
        v := ROW(p_tenant, true, (1 << 3) | (1 << 8) | (1 << 10), 100, 10, 60000, 0, 86400000)::guard_policy;
    END IF;
    RETURN v;
END $$;

-- Of the kinds of commands that a tenant's policy guards a mask, 0 when it is off.
CREATE FUNCTION guard_mask(p_tenant integer) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p.enabled THEN p.kinds ELSE 0 END FROM guard_policy_of(p_tenant) AS p
$$;

-- How many devices more may be reached now.
CREATE FUNCTION guard_left(p_policy guard_policy, p_now_ms bigint) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT greatest(0, least(p_policy.devices_per_hour::bigint,
                             (t.devices::bigint * p_policy.percent_per_hour + 99) / 100)
                       - coalesce((SELECT sum(u.devices) FROM guard_use u
                                   WHERE u.tenant_id = p_policy.tenant_id AND u.at_ms > p_now_ms - 3600000), 0))::integer
    FROM tenant t WHERE t.id = p_policy.tenant_id
$$;

CREATE FUNCTION guard_take(p_tenant integer, p_batch bigint, p_devices integer, p_now_ms bigint) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM guard_use u WHERE u.tenant_id = p_tenant AND u.at_ms <= p_now_ms - 3600000;
    INSERT INTO guard_use (tenant_id, at_ms, batch_id, devices) VALUES (p_tenant, p_now_ms, p_batch, p_devices);
$$;

-- First statement of a transaction that accepts what the policy may guard: the lock is held to its end, so that two batches
-- never take the same budget.
CREATE FUNCTION guard_lock(p_tenant integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO guard_policy (tenant_id) VALUES (p_tenant) ON CONFLICT DO NOTHING;
    SELECT FROM guard_policy p WHERE p.tenant_id = p_tenant FOR UPDATE;
$$;

-- Last statement of that transaction: takes the budget for the batch that it made, or holds the batch. Says what
-- batch_approval has then, 0 for none; what an earlier transaction has made is left as it is.
CREATE FUNCTION guard_accepted(p_tenant integer, p_request_id text, p_kind integer, p_key bigint, p_digest text,
                               p_command_hash text) RETURNS smallint
LANGUAGE plpgsql AS $$
DECLARE
    v_policy guard_policy := guard_policy_of(p_tenant);
    v_id bigint;
    v_devices integer;
    v_now_ms bigint;
    v_expires_ms bigint;
    v_over boolean;
    v_state smallint := 0;
BEGIN
    IF NOT v_policy.enabled OR (v_policy.kinds >> p_kind) & 1 = 0 THEN
        RETURN 0;
    END IF;
    SELECT b.id, b.device_count, b.created_ms, b.expires_ms INTO v_id, v_devices, v_now_ms, v_expires_ms FROM batch b
    WHERE b.tenant_id = p_tenant AND b.request_id = p_request_id AND b.xmin = pg_current_xact_id()::xid;
    IF v_id IS NULL THEN
        RETURN 0;
    END IF;
    v_over := v_devices > guard_left(v_policy, v_now_ms);
    IF v_over THEN
        v_state := 1;
    ELSE
        PERFORM guard_take(p_tenant, v_id, v_devices, v_now_ms);
        v_state := CASE WHEN v_policy.delay_ms > 0 THEN 2 ELSE 0 END;
    END IF;
    IF v_state > 0 THEN
        UPDATE batch b SET held_ms = v_now_ms WHERE b.id = v_id;
        INSERT INTO batch_approval (batch_id, tenant_id, state, needed, requested_by, target_digest, command_hash, devices,
                                    expires_ms, release_ms)
        VALUES (v_id, p_tenant, v_state, v_over, p_key, p_digest, p_command_hash, v_devices,
                least(v_expires_ms, v_now_ms + v_policy.approval_ms), CASE WHEN NOT v_over THEN v_now_ms + v_policy.delay_ms END);
    END IF;
    PERFORM audit_add(v_now_ms, p_tenant, p_key, 'guarded_batch', v_id::text, v_devices,
                      CASE v_state WHEN 0 THEN 'within_budget' WHEN 1 THEN 'held_for_approval' ELSE 'delayed' END);
    RETURN v_state;
END $$;

-- Approves or rejects a held batch for which approval is waited. `refused`: '' when it was done, else why not, as the reason
-- that callers get; what was refused is in the audit too. No row when there is no such batch.
CREATE FUNCTION decide_batch(p_tenant integer, p_batch bigint, p_key bigint, p_approve boolean, p_digest text,
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
                      a.devices, CASE WHEN v_refused = '' THEN 'done' ELSE v_refused END);
    RETURN QUERY SELECT v_refused;
END $$;

-- Lets a batch go whose time to cool off is over, unless it was canceled. True when it did.
CREATE FUNCTION release_batch(p_batch bigint, p_now_ms bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE batch b SET held_ms = NULL FROM batch_approval a
    WHERE b.id = p_batch AND b.held_ms IS NOT NULL AND b.cancel_requested_ms IS NULL
      AND a.batch_id = b.id AND a.state = 2 AND a.release_ms <= p_now_ms;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE batch_approval a SET state = 3 WHERE a.batch_id = p_batch;
    -- Of devices deleted meanwhile the leader has looked for open commands, and did not see this batch: see accept_batch.
    INSERT INTO device_cancel (tenant_id, seq)
    SELECT d.tenant_id, d.seq FROM batch b JOIN device d ON d.tenant_id = b.tenant_id AND d.deleted_ms > b.created_ms - 10000
    WHERE b.id = p_batch ORDER BY 1, 2
    ON CONFLICT DO NOTHING;
    PERFORM audit_add(p_now_ms, a.tenant_id, 0, 'release_batch', p_batch::text, a.devices, 'done') FROM batch_approval a
    WHERE a.batch_id = p_batch;
    RETURN true;
END $$;

-- What is due: batches that have cooled off are let go, those that nobody approved in time are canceled. Says which changed.
CREATE FUNCTION release_due(p_now_ms bigint, p_limit integer) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    FOR r IN SELECT a.batch_id, a.tenant_id, a.state, a.devices FROM batch_approval a
             JOIN batch b ON b.id = a.batch_id
             WHERE a.state IN (1, 2) AND least(a.expires_ms, a.release_ms) <= p_now_ms
             ORDER BY a.batch_id LIMIT p_limit FOR UPDATE OF b SKIP LOCKED
    LOOP
        IF r.state = 2 THEN
            IF release_batch(r.batch_id, p_now_ms) THEN
                RETURN NEXT r.batch_id;
            END IF;
        ELSE
            UPDATE batch_approval a SET state = 5, decided_ms = p_now_ms WHERE a.batch_id = r.batch_id AND a.state = 1;
            IF FOUND THEN
                UPDATE batch b SET cancel_requested_ms = p_now_ms WHERE b.id = r.batch_id AND b.cancel_requested_ms IS NULL;
                PERFORM audit_add(p_now_ms, r.tenant_id, 0, 'approval_expired', r.batch_id::text, r.devices, 'canceled');
                RETURN NEXT r.batch_id;
            END IF;
        END IF;
    END LOOP;
END $$;

-- A cancel ends the holding: the leader sees the batch, and sees it canceled. Whoever cancels need not know.
CREATE FUNCTION end_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.held_ms := NULL;
    UPDATE batch_approval a SET state = 6, decided_ms = NEW.cancel_requested_ms WHERE a.batch_id = NEW.id AND a.state IN (1, 2);
    RETURN NEW;
END $$;
CREATE TRIGGER batch_end_hold BEFORE UPDATE OF cancel_requested_ms ON batch FOR EACH ROW
    WHEN (OLD.held_ms IS NOT NULL AND NEW.cancel_requested_ms IS NOT NULL) EXECUTE FUNCTION end_hold();

-- Changes a tenant's policy; the caller's key and what was changed are in the audit.
CREATE FUNCTION set_guard_policy(p_name text, p_enabled boolean, p_kinds integer, p_devices integer, p_percent integer,
                                 p_cooling_off_ms bigint, p_delay_ms bigint, p_approval_ms bigint, p_key bigint, p_now_ms bigint)
RETURNS SETOF guard_policy LANGUAGE plpgsql AS $$
DECLARE
    v_tenant integer;
BEGIN
    SELECT t.id INTO v_tenant FROM tenant t WHERE t.name = p_name;
    IF v_tenant IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    INSERT INTO guard_policy AS p VALUES (v_tenant, p_enabled, p_kinds, p_devices, p_percent, p_cooling_off_ms, p_delay_ms,
                                          p_approval_ms)
    ON CONFLICT (tenant_id) DO UPDATE SET enabled = p_enabled, kinds = p_kinds, devices_per_hour = p_devices,
        percent_per_hour = p_percent, cooling_off_ms = p_cooling_off_ms, delay_ms = p_delay_ms, approval_ms = p_approval_ms
    RETURNING p.*;
    PERFORM audit_add(p_now_ms, v_tenant, p_key, 'set_policy',
                      format('kinds %s, %s devices, %s %% an hour, cooling off %s ms, delay %s ms, approval %s ms', p_kinds,
                             p_devices, p_percent, p_cooling_off_ms, p_delay_ms, p_approval_ms),
                      NULL, CASE WHEN p_enabled THEN 'on' ELSE 'off' END);
END $$;

-- As in 002; what is held is HELD.
CREATE OR REPLACE FUNCTION commands(p_batch bigint)
RETURNS TABLE (batch_id bigint, seq integer, device_id text, state text, attempts integer, updated_at timestamptz)
LANGUAGE sql STABLE AS $$
    WITH folded AS (
        SELECT b.tenant_id, k.block * 1024 + k.first + i AS seq,
               CASE WHEN k.states IS NOT NULL THEN get_byte(k.states, i) WHEN b.held_ms IS NULL THEN 2 ELSE 1 END AS byte,
               b.created_ms + CASE WHEN k.times IS NULL THEN 0 ELSE u32le(k.times, i * 4) END AS at_ms
        FROM batch b
        JOIN batch_block k ON k.batch_id = b.id
        CROSS JOIN LATERAL generate_series(0, length(k.targets) * 8 - 1) AS i
        WHERE b.id = p_batch AND get_bit(k.targets, i) = 1
    ), logged AS (
        -- The first terminal entry, else the last of the others.
        SELECT DISTINCT ON (e.seq) e.seq, e.byte & 15 AS state, e.at_ms, max(e.byte >> 4) OVER (PARTITION BY e.seq) AS attempts
        FROM logged_entries(p_batch) e
        WHERE e.byte & 15 BETWEEN 1 AND 11
        ORDER BY e.seq, (e.byte & 15) < 5, CASE WHEN (e.byte & 15) < 5 THEN -e.at_ms ELSE e.at_ms END,
                 e.stream, CASE WHEN (e.byte & 15) < 5 THEN -e.n ELSE e.n END, e.place
    ), joined AS (
        SELECT f.tenant_id, f.seq, l.seq IS NOT NULL AND f.byte & 15 < 5 AS newer, f.byte, l.state,
               greatest(f.byte >> 4, l.attempts) AS attempts, f.at_ms, l.at_ms AS logged_ms
        FROM folded f LEFT JOIN logged l ON l.seq = f.seq
    )
    SELECT p_batch, j.seq, d.id, command_state_name(CASE WHEN j.newer THEN j.state ELSE j.byte & 15 END), j.attempts,
           to_timestamp(CASE WHEN j.newer THEN j.logged_ms ELSE j.at_ms END / 1000.0)
    FROM joined j LEFT JOIN device d ON d.tenant_id = j.tenant_id AND d.seq = j.seq
    ORDER BY j.seq;
$$;
