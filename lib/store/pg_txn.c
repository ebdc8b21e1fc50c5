#include "lib/store/pg_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Type numbers of the element types (pg_type.dat of PostgreSQL: fixed for ever). */
#define OID_BYTEA 17
#define OID_INT8  20
#define OID_INT2  21
#define OID_INT4  23
#define OID_TEXT  25

struct pg_txn *pg_txn_new(struct pg *pg, int lane)
{
    struct pg_txn *txn = calloc(1, sizeof *txn);
    if (!txn)
        return NULL;
    list_init(&txn->link);
    txn->pg = pg;
    txn->lane = lane;
    return txn;
}

void pg_txn_destroy(struct pg_txn *txn)
{
    for (int i = 0; i < txn->result_count; i++)
        PQclear(txn->results[i]);
    PQclear(txn->error);
    free(txn->results);
    free(txn->params);
    free(txn->calls);
    buf_free(&txn->data);
    free(txn);
}

void pg_txn_free(struct pg_txn **txn)
{
    if (*txn)
        pg_txn_destroy(*txn);
    *txn = NULL;
}

/* An array with room for one more element; NULL (and the transaction failed, the array as it was) without memory. */
static void *grow(struct pg_txn *txn, void *array, int count, int *cap, size_t size)
{
    if (count < *cap)
        return array;
    int more = *cap ? *cap * 2 : 8;
    void *p = realloc(array, (size_t)more * size);
    if (p)
        *cap = more;
    else
        txn->failed = true;
    return p;
}

void pg_txn_add(struct pg_txn *txn, const struct pg_stmt *stmt)
{
    if (!txn)
        return;
    struct pg_call *calls = grow(txn, txn->calls, txn->call_count, &txn->call_cap, sizeof *calls);
    if (!calls)
        return;
    txn->calls = calls;
    txn->calls[txn->call_count++] = (struct pg_call){stmt, txn->param_count, 0};
}

/* Begins a parameter; its bytes follow in txn->data, then end_param. */
static struct pg_param *begin_param(struct pg_txn *txn)
{
    if (!txn || txn->failed || txn->call_count == 0)
        return NULL;
    struct pg_param *params = grow(txn, txn->params, txn->param_count, &txn->param_cap, sizeof *params);
    if (!params)
        return NULL;
    txn->params = params;
    struct pg_param *p = &txn->params[txn->param_count++];
    txn->calls[txn->call_count - 1].count++;
    *p = (struct pg_param){buf_len(&txn->data), 0};
    return p;
}

static void end_param(struct pg_txn *txn, struct pg_param *p)
{
    size_t n = buf_len(&txn->data) - p->offset;
    if (txn->data.failed || n > INT_MAX)
        txn->failed = true;
    else
        p->len = (int)n;
}

void pg_put_null(struct pg_txn *txn)
{
    struct pg_param *p = begin_param(txn);
    if (p)
        p->len = -1;
}

static void put_u64be(struct buf *b, uint64_t v)
{
    buf_put_u32be(b, (uint32_t)(v >> 32));
    buf_put_u32be(b, (uint32_t)v);
}

void pg_put_int2(struct pg_txn *txn, int16_t v)
{
    struct pg_param *p = begin_param(txn);
    if (!p)
        return;
    buf_put_u16be(&txn->data, (uint16_t)v);
    end_param(txn, p);
}

void pg_put_int4(struct pg_txn *txn, int32_t v)
{
    struct pg_param *p = begin_param(txn);
    if (!p)
        return;
    buf_put_u32be(&txn->data, (uint32_t)v);
    end_param(txn, p);
}

void pg_put_int8(struct pg_txn *txn, int64_t v)
{
    struct pg_param *p = begin_param(txn);
    if (!p)
        return;
    put_u64be(&txn->data, (uint64_t)v);
    end_param(txn, p);
}

void pg_put_bool(struct pg_txn *txn, bool v)
{
    pg_put_bytea(txn, &(uint8_t){v}, 1);
}

void pg_put_text(struct pg_txn *txn, const char *s)
{
    pg_put_bytea(txn, s, strlen(s));
}

void pg_put_bytea(struct pg_txn *txn, const void *data, size_t n)
{
    struct pg_param *p = begin_param(txn);
    if (!p)
        return;
    buf_put(&txn->data, data, n);
    end_param(txn, p);
}

/* Header of a binary array (array_recv in PostgreSQL's arrayfuncs.c): dimensions, has-null flag, element type, and for
 * the one dimension its length and lower bound. An empty array has no dimension. */
static struct pg_param *begin_array(struct pg_txn *txn, uint32_t oid, size_t n)
{
    struct pg_param *p = begin_param(txn);
    if (!p)
        return NULL;
    if (n > INT_MAX) {
        txn->failed = true;
        return NULL;
    }
    buf_put_u32be(&txn->data, n > 0);
    buf_put_u32be(&txn->data, 0);
    buf_put_u32be(&txn->data, oid);
    if (n > 0) {
        buf_put_u32be(&txn->data, (uint32_t)n);
        buf_put_u32be(&txn->data, 1);
    }
    return p;
}

void pg_put_int2_array(struct pg_txn *txn, const int16_t *v, size_t n)
{
    struct pg_param *p = begin_array(txn, OID_INT2, n);
    if (!p)
        return;
    for (size_t i = 0; i < n; i++) {
        buf_put_u32be(&txn->data, 2);
        buf_put_u16be(&txn->data, (uint16_t)v[i]);
    }
    end_param(txn, p);
}

void pg_put_int4_array(struct pg_txn *txn, const int32_t *v, size_t n)
{
    struct pg_param *p = begin_array(txn, OID_INT4, n);
    if (!p)
        return;
    for (size_t i = 0; i < n; i++) {
        buf_put_u32be(&txn->data, 4);
        buf_put_u32be(&txn->data, (uint32_t)v[i]);
    }
    end_param(txn, p);
}

void pg_put_int8_array(struct pg_txn *txn, const int64_t *v, size_t n)
{
    struct pg_param *p = begin_array(txn, OID_INT8, n);
    if (!p)
        return;
    for (size_t i = 0; i < n; i++) {
        buf_put_u32be(&txn->data, 8);
        put_u64be(&txn->data, (uint64_t)v[i]);
    }
    end_param(txn, p);
}

static void put_element(struct buf *b, const void *data, size_t n)
{
    buf_put_u32be(b, (uint32_t)n);
    buf_put(b, data, n);
}

void pg_put_text_array(struct pg_txn *txn, const char *const *v, size_t n)
{
    struct pg_param *p = begin_array(txn, OID_TEXT, n);
    if (!p)
        return;
    for (size_t i = 0; i < n; i++)
        put_element(&txn->data, v[i], strlen(v[i]));
    end_param(txn, p);
}

void pg_put_bytea_array(struct pg_txn *txn, const struct slice *v, size_t n)
{
    struct pg_param *p = begin_array(txn, OID_BYTEA, n);
    if (!p)
        return;
    for (size_t i = 0; i < n; i++)
        put_element(&txn->data, v[i].data, v[i].len);
    end_param(txn, p);
}

/* --- results ------------------------------------------------------------------------------------------------------ */

static const PGresult *raw(const struct pg_result *r)
{
    return (const PGresult *)(const void *)r;
}

int pg_rows(const struct pg_result *r)
{
    return PQntuples(raw(r));
}

bool pg_null(const struct pg_result *r, int row, int col)
{
    return PQgetisnull(raw(r), row, col);
}

struct slice pg_bytes(const struct pg_result *r, int row, int col)
{
    return (struct slice){(const uint8_t *)PQgetvalue(raw(r), row, col), (size_t)PQgetlength(raw(r), row, col)};
}

const char *pg_text(const struct pg_result *r, int row, int col)
{
    return PQgetvalue(raw(r), row, col);
}

static int64_t int_of(struct slice s)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++)
        v = v << 8 | s.data[i];
    switch (s.len) {
    case 2:
        return (int16_t)v;
    case 4:
        return (int32_t)v;
    default:
        return (int64_t)v;
    }
}

int64_t pg_int(const struct pg_result *r, int row, int col)
{
    struct slice s = pg_bytes(r, row, col);
    return s.len <= 8 ? int_of(s) : 0;
}

bool pg_bool(const struct pg_result *r, int row, int col)
{
    struct slice s = pg_bytes(r, row, col);
    return s.len == 1 && s.data[0];
}

/* Reads the header; the number of elements, 0 when it is no array of one dimension, never more than there can be. */
static size_t open_array(struct slice *s)
{
    uint32_t dimensions, flags, oid, n, bound;
    if (!slice_u32be(s, &dimensions) || !slice_u32be(s, &flags) || !slice_u32be(s, &oid) || dimensions != 1 ||
        !slice_u32be(s, &n) || !slice_u32be(s, &bound))
        return 0;
    return n <= s->len / sizeof n ? n : s->len / sizeof n;
}

/* Length -1 is a NULL element: empty here. */
static bool next_element(struct slice *s, struct slice *element)
{
    uint32_t len;
    if (!slice_u32be(s, &len))
        return false;
    return slice_bytes(s, len == UINT32_MAX ? 0 : len, element);
}

size_t pg_int_array(const struct pg_result *r, int row, int col, int64_t *out, size_t max)
{
    struct slice s = pg_bytes(r, row, col), element;
    size_t n = open_array(&s);
    for (size_t i = 0; i < n && i < max; i++) {
        if (!next_element(&s, &element))
            return i;
        out[i] = element.len <= 8 ? int_of(element) : 0;
    }
    return n;
}

void pg_bytes_array(const struct pg_result *r, int row, int col, void (*each)(void *arg, struct slice element),
                    void *arg)
{
    struct slice s = pg_bytes(r, row, col), element;
    size_t n = open_array(&s);
    for (size_t i = 0; i < n && next_element(&s, &element); i++)
        each(arg, element);
}
