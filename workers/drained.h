/* Which of a worker's inboxes have been found empty since it last had reason to doubt what it knows of batches. What is
 * taken from these was put there later: what it tells of a batch that the worker has never heard of (INBOX_SPEC) is so,
 * or the worker was told since of what has changed. What lay there before may be of a Redis of the past, or from a time
 * in which a cancel was told to those only who were known, and this worker was not: that is looked up.
 * Owns: struct drained, embedded. May call: nothing. Loop rule: none, pure. */
#ifndef MUSTER_WORKERS_DRAINED_H
#define MUSTER_WORKERS_DRAINED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct drained {
    uint64_t since;   /* another after each doubt: what it was when the last take was asked for, */
    unsigned asked;   /* from so many inboxes, the first ones in their order */
    unsigned classes; /* so many of them, from the first on, have been found empty */
};

static inline void drained_ask(struct drained *d, uint64_t since, unsigned classes)
{
    if (d->since != since)
        d->classes = 0;
    d->since = since;
    d->asked = classes;
}

/* Whether what the take has brought, from the inbox of that class, was put there since. Before drained_took. */
static inline bool drained_before(const struct drained *d, uint64_t since, unsigned class)
{
    return d->since == since && class < d->classes;
}

/* The take has brought `count` entries, of `most` at most, from the first of the inboxes that had any. */
static inline void drained_took(struct drained *d, uint64_t since, unsigned class, size_t count, size_t most)
{
    unsigned empty = count == 0 ? d->asked : count < most ? class + 1 : class;
    if (d->since == since && empty > d->classes)
        d->classes = empty;
}

#endif
