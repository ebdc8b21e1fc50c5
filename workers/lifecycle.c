#include "workers/lifecycle.h"

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/stream.h"
#include "lib/store/live.h"
#include "lib/store/pg.h"
#include "workers/acks.h"
#include "workers/answer_self.h"
#include "workers/attach.h"
#include "workers/batch_cache.h"
#include "workers/credentials.h"
#include "workers/gates.h"
#include "workers/in_flight.h"
#include "workers/inbox.h"
#include "workers/mqtt.h"
#include "workers/routed.h"
#include "workers/seen.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/worker.h"

/* Between two looks whether Redis is filled: as often as the leader looks. */
#define ASK_AGAIN_S 0.05

/* Tells Redis which devices are here, and takes what is routed to them. */
static void serve(struct worker *w)
{
    if (w->draining)
        return;
    gates_begin(w->gates); /* those who were told meanwhile may not have reckoned with this worker */
    if (w->unvouched)
        return;
    if (w->options.answer_self)
        answer_self_claim(w->answer_self);
    attach_all(w->attach);
    inbox_start(w->inbox);
}

static void drop(struct session *s, enum session_end why)
{
    session_close(s);
    s->transport->close(s, why);
}

static void drop_fenced(void *arg, struct session *s)
{
    (void)arg;
    drop(s, SESSION_FENCED);
}

static void drop_draining(void *arg, struct session *s)
{
    (void)arg;
    drop(s, SESSION_DRAINING);
}

static void hear(void *arg, struct session *s)
{
    (void)arg;
    s->transport->hear(s);
}

static void forget(void *arg, struct session *s)
{
    (void)arg;
    session_forget(s);
}

/* Redis was emptied, and is filled again: what was to be sent is asked for anew, since a cancel may have been told to
 * those only whom Redis knew. */
static void lost(struct worker *w)
{
    acks_redis_lost(w->acks);
    routed_clear(w->routed);
    session_table_each(w->sessions, forget, NULL);
    batch_cache_doubt(w->batches);
    serve(w);
}

/* An answer that has arrived is a fact, however late; it is recorded like any other. What was to be sent is not. */
static void fenced(struct worker *w, uint16_t former, bool paused)
{
    inbox_stop(w->inbox);
    acks_redis_lost(w->acks);
    batch_cache_doubt(w->batches);
    if (paused)
        session_table_each(w->sessions, hear, NULL);
    stream_hub_drop_guarded(w->hub);
    session_table_each(w->sessions, paused ? drop_fenced : forget, NULL);
    attach_fenced(w->attach, former);
    batch_cache_doubt(w->batches);
}

/* Known to Redis from now on: what was read before may have been canceled since, told to those only who were known. */
static void numbered(struct worker *w)
{
    batch_cache_doubt(w->batches);
    serve(w);
}

static void renewed_late(struct worker *w)
{
    stream_hub_release(w->hub);
    serve(w);
}

const struct lease_events lifecycle_events = {
    .on_number = numbered, .on_lost = lost, .on_late = renewed_late, .on_fenced = fenced};

/* What is being looked up will not be known: what waits behind it must not overtake it, and comes again with it when
 * the devices are attached anew. */
void lifecycle_redis_lost(struct worker *w)
{
    routed_clear(w->routed);
    in_flight_record(w);
    gates_doubt(w->gates);
}

static void ask(struct worker *w);

static void on_ask_again(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    (void)revents;
    ev_timer_stop(loop, timer);
    ask(timer->data);
}

static void vouched(void *arg, enum err err, int64_t yes)
{
    struct worker *w = arg;
    if (err == ERR_CLOSED || !w->unvouched)
        return;
    if (err || !yes) {
        ev_timer_init(&w->ask_again, on_ask_again, ASK_AGAIN_S, 0);
        w->ask_again.data = w;
        ev_timer_start(w->loop, &w->ask_again);
        return;
    }
    w->unvouched = false;
    acks_redis_lost(w->acks);      /* what was recorded since it came back met nothing, or the past */
    batch_cache_doubt(w->batches); /* a hint of the past may be of a batch that has ended since */
    if (lease_holds(w->lease))
        serve(w);
}

static void ask(struct worker *w)
{
    live_generation_get(w->live, vouched, w);
}

/* A Redis that has restarted, or a replica in its place, may be of some moment ago: what was canceled since would be
 * taken from it and sent. It is served from once the leader has filled it; the Redis that was there before is that at
 * once. A worker that has just begun can't know whether it is. */
void lifecycle_redis_back(struct worker *w)
{
    acks_redis_lost(w->acks);
    lease_ask(w->lease);
    if (!w->unvouched) {
        w->unvouched = true;
        ask(w);
    }
    if (lease_holds(w->lease))
        serve(w);
}

const char *lifecycle_ready(const struct worker *w)
{
    if (w->draining)
        return "draining";
    if (!pg_up(w->pg))
        return "PostgreSQL is away";
    if (!live_up(w->live))
        return "Redis is away";
    if (lease_number(w->lease) == 0)
        return "no worker number";
    if (!credentials_ready(w->credentials))
        return "signing keys not read";
    if (!gates_known(w->gates))
        return "gates not read";
    if (w->options.answer_self && !answer_self_ready(w->answer_self))
        return "devices not claimed";
    return NULL;
}

/* --- drain: each step begins when the one before is done ---------------------------------------------------------- */

static void lease_released(void *arg)
{
    struct worker *w = arg;
    w->stopped(w);
}

static void last_word(void *arg, enum err err, int64_t value)
{
    (void)err, (void)value;
    lease_released(arg);
}

/* Without a number too it waits for an answer of Redis: what it has told others went before the question. */
static void devices_detached(void *arg)
{
    struct worker *w = arg;
    if (lease_number(w->lease))
        lease_release(w->lease, lease_released, w);
    else
        live_generation_get(w->live, last_word, w);
}

static void sends_durable(void *arg)
{
    struct worker *w = arg;
    attach_settle(w->attach, devices_detached, w);
}

static void answers_durable(void *arg)
{
    struct worker *w = arg;
    log_info("draining", "step=disconnect sessions=%zu", session_table_count(w->sessions));
    session_table_each(w->sessions, drop_draining, NULL);
    acks_barrier(w->acks, sends_durable, w);
}

void lifecycle_drain(struct worker *w)
{
    w->draining = true;
    log_info("draining", "step=stop sessions=%zu", session_table_count(w->sessions));
    if (w->mqtt)
        mqtt_server_stop(w->mqtt);
    inbox_stop(w->inbox);
    if (w->seen)
        seen_write(w->seen);
    acks_barrier(w->acks, answers_durable, w);
}
