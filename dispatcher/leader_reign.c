#include "dispatcher/leader_reign.h"

#include <stdlib.h>

#include "dispatcher/cancel.h"
#include "dispatcher/control.h"
#include "dispatcher/expire.h"
#include "dispatcher/joiner.h"
#include "dispatcher/leader_backlog.h"
#include "dispatcher/leader_clear.h"
#include "dispatcher/leader_fold.h"
#include "dispatcher/leader_gates.h"
#include "dispatcher/leader_ledger.h"
#include "dispatcher/leader_load.h"
#include "dispatcher/leader_mailboxes.h"
#include "dispatcher/leader_presence.h"
#include "dispatcher/leader_walk.h"
#include "dispatcher/leader_write.h"
#include "dispatcher/learn.h"
#include "dispatcher/rebuild.h"
#include "dispatcher/route.h"
#include "dispatcher/sweep.h"
#include "dispatcher/webhook_sender.h"
#include "lib/base/log.h"

#define TICKS_PER_SECOND (1000 / REIGN_TICK_MS)
#define TICKS_PER_CHECK  (200 / REIGN_TICK_MS) /* whether Redis was emptied: one GET */

static void show(struct reign *r)
{
    struct leader_figures *f = r->figures;
    f->open_batches = r->set.batches;
    f->waiting_batches = r->queue.batches;
    f->open_commands = r->set.remaining;
    f->full_devices = r->set.open.devices;
    f->log_rows = r->log.rows;
    f->log_entries = r->log.live;
}

static void report_failure(struct reign *r)
{
    void (*on_failed)(void *) = r->on_failed;
    r->on_failed = NULL;
    if (on_failed)
        on_failed(r->arg);
}

static void tick(struct ev_loop *loop, ev_timer *t, int events)
{
    struct reign *r = container_of(t, struct reign, tick);
    (void)loop, (void)events;
    if (r->failed || r->log.failed || r->set.failed) {
        report_failure(r); /* which ends the reign */
        return;
    }
    bool second = r->ticks++ % TICKS_PER_SECOND == 0;
    if (!live_up(r->live) && (r->live_ready || r->rebuilding))
        rebuild_lost(r);
    if (live_up(r->live) && (r->ticks % TICKS_PER_CHECK == 0 || !r->live_ready))
        rebuild_check(r);
    folder_tick(r);
    router_tick(r);
    backlog_tick(r);
    leader_mailboxes_tick(r);
    walker_tick(r);
    clearer_tick(r);
    cancel_tick(r);
    control_tick(r);
    joiner_tick(r);
    reign_gates_tick(r);
    expire_tick(r);
    ledger_tick(r);
    webhook_sender_tick(r);
    presence_teller_tick(r);
    if (second) {
        cancel_look_again(r);
        sweep(r);
    }
    show(r);
}

static void live_changed(void *arg, bool up)
{
    struct reign *r = arg;
    if (r->over)
        return;
    log_info("leader_redis", "up=%s", up ? "true" : "false");
    if (up)
        rebuild_check(r);
    else
        rebuild_lost(r);
}

static void fenced_in_redis(void *arg)
{
    struct reign *r = arg;
    if (!r->over)
        reign_fail(r, "another_leads", ERR_FENCED);
}

/* Redis is filled with everything, also with what workers do not send now. */
static bool tenant_waits(const void *arg, uint32_t tenant)
{
    const struct reign *r = arg;
    return !r->rebuilding && reign_gates_closed(r->gates, tenant);
}

struct reign *reign_new(struct ev_loop *loop, struct pg *pg, const char *redis, const struct lease_fence *fence,
                        int lane, const struct leader_options *options, struct leader_figures *figures,
                        void (*on_failed)(void *arg), void *arg)
{
    struct reign *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->loop = loop;
    r->pg = pg;
    r->fence = *fence;
    r->lane = lane;
    r->events_ms = options->events_ms;
    r->retry_ms = options->webhook_retry_ms;
    r->webhook_life_ms = options->webhook_life_ms;
    r->presence_ms = options->presence_ms;
    r->web = options->web;
    r->figures = figures;
    r->on_failed = on_failed;
    r->arg = arg;
    open_set_init(&r->set);
    fold_init(&r->log);
    queue_init(&r->queue);
    r->queue.waits = tenant_waits;
    r->queue.fits = router_fits;
    r->queue.arg = r;
    list_init(&r->handed);
    list_init(&r->clearing);
    list_init(&r->closing);
    ev_timer_init(&r->tick, tick, REIGN_TICK_MS / 1000., REIGN_TICK_MS / 1000.);
    r->live = live_new(loop, redis);
    if (!r->live || !(r->loader = loader_new(r)) || !(r->router = router_new(r)) || !(r->folder = folder_new(r)) ||
        !(r->walker = walker_new(r)) || !(r->canceler = canceler_new(r)) || !(r->controller = controller_new(r)) ||
        !(r->gates = reign_gates_new(r)) || !(r->sweeper = sweeper_new(r)) || !(r->rebuilder = rebuilder_new(r)) ||
        !(r->learner = learner_new(r)) || !(r->clearer = clearer_new(r)) || !(r->writer = writer_new(r)) ||
        !(r->ledger = ledger_new(r)) || !(r->joiner = joiner_new(r)) || !(r->webhooks = webhook_sender_new(r)) ||
        !(r->presence = presence_teller_new(r))) {
        reign_end(&r);
        return NULL;
    }
    live_lead(r->live, fence->epoch, fenced_in_redis, r);
    live_on_change(r->live, live_changed, r);
    ev_timer_start(loop, &r->tick);
    folder_begin(r);
    return r;
}

void reign_end(struct reign **reign)
{
    struct reign *r = *reign;
    *reign = NULL;
    if (!r)
        return;
    r->over = true;
    ev_timer_stop(r->loop, &r->tick);
    reign_hold(r);
    live_free(&r->live); /* its callbacks come now, and find the reign over */
    loader_free(&r->loader);
    router_free(&r->router);
    folder_free(&r->folder);
    walker_free(&r->walker);
    canceler_free(&r->canceler);
    controller_free(&r->controller);
    reign_gates_free(&r->gates);
    sweeper_free(&r->sweeper);
    rebuilder_free(&r->rebuilder);
    joiner_free(&r->joiner);
    learner_free(&r->learner);
    clearer_free(&r->clearer);
    writer_free(&r->writer);
    ledger_free(&r->ledger);
    webhook_sender_free(&r->webhooks);
    presence_teller_free(&r->presence);
    queue_free(&r->queue);
    fold_free(&r->log);
    open_set_free(&r->set);
    buf_free(&r->canceled);
    buf_free(&r->handled);
    buf_free(&r->settled);
    buf_free(&r->undeleted);
    show(r);
    (void)!reign_back(r);
}

bool reign_back(struct reign *r)
{
    r->refs--;
    if (!r->over)
        return true;
    if (!r->refs)
        free(r);
    return false;
}

/* Only noted here: whoever calls goes on with what is there, until the next tick ends it. */
void reign_fail(struct reign *r, const char *why, enum err err)
{
    if (!r->failed)
        log_warn("leader_starts_over", "why=%s err=%s", why, err_name(err));
    r->failed = true;
}

void reign_loaded_batch(struct reign *r, struct open_batch *batch)
{
    if (batch->expires_ms < r->set.next_expiry_ms)
        r->set.next_expiry_ms = batch->expires_ms;
    if (!batch->unsettled && !batch->growing)
        reign_check_complete(r, batch);
    else if (batch->control)
        control_begin(r, batch);
    else if (!batch->routed && !batch->canceling)
        router_add(r, batch);
    router_pump(r);
}

void reign_idle(struct reign *r, struct open_batch *batch)
{
    batch->busy--;
    reign_check_complete(r, batch);
}

void reign_check_complete(struct reign *r, struct open_batch *batch)
{
    if (batch->busy || batch->unsettled || batch->growing || batch->stage != OPEN_RUNNING || batch->rebuild)
        return;
    queue_remove(&r->queue, batch);
    list_remove(&batch->work);
    if (batch->touched) {
        batch->stage = OPEN_CLEARING;
        clear_batch(r, batch);
    } else {
        batch->stage = OPEN_CLOSING;
        list_append(&r->closing, &batch->work);
        write_pump(r);
    }
}
