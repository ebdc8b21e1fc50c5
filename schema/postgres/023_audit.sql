-- The audit: who did what, in a chain that shows what was changed or removed afterwards.
--
-- A transaction notes what it does in one row of audit_log (of each tenant concerned), which is never changed, and names
-- that row in ledger_inbox: nothing waits for anybody else. Within a second the leader takes the names out of there and links
-- the rows to the chain of their tenant (ledger_settle). Who changes them all the same is found out (audit_verify).

-- An entry is text, so that it can be hashed as it stands: when (ms), key (0: Muster itself), the key's role
-- (muster.v1.Role), devices (nothing: it is about none), action, outcome, each with a comma behind, then what it was done to,
-- what else there is to say and the address of the caller, each as its length in characters, a colon, itself and a comma.
CREATE FUNCTION audit_text(at_ms bigint, key_id bigint, role smallint, devices integer, action text, outcome text, detail text,
                           note text, address text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT at_ms || ',' || key_id || ',' || role || ',' || coalesce(devices::text, '') || ',' || action || ',' || outcome || ','
           || length(detail) || ':' || detail || ',' || length(note) || ':' || note || ',' || length(address) || ':' || address || ','
$$;
CREATE FUNCTION audit_parse(p text, OUT at_ms bigint, OUT key_id bigint, OUT role smallint, OUT devices integer, OUT action text,
                            OUT outcome text, OUT detail text, OUT note text, OUT address text) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v text[] := regexp_match(p, '^(\d+),(\d+),(\d+),(\d*),([^,]*),([^,]*),(.*)$');
    v_rest text := v[7];
    v_texts text[];
    v_len integer;
BEGIN
    FOR i IN 1 .. 3 LOOP
        v_len := split_part(v_rest, ':', 1);
        v_rest := substr(v_rest, length(v_len::text) + 2);
        v_texts[i] := left(v_rest, v_len);
        v_rest := substr(v_rest, v_len + 2);
    END LOOP;
    at_ms := v[1]; key_id := v[2]; role := v[3]; devices := nullif(v[4], ''); action := v[5]; outcome := v[6];
    detail := v_texts[1]; note := v_texts[2]; address := v_texts[3];
END $$;

ALTER TABLE audit RENAME TO audit_before;
CREATE TABLE audit_log (
    id        bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    tenant_id integer NOT NULL,                -- 0: of the whole installation
    entries   text[]  NOT NULL                 -- what one transaction did
);
-- Read soon after, and seldom again: compressing costs more than it saves.
ALTER TABLE audit_log ALTER COLUMN entries SET STORAGE EXTERNAL;

-- The chains, each from n = 1 on without a gap. hash: SHA-256 over the hash before it (32 zero bytes in front of the first)
-- and audit_canonical of the row.
CREATE TABLE audit_link (
    tenant_id integer NOT NULL,
    n         bigint  NOT NULL,
    audit_id  bigint  NOT NULL UNIQUE,
    hash      bytea   NOT NULL,
    PRIMARY KEY (tenant_id, n)
);
CREATE TABLE audit_head (
    tenant_id integer PRIMARY KEY,
    n         bigint  NOT NULL,
    hash      bytea   NOT NULL
);

-- What the leader has to put where it belongs. Read whole and emptied many times a second: it has no index.
CREATE TABLE ledger_inbox (
    id     bigint   NOT NULL GENERATED ALWAYS AS IDENTITY,
    audits bigint[] NOT NULL                   -- rows of audit_log, to be linked in this order
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is only ever added to' USING ERRCODE = 'MU006';
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_link
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();

-- What is hashed of a row: its place, its tenant, and its entries.
CREATE FUNCTION audit_canonical(p_n bigint, p_tenant integer, p_entries text[]) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT convert_to(p_n || ',' || p_tenant || ',' || array_to_string(p_entries, ''), 'UTF8')
$$;

-- Over the rows of a chain in order: the hash of each.
CREATE FUNCTION audit_next(p_hash bytea, p_before bytea, p_row bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN sha256(coalesce(p_hash, p_before) || p_row);
END $$;
CREATE AGGREGATE audit_chain(bytea, bytea) (SFUNC = audit_next, STYPE = bytea);

-- The one way in, in the transaction that does what is noted. Key 0 is nobody's: Muster itself. The address is that of the
-- caller whom the transaction serves (muster.address).
DROP FUNCTION audit_add(bigint, integer, bigint, text, text, integer, text);
CREATE FUNCTION audit_add(p_at_ms bigint, p_tenant integer, p_key bigint, p_action text, p_detail text, p_devices integer,
                          p_outcome text, p_note text DEFAULT '') RETURNS void LANGUAGE sql AS $$
    WITH noted AS (
        INSERT INTO audit_log (tenant_id, entries)
        SELECT coalesce(p_tenant, 0),
               ARRAY[audit_text(p_at_ms, coalesce(p_key, 0), coalesce((SELECT k.role FROM api_key k WHERE k.id = p_key), 0::smallint),
                                p_devices, replace(p_action, ',', ';'), replace(coalesce(p_outcome, ''), ',', ';'),
                                coalesce(p_detail, ''), coalesce(p_note, ''),
                                CASE WHEN p_key <> 0 THEN coalesce(current_setting('muster.address', true), '') ELSE '' END)]
        RETURNING id)
    INSERT INTO ledger_inbox (audits) SELECT ARRAY[n.id] FROM noted n
$$;

-- The audit as one table. What is inserted here goes through audit_add.
CREATE VIEW audit AS
    SELECT l.id * 1024 + e.place AS id, p.at_ms, nullif(l.tenant_id, 0) AS tenant_id, nullif(p.key_id, 0) AS key_id, p.role,
           p.address, p.action, p.detail, p.note, p.devices, p.outcome
    FROM audit_log l CROSS JOIN LATERAL unnest(l.entries) WITH ORDINALITY AS e (entry, place)
    CROSS JOIN LATERAL audit_parse(e.entry) AS p;
CREATE FUNCTION audit_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM audit_add(NEW.at_ms, NEW.tenant_id, NEW.key_id, NEW.action, NEW.detail, NEW.devices, NEW.outcome, NEW.note);
    RETURN NEW;
END $$;
CREATE TRIGGER audit_insert INSTEAD OF INSERT ON audit FOR EACH ROW EXECUTE FUNCTION audit_insert();

-- What came before there was a chain is its beginning.
SELECT audit_add(a.at_ms, a.tenant_id, a.key_id, a.action, a.detail, a.devices, a.outcome)
FROM (SELECT b.* FROM audit_before b ORDER BY b.id) a;
DROP TABLE audit_before;

-- Notes batches that were accepted, the n-th elements making one; 0 and less is none. p_heads and p_tails are the entry before and
-- behind the number, which the text of the entry has as what was done something to.
CREATE FUNCTION ledger_submitted(p_tenants integer[], p_batches bigint[], p_heads text[], p_tails text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH noted AS (
        INSERT INTO audit_log (tenant_id, entries)
        SELECT u.tenant, array_agg(u.head || length(u.batch::text) || ':' || u.batch || ',' || u.tail ORDER BY u.place)
        FROM unnest(p_tenants, p_batches, p_heads, p_tails) WITH ORDINALITY AS u (tenant, batch, head, tail, place)
        WHERE u.batch > 0
        GROUP BY u.tenant
        RETURNING id)
    INSERT INTO ledger_inbox (audits) SELECT array_agg(n.id ORDER BY n.id) FROM noted n HAVING count(*) > 0;
END $$;
ALTER FUNCTION ledger_submitted SET plan_cache_mode = force_generic_plan;

-- As accept_devices, noted.
CREATE FUNCTION accept_devices_noted(p_tenants integer[], p_request_ids text[], p_hashes bytea[], p_descriptions text[],
                                     p_commands bytea[], p_priorities smallint[], p_created_ms bigint[], p_expires_ms bigint[],
                                     p_devices text[], p_heads text[], p_tails text[])
RETURNS TABLE (seq integer, batch_id bigint)
LANGUAGE plpgsql AS $$
DECLARE
    v_seqs integer[];
    v_batches bigint[];
BEGIN
    SELECT array_agg(a.seq ORDER BY a.n), array_agg(a.batch_id ORDER BY a.n) INTO v_seqs, v_batches
    FROM accept_devices(p_tenants, p_request_ids, p_hashes, p_descriptions, p_commands, p_priorities, p_created_ms,
                        p_expires_ms, p_devices) WITH ORDINALITY AS a (seq, batch_id, n);
    PERFORM ledger_submitted(p_tenants, v_batches, p_heads, p_tails);
    RETURN QUERY SELECT u.seq, u.batch FROM unnest(v_seqs, v_batches) AS u (seq, batch);
END $$;

-- Notes the batches that this transaction has accepted by their request ids. They are looked for in a way that only the index
-- of the request ids serves, whatever the planner thinks of a table that it last saw empty.
CREATE FUNCTION ledger_accepted(p_tenants integer[], p_request_ids text[], p_keys bigint[], p_roles smallint[], p_tails text[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_batches bigint[];
    v_heads text[];
BEGIN
    SELECT array_agg(coalesce(b.id, 0) ORDER BY u.place),
           array_agg(coalesce(b.created_ms || ',' || u.key || ',' || u.role || ',' || b.device_count || ',submit_batch,'
                              || CASE WHEN b.held_ms IS NULL THEN 'accepted,' ELSE 'held,' END, '') ORDER BY u.place)
    INTO v_batches, v_heads
    FROM unnest(p_tenants, p_request_ids, p_keys, p_roles) WITH ORDINALITY AS u (tenant, request_id, key, role, place)
    LEFT JOIN LATERAL (SELECT x.*, x.xmin AS made_by FROM batch x
                       WHERE (x.tenant_id, x.request_id) >= (u.tenant, u.request_id)
                       ORDER BY x.tenant_id, x.request_id LIMIT 1) b
        ON b.tenant_id = u.tenant AND b.request_id = u.request_id AND b.made_by = pg_current_xact_id()::xid;
    PERFORM ledger_submitted(p_tenants, v_batches, v_heads, p_tails);
END $$;

-- Takes up to p_limit rows out of the inbox, and puts what they name where it belongs. Called by one transaction at a time,
-- under the leader's lease. Says how many rows there were.
CREATE FUNCTION ledger_settle(p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_audits bigint[];
    v_count integer;
BEGIN
    WITH gone AS (DELETE FROM ledger_inbox WHERE ctid = ANY (ARRAY(SELECT i.ctid FROM ledger_inbox i ORDER BY i.id LIMIT p_limit))
                  RETURNING id, audits)
    SELECT count(*), (SELECT array_agg(a.audit ORDER BY g.id, a.place)
                      FROM gone g CROSS JOIN LATERAL unnest(g.audits) WITH ORDINALITY AS a (audit, place))
    INTO v_count, v_audits FROM gone;
    IF v_audits IS NOT NULL THEN
        WITH named AS (
            SELECT l.tenant_id, l.id, l.entries, u.place,
                   coalesce(h.n, 0) + row_number() OVER (PARTITION BY l.tenant_id ORDER BY u.place) AS n,
                   coalesce(h.hash, decode(repeat('00', 32), 'hex')) AS before
            FROM unnest(v_audits) WITH ORDINALITY AS u (id, place)
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
    END IF;
    RETURN v_count;
END $$;

-- By index, whatever the planner thinks of tables that were empty when it planned.
ALTER FUNCTION ledger_settle SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION ledger_settle SET jit = off;
ALTER FUNCTION ledger_settle SET enable_hashjoin = off;
ALTER FUNCTION ledger_settle SET enable_mergejoin = off;

-- Looks at the rows of a chain behind p_after, at most p_limit of them: how many there were, the last one that is as it
-- should be with its hash, whether the chain ends here, and what is wrong with the one behind that ('' when all are well).
CREATE FUNCTION audit_verify(p_tenant integer, p_after bigint, p_limit integer)
RETURNS TABLE (looked integer, good bigint, good_hash bytea, at_end boolean, wrong text) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_zero bytea := decode(repeat('00', 32), 'hex');
    v_head audit_head;
    v_last bigint;
    r record;
BEGIN
    SELECT h.* INTO v_head FROM audit_head h WHERE h.tenant_id = p_tenant;
    good := p_after;
    wrong := '';
    looked := 0;
    SELECT l.hash INTO good_hash FROM audit_link l WHERE l.tenant_id = p_tenant AND l.n = p_after;
    IF good_hash IS NULL AND p_after > 0 THEN
        good := p_after - 1;
        wrong := 'missing';
    END IF;
    SELECT max(x.n), count(*) INTO v_last, looked
    FROM (SELECT l.n FROM audit_link l WHERE l.tenant_id = p_tenant AND l.n > p_after ORDER BY l.n LIMIT p_limit) x;
    at_end := looked < p_limit;
    IF wrong = '' AND looked > 0 THEN
        SELECT x.n, x.before_n, x.why INTO r FROM (
            SELECT l.n, lag(l.n, 1, p_after) OVER w AS before_n,
                   CASE WHEN l.n <> lag(l.n, 1, p_after) OVER w + 1 OR a.id IS NULL THEN 'missing'
                        WHEN l.hash <> sha256(lag(l.hash, 1, coalesce(good_hash, v_zero)) OVER w
                                              || audit_canonical(l.n, l.tenant_id, a.entries)) THEN 'changed' END AS why
            FROM audit_link l LEFT JOIN audit_log a ON a.id = l.audit_id AND a.tenant_id = l.tenant_id
            WHERE l.tenant_id = p_tenant AND l.n > p_after AND l.n <= v_last
            WINDOW w AS (ORDER BY l.n)) x
        WHERE x.why IS NOT NULL ORDER BY x.n LIMIT 1;
        IF FOUND THEN
            good := r.before_n;
            wrong := r.why;
        ELSE
            good := v_last;
        END IF;
        SELECT l.hash INTO good_hash FROM audit_link l WHERE l.tenant_id = p_tenant AND l.n = good;
    END IF;
    IF wrong = '' AND at_end AND coalesce(v_head.n, 0) <> good THEN
        wrong := CASE WHEN coalesce(v_head.n, 0) > good THEN 'missing' ELSE 'added' END;
        good := least(coalesce(v_head.n, 0), good);
    ELSIF wrong = '' AND at_end AND v_head.hash <> good_hash THEN
        wrong := 'changed';
        good := good - 1;
    END IF;
    RETURN NEXT;
END $$;
