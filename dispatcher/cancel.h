/* Cancels: from the request to the moment when nothing of the batch can be sent any more.
 * Owns: struct canceler: the cancels under way and their steps. May call: lib/store/live, dispatcher/leader_walk,
 * leader_spec, route, leader_write, leader_reign. Loop rule: non-blocking.
 *
 * drain    routing stops, what is under way ends. A batch that Redis never saw is canceled here and done.
 * spec     batch:<id> says that it is canceled: for workers that begin later, or have forgotten the batch
 * tell     CANCEL goes to every worker alive: it hands back what it has and has not sent
 * confirm  until each of them has confirmed, or lost its lease and been reaped
 * drop     EVENT_DROP: what is QUEUED or ROUTED ends: not before, since of what is QUEUED again a hint may still be on
 * its way to a worker, which sends by it. What is SENT, or may have been, goes on to its own end. Then the blocks are
 * stored and canceled_ms is set. Each step may be repeated; after a loss of Redis all are.
 *
 * What was sent and comes back since, because its device has put it off or it was to be tried again, is looked for each
 * second, and ends. */
#ifndef MUSTER_DISPATCHER_CANCEL_H
#define MUSTER_DISPATCHER_CANCEL_H

#include "dispatcher/leader_reign.h"

#define CANCELS_AT_ONCE 64 /* the others wait: each asks Redis twenty times a second */

struct canceler *canceler_new(struct reign *r);
void canceler_free(struct canceler **c);
/* A cancel of the batch is requested; nothing when it is under way or done. */
void cancel_requested(struct reign *r, uint64_t batch);
/* Redis was filled again: what was told there is gone. */
void cancel_restart(struct reign *r);
void cancel_tick(struct reign *r);
/* Each second: for what has come back since its cancel was confirmed. */
void cancel_look_again(struct reign *r);

#endif
