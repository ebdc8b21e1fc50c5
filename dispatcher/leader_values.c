#include "dispatcher/leader_values.h"

#include <stdlib.h>

#include "lib/store/db_values.h"

#define PAGE_BYTES (4 << 20) /* read at a time */

struct values_job {
    struct reign *reign;
    struct open_batch *batch;
    values_put_fn *done;
    int32_t after; /* the last block read */
    unsigned left; /* answers of Redis that this page waits for, and one while it is read */
    enum err err;
};

static void next_page(struct values_job *job);

static void finish(struct values_job *job)
{
    struct reign *r = job->reign;
    struct open_batch *batch = job->batch;
    job->done(r, batch, job->err);
    free(job);
    reign_idle(r, batch);
}

/* One less to wait for; the last one goes on, unless the reign is over. */
static void step_back(struct values_job *job, bool alive)
{
    if (--job->left > 0)
        return;
    if (!alive)
        free(job);
    else if (job->err || job->after < 0)
        finish(job);
    else
        next_page(job);
}

static void put_done(void *arg, enum err err)
{
    struct values_job *job = arg;
    bool alive = reign_back(job->reign);
    job->err = err ? err : job->err;
    step_back(job, alive);
}

static void got_page(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    struct values_job *job = arg;
    struct reign *r = job->reign;
    (void)error, (void)count;
    bool alive = reign_back(r);
    int rows = err || !alive ? 0 : pg_rows(results[0]);
    job->err = err;
    job->after = -1; /* unless there was something */
    for (int i = 0; i < rows; i++) {
        job->after = (int32_t)pg_int(results[0], i, 0);
        job->left++;
        reign_hold(r);
        live_put_values(r->live, (struct live_place){job->batch->tenant, (uint32_t)job->after, job->batch->id},
                        pg_bytes(results[0], i, 1), put_done, job);
    }
    step_back(job, alive);
}

static void next_page(struct values_job *job)
{
    struct reign *r = job->reign;
    struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
    if (txn)
        db_values_page(txn, (int64_t)job->batch->id, job->after, PAGE_BYTES);
    job->left = 1;
    reign_hold(r);
    pg_txn_submit(txn, got_page, job);
}

void values_put(struct reign *r, struct open_batch *batch, values_put_fn *done)
{
    struct values_job *job = malloc(sizeof *job);
    if (!job)
        abort(); /* a fresh process does better than one that has forgotten a batch */
    *job = (struct values_job){.reign = r, .batch = batch, .done = done, .after = -1};
    reign_busy(batch);
    next_page(job);
}
