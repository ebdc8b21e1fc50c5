#include "dispatcher/tell.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/list.h"

#define SLOW_US 1000000

struct tell {
    struct ev_loop *loop;
    struct live *live;
    struct buf item;
    uint64_t batch, number;
    tell_done_fn *done;
    void *arg;
    bool over;
    unsigned refs;     /* callbacks to come */
    uint16_t *workers; /* that were told and have not confirmed; NULL before they are known */
    size_t count;
    struct live_worker *seen; /* of the look under way */
    size_t seen_count;
    int64_t begun_us, told_us;
    ev_timer timer;
};

static void look(struct tell *t);

static void destroy(struct tell *t)
{
    if (t->refs)
        return;
    buf_free(&t->item);
    free(t->workers);
    free(t->seen);
    free(t);
}

void tell_free(struct tell **tell)
{
    struct tell *t = *tell;
    *tell = NULL;
    if (!t)
        return;
    ev_timer_stop(t->loop, &t->timer);
    t->over = true;
    destroy(t);
}

/* Every callback begins with it: false when nobody waits any more. */
static bool back(struct tell *t)
{
    t->refs--;
    if (t->over)
        destroy(t);
    else
        return true;
    return false;
}

static struct tell *hold(struct tell *t)
{
    t->refs++;
    return t;
}

static void later(struct tell *t)
{
    bool slow = clock_mono_us() - t->begun_us > SLOW_US;
    ev_timer_stop(t->loop, &t->timer);
    ev_timer_set(&t->timer, (slow ? TELL_SLOW_MS : TELL_POLL_MS) / 1000., 0);
    ev_timer_start(t->loop, &t->timer);
}

static void pushed(void *arg, enum err err, int64_t waiting)
{
    struct tell *t = arg;
    (void)waiting;
    if (back(t) && err)
        t->told_us = 0; /* the next look tells again */
}

/* NULL when it is dead and reaped. */
static const struct live_worker *listed(const struct tell *t, uint16_t number)
{
    for (size_t i = 0; i < t->seen_count; i++)
        if (t->seen[i].number == number)
            return &t->seen[i];
    return NULL;
}

/* Who is not listed has no lease; but for a while after a loss of Redis that is not known of anybody. */
static bool may_send(const struct tell *t, uint16_t number)
{
    return listed(t, number) || listed(t, LIVE_UNKNOWN_WORKER);
}

static void tell_all(struct tell *t)
{
    t->told_us = clock_mono_us();
    for (size_t i = 0; i < t->count; i++) {
        const struct live_worker *w = listed(t, t->workers[i]);
        if (w && w->alive)
            live_inbox_push(t->live, t->workers[i], LIVE_URGENT, buf_slice(&t->item), pushed, hold(t));
    }
}

static bool among(uint16_t number, const uint16_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (numbers[i] == number)
            return true;
    return false;
}

static void got_confirmed(void *arg, enum err err, const uint16_t *numbers, size_t count)
{
    struct tell *t = arg;
    if (!back(t))
        return;
    size_t kept = 0;
    for (size_t i = 0; !err && i < t->count; i++)
        if (!among(t->workers[i], numbers, count) && may_send(t, t->workers[i]))
            t->workers[kept++] = t->workers[i];
    if (!err)
        t->count = kept;
    if (!err && !kept) {
        tell_done_fn *done = t->done;
        void *done_arg = t->arg;
        tell_free(&t);
        done(done_arg);
        return;
    }
    if (clock_mono_us() - t->told_us > TELL_AGAIN_MS * 1000)
        tell_all(t);
    later(t);
}

static void keep_seen(struct tell *t, const struct live_worker *workers, size_t count)
{
    free(t->seen);
    t->seen = malloc((count + 1) * sizeof *workers);
    if (!t->seen)
        abort();
    if (count)
        memcpy(t->seen, workers, count * sizeof *workers);
    t->seen_count = count;
}

static void got_workers(void *arg, enum err err, const struct live_worker *workers, size_t count)
{
    struct tell *t = arg;
    if (!back(t))
        return;
    if (err) {
        later(t);
        return;
    }
    keep_seen(t, workers, count);
    if (!t->workers) {
        t->workers = malloc((count + 1) * sizeof *t->workers);
        if (!t->workers)
            abort();
        for (t->count = 0; t->count < count; t->count++)
            t->workers[t->count] = workers[t->count].number;
        tell_all(t);
    }
    live_confirmed(t->live, t->batch, t->number, got_confirmed, hold(t));
}

static void look(struct tell *t)
{
    live_workers_all(t->live, got_workers, hold(t));
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct tell *t = container_of(timer, struct tell, timer);
    (void)loop, (void)events;
    if (live_up(t->live))
        look(t);
    else
        later(t);
}

struct tell *tell_new(struct ev_loop *loop, struct live *live, struct slice item, uint64_t batch, uint64_t number,
                      tell_done_fn *done, void *arg)
{
    struct tell *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->loop = loop;
    t->live = live;
    t->batch = batch;
    t->number = number;
    t->done = done;
    t->arg = arg;
    t->begun_us = clock_mono_us();
    ev_timer_init(&t->timer, on_timer, 0, 0);
    buf_put(&t->item, item.data, item.len);
    if (t->item.failed) {
        tell_free(&t);
        return NULL;
    }
    ev_timer_start(loop, &t->timer);
    return t;
}
