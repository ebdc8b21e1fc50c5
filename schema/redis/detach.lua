-- Devices have left a worker: nobody has them, and what was in its hands is QUEUED again.
-- Needs prelude_block.
-- KEYS  presence, open
-- ARGV  worker, prefix of state keys, packed slots (u16, little endian)
-- Gives how many were still the worker's.
local worker, slots = tonumber(ARGV[1]), numbers(ARGV[3])
local gone, places, bytes, presence = {}, {}, {}, nil
if #slots > VERY_FEW then
    presence = redis.call("GET", KEYS[1]) or ""
end
for i = 1, #slots do
    local at = slots[i] * 2 + 1
    local low, high = byte(presence and sub(presence, at, at + 1) or redis.call("GETRANGE", KEYS[1], at - 1, at), 1, 2)
    if low and low + high * 256 == worker then
        gone[#gone + 1] = slots[i]
        places[#places + 1], places[#places + 2] = at, at + 1
        bytes[at], bytes[at + 1] = 0, 0
    end
end
if not gone[1] then
    return 0
end
if presence then
    patch(KEYS[1], presence, places, #places, bytes)
else
    for i = 1, #gone do
        redis.call("SETRANGE", KEYS[1], gone[i] * 2, "\0\0")
    end
end
each_open(KEYS[2], ARGV[2], gone, lose)
return #gone
