-- What stands for a batch in a block, for a comparison.
-- KEYS  presence, open, state
-- ARGV  the batch's three possible scores in `open`, one per priority
-- Gives {state string or "", how often it stands in `open`, presence of its span or ""}.
local listed, presence = 0, ""
for i = 1, 3 do
    listed = listed + redis.call("ZCOUNT", KEYS[2], ARGV[i], ARGV[i])
end
local states = redis.call("GET", KEYS[3]) or ""
if #states > HEADER then
    local low, high = byte(states, 3, 4)
    local first = low + high * 256
    presence = redis.call("GETRANGE", KEYS[1], first * 2, (first + #states - HEADER) * 2 - 1)
end
return {states, listed, presence}
