-- Devices have left a worker: nobody has them, and what was in its hands is QUEUED again.
-- KEYS  presence, open
-- ARGV  worker, prefix of state keys, packed slots (u16, little endian)
local worker, prefix, slots = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local me = char(worker % 256, math.floor(worker / 256))
local gone = {}
for i = 1, #slots / 2 do
    local slot = u16(slots, i)
    if redis.call("GETRANGE", KEYS[1], slot * 2, slot * 2 + 1) == me then
        redis.call("SETRANGE", KEYS[1], slot * 2, "\0\0")
        table.insert(gone, slot)
    end
end
if #gone > 0 then
    lose(KEYS[2], prefix, gone)
end
return #gone
