/* Fills Redis again from the leader's picture when it was lost, and says whether it can be worked with.
 * Owns: struct rebuilder, reign's live_ready, rebuilding and what it has of when Redis was filled, and sound. May call:
 * lib/store/live, db_lease, dispatcher/route, leader_walk, leader_reign. Loop rule: non-blocking. The work itself is
 * routing: every open batch that Redis may have known is routed again. Before that the log is read: what was sent is
 * not put there as if it were not, and outcomes that Redis had and the picture has not are not overtaken by an expiry.
 * After it, what Redis knew of batches, or blocks of them, that are over goes. */
#ifndef MUSTER_DISPATCHER_REBUILD_H
#define MUSTER_DISPATCHER_REBUILD_H

#include "dispatcher/leader_reign.h"

struct rebuilder *rebuilder_new(struct reign *r);
void rebuilder_free(struct rebuilder **b);
/* Asks whether this is the Redis that was filled: several times a second, when it is back, when the picture is loaded,
 * and before moves that a batch's end may hang on. */
void rebuild_check(struct reign *r);
/* Redis has turned out not to hold what it should. */
void rebuild_begin(struct reign *r);
/* What is to be there first is not known yet: nothing is routed. */
bool rebuild_waits(const struct reign *r);
/* One batch of them that Redis does not hold as it should, while it holds the others. */
void rebuild_batch(struct reign *r, struct open_batch *batch);
/* A batch that was to be routed again is in Redis. */
void rebuild_routed(struct reign *r, struct open_batch *batch);
/* The acknowledgement log has been read to its end by a poll that began then (CLOCK_MONOTONIC). */
void rebuild_log_read(struct reign *r, int64_t began_us);
/* Redis is away. */
void rebuild_lost(struct reign *r);

#endif
