#include "lib/store/db_dynamic.h"

void db_dynamic_accept(struct pg_txn *txn, const struct db_accept *b)
{
    static const struct pg_stmt stmt = {
        "dynamic_accept", "INSERT INTO batch_control AS c (batch_id, target, sealed, request)"
                          " SELECT b.id, $3::bytea, g.guarded, g.guarded::integer FROM batch b"
                          " CROSS JOIN LATERAL guard_mask_has(guard_mask(b.tenant_id), b.command) AS g (guarded)"
                          " WHERE b.tenant_id = $1::integer AND b.request_id = $2::text"
                          " AND b.xmin = pg_current_xact_id()::xid"
                          " ON CONFLICT (batch_id) DO UPDATE SET target = excluded.target, sealed = excluded.sealed,"
                          " request = c.request + excluded.request"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, b->tenant);
    pg_put_text(txn, b->request_id);
    pg_put_bytea(txn, b->dynamic.data, b->dynamic.len);
}

void db_dynamic_count(struct pg_txn *txn, int32_t tenant)
{
    static const struct pg_stmt stmt = {"dynamic_count",
                                        "SELECT count(*) FROM batch_control c JOIN batch b ON b.id = c.batch_id"
                                        " WHERE c.target IS NOT NULL AND b.closed_ms IS NULL"
                                        " AND b.tenant_id = $1::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
}

void db_dynamic_seal(struct pg_txn *txn, int32_t tenant, int64_t batch, int64_t now_ms, int64_t key)
{
    static const struct pg_stmt stmt = {"dynamic_seal",
                                        "SELECT s.changed, s.dynamic FROM seal_batch($1::integer, $2::bigint,"
                                        " $3::bigint, $4::bigint) AS s"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, batch);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, key);
}

void db_dynamic_target(struct pg_txn *txn, uint64_t batch)
{
    static const struct pg_stmt stmt = {"dynamic_target",
                                        "SELECT target, sealed FROM batch_control WHERE batch_id = $1::bigint"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, (int64_t)batch);
}

void db_dynamic_taken(struct pg_txn *txn, uint64_t batch)
{
    static const struct pg_stmt stmt = {"dynamic_taken", "SELECT 5, t.block, t.slots FROM join_taken($1::bigint) AS t"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, (int64_t)batch);
}

void db_dynamic_key(struct pg_txn *txn, const struct db_join *j)
{
    static const struct pg_stmt stmt = {"dynamic_key", "SELECT k.older, k.asked FROM join_key($1::integer, $2::bigint,"
                                                       " $3::integer[], $4::bytea[], $5::bytea[]) AS k"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, j->tenant);
    pg_put_int8(txn, (int64_t)j->batch);
    pg_put_int4_array(txn, j->blocks, j->count);
    pg_put_bytea_array(txn, j->targets, j->count);
    pg_put_bytea_array(txn, j->new, j->count);
}

void db_dynamic_join(struct pg_txn *txn, const struct db_join *j)
{
    static const struct pg_stmt stmt = {"dynamic_join",
                                        "SELECT j FROM join_batch($1::integer, $2::bigint, $3::integer, $4::integer[],"
                                        " $5::bytea[], $6::bytea[], $7::bytea[], $8::bigint) AS j"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, j->tenant);
    pg_put_int8(txn, (int64_t)j->batch);
    pg_put_int4(txn, (int32_t)j->devices);
    pg_put_int4_array(txn, j->blocks, j->count);
    pg_put_bytea_array(txn, j->targets, j->count);
    pg_put_bytea_array(txn, j->joined, j->count);
    pg_put_bytea_array(txn, j->new, j->count);
    pg_put_int8(txn, j->since_ms);
}
