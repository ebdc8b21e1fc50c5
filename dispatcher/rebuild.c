#include "dispatcher/rebuild.h"

#include <stdlib.h>

#include "dispatcher/cancel.h"
#include "dispatcher/control.h"
#include "dispatcher/leader_fold.h"
#include "dispatcher/leader_walk.h"
#include "dispatcher/learn.h"
#include "dispatcher/route.h"
#include "dispatcher/strangers.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/db_lease.h"
#include "lib/store/live_look.h"

struct rebuilder {
    bool asking, setting;
    bool cleaning, clean; /* what is over goes from Redis; has gone */
    bool stale;           /* Redis was lost once more while it was */
    bool some;            /* batches that Redis may have known */
    bool log_read;        /* to its end, since the rebuild began */
    bool asking_silence;
    unsigned looking; /* answers awaited of how long workers may send that Redis has forgotten */
    int64_t began_us, asked_us;
};

struct rebuilder *rebuilder_new(struct reign *r)
{
    (void)r;
    return calloc(1, sizeof(struct rebuilder));
}

void rebuilder_free(struct rebuilder **b)
{
    free(*b);
    *b = NULL;
}

static void silence_known(struct reign *r, int64_t lease_ms)
{
    r->silent_us = lease_ms * 1000;
    r->silence_unknown = false;
}

/* --- a leader that finds it filled -------------------------------------------------------------------------------- */

/* Unless it is filled anew meanwhile; after an error it is asked again at the next check. */
static void silence_told(struct reign *r, enum err err, int64_t lease_ms)
{
    r->rebuilder->asking_silence = false;
    if (!err && r->silence_unknown)
        silence_known(r, lease_ms);
}

static void got_lease(void *arg, enum err err, int64_t lease_ms)
{
    struct reign *r = arg;
    if (reign_back(r))
        silence_told(r, err, lease_ms);
}

static void got_unknown(void *arg, enum err err, int64_t there)
{
    struct reign *r = arg;
    if (!reign_back(r))
        return;
    if (!err && there)
        db_worker_longest_lease(r->pg, got_lease, reign_hold(r));
    else
        silence_told(r, err, 0);
}

/* The leader before may have filled it a moment ago: then it has noted that there may be workers whom nobody knows. */
static void ask_silence(struct reign *r)
{
    if (!r->silence_unknown || r->rebuilder->asking_silence)
        return;
    r->rebuilder->asking_silence = true;
    live_worker_there(r->live, LIVE_UNKNOWN_WORKER, got_unknown, reign_hold(r));
}

/* --- when it is filled -------------------------------------------------------------------------------------------- */

static void ready(struct reign *r)
{
    if (!r->rebuilt_us && r->set.batches) {
        r->rebuilt_us = clock_mono_us();
        r->silence_unknown = true;
        ask_silence(r);
    }
    r->rebuilding = false;
    r->live_ready = true;
    cancel_restart(r);
    control_restart(r);
    learn_begin(r);
    router_pump(r);
}

static void generation_set(void *arg, enum err err)
{
    struct reign *r = arg;
    if (!reign_back(r))
        return;
    r->rebuilder->setting = false;
    if (err || !r->rebuilding || r->rebuild_left) {
        r->rebuilding = false; /* asked again at the next check */
        return;
    }
    r->rebuilt_us = r->rebuilder->some ? clock_mono_us() : r->rebuilt_us;
    r->sound_us = r->rebuilder->asked_us;
    log_info("redis_rebuilt", "ms=%lld open=%llu", (long long)(clock_mono_us() - r->rebuilder->began_us) / 1000,
             (unsigned long long)r->set.remaining);
    r->figures->rebuilds++;
    ready(r);
}

static void clean(struct reign *r);

/* What is over goes last: what ends here while the rest is routed is not, and what stood there of its block would stay.
 */
static void check_done(struct reign *r)
{
    struct rebuilder *b = r->rebuilder;
    if (!r->rebuilding || r->rebuild_left || b->cleaning || b->setting || b->looking || !b->log_read)
        return;
    if (!b->clean) {
        clean(r);
        return;
    }
    b->setting = true;
    b->asked_us = clock_mono_us();
    live_generation_set(r->live, generation_set, reign_hold(r));
}

void rebuild_batch(struct reign *r, struct open_batch *batch)
{
    if (batch->rebuild)
        return;
    batch->rebuild = true;
    batch->filled = false;
    r->rebuild_left++;
    router_again(r, batch);
}

/* --- filling --------------------------------------------------------------------------------------------------------
 */

static void mark(void *arg, struct open_batch *batch)
{
    struct reign *r = arg;
    if (batch->stage != OPEN_RUNNING || !batch->touched || (!batch->unsettled && !batch->rebuild))
        return;
    batch->rebuild = batch->rebuilt = true;
    batch->filled = false;
    batch->fill_again = batch->filling;
    r->rebuild_left++;
    router_again(r, batch);
}

/* What workers have sent, and had outcomes of, where Redis had nothing any more, they have told the log. */
void rebuild_log_read(struct reign *r, int64_t began_us)
{
    struct rebuilder *b = r->rebuilder;
    if (!r->rebuilding || b->log_read || began_us < b->began_us)
        return;
    b->log_read = true;
    r->rebuild_left = 0;
    open_set_each(&r->set, mark, r);
    b->some = r->rebuild_left > 0;
    check_done(r);
    router_pump(r);
}

bool rebuild_waits(const struct reign *r)
{
    return r->rebuilding && !r->rebuilder->log_read;
}

static void cleaned(struct reign *r, enum err err)
{
    struct rebuilder *b = r->rebuilder;
    b->cleaning = false;
    b->clean = !err && !b->stale;
    if (err && !b->stale)
        r->rebuilding = false; /* asked again at the next check */
    check_done(r);
}

static void clean(struct reign *r)
{
    r->rebuilder->cleaning = true;
    r->rebuilder->stale = false;
    strangers_remove(r, cleaned);
}

/* --- who may still send ------------------------------------------------------------------------------------------- */

static void got_longest_lease(void *arg, enum err err, int64_t lease_ms)
{
    struct reign *r = arg;
    if (!reign_back(r))
        return;
    r->rebuilder->looking--;
    if (err) {
        r->rebuilding = false; /* asked again at the next check */
        return;
    }
    silence_known(r, lease_ms);
    if (lease_ms)
        live_workers_unknown(r->live, lease_ms);
    check_done(r);
}

/* Redis does not list workers until they renew their leases. They have commands in their hands, or get some before.
 * Only where there never was a worker nobody is waited for. */
static void look_for_workers(struct reign *r)
{
    r->rebuilder->looking++;
    db_worker_longest_lease(r->pg, got_longest_lease, reign_hold(r));
}

void rebuild_begin(struct reign *r)
{
    if (r->rebuilding || !r->loaded)
        return;
    log_warn("redis_empty", "open_batches=%zu open_commands=%llu", r->set.batches,
             (unsigned long long)r->set.remaining);
    r->live_ready = false;
    r->rebuilding = true;
    r->rebuild_left = 0;
    struct rebuilder *b = r->rebuilder;
    b->began_us = clock_mono_us();
    b->log_read = b->clean = false;
    b->stale = b->cleaning;
    live_generation_begin(r->live);
    look_for_workers(r);
    folder_wake(r);
    router_pump(r);
}

void rebuild_routed(struct reign *r, struct open_batch *batch)
{
    if (!batch->rebuild)
        return;
    batch->rebuild = false;
    if (r->rebuild_left)
        r->rebuild_left--;
    check_done(r);
}

void rebuild_lost(struct reign *r)
{
    r->live_ready = false;
    r->rebuilding = false;
}

static void got_generation(void *arg, enum err err, int64_t value)
{
    struct reign *r = arg;
    if (!reign_back(r))
        return;
    r->rebuilder->asking = false;
    if (err || r->rebuilding)
        return;
    if (!value) {
        rebuild_begin(r);
        return;
    }
    r->sound_us = r->rebuilder->asked_us;
    if (!r->live_ready)
        ready(r);
    ask_silence(r);
    walker_pump(r);
}

void rebuild_check(struct reign *r)
{
    if (!r->loaded || r->rebuilding || r->rebuilder->asking || !live_up(r->live))
        return;
    r->rebuilder->asking = true;
    r->rebuilder->asked_us = clock_mono_us();
    live_generation_get(r->live, got_generation, reign_hold(r));
}
