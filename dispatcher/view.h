/* What became of the commands of a batch, put together from PostgreSQL and Redis (DESIGN step 6).
 * Owns: the joining. May call: lib/store. Loop rule: non-blocking.
 *
 * PostgreSQL has what is final, in batch_block or still in the log; Redis has the newest of what is open. Where both
 * know a command a terminal state wins, else Redis. While Redis is away PostgreSQL alone answers. */
#ifndef MUSTER_DISPATCHER_VIEW_H
#define MUSTER_DISPATCHER_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/dispatcher.h"
#include "lib/store/block.h"
#include "lib/store/pg.h"

struct view_batch {
    int32_t tenant;
    int64_t id, created_ms;
    bool held;   /* paused, or its time has not come: what is QUEUED is not sent */
    bool routed; /* handed to Redis, or being handed, and not closed: worth asking there */
};

/* All commands of one block. */
struct view_block {
    uint32_t block;
    struct bitmap targets;
    uint8_t states[BLOCK_SLOTS]; /* 0 where not addressed */
    uint32_t times[BLOCK_SLOTS]; /* milliseconds since created_ms, 0: none */
};

/* Blocks are borrowed for the callback, in order; those the batch has none of are left out. `err` as pg_done_fn. The
 * callback comes from the loop. */
typedef void view_blocks_fn(void *arg, enum err err, struct view_block *blocks, size_t n);
void view_load(struct dispatcher *d, const struct view_batch *batch, const int32_t *blocks, size_t n,
               view_blocks_fn *done, void *arg);

/* How many commands are in each state. `blocks` are all the batch has. */
typedef void view_progress_fn(void *arg, enum err err, const uint32_t counts[STATE_COUNT]);
void view_progress(struct dispatcher *d, const struct view_batch *batch, const int32_t *blocks, size_t n,
                   view_progress_fn *done, void *arg);
/* The same, and how many have been given to their devices. */
typedef void view_given_fn(void *arg, enum err err, const uint32_t counts[STATE_COUNT], uint32_t given);
void view_given(struct dispatcher *d, const struct view_batch *batch, const int32_t *blocks, size_t n,
                view_given_fn *done, void *arg);

/* Joins one log row with the state of a single command: `state` and `time` change when the row tells something newer.
 */
void view_log_entry(uint8_t *state, uint32_t *time, uint8_t logged, int64_t at_ms, int64_t created_ms);

#endif
