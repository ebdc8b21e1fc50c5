#include "tests/sim/oracle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/store/block.h"
#include "muster/v1/steering.pb-c.h"
#include "proto/ack_log.h"
#include "tests/sim/caller.h"
#include "tests/sim/device.h"
#include "tests/sim/fault.h"
#include "tests/sim/pg_model.h"
#include "tests/sim/redis_model.h"

#define BATCHES_MAX   256
#define SKEW_MS       12000 /* clocks of processes differ by so much, at most */
#define LOST_US       (5 * S)
#define TURN_MS       5 /* from a look at the clock to the byte on the wire */
#define THERE_US      (12 * S)
#define OUTCOME_STATE 4 /* muster.v1.Outcome n is state 4 + n */

/* What was seen of one command. */
struct command {
    int64_t first_us;     /* delivered first; 0: never */
    int64_t sent_us;      /* and sent */
    int64_t ended_us;     /* a store first said that it has ended without the device */
    uint8_t ended_as;     /* in that state */
    bool got;             /* delivered, and not put off since */
    int32_t some_request; /* it was asked that it end, with this request of its batch; 0: not */
    bool superseded;      /* by that, or by one behind it */
    int64_t canceled_us;  /* that is carried out */
    uint8_t executed;     /* outcome, 0: never */
    uint8_t acknowledged; /* outcome with PUBACK */
    int64_t acknowledged_us;
};

struct seen_block {
    uint32_t version;
    uint8_t *states;
    size_t len;
};

struct seen_batch {
    struct command *commands; /* one per device */
    bool answered;
    int64_t answered_us, committed_us, canceled_us, closed_us;
    int64_t paused_us; /* it is, and that is carried out; 0: not */
    int32_t request, wave;
    int64_t freed_us; /* when it was last let go on: resumed, or its next wave released */
    struct seen_block *blocks;
};

struct oracle {
    struct seen_batch batches[BATCHES_MAX];
    size_t batch_count; /* of PostgreSQL's, seen */
    bool reachable[STATE_COUNT][STATE_COUNT];
    const struct process *who; /* of what is being done to Redis; NULL: nobody any more */
    struct slice what;
    int64_t redis_lost_us;
    int64_t held_us[DEVICE_TENANTS + 1]; /* of all (0) and of each tenant: held, and that is confirmed; 0: not */
    int64_t opened_us;                   /* when something was released last */
    bool gates;                          /* something was ever held */
    int64_t epoch;                       /* of the lease, and how many there were */
    uint32_t leaders;
};

/* --- life --------------------------------------------------------------------------------------------------------- */

/* One script may make several events happen to a command. */
static void find_reachable(struct oracle *o)
{
    for (int a = 0; a < STATE_COUNT; a++) {
        o->reachable[a][a] = true;
        for (int e = 0; e < EVENT_COUNT; e++)
            if (state_next((enum command_state)a, (enum command_event)e))
                o->reachable[a][state_next((enum command_state)a, (enum command_event)e)] = true;
    }
    for (int via = 0; via < STATE_COUNT; via++)
        for (int a = 0; a < STATE_COUNT; a++)
            for (int b = 0; b < STATE_COUNT; b++)
                if (o->reachable[a][via] && o->reachable[via][b])
                    o->reachable[a][b] = true;
}

void oracle_init(struct world *w)
{
    w->oracle = calloc(1, sizeof *w->oracle);
    if (!w->oracle)
        abort();
    find_reachable(w->oracle);
}

void oracle_free(struct world *w)
{
    for (size_t i = 0; i < BATCHES_MAX; i++) {
        struct seen_batch *b = &w->oracle->batches[i];
        free(b->commands);
        for (size_t k = 0; b->blocks && k < 8; k++)
            free(b->blocks[k].states);
        free(b->blocks);
    }
    free(w->oracle);
    w->oracle = NULL;
}

static struct seen_batch *seen(struct world *w, uint64_t batch)
{
    if (batch >= BATCHES_MAX)
        abort(); /* more than a seed makes */
    struct seen_batch *b = &w->oracle->batches[batch];
    if (!b->commands) {
        b->commands = calloc((size_t)w->device_count, sizeof *b->commands);
        b->blocks = calloc(8, sizeof *b->blocks);
        if (!b->commands || !b->blocks)
            abort();
    }
    return b;
}

static struct device *device_at(struct world *w, uint32_t tenant, uint32_t seq)
{
    for (int i = 0; i < w->device_count; i++)
        if (w->devices[i].tenant == tenant && w->devices[i].seq == seq)
            return &w->devices[i];
    return NULL;
}

/* A store says that the command has ended without the device. */
static void ended(struct world *w, uint64_t batch, uint32_t tenant, uint32_t seq, uint8_t byte)
{
    struct device *d = device_at(w, tenant, seq);
    struct command *c = d && batch < BATCHES_MAX ? &seen(w, batch)->commands[d->index] : NULL;
    if (!c || c->ended_us)
        return;
    c->ended_us = w->now_us;
    c->ended_as = (uint8_t)state_of(byte);
}

/* --- Redis -------------------------------------------------------------------------------------------------------- */

void oracle_actor(struct world *w, const struct process *who, struct slice what)
{
    w->oracle->who = who;
    w->oracle->what = what;
}

/* "w1's record", in one of a few static buffers. */
static const char *actor(const struct world *w)
{
    static char text[48];
    snprintf(text, sizeof text, "%s's %.*s", w->oracle->who ? w->oracle->who->name : "ghost", (int)w->oracle->what.len,
             (const char *)w->oracle->what.data);
    return text;
}

static void check_byte(struct world *w, uint8_t before, uint8_t after, uint64_t batch, unsigned tenant, uint32_t seq)
{
    enum command_state a = state_of(before), b = state_of(after);
    if (before == after)
        return;
    trace(w, "  %" PRIu64 " of %u/%u: %s -> %s by %s", batch, tenant, seq, state_name(a), state_name(b), actor(w));
    if (a >= STATE_COUNT || b >= STATE_COUNT || !w->oracle->reachable[a][b])
        violated(w, "%s makes %" PRIu64 " of %u/%u %s that was %s", actor(w), batch, tenant, seq, state_name(b),
                 state_name(a));
    /* What was put off is not counted, also when its outcome comes in the same script. */
    else if (state_attempts(after) + (a == STATE_SENT || b == STATE_QUEUED) < state_attempts(before))
        violated(w, "%s forgets attempts of %" PRIu64 " of %u/%u", actor(w), batch, tenant, seq);
    if (b > STATE_REJECTED)
        ended(w, batch, tenant, seq, after);
}

void oracle_state(struct world *w, struct slice key, struct slice before, struct slice after)
{
    struct state_string a, b;
    unsigned tenant, block;
    unsigned long long batch;
    char text[64];
    snprintf(text, sizeof text, "%.*s", (int)key.len, (const char *)key.data);
    if (sscanf(text, "{t%u.b%u}:state:%llu", &tenant, &block, &batch) != 3)
        return;
    if (after.len == 0) /* the batch is over */
        return;
    if (!state_string_parse(&b, after)) {
        violated(w, "%s makes %s unreadable", actor(w), text);
        return;
    }
    if (before.len == 0) {
        for (unsigned slot = b.first; slot < (unsigned)b.first + b.count; slot++)
            if (state_of(state_string_get(&b, slot)) > STATE_REJECTED)
                ended(w, batch, tenant, block_seq(block, slot), state_string_get(&b, slot));
        return;
    }
    if (!state_string_parse(&a, before))
        return;
    unsigned from = a.first < b.first ? a.first : b.first;
    unsigned end_a = (unsigned)a.first + a.count, end_b = (unsigned)b.first + b.count,
             to = end_a > end_b ? end_a : end_b;
    for (unsigned slot = from; slot < to; slot++)
        if (state_string_get(&a, slot) && state_string_get(&a, slot) != state_string_get(&b, slot))
            check_byte(w, state_string_get(&a, slot), state_string_get(&b, slot), batch, tenant,
                       block_seq(block, slot));
}

void oracle_redis_lost(struct world *w)
{
    w->oracle->redis_lost_us = w->now_us;
}

/* --- PostgreSQL -------------------------------------------------------------------------------------------------- */

static void look_at_block(struct world *w, const struct row_batch *row, const struct row_block *k,
                          struct seen_block *before)
{
    if (k->version == before->version)
        return;
    before->version = k->version;
    for (size_t i = 0; i < k->state_len; i++) {
        uint32_t seq = block_seq((uint32_t)k->block, (unsigned)k->first + (unsigned)i);
        uint8_t old = before->states ? before->states[i] : 0;
        if (state_is_terminal(state_of(old)) && state_of(old) != state_of(k->states[i]))
            violated(w, "PostgreSQL: batch %" PRId64 " of %d/%u was %s and becomes %s", row->id, row->tenant, seq,
                     state_name(state_of(old)), state_name(state_of(k->states[i])));
        if (state_of(k->states[i]) > STATE_REJECTED)
            ended(w, (uint64_t)row->id, (uint32_t)row->tenant, seq, k->states[i]);
    }
    free(before->states);
    before->states = malloc(k->state_len + 1);
    if (!before->states)
        abort();
    memcpy(before->states, k->states, k->state_len);
}

static void look_at_log(struct world *w)
{
    const struct pg_model *m = w->pg;
    for (size_t i = 0; i < m->log.count; i++) {
        struct slice s = {m->log.v[i].entries, m->log.v[i].len};
        struct ack_log_group g;
        if (m->log.v[i].looked)
            continue;
        w->pg->log.v[i].looked = true;
        while (ack_log_next(&s, &g) == 1)
            for (uint32_t k = 0; k < g.count; k++)
                if (state_of(ack_log_state(&g, k)) > STATE_REJECTED)
                    ended(w, g.batch, g.tenant, ack_log_seq(&g, k), ack_log_state(&g, k));
    }
}

/* What is asked for of some of its commands, and whether that is carried out. */
static void look_at_cancels(struct world *w, const struct row_batch *row, struct seen_batch *b)
{
    const struct pg_model *m = w->pg;
    for (size_t i = 0; i < m->cancels.count; i++) {
        const struct row_cancel_some *x = &m->cancels.v[i];
        for (int k = 0; x->batch == row->id && k < w->device_count; k++) {
            const struct device *d = &w->devices[k];
            unsigned slot = slot_of(d->seq);
            struct command *c = &b->commands[k];
            if ((int32_t)d->tenant != row->tenant || (int32_t)block_of(d->seq) != x->block ||
                !(x->slots[slot / 8] >> slot % 8 & 1))
                continue;
            c->some_request = c->some_request ? c->some_request : x->request;
            c->superseded = c->superseded || x->superseded;
        }
    }
    for (int k = 0; k < w->device_count; k++) {
        struct command *c = &b->commands[k];
        if (c->some_request && !c->canceled_us && row->control.handled >= c->some_request)
            c->canceled_us = w->now_us;
    }
}

static void look_at_control(struct world *w, const struct row_batch *row, struct seen_batch *b)
{
    const struct row_control *k = &row->control;
    if (!k->is)
        return;
    if (k->paused && !b->paused_us && k->handled == k->request) {
        b->paused_us = w->now_us;
        trace(w, "batch %" PRId64 " is paused", row->id);
    }
    if (!k->paused && b->paused_us)
        b->paused_us = 0;
    if (!k->paused && (k->request != b->request || k->wave != b->wave))
        b->freed_us = w->now_us;
    b->request = k->request;
    b->wave = k->wave;
    look_at_cancels(w, row, b);
}

static void look_at_gates(struct world *w)
{
    struct oracle *o = w->oracle;
    for (int tenant = 0; tenant <= DEVICE_TENANTS; tenant++) {
        const struct row_gate *g = NULL;
        for (size_t i = 0; i < w->pg->gates.count; i++)
            if (w->pg->gates.v[i].tenant == tenant)
                g = &w->pg->gates.v[i];
        o->gates = o->gates || g;
        if (g && g->closed && g->confirmed_ms && !o->held_us[tenant]) {
            o->held_us[tenant] = w->now_us;
            trace(w, "tenant %d is held", tenant);
        } else if ((!g || !g->closed) && o->held_us[tenant])
            o->held_us[tenant] = 0;
        if (g)
            o->opened_us = w->now_us; /* until it is settled */
    }
}

void oracle_committed(struct world *w)
{
    const struct pg_model *m = w->pg;
    look_at_log(w);
    look_at_gates(w);
    if (m->lease.epoch != w->oracle->epoch) {
        w->oracle->epoch = m->lease.epoch;
        w->oracle->leaders++;
    }
    for (size_t i = 0; i < m->batches.count; i++) {
        const struct row_batch *row = m->batches.v[i];
        struct seen_batch *b = seen(w, (uint64_t)row->id);
        if (b->closed_us)
            continue;
        if (!b->committed_us)
            b->committed_us = w->now_us;
        if (row->canceled_ms && !b->canceled_us) {
            b->canceled_us = w->now_us;
            trace(w, "batch %" PRId64 " is canceled", row->id);
        }
        for (size_t k = 0; k < row->block_count && k < 8; k++)
            look_at_block(w, row, &row->blocks[k], &b->blocks[k]);
        look_at_control(w, row, b);
        if (row->closed_ms) {
            b->closed_us = w->now_us;
            trace(w, "batch %" PRId64 " is closed", row->id);
        }
    }
}

void oracle_accepted(struct world *w, uint64_t batch)
{
    struct seen_batch *b = seen(w, batch);
    b->answered = true;
    b->answered_us = w->now_us;
    if (!pg_model_batch(w->pg, (int64_t)batch))
        violated(w, "batch %" PRIu64 " was accepted and is not there", batch);
}

/* --- devices ------------------------------------------------------------------------------------------------------ */

static bool addresses(const struct row_batch *row, const struct device *d)
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

/* Whether Redis holds what it was filled with. */
static bool redis_filled(const struct world *w)
{
    static const uint8_t key[] = "muster:generation";
    struct slice now = model_text(model_find(w->redis_model, (struct slice){key, sizeof key - 1}));
    return slice_is(now, w->redis_model->run_id);
}

static void check_order(struct world *w, const struct device *d, const struct row_batch *row)
{
    const struct pg_model *m = w->pg;
    /* A Redis that has lost all gets new batches before it is filled with the others again. */
    if (!redis_filled(w))
        w->oracle->redis_lost_us = w->now_us;
    if (w->oracle->redis_lost_us && w->now_us - w->oracle->redis_lost_us < LOST_US)
        return;
    for (size_t i = 0; i < m->batches.count && m->batches.v[i]->id < row->id; i++) {
        const struct row_batch *earlier = m->batches.v[i];
        struct seen_batch *b = seen(w, (uint64_t)earlier->id);
        const struct command *c = &b->commands[d->index];
        if (earlier->control.is || w->oracle->gates || earlier->priority != row->priority || c->first_us ||
            c->ended_us || earlier->closed_ms || d->deleted || !addresses(earlier, d) || earlier->cancel_requested_ms ||
            world_wall_ms(w) + SKEW_MS > earlier->expires_ms)
            continue;
        if (b->answered_us && b->answered_us < seen(w, (uint64_t)row->id)->committed_us - 1 * S)
            violated(w, "device %s gets batch %" PRId64 " before %" PRId64, d->id, row->id, earlier->id);
    }
}

/* Delivered on this connection and not answered, but for those that are over by now. */
static int in_flight(const struct world *w, const struct device *d)
{
    int n = 0;
    for (size_t i = 0; i < d->task_count; i++) {
        const struct row_batch *row = pg_model_batch(w->pg, (int64_t)d->tasks[i].batch);
        const struct seen_batch *b = &w->oracle->batches[d->tasks[i].batch];
        n += row && !row->control.execution_ms && !b->commands[d->index].ended_us &&
             row->expires_ms > world_wall_ms(w) + SKEW_MS && d->tasks[i].connection == d->connections &&
             !d->tasks[i].answered;
    }
    return n;
}

/* How many devices, in the order of registration, the batch is out to. */
static uint32_t wave_limit(const struct row_batch *row)
{
    uint32_t limit = UINT32_MAX;
    if (row->control.waves < 2 || row->control.wave > 0)
        return limit;
    Muster__V1__Steering *s = muster__v1__steering__unpack(NULL, row->control.steering_len, row->control.steering);
    if (!s || s->n_waves < 1)
        abort();
    limit = s->waves[0]->devices;
    muster__v1__steering__free_unpacked(s, NULL);
    return limit;
}

/* Devices that the batch addresses and that were registered before this one. */
static uint32_t rank_of(const struct world *w, const struct row_batch *row, const struct device *d)
{
    uint32_t rank = 0;
    for (int i = 0; i < w->device_count; i++)
        rank += w->devices[i].seq < d->seq && addresses(row, &w->devices[i]);
    return rank;
}

/* Devices a second: at first, and at most. */
struct rate {
    uint32_t first, most; /* 0: it has none */
};

static struct rate rate_of(const struct row_batch *row)
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
    struct rate rate = rate_of(row);
    uint32_t turns = 0;
    bool his = false;
    if (!rate.first || row->closed_ms) /* then it is forgotten who had one */
        return;
    for (size_t i = 0; i < w->pg->parts.count; i++) {
        const struct row_part *p = &w->pg->parts.v[i];
        for (unsigned slot = 0; p->batch == row->id && p->kind == 3 && slot < BLOCK_SLOTS; slot++) {
            bool had = p->slots[slot / 8] >> slot % 8 & 1;
            turns += had;
            his = his || (had && block_seq((uint32_t)p->block, slot) == d->seq);
        }
    }
    double s = (double)(w->now_us - seen(w, (uint64_t)row->id)->committed_us) / 1e6;
    if (!his)
        violated(w, "device %s is sent %" PRId64 " and has not had its turn", d->id, row->id);
    if (turns > rate.most * s + 1 + w->oracle->leaders)
        violated(w, "%u devices have had their turn of %" PRId64 " within %.3f s", turns, row->id, s);
}

/* What was asked for and confirmed holds: until something else is asked for. */
static void check_steering(struct world *w, const struct device *d, const struct row_batch *row, unsigned attempt,
                           int64_t sent_us, int64_t sent_ms)
{
    const struct seen_batch *b = seen(w, (uint64_t)row->id);
    const struct command *c = &b->commands[d->index];
    const struct row_control *k = &row->control;
    int64_t early_ms = k->not_before_ms - (WORLD_EPOCH_MS + sent_us / 1000) - (fault_plan(w)->skews ? SKEW_MS : 0);
    if (b->paused_us && sent_us > b->paused_us)
        violated(w, "device %s is sent %" PRId64 " %.3f s after its pause was confirmed", d->id, row->id,
                 (double)(sent_us - b->paused_us) / 1e6);
    /* What had been sent, or may have been, goes on to its own end. */
    if (c->canceled_us && sent_us > c->canceled_us &&
        (c->ended_as == STATE_CANCELED || c->ended_as == STATE_SUPERSEDED))
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
    if (rank_of(w, row, d) >= wave_limit(row))
        violated(w, "device %s is sent %" PRId64 ", and is not in its first wave", d->id, row->id);
    check_rate(w, d, row);
}

void oracle_delivered(struct world *w, struct device *d, uint64_t batch, unsigned attempt, int64_t sent_us,
                      int64_t sent_ms)
{
    const struct row_batch *row = pg_model_batch(w->pg, (int64_t)batch);
    if (!row || !addresses(row, d)) {
        violated(w, "device %s gets %" PRIu64 ", which is not for it", d->id, batch);
        return;
    }
    struct seen_batch *b = seen(w, batch);
    if (in_flight(w, d) > fault_plan(w)->in_flight)
        violated(w, "device %s has %d commands in flight", d->id, in_flight(w, d));
    if (attempt < 1 || attempt > STATE_ATTEMPTS_MAX)
        violated(w, "device %s gets attempt %u", d->id, attempt);
    if (sent_ms > row->expires_ms + TURN_MS)
        violated(w, "device %s is sent %" PRIu64 " %lld ms after its expiry", d->id, batch,
                 (long long)(sent_ms - row->expires_ms));
    /* One that was closed by expiry is called canceled then: a worker whose clock is behind may still think otherwise.
     */
    if (b->canceled_us && sent_us > b->canceled_us && !(fault_plan(w)->skews && b->closed_us == b->canceled_us))
        violated(w, "device %s is sent %" PRIu64 " %.3f s after its cancel was confirmed", d->id, batch,
                 (double)(sent_us - b->canceled_us) / 1e6);
    check_steering(w, d, row, attempt, sent_us, sent_ms);
    /* One that crosses the device's "not now" on the way is taken back with it. */
    bool crossed = false;
    for (size_t i = 0; i < d->ack_count; i++)
        crossed = crossed || (d->acks[i].batch == batch && d->acks[i].outcome + OUTCOME_STATE > STATE_REJECTED);
    b->commands[d->index].got = !crossed;
    if (!b->commands[d->index].first_us) {
        check_order(w, d, row);
        b->commands[d->index].first_us = w->now_us;
        b->commands[d->index].sent_us = sent_us;
    }
}

void oracle_put_off(struct world *w, const struct device *d, uint64_t batch)
{
    seen(w, batch)->commands[d->index].got = false;
}

void oracle_executed(struct world *w, struct device *d, uint64_t batch, uint8_t outcome)
{
    struct command *c = &seen(w, batch)->commands[d->index];
    if (c->executed)
        violated(w, "device %s executes %" PRIu64 " twice", d->id, batch);
    c->executed = outcome;
}

void oracle_acknowledged(struct world *w, struct device *d, uint64_t batch, uint8_t outcome)
{
    struct command *c = &seen(w, batch)->commands[d->index];
    if (outcome + OUTCOME_STATE > STATE_REJECTED || c->acknowledged)
        return;
    c->acknowledged = outcome;
    c->acknowledged_us = w->now_us;
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

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
    const struct seen_batch *b = seen((struct world *)(uintptr_t)w, (uint64_t)row->id);
    int64_t end_us = ((k->deliver_by_ms ? k->deliver_by_ms : row->expires_ms) - WORLD_EPOCH_MS) * MS;
    int64_t begin_us[] = {(k->not_before_ms ? k->not_before_ms - WORLD_EPOCH_MS : 0) * MS, b->freed_us,
                          w->oracle->opened_us};
    int64_t healed_us = faults_end_us(w);
    struct rate rate = rate_of(row);
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

static void judge_command(struct world *w, const struct row_batch *row, const struct device *d)
{
    const struct command *c = &seen(w, (uint64_t)row->id)->commands[d->index];
    enum command_state state = state_of(stored_byte(row, d));
    const char *name = state_name(state);
    if (!state_is_terminal(state))
        violated(w, "batch %" PRId64 " is closed and %s is %s", row->id, d->id, name);
    else if (state <= STATE_REJECTED && (int)state != c->executed + OUTCOME_STATE && !may_be_quarantined(row, d, state))
        violated(w, "batch %" PRId64 " of %s is %s, and the device did %d", row->id, d->id, name, c->executed);
    else if (c->acknowledged && (int)state != c->acknowledged + OUTCOME_STATE &&
             !(state > STATE_REJECTED && c->ended_us && c->ended_us < c->acknowledged_us))
        violated(w, "batch %" PRId64 " of %s is %s, and the device has PUBACK of %d at %.6f", row->id, d->id, name,
                 c->acknowledged, (double)(c->acknowledged_us - 1000 * S) / 1e6);
    /* That it was sent only Redis and the worker knew for a while. */
    else if (c->got && !d->deleted && !w->oracle->redis_lost_us &&
             (state == STATE_EXPIRED || state == STATE_CANCELED || state == STATE_SUPERSEDED))
        violated(w, "batch %" PRId64 " of %s is %s, and the device has got it", row->id, d->id, name);
    else if (state == STATE_EXPIRED && was_there(w, row, d))
        violated(w, "batch %" PRId64 " of %s is %s, and the device was there all the time", row->id, d->id, name);
    else if (state == STATE_CANCELED && !row->cancel_requested_ms && !d->deleted && !c->some_request)
        violated(w, "batch %" PRId64 " of %s is CANCELED, and nobody asked for it", row->id, d->id);
    else if (state == STATE_SUPERSEDED && !c->superseded)
        violated(w, "batch %" PRId64 " of %s is SUPERSEDED, and nothing takes its place", row->id, d->id);
    else if ((state == STATE_EXPIRED || state == STATE_TIMED_OUT) && row->closed_ms + SKEW_MS < end_of(row, c, state))
        violated(w, "batch %" PRId64 " of %s is %s before its time", row->id, d->id, name);
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
        if (!addresses(row, d))
            continue;
        judge_command(w, row, d);
        counts[state_of(stored_byte(row, d)) % STATE_COUNT]++;
    }
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
    if (m->cancels.count || m->parts.count)
        violated(w, "%zu rows of cancels and %zu of parts stay", m->cancels.count, m->parts.count);
    for (size_t i = 0; i < m->log.count; i++)
        if (!m->log.v[i].late)
            violated(w, "row %" PRId64 " of stream %" PRId64 " stays in the log", m->log.v[i].n, m->log.v[i].stream);
}
