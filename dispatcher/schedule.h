/* Which devices of a batch may be sent to at a moment, by the windows of their zones.
 * Owns: struct schedule. May call: dispatcher/target_set, lib/store/block. Loop rule: none, pure: the time is given. */
#ifndef MUSTER_DISPATCHER_SCHEDULE_H
#define MUSTER_DISPATCHER_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/target_set.h"

struct schedule_zone {
    int64_t opens_ms, closes_ms; /* of the window that is open or comes next; closes_ms 0: none is known */
    bool open;                   /* as of the last turn */
    struct target_set devices;   /* of the default zone: none, it has all others */
};

/* Zero-initialised knows nothing, and nothing is open. */
struct schedule {
    struct schedule_zone *zones; /* the first is the default one */
    size_t count;
    bool known;
};

void schedule_free(struct schedule *s);
/* Room for so many zones, all closed; false without memory. */
MUST_CHECK bool schedule_make(struct schedule *s, size_t zones);

struct schedule_turn {
    bool more, less; /* some have opened, some closed */
    bool any;        /* something is open */
    int64_t next_ms; /* when it is to be turned again; not after: its windows are over and are to be read anew */
};
/* What is open at `now_ms`, and what has changed since the last turn. */
struct schedule_turn schedule_turn(struct schedule *s, int64_t now_ms);
/* Takes over which zones of `old` were open, so that the next turn tells what has changed. `same`: which zone of `old`
 * is zone i of `s`, SIZE_MAX for none. */
void schedule_follow(struct schedule *s, const struct schedule *old, const size_t *same);
/* The slots of the block whose window is closed. */
void schedule_closed(const struct schedule *s, uint32_t block, struct bitmap *out);

#endif
