/* From the first lease to the last byte: what a worker does when it gets, loses or gives up its number.
 * Owns: nothing; the order of the steps. May call: every part of workers/. Loop rule: non-blocking. */
#ifndef MUSTER_WORKERS_LIFECYCLE_H
#define MUSTER_WORKERS_LIFECYCLE_H

#include "workers/lease.h"

struct worker;

/* For lease_new. */
extern const struct lease_events lifecycle_events;
/* While Redis is away, and lost perhaps, nobody can know that this worker is there: it sends nothing. */
void lifecycle_redis_lost(struct worker *w);
/* Redis is there again after it was away: what was taken from the inbox or pushed meanwhile may be lost. */
void lifecycle_redis_back(struct worker *w);
/* NULL when the worker can serve, else what is missing, in a few words. */
const char *lifecycle_ready(const struct worker *w);
/* Accepts and takes nothing more, makes durable what devices have answered, says good-bye to them (5.0: 0x8b), gives
 * their commands and the number back, then calls w->stopped. */
void lifecycle_drain(struct worker *w);

#endif
