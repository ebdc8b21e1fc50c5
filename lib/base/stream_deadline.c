/* Which streams have how long for what: connecting, handshakes, closing. */
#include "lib/base/clock.h"
#include "lib/base/stream_internal.h"

static int64_t first_deadline(const struct list *streams)
{
    return list_empty(streams) ? INT64_MAX : container_of(streams->next, struct stream, link)->deadline;
}

static void arm_timer(struct stream_hub *hub, int64_t now)
{
    int64_t first = first_deadline(&hub->deadlines), shaking = first_deadline(&hub->shaking);
    if (shaking < first)
        first = shaking;
    ev_timer_stop(hub->loop, &hub->timer);
    if (first == INT64_MAX)
        return;
    ev_timer_set(&hub->timer, (double)(first > now ? first - now : 0) / 1000 + 0.001, 0);
    ev_timer_start(hub->loop, &hub->timer);
}

/* Timeouts differ little, so the place is found near the tail. */
static void set_deadline_in(struct stream *s, struct list *streams, int64_t ms_from_now)
{
    struct stream_hub *hub = s->hub;
    int64_t now = clock_mono_us() / 1000;
    s->deadline = now + ms_from_now;
    list_remove(&s->link);
    struct list *at = streams;
    while (at->prev != streams && container_of(at->prev, struct stream, link)->deadline > s->deadline)
        at = at->prev;
    list_insert(at, &s->link);
    if (streams->next == &s->link || !ev_is_active(&hub->timer))
        arm_timer(hub, now);
}

void stream_set_deadline(struct stream *s, int64_t ms_from_now)
{
    set_deadline_in(s, &s->hub->deadlines, ms_from_now);
}

void stream_shake(struct stream *s)
{
    if (!s->closing)
        set_deadline_in(s, &s->hub->shaking, s->handshake_ms);
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
    expire(&hub->deadlines, now);
    expire(&hub->shaking, now);
    arm_timer(hub, now);
}
