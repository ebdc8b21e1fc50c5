/* What this worker knows of batches: read once from Redis, kept while sessions hold commands of it and a while longer.
 * Owns: struct batch_cache, struct batch. May call: lib/store/live, proto. Loop rule: non-blocking. */
#ifndef MUSTER_WORKERS_BATCH_CACHE_H
#define MUSTER_WORKERS_BATCH_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/list.h"

struct fill;
struct live;
struct batch_cache;

enum batch_load { BATCH_LOADING, BATCH_READY, BATCH_MISSING };

struct batch {
    uint64_t id;
    uint32_t tenant;
    uint8_t load;     /* enum batch_load */
    uint8_t priority; /* muster.v1.Priority */
    bool canceled;
    uint64_t hold;   /* number of the last INBOX_HOLD; odd: nothing of it is sent */
    uint32_t loaded; /* which of the cache's loads has read it last */
    uint32_t refs;
    int64_t created_ms, expires_ms;
    int64_t deliver_by_ms; /* of what was not sent yet; INT64_MAX: expires_ms counts */
    int64_t looked_ms;     /* the latest time of day at which these two were looked at; they go by no earlier one */
    int64_t execution_ms;  /* a command without outcome for so long ends without; 0: it does not */
    int64_t head_ms;       /* without execution_ms: and keeps no others back after so long; 0: it does */
    uint32_t retry_after;  /* states after which a command is tried again: bits */
    uint8_t retry_attempts;
    uint8_t retried_len; /* bytes of `retried`, in front of the tail */
    bool keyed;          /* commands may have been superseded */
    struct buf command;  /* encoded muster.v1.Command; with `fill` a template of it */
    struct buf tail;     /* of the Delivery: proto/delivery.h; with `fill` without its command */
    struct fill *fill;   /* it has values per device, workers/values.h; NULL: it has none */
    struct buf defaults; /* packed values of devices without their own; empty: all have */
    char *json;          /* the command as JSON, made at first need by the transport; freed with the batch */
    /* The cache's own. */
    struct batch *next;
    struct list idle; /* in the list of batches without references, the longest idle first */
    struct buf waiters;
    bool joined; /* somebody has come to wait for a look-up that was under way */
};

/* Order of delivery on a device: lower first. */
static inline uint64_t batch_rank(const struct batch *b)
{
    return (uint64_t)b->priority << 48 | b->id;
}

/* What was sent for the last time, and was lost on its way or may have been, is sent once more; the device that has
 * executed it is not to do so again. */
static inline bool batch_is_spent(const struct batch *batch, unsigned attempt)
{
    return batch->retried_len && attempt > batch->retry_attempts;
}

/* Of the Delivery with that attempt; borrowed. */
static inline struct slice batch_tail(const struct batch *batch, unsigned attempt)
{
    size_t skip = batch_is_spent(batch, attempt) ? batch->retried_len : 0;
    return (struct slice){buf_head(&batch->tail) + skip, buf_len(&batch->tail) - skip};
}

static inline bool batch_held(const struct batch *b)
{
    return b->hold & 1;
}

#define BATCH_IDLE_MAX                                                                                                 \
    4096 /* batches kept without references: a returning device's next batch is often one of them                      \
          */

/* Returns owned, or NULL without memory. */
struct batch_cache *batch_cache_new(struct live *live);
void batch_cache_free(struct batch_cache **cache);
/* Calls `fn` with the batch, referenced, when it is known: at once or after a look-up. `batch` NULL: it is over (or
 * Redis has lost it: then it comes again). `a` and `b` are the caller's. */
typedef void batch_fn(void *arg, struct batch *batch, uint64_t a, uint64_t b);
void batch_cache_get(struct batch_cache *cache, uint64_t id, batch_fn *fn, void *arg, uint64_t a, uint64_t b);
/* It is told how the batch stands, or stood since this worker last doubted: what batch:<id> says. Counts only for one
 * of which the worker has never heard before; whatever else it was told of it is not forgotten then. */
void batch_cache_told(struct batch_cache *cache, uint64_t id, struct slice spec);
/* The batch if it is known already, without a reference, or NULL. */
struct batch *batch_cache_find(struct batch_cache *cache, uint64_t id);
/* Remembers that it is canceled, known or not. Returns it, without a reference; NULL without memory. */
struct batch *batch_cache_cancel(struct batch_cache *cache, uint64_t id);
/* The same for a hold, or the end of one: the highest number counts. */
struct batch *batch_cache_hold(struct batch_cache *cache, uint64_t id, uint64_t number);
/* What it has not been told since may have changed: batches are looked up again at their next use. */
void batch_cache_doubt(struct batch_cache *cache);
/* How often that was. */
uint32_t batch_cache_doubts(const struct batch_cache *cache);
/* How many have been read so far. */
uint32_t batch_cache_loads(const struct batch_cache *cache);
void batch_ref(struct batch *batch);
void batch_unref(struct batch_cache *cache, struct batch *batch);

#endif
