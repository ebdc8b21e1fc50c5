#include "tests/sim/pg.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "tests/sim/fault.h"
#include "tests/sim/loop.h"
#include "tests/sim/net.h"
#include "tests/sim/oracle.h"
#include "tests/sim/pg_model.h"

#define WAIT_MAX_US    (1 * S) /* as lib/store/pg.c and pg_conn.c */
#define TICK_US        (250 * MS)
#define BACKOFF_MIN_US (50 * MS)
#define BACKOFF_MAX_US (2 * S)
#define STUCK_US       (35 * S)
#define CONNECTIONS    8

struct pg_server {
    struct world *world;
    bool up;
    struct list sessions; /* struct session */
    struct list pools;    /* struct pool */
    struct event start;
};

/* The server's end of a connection; lives on for a while when the client has gone. */
struct session {
    struct list link;
    struct pg_server *server;
    struct conn *conn; /* NULL: the client has gone */
    struct list jobs;  /* in the order sent */
};

/* A transaction on its way. */
struct job {
    struct list link; /* session->jobs, or pool->failed, conn->waiting */
    struct session *session;
    struct conn *conn;
    struct world *world;
    struct pg_txn *txn;
    pg_done_fn *done; /* NULL: nobody waits for it any more */
    void *arg;
    int64_t submitted_us;
    struct event event;
    bool arrived, begun, over, locks;
    int step; /* next statement of one that reads */
    int64_t reserved[64];
    const char *sqlstate;
};

struct conn {
    struct pool *pool;
    struct session *session; /* NULL: down */
    struct list waiting;
    int load;
    bool broken;
    struct wire there, back;
    struct event lost, connect, stuck;
    int64_t backoff_us, down_since_us, heard_us;
};

struct pool {
    struct pg pg;
    struct process *process;
    struct list link; /* server->pools */
    struct conn conns[CONNECTIONS];
    int count, up;
    struct list failed;
    struct event soon, tick;
    bool dead;
};

static struct pg_server *server_of(struct world *w)
{
    return w->pg_server;
}

static struct pool *pool_of(const struct pg *pg)
{
    return (struct pool *)((uintptr_t)pg - offsetof(struct pool, pg));
}

/* --- the client's end of a transaction --------------------------------------------------------------------------- */

static void job_free(struct job *j)
{
    event_cancel(j->world, &j->event);
    list_remove(&j->link);
    pg_txn_destroy(j->txn);
    free(j);
}

/* Tells who waits for it; the job stays. */
static void report(struct job *j, enum err err)
{
    struct pg_error error = {"", ""};
    pg_done_fn *done = j->done;
    const void *results = j->txn->results;
    j->done = NULL;
    if (j->sqlstate) {
        memcpy(error.sqlstate, j->sqlstate, 5);
        error.message = "simulated";
    }
    if (done)
        done(j->arg, err, &error, err ? NULL : results, err ? 0 : (size_t)j->txn->call_count);
}

static void end(struct job *j, enum err err)
{
    report(j, err);
    job_free(j);
}

static void fail_all(struct pool *p)
{
    struct list now;
    list_init(&now);
    for (struct list *l; (l = list_pop(&p->failed));)
        list_append(&now, l);
    for (struct list *l; (l = list_pop(&now));)
        end(container_of(l, struct job, link), p->dead ? ERR_CLOSED : ERR_UNAVAILABLE);
}

static void soon(void *arg)
{
    fail_all(arg);
}

static void fail_soon(struct pool *p, struct job *j)
{
    struct world *w = p->process->world;
    list_remove(&j->link);
    list_append(&p->failed, &j->link);
    if (!p->dead)
        event_plan(w, &p->soon, w->now_us + 10, p->process, soon, p);
}

static void answered(void *arg)
{
    struct job *j = arg;
    struct conn *c = j->conn;
    c->load--;
    c->heard_us = j->world->now_us;
    end(j, j->sqlstate ? ERR_INVALID : ERR_OK);
}

/* --- the server's end -------------------------------------------------------------------------------------------- */

static void begin_next(struct session *s);

static void session_free(struct session *s)
{
    list_remove(&s->link);
    free(s);
}

/* What the session does next; one without a client ends when it has nothing to do. */
static void go_on(struct session *s)
{
    begin_next(s);
    if (!s->conn && list_empty(&s->jobs))
        session_free(s);
}

static void over(struct job *j)
{
    struct session *s = j->session;
    struct world *w = j->world;
    j->over = true;
    j->locks = false;
    if (s->conn && !s->conn->broken) {
        event_plan(w, &j->event, wire_arrival(w, &s->conn->back), s->conn->pool->process, answered, j);
    } else if (!s->conn) {
        job_free(j);
    }
    go_on(s);
}

static void execute(struct job *j, int i)
{
    struct world *w = j->world;
    w->pg->now_ms = world_wall_ms(w);
    PGresult *r = pg_model_execute(w->pg, j->txn, i, j->reserved[i < 64 ? i : 63], &j->sqlstate);
    if (r)
        j->txn->results[j->txn->result_count++] = r;
}

static bool fences(const struct job *j, int i)
{
    return strcmp(j->txn->calls[i].stmt->name, "lease_fence") == 0;
}

static void commit(void *arg)
{
    struct job *j = arg;
    struct world *w = j->world;
    for (int i = 0; i < j->txn->call_count && !j->sqlstate; i++)
        if (!fences(j, i))
            execute(j, i);
    mix(w, (uint64_t)j->txn->call_count << 8 | (uint64_t)j->txn->calls[0].count);
    oracle_committed(w);
    over(j);
}

static bool only_reads(const struct job *j)
{
    for (int i = 0; i < j->txn->call_count; i++) {
        const struct pg_stmt *s = j->txn->calls[i].stmt;
        if (strncmp(s->name, "open_", 5) != 0 ||
            (strncmp(s->sql, "SELECT", 6) != 0 && strncmp(s->sql, "WITH RECURSIVE", 14) != 0))
            return false;
    }
    return true;
}

static void read_step(void *arg)
{
    struct job *j = arg;
    struct world *w = j->world;
    execute(j, j->step++);
    if (j->step < j->txn->call_count)
        event_plan(w, &j->event, w->now_us + between(w, 0, 3 * MS), NULL, read_step, j);
    else
        over(j);
}

static void begin(struct job *j)
{
    struct world *w = j->world;
    const struct fault_plan *plan = fault_plan(w);
    j->begun = true;
    if (w->tracing)
        trace_line(w, "pg %s %s +%d", j->session->conn ? j->session->conn->pool->process->name : "ghost",
                   j->txn->calls[j->txn->call_count > 1 && fences(j, 0)].stmt->name, j->txn->call_count - 1);
    if (j->txn->call_count > 64)
        abort();
    for (int i = 0; i < j->txn->call_count; i++)
        j->reserved[i] = pg_model_draw(w->pg, j->txn, i);
    if (fences(j, 0)) {
        execute(j, 0);
        j->locks = !j->sqlstate;
    }
    if (j->txn->call_count > 1 && only_reads(j) && chance(w, 300)) {
        read_step(j);
        return;
    }
    int64_t takes = chance(w, plan->slow_commit) ? between(w, 1 * MS, plan->slow_commit_us) : between(w, 50, 600);
    event_plan(w, &j->event, w->now_us + takes, NULL, commit, j);
}

static void begin_next(struct session *s)
{
    list_for_each (l, tmp, &s->jobs) {
        struct job *j = container_of(l, struct job, link);
        if (j->over)
            continue;
        if (j->arrived && !j->begun)
            begin(j);
        return;
    }
}

static void arrived(void *arg)
{
    struct job *j = arg;
    j->arrived = true;
    begin_next(j->session);
}

/* pg_terminate_backend of whoever holds the lease's lock. */
static void break_connection(struct conn *c);

static bool end_lock_holders(void *arg)
{
    struct world *w = arg;
    bool any = false;
    list_for_each (l, tmp, &server_of(w)->sessions) {
        struct session *s = container_of(l, struct session, link);
        bool holds = false;
        list_for_each (k, tmp2, &s->jobs)
            holds = holds || container_of(k, struct job, link)->locks;
        if (!holds)
            continue;
        any = true;
        trace(w, "pg ends the backend of %s", s->conn ? s->conn->pool->process->name : "ghost");
        list_for_each (k, tmp2, &s->jobs) {
            struct job *j = container_of(k, struct job, link);
            if (j->over)
                continue;
            event_cancel(w, &j->event);
            j->locks = false;
            j->begun = j->arrived = true; /* and never over */
            if (!s->conn)
                job_free(j);
        }
        if (s->conn)
            break_connection(s->conn);
        else
            session_free(s);
    }
    return any;
}

/* --- connections ------------------------------------------------------------------------------------------------- */

static void count_up(struct pool *p, int delta)
{
    bool was = p->up > 0;
    p->up += delta;
    if (was != (p->up > 0) && p->pg.change && !p->dead)
        p->pg.change(p->pg.change_arg, p->up > 0);
}

static void try_connect(void *arg);
static void stuck(void *arg);

static void send_waiting(struct conn *c)
{
    struct world *w = c->pool->process->world;
    for (struct list *l; (l = list_pop(&c->waiting));) {
        struct job *j = container_of(l, struct job, link);
        bool idle = true;
        list_for_each (k, tmp, &c->session->jobs)
            idle = false;
        if (idle)
            c->heard_us = w->now_us;
        j->session = c->session;
        list_append(&c->session->jobs, &j->link);
        if (!event_planned(&c->stuck))
            event_plan(w, &c->stuck, w->now_us + STUCK_US, c->pool->process, stuck, c);
        if (!c->broken)
            event_plan(w, &j->event, wire_arrival(w, &c->there), NULL, arrived, j);
    }
}

static void stuck(void *arg)
{
    struct conn *c = arg;
    struct world *w = c->pool->process->world;
    if (!c->session || list_empty(&c->session->jobs))
        return;
    if (w->now_us - c->heard_us >= STUCK_US)
        break_connection(c);
    else
        event_plan(w, &c->stuck, c->heard_us + STUCK_US, c->pool->process, stuck, c);
}

/* What was on its way is answered with nothing; the server may go on with it. */
static void abandon(struct conn *c, enum err err)
{
    struct session *s = c->session;
    struct world *w = c->pool->process->world;
    bool goes_on = server_of(w)->up && chance(w, fault_plan(w)->ghosts);
    struct list tell;
    list_init(&tell);
    c->session = NULL;
    s->conn = NULL;
    list_for_each (l, tmp, &s->jobs) {
        struct job *j = container_of(l, struct job, link);
        c->load--;
        bool dead = j->over || !goes_on || (j->begun && !event_planned(&j->event)) ||
                    (!j->arrived && !event_planned(&j->event));
        struct job *told = j;
        if (!dead) {
            /* The transaction stays with the server, a shell of it goes to who waits. */
            told = calloc(1, sizeof *told);
            if (!told)
                abort();
            told->world = w;
            told->done = j->done;
            told->arg = j->arg;
            told->txn = pg_txn_new(NULL, 0);
            list_init(&told->link);
            j->done = NULL;
            j->conn = NULL;
        } else {
            event_cancel(w, &j->event);
            j->sqlstate = NULL;
            list_remove(&j->link);
        }
        list_append(&tell, &told->link);
    }
    if (list_empty(&s->jobs))
        session_free(s);
    for (struct list *l; (l = list_pop(&tell));)
        end(container_of(l, struct job, link), err);
}

static void lost(void *arg)
{
    struct conn *c = arg;
    struct world *w = c->pool->process->world;
    c->broken = false;
    event_cancel(w, &c->stuck);
    c->down_since_us = w->now_us;
    c->backoff_us = BACKOFF_MIN_US;
    event_plan(w, &c->connect, w->now_us + c->backoff_us, c->pool->process, try_connect, c);
    abandon(c, ERR_UNAVAILABLE);
    count_up(c->pool, -1);
}

static void try_connect(void *arg)
{
    struct conn *c = arg;
    struct pool *p = c->pool;
    struct world *w = p->process->world;
    if (!server_of(w)->up || c->there.stall_us > w->now_us) {
        c->backoff_us = c->backoff_us * 2 < BACKOFF_MAX_US ? c->backoff_us * 2 : BACKOFF_MAX_US;
        event_plan(w, &c->connect, w->now_us + c->backoff_us, p->process, try_connect, c);
        return;
    }
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->server = server_of(w);
    s->conn = c;
    list_init(&s->jobs);
    list_append(&s->server->sessions, &s->link);
    c->session = s;
    c->heard_us = w->now_us;
    c->there = c->back = (struct wire){0};
    count_up(p, 1);
    send_waiting(c);
}

static void break_connection(struct conn *c)
{
    struct process *p = c->pool->process;
    if (!c->session || c->broken)
        return;
    c->broken = true;
    event_plan(p->world, &c->lost, p->world->now_us + net_delay(p->world), p, lost, c);
}

/* --- lib/store/pg.h ---------------------------------------------------------------------------------------------- */

static void tick(void *arg)
{
    struct pool *p = arg;
    struct world *w = p->process->world;
    bool any = false;
    for (int i = 0; i < p->count; i++)
        list_for_each (l, tmp, &p->conns[i].waiting) {
            struct job *j = container_of(l, struct job, link);
            any = true;
            if (w->now_us - j->submitted_us < WAIT_MAX_US)
                break;
            p->conns[i].load--;
            fail_soon(p, j);
        }
    if (any)
        event_plan(w, &p->tick, w->now_us + TICK_US, p->process, tick, p);
}

struct pg *pg_new(struct ev_loop *loop, const struct pg_options *options)
{
    struct pool *p = calloc(1, sizeof *p);
    struct world *w = sim_loop_process(loop)->world;
    if (!p || options->connections > CONNECTIONS)
        abort();
    p->process = sim_loop_process(loop);
    p->count = options->connections ? options->connections : 4;
    list_init(&p->failed);
    list_init(&p->link);
    list_append(&server_of(w)->pools, &p->link);
    for (int i = 0; i < p->count; i++) {
        struct conn *c = &p->conns[i];
        c->pool = p;
        c->backoff_us = BACKOFF_MIN_US;
        c->down_since_us = w->now_us;
        list_init(&c->waiting);
        event_plan(w, &c->connect, w->now_us + net_delay(w), p->process, try_connect, c);
    }
    return &p->pg;
}

void pg_free(struct pg **out)
{
    if (!*out)
        return;
    struct pool *p = pool_of(*out);
    struct world *w = p->process->world;
    *out = NULL;
    p->dead = true;
    for (int i = 0; i < p->count; i++) {
        struct conn *c = &p->conns[i];
        event_cancel(w, &c->lost);
        event_cancel(w, &c->connect);
        event_cancel(w, &c->stuck);
        if (c->session)
            abandon(c, ERR_CLOSED);
        for (struct list *l; (l = list_pop(&c->waiting));)
            end(container_of(l, struct job, link), ERR_CLOSED);
    }
    while (!list_empty(&p->failed)) /* whoever is told may ask for the next */
        fail_all(p);
    event_cancel(w, &p->soon);
    event_cancel(w, &p->tick);
    list_remove(&p->link);
    free(p);
}

bool pg_up(const struct pg *pg)
{
    return pool_of(pg)->up > 0;
}

void pg_on_change(struct pg *pg, void (*fn)(void *arg, bool up), void *arg)
{
    pg->change = fn;
    pg->change_arg = arg;
}

static struct conn *choose(struct pool *p, int lane)
{
    if (lane >= 0)
        return &p->conns[lane % p->count];
    struct conn *best = NULL;
    for (int i = 0; i < p->count; i++) {
        struct conn *c = &p->conns[i];
        if (!best || (c->session && !best->session) || (!c->session == !best->session && c->load < best->load))
            best = c;
    }
    return best;
}

void pg_txn_submit(struct pg_txn *txn, pg_done_fn *done, void *arg)
{
    struct pool *p = pool_of(txn->pg);
    struct world *w = p->process->world;
    struct job *j = calloc(1, sizeof *j);
    if (!j || txn->failed)
        abort();
    *j = (struct job){.world = w, .txn = txn, .done = done, .arg = arg, .submitted_us = w->now_us};
    list_init(&j->link);
    txn->results = calloc((size_t)txn->call_count + 1, sizeof *txn->results);
    if (!txn->results)
        abort();
    struct conn *c = choose(p, txn->lane);
    j->conn = c;
    if (p->dead || p->process->dying || (!c->session && w->now_us - c->down_since_us > WAIT_MAX_US)) {
        fail_soon(p, j);
        return;
    }
    c->load++;
    list_append(&c->waiting, &j->link);
    if (c->session)
        send_waiting(c);
    else if (!event_planned(&p->tick))
        event_plan(w, &p->tick, w->now_us + TICK_US, p->process, tick, p);
}

/* --- the server -------------------------------------------------------------------------------------------------- */

void sim_pg_init(struct world *w)
{
    struct pg_server *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->world = w;
    s->up = true;
    list_init(&s->sessions);
    list_init(&s->pools);
    w->pg_server = s;
    w->pg = pg_model_new();
    w->pg->mutation = w->mutation;
    w->pg->end_lock_holders = end_lock_holders;
    w->pg->arg = w;
}

static void drop_jobs(struct session *s)
{
    list_for_each (l, tmp, &s->jobs) {
        struct job *j = container_of(l, struct job, link);
        event_cancel(j->world, &j->event);
        j->locks = false;
        j->begun = j->arrived = true;
        if (!s->conn)
            job_free(j);
    }
}

void sim_pg_free(struct world *w)
{
    struct pg_server *s = server_of(w);
    if (!s)
        return;
    list_for_each (l, tmp, &s->sessions) {
        struct session *x = container_of(l, struct session, link);
        drop_jobs(x);
        session_free(x);
    }
    event_cancel(w, &s->start);
    free(s);
    w->pg_server = NULL;
    pg_model_free(&w->pg);
}

void sim_pg_cut(struct world *w, const struct process *p)
{
    list_for_each (l, tmp, &server_of(w)->pools) {
        struct pool *pool = container_of(l, struct pool, link);
        for (int i = 0; i < pool->count; i++)
            if (!p || (pool->process == p && chance(w, 700)))
                break_connection(&pool->conns[i]);
    }
}

void sim_pg_stall(struct world *w, const struct process *p, int64_t until_us)
{
    list_for_each (l, tmp, &server_of(w)->pools) {
        struct pool *pool = container_of(l, struct pool, link);
        for (int i = 0; i < pool->count; i++) {
            struct conn *c = &pool->conns[i];
            if (p && pool->process != p)
                continue;
            wire_stall(&c->there, until_us);
            wire_stall(&c->back, until_us);
            if (!c->session)
                continue;
            list_for_each (k, tmp2, &c->session->jobs) {
                struct job *j = container_of(k, struct job, link);
                if (j->event.place && j->event.fn == arrived)
                    event_plan(w, &j->event, wire_arrival(w, &c->there), NULL, arrived, j);
                else if (j->event.place && j->event.fn == answered)
                    event_plan(w, &j->event, wire_arrival(w, &c->back), pool->process, answered, j);
            }
        }
    }
}

static void start(void *arg)
{
    struct pg_server *s = arg;
    s->up = true;
    trace(s->world, "postgres is back");
}

void sim_pg_restart(struct world *w, int64_t away_us)
{
    struct pg_server *s = server_of(w);
    if (!s->up)
        return;
    s->up = false;
    list_for_each (l, tmp, &s->sessions) {
        struct session *x = container_of(l, struct session, link);
        drop_jobs(x);
        if (x->conn)
            break_connection(x->conn);
        else
            session_free(x);
    }
    event_plan(w, &s->start, w->now_us + away_us, NULL, start, s);
}
