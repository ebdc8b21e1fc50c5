#include "lib/store/pg_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"

#define CONNECTIONS          4
#define QUEUE_MAX            10000
#define STATEMENT_TIMEOUT_MS 30000
#define WAIT_MAX             1.0  /* seconds a transaction waits for a connection */
#define TICK                 0.25 /* seconds between looks at what waits */
#define STUCK_GRACE          5.0  /* seconds past the statement timeout until a silent server counts as lost */

bool pg_leave(struct pg *pg)
{
    if (--pg->depth > 0 || !pg->dead)
        return !pg->dead;
    free(pg->conninfo);
    free(pg->options);
    free(pg->application);
    free(pg->conns);
    free(pg);
    return false;
}

void pg_count_up(struct pg *pg, int delta)
{
    bool was = pg->up_count > 0;
    pg->up_count += delta;
    bool is = pg->up_count > 0;
    if (was != is && pg->change && !pg->dead)
        pg->change(pg->change_arg, is);
}

static void report(struct pg_txn *txn, enum err err)
{
    struct pg_error error = {"", ""};
    if (txn->error) {
        const char *state = PQresultErrorField(txn->error, PG_DIAG_SQLSTATE);
        const char *message = PQresultErrorField(txn->error, PG_DIAG_MESSAGE_PRIMARY);
        snprintf(error.sqlstate, sizeof error.sqlstate, "%s", state ? state : "");
        error.message = message ? message : "";
    }
    const void *results = txn->results;
    if (err == ERR_OK)
        txn->done(txn->arg, err, &error, results, (size_t)txn->result_count);
    else
        txn->done(txn->arg, err, &error, NULL, 0);
}

void pg_finish(struct pg *pg, struct pg_txn *txn, enum err err)
{
    if (txn->done) {
        pg->queued--;
        report(txn, err);
    }
    pg_txn_destroy(txn);
}

void pg_fail_soon(struct pg *pg, struct pg_txn *txn, enum err err)
{
    txn->err = err;
    list_append(&pg->failed, &txn->link);
    if (!pg->dead && !ev_is_active(&pg->soon)) {
        ev_timer_set(&pg->soon, 0., 0.);
        ev_timer_start(pg->loop, &pg->soon);
    }
}

static void on_soon(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    struct pg *pg = container_of(w, struct pg, soon);
    struct list now, *n;
    list_init(&now);
    while ((n = list_pop(&pg->failed)))
        list_append(&now, n);
    pg_enter(pg);
    while ((n = list_pop(&now))) {
        struct pg_txn *txn = container_of(n, struct pg_txn, link);
        pg_finish(pg, txn, pg->dead ? ERR_CLOSED : txn->err);
    }
    pg_leave(pg);
}

/* What waited for a connection for too long, and servers that owe an answer for too long. */
static void look_at(struct pg *pg, struct pg_conn *conn, double now)
{
    while (!list_empty(&conn->waiting)) {
        struct pg_txn *txn = container_of(conn->waiting.next, struct pg_txn, link);
        if (conn->state == PG_UP || now - txn->submitted < WAIT_MAX)
            break;
        list_remove(&txn->link);
        conn->load--;
        pg_fail_soon(pg, txn, ERR_UNAVAILABLE);
    }
    if (conn->state == PG_UP && !list_empty(&conn->under_way) && now - conn->heard > pg->stuck_after)
        pg_conn_lost(conn, "no answer from the server");
}

static void on_tick(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)revents;
    struct pg *pg = container_of(w, struct pg, tick);
    pg_enter(pg);
    for (int i = 0; i < pg->conn_count && !pg->dead; i++)
        look_at(pg, &pg->conns[i], ev_now(loop));
    if (!pg->dead && pg->queued == 0)
        ev_timer_stop(loop, w);
    pg_leave(pg);
}

/* The user's own `options` in the connection string are kept, ours go in front of them so that theirs win. */
static char *join_options(const char *conninfo, int statement_timeout_ms)
{
    struct buf b = {0};
    buf_printf(&b, "-c statement_timeout=%d", statement_timeout_ms);
    PQconninfoOption *parsed = PQconninfoParse(conninfo, NULL);
    for (PQconninfoOption *o = parsed; o && o->keyword; o++)
        if (strcmp(o->keyword, "options") == 0 && o->val)
            buf_printf(&b, " %s", o->val);
    PQconninfoFree(parsed);
    return buf_take_str(&b);
}

struct pg *pg_new(struct ev_loop *loop, const struct pg_options *options)
{
    struct pg *pg = calloc(1, sizeof *pg);
    if (!pg)
        return NULL;
    int timeout_ms = options->statement_timeout_ms ? options->statement_timeout_ms : STATEMENT_TIMEOUT_MS;
    pg->loop = loop;
    pg->conn_count = options->connections ? options->connections : CONNECTIONS;
    pg->queue_max = options->queue_max ? options->queue_max : QUEUE_MAX;
    pg->stuck_after = timeout_ms / 1000. + STUCK_GRACE;
    pg->conninfo = strdup(options->conninfo);
    pg->options = join_options(options->conninfo, timeout_ms);
    pg->application = strdup(options->application ? options->application : "muster");
    pg->conns = calloc((size_t)pg->conn_count, sizeof *pg->conns);
    list_init(&pg->failed);
    ev_init(&pg->soon, on_soon);
    ev_timer_init(&pg->tick, on_tick, TICK, TICK);
    if (!pg->conninfo || !pg->options || !pg->application || !pg->conns) {
        pg->dead = true;
        pg_enter(pg);
        pg_leave(pg);
        return NULL;
    }
    for (int i = 0; i < pg->conn_count; i++)
        pg_conn_init(&pg->conns[i], pg);
    for (int i = 0; i < pg->conn_count; i++)
        pg_conn_start(&pg->conns[i]);
    return pg;
}

/* Ends all of a list with ERR_CLOSED. */
static void close_all(struct pg *pg, struct list *l)
{
    struct list *n;
    while ((n = list_pop(l)))
        pg_finish(pg, container_of(n, struct pg_txn, link), ERR_CLOSED);
}

void pg_free(struct pg **out)
{
    struct pg *pg = *out;
    if (!pg)
        return;
    *out = NULL;
    pg_enter(pg);
    pg->dead = true;
    ev_timer_stop(pg->loop, &pg->soon);
    ev_timer_stop(pg->loop, &pg->tick);
    for (int i = 0; i < pg->conn_count; i++) {
        close_all(pg, &pg->conns[i].under_way);
        close_all(pg, &pg->conns[i].waiting);
        pg_conn_close(&pg->conns[i]);
    }
    close_all(pg, &pg->failed);
    pg_leave(pg);
}

bool pg_up(const struct pg *pg)
{
    return pg->up_count > 0;
}

void pg_on_change(struct pg *pg, void (*fn)(void *arg, bool up), void *arg)
{
    pg->change = fn;
    pg->change_arg = arg;
}

/* The one with the least to do; of several the last, whose server process has worked just now: what it needs is in the
 * processor's cache, and the first ones are left to the lanes. */
static struct pg_conn *choose(struct pg *pg, int lane)
{
    if (lane >= 0)
        return &pg->conns[lane % pg->conn_count];
    struct pg_conn *best = &pg->conns[pg->conn_count - 1];
    for (int i = pg->conn_count - 1; i-- > 0;) {
        struct pg_conn *conn = &pg->conns[i];
        bool up = conn->state == PG_UP;
        if ((up && best->state != PG_UP) || (up == (best->state == PG_UP) && conn->load < best->load))
            best = conn;
    }
    return best;
}

static enum err may_submit(const struct pg *pg, const struct pg_txn *txn)
{
    if (pg->dead)
        return ERR_CLOSED;
    if (txn->failed)
        return ERR_NOMEM;
    assert(txn->call_count > 0);
    return pg->queued >= pg->queue_max ? ERR_LIMIT : ERR_OK;
}

void pg_txn_submit(struct pg_txn *txn, pg_done_fn *done, void *arg)
{
    if (!txn) {
        /* There is no loop to call back from without a transaction. */
        done(arg, ERR_NOMEM, &(struct pg_error){"", ""}, NULL, 0);
        return;
    }
    struct pg *pg = txn->pg;
    txn->done = done;
    txn->arg = arg;
    txn->submitted = ev_now(pg->loop);
    txn->results = calloc((size_t)txn->call_count + 1, sizeof *txn->results);
    if (!txn->results)
        txn->failed = true;
    enum err err = may_submit(pg, txn);
    pg->queued++;
    if (err != ERR_OK) {
        pg_fail_soon(pg, txn, err);
        return;
    }
    struct pg_conn *conn = choose(pg, txn->lane);
    if (conn->state != PG_UP && ev_now(pg->loop) - conn->down_since > WAIT_MAX) {
        pg_fail_soon(pg, txn, ERR_UNAVAILABLE);
        return;
    }
    list_append(&conn->waiting, &txn->link);
    conn->load++;
    if (!ev_is_active(&pg->tick))
        ev_timer_again(pg->loop, &pg->tick);
    if (conn->state == PG_UP)
        pg_conn_send(conn);
}
