-- Filters over a million devices within a second.

-- Ids are found by how they begin in the order of their bytes, whatever order of texts the database was made with.
ALTER TABLE device ALTER COLUMN id TYPE text COLLATE "C";

-- The first and the last id of each block in that order, deleted devices' too: where both begin alike, all between do.
CREATE TABLE device_range (
    tenant_id integer NOT NULL,
    block     integer NOT NULL,
    low       text    NOT NULL COLLATE "C",
    high      text    NOT NULL COLLATE "C",
    PRIMARY KEY (tenant_id, block)
);
INSERT INTO device_range SELECT d.tenant_id, d.seq / 1024, min(d.id), max(d.id) FROM device d GROUP BY 1, 2;

-- As in 009, and keeps these rows.
CREATE OR REPLACE FUNCTION import_devices(p_tenant integer, p_ids text[], p_platforms smallint[], p_now_ms bigint)
RETURNS TABLE (created integer, updated integer)
LANGUAGE plpgsql AS $$
DECLARE
    v_next integer;
    v_known integer;
    v_seqs integer[];
    v_old smallint[];
    v_new smallint[];
    v_ids text[];
BEGIN
    SELECT t.next_seq INTO v_next FROM tenant t WHERE t.id = p_tenant FOR UPDATE;

    SELECT count(d.seq), array_agg(d.seq) FILTER (WHERE d.platform <> u.platform),
           array_agg(d.platform) FILTER (WHERE d.platform <> u.platform),
           array_agg(u.platform) FILTER (WHERE d.platform <> u.platform)
    INTO v_known, v_seqs, v_old, v_new
    FROM unnest(p_ids, p_platforms) AS u (id, platform)
    -- One look-up by index for each id, whatever the planner believes of a table that grows under it: LIMIT keeps it from
    -- making a join of this.
    CROSS JOIN LATERAL (SELECT x.seq, x.platform FROM device x
                        WHERE x.tenant_id = p_tenant AND x.id = u.id AND x.deleted_ms IS NULL LIMIT 1) d;
    IF v_seqs IS NOT NULL THEN
        UPDATE device d SET platform = u.platform FROM unnest(v_seqs, v_new) AS u (seq, platform)
        WHERE d.tenant_id = p_tenant AND d.seq = u.seq;
        PERFORM device_block_change(p_tenant, v_seqs, v_old, 0);
        PERFORM device_block_change(p_tenant, v_seqs, v_new, 1);
    END IF;

    IF v_known < cardinality(p_ids) THEN
        v_ids := p_ids;
        v_new := p_platforms;
        IF v_known > 0 THEN
            SELECT array_agg(i.id ORDER BY i.n), array_agg(i.platform ORDER BY i.n) INTO v_ids, v_new
            FROM unnest(p_ids, p_platforms) WITH ORDINALITY AS i (id, platform, n)
            WHERE (SELECT d.seq FROM device d WHERE d.tenant_id = p_tenant AND d.id = i.id AND d.deleted_ms IS NULL LIMIT 1)
                  IS NULL;
        END IF;
        INSERT INTO device (tenant_id, seq, id, platform, created_ms)
        SELECT p_tenant, v_next + (u.n - 1)::integer, u.id, u.platform, p_now_ms
        FROM unnest(v_ids, v_new) WITH ORDINALITY AS u (id, platform, n);
        INSERT INTO device_range AS r (tenant_id, block, low, high)
        SELECT p_tenant, (v_next + u.n - 1) / 1024, min(u.id COLLATE "C"), max(u.id COLLATE "C")
        FROM unnest(v_ids) WITH ORDINALITY AS u (id, n) GROUP BY 2 ORDER BY 2
        ON CONFLICT (tenant_id, block) DO UPDATE SET low = least(r.low, excluded.low), high = greatest(r.high, excluded.high);
        PERFORM device_block_change(p_tenant, ARRAY(SELECT generate_series(v_next, v_next + cardinality(v_ids) - 1)), v_new, 1);
        UPDATE tenant t SET next_seq = v_next + cardinality(v_ids), devices = t.devices + cardinality(v_ids)
        WHERE t.id = p_tenant;
    END IF;
    RETURN QUERY SELECT cardinality(p_ids) - v_known, v_known;
END $$;

-- The bitmaps of one label lie on a page for each block, as devices were registered: with the bitmaps in the index they are
-- read one behind another, an eighth of the time.
ALTER TABLE label_block DROP CONSTRAINT label_block_pkey;
ALTER TABLE label_block ADD PRIMARY KEY (label_id, block) INCLUDE (slots);

-- Who has any value of a name: rows whose label_id and name_id are the name's, negative.
INSERT INTO label_block (label_id, block, name_id, slots)
SELECT -k.name_id, k.block, -k.name_id, bit_or(k.slots) FROM label_block k GROUP BY k.name_id, k.block;

-- As in 012, and keeps these rows.
CREATE OR REPLACE FUNCTION label_devices(p_tenant integer, p_seqs integer[], p_names text[], p_values text[], p_devices integer[],
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
    -- By name and block: who loses what he had, who is given something.
    v_any_names integer[];
    v_any_blocks integer[];
    v_any_lost bit(1024)[];
    v_any_given bit(1024)[];
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

    SELECT array_agg(a.name_id), array_agg(a.block), array_agg(a.lost), array_agg(a.given)
    INTO v_any_names, v_any_blocks, v_any_lost, v_any_given
    FROM (SELECT x.name_id, x.block, bit_or(x.lost) AS lost, bit_or(x.given) AS given
          FROM (SELECT g.name_id, g.block, c_none AS lost, g.slots AS given
                FROM unnest(v_given_names, v_given_labels, v_given_blocks, v_given_slots) AS g (name_id, label_id, block, slots)
                WHERE g.label_id <> 0
                UNION ALL
                SELECT m.name_id, m.block, m.slots, c_none
                FROM unnest(v_lost_names, v_lost_blocks, v_lost_slots) AS m (name_id, block, slots)) x
          GROUP BY 1, 2) a;
    UPDATE label_block k SET slots = (k.slots & ~u.lost) | u.given
    FROM unnest(v_any_names, v_any_blocks, v_any_lost, v_any_given) AS u (name_id, block, lost, given)
    WHERE k.label_id = -u.name_id AND k.block = u.block AND ((k.slots & ~u.lost) | u.given) <> k.slots;
    DELETE FROM label_block k USING unnest(v_any_names, v_any_blocks) AS u (name_id, block)
    WHERE k.label_id = -u.name_id AND k.block = u.block AND k.slots = c_none;
    INSERT INTO label_block AS k (label_id, block, name_id, slots)
    SELECT -u.name_id, u.block, -u.name_id, u.given
    FROM unnest(v_any_names, v_any_blocks, v_any_given) AS u (name_id, block, given)
    WHERE u.given <> c_none AND NOT EXISTS (SELECT FROM label_block o WHERE o.label_id = -u.name_id AND o.block = u.block);
END $$;

-- Devices whose ids begin so, whole blocks at a time where they all do. The planner settings are those of filter_blocks.
CREATE FUNCTION device_prefix(p_tenant integer, p_prefix text) RETURNS TABLE (block integer, slots slots)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
    c_few CONSTANT integer := 32; -- so many blocks are looked through, more not: then all ids that begin so are
    c_none CONSTANT slots := repeat('0', 1024)::bit(1024);
    v_end text := p_prefix || chr(127); -- no id has such a byte
    v_some integer[];
BEGIN
    v_some := ARRAY(SELECT r.block FROM device_range r WHERE r.tenant_id = p_tenant AND r.low < v_end AND r.high >= p_prefix
                                                         AND NOT (r.low >= p_prefix AND r.high < v_end));
    IF cardinality(v_some) > c_few THEN
        RETURN QUERY
        SELECT d.seq / 1024, bit_or(set_bit(c_none, d.seq % 1024, 1))::slots FROM device d
        WHERE d.tenant_id = p_tenant AND d.deleted_ms IS NULL AND d.id >= p_prefix AND d.id < v_end GROUP BY 1;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT r.block, (~c_none)::slots FROM device_range r
    WHERE r.tenant_id = p_tenant AND r.low >= p_prefix AND r.high < v_end;
    RETURN QUERY
    SELECT b.block, bit_or(set_bit(c_none, d.seq % 1024, 1))::slots FROM unnest(v_some) AS b (block)
    JOIN device d ON d.tenant_id = p_tenant AND d.seq BETWEEN b.block * 1024 AND b.block * 1024 + 1023
                 AND d.id >= p_prefix AND d.id < v_end GROUP BY 1;
END $$;

-- As in 012. Its planner settings: everything is found by index, read there, and joined by hash, whatever the planner believes
-- of how much that is; and what is switched off looks so dear that it would be compiled.
CREATE OR REPLACE FUNCTION filter_blocks(p_tenant integer, p_fields text[], p_ops integer[], p_counts integer[],
                                         p_values text[])
RETURNS TABLE (test integer, block integer, slots slots)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
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
    v_name integer;
    v_labels integer[];
    v_others integer[];
BEGIN
    FOR i IN 1 .. cardinality(p_fields) LOOP
        v_values := p_values[v_at + 1 : v_at + p_counts[i]];
        v_at := v_at + p_counts[i];
        IF p_fields[i] = 'device_id' AND p_ops[i] = c_prefix THEN
            RETURN QUERY SELECT i, d.block, d.slots FROM device_prefix(p_tenant, v_values[1]) AS d ORDER BY 2;
        ELSIF p_fields[i] = 'device_id' THEN
            RETURN QUERY
            SELECT i, x.* FROM (SELECT d.seq / 1024, bit_or(set_bit(c_none, d.seq % 1024, 1))::slots FROM device d
                                WHERE d.tenant_id = p_tenant AND d.deleted_ms IS NULL AND d.id = ANY (v_values) GROUP BY 1 OFFSET 0) x
            ORDER BY 2;
        ELSIF p_fields[i] = 'group' THEN
            RETURN QUERY
            SELECT i, x.* FROM (SELECT m.block, bit_or(slots_of_bitmap(m.slots))::slots FROM device_group g
                                JOIN device_group_block m ON m.group_id = g.id
                                WHERE g.tenant_id = p_tenant AND g.name = ANY (v_values) GROUP BY 1 OFFSET 0) x ORDER BY 2;
        ELSIF p_fields[i] = 'last_seen' THEN
            RETURN QUERY
            SELECT i, x.* FROM (SELECT s.block, bit_or(s.slots)::slots FROM device_seen s
                                WHERE s.tenant_id = p_tenant AND s.hour >= v_values[1]::integer GROUP BY 1 OFFSET 0) x ORDER BY 2;
        ELSE
            SELECT n.id INTO v_name FROM label_name n WHERE n.tenant_id = p_tenant AND n.name = p_fields[i];
            v_version := version_numbers(v_values[1]);
            IF p_ops[i] = c_any_of THEN
                SELECT array_agg(l.id), '{0}' INTO v_labels, v_others FROM label l
                WHERE l.name_id = v_name AND l.value = ANY (v_values);
            ELSIF p_ops[i] = c_exists THEN
                v_others := '{}';
            ELSE
                SELECT array_agg(l.id) FILTER (WHERE l.meant), coalesce(array_agg(l.id) FILTER (WHERE NOT l.meant), '{}')
                INTO v_labels, v_others
                FROM (SELECT l.id, coalesce(CASE p_ops[i]
                                            WHEN c_prefix THEN starts_with(l.value, v_values[1])
                                            WHEN c_less THEN l.version < v_version
                                            WHEN c_at_most THEN l.version <= v_version
                                            WHEN c_more THEN l.version > v_version
                                            WHEN c_at_least THEN l.version >= v_version
                                            WHEN c_equal THEN l.version IN (SELECT version_numbers(u) FROM unnest(v_values) AS u)
                                            END, false) AS meant
                      FROM label l WHERE l.name_id = v_name) l;
            END IF;
            -- Those who have any value, without those who have another: of a name of which a device has one only.
            IF v_others = '{}' OR (p_fields[i] <> 'tag' AND cardinality(v_others) < cardinality(v_labels)
                                   AND p_ops[i] <> c_any_of) THEN
                RETURN QUERY
                SELECT i, x.* FROM (SELECT k.block, (k.slots & ~coalesce(o.slots, c_none))::slots FROM label_block k
                                    LEFT JOIN (SELECT b.block, bit_or(b.slots) AS slots FROM label_block b
                                               WHERE b.label_id = ANY (v_others) GROUP BY 1) o ON o.block = k.block
                                    WHERE k.label_id = -v_name) x ORDER BY 2;
            ELSE
                RETURN QUERY
                SELECT i, x.* FROM (SELECT k.block, bit_or(k.slots)::slots FROM label_block k
                                    WHERE k.label_id = ANY (v_labels) GROUP BY 1 OFFSET 0) x ORDER BY 2;
            END IF;
        END IF;
    END LOOP;
END $$;
