/* Answers of PostgreSQL as the fuzzer wants them: any number of rows, any bytes in any column.
 * Owns: nothing. May call: libpq, tests/fuzz/input. Loop rule: none. */
#ifndef MUSTER_TESTS_FUZZ_ROWS_H
#define MUSTER_TESTS_FUZZ_ROWS_H

#include <libpq-fe.h>

#include "lib/store/pg_internal.h"
#include "tests/fuzz/input.h"

#define ROWS_MAX     6
#define ROWS_COLUMNS 28 /* more than any statement has */
#define ROWS_CELL    4096
#define ROWS_RESULTS 8

/* int4[] of `n` numbers, `first` and on, `step` apart. */
static inline void rows_put_array(struct buf *out, unsigned n, uint32_t first, uint32_t step)
{
    buf_put_u32be(out, 1);
    buf_put_u32be(out, 0);
    buf_put_u32be(out, 23);
    buf_put_u32be(out, n);
    buf_put_u32be(out, 1);
    for (unsigned i = 0; i < n; i++) {
        buf_put_u32be(out, 4);
        buf_put_u32be(out, first + i * step);
    }
}

/* A cell: numbers of all widths, arrays of numbers, or raw bytes. False for NULL. */
static inline bool rows_cell(struct slice *in, struct buf *out)
{
    uint8_t how = take_u8(in), small;
    struct slice raw;
    buf_reset(out);
    switch (how >> 5) {
    case 0: /* an int8 */
        for (int i = 0; i < 7; i++)
            buf_put_u8(out, 0);
        buf_put_u8(out, how);
        return true;
    case 1: /* an int4 */
        buf_put_u32be(out, how & 31);
        return true;
    case 2: /* a large int8 */
        small = take_u8(in);
        for (int i = 0; i < 8; i++)
            buf_put_u8(out, i < 3 ? 0 : small);
        return true;
    case 3:
        rows_put_array(out, how & 31, take_u8(in), 1);
        return true;
    case 4: /* many bytes alike */
        memset(buf_reserve(out, ROWS_CELL), take_u8(in), ROWS_CELL);
        buf_commit(out, (size_t)(how & 31) * 128);
        return true;
    case 5:
        return false;
    default:
        raw = take_bytes(in, how & 63);
        buf_put(out, raw.data, raw.len);
        return true;
    }
}

/* Returns owned, for PQclear. */
static inline PGresult *rows_make(struct slice *in)
{
    static PGresAttDesc columns[ROWS_COLUMNS];
    PGresult *r = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    struct buf cell = {0};
    int rows = take_u8(in) % (ROWS_MAX + 1);
    for (int c = 0; c < ROWS_COLUMNS; c++)
        columns[c] = (PGresAttDesc){.name = "column", .format = 1};
    check(r && PQsetResultAttrs(r, ROWS_COLUMNS, columns));
    for (int row = 0; row < rows; row++)
        for (int c = 0; c < ROWS_COLUMNS; c++) {
            bool there = rows_cell(in, &cell);
            check(PQsetvalue(r, row, c, there ? (char *)(uintptr_t)buf_slice(&cell).data : NULL,
                             there ? (int)buf_len(&cell) : -1));
        }
    buf_free(&cell);
    return r;
}

static inline const struct pg_result *rows_of(const PGresult *r)
{
    return (const struct pg_result *)(const void *)r;
}

/* What PostgreSQL says to a transaction, which goes: rows to each statement, or one of its errors. Without a
 * transaction there was no memory. */
static inline void rows_answer(struct pg_txn *txn, pg_done_fn *done, void *arg, struct slice *in)
{
    static const char *const states[] = {"", "22021", "40001", "57P01", "23505"};
    PGresult *results[ROWS_RESULTS];
    const struct pg_result *rows[ROWS_RESULTS];
    uint8_t how = take_u8(in);
    int n = txn ? txn->call_count : 0;
    check(n <= ROWS_RESULTS && (!txn || !txn->failed));
    if (!txn || how >= 250) {
        struct pg_error error = {.message = "it says no"};
        enum err err = !txn ? ERR_NOMEM : how == 255 ? ERR_UNAVAILABLE : ERR_INVALID;
        memcpy(error.sqlstate, states[how % 5], strlen(states[how % 5]) + 1);
        done(arg, err, &error, NULL, 0);
    } else {
        for (int i = 0; i < n; i++)
            rows[i] = rows_of(results[i] = rows_make(in));
        done(arg, ERR_OK, &(struct pg_error){.message = ""}, rows, (size_t)n);
        for (int i = 0; i < n; i++)
            PQclear(results[i]);
    }
    if (txn)
        pg_txn_destroy(txn);
}

#endif
