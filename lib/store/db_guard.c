#include "lib/store/db_guard.h"

#define POLICY_COLUMNS                                                                                                 \
    "p.enabled, p.kinds, p.devices_per_hour, p.percent_per_hour, p.cooling_off_ms, p.delay_ms, p.approval_ms"

void db_guard_lock(struct pg_txn *txn, int32_t tenant, const char *address)
{
    static const struct pg_stmt stmt = {"guard_lock",
                                        "SELECT guard_lock($1::integer), set_config('muster.address', $2::text, true)"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_text(txn, address);
}

void db_guard_accepted(struct pg_txn *txn, const struct db_accept *batch, const struct db_guard *guard)
{
    static const struct pg_stmt stmt = {
        "guard_accepted", "SELECT guard_accepted($1::integer, $2::text, $3::integer, $4::bigint, $5::text, $6::text)"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, batch->tenant);
    pg_put_text(txn, batch->request_id);
    pg_put_int4(txn, guard->kind);
    pg_put_int8(txn, guard->key);
    pg_put_text(txn, guard->digest);
    pg_put_text(txn, guard->command_hash);
}

void db_guard_foresee(struct pg_txn *txn, int32_t tenant, int kind, uint32_t devices, int64_t ends_ms)
{
    static const struct pg_stmt stmt = {
        "guard_foresee",
        "SELECT f.held, f.too_long_ms FROM guard_foresee($1::integer, $2::integer, $3::integer, $4::bigint) AS f"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4(txn, kind);
    pg_put_int4(txn, (int32_t)devices);
    pg_put_int8(txn, ends_ms);
}

void db_guard_approval(struct pg_txn *txn, int64_t batch)
{
    static const struct pg_stmt stmt = {
        "guard_approval", "SELECT a.state, a.needed, a.requested_by, a.expires_ms, a.decided_by, a.decided_ms,"
                          " a.release_ms, a.target_digest, a.command_hash, a.reason FROM batch_approval a"
                          " WHERE a.batch_id = $1::bigint"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, batch);
}

void db_guard_approval_read(const struct pg_result *r, int row, struct db_approval *out)
{
    *out = (struct db_approval){.state = (int16_t)pg_int(r, row, 0),
                                .needed = pg_bool(r, row, 1),
                                .requested_by = pg_int(r, row, 2),
                                .expires_ms = pg_int(r, row, 3),
                                .decided_by = pg_int(r, row, 4),
                                .decided_ms = pg_int(r, row, 5),
                                .release_ms = pg_int(r, row, 6),
                                .target_digest = pg_text(r, row, 7),
                                .command_hash = pg_text(r, row, 8),
                                .reason = pg_text(r, row, 9)};
}

void db_guard_decide(struct pg_txn *txn, int32_t tenant, int64_t batch, int64_t key, bool approve, const char *digest,
                     const char *command_hash, const char *reason)
{
    static const struct pg_stmt stmt = {"guard_decide",
                                        "SELECT d.refused FROM decide_batch($1::integer, $2::bigint, $3::bigint,"
                                        " $4::boolean, $5::text, $6::text, $7::text) AS d"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, batch);
    pg_put_int8(txn, key);
    pg_put_bool(txn, approve);
    pg_put_text(txn, digest);
    pg_put_text(txn, command_hash);
    pg_put_text(txn, reason);
}

void db_guard_release_due(struct pg_txn *txn, int32_t limit)
{
    static const struct pg_stmt stmt = {"guard_release_due", "SELECT d FROM release_due($1::integer) AS d"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, limit);
}

void db_guard_policy_get(struct pg_txn *txn, const char *tenant)
{
    static const struct pg_stmt stmt = {"guard_policy_get",
                                        "SELECT " POLICY_COLUMNS ", guard_left(p) FROM tenant t"
                                        " CROSS JOIN LATERAL guard_policy_of(t.id) AS p WHERE t.name = $1::text"};
    pg_txn_add(txn, &stmt);
    pg_put_text(txn, tenant);
}

void db_guard_policy_set(struct pg_txn *txn, const char *tenant, const struct db_guard_policy *policy, int64_t key)
{
    static const struct pg_stmt stmt = {
        "guard_policy_set", "SELECT " POLICY_COLUMNS ", 0 FROM set_guard_policy($1::text, $2::boolean, $3::integer,"
                            " $4::integer, $5::integer, $6::bigint, $7::bigint, $8::bigint, $9::bigint)"
                            " AS p"};
    pg_txn_add(txn, &stmt);
    pg_put_text(txn, tenant);
    pg_put_bool(txn, policy->enabled);
    pg_put_int4(txn, (int32_t)policy->kinds);
    pg_put_int4(txn, policy->devices_per_hour);
    pg_put_int4(txn, policy->percent_per_hour);
    pg_put_int8(txn, policy->cooling_off_ms);
    pg_put_int8(txn, policy->delay_ms);
    pg_put_int8(txn, policy->approval_ms);
    pg_put_int8(txn, key);
}

void db_guard_policy_read(const struct pg_result *r, int row, struct db_guard_policy *out)
{
    *out = (struct db_guard_policy){.enabled = pg_bool(r, row, 0),
                                    .kinds = (uint32_t)pg_int(r, row, 1),
                                    .devices_per_hour = (int32_t)pg_int(r, row, 2),
                                    .percent_per_hour = (int32_t)pg_int(r, row, 3),
                                    .cooling_off_ms = pg_int(r, row, 4),
                                    .delay_ms = pg_int(r, row, 5),
                                    .approval_ms = pg_int(r, row, 6),
                                    .left = (int32_t)pg_int(r, row, 7)};
}
