#include "dispatcher/gate_keeper.h"

#include <stdlib.h>

#include "dispatcher/tell.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/db_gate.h"
#include "proto/inbox.h"

#define RETRY_S 0.1

struct gate_keeper {
    struct ev_loop *loop;
    struct pg *pg;
    struct live *live;
    uint64_t wanted;          /* the newest change to carry out */
    uint64_t telling, saying; /* the one workers are being told of, the one being marked as confirmed; 0: none */
    int64_t said_ms;          /* when the latter was */
    struct tell *tell;
    bool looking;
    struct list waiting;
    ev_timer look, retry;
};

static void pump(struct gate_keeper *k);

/* --- marking it as confirmed -------------------------------------------------------------------------------------- */

static void said(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                 size_t count)
{
    struct gate_keeper *k = arg;
    (void)error, (void)results, (void)count;
    if (err == ERR_CLOSED)
        return;
    uint64_t number = k->saying;
    k->saying = 0;
    if (err) {
        ev_timer_set(&k->retry, RETRY_S, 0);
        ev_timer_start(k->loop, &k->retry);
        return;
    }
    log_info("gates_confirmed", "number=%llu", (unsigned long long)number);
    live_publish(k->live, "gates 0");
    if (k->wanted == number)
        k->wanted = 0;
    list_for_each (l, next, &k->waiting) {
        struct gate_wait *w = container_of(l, struct gate_wait, link);
        if (w->number > number)
            continue;
        list_remove(l);
        w->confirmed_ms = k->said_ms;
        w->done(w);
    }
    pump(k);
}

static void told(void *arg)
{
    struct gate_keeper *k = arg;
    k->tell = NULL; /* it has ended */
    k->saying = k->telling;
    k->telling = 0;
    k->said_ms = clock_wall_ms();
    struct pg_txn *txn = pg_txn_new(k->pg, PG_ANY_LANE);
    if (txn)
        db_gate_confirm(txn, (int64_t)k->saying, k->said_ms);
    pg_txn_submit(txn, said, k);
}

/* --- telling ------------------------------------------------------------------------------------------------------ */

/* A newer change takes the place of an older one that is still being told: who confirms it has carried out both. */
static void pump(struct gate_keeper *k)
{
    struct buf item = {0};
    if (!k->wanted || k->saying || k->telling >= k->wanted)
        return;
    tell_free(&k->tell);
    k->telling = k->wanted;
    inbox_put(&item, &(struct inbox_item){.kind = INBOX_GATE, .number = k->telling});
    k->tell = item.failed ? NULL : tell_new(k->loop, k->live, buf_slice(&item), 0, k->telling, told, k);
    buf_free(&item);
    if (!k->tell)
        abort(); /* a fresh process does better than one that has forgotten a gate */
}

static void on_retry(struct ev_loop *loop, ev_timer *t, int events)
{
    (void)loop, (void)events;
    pump(container_of(t, struct gate_keeper, retry));
}

void gate_keeper_changed(struct gate_keeper *k, uint64_t number, struct gate_wait *wait)
{
    if (wait) {
        wait->number = number;
        list_append(&k->waiting, &wait->link);
    }
    if (number > k->wanted)
        k->wanted = number;
    pump(k);
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

static void got_gates(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                      size_t count)
{
    struct gate_keeper *k = arg;
    (void)error, (void)count;
    if (err == ERR_CLOSED)
        return;
    k->looking = false;
    uint64_t newest = 0;
    for (int i = 0; !err && i < pg_rows(results[0]); i++) {
        struct db_gate gate;
        db_gate_read(results[0], i, &gate);
        if (!gate.confirmed_ms && clock_wall_ms() - gate.changed_ms > GATE_ORPHAN_MS && (uint64_t)gate.number > newest)
            newest = (uint64_t)gate.number;
    }
    if (newest && !k->wanted)
        gate_keeper_changed(k, newest, NULL);
}

static void on_look(struct ev_loop *loop, ev_timer *t, int events)
{
    struct gate_keeper *k = container_of(t, struct gate_keeper, look);
    (void)loop, (void)events;
    if (k->looking || !pg_up(k->pg))
        return;
    k->looking = true;
    struct pg_txn *txn = pg_txn_new(k->pg, PG_ANY_LANE);
    if (txn)
        db_gate_list(txn, 0);
    pg_txn_submit(txn, got_gates, k);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct gate_keeper *gate_keeper_new(struct ev_loop *loop, struct pg *pg, struct live *live)
{
    struct gate_keeper *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    k->loop = loop;
    k->pg = pg;
    k->live = live;
    list_init(&k->waiting);
    ev_timer_init(&k->look, on_look, GATE_LOOK_MS / 1000., GATE_LOOK_MS / 1000.);
    ev_timer_init(&k->retry, on_retry, 0, 0);
    ev_timer_start(loop, &k->look);
    return k;
}

void gate_keeper_free(struct gate_keeper **keeper)
{
    struct gate_keeper *k = *keeper;
    *keeper = NULL;
    if (!k)
        return;
    ev_timer_stop(k->loop, &k->look);
    ev_timer_stop(k->loop, &k->retry);
    tell_free(&k->tell);
    free(k);
}
