-- Opens a batch in a block and gives its QUEUED commands to the workers that hold the devices.
-- KEYS  presence, open, state
-- ARGV  member of `open`, its score in `open`, first slot, presence of the span as the caller knows it ("" for nobody or unknown),
--       state string made on that belief ("" for none; "-": nothing is to be done unless a state string stands there), state string
--       without any routing
-- Gives "" when nothing is done, 1 when the belief was right and nothing stood there before; else {presence of the span, states after} (without
-- header): what is ROUTED or SENT after and has a worker is, or was before, given to it.
local first, belief, believed, fresh = tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local count = #fresh - HEADER
local presence = redis.call("GETRANGE", KEYS[1], first * 2, (first + count) * 2 - 1)
local old = redis.call("GET", KEYS[3])
if not old and believed == "-" then
    return ""
end
redis.call("ZADD", KEYS[2], ARGV[2], ARGV[1])
if not old then
    if believed ~= "" and presence == belief then
        redis.call("SET", KEYS[3], believed)
        return 1
    end
    if presence == "" then
        redis.call("SET", KEYS[3], fresh)
        return {presence, sub(fresh, HEADER + 1)}
    end
elseif sub(old, 1, HEADER) ~= sub(fresh, 1, HEADER) or #old ~= #fresh then
    -- The same slots in another span: what stands here is laid out like the newcomer.
    local low, high = byte(old, 3, 4)
    local start, length = low + high * 256, #old - HEADER
    local size = char(length % 256, (length - length % 256) / 256)
    redis.call("ZREM", KEYS[2], char(low, high) .. size .. sub(ARGV[1], 5))
    local body = string.rep("\0", math.max(0, start - first)) .. sub(old, HEADER + 1 + math.max(0, first - start))
    body = sub(body, 1, count)
    old = sub(fresh, 1, HEADER) .. body .. string.rep("\0", count - #body)
end

local all, there = {byte(fresh, 1, -1)}, {byte(presence, 1, -1)}
if old then
    -- What stands here knows more, unless the newcomer says that it is over, or was sent. What is held the newcomer alone
    -- decides, if it has heard of all its deliveries: else it may wait to be tried again, and waits on.
    local standing = {byte(old, 1, -1)}
    for at = HEADER + 1, HEADER + count do
        local known, fresh_state = standing[at], all[at] % 16
        local state = known % 16
        local tries, heard = known - state, all[at] - fresh_state -- times 16
        if state == HELD and fresh_state == QUEUED then
            all[at] = tries <= heard and apply(known, RELEASE, 0) or known
        elseif state == HELD and fresh_state == SENT and tries > 0 and tries >= heard then
            all[at] = known
        elseif state == QUEUED and fresh_state == HELD then
            all[at] = apply(known, HOLD, 0)
        elseif state ~= 0 and (fresh_state < FIRST_TERMINAL or state >= FIRST_TERMINAL) then
            local sent = fresh_state == SENT and (state == HELD and known - state + SENT or known)
            all[at] = sent and apply(sent, SEND, heard / 16) or known
        elseif state ~= 0 then -- over; what stands here may count more attempts
            all[at] = fresh_state + math.max(heard, tries)
        end
    end
end
if there[1] then
    for i = 1, count do
        local state = all[HEADER + i]
        if state % 16 == QUEUED and there[2 * i - 1] + there[2 * i] > 0 then
            all[HEADER + i] = apply(state, ROUTE, 0)
        end
    end
end
local after = char(unpack(all))
redis.call("SET", KEYS[3], after)
return {presence, sub(after, HEADER + 1)}
