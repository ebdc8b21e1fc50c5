/* Folding the acknowledgement log into blocks: which rows still have entries that no block has stored, which blocks are
 * worth storing now, which rows can go, when the log is worth writing anew. Decisions only: dispatcher/leader_fold.c
 * reads and writes. Owns: struct fold_log, streams and rows. May call: dispatcher/open_batch, proto/ack_log,
 * lib/store/block, lib/base. Loop rule: none, pure.
 *
 * Storing a block rewrites 5 bytes a slot, so a block is stored when it is complete, or has so many unstored entries
 * that each pays little; until then its entries stay in the log, which says the same. Rows of a stream go from its
 * front: a row is dead when each of its entries is stored or says nothing new. */
#ifndef MUSTER_DISPATCHER_FOLD_H
#define MUSTER_DISPATCHER_FOLD_H

#include "dispatcher/open_batch.h"

#define FOLD_ENTRIES      64    /* entries that pay for storing a block that has gone quiet: ~90 bytes of WAL each */
#define FOLD_QUIET_MS     2000  /* a block without news for so long is quiet */
#define FOLD_OLD_ENTRIES  256   /* and these many pay for one that never is, */
#define FOLD_OLD_MS       30000 /* once the first of them is so old */
#define FOLD_COMPACT_COST (1 << 20) /* a log smaller than this (bytes, about) is never written anew */
#define FOLD_ROW_COST     80        /* bytes a row takes besides its entries, about */
#define FOLD_ENTRY_COST   21        /* bytes an entry takes when it stands alone in its group */

struct log_row {
    struct list link; /* of its stream, by n */
    uint64_t n;
    uint32_t live;  /* entries that wait for their block */
    uint32_t bytes; /* of the row */
};

struct log_stream {
    struct list link;
    uint64_t id;
    uint64_t last_n;   /* read up to here */
    uint64_t forget_n; /* dead up to here, still to be deleted; 0: nothing */
    struct list rows;
};

struct fold_log {
    struct list streams;
    size_t stream_count;
    uint64_t rows, bytes, live; /* of rows that are not deleted */
    struct list due;            /* blocks to store now */
    struct list dirty;          /* blocks with unstored entries, least recently changed first */
    struct list resting;        /* quiet ones with too few entries to be stored */
    bool forgettable;           /* some row has died since the last fold_forget */
    bool failed;                /* sticky: memory ran out */
};

void fold_init(struct fold_log *log);
/* Before the open_set's, whose blocks stand in the lists. */
void fold_free(struct fold_log *log);

/* Cursors of all streams, for db_open_log: fills at most `max`, returns how many. */
size_t fold_cursors(const struct fold_log *log, int64_t *streams, int64_t *ns, size_t max);
/* Appends the batches (u64 each) that the entries name and nobody here knows, neither open nor closed. */
void fold_unknown(const struct open_set *set, struct slice entries, struct buf *ids);
/* Takes a row of the log: joins its entries with the blocks. Rows of a stream come in order of n; one that was read
 * before is ignored. False when the entries are malformed from some place on; what stands before it counts. */
bool fold_take(struct fold_log *log, struct open_set *set, uint64_t stream, uint64_t n, int64_t at_ms,
               struct slice entries, int64_t now_ms);

/* The block's commands changed, by the log or otherwise: puts it where it belongs. `force`: it is to be stored now. */
void fold_changed(struct fold_log *log, struct open_block *b, bool force, int64_t now_ms);
/* Moves what has gone quiet or old from `dirty` to `due` or `resting`. */
void fold_age(struct fold_log *log, int64_t now_ms);
/* The next block to store, taken out of its list, or NULL. */
struct open_block *fold_next(struct fold_log *log);
/* The block's cells are in the transaction being made: its rows need not wait for it any more. */
void fold_stored(struct fold_log *log, struct open_block *b);
/* Streams whose front is dead: fills at most `max`, returns how many; they count as deleted. */
size_t fold_forget(struct fold_log *log, int64_t *streams, int64_t *ns, size_t max);

/* Whether writing the log anew would shrink it to less than half. */
bool fold_compact_pays(const struct fold_log *log);
/* All entries that wait, as rows of stream `own` from `first_n` on, which take the place of all rows read so far. Times
 * are rounded to a second. `each` gets the rows in order. After it fold_forget gives the old ones. False without
 * memory. */
MUST_CHECK bool fold_compact(struct fold_log *log, uint64_t own, uint64_t first_n,
                             void (*each)(void *arg, int64_t at_ms, struct slice entries), void *arg);

#endif
