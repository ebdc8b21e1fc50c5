-- Events: what happened to batches, for those who want to be told.
--
-- A transaction notes in ledger_inbox what it makes true. The leader gives these events numbers, from 1 on for each tenant, in
-- the order in which it takes them out (ledger_settle): whoever has seen an event has seen all with lower numbers, whichever
-- transaction was slow. They are kept for some days (event_forget).

ALTER TABLE ledger_inbox ALTER COLUMN audits SET DEFAULT '{}';
-- An event is text: its kind (muster.v1.EventKind), its batch (0: of none), when (ms), each with a comma behind, then the rest of
-- muster.v1.Event as JSON. The n-th is of the n-th tenant.
ALTER TABLE ledger_inbox ADD COLUMN event_tenants integer[], ADD COLUMN events text[];
ALTER TABLE ledger_inbox ALTER COLUMN events SET STORAGE EXTERNAL;

-- Events that the leader took out together, numbers first to last.
CREATE TABLE event_log (
    tenant_id integer NOT NULL,
    last      bigint  NOT NULL,
    first     bigint  NOT NULL,
    at_ms     bigint  NOT NULL,                -- when they got their numbers
    events    text[]  NOT NULL,
    PRIMARY KEY (tenant_id, last)
);
ALTER TABLE event_log ALTER COLUMN events SET STORAGE EXTERNAL;
CREATE INDEX event_log_at ON event_log USING brin (at_ms) WITH (pages_per_range = 16);
CREATE TABLE event_head (
    tenant_id integer PRIMARY KEY,
    last      bigint  NOT NULL
) WITH (fillfactor = 50);

-- The one way in for a single event, in the transaction that makes it true.
CREATE FUNCTION event_add(p_tenant integer, p_kind integer, p_batch bigint, p_at_ms bigint, p_data text DEFAULT '{}') RETURNS void
LANGUAGE sql AS $$
    INSERT INTO ledger_inbox (event_tenants, events)
    VALUES (ARRAY[p_tenant], ARRAY[p_kind || ',' || p_batch || ',' || p_at_ms || ',' || p_data])
$$;

-- How many commands ended how, as JSON of muster.v1.Progress; p_counts by state from state 0 on.
CREATE FUNCTION event_progress(p_counts integer[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '{' || concat_ws(',', CASE WHEN p_counts[6] > 0 THEN '"succeeded":' || p_counts[6] END,
                            CASE WHEN p_counts[7] > 0 THEN '"failed":' || p_counts[7] END,
                            CASE WHEN p_counts[8] > 0 THEN '"rejected":' || p_counts[8] END,
                            CASE WHEN p_counts[9] > 0 THEN '"timedOut":' || p_counts[9] END,
                            CASE WHEN p_counts[10] > 0 THEN '"expired":' || p_counts[10] END,
                            CASE WHEN p_counts[11] > 0 THEN '"canceled":' || p_counts[11] END,
                            CASE WHEN p_counts[12] > 0 THEN '"superseded":' || p_counts[12] END) || '}'
$$;

-- As before; that they were accepted is an event too.
CREATE OR REPLACE FUNCTION ledger_submitted(p_tenants integer[], p_batches bigint[], p_heads text[], p_tails text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH made AS MATERIALIZED (
        SELECT u.* FROM unnest(p_tenants, p_batches, p_heads, p_tails) WITH ORDINALITY AS u (tenant, batch, head, tail, place)
        WHERE u.batch > 0
    ), noted AS (
        INSERT INTO audit_log (tenant_id, entries)
        SELECT u.tenant, array_agg(u.head || length(u.batch::text) || ':' || u.batch || ',' || u.tail ORDER BY u.place)
        FROM made u GROUP BY u.tenant
        RETURNING id)
    INSERT INTO ledger_inbox (audits, event_tenants, events)
    SELECT (SELECT array_agg(n.id ORDER BY n.id) FROM noted n), array_agg(u.tenant ORDER BY u.place),
           array_agg('1,' || u.batch || ',' || split_part(u.head, ',', 1) || ',{"deviceCount":' || split_part(u.head, ',', 4) || '}'
                     ORDER BY u.place)
    FROM made u HAVING count(*) > 0;
END $$;
ALTER FUNCTION ledger_submitted SET plan_cache_mode = force_generic_plan;

-- --- what happens on the way -------------------------------------------------------------------------------------------------

CREATE FUNCTION event_reason(p_reason text, p_more text DEFAULT NULL) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '{' || concat_ws(',', CASE WHEN p_reason <> '' THEN '"reason":' || to_json(p_reason) END, p_more) || '}'
$$;

CREATE FUNCTION event_now() RETURNS bigint LANGUAGE sql VOLATILE AS $$ SELECT server_ms() $$;

-- Of steered batches. Also when the row is new: a batch that is paused has none before.
CREATE FUNCTION event_of_control() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_tenant integer := (SELECT b.tenant_id FROM batch b WHERE b.id = NEW.batch_id);
    v_new boolean := TG_OP = 'INSERT';
BEGIN
    IF NOT v_new AND NEW.wave > OLD.wave THEN
        PERFORM event_add(v_tenant, 2, NEW.batch_id, event_now(), '{"wave":' || NEW.wave + 1 || '}');
    END IF;
    IF NOT v_new AND NEW.acted <> OLD.acted THEN
        PERFORM event_add(v_tenant, 3, NEW.batch_id, event_now(), event_reason(NEW.reason));
    END IF;
    IF NEW.paused AND (v_new OR NOT OLD.paused) THEN
        PERFORM event_add(v_tenant, 4, NEW.batch_id, event_now(), event_reason(NEW.reason));
    ELSIF NOT v_new AND (OLD.paused AND NOT NEW.paused OR OLD.stopped <> 0 AND NEW.stopped = 0) THEN
        PERFORM event_add(v_tenant, 5, NEW.batch_id, event_now(), event_reason(NEW.reason));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER event_of_control AFTER UPDATE ON batch_control FOR EACH ROW
    WHEN (NEW.wave > OLD.wave OR NEW.acted <> OLD.acted OR NEW.paused <> OLD.paused OR OLD.stopped <> 0 AND NEW.stopped = 0)
    EXECUTE FUNCTION event_of_control();
CREATE TRIGGER event_of_new_control AFTER INSERT ON batch_control FOR EACH ROW WHEN (NEW.paused)
    EXECUTE FUNCTION event_of_control();

CREATE FUNCTION event_of_cancel() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM event_add(NEW.tenant_id, 6, NEW.id, NEW.cancel_requested_ms);
    RETURN NULL;
END $$;
CREATE TRIGGER event_of_cancel AFTER UPDATE OF cancel_requested_ms ON batch FOR EACH ROW
    WHEN (OLD.cancel_requested_ms IS NULL AND NEW.cancel_requested_ms IS NOT NULL) EXECUTE FUNCTION event_of_cancel();

-- needed, pending: 7; approved 8, rejected 9, expired 10, released 11.
CREATE FUNCTION event_of_approval() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_kind integer := CASE WHEN TG_OP = 'INSERT' THEN 7 WHEN NEW.state = 2 THEN 8 WHEN NEW.state = 3 THEN 11
                           WHEN NEW.state = 4 THEN 9 WHEN NEW.state = 5 THEN 10 END;
BEGIN
    IF v_kind IS NOT NULL THEN
        PERFORM event_add(NEW.tenant_id, v_kind, NEW.batch_id, event_now(),
                          event_reason(NEW.reason, '"deviceCount":' || NEW.devices));
    END IF;
    RETURN NULL;
END $$;
-- In the order of names, behind the acceptance: see ledger_accepted, which comes after the row is made.
CREATE CONSTRAINT TRIGGER event_of_held AFTER INSERT ON batch_approval DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.state = 1) EXECUTE FUNCTION event_of_approval();
CREATE TRIGGER event_of_approval AFTER UPDATE OF state ON batch_approval FOR EACH ROW WHEN (NEW.state <> OLD.state)
    EXECUTE FUNCTION event_of_approval();

-- A tenant, or all of them, held and released.
CREATE FUNCTION event_of_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM event_add(t.id, CASE WHEN NEW.closed THEN 13 ELSE 14 END, 0, NEW.changed_ms, event_reason(NEW.reason))
    FROM tenant t WHERE t.id = NEW.tenant_id OR NEW.tenant_id = 0;
    RETURN NULL;
END $$;
CREATE TRIGGER event_of_gate AFTER UPDATE ON gate FOR EACH ROW WHEN (NEW.closed <> OLD.closed) EXECUTE FUNCTION event_of_gate();
CREATE TRIGGER event_of_new_gate AFTER INSERT ON gate FOR EACH ROW WHEN (NEW.closed) EXECUTE FUNCTION event_of_gate();

-- --- the leader ----------------------------------------------------------------------------------------------------------------

-- Links rows of the audit to the chains of their tenants, in this order.
CREATE FUNCTION audit_settle(p_audits bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH named AS (
        SELECT l.tenant_id, l.id, l.entries, u.place,
               coalesce(h.n, 0) + row_number() OVER (PARTITION BY l.tenant_id ORDER BY u.place) AS n,
               coalesce(h.hash, decode(repeat('00', 32), 'hex')) AS before
        FROM unnest(p_audits) WITH ORDINALITY AS u (id, place)
        JOIN audit_log l ON l.id = u.id
        LEFT JOIN audit_head h ON h.tenant_id = l.tenant_id
    ), chained AS MATERIALIZED (
        SELECT x.tenant_id, x.n, x.id, audit_chain(x.before, audit_canonical(x.n, x.tenant_id, x.entries))
               OVER (PARTITION BY x.tenant_id ORDER BY x.n ROWS UNBOUNDED PRECEDING) AS hash
        FROM named x
    ), head AS (
        INSERT INTO audit_head AS h (tenant_id, n, hash)
        SELECT DISTINCT ON (c.tenant_id) c.tenant_id, c.n, c.hash FROM chained c ORDER BY c.tenant_id, c.n DESC
        ON CONFLICT (tenant_id) DO UPDATE SET n = excluded.n, hash = excluded.hash
    )
    INSERT INTO audit_link (tenant_id, n, audit_id, hash) SELECT c.tenant_id, c.n, c.id, c.hash FROM chained c;
END $$;

-- Gives events their numbers. Rows of event_log hold 256 at most.
CREATE FUNCTION event_settle(p_tenants integer[], p_events text[], p_now_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH e AS MATERIALIZED (
        SELECT u.*, row_number() OVER (PARTITION BY u.tenant ORDER BY u.place) AS k
        FROM unnest(p_tenants, p_events) WITH ORDINALITY AS u (tenant, event, place)
    ), head AS (
        INSERT INTO event_head AS h (tenant_id, last) SELECT e.tenant, count(*) FROM e GROUP BY e.tenant
        ON CONFLICT (tenant_id) DO UPDATE SET last = h.last + excluded.last
        RETURNING h.tenant_id, h.last
    ), total AS (SELECT e.tenant, count(*) AS n FROM e GROUP BY e.tenant)
    INSERT INTO event_log (tenant_id, last, first, at_ms, events)
    SELECT e.tenant, h.last - t.n + max(e.k), h.last - t.n + min(e.k), p_now_ms, array_agg(e.event ORDER BY e.k)
    FROM e JOIN head h ON h.tenant_id = e.tenant JOIN total t ON t.tenant = e.tenant
    GROUP BY e.tenant, h.last, t.n, (e.k - 1) / 256;
END $$;

-- As before, with the events: of how many there were, and how many events.
DROP FUNCTION ledger_settle(integer);
CREATE FUNCTION ledger_settle(p_limit integer, p_now_ms bigint) RETURNS TABLE (taken integer, told integer)
LANGUAGE plpgsql AS $$
DECLARE
    v_audits bigint[];
    v_tenants integer[];
    v_events text[];
BEGIN
    WITH gone AS MATERIALIZED (
        DELETE FROM ledger_inbox x WHERE x.ctid = ANY (ARRAY(SELECT i.ctid FROM ledger_inbox i ORDER BY i.id LIMIT p_limit))
        RETURNING x.id, x.audits, x.event_tenants, x.events)
    SELECT (SELECT count(*) FROM gone),
           (SELECT array_agg(a.audit ORDER BY g.id, a.place)
            FROM gone g CROSS JOIN LATERAL unnest(g.audits) WITH ORDINALITY AS a (audit, place)),
           e.tenants, e.events
    INTO taken, v_audits, v_tenants, v_events
    FROM (SELECT array_agg(u.tenant ORDER BY g.id, u.place) AS tenants, array_agg(u.event ORDER BY g.id, u.place) AS events
          FROM gone g CROSS JOIN LATERAL unnest(g.event_tenants, g.events) WITH ORDINALITY AS u (tenant, event, place)) e;
    told := coalesce(cardinality(v_events), 0);
    IF v_audits IS NOT NULL THEN
        PERFORM audit_settle(v_audits);
    END IF;
    IF told > 0 THEN
        PERFORM event_settle(v_tenants, v_events, p_now_ms);
    END IF;
    RETURN NEXT;
END $$;
-- By index, whatever the planner thinks of tables that were empty when it planned.
ALTER FUNCTION audit_settle SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION audit_settle SET jit = off;
ALTER FUNCTION audit_settle SET enable_hashjoin = off;
ALTER FUNCTION audit_settle SET enable_mergejoin = off;
ALTER FUNCTION event_settle SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION event_settle SET jit = off;

-- Forgets events that got their numbers before, at most p_limit rows of them. Says how many.
CREATE FUNCTION event_forget(p_before_ms bigint, p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_count integer;
BEGIN
    DELETE FROM event_log WHERE ctid = ANY (ARRAY(SELECT l.ctid FROM event_log l WHERE l.at_ms < p_before_ms LIMIT p_limit));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
