#include "dispatcher/accept.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/store/db_audit.h"
#include "lib/store/db_dynamic.h"
#include "lib/store/db_retry.h"
#include "lib/store/db_supersede.h"

/* Two, so that one gathers while the other commits; more only make smaller groups. */
#define WRITERS 2
/* Batches and bytes of one transaction: bounds what a refused one makes us repeat. */
#define GROUP_MAX       128
#define GROUP_BYTES_MAX (1024 * 1024)
/* Between transactions: where many callers come, a group of them costs PostgreSQL little more than one, and one that
 * comes alone does not wait. */
#define PACE_US 2000
/* As much may wait as is committed within this time; callers wait about so long when there is too much. */
#define WAIT_US 1000000
/* Batches that may wait whatever commits take, and even if they take no time; bytes of them. */
#define WAITING_MIN       (2 * GROUP_MAX)
#define WAITING_MAX       8192
#define WAITING_BYTES_MAX (64u * 1024 * 1024)
/* Of a tenant's waiting batches so many are looked at for those that go with the group. */
#define LOOK_MAX 512
/* After so long without a word of the leader's it is behind no more. */
#define HELD_MEMORY_US 1000000
/* Between looks whether those may go on who wait for the leader. */
#define HELD_LOOK_US 10000

/* One transaction at a time, over whichever connection is there. */
struct writer {
    struct acceptor *acceptor;
    struct accept_job *group[GROUP_MAX]; /* all with a device, or none */
    size_t count;                        /* 0: idle */
    int64_t began_us;
};

struct acceptor {
    struct ev_loop *loop;
    struct pg *pg;
    struct shares waiting;
    struct writer writers[WRITERS];
    int64_t last_us;    /* when a transaction began last */
    int64_t commit_us;  /* how long they take, about */
    int64_t second_us;  /* when the second began in which */
    size_t this_second; /* so many batches were committed, */
    size_t per_second;  /* and in the one before */
    struct queue_heavy held[LEADER_HEAVY_MAX];
    size_t held_count;
    int64_t held_until_us;
    struct acceptor_figures figures;
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
    shares_init(&a->waiting, &(struct shares_limits){WAITING_MAX, WAITING_BYTES_MAX, INT64_MAX, 0});
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
    const struct db_values *values = job->batch.values;
    return job->batch.command.len + job->batch.block_count * BITMAP_BYTES + (values ? values->bytes : 0);
}

static void put_back(struct acceptor *a, struct accept_job *job)
{
    shares_put_back(&a->waiting, &job->share);
    a->figures.waiting = a->waiting.count;
}

/* Puts back what repeats the request id of another of the group, to find there what that one made: what a transaction
 * writes of a batch behind the batch itself it writes to the one of this request id that it has made. */
static void part_repeated(struct writer *writer)
{
    size_t n = 0;
    for (size_t i = 0; i < writer->count; i++) {
        if (!n || compare(&writer->group[n - 1], &writer->group[i]) != 0)
            writer->group[n++] = writer->group[i];
        else
            put_back(writer->acceptor, writer->group[i]);
    }
    writer->count = n;
}

static bool is_held(const struct acceptor *a, const struct accept_job *job)
{
    for (size_t i = 0; i < a->held_count; i++)
        if (a->held[i].tenant == (uint32_t)job->batch.tenant && a->held[i].class + 1 == job->batch.priority)
            return true;
    return false;
}

/* A group being put together. */
struct gathering {
    struct writer *writer;
    size_t bytes;
    bool devices, full;
    bool held; /* some batches wait for the leader */
};

/* Takes up to `most` of a tenant's batches that go with the group. */
static void gather_of(struct gathering *g, struct share_tenant *t, size_t most)
{
    struct writer *writer = g->writer;
    size_t looked = 0, left = t->count;
    for (struct list *l = t->entries.next; most > 0 && left > 0 && !g->full && looked < LOOK_MAX; looked++, left--) {
        struct accept_job *job = container_of(l, struct accept_job, share.link);
        l = l->next;
        if ((writer->count && g->devices != (job->device != NULL)) || (g->held && is_held(writer->acceptor, job)))
            continue;
        g->bytes += size_of(job);
        if (writer->count && (job->alone || g->bytes > GROUP_BYTES_MAX)) {
            g->full = true;
            return;
        }
        g->devices = job->device != NULL;
        writer->group[writer->count++] = job;
        most--;
        g->full = job->alone || writer->count == GROUP_MAX;
        shares_take(&writer->acceptor->waiting, &job->share);
    }
}

/* Tenants take turns, each by an equal part of the group. */
static void gather(struct writer *writer)
{
    struct acceptor *a = writer->acceptor;
    struct gathering g = {.writer = writer, .held = clock_mono_us() < a->held_until_us};
    size_t before;
    writer->count = 0;
    do {
        size_t tenants = a->waiting.tenants, most = tenants ? (GROUP_MAX - writer->count) / tenants + 1 : 0;
        before = writer->count;
        for (size_t i = 0; i < tenants && !g.full; i++) {
            struct share_tenant *t = container_of(a->waiting.turn.next, struct share_tenant, link);
            shares_turn(&a->waiting, t);
            gather_of(&g, t, most);
        }
    } while (writer->count > before && !g.full);
    /* See accept_batch in schema/postgres: the order keeps two such transactions from waiting for each other. */
    qsort(writer->group, writer->count, sizeof *writer->group, compare);
    part_repeated(writer);
    a->figures.waiting = a->waiting.count;
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

/* The keys of a group are held before any of its batches gets its number. */
static void hold_keys(const struct writer *writer, struct pg_txn *txn)
{
    int32_t tenants[GROUP_MAX];
    const char *keys[GROUP_MAX];
    size_t n = 0;
    for (size_t i = 0; i < writer->count; i++)
        if (*writer->group[i]->batch.supersede_key) {
            tenants[n] = writer->group[i]->batch.tenant;
            keys[n++] = writer->group[i]->batch.supersede_key;
        }
    if (n)
        db_supersede_hold(txn, tenants, keys, n);
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
    if (!writer->group[0]->device)
        db_batch_hold_tenants(txn, tenants, tenants_of(writer, tenants));
    hold_keys(writer, txn);
    for (size_t i = 0; i < writer->count; i++) {
        batches[i] = &writer->group[i]->batch;
        devices[i] = writer->group[i]->device;
        if (writer->group[i]->guard)
            db_guard_lock(txn, batches[i]->tenant, batches[i]->address);
        if (!devices[i])
            db_batch_accept(txn, batches[i]);
        if (writer->group[i]->guard)
            db_guard_accepted(txn, batches[i], writer->group[i]->guard);
        if (*batches[i]->supersede_key)
            db_supersede_accept(txn, batches[i]);
        if (batches[i]->steer.retry.after)
            db_retry_accept(txn, batches[i]);
        if (batches[i]->canary_count)
            db_batch_accept_canary(txn, batches[i]);
        if (batches[i]->dynamic.len)
            db_dynamic_accept(txn, batches[i]);
        if (batches[i]->skipped_count)
            db_batch_accept_skipped(txn, batches[i]);
        if (batches[i]->values)
            db_values_accepted(txn, batches[i]->tenant, batches[i]->request_id, batches[i]->values, batches[i]->blocks,
                               batches[i]->block_count);
    }
    if (devices[0] ? !db_batch_accept_devices(txn, batches, devices, writer->count)
                   : !db_audit_accepted(txn, batches, writer->count))
        pg_txn_free(&txn);
    return txn;
}

/* --- what became of it ------------------------------------------------------------------------------------------ */

static void finish_all(struct writer *writer, enum err err, const struct pg_error *error)
{
    /* A done may submit the next job; the writer must look idle only when its group is told. */
    for (size_t i = 0; i < writer->count; i++) {
        shares_let_go(&writer->group[i]->share);
        writer->group[i]->done(writer->group[i], err, error);
    }
    if (err == ERR_OK)
        writer->acceptor->committed(writer->acceptor->arg);
}

/* `results`: of one statement for all; or of the tenants, of keys that are held, those of each and then of the audit.
 */
static void read_results(struct writer *writer, const struct pg_result *const *results)
{
    const struct pg_result *const *next = results + 1;
    for (size_t i = 0; i < writer->count && next == results + 1; i++)
        if (*writer->group[i]->batch.supersede_key)
            next++;
    for (size_t i = 0; i < writer->count; i++) {
        struct accept_job *job = writer->group[i];
        if (job->device) {
            db_batch_accept_devices_read(results[0], (int)i, &job->seq, &job->id);
            job->created = job->id > 0;
        } else {
            next += job->guard != NULL; /* its lock */
            job->created = pg_bool(*next, 0, 0);
            job->id = pg_int(*next++, 0, 1);
            job->state = job->guard ? (int16_t)pg_int(*next++, 0, 0) : 0;
            job->superseded = *job->batch.supersede_key ? (int32_t)pg_int(*next++, 0, 0) : 0;
            next += job->batch.steer.retry.after != 0;
            next += job->batch.canary_count > 0;
            next += job->batch.dynamic.len > 0;
            next += job->batch.skipped_count > 0;
            next += job->batch.values != NULL; /* written last */
        }
    }
}

static void count_committed(const struct writer *writer, int64_t now_us)
{
    struct acceptor *a = writer->acceptor;
    a->commit_us += (now_us - writer->began_us - a->commit_us) / 8;
    a->this_second += writer->count;
    if (now_us - a->second_us < 1000000)
        return;
    a->per_second = a->this_second * 1000000 / (size_t)(now_us - a->second_us);
    a->this_second = 0;
    a->second_us = now_us;
}

static void on_accepted(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    struct writer *writer = arg;
    (void)count;
    count_committed(writer, clock_mono_us());
    if (err == ERR_OK)
        read_results(writer, results);
    if (err == ERR_INVALID && writer->count > 1) {
        /* One of them spoils it: each by itself, in front of the others. */
        for (size_t i = writer->count; i-- > 0;) {
            writer->group[i]->alone = true;
            put_back(writer->acceptor, writer->group[i]);
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
    if (!writer->count)
        return;
    writer->began_us = writer->acceptor->last_us = clock_mono_us();
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
    if (i == WRITERS || !a->waiting.count || ev_is_active(&a->pace))
        return;
    int64_t wait_us = a->last_us + PACE_US - clock_mono_us();
    if (wait_us <= 0) {
        start(&a->writers[i]);
        wait_us = a->writers[i].count ? PACE_US : HELD_LOOK_US;
        a->figures.held += !a->writers[i].count;
    }
    if (a->waiting.count) {
        ev_timer_set(&a->pace, (double)wait_us / 1e6, 0);
        ev_timer_start(a->loop, &a->pace);
    }
}

/* What is committed within WAIT_US: in half of it, of what the last second brought, if the leader is behind; else as
 * transactions take, of which one under way may already have taken longer than the last ones. */
static size_t room(const struct acceptor *a, int64_t now_us)
{
    int64_t each_us = a->commit_us > PACE_US ? a->commit_us : PACE_US;
    for (int i = 0; i < WRITERS; i++)
        if (a->writers[i].count && now_us - a->writers[i].began_us > each_us)
            each_us = now_us - a->writers[i].began_us;
    int64_t n = (int64_t)WRITERS * GROUP_MAX * WAIT_US / each_us;
    if (now_us < a->held_until_us + HELD_MEMORY_US && n > (int64_t)a->per_second / 2)
        n = (int64_t)a->per_second / 2;
    return n < WAITING_MIN ? WAITING_MIN : n > WAITING_MAX ? WAITING_MAX : (size_t)n;
}

bool acceptor_submit(struct acceptor *a, struct accept_job *job)
{
    uint32_t tenant = (uint32_t)job->batch.tenant;
    int64_t now_us = clock_mono_us();
    a->waiting.limits.entries = room(a, now_us);
    if (!shares_may(&a->waiting, tenant, size_of(job), now_us) ||
        !shares_add(&a->waiting, &job->share, tenant, size_of(job), now_us)) {
        a->figures.turned_away++;
        return false;
    }
    a->figures.waiting = a->waiting.count;
    pump(a);
    return true;
}

void acceptor_hold(struct acceptor *a, const struct queue_heavy *heavy, size_t count)
{
    a->held_count = count < LEADER_HEAVY_MAX ? count : LEADER_HEAVY_MAX;
    memcpy(a->held, heavy, a->held_count * sizeof *heavy);
    a->held_until_us = clock_mono_us() + ACCEPT_HOLD_MS * 1000;
}

const struct acceptor_figures *acceptor_figures(const struct acceptor *acceptor)
{
    return &acceptor->figures;
}
