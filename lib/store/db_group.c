/* Groups: the part of db_device.h that changes and lists them. */
#include "lib/store/db_device.h"

#define GROUP_COLUMNS "g.name, g.devices, g.created_ms, coalesce(g.filter, '')"

void db_group_get(struct pg_txn *txn, int32_t tenant, const char *name)
{
    db_group_find(txn, tenant, &name, 1);
}

void db_group_find(struct pg_txn *txn, int32_t tenant, const char *const *names, size_t n)
{
    static const struct pg_stmt stmt = {"group_find",
                                        "SELECT " GROUP_COLUMNS " FROM device_group g WHERE g.tenant_id = $1::integer"
                                        " AND g.name = ANY ($2::text[])"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_text_array(txn, names, n);
}

void db_group_list(struct pg_txn *txn, int32_t tenant, const char *after, int32_t limit)
{
    static const struct pg_stmt stmt = {"group_list",
                                        "SELECT " GROUP_COLUMNS " FROM device_group g WHERE g.tenant_id = $1::integer"
                                        " AND g.name > $2::text ORDER BY g.name LIMIT $3::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_text(txn, after);
    pg_put_int4(txn, limit);
}

void db_group_read(const struct pg_result *r, int row, struct db_group *out)
{
    *out = (struct db_group){pg_text(r, row, 0), (uint32_t)pg_int(r, row, 1), pg_int(r, row, 2), pg_text(r, row, 3)};
}

/* What the audit says of a change that was made: of `x`, which has `action`, `devices` and `note`. */
#define GROUP_AUDIT                                                                                                    \
    ", a AS (INSERT INTO audit (at_ms, tenant_id, key_id, action, detail, devices, note)"                              \
    " SELECT $3::bigint, $1::integer, $4::bigint, x.action, $2::text, x.devices, x.note FROM x"
/* The same, if every device that was named is known. */
#define MEMBERS_AUDIT GROUP_AUDIT " WHERE cardinality(x.unknown) = 0"

static void put_change(struct pg_txn *txn, int32_t tenant, const char *name, int64_t now_ms, int64_t key)
{
    pg_put_int4(txn, tenant);
    pg_put_text(txn, name);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, key);
}

void db_group_create(struct pg_txn *txn, int32_t tenant, const char *name, const char *const *ids, size_t n,
                     int64_t now_ms, int64_t key)
{
    static const struct pg_stmt stmt = {
        "group_create",
        "WITH x AS MATERIALIZED (SELECT c.made, c.devices, c.created_ms, c.unknown, 'create_group' AS action, '' AS "
        "note"
        " FROM create_group($1::integer, $2::text, $5::text[], $3::bigint) AS c)" MEMBERS_AUDIT " AND x.made)"
        " SELECT x.made, x.devices, x.created_ms, x.unknown FROM x"};
    pg_txn_add(txn, &stmt);
    put_change(txn, tenant, name, now_ms, key);
    pg_put_text_array(txn, ids, n);
}

void db_group_create_filter(struct pg_txn *txn, int32_t tenant, const char *name, const char *filter, int64_t now_ms,
                            int64_t key)
{
    static const struct pg_stmt stmt = {
        "group_create_filter",
        "WITH x AS (INSERT INTO device_group AS g (tenant_id, name, filter, created_ms)"
        " VALUES ($1::integer, $2::text, $5::text, $3::bigint) ON CONFLICT (tenant_id, name) DO NOTHING"
        " RETURNING g.*, 'create_group' AS action, g.filter AS note)" GROUP_AUDIT ") SELECT " GROUP_COLUMNS
        " FROM x g"};
    pg_txn_add(txn, &stmt);
    put_change(txn, tenant, name, now_ms, key);
    pg_put_text(txn, filter);
}

void db_group_change_filter(struct pg_txn *txn, int32_t tenant, const char *name, const char *filter, int64_t now_ms,
                            int64_t key)
{
    static const struct pg_stmt stmt = {
        "group_change_filter",
        "WITH x AS (UPDATE device_group g SET filter = $5::text WHERE g.tenant_id = $1::integer AND g.name = $2::text"
        " AND g.filter IS NOT NULL"
        " RETURNING g.*, 'update_group' AS action, g.filter AS note)" GROUP_AUDIT ") SELECT " GROUP_COLUMNS
        " FROM x g"};
    pg_txn_add(txn, &stmt);
    put_change(txn, tenant, name, now_ms, key);
    pg_put_text(txn, filter);
}

/* A group with a filter has no members to change. */
void db_group_change(struct pg_txn *txn, int32_t tenant, const char *name, const char *const *add, size_t n_add,
                     const char *const *remove, size_t n_remove, int64_t now_ms, int64_t key)
{
    static const struct pg_stmt stmt = {
        "group_change",
        "WITH x AS MATERIALIZED (SELECT c.devices, c.created_ms, c.unknown, 'update_group' AS action,"
        " cardinality($5::text[]) || ' to add, ' || cardinality($6::text[]) || ' to remove' AS note"
        " FROM device_group g CROSS JOIN LATERAL change_group(g.tenant_id, g.name, $5::text[], $6::text[]) AS c"
        " WHERE g.tenant_id = $1::integer AND g.name = $2::text AND g.filter IS NULL)" MEMBERS_AUDIT ")"
        " SELECT x.devices, x.created_ms, x.unknown FROM x"};
    pg_txn_add(txn, &stmt);
    put_change(txn, tenant, name, now_ms, key);
    pg_put_text_array(txn, add, n_add);
    pg_put_text_array(txn, remove, n_remove);
}

void db_group_delete(struct pg_txn *txn, int32_t tenant, const char *name, int64_t now_ms, int64_t key)
{
    static const struct pg_stmt stmt = {
        "group_delete", "WITH g AS (DELETE FROM device_group WHERE tenant_id = $1::integer AND name = $2::text"
                        " RETURNING name) INSERT INTO audit (at_ms, tenant_id, key_id, action, detail)"
                        " SELECT $3::bigint, $1::integer, $4::bigint, 'delete_group', g.name FROM g RETURNING 1"};
    pg_txn_add(txn, &stmt);
    put_change(txn, tenant, name, now_ms, key);
}
