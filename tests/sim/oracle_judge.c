/* What has become of everything, when a seed is over. */
#include <inttypes.h>
#include <string.h>

#include "dispatcher/joiner.h"
#include "lib/store/block.h"
#include "tests/sim/caller.h"
#include "tests/sim/fault.h"
#include "tests/sim/oracle.h"
#include "tests/sim/oracle_parts.h"
#include "tests/sim/oracle_retry.h"
#include "tests/sim/redis_model.h"

#define THERE_US (12 * S)

/* What PostgreSQL's blocks say of a command. */
static uint8_t stored_byte(const struct row_batch *row, const struct device *d)
{
    for (size_t i = 0; i < row->block_count; i++) {
        const struct row_block *k = &row->blocks[i];
        unsigned at = (unsigned)slot_of(d->seq) - (unsigned)k->first;
        if (k->block == (int32_t)block_of(d->seq) && slot_of(d->seq) >= k->first && at < k->state_len)
            return k->states[at];
    }
    return 0;
}

bool oracle_quiet(const struct world *w)
{
    const struct pg_model *m = w->pg;
    for (size_t i = 0; i < m->batches.count; i++)
        if (!m->batches.v[i]->closed_ms)
            return false;
    return m->canceling.count == 0;
}

/* From when all was put right long enough before the batch's end on. */
static bool was_there(const struct world *w, const struct row_batch *row, const struct device *d)
{
    const struct row_control *k = &row->control;
    const struct seen_batch *b = oracle_seen((struct world *)(uintptr_t)w, (uint64_t)row->id);
    int64_t end_us = ((k->deliver_by_ms ? k->deliver_by_ms : row->expires_ms) - WORLD_EPOCH_MS) * MS;
    int64_t begin_us[] = {(k->not_before_ms ? k->not_before_ms - WORLD_EPOCH_MS : 0) * MS, b->freed_us,
                          b->commands[d->index].addressed_us, w->oracle->opened_us};
    int64_t healed_us = faults_end_us(w);
    struct rate rate = oracle_rate(row);
    for (size_t i = 0; i < sizeof begin_us / sizeof *begin_us; i++)
        healed_us = begin_us[i] > healed_us ? begin_us[i] : healed_us;
    if (rate.first) /* the last one's turn, by looks five times a second */
        end_us -= (int64_t)row->device_count * S / rate.first * 3 / 2;
    if (k->paused || k->wave + 1 < k->waves || w->oracle->held_us[0] || w->oracle->held_us[d->tenant])
        return false;
    return d->connected && !d->deleted && !row->cancel_requested_ms && d->connected_us < healed_us + THERE_US &&
           end_us > healed_us + 2 * THERE_US + SKEW_MS * MS;
}

/* When a command may end so, at the earliest. */
static int64_t end_of(const struct row_batch *row, const struct command *c, enum command_state state)
{
    const struct row_control *k = &row->control;
    int64_t over_ms = WORLD_EPOCH_MS + c->sent_us / 1000 + k->execution_ms;
    if (state == STATE_EXPIRED && k->deliver_by_ms)
        return k->deliver_by_ms;
    return state == STATE_TIMED_OUT && k->execution_ms && over_ms < row->expires_ms ? over_ms : row->expires_ms;
}

/* It has broken its device's connection so often, and thus ends as FAILED. */
static bool may_be_quarantined(const struct row_batch *row, const struct device *d, enum command_state state)
{
    int64_t after = fault_plan(d->world)->quarantine_after;
    return after && device_broke(d, (uint64_t)row->id) >= after && state == STATE_FAILED;
}

/* The device did what its state says; or it was to be tried again when the batch ended. */
static bool was_done(const struct row_batch *row, const struct command *c, enum command_state state)
{
    const int no_outcome = 1 << STATE_TIMED_OUT;
    return c->tries.outcomes >> (state - OUTCOME_STATE) & 1 ||
           (state == STATE_FAILED && (retry_was_tried(row, c) || row->control.retry_after & no_outcome));
}

/* That it was sent only Redis and the worker knew for a while: the one is lost, the other could not say so. Or Redis
 * has lost that the worker had it, whose clock is behind the leader's. */
static bool may_be_unknown(const struct world *w, const struct command *c, enum command_state state)
{
    bool behind = state == STATE_EXPIRED && fault_plan(w)->skews;
    return w->oracle->redis_lost_us && (behind || c->by->unwell_us >= c->got_us);
}

static void judge_command(struct world *w, const struct row_batch *row, const struct device *d)
{
    const struct command *c = &oracle_seen(w, (uint64_t)row->id)->commands[d->index];
    enum command_state state = state_of(stored_byte(row, d));
    const char *name = state_name(state);
    if (!state_is_terminal(state))
        violated(w, "batch %" PRId64 " is closed and %s is %s", row->id, d->id, name);
    else if (state <= STATE_REJECTED && !was_done(row, c, state) && !may_be_quarantined(row, d, state))
        violated(w, "batch %" PRId64 " of %s is %s, and the device did %d", row->id, d->id, name, c->executed);
    /* What waited when the batch ended has failed; Redis, lost, may have had it sent once more than it was to be. */
    else if (c->acknowledged && (int)state != c->acknowledged + OUTCOME_STATE &&
             !(retry_was_tried(row, c) && w->oracle->redis_lost_us) &&
             !(state > STATE_REJECTED && c->ended_us && c->ended_us < c->acknowledged_us) &&
             !(state == STATE_FAILED && row->control.retry_after && c->over_us < c->acknowledged_us))
        violated(w, "batch %" PRId64 " of %s is %s, and the device has PUBACK of %d at %.6f", row->id, d->id, name,
                 c->acknowledged, (double)(c->acknowledged_us - 1000 * S) / 1e6);
    else if (c->got && !d->deleted && !may_be_unknown(w, c, state) && !retry_was_tried(row, c) &&
             !(row->control.retry_after >> STATE_TIMED_OUT & 1) &&
             (state == STATE_EXPIRED || state == STATE_CANCELED || state == STATE_SUPERSEDED))
        violated(w, "batch %" PRId64 " of %s is %s, and the device has got it", row->id, d->id, name);
    else if (state == STATE_EXPIRED && was_there(w, row, d) && !retry_was_tried(row, c))
        violated(w, "batch %" PRId64 " of %s is %s, and the device was there all the time", row->id, d->id, name);
    else if (state == STATE_EXPIRED && retry_came_back_in_time(w, c))
        violated(w, "batch %" PRId64 " of %s is EXPIRED, was canceled for it, and it had come back", row->id, d->id);
    else if (state == STATE_CANCELED && !row->cancel_requested_ms && !d->deleted && !c->some_request)
        violated(w, "batch %" PRId64 " of %s is CANCELED, and nobody asked for it", row->id, d->id);
    else if (state == STATE_SUPERSEDED && !c->superseded)
        violated(w, "batch %" PRId64 " of %s is SUPERSEDED, and nothing takes its place", row->id, d->id);
    else if ((state == STATE_EXPIRED || state == STATE_TIMED_OUT) && row->closed_ms + SKEW_MS < end_of(row, c, state))
        violated(w, "batch %" PRId64 " of %s is %s before its time", row->id, d->id, name);
    else
        retry_judge(w, row, d, stored_byte(row, d), was_there(w, row, d));
}

/* A newer one with its key is for the device, or would have been: it ended before. */
static bool has_newer(const struct world *w, const struct row_batch *row, const struct device *d)
{
    const struct pg_model *m = w->pg;
    for (size_t i = 0; i < m->batches.count; i++) {
        const struct row_batch *newer = m->batches.v[i];
        if (newer->id > row->id && newer->tenant == row->tenant && strcmp(newer->control.key, row->control.key) == 0 &&
            (oracle_addresses(newer, d) || newer->cancel_requested_ms ||
             newer->closed_ms + SKEW_MS > newer->expires_ms))
            return true;
    }
    return false;
}

/* From when on the device surely had room for one command more. */
static int64_t room_us(struct world *w, const struct row_batch *row, const struct device *d)
{
    int64_t us = 0;
    for (size_t i = 0; i < w->pg->batches.count && w->mailbox_max; i++) {
        const struct row_batch *other = w->pg->batches.v[i];
        const struct seen_batch *b = oracle_seen(w, (uint64_t)other->id);
        if (other != row && b->closed_us > us && oracle_addresses(other, d))
            us = b->closed_us;
    }
    return us;
}

/* Who is meant by a dynamic batch joins it, also when the hint that told of him was lost. */
static void judge_joining(struct world *w, const struct row_batch *row, const struct device *d)
{
    const struct seen_batch *b = oracle_seen(w, (uint64_t)row->id);
    int64_t since_us = d->meant_us, until_us = (row->expires_ms - WORLD_EPOCH_MS) * MS - SKEW_MS * MS;
    since_us = since_us > b->committed_us ? since_us : b->committed_us;
    since_us = since_us > faults_end_us(w) ? since_us : faults_end_us(w);
    since_us = since_us > room_us(w, row, d) ? since_us : room_us(w, row, d);
    until_us = b->sealed_us && b->sealed_us < until_us ? b->sealed_us : until_us;
    if (!row->control.target || (int32_t)d->tenant != row->tenant || d->deleted)
        return;
    if (b->commands[d->index].barred && !has_newer(w, row, d))
        violated(w, "device %s may not join batch %" PRId64 " for the sake of none", d->id, row->id);
    if (d->meant_us && until_us > since_us + JOIN_INTERVAL_MS * MS + THERE_US && !b->commands[d->index].barred)
        violated(w, "device %s never joins batch %" PRId64, d->id, row->id);
}

static void judge_batch(struct world *w, const struct row_batch *row)
{
    uint32_t counts[STATE_COUNT] = {0};
    if (!row->closed_ms) {
        violated(w, "batch %" PRId64 " hangs", row->id);
        return;
    }
    for (int i = 0; i < w->device_count; i++) {
        const struct device *d = &w->devices[i];
        if (!oracle_addresses(row, d)) {
            judge_joining(w, row, d);
            continue;
        }
        judge_command(w, row, d);
        counts[state_of(stored_byte(row, d)) % STATE_COUNT]++;
    }
    if (row->control.acted && !counts[STATE_FAILED] && !counts[STATE_REJECTED] && !counts[STATE_TIMED_OUT])
        violated(w, "batch %" PRId64 " was stopped, and nothing went wrong", row->id);
    for (int s = 1; s < STATE_COUNT; s++)
        if ((uint32_t)row->counts[s] != counts[s])
            violated(w, "batch %" PRId64 " counts %d %s of %u", row->id, row->counts[s],
                     state_name((enum command_state)s), counts[s]);
}

/* Keys of batches that are over. */
static void judge_redis(struct world *w)
{
    static const char *const kinds[] = {":state:", ":open", "batch:", "cancel:", "confirm:"};
    for (size_t i = 0; i < 256; i++)
        for (const struct value *v = w->redis_model->buckets[i]; v; v = v->next)
            for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
                if (strstr(v->key, kinds[k]) && !v->expires_ms && strcmp(v->key, "confirm:0") != 0)
                    violated(w, "Redis still has %s", v->key);
}

void oracle_judge(struct world *w)
{
    const struct pg_model *m = w->pg;
    if (!caller_done(w))
        violated(w, "a call is never answered");
    for (size_t i = 0; i < BATCHES_MAX; i++)
        if (w->oracle->batches[i].answered && !pg_model_batch(w->pg, (int64_t)i))
            violated(w, "batch %zu was accepted and is gone", i);
    for (size_t i = 0; i < m->batches.count; i++)
        judge_batch(w, m->batches.v[i]);
    judge_redis(w);
    if (m->canceling.count)
        violated(w, "device %d/%d stays among those whose commands are to end", m->canceling.v[0].tenant,
                 m->canceling.v[0].seq);
    for (size_t i = 0; i < m->batches.count; i++)
        if (m->batches.v[i]->control.handled != m->batches.v[i]->control.request)
            violated(w, "what was asked for of batch %" PRId64 " is not carried out", m->batches.v[i]->id);
    if (m->cancels.count || m->keys.count)
        violated(w, "%zu rows of cancels and %zu of keys stay", m->cancels.count, m->keys.count);
    for (size_t i = 0; i < m->parts.count; i++)
        if (m->parts.v[i].kind != PART_JOINED && m->parts.v[i].kind != PART_CANARY)
            violated(w, "a part of batch %" PRId64 " stays", m->parts.v[i].batch);
    for (size_t i = 0; i < m->log.count; i++)
        if (!m->log.v[i].late)
            violated(w, "row %" PRId64 " of stream %" PRId64 " stays in the log", m->log.v[i].n, m->log.v[i].stream);
}
