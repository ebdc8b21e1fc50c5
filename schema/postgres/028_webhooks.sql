-- Web hooks: where events are sent to.

CREATE TABLE webhook (
    id            bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    tenant_id     integer NOT NULL,
    url           text    NOT NULL,
    kinds         bigint  NOT NULL,            -- bit n: of kind n (muster.v1.EventKind); 0: all
    description   text    NOT NULL,
    secret        bytea   NOT NULL,
    former_secret bytea,                       -- signs too
    created_ms    bigint  NOT NULL,
    loaded        bigint  NOT NULL,            -- events up to this one are in webhook_event, or were, or are not asked for
    failed        integer NOT NULL DEFAULT 0,  -- attempts since the last one that succeeded,
    failure       text    NOT NULL DEFAULT '', -- what was wrong with the last of them,
    next_ms       bigint  NOT NULL DEFAULT 0,  -- and until when it is left in peace
    succeeded_ms  bigint
);
CREATE INDEX webhook_tenant ON webhook (tenant_id, id);

-- What is to be sent to a web hook; the text is that of the event (event_add). died_ms: it was given up.
CREATE TABLE webhook_event (
    webhook_id bigint  NOT NULL REFERENCES webhook ON DELETE CASCADE,
    event_id   bigint  NOT NULL,
    batch_id   bigint  NOT NULL,
    text       text    NOT NULL,
    attempts   integer NOT NULL DEFAULT 0,
    next_ms    bigint  NOT NULL,
    until_ms   bigint  NOT NULL,               -- a failure after this is the last
    failure    text    NOT NULL DEFAULT '',
    died_ms    bigint,
    PRIMARY KEY (webhook_id, event_id)
) WITH (fillfactor = 70);
CREATE INDEX webhook_event_waits ON webhook_event (webhook_id, event_id) WHERE died_ms IS NULL;
CREATE INDEX webhook_event_batch ON webhook_event (webhook_id, batch_id, event_id) WHERE died_ms IS NULL;
CREATE INDEX webhook_event_dead ON webhook_event (died_ms) WHERE died_ms IS NOT NULL;

-- --- callers -------------------------------------------------------------------------------------------------------------------

-- No row: the tenant has p_max already. Events from now on are sent.
CREATE FUNCTION webhook_create(p_tenant integer, p_url text, p_kinds bigint, p_description text, p_secret bytea, p_max integer,
                               p_key bigint, p_now_ms bigint) RETURNS SETOF webhook LANGUAGE plpgsql AS $$
DECLARE
    w webhook;
BEGIN
    PERFORM FROM tenant t WHERE t.id = p_tenant FOR NO KEY UPDATE;
    IF (SELECT count(*) FROM webhook x WHERE x.tenant_id = p_tenant) >= p_max THEN
        RETURN;
    END IF;
    INSERT INTO webhook (tenant_id, url, kinds, description, secret, created_ms, loaded)
    VALUES (p_tenant, p_url, p_kinds, p_description, p_secret, p_now_ms,
            coalesce((SELECT h.last FROM event_head h WHERE h.tenant_id = p_tenant), 0)) RETURNING * INTO w;
    PERFORM audit_add(p_now_ms, p_tenant, p_key, 'create_webhook', w.id::text, NULL, '', p_url);
    RETURN NEXT w;
END $$;

CREATE FUNCTION webhook_delete(p_tenant integer, p_id bigint, p_key bigint, p_now_ms bigint) RETURNS SETOF bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_url text;
BEGIN
    DELETE FROM webhook w WHERE w.tenant_id = p_tenant AND w.id = p_id RETURNING w.url INTO v_url;
    IF FOUND THEN
        PERFORM audit_add(p_now_ms, p_tenant, p_key, 'delete_webhook', p_id::text, NULL, '', v_url);
        RETURN NEXT p_id;
    END IF;
END $$;

CREATE FUNCTION webhook_rotate(p_tenant integer, p_id bigint, p_secret bytea, p_key bigint, p_now_ms bigint)
RETURNS SETOF bigint LANGUAGE plpgsql AS $$
BEGIN
    UPDATE webhook w SET former_secret = w.secret, secret = p_secret WHERE w.tenant_id = p_tenant AND w.id = p_id;
    IF FOUND THEN
        PERFORM audit_add(p_now_ms, p_tenant, p_key, 'rotate_webhook_secret', p_id::text, NULL, '');
        RETURN NEXT p_id;
    END IF;
END $$;

CREATE FUNCTION webhook_test(p_tenant integer, p_id bigint, p_now_ms bigint) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM webhook w WHERE w.tenant_id = p_tenant AND w.id = p_id) THEN
        PERFORM event_add(p_tenant, 15, 0, p_now_ms, '{"webhookId":"' || p_id || '"}');
        RETURN NEXT p_id;
    END IF;
END $$;

-- Sends what was given up once more; p_events empty: all of it. No row: there is no such web hook.
CREATE FUNCTION webhook_replay(p_tenant integer, p_id bigint, p_events bigint[], p_now_ms bigint, p_life_ms bigint, p_key bigint)
RETURNS TABLE (replayed integer) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM webhook w WHERE w.tenant_id = p_tenant AND w.id = p_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE webhook_event e SET died_ms = NULL, attempts = 0, next_ms = p_now_ms, until_ms = p_now_ms + p_life_ms
    WHERE e.webhook_id = p_id AND e.died_ms IS NOT NULL AND (p_events = '{}' OR e.event_id = ANY (p_events));
    GET DIAGNOSTICS replayed = ROW_COUNT;
    UPDATE webhook w SET failed = 0, next_ms = 0 WHERE w.id = p_id;
    PERFORM audit_add(p_now_ms, p_tenant, p_key, 'replay_webhook', p_id::text, NULL, '', replayed || ' events');
    RETURN NEXT;
END $$;

-- --- the leader ----------------------------------------------------------------------------------------------------------------

-- Brings in events for web hooks that have fewer than p_window waiting: so one that does not answer is not piled up for. What is
-- not brought in waits in event_log, as long as that keeps it.
CREATE FUNCTION webhook_load(p_now_ms bigint, p_window integer, p_life_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    w webhook;
    v_last bigint;
BEGIN
    FOR w IN SELECT x.* FROM webhook x JOIN event_head h ON h.tenant_id = x.tenant_id AND h.last > x.loaded ORDER BY x.id
             FOR NO KEY UPDATE OF x SKIP LOCKED
    LOOP
        CONTINUE WHEN (SELECT count(*) FROM (SELECT FROM webhook_event e WHERE e.webhook_id = w.id AND e.died_ms IS NULL
                                             LIMIT p_window) c) >= p_window;
        SELECT max(l.last) INTO v_last FROM (SELECT k.last FROM event_log k WHERE k.tenant_id = w.tenant_id AND k.last > w.loaded
                                             ORDER BY k.last LIMIT 4) l;
        INSERT INTO webhook_event (webhook_id, event_id, batch_id, text, next_ms, until_ms)
        SELECT w.id, l.first + u.place - 1, split_part(u.text, ',', 2)::bigint, u.text, p_now_ms,
               split_part(u.text, ',', 3)::bigint + p_life_ms
        FROM event_log l CROSS JOIN LATERAL unnest(l.events) WITH ORDINALITY AS u (text, place)
        WHERE l.tenant_id = w.tenant_id AND l.last > w.loaded AND l.last <= v_last AND l.first + u.place - 1 > w.loaded
          AND CASE WHEN u.text LIKE '15,%' THEN u.text LIKE '%"webhookId":"' || w.id || '"%'
                   ELSE w.kinds = 0 OR w.kinds >> split_part(u.text, ',', 1)::integer & 1 = 1 END;
        UPDATE webhook x SET loaded = coalesce(v_last, x.loaded) WHERE x.id = w.id;
    END LOOP;
END $$;

-- What is to be sent now, but for what is on its way (the n-th elements of both arrays): of a batch only its first event that
-- is not settled, of a web hook that fails one, of others up to p_each, of a tenant up to p_tenant, together up to p_all.
CREATE FUNCTION webhook_take(p_now_ms bigint, p_window integer, p_life_ms bigint, p_each integer, p_tenant integer, p_all integer,
                             p_hooks bigint[], p_events bigint[])
RETURNS TABLE (webhook_id bigint, event_id bigint, tenant_id integer, tenant text, url text, secret bytea, former_secret bytea,
               text text)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM webhook) THEN
        RETURN;
    END IF;
    PERFORM webhook_load(p_now_ms, p_window, p_life_ms);
    RETURN QUERY
    WITH flying AS MATERIALIZED (SELECT u.hook, u.event FROM unnest(p_hooks, p_events) AS u (hook, event)),
    candidate AS (
        SELECT w.id, w.tenant_id, w.url, w.secret, w.former_secret, e.event_id, e.text,
               row_number() OVER (PARTITION BY w.tenant_id ORDER BY e.event_id)
               + (SELECT count(*) FROM flying f JOIN webhook o ON o.id = f.hook WHERE o.tenant_id = w.tenant_id) AS place
        FROM webhook w CROSS JOIN LATERAL (
            SELECT d.event_id, d.text FROM webhook_event d
            WHERE d.webhook_id = w.id AND d.died_ms IS NULL AND d.next_ms <= p_now_ms
              AND NOT EXISTS (SELECT FROM webhook_event o WHERE o.webhook_id = d.webhook_id AND o.batch_id = d.batch_id
                                                            AND o.died_ms IS NULL AND o.event_id < d.event_id)
              AND NOT EXISTS (SELECT FROM flying f WHERE f.hook = d.webhook_id AND f.event = d.event_id)
            ORDER BY d.event_id
            LIMIT greatest(0, CASE WHEN w.failed > 0 THEN 1 ELSE p_each END - (SELECT count(*) FROM flying f WHERE f.hook = w.id))
        ) e
        WHERE w.next_ms <= p_now_ms
    )
    SELECT c.id, c.event_id, c.tenant_id, t.name, c.url, c.secret, c.former_secret, c.text
    FROM candidate c JOIN tenant t ON t.id = c.tenant_id
    WHERE c.place <= p_tenant ORDER BY c.place LIMIT p_all;
END $$;

-- The n-th after a failure comes so much later, before it is varied.
CREATE FUNCTION webhook_pause(p_n integer, p_first_ms bigint, p_most_ms bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT least(p_most_ms, p_first_ms << least(p_n, 20))
$$;

-- What became of attempts: taken where p_failures is ''. p_vary: 0.5 to 1.5.
CREATE FUNCTION webhook_answered(p_hooks bigint[], p_events bigint[], p_failures text[], p_vary double precision, p_now_ms bigint,
                                 p_first_ms bigint)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- The web hook first, as whoever removes it comes.
    PERFORM FROM webhook w WHERE w.id = ANY (p_hooks) ORDER BY w.id FOR NO KEY UPDATE;
    DELETE FROM webhook_event e USING unnest(p_hooks, p_events, p_failures) AS u (hook, event, failure)
    WHERE e.webhook_id = u.hook AND e.event_id = u.event AND u.failure = '';
    UPDATE webhook_event e
    SET attempts = e.attempts + 1, failure = u.failure,
        next_ms = p_now_ms + (webhook_pause(e.attempts, p_first_ms, 3600000) * p_vary)::bigint,
        died_ms = CASE WHEN p_now_ms >= e.until_ms THEN p_now_ms END
    FROM unnest(p_hooks, p_events, p_failures) AS u (hook, event, failure)
    WHERE e.webhook_id = u.hook AND e.event_id = u.event AND u.failure <> '' AND e.died_ms IS NULL;
    UPDATE webhook w
    SET failed = CASE WHEN u.good THEN 0 ELSE w.failed + u.bad END, failure = CASE WHEN u.good THEN '' ELSE u.failure END,
        succeeded_ms = CASE WHEN u.good THEN p_now_ms ELSE w.succeeded_ms END,
        next_ms = CASE WHEN u.good OR w.failed + u.bad < 3 THEN 0
                       ELSE p_now_ms + (webhook_pause(w.failed, p_first_ms, 300000) * p_vary)::bigint END
    FROM (SELECT x.hook, bool_or(x.failure = '') AS good, count(*) FILTER (WHERE x.failure <> '')::integer AS bad,
                 coalesce(max(x.failure), '') AS failure
          FROM unnest(p_hooks, p_events, p_failures) AS x (hook, event, failure) GROUP BY x.hook ORDER BY x.hook) u
    WHERE w.id = u.hook;
END $$;

-- As before; what was given up is forgotten in the same time.
CREATE OR REPLACE FUNCTION event_forget(p_before_ms bigint, p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_count integer;
BEGIN
    DELETE FROM webhook_event WHERE ctid = ANY (ARRAY(SELECT e.ctid FROM webhook_event e WHERE e.died_ms < p_before_ms
                                                      LIMIT p_limit FOR UPDATE SKIP LOCKED));
    DELETE FROM event_log WHERE ctid = ANY (ARRAY(SELECT l.ctid FROM event_log l WHERE l.at_ms < p_before_ms LIMIT p_limit));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
