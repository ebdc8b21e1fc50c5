#include "cli/chaos/verdict.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/store/state.h"

const char *breach_name(enum breach breach)
{
    static const char *const names[BREACHES] = {
        [BREACH_ACCEPTED_LOST] = "accepted-lost",
        [BREACH_ACCEPTED_TWICE] = "accepted-twice",
        [BREACH_REFUSED] = "refused",
        [BREACH_NOT_TERMINAL] = "not-terminal",
        [BREACH_WITNESSES_DIFFER] = "witnesses-differ",
        [BREACH_EXECUTED_TWICE] = "executed-twice",
        [BREACH_NOT_EXECUTED] = "not-executed",
        [BREACH_OUTCOME_DIFFERS] = "outcome-differs",
        [BREACH_NOT_ACCEPTED] = "not-accepted",
        [BREACH_SENT_AFTER_CANCEL] = "sent-after-cancel",
        [BREACH_EXECUTED_UNSENT] = "executed-unsent",
        [BREACH_SENT_AFTER_EXPIRY] = "sent-after-expiry",
        [BREACH_ACK_LOST] = "ack-lost",
        [BREACH_FOREIGN_TENANT] = "foreign-tenant",
        [BREACH_REDIS_NOT_EMPTY] = "redis-not-empty",
        [BREACH_MEMORY] = "memory",
        [BREACH_HANG] = "hang",
        [BREACH_PROCESS] = "process",
    };
    return names[breach];
}

void verdict_complain(struct verdict *v, enum breach breach, const char *fmt, ...)
{
    struct complaints *c = &v->complaints[breach];
    va_list ap;

    if (c->count < COMPLAINTS_MAX) {
        va_start(ap, fmt);
        vsnprintf(c->text[c->count], COMPLAINT_BYTES, fmt, ap);
        va_end(ap);
    }
    c->count++;
}

bool verdict_is_good(const struct verdict *v)
{
    for (int i = 0; i < BREACHES; i++)
        if (v->complaints[i].count)
            return false;
    return true;
}

void verdict_add(struct verdict *v, const struct verdict *more)
{
    for (int i = 0; i < BREACHES; i++) {
        struct complaints *to = &v->complaints[i];
        const struct complaints *from = &more->complaints[i];
        for (uint64_t n = 0; n < from->count; n++, to->count++)
            if (n < COMPLAINTS_MAX && to->count < COMPLAINTS_MAX)
                memcpy(to->text[to->count], from->text[n], COMPLAINT_BYTES);
    }
    v->batches += more->batches;
    v->commands += more->commands;
    v->executed += more->executed;
    v->repeated += more->repeated;
    v->canceled_batches += more->canceled_batches;
    v->forgotten += more->forgotten;
    for (int i = 0; i < 16; i++)
        v->states[i] += more->states[i];
}

static void judge_request(const struct evidence *e, const struct request *r, struct verdict *v)
{
    const struct stored_batch *b = r->batch ? evidence_find_batch(e, r->batch) : NULL;

    if (r->twice)
        verdict_complain(v, BREACH_ACCEPTED_TWICE, "request %s was answered with two batches, one is %" PRIu64, r->id,
                         r->batch);
    if (r->batch && !b)
        verdict_complain(v, BREACH_ACCEPTED_LOST, "request %s was answered with batch %" PRIu64 ", which is not there",
                         r->id, r->batch);
    else if (b && strcmp(b->request, r->id) != 0)
        verdict_complain(v, BREACH_ACCEPTED_LOST, "batch %" PRIu64 " is of request %s, not of %s", r->batch, b->request,
                         r->id);
    else if (b && b->devices != r->devices)
        verdict_complain(v, BREACH_ACCEPTED_LOST, "batch %" PRIu64 " has %u devices, %u were answered", r->batch,
                         b->devices, r->devices);
    if (b && e->tenants[r->tenant] != b->tenant)
        verdict_complain(v, BREACH_FOREIGN_TENANT, "batch %" PRIu64 " of tenant %u was answered to tenant %u", b->id,
                         b->tenant, e->tenants[r->tenant]);
    if (r->foreign)
        verdict_complain(v, BREACH_FOREIGN_TENANT, "tenant %u was shown batch %" PRIu64, e->tenants[r->tenant],
                         r->foreign);
    /* A batch that was to end soon may have done so before a dispatcher was there to take it. */
    if (r->refused[0] && !(strcmp(r->refused, "INVALID_ARGUMENT") == 0))
        verdict_complain(v, BREACH_REFUSED, "request %s: %s", r->id, r->refused);
    v->canceled_batches += r->canceled_ms > 0;
}

static void judge_batch(const struct evidence *e, const struct stored_batch *b, struct verdict *v)
{
    const struct stored_batch *next = b + 1 < e->batches + e->batch_count ? b + 1 : NULL;

    v->batches++;
    if (!evidence_find_request(e, b->request))
        verdict_complain(v, BREACH_NOT_ACCEPTED, "batch %" PRIu64 " is of request %s, which nobody made", b->id,
                         b->request);
    if (!b->closed_ms)
        verdict_complain(v, BREACH_HANG, "batch %" PRIu64 " is not closed", b->id);
    if (next && next->id == b->id)
        verdict_complain(v, BREACH_ACCEPTED_TWICE, "batch %" PRIu64 " is there twice", b->id);
}

/* No request may have two batches. */
static void judge_twins(const struct evidence *e, struct verdict *v)
{
    for (size_t i = 0; i < e->batch_count; i++) {
        const struct request *r = evidence_find_request(e, e->batches[i].request);
        if (r && r->batch && r->batch != e->batches[i].id)
            verdict_complain(v, BREACH_ACCEPTED_TWICE, "request %s has the batches %" PRIu64 " and %" PRIu64, r->id,
                             r->batch, e->batches[i].id);
    }
}

/* Whether a process whose clock was an hour off can have judged an expiry at that moment, or before it: what it ended
 * too early stays ended. */
static bool clock_was_wrong(const struct evidence *e, int64_t at_ms, bool or_before)
{
    for (size_t i = 0; i < e->stepped_count; i++)
        if (at_ms >= e->stepped[i].from_ms && (or_before || at_ms <= e->stepped[i].to_ms + SLOW_WAY_MS))
            return true;
    return false;
}

/* How long a command may have been under way at that moment. */
static int64_t way_ms(const struct evidence *e, int64_t at_ms)
{
    for (size_t i = 0; i < e->slow_count; i++)
        if (at_ms >= e->slow[i].from_ms - SLOW_WAY_MS && at_ms <= e->slow[i].to_ms + SLOW_WAY_MS)
            return SLOW_WAY_MS;
    return WAY_MS;
}

/* "batch 7 seq 12: SUCCEEDED, received 2, executed 1, SUCCEEDED, acked" */
static const char *describe(const struct told_command *c, const struct witnessed *w, char out[160])
{
    static const struct witnessed nothing;
    const struct witnessed *seen = w ? w : &nothing;

    snprintf(out, 160, "tenant %u batch %" PRIu64 " seq %u: %s; received %u, executed %u, %s%s", c->tenant, c->batch,
             c->seq, state_name((enum command_state)c->told), seen->received, seen->executed,
             state_name((enum command_state)seen->outcome), seen->acked ? ", PUBACKed" : "");
    return out;
}

static bool is_outcome(unsigned state)
{
    return state == STATE_SUCCEEDED || state == STATE_FAILED || state == STATE_REJECTED;
}

/* Whether the acknowledgement had its PUBACK only when the command had ended otherwise: nothing is left to record. */
static bool came_too_late(const struct evidence *e, const struct stored_batch *b, const struct told_command *c,
                          const struct witnessed *w)
{
    return c->told == STATE_TIMED_OUT &&
           (w->acked_ms + CLOCKS_MS >= b->expires_ms || clock_was_wrong(e, w->acked_ms, true));
}

/* What a worker sent in the second that Redis lost, and told nobody because it died as well, is known to the device
 * alone until it says so: a cancel or an expiry that comes before is not wrong about what can be known. */
static bool was_forgotten(const struct evidence *e, const struct told_command *c, const struct witnessed *w)
{
    if (c->told != STATE_CANCELED && c->told != STATE_EXPIRED)
        return false;
    for (size_t i = 0; i < e->blind_count; i++)
        if (w->received_ms >= e->blind[i].from_ms && w->received_ms <= e->blind[i].to_ms)
            return true;
    return false;
}

static void judge_outcome(const struct evidence *e, const struct stored_batch *b, const struct told_command *c,
                          const struct witnessed *w, struct verdict *v)
{
    char text[160];
    unsigned outcome = w ? w->outcome : STATE_NONE;

    describe(c, w, text);
    if (!state_is_terminal((enum command_state)c->told))
        verdict_complain(v, BREACH_NOT_TERMINAL, "%s", text);
    if (w && w->executed > 1)
        verdict_complain(v, BREACH_EXECUTED_TWICE, "%s", text);
    if ((c->told == STATE_SUCCEEDED || c->told == STATE_FAILED) && (!w || w->executed == 0 || outcome != c->told))
        verdict_complain(v, BREACH_NOT_EXECUTED, "%s", text);
    if (c->told == STATE_REJECTED && outcome != STATE_REJECTED)
        verdict_complain(v, BREACH_OUTCOME_DIFFERS, "%s", text);
    if (w && w->executed && was_forgotten(e, c, w)) {
        v->forgotten++;
        return;
    }
    if ((c->told == STATE_CANCELED || c->told == STATE_EXPIRED) && w && w->executed)
        verdict_complain(v, BREACH_EXECUTED_UNSENT, "%s", text);
    if (w && w->acked && is_outcome(outcome) && outcome != c->told && !came_too_late(e, b, c, w))
        verdict_complain(v, BREACH_ACK_LOST, "%s %" PRId64 " ms before its expiry", text, b->expires_ms - w->acked_ms);
}

static void judge_times(const struct evidence *e, const struct stored_batch *b, const struct told_command *c,
                        const struct witnessed *w, struct verdict *v)
{
    const struct request *r = evidence_find_request(e, b->request);
    char text[160];

    if (!w)
        return;
    describe(c, w, text);
    if (r && r->canceled_ms && w->received_ms > r->canceled_ms + way_ms(e, r->canceled_ms))
        verdict_complain(v, BREACH_SENT_AFTER_CANCEL, "%s; %" PRId64 " ms after the cancel was confirmed", text,
                         w->received_ms - r->canceled_ms);
    /* Where one process's clock was an hour off, that process's idea of the expiry was too: see README, Chaos. */
    if (!clock_was_wrong(e, w->received_ms, false) && w->received_ms > b->expires_ms + way_ms(e, b->expires_ms))
        verdict_complain(v, BREACH_SENT_AFTER_EXPIRY, "%s; %" PRId64 " ms after its expiry", text,
                         w->received_ms - b->expires_ms);
}

static void judge_command(const struct evidence *e, const struct told_command *c, const struct witnessed *w,
                          struct verdict *v)
{
    const struct stored_batch *b = evidence_find_batch(e, c->batch);
    char text[160];

    v->commands++;
    v->states[c->told & 15]++;
    if (!b) {
        verdict_complain(v, BREACH_WITNESSES_DIFFER, "%s; its batch is not there", describe(c, w, text));
        return;
    }
    if (c->told != c->stored)
        verdict_complain(v, BREACH_WITNESSES_DIFFER, "%s; SQL says %s", describe(c, w, text),
                         state_name((enum command_state)c->stored));
    if (c->tenant != b->tenant)
        verdict_complain(v, BREACH_FOREIGN_TENANT, "%s; its batch is tenant %u's", describe(c, w, text), b->tenant);
    judge_outcome(e, b, c, w, v);
    judge_times(e, b, c, w, v);
}

/* What a device has of a command nobody tells of. */
static void judge_stranger(const struct evidence *e, const struct witnessed *w, struct verdict *v)
{
    if (w->batch < e->first_batch) {
        /* Of an earlier round, when all had ended: seen again it may be, executed again not. */
        if (w->executed > 1)
            verdict_complain(v, BREACH_EXECUTED_TWICE, "tenant %u batch %" PRIu64 " seq %u, of an earlier round",
                             w->tenant, w->batch, w->seq);
        return;
    }
    verdict_complain(v, BREACH_NOT_ACCEPTED, "tenant %u batch %" PRIu64 " seq %u: received %u, executed %u", w->tenant,
                     w->batch, w->seq, w->received, w->executed);
}

static void judge_witnessed(const struct witnessed *w, struct verdict *v)
{
    v->executed += w->executed > 0;
    v->repeated += w->received > 1;
    if (w->by_tenant != w->tenant || w->by_seq != w->seq)
        verdict_complain(v, BREACH_FOREIGN_TENANT,
                         "a command of tenant %u seq %u (batch %" PRIu64 ") came to tenant %u seq %u", w->tenant,
                         w->seq, w->batch, w->by_tenant, w->by_seq);
}

static int compare(const struct told_command *c, const struct witnessed *w)
{
    if (c->batch != w->batch)
        return c->batch > w->batch ? 1 : -1;
    return (c->seq > w->seq) - (c->seq < w->seq);
}

/* Both lists are in the order of batch and device: side by side. */
static void judge_commands(const struct evidence *e, struct verdict *v)
{
    size_t at = 0;

    for (size_t i = 0; i < e->command_count; i++) {
        const struct told_command *c = &e->commands[i];
        for (; at < e->witnessed_count && compare(c, &e->witnessed[at]) > 0; at++)
            judge_stranger(e, &e->witnessed[at], v);
        bool seen = at < e->witnessed_count && compare(c, &e->witnessed[at]) == 0;
        judge_command(e, c, seen ? &e->witnessed[at] : NULL, v);
        at += seen;
    }
    for (; at < e->witnessed_count; at++)
        judge_stranger(e, &e->witnessed[at], v);
}

/* Every batch has as many commands as devices were accepted. */
static void judge_counts(const struct evidence *e, struct verdict *v)
{
    size_t at = 0;

    for (size_t i = 0; i < e->batch_count; i++) {
        const struct stored_batch *b = &e->batches[i];
        uint32_t n = 0;
        while (at < e->command_count && e->commands[at].batch < b->id)
            at++;
        for (; at < e->command_count && e->commands[at].batch == b->id; at++)
            n++;
        if (n != b->devices)
            verdict_complain(v, BREACH_WITNESSES_DIFFER, "batch %" PRIu64 " has %u devices and %u commands", b->id,
                             b->devices, n);
    }
}

void verdict_judge(const struct evidence *e, struct verdict *v)
{
    for (size_t i = 0; i < e->request_count; i++)
        judge_request(e, &e->requests[i], v);
    for (size_t i = 0; i < e->batch_count; i++)
        judge_batch(e, &e->batches[i], v);
    judge_twins(e, v);
    judge_counts(e, v);
    judge_commands(e, v);
    for (size_t i = 0; i < e->witnessed_count; i++)
        judge_witnessed(&e->witnessed[i], v);
}
