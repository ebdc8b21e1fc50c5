#include "dispatcher/sweep.h"

#include <stdlib.h>
#include <string.h>

#include "dispatcher/leader_walk.h"
#include "dispatcher/leader_write.h"
#include "dispatcher/route.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/owned.h"
#include "lib/store/db_open.h"
#include "lib/store/live_look.h"
#include "proto/inbox.h"

#define STREAMS_US (3600ll * 1000000) /* how often streams are looked at */

struct tenant_blocks {
    uint32_t tenant, blocks;
};

struct sweeper {
    /* One dead worker at a time: its slots in every block of every tenant. */
    bool asking, reaping, failed;
    uint16_t worker;
    unsigned under_way;
    uint64_t devices;
    /* Numbers that are in `workers`, as it was asked last. */
    bool listed;
    uint64_t known[(UINT16_MAX + 1) / 64];
    struct tenant_blocks *tenants;
    size_t tenant_count, tenant;
    uint32_t block;
    /* Deleted devices. */
    bool reading;
    uint64_t from;             /* the last that was looked at in this round: tenant << 32 | seq */
    struct buf seen, seen_now; /* those of the round before, and of this one, in order */
    int64_t streams_us;
};

struct sweeper *sweeper_new(struct reign *r)
{
    (void)r;
    return calloc(1, sizeof(struct sweeper));
}

void sweeper_free(struct sweeper **s)
{
    if (!*s)
        return;
    free((*s)->tenants);
    buf_free(&(*s)->seen);
    buf_free(&(*s)->seen_now);
    free(*s);
    *s = NULL;
}

/* --- dead workers ------------------------------------------------------------------------------------------------ */
/* Some of them may have been at another worker already, attached before what this one had still on its way. */
static void look_for_strays(struct reign *r)
{
    struct buf item = {0};
    inbox_put(&item, &(struct inbox_item){.kind = INBOX_CHECK});
    if (!item.failed)
        live_tell_workers(r->live, LIVE_URGENT, buf_slice(&item));
    buf_free(&item);
}

static void forgotten(void *arg, enum err err)
{
    struct reign *r = arg;
    if (!reign_back(r))
        return;
    r->sweeper->reaping = false;
    if (err)
        return;
    r->figures->reaped_workers++;
    log_info("worker_reaped", "worker=%u devices=%llu", r->sweeper->worker, (unsigned long long)r->sweeper->devices);
    look_for_strays(r);
}

static void reap_pump(struct reign *r);

static void reaped(void *arg, enum err err, int64_t devices)
{
    struct reign *r = arg;
    if (!reign_back(r))
        return;
    r->sweeper->under_way--;
    r->sweeper->failed = r->sweeper->failed || err;
    r->sweeper->devices += err ? 0 : (uint64_t)devices;
    reap_pump(r);
}

static void reap_pump(struct reign *r)
{
    struct sweeper *s = r->sweeper;
    s->failed = s->failed || !reign_live(r); /* a Redis that was emptied does not know who is dead */
    while (!s->failed && s->under_way < SWEEP_MOVES && s->tenant < s->tenant_count) {
        const struct tenant_blocks *t = &s->tenants[s->tenant];
        if (s->block >= t->blocks) {
            s->tenant++;
            s->block = 0;
            continue;
        }
        s->under_way++;
        live_reap(r->live, t->tenant, s->block++, s->worker, reaped, reign_hold(r));
    }
    if (s->under_way)
        return;
    if (s->failed)
        s->reaping = false; /* begun again by the next sweep */
    else {
        router_forget_worker(r, s->worker);
        live_worker_forget(r->live, s->worker, forgotten, reign_hold(r));
    }
}

static void got_tenants(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    struct reign *r = arg;
    (void)error, (void)count;
    if (!reign_back(r))
        return;
    struct sweeper *s = r->sweeper;
    if (err) {
        s->reaping = false;
        return;
    }
    s->tenant_count = (size_t)pg_rows(results[0]);
    free(s->tenants);
    struct tenant_blocks *tenants = calloc(s->tenant_count + 1, sizeof *tenants);
    if (!tenants)
        abort();
    owned(tenants);
    s->tenants = tenants;
    for (size_t i = 0; i < s->tenant_count; i++)
        s->tenants[i] =
            (struct tenant_blocks){(uint32_t)pg_int(results[0], (int)i, 0), (uint32_t)pg_int(results[0], (int)i, 1)};
    s->tenant = s->block = 0;
    s->devices = 0;
    s->failed = false;
    reap_pump(r);
}

static void keep_known(struct sweeper *s, const struct live_worker *workers, size_t count)
{
    memset(s->known, 0, sizeof s->known);
    for (size_t i = 0; i < count; i++)
        s->known[workers[i].number / 64] |= 1ull << workers[i].number % 64;
    s->listed = count > 0;
}

static bool is_known(const struct sweeper *s, uint16_t worker)
{
    return s->known[worker / 64] >> worker % 64 & 1;
}

void sweep_met(struct reign *r, uint16_t worker)
{
    struct sweeper *s = r->sweeper;
    if (!s->listed || is_known(s, worker) || is_known(s, LIVE_UNKNOWN_WORKER))
        return;
    s->known[worker / 64] |= 1ull << worker % 64;
    live_worker_list(r->live, worker);
}

static void got_workers(void *arg, enum err err, const struct live_worker *workers, size_t count)
{
    struct reign *r = arg;
    if (!reign_back(r))
        return;
    struct sweeper *s = r->sweeper;
    s->asking = false;
    keep_known(s, workers, err ? 0 : count);
    for (size_t i = 0; !err && !s->reaping && i < count; i++) {
        if (workers[i].alive)
            continue;
        s->reaping = true;
        s->worker = workers[i].number;
        struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
        if (txn)
            db_open_tenants(txn);
        pg_txn_submit(txn, got_tenants, reign_hold(r));
    }
}

/* --- deleted devices --------------------------------------------------------------------------------------------- */
struct deleted {
    struct reign *reign;
    const uint64_t *keys; /* tenant << 32 | seq, in order */
    bool *open;           /* has a command that is not terminal */
    size_t count;
};

/* What its worker has, which may have sent it, ends when that one has closed the connection and handed it back. */
static void end_in_block(struct reign *r, struct open_block *b, const struct bitmap *slots)
{
    struct open_batch *batch = b->batch;
    if (batch->touched || batch->busy) {
        if (!reign_live(r))
            return; /* looked at again */
        walk_block(r, b, EVENT_CANCEL, slots, NULL);
    } else {
        int64_t now = db_clock_ms(r->clock);
        open_block_apply(&r->set, b, EVENT_CANCEL, slots, now);
        fold_changed(&r->log, b, true, now);
    }
}

/* The batch's open commands for deleted devices, block by block. */
static void look_at_batch(void *arg, struct open_batch *batch)
{
    struct deleted *d = arg;
    if (batch->stage != OPEN_RUNNING)
        return;
    size_t i = 0;
    while (i < d->count && d->keys[i] >> 32 < batch->tenant)
        i++;
    while (i < d->count && d->keys[i] >> 32 == batch->tenant) {
        uint32_t block = block_of((uint32_t)d->keys[i]);
        struct open_block *b = open_batch_block(batch, block);
        struct bitmap slots = {{0}};
        bool some = false;
        for (; i < d->count && d->keys[i] >> 32 == batch->tenant && block_of((uint32_t)d->keys[i]) == block; i++) {
            unsigned slot = slot_of((uint32_t)d->keys[i]);
            uint8_t state = b && b->remaining ? open_block_state(b, slot) : 0;
            if (!state || state_is_terminal(state_of(state)))
                continue;
            bitmap_set(&slots, slot);
            some = d->open[i] = true;
        }
        if (some)
            end_in_block(d->reign, b, &slots);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static bool was_seen(const struct sweeper *s, uint64_t key)
{
    size_t n = buf_len(&s->seen) / sizeof key;
    return n && bsearch(&key, buf_head(&s->seen), n, sizeof key, compare);
}

static void begin_round(struct sweeper *s)
{
    buf_free(&s->seen);
    s->seen = s->seen_now;
    s->seen_now = (struct buf){0};
    s->from = 0;
}

static void look_at_deleted(struct reign *r, const uint64_t *keys, size_t n)
{
    struct sweeper *s = r->sweeper;
    struct deleted d = {r, keys, calloc(n + 1, sizeof(bool)), n};
    if (!d.open)
        abort();
    open_set_each(&r->set, look_at_batch, &d);
    walker_pump(r);
    /* Seen in two rounds, and without open commands: in between every batch accepted before has come into the picture.
     * One that is forgotten now has not been seen, should its row come again. */
    for (size_t i = 0; i < n; i++) {
        if (!d.open[i] && was_seen(s, keys[i]))
            write_undeleted(r, (uint32_t)(keys[i] >> 32), (uint32_t)keys[i]);
        else
            buf_put(&s->seen_now, &keys[i], sizeof keys[i]);
        s->from = keys[i];
    }
    free(d.open);
    write_pump(r);
}

static void got_deleted(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    struct reign *r = arg;
    (void)error, (void)count;
    if (!reign_back(r))
        return;
    struct sweeper *s = r->sweeper;
    s->reading = false;
    if (err)
        return;
    uint64_t keys[SWEEP_DELETED];
    size_t n = (size_t)pg_rows(results[0]);
    for (size_t i = 0; i < n && i < SWEEP_DELETED; i++)
        keys[i] = (uint64_t)pg_int(results[0], (int)i, 0) << 32 | (uint32_t)pg_int(results[0], (int)i, 1);
    if (n)
        look_at_deleted(r, keys, n);
    if (n < SWEEP_DELETED)
        begin_round(s);
}

static void read_deleted(struct reign *r)
{
    if (r->sweeper->reading)
        return;
    r->sweeper->reading = true;
    struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
    if (txn)
        db_open_deleted(txn, (uint32_t)(r->sweeper->from >> 32), (uint32_t)r->sweeper->from, SWEEP_DELETED);
    pg_txn_submit(txn, got_deleted, reign_hold(r));
}

void sweep(struct reign *r)
{
    struct sweeper *s = r->sweeper;
    if (!r->loaded)
        return;
    read_deleted(r);
    if (clock_mono_us() - s->streams_us > STREAMS_US) {
        s->streams_us = clock_mono_us();
        write_forget_streams(r);
    }
    if (!reign_live(r) || s->asking || s->reaping)
        return;
    s->asking = true;
    live_workers_all(r->live, got_workers, reign_hold(r));
}
