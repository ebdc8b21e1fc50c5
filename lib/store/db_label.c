#include "lib/store/db_label.h"

#include <stdlib.h>

/* A bit(1024) as it is sent: the number of bits, then bytes with the most significant bit first. */
static bool read_slots(const struct pg_result *r, int row, int col, struct bitmap *out)
{
    struct slice s = pg_bytes(r, row, col);
    uint32_t bits;
    if (!slice_u32be(&s, &bits) || bits != BLOCK_SLOTS || s.len != BITMAP_BYTES)
        return false;
    memcpy(out->bytes, s.data, BITMAP_BYTES);
    bitmap_reverse_bytes(out);
    return true;
}

void db_label_import(struct pg_txn *txn, int32_t tenant, const char *const *ids, const int16_t *platforms, size_t n,
                     const struct db_labels *labels, int64_t now_ms)
{
    static const struct pg_stmt stmt = {
        "label_import", "SELECT i.created, i.updated FROM import_labelled($1::integer, $2::text[], $3::smallint[],"
                        " $4::bigint, $5::text[], $6::text[], $7::integer[], $8::integer[], $9::boolean, $10::integer)"
                        " AS i"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_text_array(txn, ids, n);
    pg_put_int2_array(txn, platforms, n);
    pg_put_int8(txn, now_ms);
    pg_put_text_array(txn, labels->names, labels->count);
    pg_put_text_array(txn, labels->values, labels->count);
    pg_put_int4_array(txn, labels->devices, labels->pairs);
    pg_put_int4_array(txn, labels->labels, labels->pairs);
    pg_put_bool(txn, labels->replace);
    pg_put_int4(txn, DB_ATTRIBUTE_NAMES_MAX);
}

void db_label_of_blocks(struct pg_txn *txn, int32_t tenant, const int32_t *blocks, size_t n)
{
    static const struct pg_stmt stmt = {"label_of_blocks",
                                        "SELECT n.name, l.value, k.block, k.slots FROM label_name n"
                                        " CROSS JOIN unnest($2::integer[]) AS b (block)"
                                        " JOIN label_block k ON k.name_id = n.id AND k.block = b.block"
                                        " JOIN label l ON l.id = k.label_id"
                                        " WHERE n.tenant_id = $1::integer ORDER BY n.name, l.value, k.block"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4_array(txn, blocks, n);
}

bool db_label_block_read(const struct pg_result *r, int row, struct db_label_block *out)
{
    out->name = pg_text(r, row, 0);
    out->value = pg_text(r, row, 1);
    out->block = (uint32_t)pg_int(r, row, 2);
    return read_slots(r, row, 3, &out->slots);
}

void db_seen_of_blocks(struct pg_txn *txn, int32_t tenant, const int32_t *blocks, size_t n)
{
    static const struct pg_stmt stmt = {
        "seen_of_blocks", "SELECT s.hour, s.block, s.slots FROM device_seen s WHERE s.tenant_id = $1::integer"
                          " AND s.block = ANY ($2::integer[]) ORDER BY s.hour DESC"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4_array(txn, blocks, n);
}

bool db_seen_block_read(const struct pg_result *r, int row, struct db_seen_block *out)
{
    out->hour = (int32_t)pg_int(r, row, 0);
    out->block = (uint32_t)pg_int(r, row, 1);
    return read_slots(r, row, 2, &out->slots);
}

void db_seen_forget(struct pg_txn *txn, int32_t hour)
{
    static const struct pg_stmt stmt = {"seen_forget", "SELECT forget_seen($1::integer, $2::integer, $3::integer)"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, hour);
    pg_put_int4(txn, DB_SEEN_KEEP_HOURS);
    pg_put_int4(txn, DB_SEEN_KEEP_DAYS);
}

/* The look before the call keeps an idle installation from taking the lock each time. */
void db_label_take_news(struct pg_txn *txn, int32_t rows)
{
    static const struct pg_stmt stmt = {"label_take_news", "SELECT CASE WHEN EXISTS (SELECT FROM device_news)"
                                                           " THEN take_device_news($1::integer, $2::integer) ELSE 0"
                                                           " END"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, rows);
    pg_put_int4(txn, DB_ATTRIBUTE_NAMES_MAX);
}

static void put_tests(struct pg_txn *txn, const struct db_filter_test *tests, size_t n, const char **fields,
                      int32_t *numbers, const char **values)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        fields[i] = tests[i].field;
    pg_put_text_array(txn, fields, n);
    for (size_t i = 0; i < n; i++)
        numbers[i] = tests[i].op;
    pg_put_int4_array(txn, numbers, n);
    for (size_t i = 0; i < n; i++) {
        numbers[i] = (int32_t)tests[i].count;
        for (size_t v = 0; v < tests[i].count; v++)
            values[count++] = tests[i].values[v];
    }
    pg_put_int4_array(txn, numbers, n);
    pg_put_text_array(txn, values, count);
}

bool db_filter_blocks(struct pg_txn *txn, int32_t tenant, const struct db_filter_test *tests, size_t n)
{
    static const struct pg_stmt stmt = {
        "filter_blocks", "SELECT f.test, f.block, f.slots FROM filter_blocks($1::integer, $2::text[], $3::integer[],"
                         " $4::integer[], $5::text[]) AS f"};
    size_t count = 1;
    for (size_t i = 0; i < n; i++)
        count += tests[i].count;
    const char **fields = malloc((n + 1) * sizeof *fields), **values = malloc(count * sizeof *values);
    int32_t *numbers = malloc((n + 1) * sizeof *numbers);
    bool made = fields && values && numbers;
    if (made) {
        pg_txn_add(txn, &stmt);
        pg_put_int4(txn, tenant);
        put_tests(txn, tests, n, fields, numbers, values);
    }
    free((void *)fields);
    free((void *)values);
    free(numbers);
    return made;
}

bool db_filter_block_read(const struct pg_result *r, int row, struct db_filter_block *out)
{
    out->test = (size_t)pg_int(r, row, 0) - 1;
    out->block = (uint32_t)pg_int(r, row, 1);
    return read_slots(r, row, 2, &out->slots);
}
