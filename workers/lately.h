/* How much each tenant was sent in the time that the window looks at (window.h), about: tenants that share a place
 * count together. Owns: struct lately, embedded. May call: workers/window (its span). Loop rule: none, pure. */
#ifndef MUSTER_WORKERS_LATELY_H
#define MUSTER_WORKERS_LATELY_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "workers/window.h"

#define LATELY_PLACES 256
#define LATELY_LITTLE 64 /* who was sent fewer commands need not wait for what is done for others */

struct lately {
    uint64_t span;                   /* the last one looked at */
    uint32_t sent[2][LATELY_PLACES]; /* in the even and the odd one of the last two spans */
};

static inline void lately_turn(struct lately *l, int64_t now_us)
{
    uint64_t span = (uint64_t)now_us >> WINDOW_SPAN_US_LOG2;
    if (span == l->span)
        return;
    memset(l->sent[span & 1], 0, sizeof l->sent[0]);
    if (span > l->span + 1)
        memset(l->sent[~span & 1], 0, sizeof l->sent[0]);
    l->span = span;
}

static inline void lately_add(struct lately *l, uint32_t tenant)
{
    l->sent[l->span & 1][tenant % LATELY_PLACES]++;
}

static inline bool lately_is_little(const struct lately *l, uint32_t tenant)
{
    return l->sent[0][tenant % LATELY_PLACES] + l->sent[1][tenant % LATELY_PLACES] < LATELY_LITTLE;
}

#endif
