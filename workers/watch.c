/* What must happen to a command or session some time after: SENT recorded, NOT_NOW delivered again. */
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/list.h"
#include "lib/base/log.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/worker.h"

#define TICK_S         0.1
#define TICKS_A_SECOND 10

struct sent {
    uint64_t batch;
    uint32_t tenant, seq, generation;
    uint32_t at_ms; /* CLOCK_MONOTONIC */
};

static void put(struct buf *queue, const struct session *s, uint64_t batch, uint32_t now_ms)
{
    struct sent sent = {batch, s->tenant, s->seq, s->generation, now_ms};
    buf_put(queue, &sent, sizeof sent);
    if (queue->failed) {
        log_error("out_of_memory", "where=watch");
        abort();
    }
}

void worker_watch_sent(struct worker *w, const struct session *s, uint64_t batch, uint32_t now_ms)
{
    put(&w->watch.sent, s, batch, now_ms);
}

void worker_retry_later(struct worker *w, const struct session *s)
{
    put(&w->watch.later, s, 0, (uint32_t)(clock_mono_us() / 1000));
}

/* Takes the next entry that is due out of `queue`; its session, or NULL when that is gone. */
static bool next_due(struct worker *w, struct buf *queue, uint32_t now, int64_t after_ms, struct sent *sent,
                     struct session **session)
{
    if (buf_len(queue) < sizeof *sent)
        return false;
    memcpy(sent, buf_head(queue), sizeof *sent);
    if ((int32_t)(now - sent->at_ms) < after_ms)
        return false;
    buf_consume(queue, sizeof *sent);
    *session = session_table_still(w->sessions, sent->tenant, sent->seq, sent->generation);
    return true;
}

static void look(void *now_us, struct session *s)
{
    session_look(s, *(const int64_t *)now_us);
}

static void on_tick(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    struct worker *w = timer->data;
    int64_t now_us = clock_mono_us();
    uint32_t now = (uint32_t)(now_us / 1000);
    struct session *s;
    struct sent sent;
    (void)loop;
    (void)revents;
    while (next_due(w, &w->watch.sent, now, SENT_RECORD_MS, &sent, &s))
        if (s)
            session_record_sent(s, sent.batch);
    if (w->look_s && ++w->watch.ticks % (w->look_s * TICKS_A_SECOND) == 0)
        session_table_each(w->sessions, look, &now_us);
    while (next_due(w, &w->watch.later, now, w->options.not_now_ms, &sent, &s))
        if (s) {
            s->later = false;
            session_again(s);
        }
}

void worker_watch_start(struct worker *w)
{
    ev_timer_init(&w->watch.timer, on_tick, TICK_S, TICK_S);
    w->watch.timer.data = w;
    ev_timer_start(w->loop, &w->watch.timer);
}

void worker_watch_stop(struct worker *w)
{
    ev_timer_stop(w->loop, &w->watch.timer);
    buf_free(&w->watch.sent);
    buf_free(&w->watch.later);
}
