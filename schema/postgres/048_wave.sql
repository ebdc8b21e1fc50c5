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
