/* Statements of gates, steered and held batches: see lib/store/db_gate.c, db_control.c, db_guard.c. Simulated callers
 * have no budget: no batch is held for approval. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/pg_model.h"

stmt_fn stmt_batch_accept_canary, stmt_gate_closed, stmt_gate_list, stmt_gate_confirm, stmt_gate_settle, stmt_gate_set,
    stmt_control_asked, stmt_control_cancels, stmt_control_handled, stmt_control_closed, stmt_control_pause,
    stmt_control_cancel_some, stmt_control_release_wave, stmt_control_rollout, stmt_control_wave, stmt_control_stop,
    stmt_control_stop_noted, stmt_control_abort, stmt_control_parts, stmt_control_let_go, stmt_control_forget,
    stmt_device_blocks, stmt_guard_release_due;

/* --- gates ------------------------------------------------------------------------------------------------------- */

static struct row_gate *find_gate(struct pg_model *m, int64_t tenant)
{
    for (size_t i = 0; i < m->gates.count; i++)
        if (m->gates.v[i].tenant == tenant)
            return &m->gates.v[i];
    return NULL;
}

static struct row_gate *add_gate(struct pg_model *m, int64_t tenant)
{
    (void)table_add(&m->gates);
    size_t at = m->gates.count - 1;
    for (; at > 0 && m->gates.v[at - 1].tenant > tenant; at--)
        m->gates.v[at] = m->gates.v[at - 1];
    m->gates.v[at] = (struct row_gate){.tenant = (int32_t)tenant};
    return &m->gates.v[at];
}

/* An int4[]. */
static void out_numbers(struct stmt_call *c, int col, const int32_t *v, size_t n)
{
    struct buf array = {0};
    buf_put_u32be(&array, n ? 1 : 0);
    buf_put_u32be(&array, 0);
    buf_put_u32be(&array, 23);
    if (n) {
        buf_put_u32be(&array, (uint32_t)n);
        buf_put_u32be(&array, 1);
    }
    for (size_t i = 0; i < n; i++) {
        buf_put_u32be(&array, 4);
        buf_put_u32be(&array, (uint32_t)v[i]);
    }
    out_bytes(c, col, buf_slice(&array).data, buf_len(&array));
    buf_free(&array);
}

void stmt_gate_closed(struct stmt_call *c)
{
    int32_t closed[16];
    size_t n = 0;
    for (size_t i = 0; i < c->m->gates.count && n < 16; i++)
        if (c->m->gates.v[i].closed)
            closed[n++] = c->m->gates.v[i].tenant;
    out_columns(c, 2);
    out_int8(c, 0, c->m->gate_number);
    out_numbers(c, 1, closed, n);
    out_row(c);
}

/* Tenants are t1, t2, …; reasons are empty. */
static void put_gate(struct stmt_call *c, const struct row_gate *g)
{
    char name[16] = "";
    if (g->tenant)
        snprintf(name, sizeof name, "t%d", g->tenant);
    out_int4(c, 0, g->tenant);
    out_bytes(c, 1, name, strlen(name));
    out_bool(c, 2, g->closed);
    out_int8(c, 3, g->number);
    out_bytes(c, 4, "", 0);
    out_int8(c, 5, g->changed_ms);
    if (g->confirmed_ms)
        out_int8(c, 6, g->confirmed_ms);
    else
        out_null(c, 6);
    out_row(c);
}

void stmt_gate_list(struct stmt_call *c)
{
    int64_t tenant = param_int(c, 0);
    out_columns(c, 7);
    for (size_t i = 0; i < c->m->gates.count; i++)
        if (!tenant || !c->m->gates.v[i].tenant || c->m->gates.v[i].tenant == tenant)
            put_gate(c, &c->m->gates.v[i]);
}

/* Only by number of the tenant. */
void stmt_gate_set(struct stmt_call *c)
{
    struct pg_model *m = c->m;
    int64_t tenant = param_int(c, 0);
    bool closed = param_int(c, 2) != 0;
    struct row_gate *g = find_gate(m, tenant);
    m->gate_number++;
    if (closed ? !g || !g->closed : g && g->closed) {
        g = g ? g : add_gate(m, tenant);
        g->closed = closed;
        g->number = m->gate_number;
        g->changed_ms = param_int(c, 4);
        g->confirmed_ms = 0;
    }
    out_columns(c, 7);
    if (g && (g->closed || !g->confirmed_ms))
        put_gate(c, g);
}

void stmt_gate_confirm(struct stmt_call *c)
{
    for (size_t i = 0; i < c->m->gates.count; i++)
        if (c->m->gates.v[i].number <= param_int(c, 0) && !c->m->gates.v[i].confirmed_ms)
            c->m->gates.v[i].confirmed_ms = param_int(c, 1);
}

void stmt_gate_settle(struct stmt_call *c)
{
    struct pg_model *m = c->m;
    size_t n, kept = 0;
    struct slice *tenants = param_array(c, 0, &n), *numbers = param_array(c, 1, &n);
    for (size_t i = 0; i < m->gates.count; i++) {
        const struct row_gate *g = &m->gates.v[i];
        bool gone = false;
        for (size_t k = 0; k < n; k++)
            gone =
                gone || (g->tenant == int_of_slice(tenants[k]) && g->number == int_of_slice(numbers[k]) && !g->closed);
        if (!gone)
            m->gates.v[kept++] = *g;
    }
    m->gates.count = kept;
    free(tenants);
    free(numbers);
}

/* --- steered batches --------------------------------------------------------------------------------------------- */

void stmt_control_asked(struct stmt_call *c)
{
    int64_t left = param_int(c, 0);
    out_columns(c, 5);
    for (size_t i = 0; i < c->m->batches.count && left > 0; i++) {
        const struct row_batch *b = c->m->batches.v[i];
        if (!b->control.is || b->control.request <= b->control.handled)
            continue;
        out_int8(c, 0, b->id);
        out_bool(c, 1, b->control.paused);
        out_int4(c, 2, b->control.request);
        out_bool(c, 3, b->closed_ms != 0);
        out_bool(c, 4, b->control.sealed);
        out_row(c);
        left--;
    }
}

void stmt_control_cancels(struct stmt_call *c)
{
    out_columns(c, 3);
    for (size_t i = 0; i < c->m->cancels.count; i++) {
        const struct row_cancel_some *x = &c->m->cancels.v[i];
        if (x->batch != param_int(c, 0))
            continue;
        out_int4(c, 0, x->block);
        out_bytes(c, 1, x->slots, sizeof x->slots);
        out_bool(c, 2, x->superseded);
        out_row(c);
    }
}

static void forget_cancels(struct pg_model *m, int64_t batch)
{
    size_t kept = 0;
    for (size_t i = 0; i < m->cancels.count; i++)
        if (m->cancels.v[i].batch != batch)
            m->cancels.v[kept++] = m->cancels.v[i];
    m->cancels.count = kept;
}

static void handle(struct pg_model *m, int64_t id, int32_t request)
{
    struct row_batch *b = pg_model_batch(m, id);
    if (b && b->control.is && b->closed_ms)
        forget_cancels(m, id);
    if (b && b->control.is && b->control.handled < request)
        b->control.handled = request;
}

void stmt_control_handled(struct stmt_call *c)
{
    size_t n;
    struct slice *ids = param_array(c, 0, &n), *requests = param_array(c, 1, &n);
    for (size_t i = 0; i < n; i++)
        handle(c->m, int_of_slice(ids[i]), (int32_t)int_of_slice(requests[i]));
    free(ids);
    free(requests);
}

void stmt_control_closed(struct stmt_call *c)
{
    size_t n;
    struct slice *ids = param_array(c, 0, &n);
    for (size_t i = 0; i < n; i++)
        forget_cancels(c->m, int_of_slice(ids[i]));
    free(ids);
}

/* The batch, when something may be asked for of it. */
static struct row_batch *steerable_to(struct stmt_call *c, int columns)
{
    struct row_batch *b = pg_model_batch(c->m, param_int(c, 1));
    out_columns(c, columns);
    return b && b->tenant == param_int(c, 0) && !b->closed_ms && !b->cancel_requested_ms ? b : NULL;
}

static struct row_batch *steerable(struct stmt_call *c)
{
    return steerable_to(c, 1);
}

static void answer(struct stmt_call *c, bool changed)
{
    out_bool(c, 0, changed);
    out_row(c);
}

void stmt_control_pause(struct stmt_call *c)
{
    struct row_batch *b = steerable(c);
    struct row_control *k = b ? &b->control : NULL;
    bool paused = param_int(c, 2) != 0;
    if (!b)
        return;
    bool changed = paused ? !k->paused : k->is && (k->paused || k->stopped);
    answer(c, changed);
    if (!changed)
        return;
    k->is = true;
    k->request++;
    k->paused = paused;
    if (!paused) {
        k->stopped = 0;
    }
}

/* The row of the block, also when it has to be made. */
static struct row_cancel_some *cancel_row(struct pg_model *m, int64_t batch, int32_t block)
{
    for (size_t i = 0; i < m->cancels.count; i++)
        if (m->cancels.v[i].batch == batch && m->cancels.v[i].block == block && !m->cancels.v[i].superseded)
            return &m->cancels.v[i];
    struct row_cancel_some *x = table_add(&m->cancels);
    *x = (struct row_cancel_some){.batch = batch, .block = block};
    return x;
}

void stmt_control_cancel_some(struct stmt_call *c)
{
    struct row_batch *b = steerable(c);
    size_t n;
    if (!b)
        return;
    struct slice *blocks = param_array(c, 2, &n), *slots = param_array(c, 3, &n);
    b->control.is = true;
    b->control.request++;
    for (size_t i = 0; i < n; i++) {
        struct row_cancel_some *x = cancel_row(c->m, b->id, (int32_t)int_of_slice(blocks[i]));
        if (slots[i].len != sizeof x->slots)
            abort();
        x->request = b->control.request;
        for (size_t k = 0; k < sizeof x->slots; k++)
            x->slots[k] |= slots[i].data[k];
    }
    answer(c, true);
    free(blocks);
    free(slots);
}

void stmt_control_release_wave(struct stmt_call *c)
{
    struct row_batch *b = steerable_to(c, 3);
    struct row_control *k = b ? &b->control : NULL;
    if (!b)
        return;
    int32_t next = (k->by_hand > k->wave ? k->by_hand : k->wave) + 1, wave = (int32_t)param_int(c, 2);
    bool changed = k->is && next < k->waves && (!wave || wave == next + 1);
    out_int4(c, 1, k->is ? next : 1);
    out_int4(c, 2, k->is ? k->waves : 0);
    answer(c, changed);
    if (!changed)
        return;
    k->by_hand = next;
    k->request++;
}

void stmt_control_rollout(struct stmt_call *c)
{
    const struct row_batch *b = pg_model_batch(c->m, param_int(c, 0));
    const struct row_control *k = b && b->control.is ? &b->control : NULL;
    out_columns(c, 14);
    if (!k)
        return;
    if (k->steering)
        out_bytes(c, 0, k->steering, k->steering_len);
    else
        out_null(c, 0);
    const int32_t numbers[] = {k->wave, k->by_hand, k->stopped, k->acted};
    for (int i = 0; i < 4; i++)
        out_int4(c, 1 + i, numbers[i]);
    out_bytes(c, 5, k->platform_acted, sizeof k->platform_acted);
    out_int8(c, 6, k->wave_ms);
    out_int4(c, 7, k->request);
    out_int4(c, 8, k->canceled);
    out_int4(c, 9, k->rate_steps);
    out_int4(c, 10, k->rate_ended);
    out_int4(c, 11, k->rate_succeeded);
    out_int8(c, 12, k->paced_ms);
    out_int8(c, 13, c->m->now_ms);
    out_row(c);
}

void stmt_control_wave(struct stmt_call *c)
{
    struct row_batch *b = pg_model_batch(c->m, param_int(c, 0));
    int64_t wave = param_int(c, 1);
    if (!b || !b->control.is || b->control.wave > wave || (b->control.wave == wave && b->control.wave_ms))
        return;
    b->control.wave = (int32_t)wave;
    b->control.wave_ms = c->m->now_ms;
}

/* --- parts of batches -------------------------------------------------------------------------------------------- */

/* Of a batch that the transaction has made. */
void stmt_batch_accept_canary(struct stmt_call *c)
{
    const struct row_batch *b = pg_model_made(c->m, param_int(c, 0), param_bytes(c, 1));
    size_t n;
    struct slice *blocks = param_array(c, 2, &n), *slots = param_array(c, 3, &n);
    for (size_t i = 0; i < n && b; i++) {
        struct row_part *p = pg_model_part(c->m, b->id, PART_CANARY, int_of_slice(blocks[i]), true);
        memcpy(p->slots, slots[i].data, sizeof p->slots);
    }
    free(blocks);
    free(slots);
}

void stmt_control_parts(struct stmt_call *c)
{
    out_columns(c, 3);
    for (int16_t kind = 1; kind <= PART_BARRED; kind++)
        for (int32_t block = 0; block < 8; block++) {
            const struct row_part *p = pg_model_part(c->m, param_int(c, 0), kind, block, false);
            if (!p)
                continue;
            out_int2(c, 0, kind);
            out_int4(c, 1, block);
            out_bytes(c, 2, p->slots, sizeof p->slots);
            out_row(c);
        }
}

void stmt_control_let_go(struct stmt_call *c)
{
    struct row_batch *b = pg_model_batch(c->m, param_int(c, 0));
    size_t n;
    if (b && b->control.is && b->control.rate_steps <= (int32_t)param_int(c, 1)) {
        b->control.rate_steps = (int32_t)param_int(c, 1);
        b->control.rate_ended = (int32_t)param_int(c, 2);
        b->control.rate_succeeded = (int32_t)param_int(c, 3);
        b->control.paced_ms = c->m->now_ms;
    }
    struct slice *blocks = param_array(c, 4, &n), *slots = param_array(c, 5, &n);
    for (size_t i = 0; i < n && b && !b->closed_ms; i++) {
        struct row_part *p = pg_model_part(c->m, param_int(c, 0), PART_TURN, int_of_slice(blocks[i]), true);
        if (slots[i].len != sizeof p->slots)
            abort();
        for (size_t k = 0; k < sizeof p->slots; k++)
            p->slots[k] |= slots[i].data[k];
    }
    free(blocks);
    free(slots);
}

void stmt_control_forget(struct stmt_call *c)
{
    struct pg_model *m = c->m;
    size_t n, kept = 0;
    struct slice *ids = param_array(c, 0, &n);
    for (size_t i = 0; i < m->parts.count; i++) {
        bool gone = false;
        for (size_t k = 0; k < n; k++)
            gone = gone || (m->parts.v[i].kind == PART_TURN && m->parts.v[i].batch == int_of_slice(ids[k]));
        if (!gone)
            m->parts.v[kept++] = m->parts.v[i];
    }
    m->parts.count = kept;
    free(ids);
}

/* Simulated thresholds cancel no platform: $3 is 0. */
void stmt_control_stop(struct stmt_call *c)
{
    struct row_batch *b = pg_model_batch(c->m, param_int(c, 0));
    if (!b || !b->control.is)
        return;
    if (param_int(c, 2))
        abort();
    b->control.stopped |= (int32_t)param_int(c, 1);
    b->control.acted |= (int32_t)param_int(c, 3);
    b->control.paused = b->control.paused || param_int(c, 4);
    struct slice acted = param_bytes(c, 6);
    if (acted.len != sizeof b->control.platform_acted)
        abort();
    memcpy(b->control.platform_acted, acted.data, acted.len);
    b->control.request++;
}

/* For the audit, which decides nothing. */
void stmt_control_stop_noted(struct stmt_call *c)
{
    (void)c;
}

void stmt_control_abort(struct stmt_call *c)
{
    struct row_batch *b = pg_model_batch(c->m, param_int(c, 0));
    if (b && !b->cancel_requested_ms && !b->closed_ms)
        b->cancel_requested_ms = param_int(c, 1);
}

/* The blocks of devices that are registered, by block; those of one block by platform. */
void stmt_device_blocks(struct stmt_call *c)
{
    int64_t tenant = param_int(c, 0), only = param_int(c, 1);
    out_columns(c, 3);
    for (int32_t block = 0; block < 8; block++)
        for (int16_t platform = 1; platform < 16; platform++) {
            uint8_t slots[128] = {0};
            bool any = false;
            for (size_t i = 0; i < c->m->devices.count; i++) {
                const struct row_device *d = &c->m->devices.v[i];
                if (d->tenant != tenant || d->deleted_ms || d->platform != platform || d->seq / 1024 != block ||
                    (only && only != platform))
                    continue;
                slots[d->seq % 1024 / 8] |= (uint8_t)(1 << d->seq % 8);
                any = true;
            }
            if (!any)
                continue;
            out_int4(c, 0, block);
            out_int2(c, 1, platform);
            out_bytes(c, 2, slots, sizeof slots);
            out_row(c);
        }
}

/* --- budgets ------------------------------------------------------------------------------------------------------ */

void stmt_guard_release_due(struct stmt_call *c)
{
    out_columns(c, 1);
}
