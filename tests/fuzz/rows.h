/* Answers of PostgreSQL as the fuzzer wants them: any number of rows, any bytes in any column.
 * Owns: nothing. May call: libpq, tests/fuzz/input. Loop rule: none. */
#ifndef MUSTER_TESTS_FUZZ_ROWS_H
#define MUSTER_TESTS_FUZZ_ROWS_H

#include <libpq-fe.h>

#include "lib/store/pg.h"
#include "tests/fuzz/input.h"

#define ROWS_MAX     6
#define ROWS_COLUMNS 28 /* more than any statement has */
#define ROWS_CELL    4096

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

#endif
