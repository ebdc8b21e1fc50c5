#include "lib/store/db_window.h"

#include <string.h>

void db_window_zone_known(struct pg_txn *txn, const char *zone)
{
    static const struct pg_stmt stmt = {"window_zone_known", "SELECT is_iana_zone($1::text)"};
    pg_txn_add(txn, &stmt);
    pg_put_text(txn, zone);
}

void db_window_of_devices(struct pg_txn *txn, int32_t tenant, const int32_t *blocks, const struct slice *targets,
                          size_t n, const struct db_window *window, int64_t from_ms)
{
    static const struct pg_stmt stmt = {"window_of_devices",
                                        "SELECT w.zone, w.opens_ms FROM windows_of_devices($1::integer, $2::integer[],"
                                        " $3::bytea[], $4::text, $5::integer, $6::integer, $7::integer, $8::bigint)"
                                        " AS w"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4_array(txn, blocks, n);
    pg_put_bytea_array(txn, targets, n);
    pg_put_text(txn, window->zone);
    pg_put_int4(txn, window->days);
    pg_put_int4(txn, window->from);
    pg_put_int4(txn, window->until);
    pg_put_int8(txn, from_ms);
}

void db_window_zones(struct pg_txn *txn, int32_t tenant, const int32_t *blocks, size_t n)
{
    static const struct pg_stmt stmt = {
        "window_zones", "SELECT z.zone, z.block, z.zone_slots FROM zones_of_blocks($1::integer, $2::integer[]) AS z"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4_array(txn, blocks, n);
}

bool db_window_zone_read(const struct pg_result *r, int row, struct db_window_zone *out)
{
    struct slice s = pg_bytes(r, row, 2);
    uint32_t bits;
    out->zone = pg_text(r, row, 0);
    out->block = (uint32_t)pg_int(r, row, 1);
    if (!slice_u32be(&s, &bits) || bits != BLOCK_SLOTS || s.len != BITMAP_BYTES)
        return false;
    memcpy(out->slots.bytes, s.data, BITMAP_BYTES);
    bitmap_reverse_bytes(&out->slots);
    return true;
}

void db_window_next(struct pg_txn *txn, int32_t tenant, const struct db_window *window, int64_t now_ms)
{
    static const struct pg_stmt stmt = {
        "window_next",
        "SELECT z.zone, w.opens_ms, w.closes_ms FROM (SELECT l.value AS zone FROM label_name n JOIN label l"
        " ON l.name_id = n.id WHERE n.tenant_id = $1::integer AND n.name = 'attr.time_zone' UNION SELECT $2::text) z"
        " LEFT JOIN LATERAL next_window(z.zone, $3::integer, $4::integer, $5::integer, $6::bigint) AS w ON true"
        " ORDER BY 1"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_text(txn, window->zone);
    pg_put_int4(txn, window->days);
    pg_put_int4(txn, window->from);
    pg_put_int4(txn, window->until);
    pg_put_int8(txn, now_ms);
}
