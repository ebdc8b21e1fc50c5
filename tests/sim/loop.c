/* libev's timers on virtual time: one loop per process and life. What the code under test uses of ev.h is here; more
 * is a link error. */
#include <ev.h>
#include <stdlib.h>

#include "tests/sim/loop.h"

/* A timer that is due at once comes with the next turn, which takes so long to come. */
#define TURN_US    15
#define CHECKS_MAX 4

struct loop {
    struct process *process;
    ev_timer **timers; /* binary heap from 1 on; watcher.active is the place */
    int64_t *due;      /* beside it: microseconds */
    uint64_t *order;
    int count, room;
    uint64_t orders;
    struct event wake;
    ev_check *checks[CHECKS_MAX]; /* what comes first in each turn */
    int check_count;
};

static struct loop *of(struct ev_loop *loop)
{
    return (struct loop *)(void *)loop;
}

static double seconds(int64_t us)
{
    return (double)us / 1e6;
}

static void wake(void *arg);

static void plan(struct loop *l)
{
    struct world *w = l->process->world;
    if (l->count == 0)
        event_cancel(w, &l->wake);
    else if (!event_planned(&l->wake) || (l->wake.place && l->wake.at_us != l->due[1]))
        event_plan(w, &l->wake, l->due[1], l->process, wake, l);
}

static bool before(const struct loop *l, int a, int b)
{
    return l->due[a] != l->due[b] ? l->due[a] < l->due[b] : l->order[a] < l->order[b];
}

static void swap(struct loop *l, int a, int b)
{
    ev_timer *t = l->timers[a];
    int64_t due = l->due[a];
    uint64_t order = l->order[a];
    l->timers[a] = l->timers[b];
    l->due[a] = l->due[b];
    l->order[a] = l->order[b];
    l->timers[b] = t;
    l->due[b] = due;
    l->order[b] = order;
    l->timers[a]->active = a;
    l->timers[b]->active = b;
}

static void settle(struct loop *l, int at)
{
    for (; at > 1 && before(l, at, at / 2); at /= 2)
        swap(l, at, at / 2);
    for (int child; (child = 2 * at) <= l->count; at = child) {
        if (child < l->count && before(l, child + 1, child))
            child++;
        if (!before(l, child, at))
            break;
        swap(l, at, child);
    }
}

static void take_out(struct loop *l, int at)
{
    l->timers[at]->active = 0;
    if (at != l->count) {
        l->timers[at] = l->timers[l->count];
        l->due[at] = l->due[l->count];
        l->order[at] = l->order[l->count];
        l->timers[at]->active = at;
    }
    l->count--;
    if (at <= l->count)
        settle(l, at);
}

static void put_in(struct loop *l, ev_timer *t, int64_t due)
{
    if (l->count + 2 > l->room) {
        l->room = l->room ? l->room * 2 : 64;
        l->timers = realloc(l->timers, (size_t)l->room * sizeof *l->timers);
        l->due = realloc(l->due, (size_t)l->room * sizeof *l->due);
        l->order = realloc(l->order, (size_t)l->room * sizeof *l->order);
        if (!l->timers || !l->due || !l->order)
            abort();
    }
    int at = ++l->count;
    l->timers[at] = t;
    l->due[at] = due;
    l->order[at] = ++l->orders;
    t->active = at;
    settle(l, at);
}

/* Everything that was due when the turn began. */
static void wake(void *arg)
{
    struct loop *l = arg;
    struct world *w = l->process->world;
    uint64_t orders = l->orders;
    while (l->count && l->due[1] <= w->now_us && l->order[1] <= orders) {
        ev_timer *t = l->timers[1];
        take_out(l, 1);
        if (t->repeat > 0)
            put_in(l, t, w->now_us + (int64_t)(t->repeat * 1e6));
        t->cb((struct ev_loop *)(void *)l, t, EV_TIMER);
    }
    plan(l);
}

struct ev_loop *sim_loop_new(struct process *p)
{
    struct loop *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    l->process = p;
    return (struct ev_loop *)(void *)l;
}

void sim_loop_free(struct ev_loop **loop)
{
    struct loop *l = of(*loop);
    event_cancel(l->process->world, &l->wake);
    free(l->timers);
    free(l->due);
    free(l->order);
    free(l);
    *loop = NULL;
}

struct process *sim_loop_process(struct ev_loop *loop)
{
    return of(loop)->process;
}

void sim_loop_turn(struct ev_loop *loop)
{
    struct loop *l = of(loop);
    for (int i = 0; i < l->check_count; i++)
        l->checks[i]->cb(loop, l->checks[i], EV_CHECK);
}

/* --- ev.h -----------------------------------------------------------------------------------------------------------
 */

void ev_timer_start(struct ev_loop *loop, ev_timer *t)
{
    struct loop *l = of(loop);
    if (t->active)
        return;
    int64_t after = (int64_t)(t->at * 1e6 + 0.5);
    put_in(l, t, l->process->world->now_us + (after < TURN_US ? TURN_US : after));
    plan(l);
}

void ev_timer_stop(struct ev_loop *loop, ev_timer *t)
{
    if (!t->active)
        return;
    take_out(of(loop), t->active);
    plan(of(loop));
}

void ev_timer_again(struct ev_loop *loop, ev_timer *t)
{
    ev_timer_stop(loop, t);
    if (t->repeat > 0) {
        t->at = t->repeat;
        ev_timer_start(loop, t);
    }
}

ev_tstamp ev_now(struct ev_loop *loop)
{
    return seconds(of(loop)->process->world->now_us);
}

void ev_check_start(struct ev_loop *loop, ev_check *c)
{
    struct loop *l = of(loop);
    if (c->active)
        return;
    if (l->check_count == CHECKS_MAX)
        abort();
    l->checks[l->check_count++] = c;
    c->active = 1;
}

void ev_check_stop(struct ev_loop *loop, ev_check *c)
{
    struct loop *l = of(loop);
    if (!c->active)
        return;
    c->active = 0;
    for (int i = 0; i < l->check_count; i++)
        if (l->checks[i] == c)
            l->checks[i--] = l->checks[--l->check_count];
}
