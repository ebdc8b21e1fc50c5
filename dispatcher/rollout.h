/* Waves and thresholds: how many of a batch's devices may be sent to, and whether too much has gone wrong.
 * Owns: struct rollout, the policy. May call: lib/store/state. Loop rule: none, pure: counts and time are given. */
#ifndef MUSTER_DISPATCHER_ROLLOUT_H
#define MUSTER_DISPATCHER_ROLLOUT_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/store/state.h"
#include "muster/v1/steering.pb-c.h"

#define ROLLOUT_WAVES      16
#define ROLLOUT_THRESHOLDS 8
#define ROLLOUT_PLATFORMS  16 /* values of muster.v1.Platform fit below */

struct rollout {
    uint32_t waves;  /* 0: all at once */
    uint64_t stated; /* devices that they say together: the last one takes all that are left all the same */
    struct rollout_wave {
        uint32_t limit;           /* devices of this wave and all before */
        uint32_t success_percent; /* 0: none */
        int64_t after_ms;         /* 0: none */
    } wave[ROLLOUT_WAVES];
    uint32_t thresholds;
    struct rollout_threshold {
        uint32_t percent, minimum;
        bool abort, per_platform;
    } threshold[ROLLOUT_THRESHOLDS];
};

/* Of a batch of `devices`, so many of them in the canary group; the steering was checked. The limits: see Wave. */
void rollout_read(struct rollout *r, const Muster__V1__Steering *in, uint32_t devices, uint32_t canary);
/* Whether a wave goes out by time, so that it matters since when the first one is out. */
bool rollout_waits(const struct rollout *r);
/* Whether a wave before the last reaches all devices, so that nothing is left for the next. */
bool rollout_too_large(const struct rollout *r, uint32_t devices);
/* Whether all together say less than all devices. */
bool rollout_too_small(const struct rollout *r, uint32_t devices);

/* Commands by state, of all waves; by platform where thresholds ask. */
struct rollout_counts {
    uint32_t all[STATE_COUNT];
    uint32_t platform[ROLLOUT_PLATFORMS][STATE_COUNT];
};
/* The wave that may be out: `wave`, released `since_ms` ago, or the next one. `by_hand`: the highest one that somebody
 * has released. */
uint32_t rollout_next(const struct rollout *r, const struct rollout_counts *counts, uint32_t wave, int64_t since_ms,
                      uint32_t by_hand);

/* Thresholds that have acted: bits. */
struct rollout_acted {
    uint8_t all, platform[ROLLOUT_PLATFORMS];
};
static_assert(ROLLOUT_THRESHOLDS <= 8, "one bit each");
struct rollout_verdict {
    bool pause, abort;
    uint32_t stop, cancel;                     /* platforms to be stopped, or canceled: bits; never both */
    struct rollout_acted acted;                /* now */
    const struct rollout_threshold *threshold; /* the first that says so; NULL: all is well */
    uint32_t platform, wrong, ended;           /* whom, and what, it counted; platform 0: all */
};
/* Each acts once, or once a platform: not looked at are those that have acted before, and platforms that are canceled.
 */
struct rollout_verdict rollout_judge(const struct rollout *r, const struct rollout_counts *counts,
                                     const struct rollout_acted *acted, uint32_t canceled);

#endif
