-- Keeps a worker's lease.
-- KEYS  worker:<n>
-- ARGV  instance, milliseconds
-- Gives 1, 0 when the lease is gone, -1 when it is another's.
local holder = redis.call("GET", KEYS[1])
if holder == ARGV[1] then
    redis.call("PEXPIRE", KEYS[1], ARGV[2])
    return 1
end
return holder and -1 or 0
