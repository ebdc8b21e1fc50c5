-- Commands that are tried again.

ALTER TABLE batch_control
    ADD COLUMN retry_after      integer  NOT NULL DEFAULT 0, -- after which states: bit n for the state n
    ADD COLUMN retry_attempts   smallint NOT NULL DEFAULT 0, -- deliveries in all
    ADD COLUMN retry_factor     smallint NOT NULL DEFAULT 0,
    ADD COLUMN retry_initial_ms bigint   NOT NULL DEFAULT 0,
    ADD COLUMN retry_max_ms     bigint   NOT NULL DEFAULT 0;

-- Of a batch whose commands are tried again: the delivery that this is the result of; the last one counts.
ALTER TABLE command_result ADD COLUMN attempt smallint NOT NULL DEFAULT 0;

-- Behind the statement that has made the batch; nothing when the request id had made one before.
CREATE FUNCTION accept_retry(p_tenant integer, p_request_id text, p_after integer, p_attempts smallint, p_factor smallint,
                             p_initial_ms bigint, p_max_ms bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO batch_control (batch_id, retry_after, retry_attempts, retry_factor, retry_initial_ms, retry_max_ms)
    SELECT b.id, p_after, p_attempts, p_factor, p_initial_ms, p_max_ms FROM batch b
    WHERE b.tenant_id = p_tenant AND b.request_id = p_request_id AND b.xmin = pg_current_xact_id()::xid
    ON CONFLICT (batch_id) DO UPDATE SET retry_after = excluded.retry_after, retry_attempts = excluded.retry_attempts,
        retry_factor = excluded.retry_factor, retry_initial_ms = excluded.retry_initial_ms,
        retry_max_ms = excluded.retry_max_ms
$$;
