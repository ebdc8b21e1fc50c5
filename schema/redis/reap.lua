-- A worker is dead: every device it had in the block is nobody's, and what was in its hands is QUEUED again.
-- KEYS  presence, open
-- ARGV  worker, prefix of state keys
-- Gives how many devices it had.
local worker, prefix = tonumber(ARGV[1]), ARGV[2]
local presence = redis.call("GET", KEYS[1])
if not presence then
    return 0
end
local me = char(worker % 256, math.floor(worker / 256))
local gone, from = {}, 1
while true do
    local at = string.find(presence, me, from, true)
    if not at then
        break
    end
    if at % 2 == 1 then
        table.insert(gone, (at - 1) / 2)
        from = at + 2
    else
        from = at + 1
    end
end
for _, slot in ipairs(gone) do
    redis.call("SETRANGE", KEYS[1], slot * 2, "\0\0")
end
if #gone > 0 then
    lose(KEYS[2], prefix, gone)
end
return #gone
