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
local first = byte(states, 3) + byte(states, 4) * 256
local all, known = {byte(states, 1, -1)}, {}
local function change(at)
    local old = all[at]
    local new = known[old]
    if not new then
        new = apply(old, event, 0)
        known[old] = new
    end
    all[at] = new
end
if ARGV[2] then
    for _, slot in ipairs(numbers(ARGV[2])) do
        local at = HEADER + slot - first + 1
        if at > HEADER and all[at] then
            change(at)
        end
    end
else
    for at = HEADER + 1, #all do
        change(at)
    end
end
local after = char(unpack(all))
if after ~= states then
    redis.call("SET", KEYS[1], after)
end
return after
