#include "lib/store/db_pending.h"

#include "lib/store/db_label.h"

#define HOUR_MS (3600 * 1000ll)

/* A day's row bears its last hour. */
void db_pending_device(struct pg_txn *txn, int32_t tenant, uint32_t seq, int64_t now_ms)
{
    static const struct pg_stmt stmt = {
        "pending_device",
        "SELECT d.platform, (SELECT CASE WHEN s.hour < $3::integer THEN s.hour - 23 ELSE s.hour END FROM device_seen s"
        " WHERE s.tenant_id = $1::integer AND s.block = $2::integer / 1024"
        " AND get_bit(s.slots, $2::integer % 1024) = 1 ORDER BY s.hour DESC LIMIT 1),"
        " EXISTS (SELECT FROM lease l WHERE l.name = 'leader' AND l.expires_ms > server_ms())"
        " FROM device d WHERE d.tenant_id = $1::integer AND d.seq = $2::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4(txn, (int32_t)seq);
    pg_put_int4(txn, (int32_t)(now_ms / HOUR_MS - DB_SEEN_KEEP_HOURS) / 24 * 24);
}

void db_pending_device_read(const struct pg_result *r, int row, struct db_pending_device *out)
{
    *out = (struct db_pending_device){.platform = (uint8_t)pg_int(r, row, 0),
                                      .seen_ms = (int32_t)pg_int(r, row, 1) * HOUR_MS,
                                      .led = pg_bool(r, row, 2)};
}

/* How many of the batch's devices come before, of those in no part: of earlier blocks, and in earlier slots of its own.
 */
#define RANK                                                                                                           \
    "(SELECT coalesce(sum(bit_count(k.targets)), 0)::bigint FROM batch_block k WHERE k.batch_id = b.id"                \
    " AND k.block < $2::integer / 1024)"                                                                               \
    " - (SELECT coalesce(sum(bit_count(p.slots)), 0)::bigint FROM batch_part p WHERE p.batch_id = b.id"                \
    " AND p.kind IN (1, 2) AND p.block < $2::integer / 1024)"                                                          \
    " + (SELECT count(*) FROM batch_block k CROSS JOIN LATERAL generate_series(k.first, $2::integer % 1024 - 1) AS s"  \
    " WHERE k.batch_id = b.id AND k.block = $2::integer / 1024 AND get_bit(k.targets, s - k.first) = 1"                \
    " AND NOT EXISTS (SELECT FROM batch_part p WHERE p.batch_id = b.id AND p.kind IN (1, 2) AND p.block = k.block"     \
    " AND get_bit(p.slots, s) = 1))"
#define PARTS                                                                                                          \
    " LEFT JOIN LATERAL (SELECT"                                                                                       \
    " coalesce(bool_or(p.kind = 1 AND p.block = $2::integer / 1024 AND get_bit(p.slots, $2::integer % 1024) = 1),"     \
    " false) AS canary,"                                                                                               \
    " coalesce(bool_or(p.kind = 2 AND p.block = $2::integer / 1024 AND get_bit(p.slots, $2::integer % 1024) = 1),"     \
    " false) AS joined,"                                                                                               \
    " coalesce(bool_or(p.kind = 3 AND p.block = $2::integer / 1024 AND get_bit(p.slots, $2::integer % 1024) = 1),"     \
    " false) AS had_turn,"                                                                                             \
    " sum(bit_count(p.slots)) FILTER (WHERE p.kind = 1)::bigint AS canaries,"                                          \
    " sum(bit_count(p.slots)) FILTER (WHERE p.kind = 2)::bigint AS joiners"                                            \
    " FROM batch_part p WHERE p.batch_id = b.id) q ON c.rollout"

void db_pending_batches(struct pg_txn *txn, int32_t tenant, uint32_t seq, const int64_t *batches, size_t n,
                        int64_t now_ms)
{
    static const struct pg_stmt stmt = {
        "pending_batches",
        "SELECT b.id, b.device_count, b.expires_ms, b.cancel_requested_ms, c.batch_id IS NOT NULL, c.paused,"
        " c.request > c.handled, c.reason, c.handled_ms, c.not_before_ms, c.deliver_by_ms,"
        " CASE WHEN c.rollout THEN c.steering END, c.wave, c.waves, CASE WHEN c.waves > 0 THEN " RANK " END,"
        " c.stopped, a.state, a.expires_ms, a.release_ms, c.time_window <> 0, z.zone, w.opens_ms, w.closes_ms,"
        " q.canary, q.joined, q.had_turn, q.canaries, q.joiners, c.rate_steps, EXISTS (SELECT FROM batch_control o"
        " JOIN batch d ON d.id = o.batch_id AND d.closed_ms IS NULL"
        " WHERE o.batch_id = ANY (c.supersedes) AND o.request > o.handled), b.routed_ms IS NOT NULL,"
        " c.retry_after, c.retry_attempts, c.retry_factor, c.retry_initial_ms, c.retry_max_ms"
        " FROM batch b LEFT JOIN batch_control c ON c.batch_id = b.id"
        " LEFT JOIN batch_approval a ON a.batch_id = b.id AND a.state IN (1, 2)" PARTS
        " LEFT JOIN LATERAL (SELECT coalesce((SELECT l.value FROM label_name m JOIN label_block k ON k.name_id = m.id"
        " AND k.block = $2::integer / 1024 JOIN label l ON l.id = k.label_id WHERE m.tenant_id = $1::integer"
        " AND m.name = 'attr.time_zone' AND get_bit(k.slots, $2::integer % 1024) = 1 LIMIT 1),"
        " nullif(c.window_zone, ''), 'UTC') AS zone) z ON c.time_window <> 0"
        " LEFT JOIN LATERAL next_window(z.zone, c.time_window & 127, c.time_window >> 7 & 2047, c.time_window >> 18,"
        " greatest($4::bigint, c.not_before_ms)) AS w ON c.time_window <> 0"
        " WHERE b.id = ANY ($3::bigint[]) AND b.tenant_id = $1::integer AND b.closed_ms IS NULL ORDER BY b.id"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4(txn, (int32_t)seq);
    pg_put_int8_array(txn, batches, n);
    pg_put_int8(txn, now_ms);
}

void db_pending_batch_read(const struct pg_result *r, int row, struct db_pending_batch *out)
{
    *out = (struct db_pending_batch){.id = pg_int(r, row, 0),
                                     .device_count = (uint32_t)pg_int(r, row, 1),
                                     .expires_ms = pg_int(r, row, 2),
                                     .cancel_requested_ms = pg_int(r, row, 3),
                                     .steered = pg_bool(r, row, 4),
                                     .paused = pg_bool(r, row, 5),
                                     .asked = pg_bool(r, row, 6),
                                     .reason = pg_text(r, row, 7),
                                     .handled_ms = pg_int(r, row, 8),
                                     .not_before_ms = pg_int(r, row, 9),
                                     .deliver_by_ms = pg_int(r, row, 10),
                                     .steering = pg_bytes(r, row, 11),
                                     .wave = (uint32_t)pg_int(r, row, 12),
                                     .waves = (uint32_t)pg_int(r, row, 13),
                                     .rank = pg_int(r, row, 14),
                                     .stopped = (uint32_t)pg_int(r, row, 15),
                                     .approval = (int)pg_int(r, row, 16),
                                     .approve_by_ms = pg_int(r, row, 17),
                                     .release_ms = pg_int(r, row, 18),
                                     .windowed = pg_bool(r, row, 19),
                                     .zone = pg_text(r, row, 20),
                                     .opens_ms = pg_int(r, row, 21),
                                     .closes_ms = pg_int(r, row, 22),
                                     .canary = pg_bool(r, row, 23),
                                     .joined = pg_bool(r, row, 24),
                                     .had_turn = pg_bool(r, row, 25),
                                     .canaries = (uint32_t)pg_int(r, row, 26),
                                     .joiners = (uint32_t)pg_int(r, row, 27),
                                     .rate_steps = (uint32_t)pg_int(r, row, 28),
                                     .older = pg_bool(r, row, 29),
                                     .routed = pg_bool(r, row, 30),
                                     .retry = {.after = (int32_t)pg_int(r, row, 31),
                                               .attempts = (int16_t)pg_int(r, row, 32),
                                               .factor = (int16_t)pg_int(r, row, 33),
                                               .initial_ms = pg_int(r, row, 34),
                                               .max_ms = pg_int(r, row, 35)}};
}
