-- Thresholds by platform act once each, on each platform.

-- `freed` of 016 was one bit a platform: once resumed, no other threshold could stop it again. It is not read any more.
ALTER TABLE batch_control
    ADD COLUMN platform_acted bytea NOT NULL DEFAULT '\x00000000000000000000000000000000'; -- of each platform a byte, of each threshold a bit
UPDATE batch_control c SET platform_acted = (
    SELECT string_agg(CASE WHEN (c.stopped | c.freed | c.canceled) >> p.n & 1 = 1 THEN '\xff'::bytea ELSE '\x00'::bytea END, '' ORDER BY p.n)
    FROM generate_series(0, 15) AS p (n))
WHERE c.stopped | c.freed | c.canceled <> 0;

-- As before; a threshold that acts on a platform is an event, too.
CREATE OR REPLACE FUNCTION event_of_control() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_tenant integer := (SELECT b.tenant_id FROM batch b WHERE b.id = NEW.batch_id);
    v_new boolean := TG_OP = 'INSERT';
BEGIN
    IF NOT v_new AND NEW.wave > OLD.wave THEN
        PERFORM event_add(v_tenant, 2, NEW.batch_id, event_now(), '{"wave":' || NEW.wave + 1 || '}');
    END IF;
    IF NOT v_new AND (NEW.acted <> OLD.acted OR NEW.platform_acted <> OLD.platform_acted) THEN
        PERFORM event_add(v_tenant, 3, NEW.batch_id, event_now(), event_reason(NEW.reason));
    END IF;
    IF NEW.paused AND (v_new OR NOT OLD.paused) THEN
        PERFORM event_add(v_tenant, 4, NEW.batch_id, event_now(), event_reason(NEW.reason));
    ELSIF NOT v_new AND (OLD.paused AND NOT NEW.paused OR OLD.stopped <> 0 AND NEW.stopped = 0) THEN
        PERFORM event_add(v_tenant, 5, NEW.batch_id, event_now(), event_reason(NEW.reason));
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER event_of_control ON batch_control;
CREATE TRIGGER event_of_control AFTER UPDATE ON batch_control FOR EACH ROW
    WHEN (NEW.wave > OLD.wave OR NEW.acted <> OLD.acted OR NEW.platform_acted <> OLD.platform_acted OR NEW.paused <> OLD.paused
          OR OLD.stopped <> 0 AND NEW.stopped = 0)
    EXECUTE FUNCTION event_of_control();
