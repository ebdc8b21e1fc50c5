-- Devices are connected to a worker: presence, and everything that is open for them, in order of delivery.
-- KEYS  presence, open
-- ARGV  worker, prefix of state keys, packed slots (u16, little endian)
-- Gives {packed workers that had them before (u16 each), then for each slot that has open commands: its place in
-- the argument (from 0), packed commands: batch (u64), state byte before}. QUEUED commands are ROUTED now; HELD ones are left out.
local worker, prefix, slots = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local me = char(worker % 256, math.floor(worker / 256))
local n = #slots / 2
if redis.call("EXISTS", KEYS[1]) == 0 then
    redis.call("SETRANGE", KEYS[1], 2047, "\0")
end
local previous = {}
for i = 1, n do
    local at = u16(slots, i) * 2
    previous[i] = redis.call("GETRANGE", KEYS[1], at, at + 1)
    if previous[i] ~= me then
        redis.call("SETRANGE", KEYS[1], at, me)
    end
end

local open = {}
for _, member in ipairs(redis.call("ZRANGE", KEYS[2], 0, -1)) do
    local batch, first, count = place(member)
    local key, packed, states = prefix .. batch, struct.pack("<I8", batch), nil
    if n > 4 then
        states = redis.call("GET", key) or ""
    end
    for i = 1, n do
        local slot = u16(slots, i)
        if slot >= first and slot < first + count then
            local at = HEADER + slot - first
            local old = byte(states and sub(states, at + 1, at + 1) or redis.call("GETRANGE", key, at, at)) or 0
            local state = old % 16
            if state >= QUEUED and state < FIRST_TERMINAL then
                if state == QUEUED then
                    redis.call("SETRANGE", key, at, char(apply(old, ROUTE, 0)))
                end
                open[i] = open[i] or {}
                table.insert(open[i], packed .. char(old))
            end
        end
    end
end
local reply = {table.concat(previous)}
for i = 1, n do
    if open[i] then
        table.insert(reply, i - 1)
        table.insert(reply, table.concat(open[i]))
    end
end
return reply
