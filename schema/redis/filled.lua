-- Redis has been filled from PostgreSQL, unless it was emptied while that was going on.
-- KEYS  muster:generation
-- ARGV  what it has held since the filling began, what it is to hold now
-- Gives 1, or 0 when it holds something else.
if redis.call("GET", KEYS[1]) ~= ARGV[1] or ARGV[2] == "" then
    return 0
end
redis.call("SET", KEYS[1], ARGV[2])
return 1
