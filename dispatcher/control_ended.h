/* Devices for which a batch was canceled, or has been superseded, while it goes on for others: what had been sent to
 * them goes to its own end. Put off, or to be tried again, it is unsent once more, and ends.
 * Owns: struct control_ended. May call: dispatcher/target_set, leader_walk, open_batch, leader_reign. Loop rule:
 * non-blocking.
 *
 * Who they are PostgreSQL keeps until the batch is closed (batch_cancel); another leader reads it before it lets
 * anything go. What comes back ends where Redis has it, block by block, without taking the batch back from the workers:
 * it is QUEUED or HELD there. One that a worker has fetched in between is left, and then the batch is taken back. So
 * nothing is tried again; what is put off may be sent once more before the leader has heard of it. */
#ifndef MUSTER_DISPATCHER_CONTROL_ENDED_H
#define MUSTER_DISPATCHER_CONTROL_ENDED_H

#include "dispatcher/leader_reign.h"
#include "dispatcher/leader_walk.h"
#include "dispatcher/target_set.h"

/* Zero-initialised is empty and valid. */
struct control_ended {
    struct target_set canceled, superseded; /* as far as they are read */
    struct target_set ending;               /* those of the walks under way */
    unsigned walks;
    bool left; /* they have left some that is unsent */
};

void control_ended_free(struct control_ended *e);
void control_ended_add(struct control_ended *e, uint32_t block, const struct bitmap *slots, bool superseded);
/* See control_routes: what of them is unsent stays HELD. */
void control_ended_mask(const struct control_ended *e, const struct open_block *b, struct buf *states);
/* Begins to end what has come back; `done` is to call control_ended_walked. True: some of it could not be ended so, and
 * the batch is to be taken back. */
bool control_ended_tick(struct control_ended *e, struct reign *r, struct open_batch *batch, walk_done_fn *done);
void control_ended_walked(struct control_ended *e, struct open_batch *batch);
/* Something that came back is being ended: nothing of it may be let go. */
bool control_ended_busy(const struct control_ended *e);

#endif
