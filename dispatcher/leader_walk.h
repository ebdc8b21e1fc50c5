/* Makes events happen to commands of open batches in Redis, block by block, and brings what Redis then says into the
 * leader's picture.
 * Owns: struct walker, the moves waiting and under way. May call: lib/store/live, dispatcher/leader_reign. Loop rule:
 * non-blocking. A move whose fate is unknown is repeated; without Redis, moves wait. */
#ifndef MUSTER_DISPATCHER_LEADER_WALK_H
#define MUSTER_DISPATCHER_LEADER_WALK_H

#include "dispatcher/leader_reign.h"

struct walker *walker_new(struct reign *r);
void walker_free(struct walker **w);
/* Sends what can be sent; _tick: also after a failure. */
void walker_pump(struct reign *r);
void walker_tick(struct reign *r);

/* The event happens to all commands of the block, or to those of `only` (copied; NULL: all). The batch is busy until
 * then. `done`, if any, comes when it has happened, with `batch`; the block's changes are forced into the next writes.
 */
typedef void walk_done_fn(struct reign *r, struct open_batch *batch);
void walk_block(struct reign *r, struct open_block *b, enum command_event event, const struct bitmap *only,
                walk_done_fn *done);
/* The same to all blocks of the batch that have commands left. Returns their number. */
unsigned walk_batch(struct reign *r, struct open_batch *batch, enum command_event event, walk_done_fn *done);
/* Without Redis, for batches it does not know. */
void walk_unknown(struct reign *r, struct open_batch *batch, enum command_event event);

#endif
