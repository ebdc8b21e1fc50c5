-- Applies one event to every slot of a batch in a block, or to some.
-- Needs prelude_block.
-- KEYS  state
-- ARGV  event, packed slots (u16, little endian); without them: all
-- Gives the whole state string afterwards, or nil when the batch is not open here.
local event = tonumber(ARGV[1])
local states = redis.call("GET", KEYS[1])
if not states then
    return false
end
local after
if ARGV[2] then
    local base = HEADER + 1 - byte(states, 3) - byte(states, 4) * 256
    local all = {byte(states, 1, -1)}
    for _, slot in ipairs(numbers(ARGV[2])) do
        local at = slot + base
        if at > HEADER and all[at] then
            all[at] = apply(all[at], event, 0)
        end
    end
    after = char(unpack(all))
else
    -- Half of what it costs to take the string apart.
    local known = setmetatable({}, {__index = function(self, old)
        self[old] = char(apply(byte(old), event, 0))
        return rawget(self, old)
    end})
    after = sub(states, 1, HEADER) .. string.gsub(sub(states, HEADER + 1), ".", known)
end
if after ~= states then
    redis.call("SET", KEYS[1], after)
end
return after
