-- A wave can be released by its number, so that whoever asks again, or beside somebody else, does not release the one behind it.

-- As before; p_wave (from 1 on; 0: whichever is next) is released if it is the next one. Says besides how many waves were released, or
-- asked for, before, and how many there are.
DROP FUNCTION release_wave(integer, bigint, bigint, bigint);
CREATE FUNCTION release_wave(p_tenant integer, p_batch bigint, p_wave integer, p_now_ms bigint, p_key bigint)
RETURNS TABLE (changed boolean, released integer, waves integer) LANGUAGE plpgsql AS $$
DECLARE
    v_devices integer;
BEGIN
    SELECT b.device_count INTO v_devices FROM batch b WHERE b.id = p_batch AND b.tenant_id = p_tenant AND b.closed_ms IS NULL
                                                        AND b.cancel_requested_ms IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT greatest(c.by_hand, c.wave) + 1, c.waves INTO released, waves FROM batch_control c WHERE c.batch_id = p_batch FOR UPDATE;
    released := coalesce(released, 1);
    waves := coalesce(waves, 0);
    changed := released < waves AND p_wave IN (0, released + 1);
    IF changed THEN
        UPDATE batch_control c SET by_hand = greatest(c.by_hand, c.wave) + 1, request = c.request + 1 WHERE c.batch_id = p_batch;
        PERFORM audit_add(p_now_ms, p_tenant, p_key, 'release_wave', p_batch::text, v_devices, '');
    END IF;
    RETURN NEXT;
END $$;

-- Whether a web hook wants an event, by its text.
CREATE FUNCTION webhook_wants(p_webhook bigint, p_kinds bigint, p_text text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_text LIKE '15,%' THEN p_text LIKE '%"webhookId":"' || p_webhook || '"%'
                ELSE p_kinds = 0 OR p_kinds >> split_part(p_text, ',', 1)::integer & 1 = 1 END
$$;

-- As before. What a web hook does not want does not keep it back: it is brought as many events as it may have waiting, from up to 64
-- rows of the log, where four rows were looked through before, whatever was in them.
CREATE OR REPLACE FUNCTION webhook_load(p_now_ms bigint, p_window integer, p_life_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    w webhook;
    v_last bigint;
    v_room bigint;
BEGIN
    FOR w IN SELECT x.* FROM webhook x JOIN event_head h ON h.tenant_id = x.tenant_id AND h.last > x.loaded ORDER BY x.id
             FOR NO KEY UPDATE OF x SKIP LOCKED
    LOOP
        SELECT p_window - count(*) INTO v_room
        FROM (SELECT FROM webhook_event e WHERE e.webhook_id = w.id AND e.died_ms IS NULL LIMIT p_window) c;
        CONTINUE WHEN v_room <= 0;
        SELECT max(s.last) INTO v_last
        FROM (SELECT r.last, r.wanted, sum(r.wanted) OVER (ORDER BY r.last) AS so_far
              FROM (SELECT k.last, (SELECT count(*) FROM unnest(k.events) AS u (text) WHERE webhook_wants(w.id, w.kinds, u.text)) AS wanted
                    FROM (SELECT l.last, l.events FROM event_log l WHERE l.tenant_id = w.tenant_id AND l.last > w.loaded
                          ORDER BY l.last LIMIT 64) k) r) s
        WHERE s.so_far - s.wanted < v_room;
        INSERT INTO webhook_event (webhook_id, event_id, batch_id, text, next_ms, until_ms)
        SELECT w.id, l.first + u.place - 1, split_part(u.text, ',', 2)::bigint, u.text, p_now_ms,
               split_part(u.text, ',', 3)::bigint + p_life_ms
        FROM event_log l CROSS JOIN LATERAL unnest(l.events) WITH ORDINALITY AS u (text, place)
        WHERE l.tenant_id = w.tenant_id AND l.last > w.loaded AND l.last <= v_last AND l.first + u.place - 1 > w.loaded
          AND webhook_wants(w.id, w.kinds, u.text);
        UPDATE webhook x SET loaded = coalesce(v_last, x.loaded) WHERE x.id = w.id;
    END LOOP;
END $$;
