-- The batch is over in the block.
-- KEYS  open, state, values
-- ARGV  its three possible scores in `open`, one per priority
for i = 1, 3 do
    redis.call("ZREMRANGEBYSCORE", KEYS[1], ARGV[i], ARGV[i])
end
return redis.call("DEL", KEYS[2], KEYS[3])
