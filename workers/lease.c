#include "workers/lease.h"

#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/base/list.h"
#include "lib/base/log.h"
#include "lib/store/db_lease.h"
#include "lib/store/live.h"
#include "lib/store/live_look.h"
#include "workers/worker.h"

#define RETRY_S 0.2
#define LOOK_S  0.02 /* turns follow each other faster than the clock need be looked at */
/* A Redis that was emptied learns by the renewal which devices are here: not later than this. */
#define RENEW_MAX_MS 1000

struct lease {
    struct worker *worker;
    struct lease_events events;
    struct ev_timer timer;
    struct ev_check check; /* first of all in each turn */
    uint16_t number;
    uint16_t drawn;         /* the number that is being acquired */
    int64_t holds_until_us; /* by clock_mono_us */
    int64_t asked_us;       /* when the request under way was sent: the lease counts from then */
    int64_t turn_us;        /* when the last turn began in which the clock was looked at, by that */
    double looked;          /* and by the loop's own, which costs nothing */
    bool asking;            /* a request is under way */
    bool lapsed;            /* it has run out; whose the number is, is being asked */
    bool paused;            /* since the last renewal the loop did not turn for a part of the lease */
    void (*released)(void *arg);
    void *released_arg;
};

static void ask(struct lease *l);

static void again(struct lease *l, double seconds)
{
    ev_timer_stop(l->worker->loop, &l->timer);
    ev_timer_set(&l->timer, seconds, 0);
    ev_timer_start(l->worker->loop, &l->timer);
}

static int64_t lease_us(const struct lease *l)
{
    return l->worker->options.lease_ms * 1000;
}

static double renew_interval(const struct lease *l)
{
    int64_t third = l->worker->options.lease_ms / 3;
    return (double)(third < RENEW_MAX_MS ? third : RENEW_MAX_MS) / 1000;
}

/* Redis has said so. The answer may have been long on its way, or waited while this process was stopped: then it says
 * nothing of now, and is asked for again. */
static bool held(struct lease *l)
{
    l->holds_until_us = l->asked_us + lease_us(l);
    if (!lease_holds(l))
        return false;
    l->paused = false;
    again(l, renew_interval(l));
    return true;
}

static void fence(struct lease *l, const char *why)
{
    uint16_t former = l->number;
    log_warn("worker_fenced", "worker=%u reason=%s paused=%s", former, why, l->paused ? "yes" : "no");
    l->number = 0;
    l->holds_until_us = 0;
    l->lapsed = false;
    l->worker->stats.fenced++;
    l->events.on_fenced(l->worker, former, l->paused);
    again(l, 0);
}

static void acquired(void *arg, enum err err)
{
    struct lease *l = arg;
    l->asking = false;
    if (err) {
        again(l, err == ERR_FENCED ? 0 : RETRY_S); /* the number is in use still: the next one */
        return;
    }
    if (!held(l)) {
        again(l, 0); /* nothing was done under it; the next one */
        return;
    }
    l->number = l->drawn;
    log_info("worker_number", "worker=%u", l->number);
    l->events.on_number(l->worker);
}

/* A number out of PostgreSQL is nobody else's yet. */
static void drawn(void *arg, enum err err, int64_t number)
{
    struct lease *l = arg;
    struct worker *w = l->worker;
    if (err) {
        l->asking = false;
        again(l, RETRY_S);
        return;
    }
    l->drawn = (uint16_t)number;
    l->asked_us = clock_mono_us();
    live_worker_acquire(w->live, l->drawn, w->instance, w->options.lease_ms, acquired, l);
}

static void reclaimed(void *arg, enum err err)
{
    struct lease *l = arg;
    l->asking = false;
    if (err == ERR_FENCED) {
        fence(l, "taken");
    } else if (err) {
        again(l, RETRY_S);
    } else if (!held(l)) {
        ask(l);
    } else {
        l->lapsed = false;
        log_warn("worker_lease_lost", "worker=%u action=announce", l->number);
        l->events.on_lost(l->worker);
    }
}

static void kept(struct lease *l)
{
    bool late = l->lapsed || !lease_holds(l);
    if (!held(l)) {
        ask(l);
        return;
    }
    l->lapsed = false;
    live_worker_list(l->worker->live, l->number); /* if it was forgotten for dead meanwhile */
    if (late)                                     /* what was not sent meanwhile goes on */
        l->events.on_late(l->worker);
}

static void renewed(void *arg, enum err err)
{
    struct lease *l = arg;
    struct worker *w = l->worker;
    l->asking = false;
    if (!err) {
        kept(l);
    } else if (err == ERR_FENCED) {
        fence(l, "taken");
    } else if (err == ERR_NOT_FOUND && lease_holds(l)) {
        l->asking = true;
        l->asked_us = clock_mono_us();
        live_worker_reclaim(w->live, l->number, w->instance, w->options.lease_ms, reclaimed, l);
    } else if (err == ERR_NOT_FOUND) {
        fence(l, "expired");
    } else {
        again(l, RETRY_S);
    }
}

static void ask(struct lease *l)
{
    struct worker *w = l->worker;
    if (l->asking || l->released)
        return;
    l->asking = true;
    l->asked_us = clock_mono_us();
    if (l->number == 0)
        db_worker_number(w->pg, w->options.lease_ms, drawn, l);
    else
        live_worker_renew(w->live, l->number, w->instance, w->options.lease_ms, renewed, l);
}

static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    (void)loop, (void)revents;
    ask(timer->data);
}

/* In front of everything else that this turn has to do. */
static void on_turn(struct ev_loop *loop, struct ev_check *check, int revents)
{
    struct lease *l = container_of(check, struct lease, check);
    (void)revents;
    if (ev_now(loop) - l->looked >= 0 && ev_now(loop) - l->looked < LOOK_S)
        return;
    l->looked = ev_now(loop);
    int64_t now = clock_mono_us();
    if (now - l->turn_us > lease_us(l) / 2)
        l->paused = true;
    l->turn_us = now;
    if (l->number == 0 || l->lapsed || lease_holds_at(l, now) || l->released)
        return;
    l->lapsed = true;
    log_warn("worker_lease_lapsed", "worker=%u paused=%s", l->number, l->paused ? "yes" : "no");
    ask(l);
}

struct lease *lease_new(struct worker *worker, const struct lease_events *events)
{
    struct lease *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->worker = worker;
    l->events = *events;
    l->turn_us = clock_mono_us();
    ev_timer_init(&l->timer, on_timer, 0, 0);
    l->timer.data = l;
    ev_check_init(&l->check, on_turn);
    ev_set_priority(&l->check, EV_MAXPRI);
    ev_check_start(worker->loop, &l->check);
    again(l, 0);
    return l;
}

void lease_free(struct lease **lease)
{
    if (!*lease)
        return;
    ev_timer_stop((*lease)->worker->loop, &(*lease)->timer);
    ev_check_stop((*lease)->worker->loop, &(*lease)->check);
    free(*lease);
    *lease = NULL;
}

uint16_t lease_number(const struct lease *lease)
{
    return lease->number;
}

bool lease_holds_at(const struct lease *lease, int64_t now_us)
{
    return now_us < lease->holds_until_us;
}

bool lease_holds(const struct lease *lease)
{
    return lease_holds_at(lease, clock_mono_us());
}

void lease_ask(struct lease *l)
{
    if (l->number) /* Redis may have come back as it was between its being leased and listed */
        live_worker_list(l->worker->live, l->number);
    ask(l);
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
