-- Epochs rise also over the loss of the lease's row: a database restored from a backup, or made anew beside a Redis that is
-- not, has its next leader in a higher epoch than any before.
CREATE OR REPLACE FUNCTION lease_acquire(p_name text, p_holder text, p_ttl_ms bigint) RETURNS bigint
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
    INSERT INTO lease AS l (name, holder, epoch, expires_ms)
    VALUES (p_name, p_holder, server_ms(), server_ms() + p_ttl_ms)
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = greatest(l.epoch + 1, excluded.epoch),
                                     expires_ms = excluded.expires_ms
        WHERE l.expires_ms <= server_ms()
    RETURNING l.epoch INTO v_epoch;
    RETURN v_epoch;
END $$;
