#include "lib/store/db_control.h"

#include <string.h>

void db_control_pause(struct pg_txn *txn, int32_t tenant, int64_t batch, bool paused, const char *reason,
                      int64_t now_ms, int64_t key)
{
    static const struct pg_stmt stmt = {"control_pause",
                                        "SELECT p.changed FROM pause_batch($1::integer, $2::bigint, $3::boolean,"
                                        " $4::text, $5::bigint, $6::bigint) AS p"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, batch);
    pg_put_bool(txn, paused);
    pg_put_text(txn, reason);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, key);
}

void db_control_cancel_some(struct pg_txn *txn, int32_t tenant, int64_t batch, const int32_t *blocks,
                            const struct slice *slots, size_t n, int64_t now_ms, int64_t key)
{
    static const struct pg_stmt stmt = {"control_cancel_some",
                                        "SELECT c.changed FROM cancel_some($1::integer, $2::bigint, $3::integer[],"
                                        " $4::bytea[], $5::bigint, $6::bigint) AS c"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, batch);
    pg_put_int4_array(txn, blocks, n);
    pg_put_bytea_array(txn, slots, n);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, key);
}

void db_control_asked(struct pg_txn *txn, int limit)
{
    static const struct pg_stmt stmt = {
        /* By index: a join is planned while both are empty, and then reads every batch there is. */
        "control_asked",
        "SELECT c.batch_id, c.paused, c.request, b.closed, c.sealed FROM batch_control c CROSS JOIN LATERAL"
        " (SELECT b.closed_ms IS NOT NULL AS closed FROM batch b"
        " WHERE b.id = c.batch_id AND b.held_ms IS NULL OFFSET 0) AS b"
        " WHERE c.request > c.handled ORDER BY c.batch_id LIMIT $1::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, limit);
}

void db_control_asked_read(const struct pg_result *r, int row, struct db_control *out)
{
    *out = (struct db_control){.batch = (uint64_t)pg_int(r, row, 0),
                               .paused = pg_bool(r, row, 1),
                               .request = (int32_t)pg_int(r, row, 2),
                               .closed = pg_bool(r, row, 3),
                               .sealed = pg_bool(r, row, 4)};
}

void db_control_cancels(struct pg_txn *txn, uint64_t batch)
{
    static const struct pg_stmt stmt = {
        "control_cancels", "SELECT block, slots, superseded FROM batch_cancel WHERE batch_id = $1::bigint"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, (int64_t)batch);
}

void db_control_handled(struct pg_txn *txn, const int64_t *batches, const int32_t *requests, size_t n, int64_t now_ms)
{
    static const struct pg_stmt stmt = {
        /* In the order of numbers, as whoever supersedes several batches changes them (schema/postgres). */
        "control_handled", "WITH u AS MATERIALIZED (SELECT c.batch_id AS batch, u.request, coalesce("
                           " (SELECT b.closed_ms IS NOT NULL FROM batch b WHERE b.id = c.batch_id), true) AS closed"
                           " FROM batch_control c JOIN"
                           " (SELECT batch, max(request) AS request FROM unnest($1::bigint[], $2::integer[])"
                           " AS u (batch, request) GROUP BY batch) u ON u.batch = c.batch_id"
                           " ORDER BY c.batch_id FOR NO KEY UPDATE OF c), gone AS"
                           " (DELETE FROM batch_cancel x USING u WHERE x.batch_id = u.batch AND u.closed)"
                           " UPDATE batch_control c SET handled = u.request, handled_ms = $3::bigint FROM u"
                           " WHERE c.batch_id = u.batch AND c.handled < u.request"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, batches, n);
    pg_put_int4_array(txn, requests, n);
    pg_put_int8(txn, now_ms);
}

void db_control_closed(struct pg_txn *txn, const int64_t *batches, size_t n)
{
    static const struct pg_stmt stmt = {"control_closed",
                                        "DELETE FROM batch_cancel WHERE batch_id = ANY ($1::bigint[])"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, batches, n);
}

void db_control_release_wave(struct pg_txn *txn, int32_t tenant, int64_t batch, uint32_t wave, int64_t now_ms,
                             int64_t key)
{
    static const struct pg_stmt stmt = {"control_release_wave",
                                        "SELECT r.changed, r.released, r.waves FROM release_wave($1::integer,"
                                        " $2::bigint, $3::integer, $4::bigint, $5::bigint) AS r"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, batch);
    pg_put_int4(txn, wave > INT32_MAX ? INT32_MAX : (int32_t)wave);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, key);
}

void db_control_rollout(struct pg_txn *txn, uint64_t batch)
{
    static const struct pg_stmt stmt = {
        "control_rollout", "SELECT steering, wave, by_hand, stopped, acted, platform_acted, wave_ms, request,"
                           " canceled, rate_steps, rate_ended, rate_succeeded, paced_ms, server_ms()"
                           " FROM batch_control WHERE batch_id = $1::bigint"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, (int64_t)batch);
}

void db_control_rollout_read(const struct pg_result *r, int row, struct db_rollout *out)
{
    *out = (struct db_rollout){.steering = pg_bytes(r, row, 0),
                               .wave = (uint32_t)pg_int(r, row, 1),
                               .by_hand = (uint32_t)pg_int(r, row, 2),
                               .stopped = (uint32_t)pg_int(r, row, 3),
                               .acted = (uint32_t)pg_int(r, row, 4),
                               .wave_ms = pg_int(r, row, 6),
                               .now_ms = pg_int(r, row, 13),
                               .request = (int32_t)pg_int(r, row, 7),
                               .canceled = (uint32_t)pg_int(r, row, 8),
                               .pace = {.steps = (uint32_t)pg_int(r, row, 9),
                                        .ended = (uint32_t)pg_int(r, row, 10),
                                        .succeeded = (uint32_t)pg_int(r, row, 11),
                                        .last_ms = pg_int(r, row, 12)}};
    struct slice acted = pg_bytes(r, row, 5);
    if (acted.len == sizeof out->platform_acted)
        memcpy(out->platform_acted, acted.data, sizeof out->platform_acted);
}

void db_control_wave(struct pg_txn *txn, uint64_t batch, uint32_t wave)
{
    static const struct pg_stmt stmt = {"control_wave",
                                        "UPDATE batch_control SET wave = $2::integer, wave_ms = server_ms()"
                                        " WHERE batch_id = $1::bigint AND (wave < $2::integer"
                                        " OR wave = $2::integer AND wave_ms = 0)"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, (int64_t)batch);
    pg_put_int4(txn, (int32_t)wave);
}

void db_control_parts(struct pg_txn *txn, uint64_t batch)
{
    static const struct pg_stmt stmt = {"control_parts", "SELECT kind, block, slots FROM batch_part"
                                                         " WHERE batch_id = $1::bigint ORDER BY kind, block"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, (int64_t)batch);
}

bool db_control_part_read(const struct pg_result *r, int row, struct db_control_part *out)
{
    struct slice slots = pg_bytes(r, row, 2);
    *out = (struct db_control_part){.kind = (int)pg_int(r, row, 0), .block = (uint32_t)pg_int(r, row, 1)};
    if (slots.len != sizeof out->slots.bytes)
        return false;
    memcpy(out->slots.bytes, slots.data, sizeof out->slots.bytes);
    return true;
}

/* The batch is locked until it is over: what is closed is given no rows any more that nobody would delete. */
void db_control_let_go(struct pg_txn *txn, uint64_t batch, const struct db_pace *pace, const int32_t *blocks,
                       const struct slice *slots, size_t n)
{
    static const struct pg_stmt stmt = {
        "control_let_go", "WITH c AS (UPDATE batch_control SET rate_steps = $2::integer, rate_ended = $3::integer,"
                          " rate_succeeded = $4::integer, paced_ms = server_ms() WHERE batch_id = $1::bigint"
                          " AND rate_steps <= $2::integer),"
                          " b AS (SELECT id FROM batch WHERE id = $1::bigint AND closed_ms IS NULL FOR SHARE)"
                          " INSERT INTO batch_part (batch_id, kind, block, slots)"
                          " SELECT b.id, 3, u.block, u.slots FROM b, unnest($5::integer[], $6::bytea[])"
                          " AS u (block, slots)"
                          " ON CONFLICT (batch_id, kind, block) DO UPDATE"
                          " SET slots = bitmap_or(batch_part.slots, excluded.slots)"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, (int64_t)batch);
    pg_put_int4(txn, (int32_t)pace->steps);
    pg_put_int4(txn, (int32_t)pace->ended);
    pg_put_int4(txn, (int32_t)pace->succeeded);
    pg_put_int4_array(txn, blocks, n);
    pg_put_bytea_array(txn, slots, n);
}

void db_control_forget(struct pg_txn *txn, const int64_t *batches, size_t n)
{
    static const struct pg_stmt stmt = {"control_forget",
                                        "DELETE FROM batch_part WHERE batch_id = ANY ($1::bigint[]) AND kind = 3"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, batches, n);
}

void db_control_stop(struct pg_txn *txn, uint64_t batch, const struct db_stop *stop, int64_t now_ms)
{
    static const struct pg_stmt stmt = {
        "control_stop",
        "WITH c AS (UPDATE batch_control SET stopped = (stopped | $2::integer) & ~$3::integer,"
        " canceled = canceled | $3::integer, acted = acted | $4::integer,"
        " paused = paused OR $5::boolean, reason = $6::text, platform_acted = $7::bytea, request = request + 1"
        " WHERE batch_id = $1::bigint RETURNING batch_id, request)"
        " INSERT INTO batch_cancel AS x (batch_id, request, block, slots)"
        " SELECT c.batch_id, c.request, d.block, bitmap_union(d.slots) FROM c JOIN batch b ON b.id = c.batch_id"
        " JOIN batch_block k ON k.batch_id = b.id JOIN device_block d ON d.tenant_id = b.tenant_id"
        " AND d.block = k.block WHERE $3::integer >> d.platform & 1 = 1 GROUP BY 1, 2, 3"
        " ON CONFLICT (batch_id, block) WHERE NOT superseded DO UPDATE"
        " SET slots = bitmap_or(x.slots, excluded.slots), request = excluded.request"};
    static const struct pg_stmt noted = {
        "control_stop_noted", "INSERT INTO audit (at_ms, tenant_id, key_id, action, detail, devices, outcome, note)"
                              " SELECT $2::bigint, b.tenant_id, 0, 'stop_batch', b.id::text,"
                              " coalesce(nullif($3::bigint, -1), b.device_count), $4::text, $5::text FROM batch b"
                              " WHERE b.id = $1::bigint AND b.cancel_requested_ms IS NULL AND b.closed_ms IS NULL"};
    static const struct pg_stmt cancel = {"control_abort",
                                          "UPDATE batch SET cancel_requested_ms = $2::bigint WHERE id = $1::bigint"
                                          " AND cancel_requested_ms IS NULL AND closed_ms IS NULL"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, (int64_t)batch);
    pg_put_int4(txn, (int32_t)stop->platforms);
    pg_put_int4(txn, (int32_t)stop->canceled);
    pg_put_int4(txn, (int32_t)stop->acted);
    pg_put_bool(txn, stop->pause);
    pg_put_text(txn, stop->reason);
    pg_put_bytea(txn, stop->platform_acted, sizeof stop->platform_acted);
    pg_txn_add(txn, &noted);
    pg_put_int8(txn, (int64_t)batch);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, stop->devices < 0 ? -1 : stop->devices);
    pg_put_text(txn, stop->outcome);
    pg_put_text(txn, stop->note);
    if (!stop->abort)
        return;
    pg_txn_add(txn, &cancel);
    pg_put_int8(txn, (int64_t)batch);
    pg_put_int8(txn, now_ms);
}
