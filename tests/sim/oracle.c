#include "tests/sim/oracle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/store/block.h"
#include "proto/ack_log.h"
#include "tests/sim/oracle_parts.h"
#include "tests/sim/oracle_retry.h"
#include "tests/sim/redis_model.h"

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

struct seen_batch *oracle_seen(struct world *w, uint64_t batch)
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

/* A store says that the command has ended, perhaps without the device. */
static void ended(struct world *w, uint64_t batch, uint32_t tenant, uint32_t seq, uint8_t byte)
{
    struct device *d = device_at(w, tenant, seq);
    struct command *c = d && batch < BATCHES_MAX ? &oracle_seen(w, batch)->commands[d->index] : NULL;
    if (!c)
        return;
    if (c->over_as != (uint8_t)state_of(byte))
        c->over_us = w->now_us;
    c->over_as = (uint8_t)state_of(byte);
    if (c->ended_us || state_of(byte) <= STATE_REJECTED)
        return;
    c->ended_us = w->now_us;
    c->ended_as = (uint8_t)state_of(byte);
}

/* --- Redis -------------------------------------------------------------------------------------------------------- */

/* Whether Redis holds what it was filled with. */
static bool redis_filled(const struct world *w)
{
    static const uint8_t key[] = "muster:generation";
    struct slice now = model_text(model_find(w->redis_model, (struct slice){key, sizeof key - 1}));
    return slice_is(now, w->redis_model->run_id);
}

void oracle_actor(struct world *w, const struct process *who, struct slice what)
{
    w->oracle->who = who;
    w->oracle->what = what;
    if (w->oracle->redis_lost_us && !redis_filled(w))
        w->oracle->redis_lost_us = w->now_us;
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
    else if (state_attempts(after) + (a == STATE_SENT || a == STATE_ROUTED || b == STATE_QUEUED) <
             state_attempts(before))
        violated(w, "%s forgets attempts of %" PRIu64 " of %u/%u", actor(w), batch, tenant, seq);
    struct device *d = device_at(w, tenant, seq);
    if (b == STATE_FAILED && a != STATE_HELD && slice_is(w->oracle->what, "apply"))
        violated(w, "%s gives up %" PRIu64 " of %u/%u, which is %s", actor(w), batch, tenant, seq, state_name(a));
    if (d && b == STATE_SENT && !oracle_seen(w, batch)->commands[d->index].noted_us)
        oracle_seen(w, batch)->commands[d->index].noted_us = w->now_us;
    if (d && b == STATE_SENT &&
        (w->oracle->redis_cuts || w->oracle->leaders > 1 || !slice_is(w->oracle->what, "route")))
        retry_resent(w, d, batch);
    if (state_is_terminal(b))
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
            if (state_is_terminal(state_of(state_string_get(&b, slot))))
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

void oracle_redis_cut(struct world *w)
{
    w->oracle->redis_cuts++;
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
        uint8_t old = i < before->len ? before->states[i] : 0;
        if (state_is_terminal(state_of(old)) && state_of(old) != state_of(k->states[i]))
            violated(w, "PostgreSQL: batch %" PRId64 " of %d/%u was %s and becomes %s", row->id, row->tenant, seq,
                     state_name(state_of(old)), state_name(state_of(k->states[i])));
        if (state_is_terminal(state_of(k->states[i])))
            ended(w, (uint64_t)row->id, (uint32_t)row->tenant, seq, k->states[i]);
    }
    free(before->states);
    before->states = malloc(k->state_len + 1);
    if (!before->states)
        abort();
    if (k->state_len)
        memcpy(before->states, k->states, k->state_len);
    before->len = k->state_len;
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
                if (state_is_terminal(state_of(ack_log_state(&g, k))))
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

/* Who may not join, since a newer batch has the key for him. */
static void look_at_barred(struct world *w, const struct row_batch *row, struct seen_batch *b)
{
    for (int i = 0; i < w->device_count; i++) {
        const struct device *d = &w->devices[i];
        if ((int32_t)d->tenant == row->tenant && oracle_is_in_part(w, row, PART_BARRED, d))
            b->commands[i].barred = true;
    }
}

/* Whom the batch addresses: it may have become more. */
static void look_at_devices(struct world *w, const struct row_batch *row, struct seen_batch *b)
{
    for (int i = 0; i < w->device_count; i++) {
        struct command *c = &b->commands[i];
        if (c->addressed_us || !oracle_addresses(row, &w->devices[i]))
            continue;
        c->addressed_us = w->now_us;
        if (b->committed_us < w->now_us)
            trace(w, "device %s joins %" PRId64, w->devices[i].id, row->id);
        if (row->control.target && !w->devices[i].meant_us)
            violated(w, "device %s joins %" PRId64 ", which does not mean it", w->devices[i].id, row->id);
    }
    if (row->control.target)
        look_at_barred(w, row, b);
    if (!b->sealed_us && (row->control.sealed || row->cancel_requested_ms || row->closed_ms))
        b->sealed_us = w->now_us;
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
        struct seen_batch *b = oracle_seen(w, (uint64_t)row->id);
        if (b->closed_us)
            continue;
        if (!b->committed_us)
            b->committed_us = w->now_us;
        if (row->canceled_ms && !b->canceled_us) {
            b->canceled_us = w->now_us;
            trace(w, "batch %" PRId64 " is canceled", row->id);
        }
        for (size_t k = 0; k < row->block_count; k++)
            look_at_block(w, row, &row->blocks[k], &b->blocks[row->blocks[k].block % 8]);
        look_at_control(w, row, b);
        look_at_devices(w, row, b);
        if (row->closed_ms) {
            b->closed_us = w->now_us;
            trace(w, "batch %" PRId64 " is closed", row->id);
        }
    }
}

void oracle_accepted(struct world *w, uint64_t batch)
{
    struct seen_batch *b = oracle_seen(w, batch);
    b->answered = true;
    b->answered_us = w->now_us;
    if (!pg_model_batch(w->pg, (int64_t)batch))
        violated(w, "batch %" PRIu64 " was accepted and is not there", batch);
}
