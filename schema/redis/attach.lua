-- Devices are connected to a worker: presence, and what is open for them, in order of delivery.
-- Needs prelude_block.
-- KEYS  presence, open
-- ARGV  worker, prefix of state keys, packed slots (u16, little endian), most commands for one slot
-- Gives {packed workers that had them before (u16 each), then for each slot that has open commands: its place in
-- the argument (from 0), packed commands: batch (u64), state byte before}. QUEUED commands are ROUTED now; HELD ones are left out;
-- what was ROUTED to another worker, which has not given the device up, counts as SENT: it may have been.
local PART = 32 -- open batches looked at at a time
local worker, slots = tonumber(ARGV[1]), numbers(ARGV[3])
local n, low = #slots, worker % 256
local high = (worker - low) / 256
local previous = {}
if n <= VERY_FEW then
    local me = char(low, high)
    if redis.call("EXISTS", KEYS[1]) == 0 then
        redis.call("SETRANGE", KEYS[1], "2047", "\0")
    end
    for i = 1, n do
        local at = slots[i] * 2
        previous[i] = redis.call("GETRANGE", KEYS[1], at, at + 1)
        if previous[i] ~= me then
            redis.call("SETRANGE", KEYS[1], at, me)
        end
    end
else
    local all = {byte(redis.call("GET", KEYS[1]) or string.rep("\0", 2048), 1, -1)}
    for i = 1, n do
        local at = slots[i] * 2 + 1
        previous[i] = char(all[at], all[at + 1])
        all[at], all[at + 1] = low, high
    end
    redis.call("SET", KEYS[1], char(unpack(all)))
end

local me, nobody = char(low, high), "\0\0"
local most, pending, full, open = tonumber(ARGV[4]), {}, {}, n
local packed, packed_batch = nil, nil
local function give(i, old, batch)
    local state = old % 16
    if state < QUEUED or state >= FIRST_TERMINAL then
        return old
    end
    if batch ~= packed_batch then
        packed, packed_batch = struct.pack("<I8", batch), batch
    end
    local list = pending[i] or {}
    pending[i] = list
    list[#list + 1] = packed .. char(old)
    if #list == most then
        full[i], open = true, open - 1
    end
    if previous[i] ~= me and previous[i] ~= nobody then
        old = forsake(old)
    end
    return apply(old, ROUTE, 0)
end
-- In parts: most devices are full, or have seen all, after the first.
local from = 0
repeat
    local members = redis.call("ZRANGE", KEYS[2], from, from + PART - 1)
    each_member(members, ARGV[2], slots, give, full)
    from = from + PART
until open == 0 or #members < PART
local reply, k = {table.concat(previous)}, 1
for i = 1, n do
    if pending[i] then
        reply[k + 1], reply[k + 2] = i - 1, table.concat(pending[i])
        k = k + 2
    end
end
return reply
