-- What is open for one device, for an answer to somebody.
-- KEYS  presence, open
-- ARGV  slot, prefix of state keys, most open batches looked at
-- Gives {its worker (u16, little endian) or "", packed commands that are not terminal, in order of delivery: batch (u64), state
-- byte}.
local slot, packed = tonumber(ARGV[1]), {}
for _, member in ipairs(redis.call("ZRANGE", KEYS[2], 0, ARGV[3] - 1)) do
    local a, b, c, d = byte(member, 1, 4)
    local first, count = a + b * 256, c + d * 256
    if slot >= first and slot < first + count then
        local batch, at = sub(member, 5), HEADER + slot - first
        local state = byte(redis.call("GETRANGE", ARGV[2] .. batch, at, at)) or 0
        if state % 16 > 0 and state % 16 < FIRST_TERMINAL then
            packed[#packed + 1] = struct.pack("<I8", batch) .. char(state)
        end
    end
end
return {redis.call("GETRANGE", KEYS[1], slot * 2, slot * 2 + 1), table.concat(packed)}
