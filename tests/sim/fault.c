#include "tests/sim/fault.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/step_clock.h"
#include "tests/sim/device.h"
#include "tests/sim/pg.h"
#include "tests/sim/process.h"
#include "tests/sim/redis.h"
#include "tests/sim/scenario.h"

#define FAULTS_MAX  16
#define FIRST_US    (500 * MS)
#define LAST_US     (18 * S)
#define HEAL_US     (22 * S)
#define SKEW_MAX_MS 4000
#define STEP_MAX_MS 3600000
#define STOP_MAX_US (14 * S)

struct fault {
    struct faults *faults;
    struct event event, after;
    const struct fault_kind *kind;
    struct process *process;
    const struct scenario_step *step; /* NULL: who, and for how long, the seed says */
};

struct faults {
    struct world *world;
    struct fault_plan plan;
    struct fault all[FAULTS_MAX];
    struct event remember;
    int64_t heal_us;
    bool healed;
};

/* --- what can go wrong ------------------------------------------------------------------------------------------- */

/* A time, more often short than long, that ends before all is put right. */
static int64_t some_time(struct faults *f, int64_t most_us)
{
    struct world *w = f->world;
    int64_t us = chance(w, 500) ? between(w, 1 * MS, most_us / 10) : between(w, most_us / 10, most_us);
    int64_t left = f->heal_us - w->now_us;
    return us < left ? us : left;
}

static struct process *some_process(struct world *w)
{
    unsigned i = below(w, (unsigned)(w->dispatcher_count + w->worker_count));
    return i < (unsigned)w->dispatcher_count ? &w->dispatchers[i] : &w->workers[i - (unsigned)w->dispatcher_count];
}

/* To whom it happens; with `all` perhaps to all: NULL. */
static struct process *whose(struct fault *x, bool all)
{
    struct world *w = x->faults->world;
    if (!x->step)
        return all && chance(w, 200) ? NULL : some_process(w);
    if (!x->step->who)
        return NULL;
    int i = x->step->who[1] - '0';
    return x->step->who[0] == 'd' ? &w->dispatchers[i] : &w->workers[i];
}

/* Nothing goes on when all is put right. */
static int64_t how_long(struct fault *x, int64_t most_us)
{
    if (!x->step)
        return some_time(x->faults, most_us);
    int64_t us = x->step->for_ms * MS, left = x->faults->heal_us - x->faults->world->now_us;
    return left < us ? left : us;
}

/* `p`, or all, have been hindered until then. */
static void hinder(struct world *w, struct process *p, int64_t until_us)
{
    for (int i = 0; !p && i < w->worker_count; i++)
        hinder(w, &w->workers[i], until_us);
    if (p && p->unwell_us < w->now_us)
        p->unwell_since_us = w->now_us;
    if (p && p->unwell_us < until_us)
        p->unwell_us = until_us;
}

static void revive(void *arg)
{
    struct fault *x = arg;
    if (!x->process->running)
        process_start(x->process);
}

static void kill_one(struct fault *x)
{
    struct world *w = x->faults->world;
    x->process = whose(x, false);
    if (!x->process->running)
        return;
    trace(w, "FAULT kill %s", x->process->name);
    hinder(w, x->process, w->now_us);
    process_kill(x->process);
    event_plan(w, &x->after, w->now_us + how_long(x, 8 * S), NULL, revive, x);
}

static void wake_one(void *arg)
{
    struct fault *x = arg;
    if (!x->process->stopped)
        return;
    trace(x->faults->world, "FAULT continue %s", x->process->name);
    process_continue(x->process);
}

static void stop_one(struct fault *x)
{
    struct world *w = x->faults->world;
    x->process = whose(x, false);
    if (!x->process->running || x->process->stopped)
        return;
    int64_t us = how_long(x, STOP_MAX_US);
    trace(w, "FAULT stop %s for %.3f s", x->process->name, (double)us / 1e6);
    hinder(w, x->process, w->now_us + us);
    process_stop(x->process);
    event_plan(w, &x->after, w->now_us + us, NULL, wake_one, x);
}

static void drain_one(struct fault *x)
{
    struct world *w = x->faults->world;
    struct process *p = whose(x, false);
    if (!p->running || p->stopped || p->draining)
        return;
    trace(w, "FAULT drain %s", p->name);
    p->draining = true;
    process_drain(p);
}

/* All connections of one process to a store, now and then those of all. */
static void cut(struct fault *x, const char *store, void (*fn)(struct world *w, const struct process *p))
{
    struct world *w = x->faults->world;
    struct process *p = whose(x, true);
    trace(w, "FAULT cut %s from %s", store, p ? p->name : "all");
    hinder(w, p, w->now_us);
    fn(w, p);
}

static void stall(struct fault *x, const char *store, int64_t most_us,
                  void (*fn)(struct world *w, const struct process *p, int64_t until_us))
{
    struct world *w = x->faults->world;
    struct process *p = whose(x, true);
    int64_t us = how_long(x, most_us);
    hinder(w, p, w->now_us + us);
    trace(w, "FAULT stall %s of %s for %.3f s", store, p ? p->name : "all", (double)us / 1e6);
    fn(w, p, w->now_us + us);
}

static void cut_redis(struct fault *x)
{
    cut(x, "redis", sim_redis_cut);
}

static void stall_redis(struct fault *x)
{
    stall(x, "redis", 14 * S, sim_redis_stall);
}

static void flush_redis(struct fault *x)
{
    trace(x->faults->world, "FAULT flush redis");
    sim_redis_flush(x->faults->world);
}

static void bring_redis_back(struct fault *x, int64_t away, int64_t lost)
{
    struct world *w = x->faults->world;
    trace(w, "FAULT restart redis, away %.3f s, %s", (double)away / 1e6, lost ? "empty" : "as it was a moment ago");
    sim_redis_restart(w, away, lost);
}

static void restart_redis(struct fault *x)
{
    int64_t away = how_long(x, 4 * S);
    bring_redis_back(x, away, chance(x->faults->world, 500) ? INT64_MAX : 0);
}

static void empty_redis(struct fault *x)
{
    bring_redis_back(x, how_long(x, 4 * S), INT64_MAX);
}

static void take_redis_back(struct fault *x)
{
    bring_redis_back(x, how_long(x, 4 * S), 0);
}

static void cut_pg(struct fault *x)
{
    cut(x, "postgres", sim_pg_cut);
}

static void stall_pg(struct fault *x)
{
    stall(x, "postgres", 8 * S, sim_pg_stall);
}

static void restart_pg(struct fault *x)
{
    struct world *w = x->faults->world;
    int64_t away = how_long(x, 4 * S);
    trace(w, "FAULT restart postgres, away %.3f s", (double)away / 1e6);
    sim_pg_restart(w, away);
}

static void lose_devices(struct fault *x)
{
    struct world *w = x->faults->world;
    unsigned share = chance(w, 300) ? 1000 : 1 + below(w, 500);
    trace(w, "FAULT devices lose their connection");
    for (int i = 0; i < w->device_count; i++)
        if (!w->devices[i].absent && chance(w, share))
            device_lose(&w->devices[i], (enum device_loss)below(w, 3), how_long(x, 4 * S));
}

static void stall_devices(struct fault *x)
{
    struct world *w = x->faults->world;
    trace(w, "FAULT devices hear nothing for a while");
    for (int i = 0; i < w->device_count; i++)
        if (w->devices[i].link && chance(w, 300))
            link_stall(w->devices[i].link, w->now_us + some_time(x->faults, 10 * S));
}

static void jump_clock(struct fault *x)
{
    struct world *w = x->faults->world;
    struct process *p = some_process(w);
    if (!x->faults->plan.skews)
        return;
    /* Its own time of day may step by an hour: what it goes by must not. */
    int64_t most_ms = chance(w, 500) ? SKEW_MAX_MS : STEP_MAX_MS;
    p->wall_skew_ms = between(w, -most_ms, most_ms);
    p->slow_ms += STEP_CLOCK_SLACK_MS;
    trace(w, "FAULT clock of %s is %lld ms off", p->name, (long long)p->wall_skew_ms);
}

struct fault_kind {
    const char *name; /* for scenarios */
    void (*fn)(struct fault *x);
    unsigned weight; /* 0: in scenarios only */
};
static const struct fault_kind kinds[] = {
    {"kill", kill_one, 20},
    {"stop", stop_one, 20},
    {"drain", drain_one, 8},
    {"cut-redis", cut_redis, 15},
    {"stall-redis", stall_redis, 12},
    {"flush-redis", flush_redis, 8},
    {"restart-redis", restart_redis, 8},
    {"empty-redis", empty_redis, 0},
    {"older-redis", take_redis_back, 0},
    {"cut-postgres", cut_pg, 15},
    {"stall-postgres", stall_pg, 8},
    {"restart-postgres", restart_pg, 6},
    {"lose-devices", lose_devices, 15},
    {"stall-devices", stall_devices, 8},
    {"jump-clock", jump_clock, 8},
};
#define KINDS (sizeof kinds / sizeof *kinds)

static const struct fault_kind *some_kind(struct world *w)
{
    unsigned total = 0, draw;
    for (size_t i = 0; i < KINDS; i++)
        total += kinds[i].weight;
    draw = below(w, total);
    for (size_t i = 0;; i++) {
        if (draw < kinds[i].weight)
            return &kinds[i];
        draw -= kinds[i].weight;
    }
}

static void happen(void *arg)
{
    struct fault *x = arg;
    x->kind->fn(x);
}

/* A restart of Redis loses what came after this: less than a second, as with appendfsync everysec. */
static void remember(void *arg)
{
    struct faults *f = arg;
    sim_redis_remember(f->world);
    if (!f->healed)
        event_plan(f->world, &f->remember, f->world->now_us + 800 * MS, NULL, remember, f);
}

/* --- the plan
 * --------------------------------------------------------------------------------------------------------------------
 */

static void draw_plan(struct world *w, struct fault_plan *plan, bool none)
{
    *plan = (struct fault_plan){.in_flight = chance(w, 700) ? 1 : between(w, 2, 4),
                                .worker_lease_ms = between(w, 2, 20) * 1000,
                                .not_now_ms = between(w, 200, 3000)};
    if (none)
        return;
    plan->count = (int)between(w, 0, FAULTS_MAX - 4);
    plan->skews = chance(w, 300);
    plan->ghosts = chance(w, 500) ? 500 : 0;
    plan->ghosts_late = chance(w, 500) ? 300 : 0;
    plan->hint_lost = chance(w, 300) ? 300 : 0;
    plan->hint_odd = chance(w, 300) ? 200 : 0;
    if (chance(w, 400)) {
        plan->slow_per_mille = 1 + below(w, 100);
        plan->slow_us = between(w, 2 * MS, 300 * MS);
    }
    if (chance(w, 400)) {
        plan->slow_commit = 1 + below(w, 200);
        plan->slow_commit_us = between(w, 2 * MS, 800 * MS);
    }
}

static const struct fault_kind *kind_of(const char *name)
{
    for (size_t i = 0; i < KINDS; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    abort(); /* a scenario has what is there */
}

static bool takes_back(const struct fault_kind *kind)
{
    return kind->fn == restart_redis || kind->fn == take_redis_back;
}

/* False: none of its steps takes Redis back to what it was. */
static bool plan_steps(struct faults *f, const struct scenario *s)
{
    struct world *w = f->world;
    struct fault *x = f->all;
    bool any_back = false;
    for (int round = 0; round == 0 || round < s->times; round++)
        for (int i = 0; i < SCENARIO_STEPS && s->steps[i].fault; i++, x++) {
            const struct scenario_step *step = &s->steps[i];
            int64_t at_ms = step->at_ms + round * s->every_ms;
            if (x == f->all + FAULTS_MAX)
                abort(); /* the table's mistake */
            *x = (struct fault){.faults = f, .step = step, .kind = kind_of(step->fault)};
            event_plan(w, &x->event, w->now_us + at_ms * MS + between(w, 0, 500 * MS), NULL, happen, x);
            any_back = any_back || takes_back(x->kind);
        }
    return any_back;
}

void faults_init(struct world *w, bool none, const struct scenario *scenario)
{
    struct faults *f = calloc(1, sizeof *f);
    if (!f)
        abort();
    w->faults = f;
    f->world = w;
    f->heal_us = w->now_us + HEAL_US;
    draw_plan(w, &f->plan, none || scenario);
    if (scenario) {
        f->plan.ghosts = 500;
        f->plan.ghosts_late = 300;
        f->plan.worker_lease_ms = scenario->lease_ms ? scenario->lease_ms : f->plan.worker_lease_ms;
        f->plan.quarantine_after = scenario->quarantine_after;
        if (scenario->quarantine_after)
            f->plan.in_flight = 1; /* what else is in flight when the connection breaks is counted, too */
    }
    bool redis_restarts = scenario && plan_steps(f, scenario);
    for (int i = 0; i < f->plan.count; i++) {
        struct fault *x = &f->all[i];
        x->faults = f;
        x->kind = some_kind(w);
        redis_restarts = redis_restarts || takes_back(x->kind);
        event_plan(w, &x->event, between(w, w->now_us + FIRST_US, w->now_us + LAST_US), NULL, happen, x);
    }
    if (redis_restarts)
        event_plan(w, &f->remember, w->now_us + 200 * MS, NULL, remember, f);
}

void faults_free(struct world *w)
{
    struct faults *f = w->faults;
    for (int i = 0; i < FAULTS_MAX; i++) {
        event_cancel(w, &f->all[i].event);
        event_cancel(w, &f->all[i].after);
    }
    event_cancel(w, &f->remember);
    free(f);
    w->faults = NULL;
}

const struct fault_plan *fault_plan(const struct world *w)
{
    return &w->faults->plan;
}

int64_t fault_skew(struct world *w)
{
    return w->faults->plan.skews && chance(w, 500) ? between(w, -SKEW_MAX_MS, SKEW_MAX_MS) : 0;
}

int64_t faults_end_us(const struct world *w)
{
    return w->faults->heal_us;
}

void faults_heal(struct world *w)
{
    struct faults *f = w->faults;
    f->healed = true;
    trace(w, "FAULT no more: all is put right");
    f->plan.slow_per_mille = f->plan.slow_commit = f->plan.hint_lost = f->plan.hint_odd = f->plan.ghosts = 0;
    for (int i = 0; i < FAULTS_MAX; i++) {
        event_cancel(w, &f->all[i].event);
        event_cancel(w, &f->all[i].after);
    }
    for (int i = 0; i < w->dispatcher_count + w->worker_count; i++) {
        struct process *p = i < w->dispatcher_count ? &w->dispatchers[i] : &w->workers[i - w->dispatcher_count];
        if (p->stopped)
            process_continue(p);
        if (!p->running)
            process_start(p);
    }
    for (int i = 0; i < w->device_count; i++)
        device_settle(&w->devices[i]);
}
