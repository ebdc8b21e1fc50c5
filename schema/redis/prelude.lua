-- Put in front of every script, after the line `local NEXT = "…"`: the table of lib/store/state.c as text, 12 events a state,
-- each the byte of the next state or 0. Also what several scripts need.
local byte, char, sub = string.byte, string.char, string.sub
local EVENTS, HEADER = 12, 4
local QUEUED, ROUTED, FIRST_TERMINAL = 2, 3, 5
local ROUTE, LOSE = 1, 7

-- The state byte after `event`, with at least `attempts` attempts; the same byte when the event changes nothing.
local function apply(old, event, attempts)
    local state, tries = old % 16, math.floor(old / 16)
    local after = byte(NEXT, state * EVENTS + event + 1) or 0
    if after == 0 then
        return old
    end
    if attempts > tries then
        tries = attempts
    end
    return after + tries * 16
end

-- u16, little endian, the n-th (from 1) of a packed string.
local function u16(packed, n)
    local low, high = byte(packed, n * 2 - 1, n * 2)
    return low + high * 256
end

-- Slot's byte in a state string's value, or 0; `at` is its offset for SETRANGE.
local function place(member)
    local batch, first, count = string.match(member, "^(%d+):(%d+):(%d+)$")
    return batch, tonumber(first), tonumber(count)
end

-- EVENT_LOSE for slots (numbers) in every open batch of a block.
local function lose(open, prefix, slots)
    for _, member in ipairs(redis.call("ZRANGE", open, 0, -1)) do
        local batch, first, count = place(member)
        local key = prefix .. batch
        for _, slot in ipairs(slots) do
            if slot >= first and slot < first + count then
                local at = HEADER + slot - first
                local old = byte(redis.call("GETRANGE", key, at, at))
                if old then
                    local new = apply(old, LOSE, 0)
                    if new ~= old then
                        redis.call("SETRANGE", key, at, char(new))
                    end
                end
            end
        end
    end
end
