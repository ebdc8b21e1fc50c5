#include "dispatcher/pending.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/store/live_look.h"

struct pending {
    struct dispatcher *d;
    struct arena *a;
    struct pending_facts facts;
    struct pending_command *commands;
    size_t count;
    pending_fn *done;
    void *arg;
    unsigned waiting;          /* answers of Redis on their way */
    struct live_pending *open; /* owned: of facts */
};

static void finish(struct pending *p, enum err err, const struct pg_error *error)
{
    p->done(p->arg, err, error);
    free(p->open);
    free(p);
}

/* --- PostgreSQL, at the end: what it says is borrowed ------------------------------------------------------------- */

static void read_gates(struct pending_facts *f, const struct pg_result *r)
{
    for (int row = 0; row < pg_rows(r); row++) {
        struct db_gate g;
        db_gate_read(r, row, &g);
        if (g.tenant == 0)
            f->all_gate = g;
        else if (g.tenant == f->tenant)
            f->tenant_gate = g;
    }
}

/* Results: device, gates, batches. */
static void on_rows(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                    size_t count)
{
    struct pending *p = arg;
    (void)count;
    if (err == ERR_OK && pg_rows(results[0])) {
        db_pending_device_read(results[0], 0, &p->facts.device);
        read_gates(&p->facts, results[1]);
    }
    for (int row = 0; err == ERR_OK && row < pg_rows(results[2]); row++) {
        struct db_pending_batch b;
        db_pending_batch_read(results[2], row, &b);
        for (size_t i = 0; i < p->count; i++)
            if (p->commands[i].batch == b.id)
                pending_reasons(p->a, &p->facts, &b, &p->commands[i]);
    }
    finish(p, err, error);
}

static void ask_postgres(struct pending *p)
{
    struct pg_txn *txn = pg_txn_new(p->d->pg, PG_ANY_LANE);
    int64_t *batches = malloc((p->count + 1) * sizeof *batches);
    for (size_t i = 0; batches && i < p->count; i++)
        batches[i] = p->commands[i].batch;
    if (batches && txn) {
        db_pending_device(txn, p->facts.tenant, p->facts.seq, p->facts.now_ms);
        db_gate_list(txn, p->facts.tenant);
        db_pending_batches(txn, p->facts.tenant, p->facts.seq, batches, p->count, p->facts.now_ms);
    } else {
        pg_txn_free(&txn);
    }
    free(batches);
    pg_txn_submit(txn, on_rows, p);
}

/* --- Redis -------------------------------------------------------------------------------------------------------- */

static void answered(struct pending *p, enum err err)
{
    if (err != ERR_OK)
        p->facts.redis = false;
    if (--p->waiting == 0)
        ask_postgres(p);
}

static void on_there(void *arg, enum err err, int64_t value)
{
    struct pending *p = arg;
    p->facts.worker_there = value != 0;
    answered(p, err);
}

static void on_inbox(void *arg, enum err err, int64_t value)
{
    struct pending *p = arg;
    p->facts.inbox = value;
    answered(p, err);
}

static void on_waiting(void *arg, enum err err, uint16_t worker, const struct live_pending *commands, size_t count)
{
    struct pending *p = arg;
    p->open = malloc((count + 1) * sizeof *p->open);
    if (!p->open)
        err = ERR_NOMEM;
    if (err == ERR_OK) {
        memcpy(p->open, commands, count * sizeof *p->open);
        p->facts.open = p->open;
        p->facts.open_count = count;
        p->facts.worker = worker;
    }
    if (p->facts.worker) {
        p->waiting += 2;
        live_worker_there(p->d->live, worker, on_there, p);
        live_inbox_waiting(p->d->live, worker, on_inbox, p);
    }
    answered(p, err);
}

/* 0: Redis was lost, and is being filled again. */
static void on_generation(void *arg, enum err err, int64_t value)
{
    answered(arg, err == ERR_OK && !value ? ERR_UNAVAILABLE : err);
}

void pending_find(struct dispatcher *d, struct arena *a, int32_t tenant, uint32_t seq, struct pending_command *commands,
                  size_t count, pending_fn *done, void *arg)
{
    struct pending *p = calloc(1, sizeof *p);
    if (!p) {
        done(arg, ERR_NOMEM, NULL);
        return;
    }
    *p = (struct pending){.d = d, .a = a, .commands = commands, .count = count, .done = done, .arg = arg};
    p->facts =
        (struct pending_facts){.tenant = tenant, .seq = seq, .now_ms = clock_wall_ms(), .redis = live_up(d->live)};
    if (!p->facts.redis) {
        ask_postgres(p);
        return;
    }
    p->waiting = 2;
    live_waiting(d->live, (uint32_t)tenant, block_of(seq), slot_of(seq), on_waiting, p);
    live_generation_get(d->live, on_generation, p);
}
