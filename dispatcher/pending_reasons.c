#include "dispatcher/pending_reasons.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "dispatcher/pace.h"
#include "dispatcher/present.h"
#include "dispatcher/retry.h"
#include "dispatcher/rollout.h"
#include "lib/store/state.h"
#include "muster/v1/steering.pb-c.h"
#include "proto/command_id.h"

/* The command being explained. */
struct telling {
    struct arena *a;
    const struct pending_facts *facts;
    const struct db_pending_batch *batch;
    struct pending_command *command;
    enum command_state state;
};

#define TIME_TEXT    24
#define WORDS_TEXT   512
#define REASON(name) MUSTER__V1__PENDING_REASON__PENDING_REASON_##name

/* "2026-11-25T20:00:00Z" */
static const char *time_text(int64_t ms, char out[TIME_TEXT])
{
    struct tm utc;
    time_t seconds = (time_t)(ms / 1000);
    if (!gmtime_r(&seconds, &utc) || !strftime(out, TIME_TEXT, "%Y-%m-%dT%H:%M:%SZ", &utc))
        snprintf(out, TIME_TEXT, "?");
    return out;
}

/* Adds one more; NULL without memory. */
static Muster__V1__Pending *tell(struct telling *t, Muster__V1__PendingReason reason, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static Muster__V1__Pending *tell(struct telling *t, Muster__V1__PendingReason reason, const char *fmt, ...)
{
    char words[WORDS_TEXT];
    va_list ap;
    Muster__V1__Pending *p = arena_alloc(t->a, sizeof *p);
    if (!p || t->command->count == PENDING_MAX)
        return NULL;
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    muster__v1__pending__init(p);
    p->reason = reason;
    char *copy = arena_copy(t->a, words, strlen(words));
    if (copy)
        p->words = copy;
    t->command->list[t->command->count++] = p;
    return p;
}

static void tell_times(struct telling *t, Muster__V1__Pending *p, int64_t since_ms, int64_t until_ms)
{
    if (p && since_ms > 0)
        p->since = present_time(t->a, since_ms);
    if (p && until_ms > 0)
        p->until = present_time(t->a, until_ms);
}

static void tell_said(struct telling *t, Muster__V1__Pending *p, const char *said)
{
    char *copy = p && *said ? arena_copy(t->a, said, strlen(said)) : NULL;
    if (copy)
        p->said = copy;
}

/* ": stolen key", or nothing. */
static const char *colon(const char *said)
{
    return *said ? ": " : "";
}

/* --- the batch ---------------------------------------------------------------------------------------------------- */

static void approval(struct telling *t)
{
    const struct db_pending_batch *b = t->batch;
    char at[TIME_TEXT];
    if (b->approval == MUSTER__V1__APPROVAL_STATE__APPROVAL_STATE_PENDING)
        tell_times(t,
                   tell(t, REASON(APPROVAL),
                        "the batch waits for somebody to approve it (muster batch approve %" PRId64
                        "); at %s it is canceled",
                        b->id, time_text(b->approve_by_ms, at)),
                   0, b->approve_by_ms);
    else if (b->approval == MUSTER__V1__APPROVAL_STATE__APPROVAL_STATE_COOLING_OFF)
        tell_times(t, tell(t, REASON(COOLING_OFF), "the batch cools off until %s", time_text(b->release_ms, at)), 0,
                   b->release_ms);
}

static void canceling(struct telling *t)
{
    char at[TIME_TEXT];
    if (t->batch->cancel_requested_ms)
        tell_times(t,
                   tell(t, REASON(CANCELING), "a cancel was asked for at %s, which a worker has not confirmed yet",
                        time_text(t->batch->cancel_requested_ms, at)),
                   t->batch->cancel_requested_ms, 0);
}

static void paused(struct telling *t)
{
    const struct db_pending_batch *b = t->batch;
    if (!b->paused)
        return;
    Muster__V1__Pending *p = tell(t, REASON(PAUSED), "the batch is%s paused%s%s (muster batch resume %" PRId64 ")",
                                  b->asked ? " being" : "", colon(b->reason), b->reason, b->id);
    tell_times(t, p, b->asked ? 0 : b->handled_ms, 0);
    tell_said(t, p, b->reason);
}

static void platform_stopped(struct telling *t)
{
    const struct db_pending_batch *b = t->batch;
    uint8_t platform = t->facts->device.platform;
    if (platform >= ROLLOUT_PLATFORMS || !(b->stopped >> platform & 1))
        return;
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(&muster__v1__platform__descriptor, platform);
    Muster__V1__Pending *p =
        tell(t, REASON(PLATFORM_STOPPED), "the batch is stopped for %s%s%s (muster batch resume %" PRId64 ")",
             v ? v->name : "the platform", colon(b->reason), b->reason, b->id);
    tell_times(t, p, b->handled_ms, 0);
    tell_said(t, p, b->reason);
}

static void not_before(struct telling *t)
{
    char at[TIME_TEXT];
    int64_t ms = t->batch->not_before_ms;
    if (ms > t->facts->now_ms)
        tell_times(t, tell(t, REASON(NOT_BEFORE), "nothing of the batch is sent before %s", time_text(ms, at)), 0, ms);
}

static void window(struct telling *t)
{
    const struct db_pending_batch *b = t->batch;
    char at[TIME_TEXT];
    Muster__V1__Pending *p;
    if (!b->windowed || (b->closes_ms && b->opens_ms <= t->facts->now_ms))
        return;
    if (b->opens_ms && b->opens_ms < b->expires_ms) {
        p = tell(t, REASON(WINDOW), "the batch's window is closed in %s, where the device is; it opens at %s", b->zone,
                 time_text(b->opens_ms, at));
        tell_times(t, p, 0, b->opens_ms);
    } else {
        p = tell(t, REASON(WINDOW),
                 "the batch's window is closed in %s, where the device is, and opens no more before the batch expires",
                 b->zone);
    }
    char *zone = p ? arena_copy(t->a, b->zone, strlen(b->zone)) : NULL;
    if (zone)
        p->time_zone = zone;
}

/* How the wave (from 0 on) is released, in words. */
static void release_text(const struct telling *t, const struct rollout *plan, uint32_t wave, char *out, size_t size)
{
    const struct rollout_wave *w = &plan->wave[wave];
    if (w->success_percent)
        snprintf(out, size, "when %" PRIu32 " percent of the %" PRIu32 " devices before have succeeded",
                 w->success_percent, plan->wave[wave - 1].limit);
    else if (w->after_ms)
        snprintf(out, size, "%" PRId64 " s after the one before", w->after_ms / 1000);
    else
        snprintf(out, size, "by hand (muster batch release %" PRId64 ")", t->batch->id);
}

/* The device's wave, from 0 on: as wave_order_of. */
static uint32_t own_wave(const struct db_pending_batch *b, const struct rollout *plan)
{
    uint32_t own = 0;
    if (b->canary)
        return 0;
    if (b->joined)
        return plan->waves - 1;
    while (own + 1 < plan->waves && b->rank + b->canaries >= plan->wave[own].limit)
        own++;
    return own;
}

static void tell_wave(struct telling *t, const struct rollout *plan, uint32_t own)
{
    uint32_t out = t->batch->wave + 1;
    char release[128] = "";
    release_text(t, plan, out, release, sizeof release);
    Muster__V1__Pending *p = tell(t, REASON(WAVE),
                                  "the device is in wave %" PRIu32 " of %" PRIu32 ", of which %" PRIu32
                                  " %s out; wave %" PRIu32 " goes out %s",
                                  own + 1, plan->waves, out, out > 1 ? "are" : "is", out + 1, release);
    if (p) {
        p->wave = own + 1;
        p->waves = plan->waves;
    }
}

static void tell_rate(struct telling *t, const Muster__V1__Rate *rate)
{
    struct pace pace;
    int64_t per_ms = pace_per_ms(rate);
    pace_read(&pace, rate);
    pace.steps = t->batch->rate_steps;
    tell(t, REASON(RATE), "the batch goes out at %.0f devices in %.0f s, and the device has not had its turn",
         pace_rate(&pace) * (double)per_ms, (double)per_ms / 1000);
}

/* Its wave, and when that is out its turn. */
static void rollout(struct telling *t)
{
    const struct db_pending_batch *b = t->batch;
    struct rollout plan;
    Muster__V1__Steering *in =
        b->steering.len ? muster__v1__steering__unpack(NULL, b->steering.len, b->steering.data) : NULL;
    if (!in)
        return;
    rollout_read(&plan, in, b->device_count - b->joiners, b->canaries);
    uint32_t own = plan.waves ? own_wave(b, &plan) : 0;
    if (own > b->wave)
        tell_wave(t, &plan, own);
    else if (in->rate && !b->had_turn)
        tell_rate(t, in->rate);
    muster__v1__steering__free_unpacked(in, NULL);
}

/* An outcome that is tried again after a while. */
static void retry(struct telling *t)
{
    const struct db_retry *r = &t->batch->retry;
    unsigned attempts = state_attempts(t->command->state);
    char at[TIME_TEXT];
    if (t->state != STATE_HELD || !attempts || !r->after || !t->command->at_ms)
        return;
    int64_t due_ms = t->command->at_ms + retry_wait_ms(r, attempts, (uint64_t)t->batch->id, t->facts->seq);
    tell_times(t,
               tell(t, REASON(RETRY), "it did not succeed, and is tried again at %s; %u of %d deliveries are made",
                    time_text(due_ms, at), attempts, r->attempts),
               t->command->at_ms, due_ms);
}

static void older(struct telling *t)
{
    if (t->batch->older)
        tell(t, REASON(OLDER), "an older batch, which this one supersedes, is still being stopped");
}

/* --- everything of a tenant --------------------------------------------------------------------------------------- */

static void gate(struct telling *t, const struct db_gate *g, Muster__V1__PendingReason reason, const char *whose,
                 const char *how)
{
    if (!g->closed)
        return;
    Muster__V1__Pending *p =
        tell(t, reason, "everything of %s is held%s%s (%s)", whose, colon(g->reason), g->reason, how);
    tell_times(t, p, g->changed_ms, 0);
    tell_said(t, p, g->reason);
}

static void gates(struct telling *t)
{
    gate(t, &t->facts->tenant_gate, REASON(TENANT_HELD), "the tenant", "muster release");
    gate(t, &t->facts->all_gate, REASON(ALL_HELD), "all tenants", "muster release --all");
}

/* --- the device --------------------------------------------------------------------------------------------------- */

static void redis_away(struct telling *t)
{
    if (!t->facts->redis)
        tell(t, REASON(REDIS_AWAY), "Redis is not reached, or is being filled again: nothing new is sent meanwhile");
}

static void offline(struct telling *t)
{
    const struct pending_facts *f = t->facts;
    char at[TIME_TEXT];
    if (!f->redis || f->worker)
        return;
    if (!f->device.seen_ms)
        tell(t, REASON(OFFLINE), "the device is not connected, and has not been seen within a year");
    else
        tell_times(t,
                   tell(t, REASON(OFFLINE),
                        "the device is not connected; it was seen last in the hour, or day, from %s on",
                        time_text(f->device.seen_ms, at)),
                   f->device.seen_ms, 0);
}

/* What goes to the device before: everything that stands before, and is not held; and what is SENT, wherever it stands,
 * which is also the next to go. */
static void behind(struct telling *t)
{
    const struct pending_facts *f = t->facts;
    const struct live_pending *next = NULL;
    uint32_t ahead = 0;
    bool before = true;
    for (size_t i = 0; i < f->open_count; i++) {
        const struct live_pending *o = &f->open[i];
        enum command_state state = state_of(o->state);
        if (o->batch == (uint64_t)t->command->batch) {
            before = false;
            continue;
        }
        if (state != STATE_SENT && (!before || state == STATE_HELD))
            continue;
        ahead++;
        if (!next || (state == STATE_SENT && state_of(next->state) != STATE_SENT))
            next = o;
    }
    /* Where it does not stand itself it is not known who is before it. */
    if (!next || before)
        return;
    char id[COMMAND_ID_TEXT + 1] = "";
    command_id_write(id, &(struct command_id){next->batch, (uint32_t)f->tenant, f->seq});
    Muster__V1__Pending *p =
        tell(t, REASON(BEHIND), "%" PRIu32 " other command%s of the device %s before; next is %s, %s", ahead,
             ahead == 1 ? "" : "s", ahead == 1 ? "goes" : "go", id, state_name(state_of(next->state)));
    char *copy = p ? arena_copy(t->a, id, COMMAND_ID_TEXT) : NULL;
    if (copy)
        p->command_id = copy;
    if (p)
        p->ahead = ahead;
}

static const char *worker_health(const struct pending_facts *f)
{
    return f->worker_there ? "" : ", which has lost its lease: what it has goes back";
}

/* A command that has not been sent has no time in this state, unless the device has put it off. */
static void again(struct telling *t)
{
    const struct pending_facts *f = t->facts;
    unsigned attempts = state_attempts(t->command->state);
    if (t->state != STATE_QUEUED || !(attempts || t->command->at_ms) || !f->worker)
        return;
    Muster__V1__Pending *p =
        tell(t, REASON(AGAIN),
             "the device has put it off, or it is tried again (sent %u time%s by now); worker %u sends it at its"
             " next chance%s",
             attempts, attempts == 1 ? "" : "s", f->worker, worker_health(f));
    tell_times(t, p, t->command->at_ms, 0);
    if (p)
        p->worker = f->worker;
}

static void with_worker(struct telling *t)
{
    const struct pending_facts *f = t->facts;
    if (t->state != STATE_ROUTED || !f->worker)
        return;
    Muster__V1__Pending *p =
        tell(t, REASON(WORKER),
             "with worker %u, in its inboxes (%" PRId64 " entries wait there) or its hands, not sent, or less than a "
             "second ago%s",
             f->worker, f->inbox, worker_health(f));
    if (p) {
        p->worker = f->worker;
        p->ahead = (uint32_t)f->inbox;
    }
}

static void in_flight(struct telling *t)
{
    const struct pending_facts *f = t->facts;
    unsigned attempts = state_attempts(t->command->state);
    char at[TIME_TEXT], when[TIME_TEXT + 16] = "", who[24] = "";
    if (t->command->at_ms)
        snprintf(when, sizeof when, " at %s", time_text(t->command->at_ms, at));
    if (f->worker)
        snprintf(who, sizeof who, " by worker %u", f->worker);
    Muster__V1__Pending *p = tell(t, REASON(IN_FLIGHT), "sent%s%s, %u time%s by now, and not answered%s", when, who,
                                  attempts, attempts == 1 ? "" : "s", f->worker ? worker_health(f) : "");
    tell_times(t, p, t->command->at_ms, 0);
    if (p)
        p->worker = f->worker;
}

/* --- what is left ------------------------------------------------------------------------------------------------- */

/* Nothing holds it, and yet it is not on its way: the leader is to act. */
static void left(struct telling *t)
{
    const char *leader = t->facts->device.led ? "" : "; no dispatcher leads at the moment";
    if (t->command->count)
        return;
    if (t->state == STATE_HELD || t->batch->asked)
        tell(t, REASON(CHANGING), "what was asked for last of the batch is being carried out%s", leader);
    else if (t->state == STATE_QUEUED && !t->batch->routed)
        tell(t, REASON(ROUTING), "the leader has not come to the batch yet%s", leader);
    else if (t->state == STATE_QUEUED)
        tell(t, REASON(ROUTING), "the leader has not given it to the device's worker yet%s", leader);
}

/* In the order in which they must go. What has been sent goes to its own end, whatever holds the rest. */
typedef void reason_fn(struct telling *t);
static reason_fn *const unsent[] = {approval,    canceling, paused, platform_stopped, not_before, window, rollout,
                                    retry,       older,     gates,  redis_away,       offline,    behind, again,
                                    with_worker, left};
static reason_fn *const sent[] = {redis_away, offline, in_flight};

void pending_reasons(struct arena *a, const struct pending_facts *facts, const struct db_pending_batch *batch,
                     struct pending_command *command)
{
    struct telling t = {a, facts, batch, command, state_of(command->state)};
    bool was_sent = t.state == STATE_SENT;
    reason_fn *const *reasons = was_sent ? sent : unsent;
    size_t n = was_sent ? sizeof sent / sizeof *sent : sizeof unsent / sizeof *unsent;
    command->count = 0;
    command->list = arena_alloc(a, PENDING_MAX * sizeof *command->list);
    for (size_t i = 0; command->list && i < n; i++)
        reasons[i](&t);
    command->expires_ms = batch->expires_ms;
    if (!was_sent && batch->deliver_by_ms && batch->deliver_by_ms < command->expires_ms)
        command->expires_ms = batch->deliver_by_ms;
}
