-- Events of devices that come and go: which tenants want them, and what each was told last.

-- A tenant that wants them. Whoever switches them off and on again gets another number: what was told before is forgotten.
CREATE TABLE presence_tenant (
    tenant_id integer PRIMARY KEY,
    number    bigint  NOT NULL GENERATED ALWAYS AS IDENTITY
);
-- Who was told to be online; a block without a row: nobody.
CREATE TABLE presence_block (
    tenant_id integer NOT NULL,
    block     integer NOT NULL,
    slots     bytea   NOT NULL,
    PRIMARY KEY (tenant_id, block)
) WITH (fillfactor = 50);

CREATE FUNCTION set_device_events(p_tenant integer, p_enabled boolean, p_key bigint, p_now_ms bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_enabled THEN
        INSERT INTO presence_tenant (tenant_id) VALUES (p_tenant) ON CONFLICT DO NOTHING;
    ELSE
        DELETE FROM presence_tenant p WHERE p.tenant_id = p_tenant; -- waits for what is being told
    END IF;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM presence_block p WHERE p.tenant_id = p_tenant;
    PERFORM audit_add(p_now_ms, p_tenant, p_key, 'set_device_events', '', NULL, CASE WHEN p_enabled THEN 'on' ELSE 'off' END);
END $$;

-- Tells who has come and who has gone, an event for those of a block; p_slots is who is online then in the blocks that have
-- changed. False: it is not wanted any more.
CREATE FUNCTION presence_tell(p_tenant integer, p_number bigint, p_now_ms bigint, p_blocks integer[], p_slots bytea[],
                              p_came integer[], p_gone integer[]) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM presence_tenant p WHERE p.tenant_id = p_tenant AND p.number = p_number FOR SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO presence_block (tenant_id, block, slots)
    SELECT p_tenant, u.block, u.slots FROM unnest(p_blocks, p_slots) AS u (block, slots)
    ON CONFLICT (tenant_id, block) DO UPDATE SET slots = excluded.slots;
    INSERT INTO ledger_inbox (event_tenants, events)
    SELECT array_agg(p_tenant), array_agg(e.text)
    FROM (SELECT c.kind || ',0,' || p_now_ms || ',{"deviceCount":' || count(*) || ',"deviceIds":' || json_agg(d.id ORDER BY c.seq)
                 || '}' AS text
          FROM (SELECT 16 AS kind, unnest(p_came) AS seq UNION ALL SELECT 17, unnest(p_gone)) c
          -- One look-up by index for each, whatever the planner believes.
          CROSS JOIN LATERAL (SELECT x.id FROM device x WHERE x.tenant_id = p_tenant AND x.seq = c.seq LIMIT 1) d
          GROUP BY c.kind, c.seq / 1024 ORDER BY c.seq / 1024, c.kind) e
    HAVING count(*) > 0;
    RETURN true;
END $$;
ALTER FUNCTION presence_tell SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION presence_tell SET jit = off;

-- As before; rows of event_log hold 256 events at most, and fewer where these are long: who reads them reads several at once.
CREATE OR REPLACE FUNCTION event_settle(p_tenants integer[], p_events text[], p_now_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH e AS MATERIALIZED (
        SELECT u.*, row_number() OVER w AS k, sum(octet_length(u.event)) OVER w AS bytes
        FROM unnest(p_tenants, p_events) WITH ORDINALITY AS u (tenant, event, place)
        WINDOW w AS (PARTITION BY u.tenant ORDER BY u.place ROWS UNBOUNDED PRECEDING)
    ), head AS (
        INSERT INTO event_head AS h (tenant_id, last) SELECT e.tenant, count(*) FROM e GROUP BY e.tenant
        ON CONFLICT (tenant_id) DO UPDATE SET last = h.last + excluded.last
        RETURNING h.tenant_id, h.last
    ), total AS (SELECT e.tenant, count(*) AS n FROM e GROUP BY e.tenant)
    INSERT INTO event_log (tenant_id, last, first, at_ms, events)
    SELECT e.tenant, h.last - t.n + max(e.k), h.last - t.n + min(e.k), p_now_ms, array_agg(e.event ORDER BY e.k)
    FROM e JOIN head h ON h.tenant_id = e.tenant JOIN total t ON t.tenant = e.tenant
    GROUP BY e.tenant, h.last, t.n, (e.k - 1) / 256, e.bytes / 262144;
END $$;
