#include "tests/sim/process.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "dispatcher/accept.h"
#include "dispatcher/gate_keeper.h"
#include "dispatcher/leader.h"
#include "lib/base/stream.h"
#include "lib/store/live.h"
#include "lib/store/pg.h"
#include "tests/sim/caller.h"
#include "tests/sim/fault.h"
#include "tests/sim/loop.h"
#include "tests/sim/stream.h"
#include "workers/lease.h"
#include "workers/lifecycle.h"
#include "workers/mqtt.h"
#include "workers/worker.h"

#define DRAIN_US (20 * S)

struct dispatcher_parts {
    struct pg *pg;
    struct live *live;
    struct leader *leader;
    struct acceptor *acceptor;
    struct gate_keeper *gates;
    int64_t unannounced;
    struct event drain;
};

struct worker_parts {
    struct worker worker;
    struct event drain;
};

/* --- dispatcher: as dispatcher/main.c, submit.c ------------------------------------------------------------------ */

static void on_event(void *arg, struct slice text)
{
    struct dispatcher_parts *d = arg;
    leader_event(d->leader, text);
}

static void on_committed(void *arg)
{
    struct dispatcher_parts *d = arg;
    char text[40];
    if (!d->unannounced)
        return;
    snprintf(text, sizeof text, "accepted %" PRId64, d->unannounced);
    live_publish(d->live, text);
    leader_hint(d->leader, LEADER_HINT_ACCEPTED, (uint64_t)d->unannounced);
    d->unannounced = 0;
}

static void on_backlog(void *arg, const struct queue_heavy *heavy, size_t count)
{
    acceptor_hold(((struct dispatcher_parts *)arg)->acceptor, heavy, count);
}

static void start_dispatcher(struct process *p)
{
    struct dispatcher_parts *d = calloc(1, sizeof *d);
    char holder[64];
    struct pg_options pg = {.conninfo = "", .connections = 6};
    if (!d)
        abort();
    p->parts = d;
    snprintf(holder, sizeof holder, "%s:%u", p->name, p->lives);
    struct leader_options leader = {.holder = holder, .lane = 0, .redis = "", .mailbox_max = p->world->mailbox_max};
    d->pg = pg_new(p->loop, &pg);
    d->live = live_new(p->loop, "");
    d->acceptor = acceptor_new(p->loop, d->pg, on_committed, d);
    d->gates = gate_keeper_new(p->loop, d->pg, d->live);
    d->leader = leader_new(p->loop, d->pg, d->live, &leader);
    leader_on_backlog(d->leader, on_backlog, d);
    live_subscribe(d->live, on_event, d);
}

static void free_dispatcher(struct process *p)
{
    struct dispatcher_parts *d = p->parts;
    event_cancel(p->world, &d->drain);
    leader_free(&d->leader);
    live_free(&d->live);
    pg_free(&d->pg);
    acceptor_free(&d->acceptor);
    gate_keeper_free(&d->gates);
    free(d);
}

struct pg *process_pg(const struct process *p)
{
    return ((struct dispatcher_parts *)p->parts)->pg;
}

struct live *process_live(const struct process *p)
{
    return ((struct dispatcher_parts *)p->parts)->live;
}

struct leader *process_leader(const struct process *p)
{
    return ((struct dispatcher_parts *)p->parts)->leader;
}

struct acceptor *process_acceptor(const struct process *p)
{
    return ((struct dispatcher_parts *)p->parts)->acceptor;
}

struct gate_keeper *process_gates(const struct process *p)
{
    return ((struct dispatcher_parts *)p->parts)->gates;
}

void process_unannounced(struct process *p, int64_t batch)
{
    ((struct dispatcher_parts *)p->parts)->unannounced = batch;
}

/* --- worker ------------------------------------------------------------------------------------------------------ */

static void ended(void *arg)
{
    struct process *p = arg;
    trace(p->world, "%s has drained", p->name);
    process_kill(p);
    process_start(p);
}

static void stopped(struct worker *w)
{
    struct worker_parts *parts = container_of(w, struct worker_parts, worker);
    struct process *p = sim_loop_process(w->loop);
    if (!p->dying)
        event_plan(p->world, &parts->drain, p->world->now_us + 5, NULL, ended, p);
}

static void start_worker(struct process *p)
{
    struct worker_parts *parts = calloc(1, sizeof *parts);
    if (!parts)
        abort();
    struct worker *w = &parts->worker;
    const struct fault_plan *plan = fault_plan(p->world);
    struct pg_options pg = {.conninfo = "", .connections = 2};
    p->parts = parts;
    w->loop = p->loop;
    w->stopped = stopped;
    w->options = (struct worker_options){.in_flight = plan->in_flight,
                                         .held_max = 1000000,
                                         .lease_ms = plan->worker_lease_ms,
                                         .flush_ms = 5,
                                         .not_now_ms = plan->not_now_ms,
                                         .quarantine_after = plan->quarantine_after,
                                         .seen_ms = 30000};
    snprintf(w->instance, sizeof w->instance, "%s:%u", p->name, p->lives);
    w->live = live_new(w->loop, "");
    w->pg = pg_new(w->loop, &pg);
    if (!worker_make(w) || mqtt_server_listen(w->mqtt, "", NULL) < 0)
        abort();
}

static void free_worker(struct process *p)
{
    struct worker_parts *parts = p->parts;
    event_cancel(p->world, &parts->drain);
    worker_unmake(&parts->worker);
    free(parts);
}

struct stream_hub *sim_process_hub(const struct process *p)
{
    return p->running && p->kind == PROCESS_WORKER ? ((struct worker_parts *)p->parts)->worker.hub : NULL;
}

/* --- both
 * --------------------------------------------------------------------------------------------------------------------
 */

void process_start(struct process *p)
{
    struct process *before = p->world->current;
    p->lives++;
    p->running = true;
    p->dying = p->stopped = p->draining = false;
    p->wall_skew_ms = fault_skew(p->world);
    p->slow_ms = p->wall_skew_ms < 0 ? -p->wall_skew_ms : p->wall_skew_ms;
    p->world->current = p;
    p->loop = sim_loop_new(p);
    trace(p->world, "starts, life %u", p->lives);
    if (p->kind == PROCESS_DISPATCHER)
        start_dispatcher(p);
    else
        start_worker(p);
    p->world->current = before;
}

void process_kill(struct process *p)
{
    struct process *before = p->world->current;
    if (!p->running)
        return;
    p->world->current = p;
    p->dying = true;
    if (p->kind == PROCESS_DISPATCHER)
        free_dispatcher(p);
    else
        free_worker(p);
    sim_loop_free(&p->loop);
    p->parts = NULL;
    p->running = p->stopped = false;
    p->world->current = before;
    if (p->kind == PROCESS_DISPATCHER && p->world->caller)
        caller_lost(p->world, p);
    if (p->held_first)
        abort(); /* somebody's event outlives him */
}

static void resigned(void *arg)
{
    struct process *p = arg;
    struct dispatcher_parts *d = p->parts;
    if (!p->dying)
        event_plan(p->world, &d->drain, p->world->now_us + 5, NULL, ended, p);
}

static void drain_late(void *arg)
{
    struct process *p = arg;
    trace(p->world, "%s is killed while it drains", p->name);
    process_kill(p);
    process_start(p);
}

void process_drain(struct process *p)
{
    struct process *before = p->world->current;
    p->world->current = p;
    if (p->kind == PROCESS_DISPATCHER) {
        struct dispatcher_parts *d = p->parts;
        event_plan(p->world, &d->drain, p->world->now_us + DRAIN_US, NULL, drain_late, p);
        leader_resign(d->leader, resigned, p);
    } else {
        struct worker_parts *w = p->parts;
        event_plan(p->world, &w->drain, p->world->now_us + DRAIN_US, NULL, drain_late, p);
        lifecycle_drain(&w->worker);
    }
    p->world->current = before;
}
