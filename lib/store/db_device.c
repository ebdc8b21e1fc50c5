#include "lib/store/db_device.h"

#define DEVICE_COLUMNS "d.seq, d.id, d.platform, d.information, d.created_ms"

void db_device_get(struct pg_txn *txn, int32_t tenant, const char *id)
{
    static const struct pg_stmt stmt = {
        "device_get", "SELECT " DEVICE_COLUMNS ", 1::bigint FROM device d"
                      " WHERE d.tenant_id = $1::integer AND d.id = $2::text AND d.deleted_ms IS NULL"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_text(txn, id);
}

/* `bytes` counts the information before this row, so that there is always one. */
#define LIST_BOUNDED(rows)                                                                                             \
    "SELECT " DEVICE_COLUMNS ", d.total FROM (SELECT d.*, count(*) OVER () AS total,"                                  \
    " coalesce(sum(length(d.information)) OVER (ORDER BY d.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)"  \
    " AS bytes FROM (" rows ") d) d WHERE d.bytes < $5::bigint ORDER BY d.seq"

void db_device_list(struct pg_txn *txn, int32_t tenant, int64_t after, int platform, const char *group, int32_t limit,
                    int64_t bytes)
{
    static const struct pg_stmt all = {
        "device_list", LIST_BOUNDED("SELECT d.* FROM device d WHERE d.tenant_id = $1::integer AND d.seq > $2::bigint"
                                    " AND d.deleted_ms IS NULL AND ($3::integer = 0 OR d.platform = $3::integer)"
                                    " ORDER BY d.seq LIMIT $4::integer")};
    static const struct pg_stmt members = {
        "device_list_group",
        LIST_BOUNDED(
            "SELECT d.* FROM device_group g JOIN device_group_block m ON m.group_id = g.id"
            " JOIN device d ON d.tenant_id = $1::integer AND d.seq BETWEEN m.block * 1024 AND m.block * 1024 + 1023"
            " WHERE g.tenant_id = $1::integer AND g.name = $6::text AND m.block >= $2::bigint / 1024"
            " AND get_bit(m.slots, d.seq % 1024) = 1 AND d.seq > $2::bigint AND d.deleted_ms IS NULL"
            " AND ($3::integer = 0 OR d.platform = $3::integer) ORDER BY d.seq LIMIT $4::integer")};
    pg_txn_add(txn, group ? &members : &all);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, after);
    pg_put_int4(txn, platform);
    pg_put_int4(txn, limit);
    pg_put_int8(txn, bytes);
    if (group)
        pg_put_text(txn, group);
}

/* The LIMIT is there for the number of its parameter only: see LIST_BOUNDED. */
void db_device_list_of(struct pg_txn *txn, int32_t tenant, const int32_t *seqs, size_t n, int64_t bytes)
{
    static const struct pg_stmt stmt = {
        "device_list_of", LIST_BOUNDED("SELECT d.* FROM unnest($2::integer[]) AS u (seq) CROSS JOIN LATERAL"
                                       " (SELECT x.* FROM device x WHERE x.tenant_id = $1::integer AND x.seq = u.seq"
                                       " AND x.deleted_ms IS NULL AND $3::integer = 0 LIMIT 1) d LIMIT $4::integer")};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4_array(txn, seqs, n);
    pg_put_int4(txn, 0);
    pg_put_int4(txn, (int32_t)n);
    pg_put_int8(txn, bytes);
}

void db_device_read(const struct pg_result *r, int row, struct db_device *out)
{
    *out = (struct db_device){.seq = (uint32_t)pg_int(r, row, 0),
                              .id = pg_text(r, row, 1),
                              .platform = (int16_t)pg_int(r, row, 2),
                              .information = pg_bytes(r, row, 3),
                              .created_ms = pg_int(r, row, 4),
                              .total = pg_int(r, row, 5)};
}

/* One look-up by index for each id, whatever the planner believes of a table that grows under a prepared statement: the
 * LIMIT keeps it from making a join of this. */
#define DEVICE_OF_U                                                                                                    \
    "(SELECT x.seq FROM device x WHERE x.tenant_id = $1::integer AND x.id = u.id AND x.deleted_ms IS NULL LIMIT 1) d"

void db_device_seqs(struct pg_txn *txn, int32_t tenant, const char *const *ids, size_t n)
{
    static const struct pg_stmt stmt = {"device_seqs", "SELECT device_seqs($1::integer, $2::text[])"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_text_array(txn, ids, n);
}

/* The LATERAL makes it one range of the index for each run, whatever the planner believes of the table. */
void db_device_ids(struct pg_txn *txn, int32_t tenant, const int32_t *firsts, const int32_t *lasts, size_t n)
{
    static const struct pg_stmt stmt = {
        "device_ids", "SELECT coalesce(array_agg(d.seq), '{}'), coalesce(string_agg(d.id, ','), '')"
                      " FROM unnest($2::integer[], $3::integer[]) AS r (first, last) CROSS JOIN LATERAL"
                      " (SELECT x.seq, x.id FROM device x WHERE x.tenant_id = $1::integer"
                      " AND x.seq BETWEEN r.first AND r.last ORDER BY x.seq) d"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4_array(txn, firsts, n);
    pg_put_int4_array(txn, lasts, n);
}

void db_device_delete(struct pg_txn *txn, int32_t tenant, const char *id, int64_t now_ms, int64_t key)
{
    static const struct pg_stmt stmt = {
        "device_delete",
        "SELECT x.seq FROM delete_device($1::integer, $2::text, $3::bigint, $4::bigint, $5::bigint) AS x"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_text(txn, id);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, DB_REVOKED_FOR_GOOD_MS);
    pg_put_int8(txn, key);
}

void db_signing_key_ensure(struct pg_txn *txn, const uint8_t secret[32], int64_t now_ms)
{
    static const struct pg_stmt stmt = {"signing_key_ensure",
                                        "INSERT INTO signing_key (secret, created_ms) SELECT $1::bytea, $2::bigint"
                                        " WHERE NOT EXISTS (SELECT FROM signing_key)"};
    pg_txn_add(txn, &stmt);
    pg_put_bytea(txn, secret, 32);
    pg_put_int8(txn, now_ms);
}

void db_signing_key_get(struct pg_txn *txn)
{
    static const struct pg_stmt stmt = {"signing_key_get",
                                        "SELECT id, secret FROM signing_key ORDER BY id DESC LIMIT 1"};
    pg_txn_add(txn, &stmt);
}

void db_device_tokens(struct pg_txn *txn, int32_t tenant, const char *const *ids, size_t n)
{
    static const struct pg_stmt stmt = {
        "device_tokens", "SELECT d.seq, r.issued_before_ms FROM unnest($2::text[]) WITH ORDINALITY AS u (id, n)"
                         " LEFT JOIN LATERAL " DEVICE_OF_U " ON true"
                         " LEFT JOIN revocation r ON r.tenant_id = $1::integer AND r.seq = d.seq ORDER BY u.n"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_text_array(txn, ids, n);
}

void db_device_revoke(struct pg_txn *txn, int32_t tenant, const int32_t *seqs, size_t n, int64_t now_ms, int64_t key)
{
    static const struct pg_stmt stmt = {
        "device_revoke", "WITH a AS (INSERT INTO audit (at_ms, tenant_id, key_id, action, detail)"
                         " VALUES ($3::bigint, $1::integer, $4::bigint, 'revoke_tokens', cardinality($2::integer[]) ||"
                         " ' devices'))"
                         " SELECT x.seq, x.issued_before_ms FROM"
                         " revoke_tokens($1::integer, $2::integer[], $3::bigint) AS x"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4_array(txn, seqs, n);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, key);
}

void db_device_blocks(struct pg_txn *txn, int32_t tenant, int platform)
{
    static const struct pg_stmt stmt = {
        "device_blocks", "SELECT d.block, d.platform, d.slots FROM device_block d WHERE d.tenant_id = $1::integer"
                         " AND ($2::integer = 0 OR d.platform = $2::integer) ORDER BY d.block"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4(txn, platform);
}

void db_device_blocks_of(struct pg_txn *txn, int32_t tenant, int64_t batch)
{
    static const struct pg_stmt stmt = {"device_blocks_of",
                                        "SELECT d.block, d.platform, d.slots FROM batch_block k JOIN device_block d"
                                        " ON d.tenant_id = $1::integer AND d.block = k.block"
                                        " WHERE k.batch_id = $2::bigint ORDER BY d.block"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, batch);
}

bool db_device_block_read(const struct pg_result *r, int row, struct db_device_block *out)
{
    struct slice slots = pg_bytes(r, row, 2);
    out->block = (uint32_t)pg_int(r, row, 0);
    out->platform = (int16_t)pg_int(r, row, 1);
    return slots.len == BITMAP_BYTES && bitmap_untrim(&out->slots, 0, slots);
}
