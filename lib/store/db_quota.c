#include "lib/store/db_quota.h"

bool db_quota_refused(struct db_quota_refusal *out, int64_t batch)
{
    if (batch >= 0)
        return false;
    uint64_t packed = 0 - (uint64_t)batch;
    *out = (struct db_quota_refusal){packed % 4 == DB_QUOTA_BATCHES ? DB_QUOTA_BATCHES : DB_QUOTA_RATE,
                                     (int64_t)(packed / 4)};
    return true;
}

void db_quota_get(struct pg_txn *txn, const char *tenant)
{
    static const struct pg_stmt stmt = {
        "quota_get", "SELECT q.devices, q.open_batches, q.commands_per_second, q.burst, q.used_devices, q.used_batches,"
                     " q.commands_left FROM quota_of($1::text) AS q"};
    pg_txn_add(txn, &stmt);
    pg_put_text(txn, tenant);
}

void db_quota_limits(struct pg_txn *txn, int32_t tenant)
{
    static const struct pg_stmt stmt = {
        "quota_limits", "SELECT q.devices, q.open_batches, q.commands_per_second, q.burst, 0, 0, 0::bigint FROM quota q"
                        " WHERE q.tenant_id = $1::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
}

void db_quota_grant(struct pg_txn *txn, int32_t tenant, uint32_t commands)
{
    static const struct pg_stmt stmt = {"quota_grant", "SELECT quota_grant($1::integer, $2::integer)"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4(txn, (int32_t)commands);
}

void db_quota_set(struct pg_txn *txn, const char *tenant, const struct db_quota *quota, int64_t key, int64_t now_ms)
{
    static const struct pg_stmt stmt = {
        "quota_set", "SELECT q.devices, q.open_batches, q.commands_per_second, q.burst, 0, 0, 0::bigint"
                     " FROM set_quota($1::text, $2::integer, $3::integer, $4::integer, $5::integer, $6::bigint,"
                     " $7::bigint) AS q"};
    pg_txn_add(txn, &stmt);
    pg_put_text(txn, tenant);
    pg_put_int4(txn, quota->devices);
    pg_put_int4(txn, quota->open_batches);
    pg_put_int4(txn, quota->commands_per_second);
    pg_put_int4(txn, quota->burst);
    pg_put_int8(txn, key);
    pg_put_int8(txn, now_ms);
}

void db_quota_read(const struct pg_result *r, int row, struct db_quota *out)
{
    *out = (struct db_quota){.devices = (int32_t)pg_int(r, row, 0),
                             .open_batches = (int32_t)pg_int(r, row, 1),
                             .commands_per_second = (int32_t)pg_int(r, row, 2),
                             .burst = (int32_t)pg_int(r, row, 3),
                             .used_devices = (int32_t)pg_int(r, row, 4),
                             .used_batches = (int32_t)pg_int(r, row, 5),
                             .commands_left = pg_int(r, row, 6)};
}
