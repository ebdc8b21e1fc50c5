-- Batches that take the place of older ones.

-- supersede_key: '' for batches without. supersedes: older batches that it has superseded for some device, which it must not
-- overtake; NULL: none.
ALTER TABLE batch_control ADD COLUMN supersede_key text NOT NULL DEFAULT '', ADD COLUMN supersedes bigint[];

-- What is to be ended as superseded, not as canceled.
ALTER TABLE batch_cancel ADD COLUMN superseded boolean NOT NULL DEFAULT false;

-- Whom open batches with a key address, as in batch_block. Rows go when their batch is closed.
CREATE TABLE batch_key (
    tenant_id integer  NOT NULL,
    key       text     NOT NULL,
    block     integer  NOT NULL,
    batch_id  bigint   NOT NULL,
    first     smallint NOT NULL,
    targets   bytea    NOT NULL,
    PRIMARY KEY (tenant_id, key, block, batch_id)
);
CREATE INDEX batch_key_batch ON batch_key (batch_id);

-- Whoever makes a batch with a key holds the key first, before the batch has its number, to the end of the transaction: so
-- batches of one key have their numbers in the order of their commits, and each sees all that are older. Many at once are held
-- in one order, so that two such transactions never wait for each other.
CREATE FUNCTION hold_keys(p_tenants integer[], p_keys text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_hash integer;
BEGIN
    FOR v_hash IN SELECT DISTINCT hashtext(u.tenant || ' ' || u.key) FROM unnest(p_tenants, p_keys) AS u (tenant, key) ORDER BY 1
    LOOP
        PERFORM pg_advisory_xact_lock(hashtext('supersede key'), v_hash);
    END LOOP;
END $$;

-- A trimmed bitmap of a block as a whole one.
CREATE FUNCTION bitmap_whole(p_first integer, p_targets bytea) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT decode(repeat('00', p_first / 8), 'hex') || p_targets
           || decode(repeat('00', 128 - p_first / 8 - length(p_targets)), 'hex')
$$;

-- Asks that older batches of the key end for the devices of this one. Returns how many there are. The leader carries it out
-- as it cancels for some devices: see batch_cancel.
CREATE FUNCTION supersede_older(p_tenant integer, p_key text, p_batch bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    r record;
    v_request integer;
    v_older bigint[] := '{}';
BEGIN
    FOR r IN
        SELECT o.batch_id, array_agg(n.block) AS blocks, array_agg(bitmap_whole(n.first, n.targets)) AS slots
        FROM batch_key n
        JOIN batch_key o ON o.tenant_id = p_tenant AND o.key = p_key AND o.block = n.block AND o.batch_id < p_batch
        WHERE n.batch_id = p_batch
          AND o.first < n.first + 8 * length(n.targets) AND n.first < o.first + 8 * length(o.targets)
          AND bit_count(('x' || encode(bitmap_whole(n.first, n.targets), 'hex'))::bit(1024)
                        & ('x' || encode(bitmap_whole(o.first, o.targets), 'hex'))::bit(1024)) > 0
        GROUP BY o.batch_id ORDER BY o.batch_id
    LOOP
        INSERT INTO batch_control AS c (batch_id, request) VALUES (r.batch_id, 1)
        ON CONFLICT (batch_id) DO UPDATE SET request = c.request + 1 RETURNING c.request INTO v_request;
        INSERT INTO batch_cancel (batch_id, request, block, slots, superseded)
        SELECT r.batch_id, v_request, u.block, u.slots, true FROM unnest(r.blocks, r.slots) AS u (block, slots);
        v_older := v_older || r.batch_id;
    END LOOP;
    IF v_older <> '{}' THEN
        UPDATE batch_control c SET supersedes = v_older WHERE c.batch_id = p_batch;
    END IF;
    RETURN cardinality(v_older);
END $$;
-- A block has few batches of one key, whatever the planner thinks of a table that was empty when it looked.
ALTER FUNCTION supersede_older SET enable_seqscan = off;
ALTER FUNCTION supersede_older SET enable_hashjoin = off;
ALTER FUNCTION supersede_older SET enable_mergejoin = off;

-- Behind the statement that has made the batch, in a transaction that holds the key: gives it the key. A batch that is held
-- for approval supersedes when it is let go. Returns how many older ones it supersedes; 0 too when the request id had made a
-- batch before.
CREATE FUNCTION accept_key(p_tenant integer, p_request_id text, p_key text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_id bigint;
    v_held boolean;
BEGIN
    SELECT b.id, b.held_ms IS NOT NULL INTO v_id, v_held FROM batch b
    WHERE b.tenant_id = p_tenant AND b.request_id = p_request_id AND b.xmin = pg_current_xact_id()::xid;
    IF v_id IS NULL THEN
        RETURN 0;
    END IF;
    INSERT INTO batch_control (batch_id, supersede_key) VALUES (v_id, p_key)
    ON CONFLICT (batch_id) DO UPDATE SET supersede_key = excluded.supersede_key;
    INSERT INTO batch_key (tenant_id, key, block, batch_id, first, targets)
    SELECT p_tenant, p_key, k.block, v_id, k.first, k.targets FROM batch_block k WHERE k.batch_id = v_id;
    RETURN CASE WHEN v_held THEN 0 ELSE supersede_older(p_tenant, p_key, v_id) END;
END $$;

-- See release_batch. What was accepted with the key meanwhile is newer, and has superseded this one for its devices.
CREATE FUNCTION supersede_released() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_key text;
BEGIN
    SELECT c.supersede_key INTO v_key FROM batch_control c WHERE c.batch_id = NEW.id AND c.supersede_key <> '';
    IF FOUND THEN
        PERFORM hold_keys(ARRAY[NEW.tenant_id], ARRAY[v_key]);
        PERFORM supersede_older(NEW.tenant_id, v_key, NEW.id);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER batch_supersede AFTER UPDATE OF held_ms ON batch FOR EACH ROW
    WHEN (OLD.held_ms IS NOT NULL AND NEW.held_ms IS NULL AND NEW.cancel_requested_ms IS NULL)
    EXECUTE FUNCTION supersede_released();
