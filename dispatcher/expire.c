#include "dispatcher/expire.h"

#include "dispatcher/control.h"
#include "dispatcher/joiner.h"
#include "dispatcher/leader_walk.h"
#include "dispatcher/route.h"
#include "lib/base/clock.h"

static void expire(struct reign *r, struct open_batch *batch)
{
    batch->ending = true;
    r->figures->expired_batches++;
    if (!batch->rebuild)
        router_remove(r, batch);
    /* What Redis may know must not be overtaken: there an outcome may stand that is not in the log yet. */
    control_ends(batch);
    if (batch->touched || batch->busy)
        walk_batch(r, batch, EVENT_EXPIRE, NULL);
    else
        walk_unknown(r, batch, EVENT_EXPIRE);
    if (batch->growing) {
        joiner_end(r, batch);
        reign_check_complete(r, batch);
    }
}

/* Of what is tried again the log says who has had an outcome and waits: who did when it expired has failed. */
static bool is_known(const struct reign *r, const struct open_batch *batch, int64_t now_ms)
{
    return !batch->retry_after || clock_mono_us() - r->log_read_us < (now_ms - batch->expires_ms) * 1000;
}

struct scan {
    struct reign *reign;
    int64_t now_ms, next_ms;
};

static void look(void *arg, struct open_batch *batch)
{
    struct scan *scan = arg;
    if (batch->ending || batch->stage != OPEN_RUNNING)
        return;
    if (batch->expires_ms <= scan->now_ms && is_known(scan->reign, batch, scan->now_ms))
        expire(scan->reign, batch);
    else if (batch->expires_ms < scan->next_ms)
        scan->next_ms = batch->expires_ms;
}

void expire_tick(struct reign *r)
{
    struct scan scan = {r, db_clock_ms(r->clock), INT64_MAX};
    if (!r->loaded || scan.now_ms < r->set.next_expiry_ms)
        return;
    open_set_each(&r->set, look, &scan);
    r->set.next_expiry_ms = scan.next_ms;
}
