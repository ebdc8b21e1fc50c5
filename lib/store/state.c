#include "lib/store/state.h"

#define FACT  [EVENT_SUCCEED] = STATE_SUCCEEDED, [EVENT_FAIL] = STATE_FAILED, [EVENT_REJECT] = STATE_REJECTED
#define TRIED [EVENT_RETRY] = STATE_HELD, [EVENT_QUARANTINE] = STATE_FAILED

/* Zero: no change. An outcome is a fact, wherever it meets the command; only a terminal state is deaf to it. What was
 * sent stays SENT when its connection is lost: it may have been executed, so it is neither CANCELED nor EXPIRED any
 * more. What is ROUTED may have been sent a moment ago: its time over, nobody can say that it was not. SENT again
 * counts its attempts. */
static const uint8_t transitions[STATE_COUNT][EVENT_COUNT] = {
    [STATE_HELD] = {FACT, [EVENT_RELEASE] = STATE_QUEUED, [EVENT_SEND] = STATE_SENT, [EVENT_EXPIRE] = STATE_EXPIRED,
                    [EVENT_CANCEL] = STATE_CANCELED, [EVENT_DROP] = STATE_CANCELED,
                    [EVENT_SUPERSEDE] = STATE_SUPERSEDED, [EVENT_OVERDUE] = STATE_EXPIRED,
                    TRIED, [EVENT_GIVE_UP] = STATE_FAILED},
    [STATE_QUEUED] = {FACT, [EVENT_ROUTE] = STATE_ROUTED, [EVENT_SEND] = STATE_SENT, [EVENT_EXPIRE] = STATE_EXPIRED,
                      [EVENT_CANCEL] = STATE_CANCELED, [EVENT_DROP] = STATE_CANCELED,
                      [EVENT_SUPERSEDE] = STATE_SUPERSEDED, [EVENT_HOLD] = STATE_HELD, [EVENT_OVERDUE] = STATE_EXPIRED,
                      TRIED},
    [STATE_ROUTED] = {FACT, [EVENT_SEND] = STATE_SENT, [EVENT_NOT_NOW] = STATE_QUEUED, [EVENT_LOSE] = STATE_QUEUED,
                      [EVENT_EXPIRE] = STATE_TIMED_OUT, [EVENT_DROP] = STATE_CANCELED, [EVENT_HOLD] = STATE_HELD,
                      TRIED},
    [STATE_SENT] = {FACT, [EVENT_SEND] = STATE_SENT, [EVENT_NOT_NOW] = STATE_QUEUED, [EVENT_EXPIRE] = STATE_TIMED_OUT,
                    [EVENT_OVERTIME] = STATE_TIMED_OUT, TRIED},
};

enum command_state state_next(enum command_state state, enum command_event event)
{
    if ((unsigned)state >= STATE_COUNT || (unsigned)event >= EVENT_COUNT)
        return STATE_NONE;
    return (enum command_state)transitions[state][event];
}

bool state_is_terminal(enum command_state state)
{
    return state >= STATE_SUCCEEDED && state < STATE_COUNT;
}

const char *state_name(enum command_state state)
{
    static const char *const names[STATE_COUNT] = {"NONE",      "HELD",      "QUEUED",   "ROUTED",
                                                   "SENT",      "SUCCEEDED", "FAILED",   "REJECTED",
                                                   "TIMED_OUT", "EXPIRED",   "CANCELED", "SUPERSEDED"};
    return (unsigned)state < STATE_COUNT ? names[state] : "UNKNOWN";
}

const char *state_event_name(enum command_event event)
{
    static const char *const names[EVENT_COUNT] = {
        "RELEASE", "ROUTE", "SEND",      "SUCCEED", "FAIL",    "REJECT",   "NOT_NOW", "LOSE",       "EXPIRE",
        "CANCEL",  "DROP",  "SUPERSEDE", "HOLD",    "OVERDUE", "OVERTIME", "RETRY",   "QUARANTINE", "GIVE_UP"};
    return (unsigned)event < EVENT_COUNT ? names[event] : "UNKNOWN";
}

/* Something is said once more of a delivery that is counted: an outcome after which it was let go since, or that it was
 * sent, after which it was put back; or what waits to be tried again was sent in its time. */
static bool is_late(uint8_t byte, enum command_event event, unsigned attempts)
{
    enum command_state state = state_of(byte);
    if (event == EVENT_RETRY)
        return (state == STATE_QUEUED || state == STATE_ROUTED) && attempts <= state_attempts(byte);
    if (event == EVENT_SEND)
        return state == STATE_HELD && attempts <= state_attempts(byte) && attempts;
    return event == EVENT_OVERDUE && state == STATE_HELD && state_attempts(byte);
}

uint8_t state_apply(uint8_t byte, enum command_event event, unsigned attempts)
{
    enum command_state next = state_next(state_of(byte), event);
    unsigned tries = state_attempts(byte) > attempts ? state_attempts(byte) : attempts;
    if (next == STATE_NONE || is_late(byte, event, attempts))
        return byte;
    return state_byte(next, tries - (event == EVENT_NOT_NOW && tries));
}

uint8_t state_merge(uint8_t older, uint8_t newer)
{
    unsigned a = state_attempts(older), b = state_attempts(newer);
    enum command_state before = state_of(older), state = state_of(newer);
    bool stale = (before == STATE_HELD && a && !state_is_terminal(state) && b <= a) || (state == STATE_HELD && b < a);
    if (state_is_terminal(before) || stale || state == STATE_NONE || state >= STATE_COUNT)
        state = before;
    return state_byte(state, a > b ? a : b);
}

bool state_waits(uint8_t held, uint8_t heard)
{
    unsigned tries = state_attempts(held), known = state_attempts(heard);
    return tries > known || (tries && tries == known && state_of(heard) == STATE_SENT);
}
