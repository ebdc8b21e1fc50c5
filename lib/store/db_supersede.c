#include "lib/store/db_supersede.h"

void db_supersede_hold(struct pg_txn *txn, const int32_t *tenants, const char *const *keys, size_t n)
{
    static const struct pg_stmt stmt = {"supersede_hold", "SELECT hold_keys($1::integer[], $2::text[])"};
    pg_txn_add(txn, &stmt);
    pg_put_int4_array(txn, tenants, n);
    pg_put_text_array(txn, keys, n);
}

void db_supersede_accept(struct pg_txn *txn, const struct db_accept *batch)
{
    static const struct pg_stmt stmt = {"supersede_accept", "SELECT accept_key($1::integer, $2::text, $3::text)"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, batch->tenant);
    pg_put_text(txn, batch->request_id);
    pg_put_text(txn, batch->supersede_key);
}

void db_supersede_older(struct pg_txn *txn, uint64_t batch)
{
    static const struct pg_stmt stmt = {
        "supersede_older", "SELECT coalesce(supersedes, '{}') FROM batch_control WHERE batch_id = $1::bigint"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, (int64_t)batch);
}

void db_supersede_closed(struct pg_txn *txn, const int64_t *ids, size_t n)
{
    static const struct pg_stmt stmt = {
        "supersede_closed", "WITH barred AS (DELETE FROM batch_part WHERE batch_id = ANY ($1::bigint[]) AND kind = 4)"
                            " DELETE FROM batch_key WHERE batch_id = ANY ($1::bigint[])"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, ids, n);
}
