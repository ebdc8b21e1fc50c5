-- Hands commands back that a worker could not send: EVENT_LOSE, unless another worker has the device by now.
-- KEYS  presence, state
-- ARGV  worker, packed slots (u16, little endian)
local worker, slots = tonumber(ARGV[1]), ARGV[2]
local states = redis.call("GET", KEYS[2])
if not states then
    return 0
end
local presence = redis.call("GET", KEYS[1]) or ""
local first, done = byte(states, 3) + byte(states, 4) * 256, 0
for i = 1, #slots / 2 do
    local slot = u16(slots, i)
    local there = presence ~= "" and u16(presence, slot + 1) or 0
    local at = HEADER + slot - first
    local old = at >= HEADER and byte(states, at + 1)
    if old and (there == 0 or there == worker) then
        local new = apply(old, LOSE, 0)
        if new ~= old then
            redis.call("SETRANGE", KEYS[2], at, char(new))
            done = done + 1
        end
    end
end
return done
