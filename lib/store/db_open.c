#include "lib/store/db_open.h"

#include <stdio.h>

/* A batch has no more blocks than devices, nor than its tenant. A held one is not there: see 015_guard.sql. */
#define OPEN_COLUMNS                                                                                                   \
    "SELECT b.id, b.tenant_id, b.priority, CASE WHEN c.target IS NULL THEN"                                            \
    " least(b.device_count, (t.next_seq + 1023) / 1024) ELSE (t.next_seq + 1023) / 1024 END, length(b.command),"       \
    " b.created_ms, b.expires_ms, b.routed_ms IS NOT NULL, b.cancel_requested_ms IS NOT NULL,"                         \
    " b.canceled_ms IS NOT NULL, c.batch_id IS NOT NULL, coalesce(c.paused, false), coalesce(c.request, 0),"           \
    " c.not_before_ms, c.deliver_by_ms, c.execution_ms, c.time_window, c.window_zone, c.rollout,"                      \
    " c.supersedes IS NOT NULL, coalesce(c.supersede_key, '') <> '', b.valued,"                                        \
    " c.target IS NOT NULL AND (NOT c.sealed OR c.supersede_key <> ''),"                                               \
    " c.retry_after, c.retry_attempts, c.retry_factor, c.retry_initial_ms, c.retry_max_ms"                             \
    " FROM batch b JOIN tenant t ON t.id = b.tenant_id LEFT JOIN batch_control c ON c.batch_id = b.id"                 \
    " WHERE b.closed_ms IS NULL AND b.held_ms IS NULL"

static void put_page(struct pg_txn *txn, const struct pg_stmt *stmt, uint64_t after, int limit)
{
    pg_txn_add(txn, stmt);
    pg_put_int8(txn, (int64_t)after);
    pg_put_int4(txn, limit);
}

void db_open_page(struct pg_txn *txn, uint64_t after, int limit)
{
    static const struct pg_stmt stmt = {"open_page",
                                        OPEN_COLUMNS " AND b.id > $1::bigint ORDER BY b.id LIMIT $2::integer"};
    put_page(txn, &stmt, after, limit);
}

void db_open_unrouted(struct pg_txn *txn, uint64_t after, int limit)
{
    static const struct pg_stmt stmt = {
        "open_unrouted", OPEN_COLUMNS " AND b.routed_ms IS NULL AND b.id > $1::bigint ORDER BY b.id LIMIT $2::integer"};
    put_page(txn, &stmt, after, limit);
}

void db_open_some(struct pg_txn *txn, const int64_t *ids, size_t n)
{
    static const struct pg_stmt stmt = {"open_some", OPEN_COLUMNS " AND b.id = ANY ($1::bigint[]) ORDER BY b.id"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, ids, n);
}

void db_closed_some(struct pg_txn *txn, const int64_t *ids, size_t n)
{
    static const struct pg_stmt stmt = {"closed_some", "SELECT id FROM batch WHERE id = ANY ($1::bigint[])"
                                                       " AND closed_ms IS NOT NULL ORDER BY id"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, ids, n);
}

void db_open_read(const struct pg_result *r, int row, struct db_open *out)
{
    *out = (struct db_open){.id = (uint64_t)pg_int(r, row, 0),
                            .tenant = (uint32_t)pg_int(r, row, 1),
                            .priority = (uint8_t)pg_int(r, row, 2),
                            .blocks = (uint32_t)pg_int(r, row, 3),
                            .command_bytes = (uint32_t)pg_int(r, row, 4),
                            .created_ms = pg_int(r, row, 5),
                            .expires_ms = pg_int(r, row, 6),
                            .routed = pg_bool(r, row, 7),
                            .cancel_requested = pg_bool(r, row, 8),
                            .canceled = pg_bool(r, row, 9),
                            .steered = pg_bool(r, row, 10),
                            .paused = pg_bool(r, row, 11),
                            .request = (int32_t)pg_int(r, row, 12),
                            .steer = {.not_before_ms = pg_int(r, row, 13),
                                      .deliver_by_ms = pg_int(r, row, 14),
                                      .execution_ms = pg_int(r, row, 15),
                                      .window = (int32_t)pg_int(r, row, 16),
                                      .rollout = pg_bool(r, row, 18),
                                      .retry = {.after = (int32_t)pg_int(r, row, 23),
                                                .attempts = (int16_t)pg_int(r, row, 24),
                                                .factor = (int16_t)pg_int(r, row, 25),
                                                .initial_ms = pg_int(r, row, 26),
                                                .max_ms = pg_int(r, row, 27)},
                                      .supersedes = pg_bool(r, row, 19)},
                            .keyed = pg_bool(r, row, 20),
                            .valued = pg_bool(r, row, 21),
                            .growing = pg_bool(r, row, 22)};
    snprintf(out->steer.zone, sizeof out->steer.zone, "%s", pg_text(r, row, 17));
}

void db_open_blocks(struct pg_txn *txn, const int64_t *ids, size_t n)
{
    static const struct pg_stmt stmt = {"open_blocks", "SELECT batch_id, block, first, targets, states FROM batch_block"
                                                       " WHERE batch_id = ANY ($1::bigint[]) ORDER BY batch_id, block"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, ids, n);
}

void db_open_block_read(const struct pg_result *r, int row, struct db_open_block *out)
{
    *out = (struct db_open_block){.batch = (uint64_t)pg_int(r, row, 0),
                                  .block = (uint32_t)pg_int(r, row, 1),
                                  .first = (uint16_t)pg_int(r, row, 2),
                                  .targets = pg_bytes(r, row, 3),
                                  .states = pg_bytes(r, row, 4)};
}

void db_open_times(struct pg_txn *txn, const int64_t *batches, const int32_t *blocks, size_t n)
{
    static const struct pg_stmt stmt = {
        "open_times", "SELECT b.batch_id, b.block, b.times FROM unnest($1::bigint[], $2::integer[]) AS u (batch, block)"
                      " JOIN batch_block b ON b.batch_id = u.batch AND b.block = u.block"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, batches, n);
    pg_put_int4_array(txn, blocks, n);
}

void db_open_commands(struct pg_txn *txn, const int64_t *ids, size_t n)
{
    /* By index whatever the planner believes of a table that grows under a prepared statement: see db_device.c. */
    static const struct pg_stmt stmt = {"open_commands",
                                        "SELECT u.id, b.command, CASE WHEN b.valued THEN (SELECT v.described FROM"
                                        " batch_values v WHERE v.batch_id = u.id) END, CASE WHEN b.valued THEN (SELECT"
                                        " v.defaults FROM batch_values v WHERE v.batch_id = u.id) END"
                                        " FROM unnest($1::bigint[]) AS u (id) CROSS JOIN LATERAL"
                                        " (SELECT x.command, x.valued FROM batch x WHERE x.id = u.id LIMIT 1) b"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, ids, n);
}

void db_open_canceling(struct pg_txn *txn, int limit)
{
    static const struct pg_stmt stmt = {"open_canceling",
                                        "SELECT id FROM batch WHERE cancel_requested_ms IS NOT NULL"
                                        " AND canceled_ms IS NULL AND closed_ms IS NULL ORDER BY id LIMIT $1::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, limit);
}

void db_open_deleted(struct pg_txn *txn, uint32_t tenant, uint32_t seq, int limit)
{
    static const struct pg_stmt stmt = {"open_deleted", "SELECT tenant_id, seq FROM device_cancel"
                                                        " WHERE (tenant_id, seq) > ($1::integer, $2::integer)"
                                                        " ORDER BY tenant_id, seq LIMIT $3::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, (int32_t)tenant);
    pg_put_int4(txn, (int32_t)seq);
    pg_put_int4(txn, limit);
}

void db_open_tenants(struct pg_txn *txn)
{
    static const struct pg_stmt stmt = {
        "open_tenants", "SELECT id, (next_seq + 1023) / 1024 FROM tenant WHERE next_seq > 0 ORDER BY id"};
    pg_txn_add(txn, &stmt);
}

void db_open_tenant_names(struct pg_txn *txn, const char *name)
{
    static const struct pg_stmt stmt = {"open_tenant_names", "SELECT id, (next_seq + 1023) / 1024, name FROM tenant"
                                                             " WHERE $1::text = '' OR name = $1::text ORDER BY id"};
    pg_txn_add(txn, &stmt);
    pg_put_text(txn, name);
}

/* Walks from stream to stream along the primary key, so that rows of a stream nobody announced are found too. */
void db_open_log(struct pg_txn *txn, const int64_t *streams, const int64_t *ns, size_t count, int limit)
{
    static const struct pg_stmt stmt = {
        "open_log", "WITH RECURSIVE s (stream) AS ("
                    " (SELECT stream FROM ack_log ORDER BY stream LIMIT 1) UNION ALL"
                    " SELECT (SELECT l.stream FROM ack_log l WHERE l.stream > s.stream ORDER BY l.stream LIMIT 1)"
                    " FROM s WHERE s.stream IS NOT NULL)"
                    "SELECT l.stream, l.n, l.at_ms, l.entries FROM s"
                    " LEFT JOIN unnest($1::bigint[], $2::bigint[]) AS c (stream, n) ON c.stream = s.stream"
                    " CROSS JOIN LATERAL (SELECT a.stream, a.n, a.at_ms, a.entries FROM ack_log a"
                    " WHERE a.stream = s.stream AND a.n > coalesce(c.n, 0) ORDER BY a.n LIMIT $3::integer) l"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, streams, count);
    pg_put_int8_array(txn, ns, count);
    pg_put_int4(txn, limit);
}

void db_open_fold(struct pg_txn *txn, const int64_t *batches, const int32_t *blocks, const struct slice *states,
                  const struct slice *times, size_t n)
{
    static const struct pg_stmt stmt = {
        "open_fold", "SELECT FROM fold_blocks($1::bigint[], $2::integer[], $3::bytea[], $4::bytea[])"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, batches, n);
    pg_put_int4_array(txn, blocks, n);
    pg_put_bytea_array(txn, states, n);
    pg_put_bytea_array(txn, times, n);
}

void db_open_forget_log(struct pg_txn *txn, const int64_t *streams, const int64_t *ns, size_t count)
{
    static const struct pg_stmt stmt = {
        "open_forget_log", "DELETE FROM ack_log l USING unnest($1::bigint[], $2::bigint[]) AS u (stream, n)"
                           " WHERE l.stream = u.stream AND l.n <= u.n"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, streams, count);
    pg_put_int8_array(txn, ns, count);
}

void db_open_routed(struct pg_txn *txn, const int64_t *ids, size_t n, int64_t now_ms)
{
    static const struct pg_stmt stmt = {
        "open_routed", "UPDATE batch SET routed_ms = $2::bigint WHERE id = ANY ($1::bigint[]) AND routed_ms IS NULL"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, ids, n);
    pg_put_int8(txn, now_ms);
}

/* What is canceled need not be routed any more. */
void db_open_canceled(struct pg_txn *txn, const int64_t *ids, size_t n, int64_t now_ms)
{
    static const struct pg_stmt stmt = {"open_canceled", "UPDATE batch SET canceled_ms = $2::bigint,"
                                                         " routed_ms = coalesce(routed_ms, $2::bigint)"
                                                         " WHERE id = ANY ($1::bigint[]) AND canceled_ms IS NULL"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, ids, n);
    pg_put_int8(txn, now_ms);
}

void db_open_closed(struct pg_txn *txn, const int64_t *ids, const int32_t *counts, size_t n, int64_t now_ms)
{
    static const struct pg_stmt stmt = {
        "open_closed",
        "WITH closed AS (UPDATE batch b SET closed_ms = $3::bigint, routed_ms = coalesce(b.routed_ms, $3::bigint),"
        " canceled_ms = CASE WHEN b.cancel_requested_ms IS NULL THEN NULL ELSE coalesce(b.canceled_ms, $3::bigint) END,"
        " counts = ($2::integer[])[u.n * 12 - 11 : u.n * 12]"
        " FROM unnest($1::bigint[]) WITH ORDINALITY AS u (id, n) WHERE b.id = u.id AND b.closed_ms IS NULL"
        " RETURNING b.id, b.tenant_id, b.device_count, b.counts) INSERT INTO ledger_inbox (event_tenants, events)"
        " SELECT array_agg(c.tenant_id ORDER BY c.id), array_agg('12,' || c.id || ',' || $3::bigint ||"
        " ',{\"deviceCount\":' || c.device_count || ',\"progress\":' || event_progress(c.counts) || '}' ORDER BY c.id)"
        " FROM closed c HAVING count(*) > 0"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, ids, n);
    pg_put_int4_array(txn, counts, n * STATE_COUNT);
    pg_put_int8(txn, now_ms);
}

void db_open_forget_deleted(struct pg_txn *txn, const int32_t *tenants, const int32_t *seqs, size_t n)
{
    static const struct pg_stmt stmt = {
        "open_forget_deleted",
        "DELETE FROM device_cancel d USING unnest($1::integer[], $2::integer[]) AS u (tenant, seq)"
        " WHERE d.tenant_id = u.tenant AND d.seq = u.seq"};
    pg_txn_add(txn, &stmt);
    pg_put_int4_array(txn, tenants, n);
    pg_put_int4_array(txn, seqs, n);
}

void db_open_new_stream(struct pg_txn *txn, const char *holder, int64_t now_ms)
{
    static const struct pg_stmt stmt = {
        "open_new_stream", "INSERT INTO ack_stream (worker, created_ms) VALUES ($1::text, $2::bigint) RETURNING id"};
    pg_txn_add(txn, &stmt);
    pg_put_text(txn, holder);
    pg_put_int8(txn, now_ms);
}

void db_open_append(struct pg_txn *txn, uint64_t stream, uint64_t first_n, const int64_t *at_ms,
                    const struct slice *entries, size_t n)
{
    static const struct pg_stmt stmt = {
        "open_append", "INSERT INTO ack_log (stream, n, at_ms, entries)"
                       " SELECT $1::bigint, $2::bigint + u.k - 1, u.at_ms, u.entries"
                       " FROM unnest($3::bigint[], $4::bytea[]) WITH ORDINALITY AS u (at_ms, entries, k)"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, (int64_t)stream);
    pg_put_int8(txn, (int64_t)first_n);
    pg_put_int8_array(txn, at_ms, n);
    pg_put_bytea_array(txn, entries, n);
}

void db_open_forget_streams(struct pg_txn *txn, int64_t before_ms)
{
    static const struct pg_stmt stmt = {"open_forget_streams",
                                        "DELETE FROM ack_stream s WHERE s.created_ms < $1::bigint"
                                        " AND NOT EXISTS (SELECT FROM ack_log l WHERE l.stream = s.id)"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, before_ms);
}
