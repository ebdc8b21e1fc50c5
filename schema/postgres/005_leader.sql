-- What the leader needs: its lease, the fence of its writes, and what it looks for.

-- Devices whose open commands are to end, because they were deleted. Inserted in the transaction that deletes the device;
-- the leader deletes the row when every command is terminal.
CREATE TABLE device_cancel (
    tenant_id integer NOT NULL,
    seq       integer NOT NULL,
    PRIMARY KEY (tenant_id, seq)
);

-- Cancels under way.
CREATE INDEX batch_canceling ON batch (id)
    WHERE cancel_requested_ms IS NOT NULL AND canceled_ms IS NULL AND closed_ms IS NULL;

-- Log rows are written once and read once, soon after: compressing them costs more than it saves.
ALTER TABLE ack_log ALTER COLUMN entries SET STORAGE EXTERNAL;

CREATE FUNCTION server_ms() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
$$;

-- The lease and the writes under it meet in one advisory lock: a write holds it shared until it has committed, a change of
-- holder takes it alone. So whoever gets the lease sees all that its predecessor has committed, and nothing of it follows.

-- Takes the lease if nobody has it. Returns the epoch, or NULL when another holds it. A holder whose lease has run out in
-- the middle of a transaction (stopped, or its host is gone) has that transaction ended.
CREATE FUNCTION lease_acquire(p_name text, p_holder text, p_ttl_ms bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_key integer := hashtext('lease ' || p_name);
    v_epoch bigint;
BEGIN
    IF EXISTS (SELECT FROM lease l WHERE l.name = p_name AND l.expires_ms > server_ms()) THEN
        RETURN NULL;
    END IF;
    IF NOT pg_try_advisory_xact_lock(v_key, 0) THEN
        PERFORM pg_terminate_backend(k.pid) FROM pg_locks k
        WHERE k.locktype = 'advisory' AND k.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
          AND k.classid = (v_key::bigint & 4294967295)::oid AND k.objid = 0 AND k.mode = 'ShareLock' AND k.granted;
        RETURN NULL;
    END IF;
    INSERT INTO lease AS l (name, holder, epoch, expires_ms) VALUES (p_name, p_holder, 1, server_ms() + p_ttl_ms)
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = l.epoch + 1, expires_ms = excluded.expires_ms
        WHERE l.expires_ms <= server_ms()
    RETURNING l.epoch INTO v_epoch;
    RETURN v_epoch;
END $$;

-- Prolongs the lease. False when it has passed to another or has run out.
CREATE FUNCTION lease_renew(p_name text, p_holder text, p_epoch bigint, p_ttl_ms bigint) RETURNS boolean
LANGUAGE sql AS $$
    WITH kept AS (
        UPDATE lease SET expires_ms = server_ms() + p_ttl_ms
        WHERE name = p_name AND holder = p_holder AND epoch = p_epoch AND expires_ms > server_ms()
        RETURNING 1)
    SELECT EXISTS (SELECT FROM kept);
$$;

-- Gives the lease back: it is free at once.
CREATE FUNCTION lease_release(p_name text, p_holder text, p_epoch bigint) RETURNS void
LANGUAGE sql AS $$
    UPDATE lease SET expires_ms = 0 WHERE name = p_name AND holder = p_holder AND epoch = p_epoch;
$$;

-- First statement of every write under a lease: ends the transaction when the lease is no longer the caller's.
CREATE FUNCTION lease_fence(p_name text, p_holder text, p_epoch bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('lease ' || p_name), 0);
    IF NOT EXISTS (SELECT FROM lease l WHERE l.name = p_name AND l.holder = p_holder AND l.epoch = p_epoch
                                         AND l.expires_ms > server_ms()) THEN
        RAISE EXCEPTION 'lease % of % in epoch % is over', p_name, p_holder, p_epoch USING ERRCODE = 'MU001';
    END IF;
END $$;
