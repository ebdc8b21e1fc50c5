-- Steering batches, and stopping them.

-- Gates: while one is closed nothing is sent of a tenant (tenant_id 0: of all). Workers read them from here. A row is there
-- while its gate is closed, and after it was opened until everything behind it has been routed anew. numbers grow with each
-- change, in the order of commits: whoever changes a gate holds the row of gate_state.
CREATE TABLE gate_state (
    number bigint NOT NULL
);
INSERT INTO gate_state VALUES (0);
CREATE TABLE gate (
    tenant_id    integer PRIMARY KEY,
    closed       boolean NOT NULL,
    number       bigint  NOT NULL,
    reason       text    NOT NULL DEFAULT '',
    changed_ms   bigint  NOT NULL,
    confirmed_ms bigint                    -- when every worker alive had confirmed the number
);

CREATE FUNCTION set_gate(p_tenant integer, p_name text, p_closed boolean, p_reason text, p_now_ms bigint, p_key bigint)
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
        INSERT INTO audit (at_ms, tenant_id, key_id, action, detail)
        VALUES (p_now_ms, nullif(v_tenant, 0), p_key, CASE WHEN p_closed THEN 'hold' ELSE 'release' END, p_reason);
    END IF;
    RETURN QUERY SELECT g.* FROM gate g WHERE g.tenant_id = v_tenant;
END $$;

-- What steers a batch, for batches that are steered: they have no row otherwise.
CREATE TABLE batch_control (
    batch_id   bigint  PRIMARY KEY,
    paused     boolean NOT NULL DEFAULT false, -- as it was asked for last
    reason     text    NOT NULL DEFAULT '',
    request    integer NOT NULL DEFAULT 0,     -- grows with everything that is asked for,
    handled    integer NOT NULL DEFAULT 0,     -- up to here the leader has carried it out,
    handled_ms bigint                          -- and when
);
CREATE INDEX batch_control_asked ON batch_control (batch_id) WHERE request > handled;

-- Devices for which a batch is to be canceled. A row goes when it is carried out.
CREATE TABLE batch_cancel (
    batch_id bigint  NOT NULL,
    request  integer NOT NULL,
    block    integer NOT NULL,
    slots    bytea   NOT NULL CHECK (length(slots) = 128),
    PRIMARY KEY (batch_id, request, block)
);

-- Pauses or resumes. No row: nothing of the kind could be done (no such batch, canceled, closed).
CREATE FUNCTION pause_batch(p_tenant integer, p_batch bigint, p_paused boolean, p_reason text, p_now_ms bigint, p_key bigint)
RETURNS TABLE (changed boolean) LANGUAGE plpgsql AS $$
BEGIN
    -- Held, so that it is neither closed nor canceled meanwhile.
    PERFORM FROM batch b WHERE b.id = p_batch AND b.tenant_id = p_tenant AND b.closed_ms IS NULL
                           AND b.cancel_requested_ms IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_paused THEN
        INSERT INTO batch_control AS c (batch_id, paused, reason, request) VALUES (p_batch, true, p_reason, 1)
        ON CONFLICT (batch_id) DO UPDATE SET paused = true, reason = p_reason, request = c.request + 1 WHERE NOT c.paused;
    ELSE
        UPDATE batch_control c SET paused = false, reason = p_reason, request = c.request + 1
        WHERE c.batch_id = p_batch AND c.paused;
    END IF;
    IF NOT FOUND THEN
        RETURN QUERY SELECT false;
        RETURN;
    END IF;
    INSERT INTO audit (at_ms, tenant_id, key_id, action, detail)
    VALUES (p_now_ms, p_tenant, p_key, CASE WHEN p_paused THEN 'pause_batch' ELSE 'resume_batch' END, p_batch::text);
    RETURN QUERY SELECT true;
END $$;

-- Asks that a batch be canceled for some devices. No row as above.
CREATE FUNCTION cancel_some(p_tenant integer, p_batch bigint, p_blocks integer[], p_slots bytea[], p_now_ms bigint, p_key bigint)
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
    INSERT INTO audit (at_ms, tenant_id, key_id, action, detail)
    VALUES (p_now_ms, p_tenant, p_key, 'cancel_batch_for_some', p_batch::text);
    RETURN QUERY SELECT true;
END $$;
