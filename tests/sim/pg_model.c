#include "tests/sim/pg_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 32

void *table_grow(void *v, size_t count, size_t *room, size_t size)
{
    if (count < *room)
        return v;
    *room = *room ? *room * 2 : 16;
    v = realloc(v, *room * size);
    if (!v)
        abort();
    return v;
}

struct pg_model *pg_model_new(void)
{
    struct pg_model *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->next_batch = m->next_stream = m->next_revocation = 1;
    return m;
}

static void batch_free(struct row_batch *b)
{
    for (size_t i = 0; i < b->block_count; i++) {
        free(b->blocks[i].targets);
        free(b->blocks[i].states);
        free(b->blocks[i].times);
        free(b->blocks[i].vals);
    }
    free(b->described);
    free(b->defaults);
    free(b->blocks);
    free(b->control.steering);
    free(b->control.target);
    free(b->request_id);
    free(b->command);
    free(b);
}

void pg_model_free(struct pg_model **out)
{
    struct pg_model *m = *out;
    if (!m)
        return;
    for (size_t i = 0; i < m->batches.count; i++)
        batch_free(m->batches.v[i]);
    for (size_t i = 0; i < m->log.count; i++)
        free(m->log.v[i].entries);
    for (size_t i = 0; i < m->results.count; i++)
        free(m->results.v[i].result);
    free(m->batches.v);
    free(m->log.v);
    free(m->streams.v);
    free(m->results.v);
    free(m->devices.v);
    free(m->canceling.v);
    free(m->revoked.v);
    free(m->tenants.v);
    free(m->cancels.v);
    free(m->gates.v);
    free(m->parts.v);
    free(m->keys.v);
    free(m);
    *out = NULL;
}

struct row_stream *pg_model_stream(struct pg_model *m, int64_t id)
{
    for (size_t i = 0; i < m->streams.count; i++)
        if (m->streams.v[i].id == id)
            return &m->streams.v[i];
    return NULL;
}

struct row_batch *pg_model_batch(struct pg_model *m, int64_t id)
{
    size_t low = 0, high = m->batches.count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (m->batches.v[mid]->id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < m->batches.count && m->batches.v[low]->id == id ? m->batches.v[low] : NULL;
}

struct row_block *pg_model_block(struct row_batch *b, int32_t block)
{
    for (size_t i = 0; b && i < b->block_count; i++)
        if (b->blocks[i].block == block)
            return &b->blocks[i];
    return NULL;
}

struct row_device *pg_model_device(struct pg_model *m, int32_t tenant, int32_t seq)
{
    for (size_t i = 0; i < m->devices.count; i++)
        if (m->devices.v[i].tenant == tenant && m->devices.v[i].seq == seq)
            return &m->devices.v[i];
    return NULL;
}

/* --- rows that statements of several files change ----------------------------------------------------------------- */

uint8_t *pg_model_copy(struct slice s)
{
    uint8_t *p = malloc(s.len + 1);
    if (!p)
        abort();
    if (s.len)
        memcpy(p, s.data, s.len);
    p[s.len] = 0;
    return p;
}

struct row_batch *pg_model_made(struct pg_model *m, int64_t tenant, struct slice request_id)
{
    for (size_t i = m->batches.count; i-- > 0;) {
        struct row_batch *b = m->batches.v[i];
        if (b->tenant == tenant && b->made_by == m->transactions && slice_is(request_id, b->request_id))
            return b;
    }
    return NULL;
}

struct row_block *pg_model_add_block(struct row_batch *b, int64_t block, int64_t first, struct slice targets)
{
    b->blocks = realloc(b->blocks, (b->block_count + 1) * sizeof *b->blocks);
    if (!b->blocks)
        abort();
    size_t at = b->block_count++;
    for (; at > 0 && b->blocks[at - 1].block > block; at--)
        b->blocks[at] = b->blocks[at - 1];
    b->blocks[at] = (struct row_block){
        .block = (int32_t)block, .first = (int16_t)first, .targets = pg_model_copy(targets), .target_len = targets.len};
    return &b->blocks[at];
}

struct row_part *pg_model_part(struct pg_model *m, int64_t batch, int16_t kind, int64_t block, bool make)
{
    for (size_t i = 0; i < m->parts.count; i++)
        if (m->parts.v[i].batch == batch && m->parts.v[i].kind == kind && m->parts.v[i].block == block)
            return &m->parts.v[i];
    if (!make)
        return NULL;
    struct row_part *p = table_add(&m->parts);
    *p = (struct row_part){.batch = batch, .kind = kind, .block = (int32_t)block};
    return p;
}

void pg_model_cancel_device(struct pg_model *m, int32_t tenant, int32_t seq)
{
    size_t at = 0;
    while (at < m->canceling.count && (m->canceling.v[at].tenant < tenant ||
                                       (m->canceling.v[at].tenant == tenant && m->canceling.v[at].seq < seq)))
        at++;
    if (at < m->canceling.count && m->canceling.v[at].tenant == tenant && m->canceling.v[at].seq == seq)
        return;
    (void)table_add(&m->canceling);
    memmove(&m->canceling.v[at + 1], &m->canceling.v[at], (m->canceling.count - 1 - at) * sizeof *m->canceling.v);
    m->canceling.v[at] = (struct row_cancel){tenant, seq};
}

/* --- parameters -------------------------------------------------------------------------------------------------- */

static const struct pg_param *param(const struct stmt_call *c, int i)
{
    if (i >= c->call->count)
        abort();
    return &c->txn->params[c->call->first + i];
}

bool param_null(const struct stmt_call *c, int i)
{
    return param(c, i)->len < 0;
}

struct slice param_bytes(const struct stmt_call *c, int i)
{
    const struct pg_param *p = param(c, i);
    if (p->len < 0)
        return (struct slice){0};
    return (struct slice){buf_head(&c->txn->data) + p->offset, (size_t)p->len};
}

int64_t int_of_slice(struct slice s)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++)
        v = v << 8 | s.data[i];
    return s.len == 2 ? (int16_t)v : s.len == 4 ? (int32_t)v : (int64_t)v;
}

int64_t param_int(const struct stmt_call *c, int i)
{
    return int_of_slice(param_bytes(c, i));
}

struct slice *param_array(const struct stmt_call *c, int i, size_t *n)
{
    struct slice s = param_bytes(c, i);
    uint32_t dimensions = 0, skip, count = 0, len;
    struct slice *v;
    if (s.len && (!slice_u32be(&s, &dimensions) || !slice_u32be(&s, &skip) || !slice_u32be(&s, &skip)))
        abort();
    if (dimensions && (!slice_u32be(&s, &count) || !slice_u32be(&s, &skip)))
        abort();
    v = calloc(count + 1, sizeof *v);
    for (uint32_t k = 0; v && k < count; k++)
        if (!slice_u32be(&s, &len) || (len != UINT32_MAX && !slice_bytes(&s, len, &v[k])))
            abort();
    if (!v)
        abort();
    *n = count;
    return v;
}

bool slice_is(struct slice s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

/* --- answers ----------------------------------------------------------------------------------------------------- */

void out_columns(struct stmt_call *c, int n)
{
    static char name[] = "column";
    PGresAttDesc columns[COLUMNS_MAX];
    if (n > COLUMNS_MAX)
        abort();
    for (int i = 0; i < n; i++)
        columns[i] = (PGresAttDesc){.name = name, .format = 1, .typlen = -1, .atttypmod = -1};
    if (!PQsetResultAttrs(c->result, n, columns))
        abort();
    c->columns = n;
}

void out_bytes(struct stmt_call *c, int col, const void *data, size_t len)
{
    if (!PQsetvalue(c->result, c->row, col, (char *)(uintptr_t)(len ? data : ""), (int)len))
        abort();
}

static void out_number(struct stmt_call *c, int col, int64_t v, size_t size)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)((uint64_t)v >> 8 * (size - 1 - i));
    out_bytes(c, col, bytes, size);
}

void out_int2(struct stmt_call *c, int col, int64_t v)
{
    out_number(c, col, v, 2);
}

void out_int4(struct stmt_call *c, int col, int64_t v)
{
    out_number(c, col, v, 4);
}

void out_int8(struct stmt_call *c, int col, int64_t v)
{
    out_number(c, col, v, 8);
}

void out_bool(struct stmt_call *c, int col, bool v)
{
    out_number(c, col, v, 1);
}

void out_null(struct stmt_call *c, int col)
{
    if (!PQsetvalue(c->result, c->row, col, NULL, -1))
        abort();
}

void out_row(struct stmt_call *c)
{
    c->row++;
}

/* --- executing --------------------------------------------------------------------------------------------------- */

static bool is_named(const struct pg_txn *txn, int index, const char *name)
{
    return strcmp(txn->calls[index].stmt->name, name) == 0;
}

/* Who holds the keys first draws none before: hold_keys waits for those that hold them. */
static bool holds_keys(const struct pg_txn *txn)
{
    bool holds = false;
    for (int i = 0; i < txn->call_count; i++)
        holds = holds || is_named(txn, i, "supersede_hold");
    return holds;
}

int64_t pg_model_draws(const struct pg_txn *txn, int index)
{
    const struct stmt_call c = {.txn = txn, .call = &txn->calls[index]};
    size_t n = 0;
    if (is_named(txn, index, "batch_accept") || is_named(txn, index, "batch_accept_steered") ||
        is_named(txn, index, "ack_stream_open") || is_named(txn, index, "open_new_stream"))
        return 1;
    if (is_named(txn, index, "batch_accept_devices"))
        free(param_array(&c, 0, &n));
    return (int64_t)n;
}

int64_t pg_model_draw(struct pg_model *m, const struct pg_txn *txn, int index)
{
    int64_t n = holds_keys(txn) ? 0 : pg_model_draws(txn, index);
    bool stream = is_named(txn, index, "ack_stream_open") || is_named(txn, index, "open_new_stream");
    int64_t *sequence = stream ? &m->next_stream : &m->next_batch, first = *sequence;
    *sequence += n;
    return n ? first : 0;
}

static int compare_name(const void *name, const void *stmt)
{
    return strcmp(name, ((const struct model_stmt *)stmt)->name);
}

static const struct model_stmt *model_of(const char *name)
{
    const struct model_stmt *s = bsearch(name, model_stmts, model_stmt_count, sizeof *s, compare_name);
    if (s)
        return s;
    fprintf(stderr, "pg_model: no statement %s\n", name);
    abort();
}

PGresult *pg_model_execute(struct pg_model *m, const struct pg_txn *txn, int index, int64_t reserved,
                           const char **sqlstate)
{
    struct stmt_call c = {.m = m, .txn = txn, .call = &txn->calls[index], .reserved = reserved};
    m->transactions += index == 0;
    c.result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    if (!c.result)
        abort();
    model_of(c.call->stmt->name)->fn(&c);
    if (!c.sqlstate)
        return c.result;
    *sqlstate = c.sqlstate;
    PQclear(c.result);
    return NULL;
}
