/* The end of a batch: its Redis keys go, then it is marked closed. In this order nothing is left behind in Redis, and
 * what is stored is complete before Redis forgets it. Owns: struct clearer. May call: lib/store/live,
 * dispatcher/leader_reign. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_LEADER_CLEAR_H
#define MUSTER_DISPATCHER_LEADER_CLEAR_H

#include "dispatcher/leader_reign.h"

#define CLEAR_MOVES 256 /* keys being deleted at a time */

struct clearer *clearer_new(struct reign *r);
void clearer_free(struct clearer **c);
/* A complete and stored batch, not busy, in stage OPEN_CLEARING: when Redis has forgotten it, it stands in `closing`.
 */
void clear_batch(struct reign *r, struct open_batch *batch);
void clearer_tick(struct reign *r);

#endif
