#include "workers/gates.h"

#include <ev.h>
#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/store/db_gate.h"
#include "lib/store/live.h"
#include "lib/store/pg.h"
#include "workers/acks.h"
#include "workers/lease.h"
#include "workers/routed.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/worker.h"

#define RETRY_S 0.1

struct gates {
    struct worker *worker;
    bool known, reading, again; /* again: asked for while reading */
    uint64_t number;            /* of what is known */
    uint64_t told;              /* the highest one to be confirmed; 0: none */
    int64_t *closed;            /* tenants, in order; 0 stands for all */
    size_t count;
    struct ev_timer retry;
};

bool gates_known(const struct gates *g)
{
    return g->known;
}

bool gates_closed(const struct gates *g, uint32_t tenant)
{
    size_t low = 0, high = g->count;
    if (!high || !g->known)
        return false; /* unknown: it stays in hand until it is */
    if (g->closed[0] == 0)
        return true;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (g->closed[mid] < (int64_t)tenant)
            low = mid + 1;
        else
            high = mid;
    }
    return low < g->count && g->closed[low] == (int64_t)tenant;
}

/* --- confirming --------------------------------------------------------------------------------------------------- */

static void confirm(void *arg)
{
    struct gates *g = arg;
    uint16_t number = lease_number(g->worker->lease);
    /* Said again whenever it is told again, which happens until it is heard. */
    if (g->known && number)
        live_confirm(g->worker->live, 0, g->number, number, NULL, NULL);
}

/* Behind the record of everything that was sent. */
static void confirm_when_durable(struct gates *g)
{
    g->told = 0;
    acks_barrier(g->worker->acks, confirm, g);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static void act_on_session(void *arg, struct session *s)
{
    const struct gates *g = arg;
    if (gates_closed(g, s->tenant))
        session_forget_unsent(s);
    else
        session_pump(s); /* it may have waited for the gates to be known */
}

static void gates_read(struct gates *g);

static void got_gates(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                      size_t count)
{
    struct gates *g = arg;
    (void)error, (void)count;
    g->reading = false;
    int64_t *closed = NULL;
    size_t n = err ? 0 : pg_int_array(results[0], 0, 1, NULL, 0);
    if (err || !(closed = calloc(n + 1, sizeof *closed))) {
        if (err == ERR_CLOSED)
            return;
        ev_timer_set(&g->retry, RETRY_S, 0);
        ev_timer_start(g->worker->loop, &g->retry);
        return;
    }
    pg_int_array(results[0], 0, 1, closed, n);
    free(g->closed);
    g->closed = closed;
    g->count = n;
    g->number = (uint64_t)pg_int(results[0], 0, 0);
    g->known = true;
    routed_forget_closed(g->worker->routed);
    session_table_each(g->worker->sessions, act_on_session, g);
    if (g->again)
        gates_read(g);
    else if (g->told)
        confirm_when_durable(g);
    log_info("gates", "number=%llu closed=%zu", (unsigned long long)g->number, n);
}

static void gates_read(struct gates *g)
{
    g->again = g->reading;
    if (g->reading)
        return;
    ev_timer_stop(g->worker->loop, &g->retry);
    g->reading = true;
    struct pg_txn *txn = pg_txn_new(g->worker->pg, PG_ANY_LANE);
    if (txn)
        db_gate_closed(txn);
    pg_txn_submit(txn, got_gates, g);
}

static void on_retry(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    (void)loop, (void)revents;
    gates_read(timer->data);
}

void gates_doubt(struct gates *g)
{
    g->known = false;
}

void gates_begin(struct gates *g)
{
    g->known = false;
    gates_read(g);
}

void gates_told(struct gates *g, uint64_t number)
{
    if (number > g->told)
        g->told = number;
    if (g->known && !g->reading && g->number >= g->told)
        confirm_when_durable(g);
    else
        gates_read(g);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct gates *gates_new(struct worker *worker)
{
    struct gates *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->worker = worker;
    ev_timer_init(&g->retry, on_retry, 0, 0);
    g->retry.data = g;
    return g;
}

void gates_free(struct gates **gates)
{
    if (!*gates)
        return;
    ev_timer_stop((*gates)->worker->loop, &(*gates)->retry);
    free((*gates)->closed);
    free(*gates);
    *gates = NULL;
}
