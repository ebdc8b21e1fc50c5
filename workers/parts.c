#include "lib/base/log.h"
#include "lib/base/stream.h"
#include "lib/store/db_clock.h"
#include "lib/store/live.h"
#include "lib/store/pg.h"
#include "workers/acks.h"
#include "workers/answer.h"
#include "workers/answer_self.h"
#include "workers/attach.h"
#include "workers/batch_cache.h"
#include "workers/credentials.h"
#include "workers/gates.h"
#include "workers/inbox.h"
#include "workers/lease.h"
#include "workers/lifecycle.h"
#include "workers/mqtt.h"
#include "workers/routed.h"
#include "workers/seen.h"
#include "workers/session.h"
#include "workers/session_table.h"
#include "workers/strays.h"
#include "workers/values.h"
#include "workers/worker.h"

static void redis_changed(void *arg, bool up)
{
    log_info(up ? "redis_connected" : "redis_lost", "worker=%u", lease_number(((struct worker *)arg)->lease));
    if (up)
        lifecycle_redis_back(arg);
    else
        lifecycle_redis_lost(arg);
}

static bool may_send(void *arg)
{
    const struct worker *w = arg;
    return lease_holds(w->lease);
}

/* What is told to a whole fleet does not stand in front of the next thing to do. */
static void look_for_work(void *arg)
{
    const struct worker *w = arg;
    live_take_look(w->live);
}

bool worker_make(struct worker *w)
{
    struct acks_options acks = {.interval_ms = w->options.flush_ms, .worker = w->instance};
    acks.clock = w->clock = db_clock_new(w->pg);
    live_take_as(w->live, w->instance);
    pool_init(&w->held_pool, sizeof(struct held));
    if (!w->clock || !(w->hub = stream_hub_new(w->loop)) || !(w->sessions = session_table_new()) ||
        !(w->batches = batch_cache_new(w->live)) || !(w->values = value_cache_new(w->live, w->loop)) ||
        !(w->answers = answers_new(w)) || !(w->acks = acks_new(w->loop, w->live, w->pg, w->sessions, &acks)) ||
        !(w->attach = attach_new(w)) || !(w->strays = strays_new(w)) || !(w->routed = routed_new(w)) ||
        !(w->inbox = inbox_new(w)) || !(w->gates = gates_new(w)) ||
        !(w->credentials = credentials_new(w->loop, w->pg)) || !(w->seen = seen_new(w, w->options.seen_ms)))
        return false;
    if (w->options.answer_self)
        w->answer_self = answer_self_new(w);
    else
        w->mqtt = mqtt_server_new(w);
    if (!w->answer_self && !w->mqtt)
        return false;
    worker_watch_start(w);
    w->lease = lease_new(w, &lifecycle_events);
    stream_hub_guard(w->hub, may_send, w);
    stream_hub_look(w->hub, look_for_work, w);
    live_on_change(w->live, redis_changed, w);
    return w->lease != NULL;
}

void worker_unmake(struct worker *w)
{
    mqtt_server_free(&w->mqtt);
    live_free(&w->live); /* what is under way ends now, while those who wait for it are there */
    pg_free(&w->pg);
    answer_self_free(&w->answer_self);
    worker_watch_stop(w);
    answers_free(&w->answers);
    inbox_free(&w->inbox);
    routed_free(&w->routed);
    attach_free(&w->attach);
    strays_free(&w->strays);
    gates_free(&w->gates);
    lease_free(&w->lease);
    credentials_free(&w->credentials);
    seen_free(&w->seen);
    acks_free(&w->acks);
    value_cache_free(&w->values);
    db_clock_free(&w->clock);
    batch_cache_free(&w->batches);
    session_table_free(&w->sessions);
    pool_free(&w->held_pool);
    stream_hub_free(&w->hub);
}
