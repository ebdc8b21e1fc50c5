/* What has to be looked after now and then: dead workers, deleted devices, streams of the log that nobody uses.
 * Owns: struct sweeper. May call: lib/store/live, db_open, proto/inbox, dispatcher/leader_walk, leader_write,
 * leader_reign. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_SWEEP_H
#define MUSTER_DISPATCHER_SWEEP_H

#include "dispatcher/leader_reign.h"

#define SWEEP_MOVES   64   /* blocks being reaped at a time */
#define SWEEP_DELETED 1000 /* deleted devices looked at in one sweep */

struct sweeper *sweeper_new(struct reign *r);
void sweeper_free(struct sweeper **s);
/* Each second, and when a device was deleted. */
void sweep(struct reign *r);
/* Presence names this worker. One that is not listed was reaped before what it had sent came to Redis: it is listed
 * again, and so reaped once more. */
void sweep_met(struct reign *r, uint16_t worker);

#endif
