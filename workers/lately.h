/* How much each tenant was given in the time that the window looks at (window.h), about: tenants that share a place
 * count together. Owns: struct lately, embedded. May call: workers/window (its span). Loop rule: none, pure. */
#ifndef MUSTER_WORKERS_LATELY_H
#define MUSTER_WORKERS_LATELY_H

#include <stdint.h>
#include <string.h>

#include "workers/window.h"

#define LATELY_PLACES 256

struct lately {
    uint64_t span;                    /* the last one looked at */
    uint32_t given[2][LATELY_PLACES]; /* in the even and the odd one of the last two spans */
};

static inline void lately_turn(struct lately *l, int64_t now_us)
{
    uint64_t span = (uint64_t)now_us >> WINDOW_SPAN_US_LOG2;
    if (span == l->span)
        return;
    memset(l->given[span & 1], 0, sizeof l->given[0]);
    if (span > l->span + 1)
        memset(l->given[~span & 1], 0, sizeof l->given[0]);
    l->span = span;
}

static inline void lately_add(struct lately *l, uint32_t tenant, uint32_t given)
{
    l->given[l->span & 1][tenant % LATELY_PLACES] += given;
}

static inline uint32_t lately_count(const struct lately *l, uint32_t tenant)
{
    return l->given[0][tenant % LATELY_PLACES] + l->given[1][tenant % LATELY_PLACES];
}

#endif
