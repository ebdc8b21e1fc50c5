/* PUBACKs that are due to a device, and their order.
 * Owns: nothing. May call: workers/pubacks, tests/fuzz/input. Loop rule: none. */
#ifndef MUSTER_TESTS_FUZZ_DUE_H
#define MUSTER_TESTS_FUZZ_DUE_H

#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/input.h"
#include "workers/pubacks.h"

/* Returns owned: pubacks_free. */
static inline struct pubacks copy_due(const struct pubacks *p)
{
    struct pubacks copy = *p;
    if (p->grown) {
        copy.many = malloc(PUBACKS_MAX * sizeof *copy.many);
        check(copy.many);
        memcpy(copy.many, p->many, p->count * sizeof *copy.many);
    }
    return copy;
}

/* This one was said: it was the next, and settled so. */
static inline void check_due(struct pubacks *due, uint16_t id, uint8_t reason)
{
    struct puback next;
    do
        check(pubacks_next(due, &next));
    while (next.id == 0);
    check(next.id == id && next.reason == reason);
}

/* What is settled now came at QoS 0. Frees. */
static inline void check_all_said(struct pubacks *due)
{
    for (struct puback next; pubacks_next(due, &next);)
        check(next.id == 0);
    pubacks_free(due);
}

/* Those that are settled wait for one that is not. */
static inline unsigned count_unsettled(const struct pubacks *p)
{
    const struct puback *v = p->grown ? p->many : p->few;
    unsigned n = 0;
    for (unsigned i = 0; i < p->count; i++)
        n += !v[i].settled;
    check(p->count == 0 || !v[0].settled);
    return n;
}

#endif
