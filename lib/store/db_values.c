#include "lib/store/db_values.h"

void db_values_accepted(struct pg_txn *txn, int32_t tenant, const char *request_id, const struct db_values *values,
                        const int32_t *blocks, size_t n)
{
    static const struct pg_stmt stmt = {"values_accepted",
                                        "SELECT values_accepted($1::integer, $2::text, $3::bytea, $4::bytea, $5::bytea,"
                                        " $6::integer[], $7::bytea[])"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_text(txn, request_id);
    pg_put_bytea(txn, values->described.data, values->described.len);
    pg_put_bytea(txn, values->defaults.data, values->defaults.len);
    pg_put_bytea(txn, values->salt, sizeof values->salt);
    pg_put_int4_array(txn, blocks, n);
    pg_put_bytea_array(txn, values->blocks, n);
}

void db_values_page(struct pg_txn *txn, int64_t batch, int32_t after, int64_t bytes)
{
    static const struct pg_stmt stmt = {
        "values_page", "SELECT v.block, v.vals FROM (SELECT x.block, x.vals, coalesce(sum(length(x.vals)) OVER"
                       " (ORDER BY x.block ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before"
                       " FROM batch_value_block x WHERE x.batch_id = $1::bigint AND x.block > $2::integer) v"
                       " WHERE v.before < $3::bigint ORDER BY v.block"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, batch);
    pg_put_int4(txn, after);
    pg_put_int8(txn, bytes);
}
