-- Takes a lost lease again under the same number.
-- KEYS  worker:<n>
-- ARGV  instance, milliseconds
-- Gives 1, or -1 when it is another's.
local holder = redis.call("GET", KEYS[1])
if holder and holder ~= ARGV[1] then
    return -1
end
redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])
return 1
