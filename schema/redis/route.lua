-- Opens a batch in a block and gives its QUEUED commands to the workers that hold the devices.
-- KEYS  presence, open, state
-- ARGV  member of `open`, its score, first slot, presence of the span as the caller knows it ("" for nobody or unknown),
--       state string made on that belief ("" for none), state string without any routing
-- Gives 1 when the belief was right and nothing stood there before; else {presence of the span, states before
-- routing, states after} (without headers): what was QUEUED before and is ROUTED after is routed by this call.
local first, belief, believed, fresh = tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local count = #fresh - HEADER
local presence = redis.call("GETRANGE", KEYS[1], first * 2, (first + count) * 2 - 1)
local old = redis.call("GET", KEYS[3])
redis.call("ZADD", KEYS[2], ARGV[2], ARGV[1])
if not old then
    if believed ~= "" and presence == belief then
        redis.call("SET", KEYS[3], believed)
        return 1
    end
    if presence == "" then
        redis.call("SET", KEYS[3], fresh)
        return {presence, sub(fresh, HEADER + 1), sub(fresh, HEADER + 1)}
    end
elseif sub(old, 1, HEADER) ~= sub(fresh, 1, HEADER) or #old ~= #fresh then
    -- The same slots in another span: what stands here is laid out like the newcomer.
    local start, length = u16(old, 2), #old - HEADER
    local batch = string.match(ARGV[1], "^%d+")
    redis.call("ZREM", KEYS[2], batch .. ":" .. start .. ":" .. length)
    local before = math.max(0, start - first)
    local body = string.rep("\0", before) .. sub(old, HEADER + 1 + math.max(0, first - start))
    body = sub(body, 1, count)
    old = sub(fresh, 1, HEADER) .. body .. string.rep("\0", count - #body)
end

local before, after = {}, {}
local unchanged = not old
for i = 1, count do
    local state = byte(fresh, HEADER + i)
    if old then
        -- What stands here knows more, unless the newcomer says that it is over.
        local known = byte(old, HEADER + i) or 0
        if known % 16 ~= 0 and (state % 16 < FIRST_TERMINAL or known % 16 >= FIRST_TERMINAL) then
            state = known
        end
    end
    before[i] = state
    if presence ~= "" and state % 16 == QUEUED then
        local low, high = byte(presence, i * 2 - 1, i * 2)
        if low + high > 0 then
            state = apply(state, ROUTE, 0)
            unchanged = false
        end
    end
    after[i] = state
end
if unchanged then
    redis.call("SET", KEYS[3], fresh)
    local states = sub(fresh, HEADER + 1)
    return {presence, states, states}
end
before, after = char(unpack(before)), char(unpack(after))
redis.call("SET", KEYS[3], sub(fresh, 1, HEADER) .. after)
return {presence, before, after}
