-- Is a worker dead? Once said, it stays true: its lease can't be taken again until it is forgotten, so that nobody comes
-- back under the number while its slots are being reaped.
-- KEYS  worker:<n>
-- ARGV  what the lease holds from then on
-- Gives 1 when it is dead, 0 when somebody holds the lease.
local holder = redis.call("GET", KEYS[1])
if not holder then
    redis.call("SET", KEYS[1], ARGV[1])
    return 1
end
return holder == ARGV[1] and 1 or 0
