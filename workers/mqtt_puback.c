/* PUBACKs of outcomes that are durable. A device can wait for them, a command that others wait for cannot: while many
 * were sent a moment ago and are unanswered, PUBACKs give way, to be said with the device's next command, or when that
 * is over. */
#include <string.h>

#include "lib/base/clock.h"
#include "workers/mqtt_internal.h"
#include "workers/session_table.h"
#include "workers/worker.h"

#define CROWD         64 /* commands unanswered, from which on PUBACKs give way: what is given in one turn */
#define DEFERRED_MS   3000
#define LOOK_AGAIN_S  0.01
#define SAID_PER_TURN 64

/* A session with PUBACKs to be said, if it is still there. */
struct mqtt_deferred {
    uint32_t tenant, seq, generation;
    uint32_t since_ms; /* CLOCK_MONOTONIC, cut */
};

static bool is_crowded(struct worker *w, int64_t now_us)
{
    return window_count(&w->window, now_us) >= CROWD;
}

void mqtt_puback_put(struct mqtt_session *m)
{
    struct puback next;
    while (pubacks_next(&m->pubacks, &next))
        if (next.id)
            mqtt_encode_puback(&m->session.worker->mqtt->scratch, m->version, next.id, next.reason);
}

static void say(struct mqtt_session *m)
{
    struct mqtt_server *server = m->session.worker->mqtt;
    mqtt_puback_put(m);
    if (buf_len(&server->scratch) || server->scratch.failed)
        mqtt_send(server, m->stream);
}

static void plan(struct mqtt_server *server, double in_s)
{
    ev_timer_set(&server->deferred_timer, in_s, 0);
    ev_timer_start(server->worker->loop, &server->deferred_timer);
}

/* If it is still there; it may have said them with a command. */
static void say_next(struct mqtt_server *server, const struct mqtt_deferred *next)
{
    struct session *s = session_table_still(server->worker->sessions, next->tenant, next->seq, next->generation);
    if (!s)
        return;
    struct mqtt_session *m = container_of(s, struct mqtt_session, session);
    m->deferred = false;
    say(m);
}

static void on_deferred(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    struct mqtt_server *server = timer->data;
    struct mqtt_deferred next;
    int64_t now_us = clock_mono_us();
    bool crowded = is_crowded(server->worker, now_us);
    unsigned said = 0;
    (void)revents;
    ev_timer_stop(loop, timer);
    for (; said < SAID_PER_TURN && buf_len(&server->deferred); said++) {
        memcpy(&next, buf_head(&server->deferred), sizeof next);
        if (crowded && (uint32_t)(now_us / 1000) - next.since_ms < DEFERRED_MS)
            break;
        buf_consume(&server->deferred, sizeof next);
        say_next(server, &next);
    }
    if (buf_len(&server->deferred))
        plan(server, said == SAID_PER_TURN ? 0 : LOOK_AGAIN_S);
}

/* No more than need no memory, and not one's that is not read until they are said. */
static bool can_wait(const struct mqtt_session *m)
{
    return !m->paused && !m->pubacks.grown && m->pubacks.named > 0;
}

void mqtt_puback(struct mqtt_session *m)
{
    struct mqtt_server *server = m->session.worker->mqtt;
    int64_t now_us = clock_mono_us();
    if (!can_wait(m) || !is_crowded(server->worker, now_us)) {
        say(m);
        return;
    }
    if (m->deferred)
        return;
    struct mqtt_deferred d = {m->session.tenant, m->session.seq, m->session.generation, (uint32_t)(now_us / 1000)};
    buf_put(&server->deferred, &d, sizeof d);
    m->deferred = !server->deferred.failed;
    if (!m->deferred)
        say(m);
    else if (!ev_is_active(&server->deferred_timer))
        plan(server, LOOK_AGAIN_S);
    server->stats.pubacks_deferred += m->deferred;
}

void mqtt_puback_init(struct mqtt_server *server)
{
    ev_timer_init(&server->deferred_timer, on_deferred, 0, 0);
    server->deferred_timer.data = server;
}

void mqtt_puback_free(struct mqtt_server *server)
{
    ev_timer_stop(server->worker->loop, &server->deferred_timer);
    buf_free(&server->deferred);
}
