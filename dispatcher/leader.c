#include "dispatcher/leader.h"

#include <stdlib.h>
#include <string.h>

#include "dispatcher/joiner.h"
#include "dispatcher/leader_backlog.h"
#include "dispatcher/leader_fold.h"
#include "dispatcher/leader_load.h"
#include "dispatcher/leader_reign.h"
#include "dispatcher/mailboxes.h"
#include "dispatcher/repair.h"
#include "dispatcher/sweep.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/db_lease.h"

#define LEASE_NAME        "leader"
#define LEASE_MS          4000
#define EVENTS_MS         (7 * 24 * 3600 * 1000ll)
#define WEBHOOK_RETRY_MS  5000
#define WEBHOOK_LIFE_MS   (24 * 3600 * 1000ll)
#define PRESENCE_MS       2000
#define RENEW_MS_MIN      100
#define CONTEND_MS        1000 /* between tries while another leads */
#define CONTEND_JITTER_MS 200  /* so that followers do not come all at once */
#define MARGIN_PERCENT    15   /* of the lease: it counts as over so much before PostgreSQL says so */
#define RESIGN_MS         2000
#define LOOK_S            0.02 /* turns follow each other faster than the clock need be looked at */

enum leader_state {
    LEADER_FOLLOWS,  /* tries at each timer */
    LEADER_ACQUIRES, /* a try is under way */
    LEADER_LEADS,    /* has the lease; a renewal may be under way */
    LEADER_RELEASES, /* gives the lease back, then follows */
    LEADER_RESIGNED, /* never again */
};

struct leader {
    struct ev_loop *loop;
    struct pg *pg;
    struct live *live; /* for what it tells others; a reign has its own */
    const char *redis;
    char *holder;
    int64_t lease_ms;
    struct leader_options options; /* for reigns; without defaults no more */
    int lane;
    enum leader_state state;
    bool again; /* try at once when the try under way is over */
    int64_t epoch;
    int64_t deadline_us; /* the lease is ours until then, whatever happens */
    struct lease_call *call;
    ev_timer timer; /* the next try or renewal */
    ev_timer end;   /* the deadline; of a resignation too */
    double looked;  /* when `check` looked at the clock last, by the loop's own */
    ev_check check; /* the deadline again, in front of all that a turn has to do: the process may have been stopped */
    struct reign *reign;
    struct db_clock *clock;
    void (*resigned)(void *arg);
    void *resigned_arg;
    void (*behind)(void *arg, const struct queue_heavy *heavy, size_t count);
    void *behind_arg;
    void (*full)(void *arg, uint32_t tenant, uint32_t block, const struct bitmap *full);
    void *full_arg;
    uint32_t mailbox_max;
    struct leader_figures figures;
};

/* A call to PostgreSQL under way; `leader` is NULL when it has gone or wants no answer. */
struct lease_call {
    struct leader *leader;
    int64_t began_us;
};

static void contend(struct leader *l);
static void behind(void *arg, const struct queue_heavy *heavy, size_t count);
static void full(void *arg, uint32_t tenant, uint32_t block, const struct bitmap *slots);

static struct lease_call *call_new(struct leader *l)
{
    struct lease_call *call = malloc(sizeof *call);
    if (!call)
        abort();
    *call = (struct lease_call){l, clock_mono_us()};
    l->call = call;
    return call;
}

static struct leader *call_done(struct lease_call *call, int64_t *began_us)
{
    struct leader *l = call->leader;
    *began_us = call->began_us;
    free(call);
    if (l)
        l->call = NULL;
    return l;
}

static void call_drop(struct leader *l)
{
    if (l->call)
        l->call->leader = NULL;
    l->call = NULL;
}

static struct lease_fence fence_of(const struct leader *l)
{
    return (struct lease_fence){LEASE_NAME, l->holder, l->epoch};
}

static void start_timer(struct leader *l, int64_t ms)
{
    ev_timer_stop(l->loop, &l->timer);
    ev_timer_set(&l->timer, (double)(ms > 1 ? ms : 1) / 1000., 0);
    ev_timer_start(l->loop, &l->timer);
}

static void follow(struct leader *l, int64_t try_ms)
{
    l->state = LEADER_FOLLOWS;
    start_timer(l, try_ms);
}

/* --- leading ----------------------------------------------------------------------------------------------------- */
static void stop_reign(struct leader *l)
{
    ev_timer_stop(l->loop, &l->timer);
    ev_timer_stop(l->loop, &l->end);
    reign_end(&l->reign);
    call_drop(l);
    l->figures.leading = 0;
}

static void released(void *arg, enum err err, int64_t value)
{
    int64_t began_us;
    struct leader *l = call_done(arg, &began_us);
    (void)value;
    if (!l)
        return;
    if (l->state == LEADER_RELEASES) {
        follow(l, err ? CONTEND_MS : CONTEND_JITTER_MS);
        return;
    }
    ev_timer_stop(l->loop, &l->end);
    if (!err)
        live_publish(l->live, "resigned");
    if (l->resigned) {
        void (*done)(void *) = l->resigned;
        l->resigned = NULL;
        done(l->resigned_arg);
    }
}

/* Nobody waits for a lease that is not used. */
static void give_back(struct leader *l)
{
    struct lease_fence fence = fence_of(l);
    stop_reign(l);
    l->state = LEADER_RELEASES;
    db_lease_release(l->pg, l->lane, &fence, released, call_new(l));
}

/* The picture can't be trusted any more. It is read anew only under a new epoch: what of the old one is still on its
 * way to PostgreSQL is then refused, or done before the reading begins. */
static void reign_failed(void *arg)
{
    struct leader *l = arg;
    l->figures.reloads++;
    give_back(l);
}

static void deadline(struct ev_loop *loop, ev_timer *t, int events)
{
    struct leader *l = container_of(t, struct leader, end);
    (void)loop, (void)events;
    if (l->state == LEADER_RESIGNED) {
        call_drop(l);
        if (l->resigned) {
            void (*done)(void *) = l->resigned;
            l->resigned = NULL;
            done(l->resigned_arg);
        }
        return;
    }
    log_warn("lease_lost", "epoch=%lld reason=not_renewed", (long long)l->epoch);
    give_back(l); /* PostgreSQL may have prolonged it all the same, or given it long after it was asked */
}

static void on_turn(struct ev_loop *loop, ev_check *check, int events)
{
    struct leader *l = container_of(check, struct leader, check);
    if (ev_now(loop) - l->looked >= 0 && ev_now(loop) - l->looked < LOOK_S)
        return;
    l->looked = ev_now(loop);
    if (l->state == LEADER_LEADS && clock_mono_us() >= l->deadline_us)
        deadline(loop, &l->end, events);
}

/* The lease holds from the moment the request was sent. */
static void set_deadline(struct leader *l, int64_t began_us)
{
    l->deadline_us = began_us + l->lease_ms * 10 * (100 - MARGIN_PERCENT);
    ev_timer_stop(l->loop, &l->end);
    ev_timer_set(&l->end, (double)(l->deadline_us - clock_mono_us()) / 1e6, 0);
    ev_timer_start(l->loop, &l->end);
}

static int64_t renew_ms(const struct leader *l)
{
    return l->lease_ms / 4 > RENEW_MS_MIN ? l->lease_ms / 4 : RENEW_MS_MIN;
}

static void renewed(void *arg, enum err err, int64_t value)
{
    int64_t began_us;
    struct leader *l = call_done(arg, &began_us);
    if (!l || l->state != LEADER_LEADS)
        return;
    if (!err && !value) {
        log_warn("lease_lost", "epoch=%lld reason=taken", (long long)l->epoch);
        stop_reign(l);
        follow(l, CONTEND_MS);
        return;
    }
    if (!err)
        set_deadline(l, began_us);
    start_timer(l, err ? RENEW_MS_MIN : renew_ms(l));
}

static void acquired(void *arg, enum err err, int64_t epoch)
{
    int64_t began_us;
    struct leader *l = call_done(arg, &began_us);
    if (!l || l->state != LEADER_ACQUIRES)
        return;
    if (err || !epoch) {
        bool again = l->again && !err;
        l->again = false;
        follow(l, again ? 1 : CONTEND_MS + rand() % CONTEND_JITTER_MS);
        return;
    }
    l->state = LEADER_LEADS;
    l->epoch = epoch;
    struct lease_fence fence = fence_of(l);
    l->reign = reign_new(l->loop, l->pg, l->redis, &fence, l->lane, &l->options, &l->figures, reign_failed, l);
    if (!l->reign)
        abort();
    l->reign->clock = l->clock;
    l->reign->on_behind = behind;
    l->reign->on_full = full;
    l->reign->set.open.limit = l->mailbox_max;
    l->figures.leading = 1;
    l->figures.epoch = (uint64_t)epoch;
    set_deadline(l, began_us);
    start_timer(l, renew_ms(l));
    log_info("leading", "epoch=%lld", (long long)epoch);
}

/* --- contending -------------------------------------------------------------------------------------------------- */
static void contend(struct leader *l)
{
    l->state = LEADER_ACQUIRES;
    l->again = false;
    db_lease_acquire(l->pg, PG_ANY_LANE, LEASE_NAME, l->holder, l->lease_ms, acquired, call_new(l));
}

static void timer(struct ev_loop *loop, ev_timer *t, int events)
{
    struct leader *l = container_of(t, struct leader, timer);
    (void)loop, (void)events;
    (void)db_clock_ms(l->clock); /* it is followed also by one who does not lead yet */
    if (l->state == LEADER_FOLLOWS)
        contend(l);
    else if (l->state == LEADER_LEADS && !l->call) {
        struct lease_fence fence = fence_of(l);
        db_lease_renew(l->pg, &fence, l->lease_ms, renewed, call_new(l));
    }
}

struct leader *leader_new(struct ev_loop *loop, struct pg *pg, struct live *live, const struct leader_options *options)
{
    struct leader *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->loop = loop;
    l->pg = pg;
    l->live = live;
    l->redis = options->redis;
    l->lease_ms = options->lease_ms ? options->lease_ms : LEASE_MS;
    l->options = *options;
    l->options.events_ms = options->events_ms ? options->events_ms : EVENTS_MS;
    l->options.webhook_retry_ms = options->webhook_retry_ms ? options->webhook_retry_ms : WEBHOOK_RETRY_MS;
    l->options.webhook_life_ms = options->webhook_life_ms ? options->webhook_life_ms : WEBHOOK_LIFE_MS;
    l->options.presence_ms = options->presence_ms ? options->presence_ms : PRESENCE_MS;
    l->lane = options->lane;
    l->mailbox_max = options->mailbox_max;
    ev_timer_init(&l->timer, timer, 1., 0);
    ev_timer_init(&l->end, deadline, 1., 0);
    ev_check_init(&l->check, on_turn);
    ev_set_priority(&l->check, EV_MAXPRI);
    ev_check_start(loop, &l->check);
    l->holder = strdup(options->holder);
    l->clock = db_clock_new(pg);
    if (!l->holder || !l->clock) {
        leader_free(&l);
        return NULL;
    }
    follow(l, 1);
    return l;
}

void leader_free(struct leader **leader)
{
    struct leader *l = *leader;
    *leader = NULL;
    if (!l)
        return;
    stop_reign(l);
    ev_check_stop(l->loop, &l->check);
    db_clock_free(&l->clock);
    free(l->holder);
    free(l);
}

/* --- hints ------------------------------------------------------------------------------------------------------- */
void leader_hint(struct leader *l, enum leader_hint_kind kind, uint64_t batch)
{
    (void)batch; /* one look finds all there is */
    if (!l->reign || !l->reign->loaded)
        return;
    if (kind == LEADER_HINT_DELETED)
        sweep(l->reign);
    else if (kind == LEADER_HINT_RELEASED)
        folder_rescan(l->reign);
    else
        folder_wake(l->reign);
}

void leader_devices(struct leader *l, uint32_t tenant)
{
    if (l->reign)
        joiner_hint(l->reign, tenant);
}

int64_t leader_now_ms(struct leader *l)
{
    return db_clock_ms(l->clock);
}

bool leader_accepted(struct leader *l, uint64_t id, const struct db_accept *batch)
{
    return l->reign && loader_accepted(l->reign, id, batch);
}

void leader_on_backlog(struct leader *l, void (*fn)(void *arg, const struct queue_heavy *heavy, size_t count),
                       void *arg)
{
    l->behind = fn;
    l->behind_arg = arg;
}

static void behind(void *arg, const struct queue_heavy *heavy, size_t count)
{
    struct leader *l = arg;
    if (l->behind)
        l->behind(l->behind_arg, heavy, count);
}

static void told_backlog(struct leader *l, struct slice text)
{
    struct queue_heavy heavy[LEADER_HEAVY_MAX];
    size_t n = backlog_read(text, heavy);
    if (l->behind && n)
        l->behind(l->behind_arg, heavy, n);
}

void leader_on_full(struct leader *l, void (*fn)(void *arg, uint32_t tenant, uint32_t block, const struct bitmap *full),
                    void *arg)
{
    l->full = fn;
    l->full_arg = arg;
}

static void full(void *arg, uint32_t tenant, uint32_t block, const struct bitmap *slots)
{
    struct leader *l = arg;
    if (l->full)
        l->full(l->full_arg, tenant, block, slots);
}

static void told_full(struct leader *l, struct slice text)
{
    uint32_t tenant, block;
    struct bitmap slots;
    if (mailboxes_read(text, &tenant, &block, &slots))
        full(l, tenant, block, &slots);
}

static bool begins(struct slice text, const char *word)
{
    size_t n = strlen(word);
    return text.len >= n && memcmp(text.data, word, n) == 0;
}

static unsigned long number_after(struct slice text, const char *word)
{
    unsigned long n = 0;
    for (size_t i = strlen(word); i < text.len && text.data[i] >= '0' && text.data[i] <= '9' && n < UINT32_MAX / 10;
         i++)
        n = n * 10 + (unsigned long)(text.data[i] - '0');
    return n;
}

void leader_event(struct leader *l, struct slice text)
{
    if (begins(text, "accepted "))
        leader_hint(l, LEADER_HINT_ACCEPTED, 0);
    else if (begins(text, "cancel ") || begins(text, "steer ") || begins(text, "gates "))
        leader_hint(l, LEADER_HINT_CANCEL, 0);
    else if (begins(text, "backlog "))
        told_backlog(l, text);
    else if (begins(text, "full "))
        told_full(l, text);
    else if (begins(text, "released "))
        leader_hint(l, LEADER_HINT_RELEASED, 0);
    else if (begins(text, "deleted "))
        leader_hint(l, LEADER_HINT_DELETED, 0);
    else if (begins(text, "devices ") && l->reign)
        joiner_hint(l->reign, (uint32_t)number_after(text, "devices "));
    else if (begins(text, "repair ") && l->reign)
        repair_told(l->reign, text);
    else if (begins(text, "resigned")) {
        l->again = true;
        if (l->state == LEADER_FOLLOWS)
            start_timer(l, 1);
    }
}

void leader_resign(struct leader *l, void (*done)(void *arg), void *arg)
{
    bool leads = l->state == LEADER_LEADS;
    struct lease_fence fence = fence_of(l);
    stop_reign(l);
    l->state = LEADER_RESIGNED;
    l->resigned = done;
    l->resigned_arg = arg;
    ev_timer_set(&l->end, leads ? RESIGN_MS / 1000. : 0, 0);
    ev_timer_start(l->loop, &l->end);
    if (leads)
        db_lease_release(l->pg, l->lane, &fence, released, call_new(l));
}

const struct leader_figures *leader_figures(const struct leader *l)
{
    return &l->figures;
}
