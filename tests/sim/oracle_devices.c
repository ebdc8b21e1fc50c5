/* What devices get: that it is for them, in time, in order, and not held. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/store/block.h"
#include "muster/v1/steering.pb-c.h"
#include "tests/sim/fault.h"
#include "tests/sim/oracle.h"
#include "tests/sim/oracle_parts.h"
#include "tests/sim/oracle_retry.h"
#include "tests/sim/redis_model.h"

#define LOST_US (5 * S)

bool oracle_addresses(const struct row_batch *row, const struct device *d)
{
    const struct row_block *k = NULL;
    for (size_t i = 0; row && i < row->block_count; i++)
        if (row->blocks[i].block == (int32_t)block_of(d->seq))
            k = &row->blocks[i];
    if (!k || row->tenant != (int32_t)d->tenant)
        return false;
    unsigned at = (unsigned)slot_of(d->seq) - (unsigned)k->first;
    return slot_of(d->seq) >= k->first && at < 8 * k->target_len && k->targets[at / 8] >> at % 8 & 1;
}

static void check_order(struct world *w, const struct device *d, const struct row_batch *row, int64_t sent_us)
{
    const struct pg_model *m = w->pg;
    /* A Redis that has lost all gets new batches before it is filled with the others again; who can't take them then
     * does so later. */
    int64_t lost_us = w->oracle->redis_lost_us;
    if (lost_us && d->worker->unwell_since_us < lost_us + LOST_US && d->worker->unwell_us > lost_us)
        lost_us = d->worker->unwell_us;
    if (lost_us && sent_us - lost_us < LOST_US)
        return;
    for (size_t i = 0; i < m->batches.count && m->batches.v[i]->id < row->id; i++) {
        const struct row_batch *earlier = m->batches.v[i];
        struct seen_batch *b = oracle_seen(w, (uint64_t)earlier->id);
        const struct command *c = &b->commands[d->index];
        if (earlier->control.is || w->oracle->gates || earlier->priority != row->priority || c->first_us ||
            c->ended_us || earlier->closed_ms || d->deleted || !oracle_addresses(earlier, d) ||
            earlier->cancel_requested_ms || world_wall_ms(w) + SKEW_MS > earlier->expires_ms)
            continue;
        if (b->answered_us && b->answered_us < oracle_seen(w, (uint64_t)row->id)->committed_us - 1 * S)
            violated(w, "device %s gets batch %" PRId64 " before %" PRId64, d->id, row->id, earlier->id);
    }
}

/* What takes the place of others goes when nobody can send these any more; what may have been sent before goes on. */
static void check_newer(struct world *w, const struct device *d, const struct row_batch *row, int64_t sent_us)
{
    const struct pg_model *m = w->pg;
    int64_t noted_us = oracle_seen(w, (uint64_t)row->id)->commands[d->index].noted_us;
    for (size_t i = 0; *row->control.key && i < m->batches.count; i++) {
        const struct row_batch *newer = m->batches.v[i];
        const struct command *c = &oracle_seen(w, (uint64_t)newer->id)->commands[d->index];
        if (newer->id > row->id && newer->tenant == row->tenant && strcmp(newer->control.key, row->control.key) == 0 &&
            c->first_us && c->sent_us < sent_us && (!noted_us || noted_us > c->sent_us))
            violated(w, "device %s is sent %" PRId64 " after %" PRId64 ", which takes its place", d->id, row->id,
                     newer->id);
    }
}

/* Delivered on this connection and not answered, but for those that are over by now, those that a worker may take to be
 * tried again since Redis, lost, has forgotten that they were sent once more, and what is tried again anyway and comes
 * by a late hint under an attempt that was answered. */
static int in_flight(const struct world *w, const struct device *d)
{
    int n = 0;
    for (size_t i = 0; i < d->task_count; i++) {
        const struct row_batch *row = pg_model_batch(w->pg, (int64_t)d->tasks[i].batch);
        const struct seen_batch *b = &w->oracle->batches[d->tasks[i].batch];
        bool late = d->tasks[i].attempt <= b->commands[d->index].tries.done;
        bool forgotten = row && row->control.retry_after && (late || w->oracle->redis_lost_us);
        n += row && !forgotten && !row->control.execution_ms && !b->commands[d->index].ended_us &&
             row->expires_ms > world_wall_ms(w) + SKEW_MS && d->tasks[i].connection == d->connections &&
             !d->tasks[i].answered;
    }
    return n;
}

bool oracle_is_in_part(const struct world *w, const struct row_batch *row, int16_t kind, const struct device *d)
{
    const struct row_part *p = pg_model_part(w->pg, row->id, kind, block_of(d->seq), false);
    return p && p->slots[slot_of(d->seq) / 8] >> slot_of(d->seq) % 8 & 1;
}

/* Devices that the batch addressed from the beginning and that were registered before this one. */
static uint32_t rank_of(const struct world *w, const struct row_batch *row, const struct device *d)
{
    uint32_t rank = 0;
    for (int i = 0; i < w->device_count; i++) {
        const struct device *other = &w->devices[i];
        rank += other->seq < d->seq && oracle_addresses(row, other) && !oracle_is_in_part(w, row, PART_JOINED, other);
    }
    return rank;
}

/* The first wave has canaries, or so many devices in the order of registration; who has joined comes with the last. */
static bool is_out_to(const struct world *w, const struct row_batch *row, const struct device *d)
{
    if (row->control.waves < 2 || row->control.wave > 0)
        return true;
    Muster__V1__Steering *s = muster__v1__steering__unpack(NULL, row->control.steering_len, row->control.steering);
    if (!s || s->n_waves < 1)
        abort();
    bool first = s->waves[0]->size_case == MUSTER__V1__WAVE__SIZE_GROUP ? oracle_is_in_part(w, row, PART_CANARY, d)
                                                                        : rank_of(w, row, d) < s->waves[0]->devices;
    muster__v1__steering__free_unpacked(s, NULL);
    return first && !oracle_is_in_part(w, row, PART_JOINED, d);
}

struct rate oracle_rate(const struct row_batch *row)
{
    struct rate rate = {0};
    if (!row->control.rollout)
        return rate;
    Muster__V1__Steering *s = muster__v1__steering__unpack(NULL, row->control.steering_len, row->control.steering);
    if (!s)
        abort();
    if (s->rate)
        rate = (struct rate){s->rate->devices, s->rate->growth ? s->rate->growth->maximum : s->rate->devices};
    muster__v1__steering__free_unpacked(s, NULL);
    return rate;
}

/* Who is sent to has had his turn, and nobody had it too early: evenly, one at once, and one for each other leader. */
static void check_rate(struct world *w, const struct device *d, const struct row_batch *row)
{
    struct rate rate = oracle_rate(row);
    uint32_t turns = 0;
    if (!rate.first || row->closed_ms) /* then it is forgotten who had one */
        return;
    for (size_t i = 0; i < w->pg->parts.count; i++) {
        const struct row_part *p = &w->pg->parts.v[i];
        for (unsigned slot = 0; p->batch == row->id && p->kind == PART_TURN && slot < BLOCK_SLOTS; slot++)
            turns += p->slots[slot / 8] >> slot % 8 & 1;
    }
    double s = (double)(w->now_us - oracle_seen(w, (uint64_t)row->id)->committed_us) / 1e6;
    if (!oracle_is_in_part(w, row, PART_TURN, d))
        violated(w, "device %s is sent %" PRId64 " and has not had its turn", d->id, row->id);
    if (turns > rate.most * s + 1 + w->oracle->leaders)
        violated(w, "%u devices have had their turn of %" PRId64 " within %.3f s", turns, row->id, s);
}

/* What was asked for and confirmed holds: until something else is asked for. */
static void check_steering(struct world *w, const struct device *d, const struct row_batch *row, unsigned attempt,
                           int64_t sent_us, int64_t sent_ms)
{
    const struct seen_batch *b = oracle_seen(w, (uint64_t)row->id);
    const struct command *c = &b->commands[d->index];
    const struct row_control *k = &row->control;
    int64_t early_ms = k->not_before_ms - (WORLD_EPOCH_MS + sent_us / 1000) - (fault_plan(w)->skews ? SKEW_MS : 0);
    if (b->paused_us && sent_us > b->paused_us)
        violated(w, "device %s is sent %" PRId64 " %.3f s after its pause was confirmed", d->id, row->id,
                 (double)(sent_us - b->paused_us) / 1e6);
    /* What had been sent, or may have been, goes on to its own end: what came back since has come to it. */
    if (c->canceled_us && sent_us > c->canceled_us &&
        (c->ended_as == STATE_CANCELED || c->ended_as == STATE_SUPERSEDED || retry_came_back(w, c, attempt, sent_us)))
        violated(w, "device %s is sent %" PRId64 " %.3f s after it was %s for it", d->id, row->id,
                 (double)(sent_us - c->canceled_us) / 1e6, c->superseded ? "superseded" : "canceled");
    for (uint32_t t = 0; t <= d->tenant; t += d->tenant)
        if (w->oracle->held_us[t] && sent_us > w->oracle->held_us[t])
            violated(w, "device %s is sent %" PRId64 " %.3f s after tenant %u was held", d->id, row->id,
                     (double)(sent_us - w->oracle->held_us[t]) / 1e6, t);
    if (early_ms > 0)
        violated(w, "device %s is sent %" PRId64 " %lld ms too early", d->id, row->id, (long long)early_ms);
    if (k->deliver_by_ms && attempt == 1 && sent_ms > k->deliver_by_ms + TURN_MS)
        violated(w, "device %s is sent %" PRId64 " %lld ms too late", d->id, row->id,
                 (long long)(sent_ms - k->deliver_by_ms));
    if (!is_out_to(w, row, d))
        violated(w, "device %s is sent %" PRId64 ", and is not in its first wave", d->id, row->id);
    check_rate(w, d, row);
}

/* All had ended before the cancel was confirmed. One that was closed by expiry is called canceled then: a worker whose
 * clock is behind may still think otherwise. And a lost Redis may have brought back what the device had done before. */
static bool is_known_to_be_over(const struct world *w, const struct seen_batch *b, const struct command *c)
{
    bool done = c->acknowledged && c->acknowledged_us < b->canceled_us;
    return b->closed_us == b->canceled_us && (fault_plan(w)->skews || (done && w->oracle->redis_lost_us));
}

void oracle_delivered(struct world *w, struct device *d, uint64_t batch, unsigned attempt, int64_t sent_us,
                      int64_t sent_ms)
{
    const struct row_batch *row = pg_model_batch(w->pg, (int64_t)batch);
    if (!row || !oracle_addresses(row, d)) {
        violated(w, "device %s gets %" PRIu64 ", which is not for it", d->id, batch);
        return;
    }
    struct seen_batch *b = oracle_seen(w, batch);
    if (in_flight(w, d) > fault_plan(w)->in_flight)
        violated(w, "device %s has %d commands in flight", d->id, in_flight(w, d));
    if (attempt < 1 || attempt > STATE_ATTEMPTS_MAX)
        violated(w, "device %s gets attempt %u", d->id, attempt);
    if (sent_ms > row->expires_ms + TURN_MS)
        violated(w, "device %s is sent %" PRIu64 " %lld ms after its expiry", d->id, batch,
                 (long long)(sent_ms - row->expires_ms));
    if (b->canceled_us && sent_us > b->canceled_us && !is_known_to_be_over(w, b, &b->commands[d->index]))
        violated(w, "device %s is sent %" PRIu64 " %.3f s after its cancel was confirmed", d->id, batch,
                 (double)(sent_us - b->canceled_us) / 1e6);
    check_steering(w, d, row, attempt, sent_us, sent_ms);
    retry_delivered(w, d, row, attempt, sent_us);
    /* One that crosses the device's "not now" on the way is taken back with it. */
    bool crossed = false;
    for (size_t i = 0; i < d->ack_count; i++)
        crossed = crossed || (d->acks[i].batch == batch && d->acks[i].outcome + OUTCOME_STATE > STATE_REJECTED);
    b->commands[d->index].got = !crossed;
    b->commands[d->index].got_us = sent_us;
    b->commands[d->index].by = d->worker;
    if (!b->commands[d->index].first_us) {
        check_order(w, d, row, sent_us);
        if (attempt == 1)
            check_newer(w, d, row, sent_us);
        b->commands[d->index].first_us = w->now_us;
        b->commands[d->index].sent_us = sent_us;
    }
}

void oracle_put_off(struct world *w, const struct device *d, uint64_t batch)
{
    oracle_seen(w, batch)->commands[d->index].got = false;
    retry_put_off(w, d, batch);
}

void oracle_executed(struct world *w, struct device *d, uint64_t batch, unsigned attempt, uint8_t outcome)
{
    retry_executed(w, d, pg_model_batch(w->pg, (int64_t)batch), attempt, outcome);
    oracle_seen(w, batch)->commands[d->index].executed = outcome;
}

void oracle_acknowledged(struct world *w, struct device *d, uint64_t batch, uint8_t outcome)
{
    retry_acknowledged(w, d, pg_model_batch(w->pg, (int64_t)batch), outcome);
}
