/* Statements of acceptance, devices, acknowledgements and leases: see lib/store/db_batch.c, db_retry.c, db_device.c,
 * db_ack_log.c, db_credential.c, db_lease.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/mutation.h"
#include "tests/sim/pg_model.h"

stmt_fn stmt_batch_hold_tenants, stmt_batch_accept, stmt_batch_accept_steered, stmt_batch_accept_devices,
    stmt_retry_accept, stmt_batch_cancel, stmt_device_delete, stmt_ack_stream_open, stmt_ack_log_insert,
    stmt_command_result_insert, stmt_device_information_update, stmt_device_news_insert, stmt_seen_add,
    stmt_revocation_read, stmt_signing_key_read, stmt_lease_acquire, stmt_lease_renew, stmt_lease_release,
    stmt_lease_fence, stmt_worker_number, stmt_worker_lease, stmt_worker_longest_lease, stmt_clock_read;

/* --- acceptance -------------------------------------------------------------------------------------------------- */

void stmt_batch_hold_tenants(struct stmt_call *c)
{
    size_t n;
    struct slice *ids = param_array(c, 0, &n);
    out_columns(c, 1);
    for (size_t i = 0; i < c->m->tenants.count; i++)
        for (size_t k = 0; k < n; k++)
            if (c->m->tenants.v[i].id == int_of_slice(ids[k])) {
                out_int4(c, 0, 1);
                out_row(c);
                break;
            }
    free(ids);
}

static struct row_batch *find_request(struct pg_model *m, int64_t tenant, struct slice request_id)
{
    for (size_t i = m->batches.count; i-- > 0;)
        if (m->batches.v[i]->tenant == tenant && slice_is(request_id, m->batches.v[i]->request_id))
            return m->batches.v[i];
    return NULL;
}

/* Numbers are drawn when a transaction begins, so that one may come in front of those that are there. */
static struct row_batch *add_batch(struct pg_model *m, int64_t id)
{
    struct row_batch *b = calloc(1, sizeof *b);
    if (!b)
        abort();
    b->id = id;
    (void)table_add(&m->batches);
    size_t at = m->batches.count - 1;
    for (; at > 0 && m->batches.v[at - 1]->id > id; at--)
        m->batches.v[at] = m->batches.v[at - 1];
    m->batches.v[at] = b;
    return b;
}

static int64_t next_id(struct stmt_call *c)
{
    return c->reserved ? c->reserved++ : c->m->next_batch++;
}

/* Gives the new row, or NULL when there is one already. */
static struct row_batch *accept(struct stmt_call *c)
{
    struct pg_model *m = c->m;
    int64_t tenant = param_int(c, 0), created_ms = param_int(c, 9), id = next_id(c);
    struct row_batch *b = find_request(m, tenant, param_bytes(c, 1));
    size_t n;
    out_columns(c, 2);
    out_bool(c, 0, !b);
    out_int8(c, 1, b ? b->id : id);
    out_row(c);
    m->accepted = NULL;
    if (b)
        return NULL;
    b = m->accepted = add_batch(m, id);
    b->made_by = c->m->transactions;
    b->tenant = (int32_t)tenant;
    b->request_id = (char *)pg_model_copy(param_bytes(c, 1));
    b->command = pg_model_copy(param_bytes(c, 4));
    b->command_len = param_bytes(c, 4).len;
    b->priority = (int16_t)param_int(c, 5);
    b->device_count = (int32_t)param_int(c, 6);
    b->created_ms = created_ms;
    b->expires_ms = param_int(c, 10);
    struct slice *blocks = param_array(c, 11, &n), *firsts = param_array(c, 12, &n), *targets = param_array(c, 13, &n);
    for (size_t i = 0; i < n; i++)
        (void)pg_model_add_block(b, int_of_slice(blocks[i]), int_of_slice(firsts[i]), targets[i]);
    free(blocks);
    free(firsts);
    free(targets);
    for (size_t i = 0; i < m->devices.count; i++)
        if (m->devices.v[i].tenant == tenant && m->devices.v[i].deleted_ms > created_ms - 10000)
            pg_model_cancel_device(m, m->devices.v[i].tenant, m->devices.v[i].seq);
    return b;
}

void stmt_batch_accept(struct stmt_call *c)
{
    (void)accept(c);
}

void stmt_batch_accept_steered(struct stmt_call *c)
{
    struct row_batch *b = accept(c);
    if (!b)
        return;
    struct row_control *k = &b->control;
    *k = (struct row_control){.is = true,
                              .not_before_ms = param_int(c, 15),
                              .deliver_by_ms = param_int(c, 16),
                              .execution_ms = param_int(c, 17),
                              .window = (int32_t)param_int(c, 18),
                              .rollout = param_int(c, 20) != 0};
    k->waves = k->rollout ? (int32_t)param_int(c, 21) : 0;
    k->steering = pg_model_copy(param_bytes(c, 14));
    k->steering_len = param_bytes(c, 14).len;
    snprintf(k->zone, sizeof k->zone, "%.*s", (int)param_bytes(c, 19).len, (const char *)param_bytes(c, 19).data);
}

void stmt_retry_accept(struct stmt_call *c)
{
    struct row_batch *b = pg_model_made(c->m, param_int(c, 0), param_bytes(c, 1));
    struct row_control *k = b ? &b->control : NULL;
    out_columns(c, 1);
    out_null(c, 0);
    out_row(c);
    if (!k)
        return;
    k->is = true;
    k->retry_after = (int32_t)param_int(c, 2);
    k->retry_attempts = (int16_t)param_int(c, 3);
    k->retry_factor = (int16_t)param_int(c, 4);
    k->retry_initial_ms = param_int(c, 5);
    k->retry_max_ms = param_int(c, 6);
}

static struct row_device *find_device(struct pg_model *m, int64_t tenant, struct slice id)
{
    for (size_t i = 0; i < m->devices.count; i++)
        if (m->devices.v[i].tenant == tenant && !m->devices.v[i].deleted_ms && slice_is(id, m->devices.v[i].id))
            return &m->devices.v[i];
    return NULL;
}

static void accept_device(struct stmt_call *c, size_t i, struct slice *const v[9])
{
    struct row_device *d = find_device(c->m, int_of_slice(v[0][i]), v[8][i]);
    int64_t id = d ? next_id(c) : 0;
    if (d && find_request(c->m, d->tenant, v[1][i]))
        id = 0;
    out_int4(c, 0, d ? d->seq : -1);
    out_int8(c, 1, id);
    out_row(c);
    if (!id)
        return;
    struct row_batch *b = add_batch(c->m, id);
    b->made_by = c->m->transactions;
    b->tenant = d->tenant;
    b->request_id = (char *)pg_model_copy(v[1][i]);
    b->command = pg_model_copy(v[4][i]);
    b->command_len = v[4][i].len;
    b->priority = (int16_t)int_of_slice(v[5][i]);
    b->device_count = 1;
    b->created_ms = int_of_slice(v[6][i]);
    b->expires_ms = int_of_slice(v[7][i]);
    uint8_t bit = (uint8_t)(1 << d->seq % 8);
    (void)pg_model_add_block(b, d->seq / 1024, d->seq % 1024 / 8 * 8, (struct slice){&bit, 1});
}

void stmt_batch_accept_devices(struct stmt_call *c)
{
    struct slice *v[9];
    size_t n = 0;
    for (int i = 0; i < 9; i++)
        v[i] = param_array(c, i, &n);
    out_columns(c, 2);
    for (size_t i = 0; i < n; i++)
        accept_device(c, i, v);
    for (int i = 0; i < 9; i++)
        free(v[i]);
}

void stmt_batch_cancel(struct stmt_call *c)
{
    struct row_batch *b = pg_model_batch(c->m, param_int(c, 1));
    out_columns(c, 1);
    if (!b || b->tenant != param_int(c, 0) || b->cancel_requested_ms || b->closed_ms)
        return;
    b->cancel_requested_ms = param_int(c, 2);
    out_int4(c, 0, 1);
    out_row(c);
}

void stmt_device_delete(struct stmt_call *c)
{
    struct pg_model *m = c->m;
    struct row_device *d = find_device(m, param_int(c, 0), param_bytes(c, 1));
    out_columns(c, 1);
    if (!d)
        return;
    d->deleted_ms = param_int(c, 2);
    struct row_revocation *r = table_add(&m->revoked);
    *r = (struct row_revocation){m->next_revocation++, d->tenant, d->seq, param_int(c, 3)};
    pg_model_cancel_device(m, d->tenant, d->seq);
    out_int4(c, 0, d->seq);
    out_row(c);
}

/* --- what workers write and read --------------------------------------------------------------------------------- */

void stmt_ack_stream_open(struct stmt_call *c)
{
    int64_t id = c->reserved ? c->reserved : c->m->next_stream++;
    *table_add(&c->m->streams) = (struct row_stream){.id = id, .created_ms = param_int(c, 1)};
    out_columns(c, 1);
    out_int8(c, 0, id);
    out_row(c);
}

void stmt_ack_log_insert(struct stmt_call *c)
{
    struct pg_model *m = c->m;
    int64_t stream = param_int(c, 0), n = param_int(c, 1);
    struct slice entries = param_bytes(c, 3);
    size_t at = 0;
    while (at < m->log.count && (m->log.v[at].stream < stream || (m->log.v[at].stream == stream && m->log.v[at].n < n)))
        at++;
    if (at < m->log.count && m->log.v[at].stream == stream && m->log.v[at].n == n)
        return;
    if (m->mutation == MUTATION_ACK_EARLY && n % 3 == 0)
        return;
    (void)table_add(&m->log);
    memmove(&m->log.v[at + 1], &m->log.v[at], (m->log.count - 1 - at) * sizeof *m->log.v);
    const struct row_stream *of = pg_model_stream(m, stream);
    m->log.v[at] = (struct row_log){.stream = stream,
                                    .n = n,
                                    .at_ms = param_int(c, 2),
                                    .late = of && n <= of->forgotten,
                                    .entries = pg_model_copy(entries),
                                    .len = entries.len};
}

static bool addressed(struct pg_model *m, int64_t batch, int64_t tenant, int64_t seq)
{
    struct row_batch *b = pg_model_batch(m, batch);
    struct row_block *k = b && b->tenant == tenant ? pg_model_block(b, (int32_t)(seq / 1024)) : NULL;
    int64_t at = k ? seq % 1024 - k->first : -1;
    return at >= 0 && at < (int64_t)(8 * k->target_len) && k->targets[at / 8] >> at % 8 & 1;
}

void stmt_command_result_insert(struct stmt_call *c)
{
    size_t n;
    struct slice *batches = param_array(c, 0, &n), *tenants = param_array(c, 1, &n), *seqs = param_array(c, 2, &n),
                 *results = param_array(c, 3, &n), *attempts = param_array(c, 4, &n);
    for (size_t i = 0; i < n; i++) {
        int64_t batch = int_of_slice(batches[i]), seq = int_of_slice(seqs[i]);
        int16_t attempt = (int16_t)int_of_slice(attempts[i]);
        struct row_result *there = NULL;
        for (size_t k = 0; k < c->m->results.count && !there; k++)
            if (c->m->results.v[k].batch == batch && c->m->results.v[k].seq == seq)
                there = &c->m->results.v[k];
        if ((there && there->attempt >= attempt) || !results[i].len ||
            !addressed(c->m, batch, int_of_slice(tenants[i]), seq))
            continue;
        if (there)
            free(there->result);
        else
            there = table_add(&c->m->results);
        *there = (struct row_result){batch, (int32_t)seq, attempt, pg_model_copy(results[i]), results[i].len};
    }
    free(batches);
    free(tenants);
    free(seqs);
    free(results);
    free(attempts);
}

/* What devices say of themselves, and when they were here, is not modelled: no command depends on it. */
void stmt_device_information_update(struct stmt_call *c)
{
    (void)c;
}

void stmt_device_news_insert(struct stmt_call *c)
{
    (void)c;
}

void stmt_seen_add(struct stmt_call *c)
{
    (void)c;
}

void stmt_revocation_read(struct stmt_call *c)
{
    out_columns(c, 4);
    for (size_t i = 0; i < c->m->revoked.count; i++) {
        const struct row_revocation *r = &c->m->revoked.v[i];
        if (r->id <= param_int(c, 0))
            continue;
        out_int8(c, 0, r->id);
        out_int4(c, 1, r->tenant);
        out_int4(c, 2, r->seq);
        out_int8(c, 3, r->issued_before_ms);
        out_row(c);
    }
}

void stmt_signing_key_read(struct stmt_call *c)
{
    out_columns(c, 2);
    out_int4(c, 0, 1);
    out_bytes(c, 1, c->m->signing_key, sizeof c->m->signing_key);
    out_row(c);
}

/* --- leases ---------------------------------------------------------------------------------------------------------
 */

static void keep_text(char *out, size_t size, struct slice s)
{
    size_t n = s.len < size - 1 ? s.len : size - 1;
    memcpy(out, s.data, n);
    out[n] = 0;
}

void stmt_lease_acquire(struct stmt_call *c)
{
    struct pg_model *m = c->m;
    bool known = slice_is(param_bytes(c, 0), m->lease.name);
    out_columns(c, 1);
    out_row(c);
    c->row = 0;
    if ((known && m->lease.expires_ms > m->now_ms) ||
        (m->mutation != MUTATION_FENCE_OPEN && m->end_lock_holders && m->end_lock_holders(m->arg))) {
        out_null(c, 0);
        return;
    }
    keep_text(m->lease.name, sizeof m->lease.name, param_bytes(c, 0));
    keep_text(m->lease.holder, sizeof m->lease.holder, param_bytes(c, 1));
    m->lease.epoch = m->lease.epoch + 1 > m->now_ms ? m->lease.epoch + 1 : m->now_ms;
    m->lease.expires_ms = m->now_ms + param_int(c, 2);
    out_int8(c, 0, m->lease.epoch);
}

static bool lease_is(const struct stmt_call *c)
{
    const struct pg_model *m = c->m;
    return slice_is(param_bytes(c, 0), m->lease.name) && slice_is(param_bytes(c, 1), m->lease.holder) &&
           param_int(c, 2) == m->lease.epoch;
}

void stmt_lease_renew(struct stmt_call *c)
{
    bool kept = lease_is(c) && c->m->lease.expires_ms > c->m->now_ms;
    if (kept)
        c->m->lease.expires_ms = c->m->now_ms + param_int(c, 3);
    out_columns(c, 1);
    out_int8(c, 0, kept);
    out_row(c);
}

void stmt_clock_read(struct stmt_call *c)
{
    out_columns(c, 1);
    out_int8(c, 0, c->m->now_ms);
    out_row(c);
}

void stmt_lease_release(struct stmt_call *c)
{
    if (lease_is(c))
        c->m->lease.expires_ms = 0;
    out_columns(c, 1);
    out_int8(c, 0, 1);
    out_row(c);
}

void stmt_lease_fence(struct stmt_call *c)
{
    if (c->m->mutation != MUTATION_FENCE_OPEN && (!lease_is(c) || c->m->lease.expires_ms <= c->m->now_ms)) {
        c->sqlstate = "MU001";
        return;
    }
    out_columns(c, 1);
    out_int8(c, 0, 1);
    out_row(c);
}

void stmt_worker_number(struct stmt_call *c)
{
    out_columns(c, 1);
    out_int8(c, 0, ++c->m->worker_number);
    out_row(c);
}

void stmt_worker_lease(struct stmt_call *c)
{
    if (param_int(c, 0) > c->m->longest_lease)
        c->m->longest_lease = param_int(c, 0);
}

void stmt_worker_longest_lease(struct stmt_call *c)
{
    out_columns(c, 1);
    out_int8(c, 0, c->m->longest_lease);
    out_row(c);
}
