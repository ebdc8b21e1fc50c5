/* Batches and imports that quotas refused, for the audit: whose, how many, of how many devices.
 * Owns: struct refusals. May call: lib/store/db_audit, dispatcher/quota. Loop rule: non-blocking.
 *
 * The first of a key is written at once, those that follow within a minute together, so that whoever is refused a
 * thousand times a second costs two entries a minute. What is not written yet is lost with the process, but for one
 * that drains. */
#ifndef MUSTER_DISPATCHER_REFUSALS_H
#define MUSTER_DISPATCHER_REFUSALS_H

#include <ev.h>
#include <stdint.h>

#include "lib/store/pg.h"

#define REFUSALS_MINUTE_US 60000000
#define REFUSALS_MAX       1024 /* keys and reasons remembered: beyond, those that were first are written early */

struct refusals;

/* Returns owned, or NULL without memory. */
struct refusals *refusals_new(struct ev_loop *loop, struct pg *pg);
/* After the end of pg. */
void refusals_free(struct refusals **refusals);
/* `reason` is a literal; `address` is copied. */
void refusals_note(struct refusals *r, int32_t tenant, int64_t key, const char *address, const char *reason,
                   uint32_t devices);
/* Writes what is not written yet; `done` comes then, or at once when PostgreSQL is away. */
void refusals_end(struct refusals *r, void (*done)(void *arg), void *arg);

#endif
