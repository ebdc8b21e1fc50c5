/* How fast a batch goes out: turns by the clock, and how their rate grows.
 * Owns: struct pace, the policy. May call: lib/store/state. Loop rule: none, pure: counts and time are given.
 *
 * Time is that of clock_mono_us, so that setting the clock brings no turns and takes none. */
#ifndef MUSTER_DISPATCHER_PACE_H
#define MUSTER_DISPATCHER_PACE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/state.h"
#include "muster/v1/steering.pb-c.h"

#define PACE_DEVICES_MAX 1000000
#define PACE_PER_MIN_MS  1000
#define PACE_PER_MAX_MS  3600000
#define PACE_GROWTH_MAX  1000 /* percent */
#define PACE_SAVED_MS    1000 /* turns of so long may be made up for, when the leader was busy */

struct pace {
    double first, most;        /* devices a millisecond at the beginning, and at most; 0: as many as there are */
    double factor;             /* of one step; 0: it does not grow */
    uint32_t step;             /* outcomes a step, */
    uint32_t success_percent;  /* and how many of them must be good */
    uint32_t steps;            /* taken so far */
    uint32_t ended, succeeded; /* outcomes of the batch when the last one was taken */
    double credit;             /* turns that are due */
    int64_t last_us;           /* when it was counted last; 0: not yet */
};

/* Milliseconds of Rate.per, which was checked. */
int64_t pace_per_ms(const Muster__V1__Rate *in);
/* `in` was checked; NULL: all at once. No step is taken yet, and one turn is due. */
void pace_read(struct pace *p, const Muster__V1__Rate *in);
/* Devices a millisecond after its steps. */
double pace_rate(const struct pace *p);
/* Milliseconds until the last of so many devices has its turn, if every step succeeds at once. */
double pace_least_ms(const struct pace *p, uint32_t devices);
/* Goes on after `since_ms` without a turn, as another leader has told; at most one turn is due then. */
void pace_resume(struct pace *p, int64_t since_ms, int64_t now_us);

/* How many turns are due at `now_us`. `runs`: something may be sent; else the time since the last call brings none. */
uint32_t pace_due(struct pace *p, int64_t now_us, bool runs);
/* So many were taken. `dry`: nobody else could take one, so that the rest is not saved up. */
void pace_taken(struct pace *p, uint32_t turns, bool dry);
/* Whether it is time for a step; `counts` are of the whole batch. pace_step takes it. */
bool pace_may_step(const struct pace *p, const uint32_t counts[STATE_COUNT]);
void pace_step(struct pace *p, const uint32_t counts[STATE_COUNT]);

#endif
