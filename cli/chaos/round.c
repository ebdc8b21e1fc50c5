#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/chaos/chaos.h"
#include "cli/chaos/fault.h"
#include "lib/base/clock.h"

#define VOLLEY_MAX 8
/* From when all is healed until a small urgent batch is done. */
#define RECOVERY_S 90
/* From the end of the load until all batches are closed; the canceled ones wait for their expiry. */
#define CLOSE_S 180
/* A caller repeats what was not answered. */
#define LOAD_END_S 120
#define LOOK_S     0.1
/* What Redis and a worker lose when they die: a second, and as much more as is under way on a busy machine. */
#define FORGOTTEN_MS 2500

static bool start_load(struct chaos *c, int tenant, unsigned round)
{
    struct dev_process *p = &c->loads[tenant];
    char program[DEV_PATH_BYTES], log[DEV_PATH_BYTES], journal[DEV_PATH_BYTES], name[32], text[5][32];

    snprintf(name, sizeof name, "journal-%d-%u", tenant, round);
    if (!dev_path(program, c->dev.programs, "muster") || !dev_path(log, c->dev.data, "log") ||
        !dev_path(journal, c->dev.data, name))
        return false;
    uint64_t seed = (uint64_t)c->options.seed ^ (uint64_t)round << 32 ^ (uint64_t)tenant << 56;
    snprintf(text[0], 32, "%d", tenant);
    snprintf(text[1], 32, "%u", chaos_devices(c));
    snprintf(text[2], 32, "%" PRIu64, seed & INT64_MAX);
    snprintf(text[3], 32, "%u", round);
    snprintf(text[4], 32, "%" PRId64, c->options.rate);
    dev_process_init(p, &c->dev.group, log, "load", tenant + 1);
    dev_process_args(p, program, "chaos", "load", "--ca", c->dev.ca, "--api-key", c->api_keys[tenant], "--journal",
                     journal, "--prefix", chaos_prefix(tenant), "--tenant", text[0], "--devices", text[1], "--seed",
                     text[2], "--round", text[3], "--rate", text[4], NULL);
    snprintf(text[0], 32, "%" PRId64 "ms", c->options.patience_ms);
    dev_process_args(p, "--patience", text[0], NULL);
    for (int i = 0; i < c->options.dispatchers; i++)
        dev_process_args(p, "--dispatcher", c->dev.dispatchers[i].listen, NULL);
    return dev_process_start(p) && dev_process_wait_ready(p, 30);
}

/* Ends the callers in order: each request has its answer then. */
static bool end_load(struct chaos *c)
{
    for (int i = 0; i < CHAOS_TENANTS; i++)
        if (c->loads[i].pid > 0) {
            c->loads[i].told = true;
            kill(c->loads[i].pid, SIGTERM);
        }
    for (int i = 0; i < CHAOS_TENANTS; i++) {
        if (c->loads[i].pid > 0 && !dev_process_wait_end(&c->loads[i], LOAD_END_S)) {
            if (!c->dev.group.stopping)
                verdict_complain(&c->verdict, BREACH_HANG, "%s does not get its last answers within %d s",
                                 c->loads[i].name, LOAD_END_S);
            return false;
        }
        dev_process_stop(&c->loads[i], SIGKILL, 10);
    }
    return true;
}

static bool inject(struct chaos *c, const struct fault *f, struct injury *i)
{
    const struct fault_work *work = fault_work(f->kind);
    const char *why = work->prevented ? work->prevented(c) : NULL;

    *i = (struct injury){.fault = f, .hold_s = f->hold_ms / 1000.0, .at_ms = clock_wall_ms()};
    if (why) {
        chaos_say(c, "%-17s skipped: %s", fault_kind_info(f->kind)->name, why);
        c->tally[f->kind].skipped++;
        i->fault = NULL;
        return true;
    }
    return work->inject(c, i);
}

/* Heals each in its time. */
static bool heal(struct chaos *c, struct injury *injuries, int count)
{
    for (int left = count; left > 0; left--) {
        struct injury *first = NULL;
        for (int i = 0; i < count; i++)
            if (injuries[i].fault && (!first || injuries[i].hold_s < first->hold_s))
                first = &injuries[i];
        if (!first)
            return true;
        double wait = first->hold_s - (double)(clock_wall_ms() - first->at_ms) / 1000;
        if (wait > 0 && !chaos_pause(c, wait))
            return false;
        if (!fault_work(first->fault->kind)->heal(c, first))
            return false;
        first->detail = (uint64_t)first->fault->kind + 1; /* for the line about it */
        first->fault = NULL;
    }
    return true;
}

static bool after(struct chaos *c, const struct fault *faults, struct injury *injuries, int count)
{
    for (int i = 0; i < count; i++) {
        const struct fault_work *work = fault_work(faults[i].kind);
        if (injuries[i].detail && work->after && !work->after(c, &injuries[i]))
            return false;
    }
    return true;
}

/* Redis' last second and what a worker had told nobody yet: gone at about the same time, nobody knows what was sent. */
static void note_forgetting(struct chaos *c, const struct fault *faults, const struct injury *injuries, int count)
{
    struct slow_time *redis = &c->redis_forgot, *worker = &c->worker_forgot;

    for (int i = 0; i < count; i++) {
        const struct fault_kind_info *info = fault_kind_info(faults[i].kind);
        const struct slow_time now = {injuries[i].at_ms - FORGOTTEN_MS, clock_wall_ms() + FORGOTTEN_MS};
        if (!injuries[i].detail || !info->forgets)
            continue;
        if (info->touches & TOUCHES_REDIS)
            *redis = now;
        if (info->touches & TOUCHES_WORKER)
            *worker = now;
    }
    if (redis->from_ms <= worker->to_ms && worker->from_ms <= redis->to_ms && redis->to_ms)
        *evidence_blind(&c->evidence) =
            (struct slow_time){redis->from_ms < worker->from_ms ? redis->from_ms : worker->from_ms,
                               redis->to_ms > worker->to_ms ? redis->to_ms : worker->to_ms};
}

static void tell(struct chaos *c, const struct injury *injuries, int count, double recovery)
{
    for (int i = 0; i < count; i++) {
        if (!injuries[i].detail)
            continue;
        enum fault_kind kind = (enum fault_kind)(injuries[i].detail - 1);
        struct chaos_tally *t = &c->tally[kind];
        t->injected++;
        t->recovery_sum_s += recovery;
        t->recovery_max_s = recovery > t->recovery_max_s ? recovery : t->recovery_max_s;
        chaos_say(c, "%-17s %-24s %s %.2f s", fault_kind_info(kind)->name, injuries[i].victim,
                  i + 1 < count ? "and" : "recovered in", recovery);
    }
}

/* A volley: all faults of it, all healed, and the installation well again. */
static bool volley(struct chaos *c, const struct fault *faults, int count)
{
    struct injury injuries[VOLLEY_MAX] = {0};

    if (!chaos_pause(c, faults[0].pause_ms / 1000.0))
        return false;
    for (int i = 0; i < count; i++)
        if (!inject(c, &faults[i], &injuries[i]))
            return false;
    if (!heal(c, injuries, count))
        return false;
    if (!fault_settle(c))
        return false;
    int64_t healed_us = clock_mono_us();
    if (!chaos_probe(c, RECOVERY_S) || !after(c, faults, injuries, count))
        return false;
    note_forgetting(c, faults, injuries, count);
    tell(c, injuries, count, (double)(clock_mono_us() - healed_us) / 1e6);
    return true;
}

static bool run_faults(struct chaos *c, const struct schedule *s)
{
    for (size_t at = 0; at < s->count;) {
        int n = 1;
        while (at + (size_t)n < s->count && n < VOLLEY_MAX && s->faults[at + (size_t)n].together)
            n++;
        if (!volley(c, &s->faults[at], n))
            return false;
        at += (size_t)n;
    }
    return true;
}

/* Names what hangs, for whoever looks for the reason. */
static void complain_about_open(struct chaos *c, int64_t count, int64_t lowest);

static bool wait_closed(struct chaos *c)
{
    double until = ev_time() + CLOSE_S, began = ev_time();
    int64_t count = 0, lowest = 0;

    do {
        if (!chaos_open_batches(c, &count, &lowest))
            return false;
        if (count == 0) {
            c->idle_s = ev_time() - began;
            c->idle_max_s = c->idle_s > c->idle_max_s ? c->idle_s : c->idle_max_s;
            return true;
        }
    } while (ev_time() < until && chaos_pause(c, LOOK_S));
    if (!c->dev.group.broken)
        complain_about_open(c, count, lowest);
    return false;
}

static void take_open_commands(void *arg, const struct pg_result *rows)
{
    struct chaos *c = arg;

    for (int i = 0; i < pg_rows(rows); i++)
        verdict_complain(&c->verdict, BREACH_HANG, "batch %" PRId64 " device %s: %s, %" PRId64 " attempts",
                         pg_int(rows, i, 0), pg_text(rows, i, 1), pg_text(rows, i, 2), pg_int(rows, i, 3));
}

static void complain_about_open(struct chaos *c, int64_t count, int64_t lowest)
{
    static const struct pg_stmt stmt = {
        "chaos_hanging", "SELECT batch_id, coalesce(device_id, seq::text), state, attempts FROM commands($1::bigint) "
                         "WHERE state IN ('HELD', 'QUEUED', 'ROUTED', 'SENT') LIMIT 8"};

    verdict_complain(&c->verdict, BREACH_HANG, "%" PRId64 " batches are not closed within %d s, such as %" PRId64,
                     count, CLOSE_S, lowest);
    if (!chaos_sql_int8(c, &stmt, lowest, 30, take_open_commands, c))
        verdict_complain(&c->verdict, BREACH_HANG, "PostgreSQL does not say of batch %" PRId64, lowest);
}

bool chaos_round(struct chaos *c, unsigned round)
{
    struct schedule s;
    uint64_t seed = (uint64_t)c->options.seed + (uint64_t)(round - 1) * 0x9e3779b97f4a7c15u;
    bool good = true;

    chaos_schedule_make(&s, seed, c->options.count);
    chaos_say(c, "round %u: %zu faults", round, s.count);
    for (int i = 0; good && i < CHAOS_TENANTS; i++)
        good = start_load(c, i, round);
    good = good && run_faults(c, &s);
    chaos_schedule_free(&s);
    return good && end_load(c) && wait_closed(c) && chaos_judge(c, round);
}
