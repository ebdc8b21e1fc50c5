#include "lib/store/db_gate.h"

#define GATE_COLUMNS                                                                                                   \
    "g.tenant_id, coalesce((SELECT t.name FROM tenant t WHERE t.id = g.tenant_id), ''), g.closed, g.number, g.reason," \
    " g.changed_ms, g.confirmed_ms"

void db_gate_closed(struct pg_txn *txn)
{
    static const struct pg_stmt stmt = {
        "gate_closed", "SELECT s.number, coalesce((SELECT array_agg(g.tenant_id ORDER BY g.tenant_id) FROM gate g"
                       " WHERE g.closed), '{}') FROM gate_state s"};
    pg_txn_add(txn, &stmt);
}

void db_gate_list(struct pg_txn *txn, int32_t tenant)
{
    static const struct pg_stmt stmt = {"gate_list", "SELECT " GATE_COLUMNS " FROM gate g WHERE $1::integer = 0"
                                                     " OR g.tenant_id IN (0, $1::integer) ORDER BY g.tenant_id"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
}

void db_gate_read(const struct pg_result *r, int row, struct db_gate *out)
{
    *out = (struct db_gate){.tenant = (int32_t)pg_int(r, row, 0),
                            .tenant_name = pg_text(r, row, 1),
                            .closed = pg_bool(r, row, 2),
                            .number = pg_int(r, row, 3),
                            .reason = pg_text(r, row, 4),
                            .changed_ms = pg_int(r, row, 5),
                            .confirmed_ms = pg_int(r, row, 6)};
}

void db_gate_set(struct pg_txn *txn, int32_t tenant, const char *name, bool closed, const char *reason, int64_t now_ms,
                 int64_t key)
{
    static const struct pg_stmt stmt = {"gate_set",
                                        "SELECT " GATE_COLUMNS " FROM set_gate($1::integer, $2::text, $3::boolean,"
                                        " $4::text, $5::bigint, $6::bigint) AS g"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    if (name)
        pg_put_text(txn, name);
    else
        pg_put_null(txn);
    pg_put_bool(txn, closed);
    pg_put_text(txn, reason);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, key);
}

void db_gate_confirm(struct pg_txn *txn, int64_t number, int64_t now_ms)
{
    static const struct pg_stmt stmt = {"gate_confirm", "UPDATE gate SET confirmed_ms = $2::bigint"
                                                        " WHERE number <= $1::bigint AND confirmed_ms IS NULL"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, number);
    pg_put_int8(txn, now_ms);
}

void db_gate_settle(struct pg_txn *txn, const int32_t *tenants, const int64_t *numbers, size_t n)
{
    static const struct pg_stmt stmt = {
        "gate_settle", "DELETE FROM gate g USING unnest($1::integer[], $2::bigint[]) AS u (tenant, number)"
                       " WHERE g.tenant_id = u.tenant AND g.number = u.number AND NOT g.closed"};
    pg_txn_add(txn, &stmt);
    pg_put_int4_array(txn, tenants, n);
    pg_put_int8_array(txn, numbers, n);
}
