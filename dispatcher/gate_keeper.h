/* Gates, as far as a dispatcher carries them out: every worker alive is told of a change, and when each has confirmed
 * it the change is marked so. Owns: struct gate_keeper. May call: lib/store, dispatcher/tell. Loop rule: non-blocking.
 *
 * Every dispatcher has one; it needs no leader. Who has changed a gate carries it out at once; the others look now and
 * then, and go on where one has died in the middle. Doing it twice does no harm. */
#ifndef MUSTER_DISPATCHER_GATE_KEEPER_H
#define MUSTER_DISPATCHER_GATE_KEEPER_H

#include <ev.h>
#include <stdint.h>

#include "lib/base/list.h"
#include "lib/store/live.h"
#include "lib/store/pg.h"

#define GATE_LOOK_MS   1000 /* how often PostgreSQL is asked for changes nobody has carried out */
#define GATE_ORPHAN_MS 3000 /* a change so old counts as one of those */

struct gate_keeper;

/* Borrows all, for as long as it lives. Returns owned, or NULL without memory. */
struct gate_keeper *gate_keeper_new(struct ev_loop *loop, struct pg *pg, struct live *live);
void gate_keeper_free(struct gate_keeper **keeper);

/* Somebody who waits for a change: embedded. */
struct gate_wait {
    struct list link;
    uint64_t number;
    int64_t confirmed_ms;                 /* once it is done: when it was confirmed */
    void (*done)(struct gate_wait *wait); /* comes once, from the loop, when it is confirmed */
};
/* A change is committed: carries it out. `wait` may be NULL. */
void gate_keeper_changed(struct gate_keeper *keeper, uint64_t number, struct gate_wait *wait);
/* Waits no more. */
static inline void gate_wait_end(struct gate_wait *wait)
{
    list_remove(&wait->link);
}

#endif
