/* The states of a command and the one table of their transitions. The Redis scripts get the same table, generated from
 * here when they are loaded; nothing else decides a transition.
 * Owns: enum command_state, enum command_event, the table. May call: nothing. Loop rule: none, pure. */
#ifndef MUSTER_STORE_STATE_H
#define MUSTER_STORE_STATE_H

#include <stdbool.h>
#include <stdint.h>

/* The low four bits of a state byte; numbers as in muster.v1.CommandState; stored. */
enum command_state {
    STATE_NONE = 0, /* the slot is not addressed */
    STATE_HELD,
    STATE_QUEUED,
    STATE_ROUTED,
    STATE_SENT,
    STATE_SUCCEEDED,
    STATE_FAILED,
    STATE_REJECTED,
    STATE_TIMED_OUT,
    STATE_EXPIRED,
    STATE_CANCELED,
    STATE_SUPERSEDED,
    STATE_COUNT
};

enum command_event {
    EVENT_RELEASE, /* nothing holds it any more */
    EVENT_ROUTE,   /* given to the worker that has the device */
    EVENT_SEND,    /* written to the connection, or lost with a worker that may have done so */
    EVENT_SUCCEED, /* the device's outcomes … */
    EVENT_FAIL,
    EVENT_REJECT,
    EVENT_NOT_NOW,
    EVENT_LOSE,   /* handed back unsent, or the connection lost before it was sent */
    EVENT_EXPIRE, /* the batch's time is over */
    EVENT_CANCEL, /* asked to stop; what a worker holds stays until it hands that back (EVENT_LOSE) */
    EVENT_DROP,   /* asked to stop, and no worker sends it any more */
    EVENT_SUPERSEDE,
    EVENT_HOLD,       /* to be sent later: nobody has it, or who had it has forgotten it unsent */
    EVENT_OVERDUE,    /* not sent in its time; what a worker holds that one hands back before (EVENT_LOSE) */
    EVENT_OVERTIME,   /* sent, and without outcome in its time */
    EVENT_RETRY,      /* an outcome after which it is tried again, after a while; nobody has it until then */
    EVENT_QUARANTINE, /* it keeps breaking its device's connection: it is not sent any more */
    EVENT_GIVE_UP,    /* what waits to be tried again will not be; what is on its way ends by itself */
    EVENT_COUNT
};

#define STATE_ATTEMPTS_MAX 15

/* The state after `event`, or STATE_NONE when the event changes nothing in this state. */
enum command_state state_next(enum command_state state, enum command_event event);
bool state_is_terminal(enum command_state state);
/* "SUCCEEDED"; "UNKNOWN" outside the enum. */
const char *state_name(enum command_state state);
const char *state_event_name(enum command_event event);

static inline enum command_state state_of(uint8_t byte)
{
    return (enum command_state)(byte & 15);
}
static inline unsigned state_attempts(uint8_t byte)
{
    return byte >> 4;
}
/* Whether it has been given to its device, perhaps for one that let it go since: it waits to be sent again, or was
 * taken back before it was. A delivery that the device has put off (EVENT_NOT_NOW) is none. */
static inline bool state_given(uint8_t byte)
{
    enum command_state state = state_of(byte);
    return state_attempts(byte) > 0 || (state >= STATE_SENT && state <= STATE_TIMED_OUT);
}
static inline uint8_t state_byte(enum command_state state, unsigned attempts)
{
    return (uint8_t)(state | (attempts > STATE_ATTEMPTS_MAX ? STATE_ATTEMPTS_MAX : attempts) << 4);
}

/* The byte after `event`, with at least `attempts` deliveries, but one less when the device says that it was none
 * (EVENT_NOT_NOW); the same byte when the event changes nothing, also when EVENT_RETRY is said again of a delivery that
 * is counted and after which it was let go since, and when EVENT_OVERDUE, or EVENT_SEND of a delivery that is counted,
 * meets what was sent and is HELD. As `apply` of schema/redis/prelude.lua. */
uint8_t state_apply(uint8_t byte, enum command_event event, unsigned attempts);

/* Joins two records of one command from sources that know no common order, the older record's byte first:
 * a terminal state never changes; else the later one counts, but what is to be tried again (HELD) stands until it was
 * delivered once more, and is no news when it was already; attempts never shrink. */
uint8_t state_merge(uint8_t older, uint8_t newer);

/* Whether what is HELD in Redis waits to be tried again, after a delivery or an outcome of which who has it as `heard`
 * has not heard: nothing else holds what was delivered more often, or was sent. As in schema/redis/route.lua. */
bool state_waits(uint8_t held, uint8_t heard);

#endif
