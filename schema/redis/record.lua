-- Records events of one batch in one block.
-- KEYS  state
-- ARGV  packed events, 4 bytes each: slot (u16, little endian), event, attempts; up to FEW of them are sorted by slot
-- Gives what was there before: of up to FEW events the state byte of each one's slot, 0 where it has none; of more the
-- whole state string. Nothing when the batch is not open here. The caller makes the same transitions on it.
local events, key, call = ARGV[1], KEYS[1], redis.call
local n = #events / 4

if n > FEW then
    local states = call("GET", key)
    if not states then
        return ""
    end
    local low, high = byte(states, 3, 4)
    local base = HEADER + 1 - low - high * 256
    local all, known, changed = {byte(states, 1, -1)}, {}, false
    for from = 1, #events, 4096 do
        local some = {byte(events, from, from + 4095)}
        for i = 1, #some, 4 do
            local at = some[i] + some[i + 1] * 256 + base
            local old = at > HEADER and all[at]
            if old then
                local change = old + some[i + 2] * 256 + some[i + 3] * 65536
                local new = known[change]
                if not new then
                    new = apply(old, some[i + 2], some[i + 3])
                    known[change] = new
                end
                if new ~= old then
                    all[at], changed = new, true
                end
            end
        end
    end
    if changed then
        call("SET", key, char(unpack(all)))
    end
    return states
end

-- One string from the first to the last slot asked for is read, and written when anything changes.
local header = call("GETRANGE", key, "0", "3")
if header == "" then
    return ""
end
local low, high = byte(header, 3, 4)
local first = low + high * 256
low, high = byte(events, 1, 2)
local lowest = low + high * 256
low, high = byte(events, -4, -3)
local highest = low + high * 256
local from = HEADER + math.max(0, lowest - first)
local start = from .. ""
local text = highest >= first and call("GETRANGE", key, start, lowest == highest and start or HEADER + highest - first) or ""
if n == 1 then
    local old = byte(text) or 0
    local new = apply(old, byte(events, 3, 4))
    if new ~= old then
        call("SETRANGE", key, start, char(new))
    end
    return char(old)
end
local base = HEADER - first - from + 1
local before, parts, k, done, last, now = {}, {}, 0, 1, 0, -1
for i = 1, n + 1 do
    local slot_low, slot_high, event, attempts = byte(events, i * 4 - 3, i * 4)
    local at = slot_low and slot_low + slot_high * 256 + base
    if at ~= last then
        if now >= 0 then
            parts[k + 1], parts[k + 2] = sub(text, done, last - 1), char(now)
            k, done = k + 2, last + 1
        end
        last, now = at, -1
    end
    if at then
        local old = at > 0 and byte(text, at) or 0
        before[i] = old
        if now >= 0 then
            old = now
        end
        local new = apply(old, event, attempts)
        if new ~= old then
            now = new
        end
    end
end
if k > 0 then
    parts[k + 1] = sub(text, done)
    call("SETRANGE", key, start, table.concat(parts))
end
return char(unpack(before))
