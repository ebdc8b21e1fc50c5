#include "dispatcher/accept.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"

/* Two, so that one gathers while the other commits; more only make smaller groups. */
#define WRITERS 2
/* Batches and bytes of one transaction: bounds what a refused one makes us repeat. */
#define GROUP_MAX       128
#define GROUP_BYTES_MAX (1024 * 1024)
/* Between transactions: where many callers come, a group of them costs PostgreSQL little more than one, and one that
 * comes alone does not wait. */
#define PACE_US 2000

/* One transaction at a time, over whichever connection is there. */
struct writer {
    struct acceptor *acceptor;
    struct accept_job *group[GROUP_MAX]; /* all with a device, or none */
    size_t count;                        /* 0: idle */
};

struct acceptor {
    struct ev_loop *loop;
    struct pg *pg;
    struct list waiting;
    struct writer writers[WRITERS];
    int64_t last_us; /* when a transaction began last */
    ev_timer pace;
    void (*committed)(void *arg);
    void *arg;
};

static void pump(struct acceptor *a);

static void on_pace(struct ev_loop *loop, ev_timer *t, int events)
{
    (void)loop, (void)events;
    pump(container_of(t, struct acceptor, pace));
}

struct acceptor *acceptor_new(struct ev_loop *loop, struct pg *pg, void (*committed)(void *arg), void *arg)
{
    struct acceptor *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->loop = loop;
    a->pg = pg;
    a->committed = committed;
    a->arg = arg;
    list_init(&a->waiting);
    ev_timer_init(&a->pace, on_pace, 0, 0);
    for (int i = 0; i < WRITERS; i++)
        a->writers[i].acceptor = a;
    return a;
}

void acceptor_free(struct acceptor **acceptor)
{
    if (*acceptor)
        ev_timer_stop((*acceptor)->loop, &(*acceptor)->pace);
    free(*acceptor);
    *acceptor = NULL;
}

/* --- a group ---------------------------------------------------------------------------------------------------- */

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

/* Puts back what repeats the request id of another of the group, to find there what that one made. */
static void part_repeated(struct writer *writer)
{
    size_t n = 1;
    for (size_t i = 1; i < writer->count; i++) {
        if (compare(&writer->group[n - 1], &writer->group[i]) != 0)
            writer->group[n++] = writer->group[i];
        else
            list_insert(writer->acceptor->waiting.next, &writer->group[i]->link);
    }
    writer->count = n;
}

static void gather(struct writer *writer)
{
    size_t bytes = 0;
    bool devices = false;
    writer->count = 0;
    list_for_each (l, next, &writer->acceptor->waiting) {
        struct accept_job *job = container_of(l, struct accept_job, link);
        if (writer->count && devices != (job->device != NULL))
            continue;
        bytes += size_of(job);
        if (writer->count && (job->alone || bytes > GROUP_BYTES_MAX))
            break;
        devices = job->device != NULL;
        list_remove(&job->link);
        writer->group[writer->count++] = job;
        if (job->alone || writer->count == GROUP_MAX)
            break;
    }
    /* See accept_batch in schema/postgres: the order keeps two such transactions from waiting for each other. */
    qsort(writer->group, writer->count, sizeof *writer->group, compare);
    if (devices)
        part_repeated(writer);
}

/* The tenants of a group, which is sorted, each once. Returns how many. */
static size_t tenants_of(const struct writer *writer, int32_t *tenants)
{
    size_t n = 0;
    for (size_t i = 0; i < writer->count; i++)
        if (!n || tenants[n - 1] != writer->group[i]->batch.tenant)
            tenants[n++] = writer->group[i]->batch.tenant;
    return n;
}

/* Returns owned, or NULL without memory. */
static struct pg_txn *make(const struct writer *writer)
{
    int32_t tenants[GROUP_MAX];
    const struct db_accept *batches[GROUP_MAX];
    const char *devices[GROUP_MAX];
    struct pg_txn *txn = pg_txn_new(writer->acceptor->pg, PG_ANY_LANE);
    if (!txn)
        return NULL;
    db_batch_hold_tenants(txn, tenants, tenants_of(writer, tenants));
    for (size_t i = 0; i < writer->count; i++) {
        batches[i] = &writer->group[i]->batch;
        devices[i] = writer->group[i]->device;
        if (!devices[i])
            db_batch_accept(txn, batches[i]);
    }
    if (devices[0] && !db_batch_accept_devices(txn, batches, devices, writer->count))
        pg_txn_free(&txn);
    return txn;
}

/* --- what became of it ------------------------------------------------------------------------------------------ */

static void finish_all(struct writer *writer, enum err err, const struct pg_error *error)
{
    /* A done may submit the next job; the writer must look idle only when its group is told. */
    for (size_t i = 0; i < writer->count; i++)
        writer->group[i]->done(writer->group[i], err, error);
    if (err == ERR_OK)
        writer->acceptor->committed(writer->acceptor->arg);
}

/* `results`: of the tenants, then one statement for all or one each. */
static void read_results(struct writer *writer, const struct pg_result *const *results)
{
    for (size_t i = 0; i < writer->count; i++) {
        struct accept_job *job = writer->group[i];
        if (job->device) {
            db_batch_accept_devices_read(results[1], (int)i, &job->seq, &job->id);
            job->created = job->id != 0;
        } else {
            job->created = pg_bool(results[1 + i], 0, 0);
            job->id = pg_int(results[1 + i], 0, 1);
        }
    }
}

static void on_accepted(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    struct writer *writer = arg;
    (void)count;
    if (err == ERR_OK)
        read_results(writer, results);
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
    pump(writer->acceptor);
}

static void start(struct writer *writer)
{
    gather(writer);
    writer->acceptor->last_us = clock_mono_us();
    struct pg_txn *txn = make(writer);
    if (txn) {
        pg_txn_submit(txn, on_accepted, writer);
    } else {
        finish_all(writer, ERR_NOMEM, NULL);
        writer->count = 0;
    }
}

/* Begins a transaction when somebody waits, a writer is idle and it is time. */
static void pump(struct acceptor *a)
{
    int i = 0;
    while (i < WRITERS && a->writers[i].count)
        i++;
    if (i == WRITERS || list_empty(&a->waiting) || ev_is_active(&a->pace))
        return;
    int64_t wait_us = a->last_us + PACE_US - clock_mono_us();
    if (wait_us <= 0) {
        start(&a->writers[i]);
        wait_us = PACE_US;
    }
    if (!list_empty(&a->waiting)) {
        ev_timer_set(&a->pace, (double)wait_us / 1e6, 0);
        ev_timer_start(a->loop, &a->pace);
    }
}

void acceptor_submit(struct acceptor *acceptor, struct accept_job *job)
{
    list_append(&acceptor->waiting, &job->link);
    pump(acceptor);
}
