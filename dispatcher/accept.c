#include "dispatcher/accept.h"

#include <stdlib.h>
#include <string.h>

/* Two, so that one gathers while the other commits; more only make smaller groups. */
#define LANES 2
/* Batches and bytes of one transaction: bounds what a refused one makes us repeat. */
#define GROUP_MAX       128
#define GROUP_BYTES_MAX (1024 * 1024)

struct lane {
    struct acceptor *acceptor;
    int number;
    struct accept_job *group[GROUP_MAX];
    size_t count; /* 0: idle */
};

struct acceptor {
    struct pg *pg;
    struct list waiting;
    struct lane lanes[LANES];
};

static void start(struct lane *lane);

struct acceptor *acceptor_new(struct pg *pg)
{
    struct acceptor *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->pg = pg;
    list_init(&a->waiting);
    for (int i = 0; i < LANES; i++) {
        a->lanes[i].acceptor = a;
        a->lanes[i].number = 1 + i; /* lane 0 is the leader's */
    }
    return a;
}

void acceptor_free(struct acceptor **acceptor)
{
    free(*acceptor);
    *acceptor = NULL;
}

static int compare(const void *a, const void *b)
{
    const struct db_accept *x = &(*(struct accept_job *const *)a)->batch, *y = &(*(struct accept_job *const *)b)->batch;
    if (x->tenant != y->tenant)
        return x->tenant < y->tenant ? -1 : 1;
    return strcmp(x->request_id, y->request_id);
}

static size_t size_of(const struct accept_job *job)
{
    return job->batch.command.len + job->batch.block_count * BITMAP_BYTES;
}

static void gather(struct lane *lane)
{
    size_t bytes = 0;
    lane->count = 0;
    while (!list_empty(&lane->acceptor->waiting) && lane->count < GROUP_MAX) {
        struct accept_job *job = container_of(lane->acceptor->waiting.next, struct accept_job, link);
        bytes += size_of(job);
        if (lane->count && (job->alone || bytes > GROUP_BYTES_MAX))
            break;
        list_remove(&job->link);
        lane->group[lane->count++] = job;
        if (job->alone)
            break;
    }
    /* See accept_batch in schema/postgres: the order keeps two such transactions from waiting for each other. */
    qsort(lane->group, lane->count, sizeof *lane->group, compare);
}

static void finish_all(struct lane *lane, enum err err, const struct pg_error *error)
{
    /* A done may submit the next job; the lane must look idle only when its group is told. */
    for (size_t i = 0; i < lane->count; i++)
        lane->group[i]->done(lane->group[i], err, error);
}

static void on_accepted(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    struct lane *lane = arg;
    for (size_t i = 0; err == ERR_OK && i < count; i++) {
        lane->group[i]->created = pg_bool(results[i], 0, 0);
        lane->group[i]->id = pg_int(results[i], 0, 1);
    }
    if (err == ERR_INVALID && lane->count > 1) {
        /* One of them spoils it: each by itself, in front of the others. */
        for (size_t i = lane->count; i-- > 0;) {
            lane->group[i]->alone = true;
            list_insert(lane->acceptor->waiting.next, &lane->group[i]->link);
        }
    } else {
        finish_all(lane, err, error);
    }
    lane->count = 0;
    start(lane);
}

static void start(struct lane *lane)
{
    gather(lane);
    if (!lane->count)
        return;
    struct pg_txn *txn = pg_txn_new(lane->acceptor->pg, lane->number);
    for (size_t i = 0; i < lane->count; i++)
        db_batch_accept(txn, &lane->group[i]->batch);
    if (txn) {
        pg_txn_submit(txn, on_accepted, lane);
    } else {
        finish_all(lane, ERR_NOMEM, NULL);
        lane->count = 0;
    }
}

void acceptor_submit(struct acceptor *acceptor, struct accept_job *job)
{
    list_append(&acceptor->waiting, &job->link);
    for (int i = 0; i < LANES; i++)
        if (!acceptor->lanes[i].count) {
            start(&acceptor->lanes[i]);
            return;
        }
}
