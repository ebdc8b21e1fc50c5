-- Gives a worker's lease up. The number stays in `workers` until the leader has seen that no slot is left.
-- KEYS  worker:<n>
-- ARGV  instance
if redis.call("GET", KEYS[1]) == ARGV[1] then
    return redis.call("DEL", KEYS[1])
end
return 0
