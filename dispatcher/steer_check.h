/* Whether a steering can be carried out for those whom a batch addresses: its canary group, waves, rate and window; and
 * whether it may be dynamic.
 * Owns: struct steer_check. May call: lib/store/db_window, db_dynamic, dispatcher/filter_find, rollout, pace, request
 * (what failures mean). Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_STEER_CHECK_H
#define MUSTER_DISPATCHER_STEER_CHECK_H

#include "dispatcher/target_set.h"
#include "lib/base/arena.h"
#include "lib/store/db_batch.h"
#include "muster/v1/steering.pb-c.h"
#include "proto/status.h"

/* Zero-initialise, then set what is asked; all borrowed until done. */
struct steer_check {
    struct pg *pg;
    struct arena *arena;            /* has what `batch` then points to */
    const Muster__V1__Steering *in; /* passed steering_check; NULL: none */
    struct db_accept *batch;        /* as it is to be accepted; gets its canary group */
    const struct target_set *whom;  /* the same devices as in `batch` */
    bool guarded;                   /* the command: nobody may join such a batch */
    /* Called once, perhaps before steer_check_run returns. */
    void (*done)(struct steer_check *c);
    /* The answer. */
    struct status st;        /* not STATUS_OK: why not */
    bool failed;             /* it is the store, or memory, that `st` tells of */
    uint32_t canary_devices; /* in the canary group */
};

/* When what was not sent ends: with the delivery timeout, which is not after the expiry, or with that. */
int64_t steer_ends_ms(const struct db_accept *b);
void steer_check_run(struct steer_check *c);

#endif
