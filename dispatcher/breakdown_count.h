/* A batch's progress by platform and wave, and how long its commands took: the counting.
 * Owns: struct breakdown, struct breakdown_basis. May call: dispatcher/rollout, wave_order, target_set, view, present.
 * Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_BREAKDOWN_COUNT_H
#define MUSTER_DISPATCHER_BREAKDOWN_COUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/rollout.h"
#include "dispatcher/target_set.h"
#include "dispatcher/view.h"
#include "dispatcher/wave_order.h"
#include "lib/base/arena.h"
#include "lib/base/metrics.h"
#include "muster/v1/command_service.pb-c.h"

/* What is wanted: bits, so that the wishes of several are their union. */
enum breakdown_wish {
    BREAKDOWN_PLATFORMS = 1,
    BREAKDOWN_WAVES = 2,
    BREAKDOWN_LATENCY = 4,
    BREAKDOWN_WISHES = 8 /* so many unions are there */
};
static inline unsigned breakdown_wishes(bool platforms, bool waves, bool latency)
{
    return (platforms ? BREAKDOWN_PLATFORMS : 0u) | (waves ? BREAKDOWN_WAVES : 0u) | (latency ? BREAKDOWN_LATENCY : 0u);
}

#define BREAKDOWN_BUCKETS 34 /* see LatencyBucket */

struct breakdown {
    uint32_t counts[STATE_COUNT];
    uint32_t platform[ROLLOUT_PLATFORMS][STATE_COUNT];
    uint32_t wave[ROLLOUT_WAVES][STATE_COUNT];
    uint32_t waves, waves_out; /* of the batch, 1 where it has none; released */
    uint32_t bucket[BREAKDOWN_BUCKETS];
    uint64_t slowest_ms;
    struct histogram took; /* in milliseconds */
};

/* What the commands are counted by. Zero-initialised: nothing is known, and all is in one wave. */
struct breakdown_basis {
    struct target_set platforms[ROLLOUT_PLATFORMS]; /* owned, as is `order` */
    struct wave_order order;
    struct rollout plan;
};
void breakdown_basis_free(struct breakdown_basis *b);

/* Counts the at-th block of the batch. */
void breakdown_add(struct breakdown *b, const struct breakdown_basis *basis, uint32_t at,
                   const struct view_block *block);
/* Puts it into the batch, with the progress; memory comes from the arena. */
void breakdown_present(struct arena *a, const struct breakdown *b, unsigned wishes, Muster__V1__Batch *batch);

#endif
