/* Routing: from the leader's picture into Redis and the workers' inboxes (DESIGN step 2).
 * Owns: struct router: moves under way, what is collected for inboxes. May call: lib/store/live, proto/inbox,
 * dispatcher/leader_queue, leader_spec, rebuild, leader_reign. Loop rule: non-blocking.
 *
 * A batch is handed over when its spec and all its blocks are in Redis and every hint is in its inbox; only then
 * routed_ms is set. Whatever fails on the way, the whole batch is routed again: blocks that are there already join. */
#ifndef MUSTER_DISPATCHER_ROUTE_H
#define MUSTER_DISPATCHER_ROUTE_H

#include "dispatcher/leader_reign.h"

#define ROUTE_ENTRY_BYTES    65536 /* an inbox entry is pushed when it has so many, */
#define ROUTE_ENTRY_COMMANDS 8192  /* or so many commands, */
#define ROUTE_ENTRY_MS       3     /* or is so old; what is urgent does not wait for others */
#define ROUTE_LOOK_MS        2     /* how often it is asked whether an inbox that was full has room again */

struct router *router_new(struct reign *r);
void router_free(struct router **router);
/* A batch is to be routed: from its first block on, also when it was before. */
void router_add(struct reign *r, struct open_batch *batch);
void router_again(struct reign *r, struct open_batch *batch);
/* The command of a batch that is about to be added: need not be read, if Redis takes it now. */
void router_known(struct reign *r, struct open_batch *batch, struct slice command);
/* Those of its blocks that say `again`, if the batch has been routed; else they are on their way, or it is over. */
void router_some(struct reign *r, struct open_batch *batch);
/* It is not to be routed any further; blocks under way end as they do. */
void router_remove(struct reign *r, struct open_batch *batch);
/* Goes on as far as it may. _tick: also with what failed. */
void router_pump(struct reign *r);
void router_tick(struct reign *r);

/* Whether the inboxes have room for the block's devices: the queue's `fits`. `reign` is a struct reign. */
bool router_fits(void *reign, struct open_block *b);
/* The worker is gone, and its inboxes with it. */
void router_forget_worker(struct reign *r, uint16_t worker);

/* Pushes CANCEL of the batch to the urgent inbox of a worker; `done` as live_inbox_push. */
void router_push_cancel(struct reign *r, uint64_t batch, uint16_t worker, live_int_fn *done, void *arg);

#endif
