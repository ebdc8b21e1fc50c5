-- The packed state as rows, for people and reports: plain SQL can ask what became of every command.
--
--   Which devices of batch 17 have not acknowledged?
--     SELECT device_id, state, attempts FROM commands(17) WHERE state IN ('HELD', 'QUEUED', 'ROUTED', 'SENT');
--   How far is it?
--     SELECT * FROM batch_progress(17);
--   What is open for one device?
--     SELECT batch_id, state FROM open_command WHERE device_id = 'phone-42';
--
-- What PostgreSQL knows is what has ended, and what was sent and is unanswered for about a second; a command that is on
-- its way for less shows as QUEUED. Programs do not use these: they read the columns.

CREATE FUNCTION command_state_name(p_state integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(('{NONE,HELD,QUEUED,ROUTED,SENT,SUCCEEDED,FAILED,REJECTED,TIMED_OUT,EXPIRED,CANCELED,SUPERSEDED}'::text[])
                    [p_state + 1], 'UNKNOWN');
$$;

-- Little-endian numbers of packed columns.
CREATE FUNCTION u32le(p bytea, p_at integer) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT get_byte(p, p_at)::bigint + get_byte(p, p_at + 1) * 256::bigint + get_byte(p, p_at + 2) * 65536::bigint
           + get_byte(p, p_at + 3) * 16777216::bigint;
$$;

-- Entries of one batch in the log that are not folded into batch_block yet; the layout is in proto/ack_log.h.
CREATE FUNCTION logged_entries(p_batch bigint)
RETURNS TABLE (stream bigint, n bigint, place integer, at_ms bigint, seq bigint, byte integer)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    r record;
    v_at integer;
    v_count integer;
    v_batch bigint;
BEGIN
    FOR r IN SELECT l.stream, l.n, l.at_ms, l.entries FROM ack_log l LOOP
        v_at := 0;
        WHILE v_at + 16 <= length(r.entries) LOOP
            v_batch := u32le(r.entries, v_at) + u32le(r.entries, v_at + 4) * 4294967296;
            v_count := u32le(r.entries, v_at + 12);
            v_at := v_at + 16;
            IF v_batch = p_batch THEN
                RETURN QUERY SELECT r.stream, r.n, v_at + i * 5, r.at_ms, u32le(r.entries, v_at + i * 5),
                                    get_byte(r.entries, v_at + i * 5 + 4)
                             FROM generate_series(0, v_count - 1) AS i;
            END IF;
            v_at := v_at + v_count * 5;
        END LOOP;
    END LOOP;
END $$;

-- Every command of a batch with its state, as state_merge of lib/store/state.c joins what the blocks and the log say: a
-- terminal state never changes, else the latest counts; attempts never shrink.
CREATE FUNCTION commands(p_batch bigint)
RETURNS TABLE (batch_id bigint, seq integer, device_id text, state text, attempts integer, updated_at timestamptz)
LANGUAGE sql STABLE AS $$
    WITH folded AS (
        SELECT b.tenant_id, k.block * 1024 + k.first + i AS seq,
               CASE WHEN k.states IS NULL THEN 2 ELSE get_byte(k.states, i) END AS byte,
               b.created_ms + CASE WHEN k.times IS NULL THEN 0 ELSE u32le(k.times, i * 4) END AS at_ms
        FROM batch b
        JOIN batch_block k ON k.batch_id = b.id
        CROSS JOIN LATERAL generate_series(0, length(k.targets) * 8 - 1) AS i
        WHERE b.id = p_batch AND get_bit(k.targets, i) = 1
    ), logged AS (
        -- The first terminal entry, else the last of the others.
        SELECT DISTINCT ON (e.seq) e.seq, e.byte & 15 AS state, e.at_ms, max(e.byte >> 4) OVER (PARTITION BY e.seq) AS attempts
        FROM logged_entries(p_batch) e
        WHERE e.byte & 15 BETWEEN 1 AND 11
        ORDER BY e.seq, (e.byte & 15) < 5, CASE WHEN (e.byte & 15) < 5 THEN -e.at_ms ELSE e.at_ms END,
                 e.stream, CASE WHEN (e.byte & 15) < 5 THEN -e.n ELSE e.n END, e.place
    ), joined AS (
        SELECT f.tenant_id, f.seq, l.seq IS NOT NULL AND f.byte & 15 < 5 AS newer, f.byte, l.state,
               greatest(f.byte >> 4, l.attempts) AS attempts, f.at_ms, l.at_ms AS logged_ms
        FROM folded f LEFT JOIN logged l ON l.seq = f.seq
    )
    SELECT p_batch, j.seq, d.id, command_state_name(CASE WHEN j.newer THEN j.state ELSE j.byte & 15 END), j.attempts,
           to_timestamp(CASE WHEN j.newer THEN j.logged_ms ELSE j.at_ms END / 1000.0)
    FROM joined j LEFT JOIN device d ON d.tenant_id = j.tenant_id AND d.seq = j.seq
    ORDER BY j.seq;
$$;
COMMENT ON FUNCTION commands(bigint) IS
    'Every command of a batch: SELECT device_id, state FROM commands(17) WHERE state IN (''HELD'', ''QUEUED'', ''ROUTED'', ''SENT'')';

-- How many commands of a batch are in each state.
CREATE FUNCTION batch_progress(p_batch bigint) RETURNS TABLE (state text, commands bigint) LANGUAGE sql STABLE AS $$
    SELECT c.state, count(*) FROM commands(p_batch) c GROUP BY c.state ORDER BY c.state;
$$;

-- Commands of all batches that are not closed.
CREATE VIEW open_command AS
    SELECT b.tenant_id, c.* FROM batch b CROSS JOIN LATERAL commands(b.id) c WHERE b.closed_ms IS NULL;
