#include "workers/lease.h"

#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/live.h"
#include "workers/worker.h"

#define RETRY_S 0.2

struct lease {
    struct worker *worker;
    struct lease_events events;
    struct ev_timer timer;
    uint16_t number;
    int64_t holds_until_us; /* CLOCK_MONOTONIC */
    int64_t asked_us;       /* when the request under way was sent: the lease counts from then */
    void (*released)(void *arg);
    void *released_arg;
};

static void again(struct lease *l, double seconds)
{
    ev_timer_stop(l->worker->loop, &l->timer);
    ev_timer_set(&l->timer, seconds, 0);
    ev_timer_start(l->worker->loop, &l->timer);
}

static double renew_interval(const struct lease *l)
{
    return (double)l->worker->options.lease_ms / 3000;
}

static void held(struct lease *l)
{
    l->holds_until_us = l->asked_us + l->worker->options.lease_ms * 1000;
    again(l, renew_interval(l));
}

static void fence(struct lease *l, const char *why)
{
    log_warn("worker_fenced", "worker=%u reason=%s", l->number, why);
    l->number = 0;
    l->holds_until_us = 0;
    l->worker->stats.fenced++;
    l->events.on_fenced(l->worker);
    again(l, 0);
}

static void acquired(void *arg, enum err err, int64_t number)
{
    struct lease *l = arg;
    if (err) {
        again(l, RETRY_S);
        return;
    }
    l->number = (uint16_t)number;
    held(l);
    log_info("worker_number", "worker=%u", l->number);
    l->events.on_number(l->worker);
}

static void reclaimed(void *arg, enum err err)
{
    struct lease *l = arg;
    if (err == ERR_FENCED) {
        fence(l, "taken");
    } else if (err) {
        again(l, RETRY_S);
    } else {
        held(l);
        log_warn("worker_lease_lost", "worker=%u action=announce", l->number);
        l->events.on_lost(l->worker);
    }
}

static void renewed(void *arg, enum err err)
{
    struct lease *l = arg;
    struct worker *w = l->worker;
    if (!err) {
        bool held_before = lease_holds(l);
        held(l);
        if (!held_before) /* it was only late: what was not sent meanwhile goes on */
            l->events.on_lost(w);
    } else if (err == ERR_FENCED) {
        fence(l, "taken");
    } else if (err == ERR_NOT_FOUND && lease_holds(l)) {
        l->asked_us = clock_mono_us();
        live_worker_reclaim(w->live, l->number, w->instance, w->options.lease_ms, reclaimed, l);
    } else if (err == ERR_NOT_FOUND) {
        fence(l, "expired");
    } else {
        again(l, RETRY_S);
    }
}

/* While Redis is away the lease runs out and nothing new is sent, but the sessions stay: nobody can have taken the
 * devices without Redis, and renewal tells afterwards. */
static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    struct lease *l = timer->data;
    struct worker *w = l->worker;
    (void)loop;
    (void)revents;
    l->asked_us = clock_mono_us();
    if (l->number == 0)
        live_worker_acquire(w->live, w->instance, w->options.lease_ms, acquired, l);
    else
        live_worker_renew(w->live, l->number, w->instance, w->options.lease_ms, renewed, l);
}

struct lease *lease_new(struct worker *worker, const struct lease_events *events)
{
    struct lease *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->worker = worker;
    l->events = *events;
    ev_timer_init(&l->timer, on_timer, 0, 0);
    l->timer.data = l;
    again(l, 0);
    return l;
}

void lease_free(struct lease **lease)
{
    if (!*lease)
        return;
    ev_timer_stop((*lease)->worker->loop, &(*lease)->timer);
    free(*lease);
    *lease = NULL;
}

uint16_t lease_number(const struct lease *lease)
{
    return lease->number;
}

bool lease_holds(const struct lease *lease)
{
    return clock_mono_us() < lease->holds_until_us;
}

bool worker_may_send(const struct worker *w)
{
    return lease_holds(w->lease);
}

static void released(void *arg, enum err err)
{
    struct lease *l = arg;
    (void)err; /* it runs out by itself */
    l->released(l->released_arg);
}

void lease_release(struct lease *l, void (*done)(void *arg), void *arg)
{
    ev_timer_stop(l->worker->loop, &l->timer);
    l->released = done;
    l->released_arg = arg;
    l->holds_until_us = 0;
    live_worker_release(l->worker->live, l->number, l->worker->instance, released, l);
}
