-- Hands commands back that a worker could not send: EVENT_LOSE, unless another worker has the device by now.
-- Needs prelude_block.
-- KEYS  presence, state
-- ARGV  worker, packed slots (u16, little endian)
-- Gives how many are QUEUED again.
local worker, slots = tonumber(ARGV[1]), numbers(ARGV[2])
local states = redis.call("GET", KEYS[2])
if not states then
    return 0
end
local presence = redis.call("GET", KEYS[1])
local first = byte(states, 3) + byte(states, 4) * 256
local places, bytes, n = {}, {}, 0
for i = 1, #slots do
    local slot, there = slots[i], 0
    if presence then
        local low, high = byte(presence, slot * 2 + 1, slot * 2 + 2)
        there = low + high * 256
    end
    local at = HEADER + slot - first + 1
    local old = at > HEADER and byte(states, at)
    if old and (there == 0 or there == worker) then
        local new = apply(old, LOSE, 0)
        if new ~= old then
            n = n + 1
            places[n], bytes[at] = at, new
        end
    end
end
patch(KEYS[2], states, places, n, bytes)
return n
