-- Who joins a dynamic batch is held to its tenant's rate of commands.

-- Takes up to so many commands of what the tenant's quota has left: how many. All, where it has no rate.
CREATE FUNCTION quota_grant(p_tenant integer, p_commands integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    q quota;
    v integer;
    v_now_ms double precision;
BEGIN
    SELECT x.* INTO q FROM quota x WHERE x.tenant_id = p_tenant AND x.commands_per_second > 0 FOR UPDATE;
    IF NOT FOUND THEN
        RETURN p_commands;
    END IF;
    v_now_ms := clock_ms();
    q.commands_left := quota_filled(q, v_now_ms);
    q.filled_ms := v_now_ms;
    v := least(p_commands, greatest(0, floor(q.commands_left)))::integer;
    q.commands_left := q.commands_left - v;
    PERFORM quota_keep(q);
    RETURN v;
END $$;
