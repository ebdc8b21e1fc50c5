-- Records events of one batch in one block.
-- KEYS  state
-- ARGV  packed events, 4 bytes each: slot (u16, little endian), event, attempts
-- Gives the state bytes before, then the state bytes after, one per event; zeros where the batch or slot is unknown.
local events = ARGV[1]
local n = #events / 4
local states = redis.call("GET", KEYS[1])
if not states then
    return string.rep("\0", 2 * n)
end
local first = byte(states, 3) + byte(states, 4) * 256
local before, after, changed, changes = {}, {}, {}, 0
for i = 1, n do
    local low, high, event, attempts = byte(events, i * 4 - 3, i * 4)
    local at = HEADER + low + high * 256 - first
    local old = at >= HEADER and (changed[at] or byte(states, at + 1)) or 0
    local new = apply(old, event, attempts)
    if new ~= old then
        if not changed[at] then
            changes = changes + 1
        end
        changed[at] = new
    end
    before[i], after[i] = old, new
end
if changes > 64 then
    -- A crowd: one new string is cheaper than a call for each.
    local bytes = {byte(states, 1, -1)}
    for at, new in pairs(changed) do
        bytes[at + 1] = new
    end
    redis.call("SET", KEYS[1], char(unpack(bytes)))
elseif changes > 0 then
    local arguments, k = {"BITFIELD", KEYS[1]}, 2
    for at, new in pairs(changed) do
        arguments[k + 1], arguments[k + 2], arguments[k + 3], arguments[k + 4] = "SET", "u8", "#" .. at, new
        k = k + 4
    end
    redis.call(unpack(arguments))
end
return char(unpack(before)) .. char(unpack(after))
