-- Put in front of every script, after the line `local NEXT = "…"`: the table of lib/store/state.c as text, 18 events a state,
-- each the byte of the next state or 0.
-- What scripts cost: a redis.call about 1 µs, a number turned into an argument 0.3, and a string made in Lua about 2 ns a
-- byte, because Redis's Lua hashes all of it. So single bytes are read and written where they stand, and whole strings
-- only where many slots share the cost.
local byte, char, sub = string.byte, string.char, string.sub
local EVENTS, HEADER = 18, 4
local HELD, QUEUED, ROUTED, SENT, FIRST_TERMINAL = 1, 2, 3, 4, 5
local RELEASE, ROUTE, SEND, NOT_NOW, LOSE, HOLD, OVERDUE, RETRY = 0, 1, 2, 6, 7, 12, 13, 15
local FEW = 24 -- slots up to which a string is read byte by byte, not taken apart whole

-- The state byte after `event`, with at least `attempts` attempts, one less when it was none; the same byte when the event changes
-- nothing: also one more outcome of a delivery after which it was let go since, and of what is HELD and was sent that it was, or is
-- overdue.
local function apply(old, event, attempts)
    local state = old % 16
    local after = byte(NEXT, state * EVENTS + event + 1) or 0
    if after == 0 then
        return old
    end
    if event == RETRY and (state == QUEUED or state == ROUTED) and attempts <= (old - state) / 16 then
        return old
    end
    if state == HELD and old > 15 and (event == OVERDUE or event == SEND and attempts > 0 and attempts <= (old - state) / 16) then
        return old
    end
    local tries = math.max((old - state) / 16, attempts)
    if event == NOT_NOW and tries > 0 then
        tries = tries - 1
    end
    return after + tries * 16
end
