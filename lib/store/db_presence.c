#include "lib/store/db_presence.h"

void db_presence_set(struct pg_txn *txn, int32_t tenant, bool enabled, int64_t key, int64_t now_ms)
{
    static const struct pg_stmt stmt = {"presence_set",
                                        "SELECT set_device_events($1::integer, $2::boolean, $3::bigint, $4::bigint)"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_bool(txn, enabled);
    pg_put_int8(txn, key);
    pg_put_int8(txn, now_ms);
}

void db_presence_get(struct pg_txn *txn, int32_t tenant)
{
    static const struct pg_stmt stmt = {
        "presence_get", "SELECT EXISTS (SELECT FROM presence_tenant p WHERE p.tenant_id = $1::integer)"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
}

void db_presence_tenants(struct pg_txn *txn)
{
    static const struct pg_stmt stmt = {
        "presence_tenants", "SELECT p.tenant_id, p.number, (t.next_seq + 1023) / 1024 FROM presence_tenant p"
                            " JOIN tenant t ON t.id = p.tenant_id ORDER BY p.tenant_id"};
    pg_txn_add(txn, &stmt);
}

void db_presence_tenant_read(const struct pg_result *r, int row, struct db_presence_tenant *out)
{
    *out = (struct db_presence_tenant){
        .tenant = (int32_t)pg_int(r, row, 0), .number = pg_int(r, row, 1), .blocks = (uint32_t)pg_int(r, row, 2)};
}

void db_presence_told(struct pg_txn *txn, int32_t tenant)
{
    static const struct pg_stmt stmt = {
        "presence_told", "SELECT p.block, p.slots FROM presence_block p WHERE p.tenant_id = $1::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
}

void db_presence_tell(struct pg_txn *txn, const struct db_presence *what)
{
    static const struct pg_stmt stmt = {"presence_tell",
                                        "SELECT presence_tell($1::integer, $2::bigint, $3::bigint, $4::integer[],"
                                        " $5::bytea[], $6::integer[], $7::integer[])"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, what->tenant);
    pg_put_int8(txn, what->number);
    pg_put_int8(txn, what->now_ms);
    pg_put_int4_array(txn, what->blocks, what->count);
    pg_put_bytea_array(txn, what->slots, what->count);
    pg_put_int4_array(txn, what->came, what->came_count);
    pg_put_int4_array(txn, what->gone, what->gone_count);
}
