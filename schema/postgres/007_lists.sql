-- Long lists of device ids.

-- The number of each id, -1 where there is no such device, in the order given: the rows of one unnest come in its order. One
-- look-up by index for each, whatever the planner believes of a table that grows under it: a unique index on all that is asked
-- is cheapest, and the settings leave it nothing else. Ids in the order of the index cost a quarter of what they cost in no order.
CREATE FUNCTION device_seqs(p_tenant integer, p_ids text[]) RETURNS integer[]
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN (SELECT array_agg(coalesce((SELECT d.seq FROM device d WHERE d.tenant_id = p_tenant AND d.id = u.id
                                                                    AND d.deleted_ms IS NULL LIMIT 1), -1))
            FROM unnest(p_ids) AS u (id));
END $$;
