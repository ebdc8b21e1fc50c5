/* The leader's picture of open batches: for each block which commands are terminal, and what PostgreSQL's blocks do not
 * know yet.
 * Owns: struct open_set, open_batch, open_block. May call: lib/store/block, state; lib/base. Loop rule: none, pure.
 *
 * A block costs memory for its states and times only from its first recorded command until it is complete. */
#ifndef MUSTER_DISPATCHER_OPEN_BATCH_H
#define MUSTER_DISPATCHER_OPEN_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/open_counts.h"
#include "lib/base/list.h"
#include "lib/store/block.h"

struct control; /* dispatcher/control.h */
struct log_row; /* dispatcher/fold.h */

/* How many entries of a row of the log wait for this block to be folded. */
struct open_ref {
    struct log_row *row;
    uint32_t entries;
};

/* Of a block that is to be routed, whether it was asked who has its devices. */
enum open_look { OPEN_NOT_LOOKED, OPEN_LOOKING, OPEN_LOOKED };

struct open_block {
    struct list link; /* one of fold.h's lists, or alone */
    struct open_batch *batch;
    uint32_t block;
    uint16_t first, span;             /* slots first … first + span - 1, multiples of 8, as stored */
    uint16_t remaining;               /* commands that are not terminal */
    uint16_t put_back;                /* commands that are to be tried again, and wait */
    uint16_t dirty;                   /* commands changed since the last fold */
    bool came_back;                   /* some command that was sent is unsent again */
    bool due;                         /* stands in the list of those to fold now */
    bool again;                       /* to be routed although it was: more of it may be sent */
    bool settled;                     /* complete, stored and counted */
    uint8_t look;                     /* enum open_look */
    int64_t changed_ms;               /* last change, and */
    int64_t dirty_ms;                 /* first one since the last fold */
    const uint8_t *targets;           /* span / 8 bytes */
    struct open_counts_block *counts; /* of open commands of its devices; NULL: not counted */
    uint8_t *cells;                   /* states, times, bitmaps of those changed and of those ended by the leader since
                                         the last fold; NULL: all QUEUED */
    struct open_ref *refs;            /* rows of the log that wait for the fold */
    uint32_t ref_count, ref_cap;
};

/* What a batch is waiting for to be closed. */
enum open_stage {
    OPEN_RUNNING,  /* commands that are not terminal, or blocks not yet stored */
    OPEN_CLEARING, /* complete and stored; its Redis keys are being deleted */
    OPEN_CLOSING,  /* to be marked closed by the next write */
};

struct open_batch {
    struct open_batch *next; /* of its hash bucket */
    struct list queue;       /* of dispatcher/leader_queue.h, or alone */
    struct list work;        /* of the module that has something to do with it, or alone */
    uint64_t id;
    uint32_t tenant;
    uint8_t priority; /* muster.v1.Priority: 1 urgent … 3 bulk */
    int64_t created_ms, expires_ms;
    int64_t deliver_by_ms, execution_ms; /* of a steered batch; 0: none */
    uint32_t command_bytes;
    enum open_stage stage;
    bool routed;                      /* durably: routed_ms is set */
    bool handed;                      /* all blocks are in Redis and pushed, since the last loss of Redis */
    bool touched;                     /* Redis may know it */
    bool spec;                        /* batch:<id> is written, or on its way in front of everything else */
    bool valued, filled;              /* it has values per device; they are in Redis */
    bool filling, fill_again;         /* they are on their way there; what was written may be lost */
    bool rebuild, rebuilt;            /* to be routed again because Redis was lost; it was, once */
    bool canceling, canceled, ending; /* cancel requested; confirmed; expiry under way */
    bool cancel_begun;                /* dispatcher/cancel.h is at it */
    bool held;                        /* nothing of it is to be routed; in Redis it is HELD */
    uint64_t hold;                    /* number of the last hold or release, as workers know it; 0: none */
    bool keyed;                       /* it has a key, to be forgotten when it is closed */
    uint32_t retry_after;             /* states after which commands are tried again: bits */
    uint8_t retry_attempts;           /* deliveries then, in all */
    bool growing;            /* dynamic, and open to whom joins: blocks stand at their number, with all slots, */
                             /* and none is settled */
    bool keep_cells;         /* its states are counted by cohorts: kept also of complete blocks */
    struct control *control; /* what steers it, or NULL: dispatcher/control.h's */
    uint8_t *told;           /* owned: its spec, dispatcher/leader_spec.h; NULL: workers look it up */
    uint32_t told_bytes;
    bool redo;                    /* dispatcher/repair.h: what stands in Redis is to be thrown away, */
    uint32_t looking;             /* when so many blocks have been looked at */
    uint32_t folds;               /* what the log has told of it so far: pieces */
    uint32_t routes;              /* blocks routed so far, */
    int64_t route_us;             /* the last one then (CLOCK_MONOTONIC) */
    uint32_t busy;                /* moves in flight that name it: it must not go away */
    uint32_t route_next, routing; /* next block to route; blocks in flight */
    bool partial;                 /* only blocks that say `again` are being routed */
    bool route_failed;            /* some move of the routing failed: once more */
    uint32_t remaining;           /* commands that are not terminal */
    uint32_t unsettled;           /* blocks not yet settled */
    uint32_t counts[STATE_COUNT]; /* of settled blocks */
    uint8_t *targets;             /* owned: bitmaps of all blocks */
    uint32_t block_count, block_room;
    struct open_block blocks[]; /* by number */
};

#define OPEN_CLOSED_MEMORY 8192 /* batches remembered as closed, so that late entries are not looked up again */

struct open_set {
    struct open_batch **buckets;
    size_t bucket_count, batches;
    uint64_t remaining;      /* commands of all batches that are not terminal */
    int64_t next_expiry_ms;  /* no batch that is not ending expires before; INT64_MAX: none */
    bool failed;             /* sticky: memory ran out, the picture is no longer whole */
    struct open_counts open; /* commands of all batches by device; its limit may be set while there is no batch */
    uint64_t closed[OPEN_CLOSED_MEMORY];
};

void open_set_init(struct open_set *set);
void open_set_free(struct open_set *set);
struct open_batch *open_set_find(const struct open_set *set, uint64_t id);
/* Calls `each` for every batch; it must not add or remove any. */
void open_set_each(const struct open_set *set, void (*each)(void *arg, struct open_batch *batch), void *arg);
/* Adds a batch of `blocks` blocks with `target_bytes` bytes of bitmaps in all. The caller fills in what it knows of the
 * batch. NULL without memory, and then the set has failed. */
struct open_batch *open_set_add(struct open_set *set, uint64_t id, uint32_t blocks, size_t target_bytes);
/* Frees the batch; it is remembered as closed. */
void open_set_remove(struct open_set *set, struct open_batch *batch);

/* A growing batch, which has the first `blocks` blocks of its tenant, nobody in them yet. */
struct open_batch *open_set_add_growing(struct open_set *set, uint64_t id, uint32_t blocks);
/* Makes it have so many; false: there is no room, and the batch is to be read anew. */
MUST_CHECK bool open_batch_extend(struct open_batch *batch, uint32_t blocks);
/* These devices of the block join, those that are not there already: at `at_ms`, or (0) before. Returns how many. */
unsigned open_block_join(struct open_set *set, struct open_block *b, const struct bitmap *slots, int64_t at_ms);
/* What batch_block says of a block of a growing batch; false when it makes no sense. */
MUST_CHECK bool open_batch_place(struct open_set *set, struct open_batch *batch, uint32_t block, unsigned first,
                                 struct slice targets, struct slice states);
/* Nobody joins any more: what is complete is settled. */
void open_batch_seal(struct open_batch *batch);
void open_set_note_closed(struct open_set *set, uint64_t id);
bool open_set_is_closed(const struct open_set *set, uint64_t id);

/* The batch's next block, in order of number: what batch_block says. `states` empty: as accepted. False when the
 * columns make no sense, or memory ran out. A block that is complete is settled at once. */
MUST_CHECK bool open_batch_put(struct open_set *set, struct open_batch *batch, uint32_t block, unsigned first,
                               struct slice targets, struct slice states);
/* Times of a block with states, as stored; ignored when the length is wrong. */
void open_block_put_times(struct open_block *b, struct slice times);
/* NULL when the batch is not in the block. */
struct open_block *open_batch_block(struct open_batch *batch, uint32_t block);

/* Joins what another source says of a command at `at_ms`. True when that is news; then the command is dirty. */
bool open_block_merge(struct open_set *set, struct open_block *b, unsigned slot, uint8_t state, int64_t at_ms);
/* The same with what the log says, where the first counts: so a device's outcome stands against an end that is neither
 * in the log nor stored. A Redis that had lost the outcome may have made one. */
bool open_block_logged(struct open_set *set, struct open_block *b, unsigned slot, uint8_t state, int64_t at_ms);
/* The same with a whole state string of Redis; what is ROUTED or HELD there counts as QUEUED, but for what waits to be
 * tried again since an outcome that the log has not told yet. `overtaken`: the log has told something of the batch
 * since Redis was asked: what was sent there, and is unsent after as many deliveries here, was put off or let go since.
 * Returns the number of changes. */
unsigned open_block_merge_string(struct open_set *set, struct open_block *b, const struct state_string *s,
                                 bool overtaken, int64_t at_ms);
/* Makes an event happen to all commands (or those in `only`) without Redis. Returns the number of changes. */
unsigned open_block_apply(struct open_set *set, struct open_block *b, enum command_event event,
                          const struct bitmap *only, int64_t at_ms);
/* A command that waited to be tried again waits no more. */
void open_block_release(struct open_set *set, struct open_block *b, unsigned slot, int64_t at_ms);
/* Commands of `only` that the state string of Redis has HELD are to be tried again. */
void open_block_put_back(struct open_set *set, struct open_block *b, const struct state_string *s,
                         const struct bitmap *only, int64_t at_ms);
/* State byte of an addressed command, else 0. */
uint8_t open_block_state(const struct open_block *b, unsigned slot);
bool open_block_targets(const struct open_block *b, unsigned slot);
/* All whom it addresses in the block. */
struct bitmap open_block_bitmap(const struct open_block *b);
/* Appends the state string to open the block in Redis with: what a worker had unsent is QUEUED again; of a held batch
 * HELD. */
void open_block_string(const struct open_block *b, struct buf *out);
/* What to store: span bytes of states, 4 * span bytes of times. Cells must be there. */
struct slice open_block_states(const struct open_block *b);
struct slice open_block_times(const struct open_block *b);
bool open_block_is_dirty(const struct open_block *b, unsigned slot);
/* Slot of the next dirty command at or after `from`, or BLOCK_SLOTS; and its time. */
unsigned open_block_next_dirty(const struct open_block *b, unsigned from);
int64_t open_block_time(const struct open_block *b, unsigned slot);
/* Forgets which commands are dirty (they are stored, or about to be). */
void open_block_clean(struct open_block *b);
/* The block is complete and stored: counts it, frees the cells. */
void open_block_settle(struct open_block *b);

#endif
