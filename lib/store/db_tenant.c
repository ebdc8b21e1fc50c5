#include "lib/store/db_tenant.h"

#define TENANT_COLUMNS "t.id, t.name, t.devices, t.created_ms"
#define KEY_COLUMNS    "k.id, k.tenant_id, k.role, k.secret_hash, k.description, t.name, k.created_ms, k.revoked_ms"

void db_tenant_create(struct pg_txn *txn, const char *name, int64_t now_ms, int64_t key)
{
    static const struct pg_stmt stmt = {
        "tenant_create", "WITH t AS (INSERT INTO tenant (name, created_ms) VALUES ($1::text, $2::bigint)"
                         " ON CONFLICT (name) DO NOTHING RETURNING id, name, devices, created_ms),"
                         " a AS (INSERT INTO audit (at_ms, tenant_id, key_id, action, detail)"
                         " SELECT $2::bigint, t.id, nullif($3::bigint, 0), 'create_tenant', t.name FROM t)"
                         " SELECT " TENANT_COLUMNS " FROM t"};
    pg_txn_add(txn, &stmt);
    pg_put_text(txn, name);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, key);
}

void db_tenant_get(struct pg_txn *txn, const char *name)
{
    static const struct pg_stmt stmt = {"tenant_get",
                                        "SELECT " TENANT_COLUMNS " FROM tenant t WHERE t.name = $1::text"};
    pg_txn_add(txn, &stmt);
    pg_put_text(txn, name);
}

void db_tenant_list(struct pg_txn *txn, const char *after, int32_t limit)
{
    static const struct pg_stmt stmt = {"tenant_list", "SELECT " TENANT_COLUMNS " FROM tenant t WHERE t.name > $1::text"
                                                       " ORDER BY t.name LIMIT $2::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_text(txn, after);
    pg_put_int4(txn, limit);
}

void db_tenant_read(const struct pg_result *r, int row, struct db_tenant *out)
{
    *out = (struct db_tenant){.id = (int32_t)pg_int(r, row, 0),
                              .name = pg_text(r, row, 1),
                              .devices = (uint32_t)pg_int(r, row, 2),
                              .created_ms = pg_int(r, row, 3)};
}

void db_key_create(struct pg_txn *txn, const char *tenant, int role, const uint8_t hash[32], const char *description,
                   int64_t now_ms, int64_t by_key)
{
    static const struct pg_stmt stmt = {
        "key_create", "WITH k AS (INSERT INTO api_key (tenant_id, role, secret_hash, description, created_ms)"
                      " SELECT t.id, $2::smallint, $3::bytea, $4::text, $5::bigint FROM tenant t WHERE t.name = "
                      "$1::text RETURNING *),"
                      " a AS (INSERT INTO audit (at_ms, tenant_id, key_id, action, detail)"
                      " SELECT $5::bigint, k.tenant_id, nullif($6::bigint, 0), 'create_key', k.id::text FROM k)"
                      " SELECT " KEY_COLUMNS " FROM k JOIN tenant t ON t.id = k.tenant_id"};
    pg_txn_add(txn, &stmt);
    pg_put_text(txn, tenant);
    pg_put_int2(txn, (int16_t)role);
    pg_put_bytea(txn, hash, 32);
    pg_put_text(txn, description);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, by_key);
}

void db_key_get(struct pg_txn *txn, int64_t id)
{
    static const struct pg_stmt stmt = {
        "key_get",
        "SELECT " KEY_COLUMNS
        ", guard_mask(k.tenant_id) FROM api_key k JOIN tenant t ON t.id = k.tenant_id WHERE k.id = $1::bigint"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, id);
}

void db_key_list(struct pg_txn *txn, const char *tenant, int64_t after, int32_t limit)
{
    static const struct pg_stmt stmt = {
        "key_list", "SELECT " KEY_COLUMNS " FROM api_key k JOIN tenant t ON t.id = k.tenant_id"
                    " WHERE t.name = $1::text AND k.id > $2::bigint ORDER BY k.id LIMIT $3::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_text(txn, tenant);
    pg_put_int8(txn, after);
    pg_put_int4(txn, limit);
}

void db_key_revoke(struct pg_txn *txn, int64_t id, int64_t now_ms, int64_t by_key)
{
    static const struct pg_stmt stmt = {
        "key_revoke", "WITH k AS (UPDATE api_key SET revoked_ms = coalesce(revoked_ms, $2::bigint)"
                      " WHERE id = $1::bigint RETURNING *),"
                      " a AS (INSERT INTO audit (at_ms, tenant_id, key_id, action, detail)"
                      " SELECT $2::bigint, k.tenant_id, nullif($3::bigint, 0), 'revoke_key', k.id::text FROM k)"
                      " SELECT " KEY_COLUMNS " FROM k JOIN tenant t ON t.id = k.tenant_id"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, id);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, by_key);
}

void db_key_read(const struct pg_result *r, int row, struct db_key *out)
{
    *out = (struct db_key){.id = pg_int(r, row, 0),
                           .tenant = (int32_t)pg_int(r, row, 1),
                           .role = (int16_t)pg_int(r, row, 2),
                           .hash = pg_bytes(r, row, 3),
                           .description = pg_text(r, row, 4),
                           .tenant_name = pg_text(r, row, 5),
                           .created_ms = pg_int(r, row, 6),
                           .revoked_ms = pg_int(r, row, 7)};
}

uint32_t db_key_guarded(const struct pg_result *r, int row)
{
    return (uint32_t)pg_int(r, row, 8);
}
