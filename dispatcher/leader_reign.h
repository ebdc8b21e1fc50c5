/* One reign: what the leader knows and does between getting the lease and losing it. Ends by forgetting.
 * Owns: struct reign, which the leader's modules share. May call: dispatcher/open_batch, fold, leader_queue, lib/store.
 * Loop rule: non-blocking. Every call to PostgreSQL or Redis holds the reign (reign_hold) and its callback begins with
 * reign_back, which says whether there is still something to do: after the end nothing of the reign but its shell is
 * there, until the last callback has come. */
#ifndef MUSTER_DISPATCHER_LEADER_REIGN_H
#define MUSTER_DISPATCHER_LEADER_REIGN_H

#include "dispatcher/fold.h"
#include "dispatcher/leader.h"
#include "dispatcher/leader_queue.h"
#include "dispatcher/open_batch.h"
#include "lib/store/db_clock.h"
#include "lib/store/db_lease.h"

#define REIGN_TICK_MS 50

struct reign {
    struct ev_loop *loop;
    struct pg *pg;
    struct live *live; /* owned: it ends with the reign, and with it what is on its way there */
    struct lease_fence fence;
    struct db_clock *clock; /* borrowed, set by who makes it: by this is decided what is due; NULL: the machine's */
    int lane;
    int64_t events_ms; /* how long events are kept */
    int64_t retry_ms, webhook_life_ms;
    int64_t presence_ms; /* between looks who has come and gone */
    struct http_options web;
    struct leader_figures *figures;
    void (*on_failed)(void *arg);
    /* Too much waits, mostly of these; may be NULL. */
    void (*on_behind)(void *arg, const struct queue_heavy *heavy, size_t count);
    /* These devices of the block are full; may be NULL. */
    void (*on_full)(void *arg, uint32_t tenant, uint32_t block, const struct bitmap *full);
    void *arg;
    bool over, failed;
    uint32_t refs;
    ev_timer tick;
    uint64_t ticks;

    struct open_set set;
    struct fold_log log;
    struct route_queue queue;
    bool loaded;           /* all open batches and the whole log are read */
    bool live_ready;       /* Redis is up and holds what it should */
    bool rebuilding;       /* it is being filled */
    uint32_t rebuild_left; /* batches still to be put there */
    int64_t rebuilt_us;    /* when it was last filled with some (CLOCK_MONOTONIC), at the latest; 0: never */
    int64_t silent_us;     /* so long after that workers may not have told what they know; */
    bool silence_unknown;  /* how long is being asked */
    int64_t sound_us;      /* when it was last asked whether it holds what it should, and did */
    /* When a look began (CLOCK_MONOTONIC) that is over: at the log to its end, and at new batches. */
    int64_t log_read_us, looked_us;

    /* Lists of open_batch.work, and what the next write takes. */
    struct list handed;   /* in Redis; routed_ms is to be set */
    struct list clearing; /* complete; Redis keys are to be deleted */
    struct list closing;  /* closed_ms is to be set */
    struct buf canceled;  /* u64 each: canceled_ms is to be set */
    struct buf handled;   /* batch (u64), request (u32) each: asked for and carried out */
    struct buf settled;   /* tenant (u32), number (u64) each: gates behind which all is routed */
    struct buf undeleted; /* tenant, seq (u32 each): rows of device_cancel to delete */

    struct loader *loader;
    struct router *router;
    struct folder *folder;
    struct walker *walker;
    struct canceler *canceler;
    struct controller *controller;
    struct reign_gates *gates;
    struct sweeper *sweeper;
    struct rebuilder *rebuilder;
    struct joiner *joiner;
    struct learner *learner;
    struct clearer *clearer;
    struct writer *writer;
    struct ledger *ledger;
    struct webhook_sender *webhooks;
    struct presence_teller *presence;
};

/* Begins to load. `on_failed` comes from the loop when this reign can't go on and is to be ended. `fence` is copied,
 * its texts are borrowed. Returns owned, or NULL without memory. */
struct reign *reign_new(struct ev_loop *loop, struct pg *pg, const char *redis, const struct lease_fence *fence,
                        int lane, const struct leader_options *options, struct leader_figures *figures,
                        void (*on_failed)(void *arg), void *arg);
/* Forgets everything at once; sets *r to NULL. */
void reign_end(struct reign **r);

static inline struct reign *reign_hold(struct reign *r)
{
    r->refs++;
    return r;
}
/* False when the reign is over; then `r` may be gone. */
MUST_CHECK bool reign_back(struct reign *r);

/* Something is not as this reign thinks (a write failed or its fate is unknown, memory ran out): all is to be read
 * again.
 */
void reign_fail(struct reign *r, const char *why, enum err err);

/* A batch has come into the picture: routes it, cancels it, closes it, as it needs. */
void reign_loaded_batch(struct reign *r, struct open_batch *batch);
/* Moves that name a batch, in flight. reign_idle: one less; what waited for the last goes on. */
static inline void reign_busy(struct open_batch *batch)
{
    batch->busy++;
}
void reign_idle(struct reign *r, struct open_batch *batch);
/* Looks whether the batch is complete, stored and idle; then its end begins. */
void reign_check_complete(struct reign *r, struct open_batch *batch);
/* Whether moves of open batches make sense now. */
static inline bool reign_live(const struct reign *r)
{
    return r->loaded && r->live_ready && live_up(r->live);
}
static inline enum live_class batch_class(const struct open_batch *batch)
{
    return batch->priority >= 3 ? LIVE_BULK : batch->priority == 2 ? LIVE_NORMAL : LIVE_URGENT;
}
static inline struct live_place block_place(const struct open_block *b)
{
    return (struct live_place){b->batch->tenant, b->block, b->batch->id};
}

/* Half as long again, but no longer than most_ms: where little comes all the time, the more of it shares one look, or
 * one commit, the cheaper it is. */
static inline int64_t reign_longer(int64_t us, int64_t most_ms)
{
    return us * 3 / 2 < most_ms * 1000 ? us * 3 / 2 : most_ms * 1000;
}

#endif
