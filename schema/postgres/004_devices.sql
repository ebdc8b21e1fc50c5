-- Changes of the fleet: registration, removal, groups. The bitmaps of device_block and device_group_block change in the same
-- transaction as the rows they stand for. Whoever changes them holds the lock on the tenant's row, so that two writers never
-- meet in one bitmap.

-- Every writer of device holds the lock on its tenant's row, and tenants are never removed: a look-up per row proves nothing
-- and costs as much as the row.
ALTER TABLE device DROP CONSTRAINT device_tenant_id_fkey;

-- For acceptance: devices deleted a moment ago.
CREATE INDEX device_deleted ON device (tenant_id, deleted_ms) WHERE deleted_ms IS NOT NULL;

-- Sets (or clears) the bits of `p_seqs` in the blocks of their platforms. `p_seqs` and `p_platforms` go together.
CREATE FUNCTION device_block_change(p_tenant integer, p_seqs integer[], p_platforms smallint[], p_bit integer)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    r record;
    v_slots bytea;
    v_slot integer;
BEGIN
    FOR r IN SELECT u.seq / 1024 AS block, u.platform, array_agg(u.seq % 1024) AS slots
             FROM unnest(p_seqs, p_platforms) AS u (seq, platform) GROUP BY 1, 2
    LOOP
        SELECT d.slots INTO v_slots FROM device_block d
        WHERE d.tenant_id = p_tenant AND d.block = r.block AND d.platform = r.platform;
        v_slots := coalesce(v_slots, decode(repeat('00', 128), 'hex'));
        FOREACH v_slot IN ARRAY r.slots LOOP
            v_slots := set_bit(v_slots, v_slot, p_bit);
        END LOOP;
        INSERT INTO device_block (tenant_id, block, platform, slots) VALUES (p_tenant, r.block, r.platform, v_slots)
        ON CONFLICT (tenant_id, block, platform) DO UPDATE SET slots = excluded.slots;
    END LOOP;
END $$;

-- Registers devices or updates their platform. Ids must differ. New ones get the next numbers in the order given.
CREATE FUNCTION import_devices(p_tenant integer, p_ids text[], p_platforms smallint[], p_now_ms bigint)
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
        SELECT array_agg(u.id ORDER BY u.n), array_agg(u.platform ORDER BY u.n),
               array_agg((v_next + u.k - 1)::integer ORDER BY u.n)
        INTO v_ids, v_new, v_seqs
        FROM (SELECT i.id, i.platform, i.n, row_number() OVER (ORDER BY i.n) AS k
              FROM unnest(p_ids, p_platforms) WITH ORDINALITY AS i (id, platform, n)
              WHERE v_known = 0 OR (SELECT d.seq FROM device d WHERE d.tenant_id = p_tenant AND d.id = i.id
                                                               AND d.deleted_ms IS NULL LIMIT 1) IS NULL) u;
        INSERT INTO device (tenant_id, seq, id, platform, created_ms)
        SELECT p_tenant, u.seq, u.id, u.platform, p_now_ms FROM unnest(v_seqs, v_ids, v_new) AS u (seq, id, platform);
        PERFORM device_block_change(p_tenant, v_seqs, v_new, 1);
        UPDATE tenant t SET next_seq = v_next + cardinality(v_ids), devices = t.devices + cardinality(v_ids)
        WHERE t.id = p_tenant;
    END IF;
    RETURN QUERY SELECT cardinality(p_ids) - v_known, v_known;
END $$;

-- Workers read revocations by id from where they are, so ids must become visible in their order: one writer at a time.
CREATE FUNCTION revocation_lock() RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtext('revocation'), 0);
$$;

-- Refuses tokens of these devices issued before now, and says from when on new ones may be issued: one millisecond after
-- everything that may have been issued so far.
CREATE FUNCTION revoke_tokens(p_tenant integer, p_seqs integer[], p_now_ms bigint)
RETURNS TABLE (seq integer, issued_before_ms bigint)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM revocation_lock();
    RETURN QUERY
    INSERT INTO revocation AS r (tenant_id, seq, issued_before_ms)
    SELECT p_tenant, u.seq, p_now_ms + 1 FROM (SELECT DISTINCT unnest(p_seqs) AS seq) AS u
    ON CONFLICT ON CONSTRAINT revocation_pkey DO UPDATE
        SET issued_before_ms = greatest(r.issued_before_ms, p_now_ms) + 1, id = DEFAULT
    RETURNING r.seq, r.issued_before_ms;
END $$;

-- Removes a device: its number is never used again, its bits are cleared, its tokens are refused for good, and its open
-- commands are left to the leader (device_cancel). No row when there is no such device.
CREATE FUNCTION delete_device(p_tenant integer, p_id text, p_now_ms bigint, p_forever_ms bigint, p_key bigint)
RETURNS TABLE (seq integer)
LANGUAGE plpgsql AS $$
DECLARE
    v_seq integer;
    v_platform smallint;
BEGIN
    PERFORM FROM tenant t WHERE t.id = p_tenant FOR UPDATE;
    UPDATE device d SET deleted_ms = p_now_ms WHERE d.tenant_id = p_tenant AND d.id = p_id AND d.deleted_ms IS NULL
    RETURNING d.seq, d.platform INTO v_seq, v_platform;
    IF v_seq IS NULL THEN
        RETURN;
    END IF;
    PERFORM device_block_change(p_tenant, ARRAY[v_seq], ARRAY[v_platform], 0);
    WITH member AS (
        UPDATE device_group_block m SET slots = set_bit(m.slots, v_seq % 1024, 0)
        FROM device_group g
        WHERE g.tenant_id = p_tenant AND m.group_id = g.id AND m.block = v_seq / 1024
          AND get_bit(m.slots, v_seq % 1024) = 1
        RETURNING m.group_id)
    UPDATE device_group g SET devices = g.devices - 1 FROM member WHERE g.id = member.group_id;
    UPDATE tenant t SET devices = t.devices - 1 WHERE t.id = p_tenant;
    PERFORM revocation_lock();
    INSERT INTO revocation AS r (tenant_id, seq, issued_before_ms) VALUES (p_tenant, v_seq, p_forever_ms)
    ON CONFLICT ON CONSTRAINT revocation_pkey DO UPDATE SET issued_before_ms = excluded.issued_before_ms, id = DEFAULT;
    INSERT INTO device_cancel (tenant_id, seq) VALUES (p_tenant, v_seq) ON CONFLICT DO NOTHING;
    INSERT INTO audit (at_ms, tenant_id, key_id, action, detail) VALUES (p_now_ms, p_tenant, p_key, 'delete_device', p_id);
    RETURN QUERY SELECT v_seq;
END $$;

-- Adds and removes members. Ids that are not registered come back in `unknown` (the first 100 of those to add), and then
-- nothing has been changed. No row when there is no such group.
CREATE FUNCTION change_group(p_tenant integer, p_name text, p_add text[], p_remove text[])
RETURNS TABLE (devices integer, created_ms bigint, unknown text[])
LANGUAGE plpgsql AS $$
DECLARE
    v_group integer;
    v_unknown text[];
    v_count integer;
    v_slots bytea;
    v_slot integer;
    r record;
BEGIN
    PERFORM FROM tenant t WHERE t.id = p_tenant FOR UPDATE;
    SELECT g.id INTO v_group FROM device_group g WHERE g.tenant_id = p_tenant AND g.name = p_name;
    IF v_group IS NULL THEN
        RETURN;
    END IF;
    SELECT array_agg(u.id ORDER BY u.n) INTO v_unknown
    FROM (SELECT i.id, i.n FROM unnest(p_add) WITH ORDINALITY AS i (id, n)
          WHERE (SELECT d.seq FROM device d WHERE d.tenant_id = p_tenant AND d.id = i.id AND d.deleted_ms IS NULL
                 LIMIT 1) IS NULL
          ORDER BY i.n LIMIT 100) u;
    IF v_unknown IS NULL THEN
        FOR r IN SELECT d.seq / 1024 AS block, array_agg(d.seq % 1024 ORDER BY i.bit DESC) AS slots,
                        array_agg(i.bit ORDER BY i.bit DESC) AS bits
                 FROM (SELECT unnest(p_add) AS id, 1 AS bit UNION ALL SELECT unnest(p_remove), 0) i
                 CROSS JOIN LATERAL (SELECT x.seq FROM device x WHERE x.tenant_id = p_tenant AND x.id = i.id
                                                              AND x.deleted_ms IS NULL LIMIT 1) d GROUP BY 1
        LOOP
            SELECT m.slots INTO v_slots FROM device_group_block m WHERE m.group_id = v_group AND m.block = r.block;
            v_slots := coalesce(v_slots, decode(repeat('00', 128), 'hex'));
            FOR i IN 1 .. cardinality(r.slots) LOOP
                v_slots := set_bit(v_slots, r.slots[i], r.bits[i]);
            END LOOP;
            INSERT INTO device_group_block (group_id, block, slots) VALUES (v_group, r.block, v_slots)
            ON CONFLICT (group_id, block) DO UPDATE SET slots = excluded.slots;
        END LOOP;
        SELECT coalesce(sum(bit_count(m.slots)), 0) INTO v_count FROM device_group_block m WHERE m.group_id = v_group;
        UPDATE device_group g SET devices = v_count WHERE g.id = v_group;
    END IF;
    RETURN QUERY SELECT g.devices, g.created_ms, coalesce(v_unknown, '{}') FROM device_group g WHERE g.id = v_group;
END $$;

-- Makes a group with its first members. `made` is false when there is one of that name; with ids in `unknown` there is none
-- afterwards.
CREATE FUNCTION create_group(p_tenant integer, p_name text, p_ids text[], p_now_ms bigint)
RETURNS TABLE (made boolean, devices integer, created_ms bigint, unknown text[])
LANGUAGE plpgsql AS $$
DECLARE
    v_group integer;
    r record;
BEGIN
    PERFORM FROM tenant t WHERE t.id = p_tenant FOR UPDATE;
    INSERT INTO device_group AS g (tenant_id, name, created_ms) VALUES (p_tenant, p_name, p_now_ms)
    ON CONFLICT (tenant_id, name) DO NOTHING RETURNING g.id INTO v_group;
    IF v_group IS NULL THEN
        RETURN QUERY SELECT false, 0, 0::bigint, '{}'::text[];
        RETURN;
    END IF;
    SELECT * INTO r FROM change_group(p_tenant, p_name, p_ids, '{}');
    IF cardinality(r.unknown) > 0 THEN
        DELETE FROM device_group g WHERE g.id = v_group;
    END IF;
    RETURN QUERY SELECT true, r.devices, r.created_ms, r.unknown;
END $$;
