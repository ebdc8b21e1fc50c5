-- A leader comes, unless one of a higher epoch was here.
-- KEYS  muster:leader
-- ARGV  its epoch
-- Gives 1, or 0.
if tonumber(redis.call("GET", KEYS[1]) or "0") > tonumber(ARGV[1]) then
    return 0
end
redis.call("SET", KEYS[1], ARGV[1])
return 1
