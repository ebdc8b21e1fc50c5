#include "dispatcher/leader_load.h"

#include <stdlib.h>

#include "dispatcher/control.h"
#include "dispatcher/joiner.h"
#include "dispatcher/route.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/owned.h"

#define PAGE_BATCHES 1000 /* batches in one answer: about 100 bytes each */
#define GROUP_BLOCKS 1024 /* blocks in one answer, or one batch's: up to 1.2 KB each */

/* What this process accepts is taken at once only if it was looked so lately what others have: theirs, when PostgreSQL
 * is slow to tell of it, comes first. Twice the usual time between looks, and room for one. */
#define OWN_LOOK_US (500 * 1000)

struct loader {
    load_done_fn *done;
    struct db_open *rows; /* batches whose blocks are still to be read */
    size_t count, next, group_end;
    bool all;         /* page after page */
    bool fresh;       /* accepted under this reign: Redis does not know them */
    uint64_t last;    /* number of the last batch of the page */
    struct buf times; /* of partly recorded blocks: struct open_block *, in the order asked */
};

struct loader *loader_new(struct reign *r)
{
    (void)r;
    return calloc(1, sizeof(struct loader));
}

void loader_free(struct loader **l)
{
    if (!*l)
        return;
    free((*l)->rows);
    buf_free(&(*l)->times);
    free(*l);
    *l = NULL;
}

static void load_group(struct reign *r);

static void next_page(struct reign *r);

static void finish(struct reign *r)
{
    struct loader *l = r->loader;
    free(l->rows);
    l->rows = NULL;
    if (l->all) {
        next_page(r);
        return;
    }
    l->done(r);
}

static void loaded_rows(struct reign *r, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        struct open_batch *batch = open_set_find(&r->set, r->loader->rows[i].id);
        if (batch)
            reign_loaded_batch(r, batch);
    }
}

/* --- times of blocks that are partly recorded ------------------------------------------------------------------- */
static void got_times(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                      size_t count)
{
    struct reign *r = arg;
    (void)error, (void)count;
    if (!reign_back(r))
        return;
    if (err) {
        reign_fail(r, "load_times", err);
        return;
    }
    for (int i = 0; i < pg_rows(results[0]); i++) {
        struct open_batch *batch = open_set_find(&r->set, (uint64_t)pg_int(results[0], i, 0));
        struct open_block *b = batch ? open_batch_block(batch, (uint32_t)pg_int(results[0], i, 1)) : NULL;
        if (b)
            open_block_put_times(b, pg_bytes(results[0], i, 2));
    }
    loaded_rows(r, r->loader->next, r->loader->group_end);
    r->loader->next = r->loader->group_end;
    load_group(r);
}

static void ask_times(struct reign *r)
{
    struct loader *l = r->loader;
    size_t n = buf_len(&l->times) / sizeof(struct open_block *);
    struct open_block **blocks = (struct open_block **)(void *)buf_head(&l->times);
    struct buf ids = {0}, numbers = {0};
    for (size_t i = 0; i < n; i++) {
        buf_put(&ids, &(int64_t){(int64_t)blocks[i]->batch->id}, sizeof(int64_t));
        buf_put(&numbers, &(int32_t){(int32_t)blocks[i]->block}, sizeof(int32_t));
    }
    struct pg_txn *txn = pg_txn_new(r->pg, r->lane);
    if (txn)
        db_open_times(txn, (int64_t *)(void *)buf_head(&ids), (int32_t *)(void *)buf_head(&numbers), n);
    pg_txn_submit(txn, got_times, reign_hold(r));
    buf_free(&ids);
    buf_free(&numbers);
}

/* --- blocks ----------------------------------------------------------------------------------------------------- */
static const struct db_open *find_row(const struct loader *l, uint64_t id)
{
    for (size_t i = l->next; i < l->group_end; i++)
        if (l->rows[i].id == id)
            return &l->rows[i];
    return NULL;
}

/* Rows [from, to) are its. NULL without memory. */
static struct open_batch *make_batch(struct reign *r, const struct db_open *row, const struct pg_result *result,
                                     int from, int to)
{
    struct db_open_block block;
    size_t bytes = 0;
    if (row->growing && !row->cancel_requested)
        return open_set_add_growing(&r->set, row->id, row->blocks);
    for (int i = from; i < to; i++) {
        db_open_block_read(result, i, &block);
        bytes += block.targets.len;
    }
    return open_set_add(&r->set, row->id, (uint32_t)(to - from), bytes);
}

static bool put_block(struct reign *r, struct open_batch *batch, const struct db_open_block *b)
{
    return batch->growing ? open_batch_place(&r->set, batch, b->block, b->first, b->targets, b->states)
                          : open_batch_put(&r->set, batch, b->block, b->first, b->targets, b->states);
}

/* Rows [from, to) of the answer are one batch's. */
static void add_batch(struct reign *r, const struct db_open *row, const struct pg_result *result, int from, int to)
{
    struct db_open_block block;
    struct open_batch *batch = make_batch(r, row, result, from, to);
    if (!batch)
        return;
    batch->tenant = row->tenant;
    batch->priority = row->priority;
    batch->created_ms = row->created_ms;
    batch->expires_ms = row->expires_ms;
    batch->command_bytes = row->command_bytes;
    batch->routed = row->routed;
    batch->handed = row->routed;
    batch->touched = batch->rebuilt = !r->loader->fresh; /* Redis may have been filled since it was sent */
    batch->canceling = row->cancel_requested;
    batch->canceled = row->canceled;
    batch->keyed = row->keyed;
    batch->valued = row->valued;
    batch->keep_cells = row->steered && row->steer.rollout;
    for (int i = from; i < to; i++) {
        db_open_block_read(result, i, &block);
        if (!put_block(r, batch, &block)) {
            log_error("block_unreadable", "batch=%llu block=%u", (unsigned long long)row->id, block.block);
            continue;
        }
        struct open_block *b = open_batch_block(batch, block.block);
        if (b && b->cells)
            buf_put(&r->loader->times, &b, sizeof b);
    }
    if (row->steered)
        control_load(r, batch, row->paused, row->request, &row->steer);
    if (batch->growing)
        joiner_add(r, batch);
}

/* Dynamic ones whom nobody has joined have no rows; that it was sealed so may not have come to a leader yet. */
static void add_empty(struct reign *r)
{
    const struct loader *l = r->loader;
    for (size_t i = l->next; i < l->group_end; i++)
        if (!open_set_find(&r->set, l->rows[i].id) && !open_set_is_closed(&r->set, l->rows[i].id))
            add_batch(r, &l->rows[i], NULL, 0, 0);
}

static void got_blocks(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                       size_t count)
{
    struct reign *r = arg;
    (void)error, (void)count;
    if (!reign_back(r))
        return;
    if (err) {
        reign_fail(r, "load_blocks", err);
        return;
    }
    struct loader *l = r->loader;
    buf_reset(&l->times);
    struct db_open_block first, block;
    for (int i = 0, from = 0, n = pg_rows(results[0]); i < n; i++) {
        db_open_block_read(results[0], from, &first);
        if (i + 1 < n)
            db_open_block_read(results[0], i + 1, &block);
        if (i + 1 < n && block.batch == first.batch)
            continue;
        const struct db_open *row = find_row(l, first.batch);
        if (row && !open_set_find(&r->set, row->id) && !open_set_is_closed(&r->set, row->id))
            add_batch(r, row, results[0], from, i + 1);
        from = i + 1;
    }
    add_empty(r);
    if (r->set.failed || l->times.failed) {
        reign_fail(r, "load_blocks", ERR_NOMEM);
    } else if (buf_len(&l->times)) {
        ask_times(r);
    } else {
        loaded_rows(r, l->next, l->group_end);
        l->next = l->group_end;
        load_group(r);
    }
}

/* Asks for the blocks of as many batches as may have GROUP_BLOCKS. */
static void load_group(struct reign *r)
{
    struct loader *l = r->loader;
    while (l->next < l->count && open_set_find(&r->set, l->rows[l->next].id))
        l->next++;
    if (l->next == l->count) {
        finish(r);
        return;
    }
    int64_t ids[PAGE_BATCHES];
    size_t n = 0, blocks = 0;
    for (l->group_end = l->next; l->group_end < l->count && n < PAGE_BATCHES; l->group_end++) {
        const struct db_open *row = &l->rows[l->group_end];
        if (n && blocks + row->blocks > GROUP_BLOCKS)
            break;
        blocks += row->blocks;
        ids[n++] = (int64_t)row->id;
    }
    struct pg_txn *txn = pg_txn_new(r->pg, r->lane);
    if (txn)
        db_open_blocks(txn, ids, n);
    pg_txn_submit(txn, got_blocks, reign_hold(r));
}

/* --- batches ---------------------------------------------------------------------------------------------------- */
static bool keep_rows(struct reign *r, const struct pg_result *result)
{
    struct loader *l = r->loader;
    l->count = (size_t)pg_rows(result);
    l->next = 0;
    free(l->rows);
    struct db_open *rows = calloc(l->count + 1, sizeof *rows);
    owned(rows);
    l->rows = rows;
    if (!rows) {
        reign_fail(r, "load_batches", ERR_NOMEM);
        return false;
    }
    for (size_t i = 0; i < l->count; i++)
        db_open_read(result, (int)i, &l->rows[i]);
    return true;
}

static void got_page(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    struct reign *r = arg;
    (void)error, (void)count;
    if (!reign_back(r))
        return;
    struct loader *l = r->loader;
    if (err) {
        reign_fail(r, "load_batches", err);
    } else if (keep_rows(r, results[0])) {
        if (l->count == 0)
            l->all = false;
        else
            l->last = l->rows[l->count - 1].id;
        load_group(r);
    }
}

static void next_page(struct reign *r)
{
    struct pg_txn *txn = pg_txn_new(r->pg, r->lane);
    if (txn)
        db_open_page(txn, r->loader->last, PAGE_BATCHES);
    pg_txn_submit(txn, got_page, reign_hold(r));
}

void loader_all(struct reign *r, load_done_fn *done)
{
    r->loader->done = done;
    r->loader->all = true;
    r->loader->fresh = false;
    next_page(r);
}

/* What is neither open nor closed may still be accepted, or released: a device can say any number. */
static void got_some(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    struct reign *r = arg;
    (void)error, (void)count;
    if (!reign_back(r))
        return;
    if (err) {
        reign_fail(r, "load_batches", err);
    } else if (keep_rows(r, results[0])) {
        for (int i = 0; i < pg_rows(results[1]); i++)
            open_set_note_closed(&r->set, (uint64_t)pg_int(results[1], i, 0));
        load_group(r);
    }
}

void loader_some(struct reign *r, const int64_t *ids, size_t n, load_done_fn *done)
{
    r->loader->done = done;
    r->loader->fresh = false;
    struct pg_txn *txn = pg_txn_new(r->pg, r->lane);
    if (txn) {
        db_open_some(txn, ids, n);
        db_closed_some(txn, ids, n);
    }
    pg_txn_submit(txn, got_some, reign_hold(r));
}

void loader_take(struct reign *r, const struct db_open *rows, size_t n, load_done_fn *done)
{
    struct loader *l = r->loader;
    free(l->rows);
    l->rows = malloc((n + 1) * sizeof *rows);
    if (!l->rows) {
        reign_fail(r, "load_take", ERR_NOMEM);
        return;
    }
    memcpy(l->rows, rows, n * sizeof *rows);
    l->count = n;
    l->next = 0;
    l->done = done;
    l->fresh = true;
    load_group(r);
}

bool loader_accepted(struct reign *r, uint64_t id, const struct db_accept *a)
{
    size_t bytes = 0;
    if (!r->loaded || r->failed || clock_mono_us() - r->looked_us > OWN_LOOK_US || a->dynamic.len)
        return false; /* a dynamic one is read: nothing of it hurries */
    if (open_set_find(&r->set, id) || open_set_is_closed(&r->set, id))
        return true; /* read meanwhile */
    for (size_t i = 0; i < a->block_count; i++)
        bytes += a->targets[i].len;
    struct open_batch *batch = open_set_add(&r->set, id, (uint32_t)a->block_count, bytes);
    if (!batch)
        return false;
    batch->tenant = (uint32_t)a->tenant;
    batch->priority = (uint8_t)a->priority;
    batch->created_ms = a->created_ms;
    batch->expires_ms = a->expires_ms;
    batch->command_bytes = (uint32_t)a->command.len;
    batch->keyed = *a->supersede_key;
    batch->keep_cells = a->steering.len && a->steer.rollout;
    for (size_t i = 0; i < a->block_count; i++)
        if (!open_batch_put(&r->set, batch, (uint32_t)a->blocks[i], (unsigned)a->firsts[i], a->targets[i],
                            (struct slice){0}))
            abort(); /* made by this process */
    batch->valued = a->values != NULL;
    if (a->steering.len || a->steer.retry.after)
        control_load(r, batch, false, 0, &a->steer);
    else if (!batch->valued)
        router_known(r, batch, a->command);
    reign_loaded_batch(r, batch);
    return true;
}
