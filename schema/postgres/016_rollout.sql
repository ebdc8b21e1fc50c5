-- Batches that are sent in waves, and that stop when too much goes wrong.

ALTER TABLE batch_control
    ADD COLUMN rollout boolean NOT NULL DEFAULT false, -- its steering has waves or thresholds,
    ADD COLUMN waves   integer NOT NULL DEFAULT 0,     -- so many waves
    ADD COLUMN wave    integer NOT NULL DEFAULT 0,     -- the last one released, from 0 on; written before it is sent,
    ADD COLUMN wave_ms bigint  NOT NULL DEFAULT 0,     -- and when; 0: the first one, at acceptance
    ADD COLUMN by_hand integer NOT NULL DEFAULT 0,     -- the highest wave released by hand
    ADD COLUMN stopped integer NOT NULL DEFAULT 0,     -- platforms that are held: bit n for platform n,
    ADD COLUMN freed   integer NOT NULL DEFAULT 0,     -- and those that were, until the batch was resumed
    ADD COLUMN acted   integer NOT NULL DEFAULT 0;     -- thresholds that have acted: bit n for the nth

CREATE FUNCTION accept_rollout(p_tenant integer, p_request_id text, p_hash bytea, p_description text, p_command bytea,
                               p_priority smallint, p_device_count integer, p_unknown_count integer, p_unknown_ids text[],
                               p_created_ms bigint, p_expires_ms bigint,
                               p_blocks integer[], p_firsts smallint[], p_targets bytea[], p_steering bytea,
                               p_not_before_ms bigint, p_deliver_by_ms bigint, p_execution_ms bigint,
                               p_time_window integer, p_window_zone text, p_rollout boolean, p_waves integer)
RETURNS TABLE (created boolean, batch_id bigint)
LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    SELECT * INTO r FROM accept_steered(p_tenant, p_request_id, p_hash, p_description, p_command, p_priority, p_device_count,
                                        p_unknown_count, p_unknown_ids, p_created_ms, p_expires_ms, p_blocks, p_firsts,
                                        p_targets, p_steering, p_not_before_ms, p_deliver_by_ms, p_execution_ms,
                                        p_time_window, p_window_zone) AS a;
    IF r.created AND p_rollout THEN
        UPDATE batch_control c SET rollout = true, waves = p_waves WHERE c.batch_id = r.batch_id;
    END IF;
    RETURN QUERY SELECT r.created, r.batch_id;
END $$;

-- As before; resuming also lets go on what thresholds have stopped.
CREATE OR REPLACE FUNCTION pause_batch(p_tenant integer, p_batch bigint, p_paused boolean, p_reason text, p_now_ms bigint,
                                       p_key bigint)
RETURNS TABLE (changed boolean) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM batch b WHERE b.id = p_batch AND b.tenant_id = p_tenant AND b.closed_ms IS NULL
                           AND b.cancel_requested_ms IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_paused THEN
        INSERT INTO batch_control AS c (batch_id, paused, reason, request) VALUES (p_batch, true, p_reason, 1)
        ON CONFLICT (batch_id) DO UPDATE SET paused = true, reason = p_reason, request = c.request + 1 WHERE NOT c.paused;
    ELSE
        UPDATE batch_control c SET paused = false, freed = c.freed | c.stopped, stopped = 0, reason = p_reason,
                                   request = c.request + 1
        WHERE c.batch_id = p_batch AND (c.paused OR c.stopped <> 0);
    END IF;
    IF NOT FOUND THEN
        RETURN QUERY SELECT false;
        RETURN;
    END IF;
    INSERT INTO audit (at_ms, tenant_id, key_id, action, detail)
    VALUES (p_now_ms, p_tenant, p_key, CASE WHEN p_paused THEN 'pause_batch' ELSE 'resume_batch' END, p_batch::text);
    RETURN QUERY SELECT true;
END $$;

-- Releases the next wave by hand. No row: no such batch, or it is ending; false: it has no further wave.
CREATE FUNCTION release_wave(p_tenant integer, p_batch bigint, p_now_ms bigint, p_key bigint)
RETURNS TABLE (changed boolean) LANGUAGE plpgsql AS $$
DECLARE
    v_changed boolean;
BEGIN
    PERFORM FROM batch b WHERE b.id = p_batch AND b.tenant_id = p_tenant AND b.closed_ms IS NULL
                           AND b.cancel_requested_ms IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE batch_control c SET by_hand = greatest(c.by_hand, c.wave) + 1, request = c.request + 1
    WHERE c.batch_id = p_batch AND greatest(c.by_hand, c.wave) + 1 < c.waves;
    v_changed := FOUND;
    IF v_changed THEN
        INSERT INTO audit (at_ms, tenant_id, key_id, action, detail)
        VALUES (p_now_ms, p_tenant, p_key, 'release_wave', p_batch::text);
    END IF;
    RETURN QUERY SELECT v_changed;
END $$;
