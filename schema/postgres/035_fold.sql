-- The leader's picture of blocks, as it is now. By index, whatever the planner thinks of tables that were empty when it
-- planned: a statement prepared then reads all blocks there are for each fold, until statistics come.
CREATE FUNCTION fold_blocks(p_batches bigint[], p_blocks integer[], p_states bytea[], p_times bytea[]) RETURNS SETOF integer
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE batch_block b SET states = u.states, times = u.times
    FROM unnest(p_batches, p_blocks, p_states, p_times) AS u (batch, block, states, times)
    WHERE b.batch_id = u.batch AND b.block = u.block;
END $$;
ALTER FUNCTION fold_blocks SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION fold_blocks SET jit = off;
ALTER FUNCTION fold_blocks SET enable_seqscan = off;
ALTER FUNCTION fold_blocks SET enable_hashjoin = off;
ALTER FUNCTION fold_blocks SET enable_mergejoin = off;
