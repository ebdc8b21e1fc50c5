#include "dispatcher/accept.h"

#include <stdlib.h>
#include <string.h>

/* Two, so that one gathers while the other commits; more only make smaller groups. */
#define WRITERS 2
/* Batches and bytes of one transaction: bounds what a refused one makes us repeat. */
#define GROUP_MAX       128
#define GROUP_BYTES_MAX (1024 * 1024)

/* One transaction at a time, over whichever connection is there. */
struct writer {
    struct acceptor *acceptor;
    struct accept_job *group[GROUP_MAX];
    size_t count; /* 0: idle */
};

struct acceptor {
    struct pg *pg;
    struct list waiting;
    struct writer writers[WRITERS];
};

static void start(struct writer *writer);

struct acceptor *acceptor_new(struct pg *pg)
{
    struct acceptor *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->pg = pg;
    list_init(&a->waiting);
    for (int i = 0; i < WRITERS; i++)
        a->writers[i].acceptor = a;
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

static void gather(struct writer *writer)
{
    size_t bytes = 0;
    writer->count = 0;
    while (!list_empty(&writer->acceptor->waiting) && writer->count < GROUP_MAX) {
        struct accept_job *job = container_of(writer->acceptor->waiting.next, struct accept_job, link);
        bytes += size_of(job);
        if (writer->count && (job->alone || bytes > GROUP_BYTES_MAX))
            break;
        list_remove(&job->link);
        writer->group[writer->count++] = job;
        if (job->alone)
            break;
    }
    /* See accept_batch in schema/postgres: the order keeps two such transactions from waiting for each other. */
    qsort(writer->group, writer->count, sizeof *writer->group, compare);
}

static void finish_all(struct writer *writer, enum err err, const struct pg_error *error)
{
    /* A done may submit the next job; the writer must look idle only when its group is told. */
    for (size_t i = 0; i < writer->count; i++)
        writer->group[i]->done(writer->group[i], err, error);
}

static void on_accepted(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    struct writer *writer = arg;
    for (size_t i = 0; err == ERR_OK && i < count; i++) {
        writer->group[i]->created = pg_bool(results[i], 0, 0);
        writer->group[i]->id = pg_int(results[i], 0, 1);
    }
    if (err == ERR_INVALID && writer->count > 1) {
        /* One of them spoils it: each by itself, in front of the others. */
        for (size_t i = writer->count; i-- > 0;) {
            writer->group[i]->alone = true;
            list_insert(writer->acceptor->waiting.next, &writer->group[i]->link);
        }
    } else {
        finish_all(writer, err, error);
    }
    writer->count = 0;
    start(writer);
}

static void start(struct writer *writer)
{
    gather(writer);
    if (!writer->count)
        return;
    struct pg_txn *txn = pg_txn_new(writer->acceptor->pg, PG_ANY_LANE);
    for (size_t i = 0; i < writer->count; i++)
        db_batch_accept(txn, &writer->group[i]->batch);
    if (txn) {
        pg_txn_submit(txn, on_accepted, writer);
    } else {
        finish_all(writer, ERR_NOMEM, NULL);
        writer->count = 0;
    }
}

void acceptor_submit(struct acceptor *acceptor, struct accept_job *job)
{
    list_append(&acceptor->waiting, &job->link);
    for (int i = 0; i < WRITERS; i++)
        if (!acceptor->writers[i].count) {
            start(&acceptor->writers[i]);
            return;
        }
}
