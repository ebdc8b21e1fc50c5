-- What devices are marked with, as columns: tags, attributes, and what they said of their system. A label is a name and a
-- value; the devices that have it are one bitmap a block. Filters are answered from here, never from device.

-- Bitmaps as bit strings, slot n being bit n from the left: PostgreSQL can join these itself. Elsewhere in the schema bit n
-- of a bitmap is bit n % 8, least significant first, of byte n / 8.
CREATE DOMAIN slots AS bit(1024);

-- The bytes of a slots as a program sends them: most significant bit first.
CREATE FUNCTION slots_of_bytes(p bytea) RETURNS slots LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('x' || encode(p, 'hex'))::bit(1024);
$$;
-- A bitmap of the other kind as slots: the halves of every byte change places, then their halves, then theirs.
CREATE FUNCTION slots_of_bitmap(p bytea) RETURNS slots LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (((c >> 1) & c_odd) | ((c & c_odd) << 1))::slots
    FROM (SELECT ((b >> 2) & c_two) | ((b & c_two) << 2) AS c, c_odd
          FROM (SELECT ((a >> 4) & c_four) | ((a & c_four) << 4) AS b, c_odd, c_two
                FROM (SELECT ('x' || encode(p, 'hex'))::bit(1024) AS a, ('x' || repeat('0f', 128))::bit(1024) AS c_four,
                             ('x' || repeat('33', 128))::bit(1024) AS c_two, ('x' || repeat('55', 128))::bit(1024) AS c_odd) x
               ) y) z;
$$;

-- The numbers a text begins with, as versions are compared: 17.10 is more than 17.2, 17.0 is 17. NULL where there are none.
-- proto/filter.c knows which texts are versions.
CREATE FUNCTION version_numbers(p text) RETURNS integer[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    v integer[] := string_to_array(substring(p FROM '^[0-9]{1,9}(?![0-9])(?:\.[0-9]{1,9}(?![0-9])){0,7}'), '.')::integer[];
BEGIN
    WHILE v[cardinality(v)] = 0 LOOP
        v := v[:cardinality(v) - 1];
    END LOOP;
    RETURN v;
END $$;

-- 'tag', of which a device has any number; 'os_version', 'model' and 'attr.<name>', of which it has one value at most.
CREATE TABLE label_name (
    id        integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    tenant_id integer NOT NULL,
    name      text    NOT NULL,
    UNIQUE (tenant_id, name)
);
CREATE TABLE label (
    id      integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name_id integer NOT NULL,
    value   text    NOT NULL,
    version integer[],                          -- version_numbers of the value
    UNIQUE (name_id, value)
);
-- Bits of deleted devices stay: their numbers are never used again, and whoever asks looks at device_block too. Rows
-- without a bit are deleted.
CREATE TABLE label_block (
    label_id integer NOT NULL,
    block    integer NOT NULL,
    name_id  integer NOT NULL,                  -- of the label
    slots    slots   NOT NULL,
    PRIMARY KEY (label_id, block)
) WITH (fillfactor = 80);
CREATE INDEX label_block_name ON label_block (name_id, block);

-- Marks devices; the caller holds the lock on the tenant's row. The labels are the n-th elements of names and values;
-- device p_devices[i] (an index of p_seqs) gets label p_labels[i] (an index of p_names). A tag is added; another name's value
-- takes the place of what the device had, and an empty value only takes that away. With p_replace the devices lose all tags
-- and attributes that are not given. Rows that stay as they are are not written.
--
-- Its planner settings: tables are looked into by index for each of the rows that come in arrays, and arrays are joined by
-- hash, whatever the planner believes of tables that grow under it and of arrays it has not seen.
CREATE FUNCTION label_devices(p_tenant integer, p_seqs integer[], p_names text[], p_values text[], p_devices integer[],
                              p_labels integer[], p_replace boolean, p_names_max integer) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_mergejoin = off
SET enable_nestloop = on AS $$
DECLARE
    c_none CONSTANT slots := repeat('0', 1024)::bit(1024);
    v_name_ids integer[];
    v_label_ids integer[];
    -- What is given, by name, label and block; which devices lose what they had under which name; what that is and what is
    -- left of it.
    v_given_names integer[];
    v_given_labels integer[];
    v_given_blocks integer[];
    v_given_slots bit(1024)[];
    v_lost_names integer[];
    v_lost_blocks integer[];
    v_lost_slots bit(1024)[];
    v_old_labels integer[];
    v_old_blocks integer[];
    v_old_slots bit(1024)[];
    v_left_slots bit(1024)[];
BEGIN
    INSERT INTO label_name (tenant_id, name)
    SELECT p_tenant, u.name FROM (SELECT DISTINCT unnest(p_names) AS name) u
    WHERE NOT EXISTS (SELECT FROM label_name n WHERE n.tenant_id = p_tenant AND n.name = u.name);
    IF FOUND AND (SELECT count(*) FROM label_name n WHERE n.tenant_id = p_tenant AND starts_with(n.name, 'attr.'))
                 > p_names_max THEN
        RAISE EXCEPTION 'more than % names of attributes', p_names_max USING ERRCODE = 'MU002';
    END IF;
    SELECT array_agg((SELECT n.id FROM label_name n WHERE n.tenant_id = p_tenant AND n.name = u.name) ORDER BY u.i)
    INTO v_name_ids FROM unnest(p_names) WITH ORDINALITY AS u (name, i);
    INSERT INTO label (name_id, value, version)
    SELECT DISTINCT u.name_id, u.value, version_numbers(u.value) FROM unnest(v_name_ids, p_values) AS u (name_id, value)
    WHERE u.value <> '' AND NOT EXISTS (SELECT FROM label l WHERE l.name_id = u.name_id AND l.value = u.value);
    -- The empty value has no row: 0.
    SELECT array_agg(coalesce((SELECT l.id FROM label l WHERE l.name_id = u.name_id AND l.value = u.value), 0) ORDER BY u.i)
    INTO v_label_ids FROM unnest(v_name_ids, p_values) WITH ORDINALITY AS u (name_id, value, i);

    SELECT array_agg(g.name_id), array_agg(g.label_id), array_agg(g.block), array_agg(g.slots)
    INTO v_given_names, v_given_labels, v_given_blocks, v_given_slots
    FROM (SELECT v_name_ids[u.label] AS name_id, v_label_ids[u.label] AS label_id, p_seqs[u.device] / 1024 AS block,
                 bit_or(set_bit(c_none, p_seqs[u.device] % 1024, 1)) AS slots
          FROM unnest(p_devices, p_labels) AS u (device, label) GROUP BY 1, 2, 3) g;
    SELECT array_agg(m.name_id), array_agg(m.block), array_agg(m.slots) INTO v_lost_names, v_lost_blocks, v_lost_slots
    FROM (SELECT x.name_id, x.block, bit_or(x.slots) AS slots
          FROM (SELECT g.name_id, g.block, g.slots
                FROM unnest(v_given_names, v_given_blocks, v_given_slots) AS g (name_id, block, slots)
                JOIN label_name n ON n.id = g.name_id AND n.name <> 'tag'
                UNION ALL
                SELECT n.id, d.block, d.slots
                FROM (SELECT s / 1024 AS block, bit_or(set_bit(c_none, s % 1024, 1)) AS slots FROM unnest(p_seqs) AS s
                      GROUP BY 1) d
                JOIN label_name n ON n.tenant_id = p_tenant AND n.name NOT IN ('os_version', 'model')
                WHERE p_replace) x
          GROUP BY 1, 2) m;
    SELECT array_agg(o.label_id), array_agg(o.block), array_agg(o.slots), array_agg(o.slots & ~m.slots)
    INTO v_old_labels, v_old_blocks, v_old_slots, v_left_slots
    FROM unnest(v_lost_names, v_lost_blocks, v_lost_slots) AS m (name_id, block, slots)
    JOIN label_block o ON o.name_id = m.name_id AND o.block = m.block;

    PERFORM set_config('enable_nestloop', 'off', true);
    SELECT array_agg(o.label_id), array_agg(o.block), array_agg(o.slots)
    INTO v_old_labels, v_old_blocks, v_left_slots
    FROM (SELECT u.label_id, u.block, u.was, u.kept | coalesce(g.slots, c_none) AS slots
          FROM unnest(v_old_labels, v_old_blocks, v_old_slots, v_left_slots) AS u (label_id, block, was, kept)
          LEFT JOIN unnest(v_given_labels, v_given_blocks, v_given_slots) AS g (label_id, block, slots)
               ON g.label_id = u.label_id AND g.block = u.block) o
    WHERE o.slots <> o.was;
    PERFORM set_config('enable_nestloop', 'on', true);

    UPDATE label_block k SET slots = u.slots
    FROM unnest(v_old_labels, v_old_blocks, v_left_slots) AS u (label_id, block, slots)
    WHERE k.label_id = u.label_id AND k.block = u.block AND u.slots <> c_none;
    DELETE FROM label_block k USING unnest(v_old_labels, v_old_blocks, v_left_slots) AS u (label_id, block, slots)
    WHERE k.label_id = u.label_id AND k.block = u.block AND u.slots = c_none;
    INSERT INTO label_block AS k (label_id, block, name_id, slots)
    SELECT g.label_id, g.block, g.name_id, g.slots
    FROM unnest(v_given_labels, v_given_blocks, v_given_names, v_given_slots) AS g (label_id, block, name_id, slots)
    WHERE g.label_id <> 0 AND NOT EXISTS (SELECT FROM label_block o WHERE o.label_id = g.label_id AND o.block = g.block
                                                                      AND o.slots & g.slots = g.slots)
    ON CONFLICT (label_id, block) DO UPDATE SET slots = k.slots | excluded.slots;
END $$;

-- import_devices with labels: see label_devices, whose p_seqs are those of p_ids. A device that is known keeps its platform
-- where none is stated (0).
CREATE FUNCTION import_labelled(p_tenant integer, p_ids text[], p_platforms smallint[], p_now_ms bigint, p_names text[],
                                p_values text[], p_devices integer[], p_labels integer[], p_replace boolean,
                                p_names_max integer)
RETURNS TABLE (created integer, updated integer)
LANGUAGE plpgsql AS $$
BEGIN
    IF 0 = ANY (p_platforms) THEN
        p_platforms := ARRAY(SELECT CASE WHEN u.platform <> 0 THEN u.platform
                                         ELSE coalesce((SELECT d.platform FROM device d WHERE d.tenant_id = p_tenant AND d.id = u.id
                                                        AND d.deleted_ms IS NULL LIMIT 1), 0) END
                             FROM unnest(p_ids, p_platforms) WITH ORDINALITY AS u (id, platform, n) ORDER BY u.n);
    END IF;
    RETURN QUERY SELECT i.created, i.updated FROM import_devices(p_tenant, p_ids, p_platforms, p_now_ms) AS i;
    IF p_replace OR cardinality(p_devices) > 0 THEN
        PERFORM label_devices(p_tenant, device_seqs(p_tenant, p_ids), p_names, p_values, p_devices, p_labels, p_replace,
                              p_names_max);
    END IF;
END $$;

-- What devices said of their system, a row for each flush of a worker, until it is in the labels: an acknowledgement must
-- not wait for the lock on the tenant's row. NULL: not said.
CREATE TABLE device_news (
    id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    tenants     integer[] NOT NULL,
    seqs        integer[] NOT NULL,
    os_versions text[]    NOT NULL,
    models      text[]    NOT NULL
);

-- Takes the oldest rows into the labels, at most so many; returns how many it took. One caller at a time, others do nothing.
-- Does not keep batches from being accepted, as a registration does.
CREATE FUNCTION take_device_news(p_rows integer, p_names_max integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_ids bigint[];
    r record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('take_device_news'), 0) THEN
        RETURN 0;
    END IF;
    SELECT array_agg(w.id) INTO v_ids FROM (SELECT n.id FROM device_news n ORDER BY n.id LIMIT p_rows) w;
    FOR r IN
        WITH said AS (
            SELECT n.id, u.i, u.tenant_id, u.seq, u.os_version, u.model FROM device_news n
            CROSS JOIN LATERAL unnest(n.tenants, n.seqs, n.os_versions, n.models)
                               WITH ORDINALITY AS u (tenant_id, seq, os_version, model, i)
            WHERE n.id = ANY (v_ids)
        ), named AS (
            SELECT s.*, 'os_version' AS name, s.os_version AS value FROM said s WHERE s.os_version IS NOT NULL
            UNION ALL
            SELECT s.*, 'model', s.model FROM said s WHERE s.model IS NOT NULL
        ), last AS (
            SELECT DISTINCT ON (n.tenant_id, n.seq, n.name) n.tenant_id, n.seq, n.name, n.value FROM named n
            ORDER BY n.tenant_id, n.seq, n.name, n.id DESC, n.i DESC
        ), ranked AS (
            SELECT l.*, dense_rank() OVER (PARTITION BY l.tenant_id ORDER BY l.seq) AS device,
                   dense_rank() OVER (PARTITION BY l.tenant_id ORDER BY l.name, l.value) AS label FROM last l
        )
        SELECT k.tenant_id, array_agg(k.device::integer) AS devices, array_agg(k.label::integer) AS labels,
               (SELECT array_agg(DISTINCT d.seq ORDER BY d.seq) FROM ranked d WHERE d.tenant_id = k.tenant_id) AS seqs,
               (SELECT array_agg(d.name ORDER BY d.label) FROM (SELECT DISTINCT x.label, x.name FROM ranked x
                                                                WHERE x.tenant_id = k.tenant_id) d) AS names,
               (SELECT array_agg(d.value ORDER BY d.label) FROM (SELECT DISTINCT x.label, x.value FROM ranked x
                                                                 WHERE x.tenant_id = k.tenant_id) d) AS values
        FROM ranked k GROUP BY k.tenant_id ORDER BY k.tenant_id
    LOOP
        PERFORM FROM tenant t WHERE t.id = r.tenant_id FOR NO KEY UPDATE;
        PERFORM label_devices(r.tenant_id, r.seqs, r.names, r.values, r.devices, r.labels, false, p_names_max);
    END LOOP;
    DELETE FROM device_news n WHERE n.id = ANY (v_ids);
    RETURN coalesce(cardinality(v_ids), 0);
END $$;

-- Which devices were connected at any moment of an hour (hours since 1970). Of days that are over there is one row, under
-- their last hour: see forget_seen.
CREATE TABLE device_seen (
    tenant_id integer NOT NULL,
    hour      integer NOT NULL,
    block     integer NOT NULL,
    slots     slots   NOT NULL,
    PRIMARY KEY (tenant_id, hour, block)
) WITH (fillfactor = 60);

-- Adds what a worker has seen in this hour, one bitmap a block. In the order of the key, so that two workers never wait for
-- each other.
CREATE FUNCTION see_devices(p_hour integer, p_tenants integer[], p_blocks integer[], p_slots bytea[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO device_seen AS s (tenant_id, hour, block, slots)
    SELECT u.tenant_id, p_hour, u.block, slots_of_bytes(u.slots)
    FROM unnest(p_tenants, p_blocks, p_slots) AS u (tenant_id, block, slots) ORDER BY 1, 3
    ON CONFLICT (tenant_id, hour, block) DO UPDATE SET slots = s.slots | excluded.slots
$$;

-- Joins the hours of days that are over for good to one row a day, and drops days too old to be asked for. Whoever comes
-- second while it runs does nothing.
CREATE FUNCTION forget_seen(p_hour integer, p_keep_hours integer, p_keep_days integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_from integer := (p_hour - p_keep_hours) / 24 * 24;  -- the first hour that is kept
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('forget_seen'), 0) THEN
        RETURN;
    END IF;
    WITH gone AS (DELETE FROM device_seen s WHERE s.hour < v_from AND s.hour % 24 <> 23 RETURNING s.*)
    INSERT INTO device_seen AS s (tenant_id, hour, block, slots)
    SELECT g.tenant_id, g.hour / 24 * 24 + 23, g.block, bit_or(g.slots) FROM gone g GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (tenant_id, hour, block) DO UPDATE SET slots = s.slots | excluded.slots;
    DELETE FROM device_seen s WHERE s.hour < p_hour - p_keep_days * 24;
END $$;

-- What the tests of filters mean: for each test its devices, one bitmap a block, in the order of (test, block). A test is
-- the n-th element of the arrays: the field's name, enum filter_op of proto/filter.h, and p_counts[n] of the values behind
-- those of the tests before. Bits of devices that are no more may be set. What it says is of one moment.
CREATE FUNCTION filter_blocks(p_tenant integer, p_fields text[], p_ops integer[], p_counts integer[], p_values text[])
RETURNS TABLE (test integer, block integer, slots slots)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    c_any_of CONSTANT integer := 0;
    c_prefix CONSTANT integer := 1;
    c_exists CONSTANT integer := 2;
    c_less CONSTANT integer := 3;
    c_at_most CONSTANT integer := 4;
    c_more CONSTANT integer := 5;
    c_at_least CONSTANT integer := 6;
    c_equal CONSTANT integer := 7;
    c_none CONSTANT slots := repeat('0', 1024)::bit(1024);
    v_values text[];
    v_version integer[];
    v_at integer := 0;
BEGIN
    FOR i IN 1 .. cardinality(p_fields) LOOP
        v_values := p_values[v_at + 1 : v_at + p_counts[i]];
        v_at := v_at + p_counts[i];
        IF p_fields[i] = 'device_id' THEN
            RETURN QUERY
            SELECT i, d.seq / 1024, bit_or(set_bit(c_none, d.seq % 1024, 1))::slots FROM device d
            WHERE d.tenant_id = p_tenant AND d.deleted_ms IS NULL
              AND CASE p_ops[i] WHEN c_prefix THEN starts_with(d.id, v_values[1]) ELSE d.id = ANY (v_values) END
            GROUP BY 2 ORDER BY 2;
        ELSIF p_fields[i] = 'group' THEN
            RETURN QUERY
            SELECT i, m.block, bit_or(slots_of_bitmap(m.slots))::slots FROM device_group g
            JOIN device_group_block m ON m.group_id = g.id
            WHERE g.tenant_id = p_tenant AND g.name = ANY (v_values) GROUP BY 2 ORDER BY 2;
        ELSIF p_fields[i] = 'last_seen' THEN
            RETURN QUERY
            SELECT i, s.block, bit_or(s.slots)::slots FROM device_seen s
            WHERE s.tenant_id = p_tenant AND s.hour >= v_values[1]::integer GROUP BY 2 ORDER BY 2;
        ELSIF p_ops[i] = c_exists THEN
            RETURN QUERY
            SELECT i, k.block, bit_or(k.slots)::slots FROM label_name n JOIN label_block k ON k.name_id = n.id
            WHERE n.tenant_id = p_tenant AND n.name = p_fields[i] GROUP BY 2 ORDER BY 2;
        ELSE
            v_version := version_numbers(v_values[1]);
            RETURN QUERY
            SELECT i, k.block, bit_or(k.slots)::slots FROM label_name n
            JOIN label l ON l.name_id = n.id
            JOIN label_block k ON k.label_id = l.id
            WHERE n.tenant_id = p_tenant AND n.name = p_fields[i]
              AND CASE p_ops[i]
                  WHEN c_any_of THEN l.value = ANY (v_values)
                  WHEN c_prefix THEN starts_with(l.value, v_values[1])
                  WHEN c_less THEN l.version < v_version
                  WHEN c_at_most THEN l.version <= v_version
                  WHEN c_more THEN l.version > v_version
                  WHEN c_at_least THEN l.version >= v_version
                  WHEN c_equal THEN l.version IN (SELECT version_numbers(u) FROM unnest(v_values) AS u)
                  END
            GROUP BY 2 ORDER BY 2;
        END IF;
    END LOOP;
END $$;

-- A group with a filter has no rows in device_group_block: its members are found when somebody asks.
ALTER TABLE device_group ADD COLUMN filter text;
