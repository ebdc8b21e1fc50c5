-- A worker is dead: every device it had in the block is nobody's, and what was in its hands counts as SENT: it may have been.
-- Needs prelude_block.
-- KEYS  presence, open
-- ARGV  worker, prefix of state keys
-- Gives how many devices it had.
local worker = tonumber(ARGV[1])
local presence = redis.call("GET", KEYS[1])
if not presence then
    return 0
end
local low = worker % 256
local me = char(low, (worker - low) / 256)
local gone, places, bytes, from = {}, {}, {}, 1
while true do
    local at = string.find(presence, me, from, true)
    if not at then
        break
    end
    if at % 2 == 1 then
        gone[#gone + 1] = (at - 1) / 2
        places[#places + 1], places[#places + 2] = at, at + 1
        bytes[at], bytes[at + 1] = 0, 0
        from = at + 2
    else
        from = at + 1
    end
end
if gone[1] then
    patch(KEYS[1], presence, places, #places, bytes)
    each_open(KEYS[2], ARGV[2], gone, function(_, old)
        return forsake(old)
    end)
end
return #gone
