#include "dispatcher/breakdown.h"

#include <stdlib.h>
#include <string.h>

#include "lib/store/db_batch.h"
#include "lib/store/db_control.h"
#include "lib/store/db_device.h"

/* Blocks looked at at a time: 32,768 commands are counted in about a millisecond. */
#define BLOCKS_AT_ONCE 32

struct breakdown_run {
    struct dispatcher *d;
    struct view_batch batch;
    int32_t *blocks; /* owned */
    size_t n, next, asked;
    struct breakdown_basis basis;
    struct breakdown found;
    breakdown_fn *done;
    void *arg;
};

static void finish(struct breakdown_run *run, enum err err)
{
    run->done(run->arg, err, err == ERR_OK ? &run->found : NULL);
    breakdown_basis_free(&run->basis);
    free(run->blocks);
    free(run);
}

/* --- commands ----------------------------------------------------------------------------------------------------- */

static void look_on(struct breakdown_run *run);

static void on_blocks(void *arg, enum err err, struct view_block *blocks, size_t n)
{
    struct breakdown_run *run = arg;
    if (err != ERR_OK) {
        finish(run, err);
        return;
    }
    size_t at = run->next;
    for (size_t i = 0; i < n; i++) {
        while (at + 1 < run->next + run->asked && (uint32_t)run->blocks[at] != blocks[i].block)
            at++;
        breakdown_add(&run->found, &run->basis, (uint32_t)at, &blocks[i]);
    }
    run->next += run->asked;
    look_on(run);
}

static void look_on(struct breakdown_run *run)
{
    run->asked = run->n - run->next < BLOCKS_AT_ONCE ? run->n - run->next : BLOCKS_AT_ONCE;
    if (run->asked)
        view_load(run->d, &run->batch, run->blocks + run->next, run->asked, on_blocks, run);
    else
        finish(run, ERR_OK);
}

/* --- what they are counted by ------------------------------------------------------------------------------------- */

static void take_platforms(struct breakdown_run *run, const struct pg_result *rows)
{
    struct db_device_block b;
    for (int i = 0; i < pg_rows(rows); i++)
        if (db_device_block_read(rows, i, &b) && b.platform >= 0 && b.platform < ROLLOUT_PLATFORMS)
            target_set_add(&run->basis.platforms[b.platform], b.block, &b.slots);
}

/* The batch's blocks, in the order of the waves; false without memory. */
static bool take_blocks(struct breakdown_run *run, const struct pg_result *rows)
{
    struct db_batch_block b;
    run->blocks = malloc(((size_t)pg_rows(rows) + 1) * sizeof *run->blocks);
    for (int i = 0; run->blocks && i < pg_rows(rows); i++) {
        if (!db_batch_addressed_read(rows, i, &b))
            continue;
        run->blocks[run->n++] = (int32_t)b.block;
        wave_order_add(&run->basis.order, b.block, &b.targets);
    }
    return run->blocks && !run->basis.order.failed;
}

static bool take_parts(struct breakdown_run *run, const struct pg_result *rows)
{
    struct target_set *canary = &run->basis.order.canary, *joined = &run->basis.order.joined;
    struct db_control_part part;
    for (int i = 0; i < pg_rows(rows); i++)
        if (db_control_part_read(rows, i, &part) && (part.kind == DB_PART_CANARY || part.kind == DB_PART_JOINED))
            target_set_add(part.kind == DB_PART_CANARY ? canary : joined, part.block, &part.slots);
    return !canary->failed && !joined->failed;
}

/* Behind the blocks. A steering that can't be read has no waves. */
static void take_waves(struct breakdown_run *run, const struct pg_result *rollout)
{
    const struct wave_order *order = &run->basis.order;
    struct db_rollout row;
    run->found.waves = run->found.waves_out = 1;
    if (!pg_rows(rollout))
        return;
    db_control_rollout_read(rollout, 0, &row);
    Muster__V1__Steering *in = muster__v1__steering__unpack(NULL, row.steering.len, row.steering.data);
    if (!in)
        return;
    rollout_read(&run->basis.plan, in, order->devices, order->canary_devices);
    muster__v1__steering__free_unpacked(in, NULL);
    if (run->basis.plan.waves) {
        run->found.waves = run->basis.plan.waves;
        run->found.waves_out = row.wave + 1;
    }
}

/* Results: platforms, the rollout, its parts, whom it addresses. */
static void on_basis(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    struct breakdown_run *run = arg;
    (void)error, (void)count;
    if (err == ERR_OK) {
        take_platforms(run, results[0]);
        if (!take_parts(run, results[2]) || !take_blocks(run, results[3]))
            err = ERR_NOMEM;
        take_waves(run, results[1]);
    }
    if (err == ERR_OK)
        look_on(run);
    else
        finish(run, err);
}

void breakdown_run(struct dispatcher *d, const struct view_batch *batch, breakdown_fn *done, void *arg)
{
    struct breakdown_run *run = calloc(1, sizeof *run);
    struct pg_txn *txn = run ? pg_txn_new(d->pg, PG_ANY_LANE) : NULL;
    if (!txn) {
        free(run);
        done(arg, ERR_NOMEM, NULL);
        return;
    }
    *run = (struct breakdown_run){.d = d, .batch = *batch, .done = done, .arg = arg};
    db_device_blocks_of(txn, batch->tenant, batch->id);
    db_control_rollout(txn, (uint64_t)batch->id);
    db_control_parts(txn, (uint64_t)batch->id);
    db_batch_addressed(txn, batch->id);
    pg_txn_submit(txn, on_basis, run);
}
