/* Statements of the leader: see lib/store/db_open.c. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/mutation.h"
#include "tests/sim/pg_model.h"

#define OPEN_COLUMNS 28

stmt_fn stmt_open_page, stmt_open_unrouted, stmt_open_some, stmt_closed_some, stmt_open_blocks, stmt_open_times,
    stmt_open_commands, stmt_open_canceling, stmt_open_deleted, stmt_open_tenants, stmt_open_log, stmt_open_fold,
    stmt_open_forget_log, stmt_open_routed, stmt_open_canceled, stmt_open_closed, stmt_open_forget_deleted,
    stmt_open_new_stream, stmt_open_append, stmt_open_forget_streams;

static bool holds(const struct slice *ids, size_t n, int64_t id)
{
    for (size_t i = 0; i < n; i++)
        if (int_of_slice(ids[i]) == id)
            return true;
    return false;
}

static int32_t next_seq(const struct pg_model *m, int32_t tenant)
{
    for (size_t i = 0; i < m->tenants.count; i++)
        if (m->tenants.v[i].id == tenant)
            return m->tenants.v[i].next_seq;
    return 0;
}

/* --- reading ----------------------------------------------------------------------------------------------------- */

static void put_control(struct stmt_call *c, const struct row_control *k)
{
    out_bool(c, 10, k->is);
    out_bool(c, 11, k->paused);
    out_int4(c, 12, k->request);
    for (int i = 13; i < 19 && !k->is; i++)
        out_null(c, i);
    for (int i = 23; i < OPEN_COLUMNS && !k->is; i++)
        out_null(c, i);
    out_bool(c, 19, k->supersedes_count > 0);
    out_bool(c, 20, k->key[0] != 0);
    if (!k->is)
        return;
    out_int8(c, 13, k->not_before_ms);
    out_int8(c, 14, k->deliver_by_ms);
    out_int8(c, 15, k->execution_ms);
    out_int4(c, 16, k->window);
    out_bytes(c, 17, k->zone, strlen(k->zone));
    out_bool(c, 18, k->rollout);
    out_int4(c, 23, k->retry_after);
    out_int2(c, 24, k->retry_attempts);
    out_int2(c, 25, k->retry_factor);
    out_int8(c, 26, k->retry_initial_ms);
    out_int8(c, 27, k->retry_max_ms);
}

static void put_open(struct stmt_call *c, const struct row_batch *b)
{
    int32_t blocks = (next_seq(c->m, b->tenant) + 1023) / 1024;
    out_int8(c, 0, b->id);
    out_int4(c, 1, b->tenant);
    out_int2(c, 2, b->priority);
    out_int4(c, 3, b->device_count < blocks && !b->control.target ? b->device_count : blocks);
    out_int4(c, 4, (int64_t)b->command_len);
    out_int8(c, 5, b->created_ms);
    out_int8(c, 6, b->expires_ms);
    out_bool(c, 7, b->routed_ms != 0);
    out_bool(c, 8, b->cancel_requested_ms != 0);
    out_bool(c, 9, b->canceled_ms != 0);
    put_control(c, &b->control);
    out_bool(c, 21, b->valued);
    out_bool(c, 22, b->control.target && (!b->control.sealed || *b->control.key));
    out_row(c);
}

static void put_open_page(struct stmt_call *c, bool unrouted)
{
    int64_t left = param_int(c, 1);
    out_columns(c, OPEN_COLUMNS);
    for (size_t i = 0; i < c->m->batches.count && left > 0; i++) {
        const struct row_batch *b = c->m->batches.v[i];
        if (b->closed_ms || b->id <= param_int(c, 0) || (unrouted && b->routed_ms))
            continue;
        put_open(c, b);
        left--;
    }
}

void stmt_open_page(struct stmt_call *c)
{
    put_open_page(c, false);
}

void stmt_open_unrouted(struct stmt_call *c)
{
    put_open_page(c, true);
}

void stmt_open_some(struct stmt_call *c)
{
    size_t n;
    struct slice *ids = param_array(c, 0, &n);
    out_columns(c, OPEN_COLUMNS);
    for (size_t i = 0; i < c->m->batches.count; i++)
        if (!c->m->batches.v[i]->closed_ms && holds(ids, n, c->m->batches.v[i]->id))
            put_open(c, c->m->batches.v[i]);
    free(ids);
}

void stmt_closed_some(struct stmt_call *c)
{
    size_t n;
    struct slice *ids = param_array(c, 0, &n);
    out_columns(c, 1);
    for (size_t i = 0; i < c->m->batches.count; i++)
        if (c->m->batches.v[i]->closed_ms && holds(ids, n, c->m->batches.v[i]->id)) {
            out_int8(c, 0, c->m->batches.v[i]->id);
            out_row(c);
        }
    free(ids);
}

void stmt_open_blocks(struct stmt_call *c)
{
    size_t n;
    struct slice *ids = param_array(c, 0, &n);
    out_columns(c, 5);
    for (size_t i = 0; i < c->m->batches.count; i++) {
        const struct row_batch *b = c->m->batches.v[i];
        if (!holds(ids, n, b->id))
            continue;
        for (size_t k = 0; k < b->block_count; k++) {
            out_int8(c, 0, b->id);
            out_int4(c, 1, b->blocks[k].block);
            out_int2(c, 2, b->blocks[k].first);
            out_bytes(c, 3, b->blocks[k].targets, b->blocks[k].target_len);
            if (b->blocks[k].states)
                out_bytes(c, 4, b->blocks[k].states, b->blocks[k].state_len);
            else
                out_null(c, 4);
            out_row(c);
        }
    }
    free(ids);
}

void stmt_open_times(struct stmt_call *c)
{
    size_t n;
    struct slice *ids = param_array(c, 0, &n), *blocks = param_array(c, 1, &n);
    out_columns(c, 3);
    for (size_t i = 0; i < n; i++) {
        struct row_batch *b = pg_model_batch(c->m, int_of_slice(ids[i]));
        const struct row_block *k = pg_model_block(b, (int32_t)int_of_slice(blocks[i]));
        if (!k)
            continue;
        out_int8(c, 0, b->id);
        out_int4(c, 1, k->block);
        if (k->times)
            out_bytes(c, 2, k->times, k->time_len);
        else
            out_null(c, 2);
        out_row(c);
    }
    free(ids);
    free(blocks);
}

void stmt_open_commands(struct stmt_call *c)
{
    size_t n;
    struct slice *ids = param_array(c, 0, &n);
    out_columns(c, 4);
    for (size_t i = 0; i < n; i++) {
        const struct row_batch *b = pg_model_batch(c->m, int_of_slice(ids[i]));
        if (!b)
            continue;
        out_int8(c, 0, b->id);
        out_bytes(c, 1, b->command, b->command_len);
        if (b->valued) {
            out_bytes(c, 2, b->described, b->described_len);
            out_bytes(c, 3, b->defaults, b->defaults_len);
        } else {
            out_null(c, 2);
            out_null(c, 3);
        }
        out_row(c);
    }
    free(ids);
}

void stmt_open_canceling(struct stmt_call *c)
{
    int64_t left = param_int(c, 0);
    out_columns(c, 1);
    for (size_t i = 0; i < c->m->batches.count && left > 0; i++) {
        const struct row_batch *b = c->m->batches.v[i];
        if (!b->cancel_requested_ms || b->canceled_ms || b->closed_ms)
            continue;
        out_int8(c, 0, b->id);
        out_row(c);
        left--;
    }
}

void stmt_open_deleted(struct stmt_call *c)
{
    int64_t tenant = param_int(c, 0), seq = param_int(c, 1), left = param_int(c, 2);
    out_columns(c, 2);
    for (size_t i = 0; i < c->m->canceling.count && left > 0; i++) {
        const struct row_cancel *d = &c->m->canceling.v[i];
        if (d->tenant < tenant || (d->tenant == tenant && d->seq <= seq))
            continue;
        out_int4(c, 0, d->tenant);
        out_int4(c, 1, d->seq);
        out_row(c);
        left--;
    }
}

void stmt_open_tenants(struct stmt_call *c)
{
    out_columns(c, 2);
    for (size_t i = 0; i < c->m->tenants.count; i++) {
        if (c->m->tenants.v[i].next_seq <= 0)
            continue;
        out_int4(c, 0, c->m->tenants.v[i].id);
        out_int4(c, 1, (c->m->tenants.v[i].next_seq + 1023) / 1024);
        out_row(c);
    }
}

void stmt_open_log(struct stmt_call *c)
{
    size_t n;
    struct slice *streams = param_array(c, 0, &n), *ns = param_array(c, 1, &n);
    int64_t limit = param_int(c, 2), stream = 0, left = 0;
    out_columns(c, 4);
    for (size_t i = 0; i < c->m->log.count; i++) {
        const struct row_log *row = &c->m->log.v[i];
        int64_t after = 0;
        for (size_t k = 0; k < n; k++)
            if (int_of_slice(streams[k]) == row->stream)
                after = int_of_slice(ns[k]);
        if (row->stream != stream) {
            stream = row->stream;
            left = limit;
        }
        if (row->n <= after || left == 0 || (c->m->mutation == MUTATION_LOG_SKIPS && row->n % 4 == 0))
            continue;
        out_int8(c, 0, row->stream);
        out_int8(c, 1, row->n);
        out_int8(c, 2, row->at_ms);
        out_bytes(c, 3, row->entries, row->len);
        out_row(c);
        left--;
    }
    free(streams);
    free(ns);
}

/* --- writing ----------------------------------------------------------------------------------------------------- */

static void replace(uint8_t **at, size_t *len, struct slice s)
{
    uint8_t *p = s.data ? malloc(s.len + 1) : NULL;
    if (s.data && !p)
        abort();
    if (p)
        memcpy(p, s.data, s.len);
    free(*at);
    *at = p;
    *len = s.len;
}

void stmt_open_fold(struct stmt_call *c)
{
    size_t n;
    struct slice *ids = param_array(c, 0, &n), *blocks = param_array(c, 1, &n), *states = param_array(c, 2, &n),
                 *times = param_array(c, 3, &n);
    for (size_t i = 0; i < n; i++) {
        struct row_batch *b = pg_model_batch(c->m, int_of_slice(ids[i]));
        struct row_block *k = pg_model_block(b, (int32_t)int_of_slice(blocks[i]));
        if (!k)
            continue;
        replace(&k->states, &k->state_len, states[i]);
        replace(&k->times, &k->time_len, times[i]);
        k->version++;
    }
    free(ids);
    free(blocks);
    free(states);
    free(times);
}

void stmt_open_forget_log(struct stmt_call *c)
{
    size_t n, kept = 0;
    struct slice *streams = param_array(c, 0, &n), *ns = param_array(c, 1, &n);
    for (size_t i = 0; i < c->m->log.count; i++) {
        struct row_log *row = &c->m->log.v[i];
        bool gone = false;
        for (size_t k = 0; k < n; k++)
            gone = gone || (row->stream == int_of_slice(streams[k]) && row->n <= int_of_slice(ns[k]));
        if (gone)
            free(row->entries);
        else
            c->m->log.v[kept++] = *row;
    }
    for (size_t k = 0; k < n; k++) {
        struct row_stream *of = pg_model_stream(c->m, int_of_slice(streams[k]));
        if (of && of->forgotten < int_of_slice(ns[k]))
            of->forgotten = int_of_slice(ns[k]);
    }
    c->m->log.count = kept;
    free(streams);
    free(ns);
}

void stmt_open_routed(struct stmt_call *c)
{
    size_t n;
    struct slice *ids = param_array(c, 0, &n);
    for (size_t i = 0; i < n; i++) {
        struct row_batch *b = pg_model_batch(c->m, int_of_slice(ids[i]));
        if (b && !b->routed_ms)
            b->routed_ms = param_int(c, 1);
    }
    free(ids);
}

void stmt_open_canceled(struct stmt_call *c)
{
    size_t n;
    struct slice *ids = param_array(c, 0, &n);
    for (size_t i = 0; i < n; i++) {
        struct row_batch *b = pg_model_batch(c->m, int_of_slice(ids[i]));
        if (!b || b->canceled_ms)
            continue;
        b->canceled_ms = param_int(c, 1);
        if (!b->routed_ms)
            b->routed_ms = b->canceled_ms;
    }
    free(ids);
}

/* The trigger batch_forget_values. */
static void forget_values(struct row_batch *b)
{
    b->defaults_len = 0;
    for (size_t i = 0; i < b->block_count; i++) {
        free(b->blocks[i].vals);
        b->blocks[i].vals = NULL;
        b->blocks[i].vals_len = 0;
    }
}

void stmt_open_closed(struct stmt_call *c)
{
    size_t n, states;
    struct slice *ids = param_array(c, 0, &n), *counts = param_array(c, 1, &states);
    for (size_t i = 0; i < n; i++) {
        struct row_batch *b = pg_model_batch(c->m, int_of_slice(ids[i]));
        if (!b || b->closed_ms)
            continue;
        b->closed_ms = param_int(c, 2);
        if (!b->routed_ms)
            b->routed_ms = b->closed_ms;
        if (b->cancel_requested_ms && !b->canceled_ms)
            b->canceled_ms = b->closed_ms;
        if (!b->cancel_requested_ms)
            b->canceled_ms = 0;
        for (size_t s = 0; s < 12; s++)
            b->counts[s] = (int32_t)int_of_slice(counts[12 * i + s]);
        forget_values(b);
    }
    free(ids);
    free(counts);
}

void stmt_open_forget_deleted(struct stmt_call *c)
{
    size_t n, kept = 0;
    struct slice *tenants = param_array(c, 0, &n), *seqs = param_array(c, 1, &n);
    for (size_t i = 0; i < c->m->canceling.count; i++) {
        const struct row_cancel *d = &c->m->canceling.v[i];
        bool gone = false;
        for (size_t k = 0; k < n; k++)
            gone = gone || (d->tenant == int_of_slice(tenants[k]) && d->seq == int_of_slice(seqs[k]));
        if (!gone)
            c->m->canceling.v[kept++] = *d;
    }
    c->m->canceling.count = kept;
    free(tenants);
    free(seqs);
}

void stmt_open_new_stream(struct stmt_call *c)
{
    int64_t id = c->reserved ? c->reserved : c->m->next_stream++;
    *table_add(&c->m->streams) = (struct row_stream){.id = id, .created_ms = param_int(c, 1)};
    out_columns(c, 1);
    out_int8(c, 0, id);
    out_row(c);
}

void stmt_open_append(struct stmt_call *c)
{
    struct pg_model *m = c->m;
    size_t n;
    struct slice *times = param_array(c, 2, &n), *entries = param_array(c, 3, &n);
    for (size_t i = 0; i < n; i++) {
        struct row_log row = {
            .stream = param_int(c, 0), .n = param_int(c, 1) + (int64_t)i, .at_ms = int_of_slice(times[i])};
        replace(&row.entries, &row.len, entries[i]);
        (void)table_add(&m->log);
        size_t at = m->log.count - 1;
        for (; at > 0 && (m->log.v[at - 1].stream > row.stream ||
                          (m->log.v[at - 1].stream == row.stream && m->log.v[at - 1].n > row.n));
             at--)
            m->log.v[at] = m->log.v[at - 1];
        m->log.v[at] = row;
    }
    free(times);
    free(entries);
}

void stmt_open_forget_streams(struct stmt_call *c)
{
    struct pg_model *m = c->m;
    size_t kept = 0;
    for (size_t i = 0; i < m->streams.count; i++) {
        bool used = m->streams.v[i].created_ms >= param_int(c, 0);
        for (size_t k = 0; k < m->log.count && !used; k++)
            used = m->log.v[k].stream == m->streams.v[i].id;
        if (used)
            m->streams.v[kept++] = m->streams.v[i];
    }
    m->streams.count = kept;
}
