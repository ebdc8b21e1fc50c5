-- When batches may be sent.

-- What was asked for, and what follows from it: 0 for what is not limited. A window is its days (bit n for ISO day n + 1),
-- + 128 * the minute of the day when it opens, + 262144 * the minute when it closes; its zone is that of devices without one.
ALTER TABLE batch_control
    ADD COLUMN steering      bytea, -- encoded muster.v1.Steering as it was accepted; NULL: none
    ADD COLUMN not_before_ms bigint  NOT NULL DEFAULT 0,
    ADD COLUMN deliver_by_ms bigint  NOT NULL DEFAULT 0,
    ADD COLUMN execution_ms  bigint  NOT NULL DEFAULT 0,
    ADD COLUMN time_window   integer NOT NULL DEFAULT 0,
    ADD COLUMN window_zone   text    NOT NULL DEFAULT '';

-- As accept_batch, with steering.
CREATE FUNCTION accept_steered(p_tenant integer, p_request_id text, p_hash bytea, p_description text, p_command bytea,
                               p_priority smallint, p_device_count integer, p_unknown_count integer, p_unknown_ids text[],
                               p_created_ms bigint, p_expires_ms bigint,
                               p_blocks integer[], p_firsts smallint[], p_targets bytea[], p_steering bytea,
                               p_not_before_ms bigint, p_deliver_by_ms bigint, p_execution_ms bigint,
                               p_time_window integer, p_window_zone text)
RETURNS TABLE (created boolean, batch_id bigint)
LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    SELECT * INTO r FROM accept_batch(p_tenant, p_request_id, p_hash, p_description, p_command, p_priority, p_device_count,
                                      p_unknown_count, p_unknown_ids, p_created_ms, p_expires_ms, p_blocks, p_firsts,
                                      p_targets) AS a;
    IF r.created THEN
        INSERT INTO batch_control (batch_id, steering, not_before_ms, deliver_by_ms, execution_ms, time_window, window_zone)
        VALUES (r.batch_id, p_steering, p_not_before_ms, p_deliver_by_ms, p_execution_ms, p_time_window, p_window_zone);
    END IF;
    RETURN QUERY SELECT r.created, r.batch_id;
END $$;

-- Whether PostgreSQL knows the time zone by this name of the IANA database.
CREATE FUNCTION is_time_zone(p text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p !~ '^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$' THEN
        RETURN false;
    END IF;
    PERFORM now() AT TIME ZONE p;
    RETURN true;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN false;
END $$;

-- The attribute time_zone of a device is the name of a time zone.
CREATE FUNCTION label_time_zone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT is_time_zone(NEW.value) AND EXISTS (SELECT FROM label_name n WHERE n.id = NEW.name_id AND n.name = 'attr.time_zone') THEN
        RAISE EXCEPTION '%', NEW.value USING ERRCODE = 'MU003';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER label_time_zone BEFORE INSERT ON label FOR EACH ROW EXECUTE FUNCTION label_time_zone();

-- The window that is open at p_now_ms in the zone, or the next one: opens and closes. p_days has bit n for ISO day n + 1;
-- p_from and p_until are minutes of the day. No row: none within two weeks.
CREATE FUNCTION next_window(p_zone text, p_days integer, p_from integer, p_until integer, p_now_ms bigint)
RETURNS TABLE (opens_ms bigint, closes_ms bigint) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_today date;
    v_day date;
BEGIN
    IF NOT is_time_zone(p_zone) THEN
        RETURN;
    END IF;
    v_today := (to_timestamp(p_now_ms / 1000.0) AT TIME ZONE p_zone)::date;
    FOR i IN -1 .. 15 LOOP
        v_day := v_today + i;
        CONTINUE WHEN p_days & (1 << (extract(isodow FROM v_day)::integer - 1)) = 0;
        opens_ms := (extract(epoch FROM (v_day + p_from * interval '1 minute') AT TIME ZONE p_zone) * 1000)::bigint;
        closes_ms := (extract(epoch FROM (v_day + CASE WHEN p_until <= p_from THEN 1 ELSE 0 END
                                          + p_until * interval '1 minute') AT TIME ZONE p_zone) * 1000)::bigint;
        IF closes_ms > p_now_ms AND closes_ms > opens_ms THEN
            RETURN NEXT;
            RETURN;
        END IF;
    END LOOP;
END $$;

-- The zones of devices of these blocks, as their attribute says: which block has which slots in which zone.
CREATE FUNCTION zones_of_blocks(p_tenant integer, p_blocks integer[])
RETURNS TABLE (zone text, block integer, zone_slots slots) LANGUAGE sql STABLE AS $$
    SELECT l.value, k.block, k.slots FROM label_name n
    CROSS JOIN unnest(p_blocks) AS b (block)
    JOIN label_block k ON k.name_id = n.id AND k.block = b.block
    JOIN label l ON l.id = k.label_id
    WHERE n.tenant_id = p_tenant AND n.name = 'attr.time_zone' ORDER BY l.value, k.block;
$$;

-- For each zone in which one of the devices is (p_default for those without): when the window opens there next, from
-- p_from_ms on; NULL for never.
CREATE FUNCTION windows_of_devices(p_tenant integer, p_blocks integer[], p_targets bytea[], p_default text, p_days integer,
                                   p_from integer, p_until integer, p_from_ms bigint)
RETURNS TABLE (zone text, opens_ms bigint) LANGUAGE sql STABLE AS $$
    WITH t AS (SELECT u.block, slots_of_bitmap(u.targets) AS targets FROM unnest(p_blocks, p_targets) AS u (block, targets)),
    z AS MATERIALIZED (SELECT z.* FROM zones_of_blocks(p_tenant, p_blocks) AS z JOIN t ON t.block = z.block
                       WHERE bit_count(z.zone_slots & t.targets) > 0),
    plain AS (SELECT FROM t LEFT JOIN (SELECT z.block, bit_or(z.zone_slots) AS zoned FROM z GROUP BY 1) o ON o.block = t.block
              WHERE bit_count(t.targets & ~coalesce(o.zoned, repeat('0', 1024)::bit(1024))) > 0 LIMIT 1)
    SELECT a.zone, (SELECT greatest(w.opens_ms, p_from_ms)
                    FROM next_window(a.zone, p_days, p_from, p_until, p_from_ms) AS w)
    FROM (SELECT DISTINCT z.zone FROM z UNION SELECT p_default FROM plain) a ORDER BY 1;
$$;
