/* Which streams have how long for what: connecting, handshakes, closing. */
#include "lib/base/clock.h"
#include "lib/base/stream_internal.h"

static int64_t first_deadline(const struct list *streams)
{
    return list_empty(streams) ? INT64_MAX : container_of(streams->next, struct stream, link)->deadline;
}

static void arm_timer(struct stream_hub *hub, int64_t now)
{
    int64_t first = INT64_MAX;
    for (unsigned n = 0; n < STREAM_DEADLINES; n++)
        if (first_deadline(&hub->deadlines[n]) < first)
            first = first_deadline(&hub->deadlines[n]);
    ev_timer_stop(hub->loop, &hub->timer);
    if (first == INT64_MAX)
        return;
    ev_timer_set(&hub->timer, (double)(first > now ? first - now : 0) / 1000 + 0.001, 0);
    ev_timer_start(hub->loop, &hub->timer);
}

/* Those who wait for the same have the same time, so the place is at the tail, or near it. */
void stream_set_deadline(struct stream *s, enum stream_deadline what, int64_t ms_from_now)
{
    struct stream_hub *hub = s->hub;
    struct list *streams = &hub->deadlines[what], *at = streams;
    int64_t now = clock_mono_us() / 1000;
    s->deadline = now + ms_from_now;
    list_remove(&s->link);
    while (at->prev != streams && container_of(at->prev, struct stream, link)->deadline > s->deadline)
        at = at->prev;
    list_insert(at, &s->link);
    if (streams->next == &s->link || !ev_is_active(&hub->timer))
        arm_timer(hub, now);
}

void stream_clear_deadline(struct stream *s)
{
    list_remove(&s->link);
    list_append(&s->hub->open, &s->link);
}

/* Those who came all at once are late all at once: the rest waits for the next turn. */
static void expire(struct list *streams, int64_t now)
{
    for (unsigned n = 0; n < STREAM_EXPIRIES_PER_TURN && first_deadline(streams) <= now; n++) {
        struct stream *s = container_of(streams->next, struct stream, link);
        s->hub->stats.handshakes_timed_out += s->state == STREAM_HANDSHAKE && !s->client;
        stream_fail(s, s->state == STREAM_LINGER ? ERR_CLOSED : ERR_TIMEOUT);
    }
}

void stream_on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop, (void)revents;
    struct stream_hub *hub = container_of(w, struct stream_hub, timer);
    int64_t now = clock_mono_us() / 1000;
    for (unsigned n = 0; n < STREAM_DEADLINES; n++)
        expire(&hub->deadlines[n], now);
    arm_timer(hub, now);
}
