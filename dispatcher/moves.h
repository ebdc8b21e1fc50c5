/* How much is under way to Redis, which does it in the order in which it was sent: whatever is sent behind it waits for
 * all of it, and with that what others ask Redis meanwhile. Owns: struct moves, embedded. May call: nothing. Loop rule:
 * none, pure. */
#ifndef MUSTER_DISPATCHER_MOVES_H
#define MUSTER_DISPATCHER_MOVES_H

#include <stdbool.h>
#include <stdint.h>

#define MOVES_MAX 64 /* of few slots each: hides the round trip */
/* Slots of all: a whole block costs Redis up to 70 µs (schema/redis/apply.lua), so what is urgent waits for about a
 * millisecond of work, and Redis has some to go on with until the next comes. */
#define MOVES_SLOTS (16 * 1024)

struct moves {
    uint32_t count, slots;
};

/* Whether one more may be sent. */
static inline bool moves_room(const struct moves *m)
{
    return m->count < MOVES_MAX && m->slots < MOVES_SLOTS;
}

static inline void moves_begin(struct moves *m, uint32_t slots)
{
    m->count++;
    m->slots += slots;
}

/* `slots` as it began. */
static inline void moves_end(struct moves *m, uint32_t slots)
{
    m->count--;
    m->slots -= slots;
}

#endif
