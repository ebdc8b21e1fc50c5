-- Keys of the session tickets that workers give to devices: shared, so that a device resumes its TLS session at another worker,
-- and in PostgreSQL, since whoever has them can pass for a worker to the devices that resume.
CREATE TABLE tls_ticket_key (
    id         integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    secret     bytea   NOT NULL CHECK (length(secret) = 80), -- name, AES-256 key, HMAC key
    created_ms bigint  NOT NULL
);

-- The keys younger than p_keep_ms, the newest first, by PostgreSQL's clock alone. Without one younger than p_rotate_ms,
-- p_fresh becomes the newest; the lock lets only one of those who ask at that time add its own.
CREATE FUNCTION tls_ticket_keys(p_fresh bytea, p_rotate_ms bigint, p_keep_ms bigint)
RETURNS TABLE (secret bytea, age_ms bigint) LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := floor(extract(epoch FROM clock_timestamp()) * 1000);
BEGIN
    IF NOT EXISTS (SELECT FROM tls_ticket_key k WHERE k.created_ms > v_now - p_rotate_ms) THEN
        LOCK TABLE tls_ticket_key IN SHARE ROW EXCLUSIVE MODE;
        v_now := floor(extract(epoch FROM clock_timestamp()) * 1000);
        IF NOT EXISTS (SELECT FROM tls_ticket_key k WHERE k.created_ms > v_now - p_rotate_ms) THEN
            DELETE FROM tls_ticket_key k WHERE k.created_ms <= v_now - p_keep_ms;
            INSERT INTO tls_ticket_key (secret, created_ms) VALUES (p_fresh, v_now);
        END IF;
    END IF;
    RETURN QUERY SELECT k.secret, v_now - k.created_ms FROM tls_ticket_key k
                 WHERE k.created_ms > v_now - p_keep_ms ORDER BY k.id DESC;
END $$;
