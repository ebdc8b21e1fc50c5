/* Who joins is written down: what the tenant's rate lets through; with a key first that older batches end for them. */
#include <inttypes.h>
#include <stdlib.h>

#include "dispatcher/control.h"
#include "dispatcher/joiner_internal.h"
#include "dispatcher/leader_write.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/owned.h"
#include "lib/store/db_dynamic.h"
#include "lib/store/db_quota.h"

/* What was asked of an older batch with the key. */
struct join_older {
    uint64_t batch;
    int32_t request;
};

struct join_write {
    struct reign *reign;
    struct growing *of;
    uint32_t devices;
    int64_t since_ms; /* when it was begun to find them */
    size_t count;
    int32_t blocks[JOIN_BLOCKS];
    struct bitmap new[JOIN_BLOCKS], targets[JOIN_BLOCKS], joined[JOIN_BLOCKS];
    size_t older_count;
    struct join_older older[]; /* that have not ended for them yet */
};

/* They are in the picture; what has come over the batch meanwhile comes over them. */
static void take_in(const struct join_write *w)
{
    struct reign *r = w->reign;
    struct growing *g = w->of;
    struct open_batch *batch = g->batch;
    int64_t now_ms = db_clock_ms(r->clock);
    if (!open_batch_extend(batch, (uint32_t)w->blocks[w->count - 1] + 1)) {
        reign_fail(r, "batch_grown", ERR_OK);
        return;
    }
    for (size_t i = 0; i < w->count; i++) {
        struct open_block *b = &batch->blocks[w->blocks[i]];
        open_block_join(&r->set, b, &w->new[i], now_ms);
        target_set_add(&g->joined, b->block, &w->new[i]);
        control_joined(batch->control, b, &w->new[i]);
        if (batch->canceling || batch->ending)
            open_block_apply(&r->set, b, batch->canceling ? EVENT_CANCEL : EVENT_EXPIRE, &w->new[i], now_ms);
        fold_changed(&r->log, b, true, now_ms);
    }
    g->routes = !batch->canceling && !batch->ending;
    log_info("joined", "batch=%" PRIu64 " devices=%u", batch->id, w->devices);
}

/* What a statement was for; NULL: the reign is over. */
static struct join_write *back(void *arg)
{
    struct join_write *w = arg;
    if (reign_back(w->reign))
        return w;
    free(w);
    return NULL;
}

/* Nothing is written any more; what waited for it goes on. */
static void write_over(struct join_write *w)
{
    struct growing *g = w->of; /* its batch is busy, so it is there */
    struct reign *r = w->reign;
    free(w);
    g->writing = g->submitting = false;
    if (g->end)
        growing_seal(g);
    write_pump(r);
    reign_idle(r, g->batch);
}

static void written(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct join_write *w = back(arg);
    if (!w)
        return;
    if (err)
        reign_fail(w->reign, db_lease_fenced(err, error) ? "fenced" : "join", err);
    else if (pg_bool(results[count - 1], 0, 0))
        take_in(w);
    else if (w->of->batch->keyed)
        growing_read_again(w->of);
    write_over(w);
}

/* In a transaction of the leader's. */
static struct pg_txn *begin_write(struct join_write *w, void (*add)(struct pg_txn *txn, const struct db_join *join))
{
    struct reign *r = w->reign;
    const struct growing *g = w->of;
    struct slice slots[3][JOIN_BLOCKS];
    for (size_t i = 0; i < w->count; i++) {
        slots[0][i] = (struct slice){w->targets[i].bytes, BITMAP_BYTES};
        slots[1][i] = (struct slice){w->joined[i].bytes, BITMAP_BYTES};
        slots[2][i] = (struct slice){w->new[i].bytes, BITMAP_BYTES};
    }
    struct db_join join = {.tenant = (int32_t)g->batch->tenant,
                           .batch = g->batch->id,
                           .devices = w->devices,
                           .blocks = w->blocks,
                           .targets = slots[0],
                           .joined = slots[1],
                           .new = slots[2],
                           .count = w->count,
                           .since_ms = w->since_ms};
    struct pg_txn *txn = pg_txn_new(r->pg, r->lane);
    if (!txn)
        abort();
    db_lease_fence(txn, &r->fence);
    add(txn, &join);
    reign_hold(r);
    return txn;
}

static void submit(struct join_write *w)
{
    w->of->submitting = true;
    pg_txn_submit(begin_write(w, db_dynamic_join), written, w);
}

/* --- what older batches of its key lose --------------------------------------------------------------------------- */

static bool older_ended(struct join_write *w)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->older_count; i++) {
        const struct open_batch *batch = open_set_find(&w->reign->set, w->older[i].batch);
        if (batch && batch->stage == OPEN_RUNNING && !control_settled_to(batch, w->older[i].request))
            w->older[kept++] = w->older[i];
    }
    w->older_count = kept;
    return !kept;
}

static void key_taken(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                      size_t count)
{
    struct join_write *w = back(arg);
    if (!w)
        return;
    const struct pg_result *rows = err ? NULL : results[count - 1];
    size_t n = rows ? (size_t)pg_rows(rows) : 0;
    if (err) {
        reign_fail(w->reign, db_lease_fenced(err, error) ? "fenced" : "join_key", err);
        write_over(w);
        return;
    }
    if (n == 1 && !pg_int(rows, 0, 0)) {
        growing_read_again(w->of); /* newer ones have come since */
        write_over(w);
        return;
    }
    w = realloc(w, sizeof *w + n * sizeof *w->older);
    if (!w)
        abort();
    for (size_t i = 0; i < n; i++)
        w->older[i] = (struct join_older){(uint64_t)pg_int(rows, (int)i, 0), (int32_t)pg_int(rows, (int)i, 1)};
    w->older_count = n;
    owned(w);
    w->of->waits = w;
}

/* What it waits for has ended, or the batch is over. When it was sealed meanwhile they join all the same: they have
 * lost what older ones had for them. */
void join_write_wait_on(struct growing *g)
{
    struct join_write *w = g->waits;
    if (growing_goes_on(g) && !older_ended(w))
        return;
    g->waits = NULL;
    if (growing_goes_on(g))
        submit(w);
    else
        write_over(w);
}

static void write_down(struct join_write *w)
{
    if (w->of->batch->keyed)
        pg_txn_submit(begin_write(w, db_dynamic_key), key_taken, w);
    else
        submit(w);
}

/* --- what the tenant's rate lets through -------------------------------------------------------------------------- */

/* The first `most` of them, block by block. */
static void cut(struct join_write *w, uint32_t most)
{
    size_t count = 0;
    w->devices = 0;
    for (size_t i = 0; i < w->count && w->devices < most; i++) {
        struct bitmap beyond = w->new[i];
        w->devices += bitmap_cut(&w->new[i], most - w->devices);
        bitmap_and_not(&beyond, &w->new[i]);
        bitmap_and_not(&w->targets[i], &beyond);
        bitmap_and_not(&w->joined[i], &beyond);
        count = i + 1;
    }
    w->count = count;
}

static void granted(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct join_write *w = back(arg);
    if (!w)
        return;
    uint32_t most = err ? 0 : (uint32_t)pg_int(results[count - 1], 0, 0);
    if (err && db_lease_fenced(err, error))
        reign_fail(w->reign, "fenced", err);
    if (most < w->devices) {
        w->of->left_out = true;
        w->of->latest_us = clock_mono_us() + JOIN_AGAIN_MS * 1000;
        cut(w, most);
    }
    if (w->devices)
        write_down(w);
    else
        write_over(w);
}

/* As many as the tenant's rate has left. */
static void ask_quota(struct join_write *w)
{
    struct reign *r = w->reign;
    struct growing *g = w->of;
    struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
    if (txn) {
        db_lease_fence(txn, &r->fence);
        db_quota_grant(txn, (int32_t)g->batch->tenant, w->devices);
    }
    g->writing = true;
    reign_busy(g->batch);
    reign_hold(r);
    pg_txn_submit(txn, granted, w);
}

/* Writes down who is new. */
void join_write_new(struct reign *r, const struct join_look *look)
{
    struct growing *g = look->of;
    struct join_write *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    *w = (struct join_write){.reign = r, .of = g, .since_ms = look->began_ms};
    const struct target_set *all = join_look_meant(look);
    for (size_t i = 0; i < all->count; i++) {
        const struct target_block *meant = &all->blocks[i], *joined = target_set_find(&g->joined, meant->block);
        struct bitmap new = growing_new(g, meant);
        unsigned n = bitmap_count(&new);
        if (!n)
            continue;
        if (w->count == JOIN_BLOCKS) {
            g->wanted = true; /* the others with the next look */
            break;
        }
        w->devices += n;
        w->blocks[w->count] = (int32_t)meant->block;
        w->new[w->count] = w->targets[w->count] = w->joined[w->count] = new;
        if (meant->block < g->batch->block_count) {
            struct bitmap there = open_block_bitmap(&g->batch->blocks[meant->block]);
            bitmap_or(&w->targets[w->count], &there);
        }
        if (joined)
            bitmap_or(&w->joined[w->count], &joined->slots);
        w->count++;
    }
    if (w->count)
        ask_quota(w);
    else
        free(w);
}
