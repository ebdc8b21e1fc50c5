-- Applies one event to every slot of a batch in a block, or to some.
-- KEYS  state
-- ARGV  event, packed slots (u16, little endian); without them: all
-- Gives the whole state string afterwards, or nil when the batch is not open here.
local event, slots = tonumber(ARGV[1]), ARGV[2]
local states = redis.call("GET", KEYS[1])
if not states then
    return false
end
local first = byte(states, 3) + byte(states, 4) * 256
local bytes = {byte(states, 1, -1)}
if not slots then
    for i = HEADER + 1, #bytes do
        bytes[i] = apply(bytes[i], event, 0)
    end
else
    for i = 1, #slots / 2 do
        local at = HEADER + u16(slots, i) - first + 1
        if at > HEADER and bytes[at] then
            bytes[at] = apply(bytes[at], event, 0)
        end
    end
end
local after = char(unpack(bytes))
if after ~= states then
    redis.call("SET", KEYS[1], after)
end
return after
