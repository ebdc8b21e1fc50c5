-- Put in front of the scripts that say "Needs prelude_block": what concerns some slots of a whole block.
local VERY_FEW = 3 -- bytes up to which each is read and written by a call of its own

-- Slots (u16, little endian) as a table of numbers.
local function numbers(packed)
    local all, slots = {byte(packed, 1, -1)}, {}
    for i = 1, #all / 2 do
        slots[i] = all[2 * i - 1] + all[2 * i] * 256
    end
    return slots
end

-- Stores `text`, which stands at `key`, with other bytes at `n` places (from 1): bytes[place].
local function patch(key, text, places, n, bytes)
    if n <= VERY_FEW then
        for i = 1, n do
            redis.call("SETRANGE", key, places[i] - 1, char(bytes[places[i]]))
        end
        return
    end
    local all = {byte(text, 1, -1)}
    for i = 1, n do
        all[places[i]] = bytes[places[i]]
    end
    redis.call("SET", key, char(unpack(all)))
end

-- Calls decide(i, state byte, batch) for the i-th of the slots in some of a block's open batches (members of `open`), each
-- that addresses it, unless full[i]; what it gives back is the new byte.
local function each_member(members, prefix, slots, decide, full)
    local call, n = redis.call, #slots
    local lowest, highest = slots[1], slots[1]
    for i = 2, n do
        lowest, highest = math.min(lowest, slots[i]), math.max(highest, slots[i])
    end
    for _, member in ipairs(members) do
        local a, b, c, d = byte(member, 1, 4)
        local first, count = a + b * 256, c + d * 256
        if highest >= first and lowest < first + count then
            local batch = sub(member, 5)
            local key = prefix .. batch
            if n <= VERY_FEW then
                for i = 1, n do
                    local slot = slots[i]
                    if slot >= first and slot < first + count and not full[i] then
                        local at = (HEADER + slot - first) .. ""
                        local old = byte(call("GETRANGE", key, at, at)) or 0
                        local new = old > 0 and decide(i, old, batch) or 0
                        if new ~= old then
                            call("SETRANGE", key, at, char(new))
                        end
                    end
                end
            else
                local text, places, bytes, changes = call("GET", key) or "", {}, {}, 0
                local all = n > FEW and {byte(text, 1, -1)}
                for i = 1, n do
                    local at = HEADER + slots[i] - first + 1
                    local old = at > HEADER and (all and all[at] or not all and byte(text, at)) or 0
                    local new = old > 0 and (full[i] and old or decide(i, old, batch)) or 0
                    if new ~= old then
                        changes = changes + 1
                        places[changes], bytes[at] = at, new
                    end
                end
                patch(key, text, places, changes, bytes)
            end
        end
    end
end

-- The same for all open batches of a block, in the order of delivery.
local function each_open(open, prefix, slots, decide)
    each_member(redis.call("ZRANGE", open, "0", "-1"), prefix, slots, decide, {})
end

local function lose(_, old)
    return apply(old, LOSE, 0)
end

-- What was in the hands of a worker that says nothing about it any more: it may have been sent.
local function forsake(old)
    return old % 16 == ROUTED and apply(old, SEND, 1) or old
end
