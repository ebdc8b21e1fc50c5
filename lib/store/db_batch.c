#include "lib/store/db_batch.h"

#include <stdlib.h>
#include <string.h>

#include "lib/store/db_audit.h"

#define BATCH_COLUMNS                                                                                                  \
    "b.id, b.request_id, b.description, b.request_hash, b.command, b.priority, b.device_count, b.unknown_count,"       \
    " b.created_ms, b.expires_ms, b.routed_ms, b.cancel_requested_ms, b.canceled_ms, b.closed_ms, b.counts,"           \
    " c.request > 0 OR c.steering IS NOT NULL OR c.target IS NOT NULL, c.paused, c.reason, c.request > c.handled, "    \
    "c.handled_ms,"                                                                                                    \
    " c.steering, c.not_before_ms, CASE WHEN c.waves > 0 THEN c.wave + 1 ELSE 0 END, c.stopped,"                       \
    " c.canceled, c.supersede_key, c.rate_steps, c.target IS NOT NULL, c.sealed, c.joined, c.retry_after,"             \
    " c.retry_attempts, c.retry_factor, c.retry_initial_ms, c.retry_max_ms, b.held_ms IS NOT NULL,"                    \
    " CASE WHEN b.valued THEN (SELECT v.described FROM batch_values v WHERE v.batch_id = b.id) END"
#define WITH_CONTROL   " LEFT JOIN batch_control c ON c.batch_id = b.id"
#define COLUMN_CONTROL 15
#define COLUMN_HELD    35
#define COLUMN_VALUES  36
#define COLUMN_TOTAL   37
#define COLUMN_UNKNOWN 38

void db_batch_get(struct pg_txn *txn, int32_t tenant, int64_t id)
{
    static const struct pg_stmt stmt = {"batch_get",
                                        "SELECT " BATCH_COLUMNS ", 1::bigint, b.unknown_ids FROM batch b" WITH_CONTROL
                                        " WHERE b.id = $2::bigint AND b.tenant_id = $1::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, id);
}

void db_batch_find(struct pg_txn *txn, int32_t tenant, const char *request_id)
{
    static const struct pg_stmt stmt = {"batch_find",
                                        "SELECT " BATCH_COLUMNS ", 1::bigint, b.unknown_ids FROM batch b" WITH_CONTROL
                                        " WHERE b.tenant_id = $1::integer AND b.request_id = $2::text"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_text(txn, request_id);
}

void db_batch_list(struct pg_txn *txn, int32_t tenant, int64_t before, int state, int32_t limit, int64_t bytes)
{
    static const struct pg_stmt stmt = {
        "batch_list",
        "SELECT " BATCH_COLUMNS ", b.total FROM (SELECT b.*, count(*) OVER () AS total,"
        " coalesce(sum(length(b.command)) OVER (ORDER BY b.id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),"
        " 0) AS bytes FROM (SELECT * FROM batch WHERE tenant_id = $1::integer AND id < $2::bigint"
        " AND CASE $3::integer WHEN 0 THEN true WHEN 1 THEN closed_ms IS NULL AND cancel_requested_ms IS NULL"
        " WHEN 2 THEN closed_ms IS NULL AND cancel_requested_ms IS NOT NULL ELSE closed_ms IS NOT NULL END"
        " ORDER BY id DESC LIMIT $4::integer) b) b" WITH_CONTROL " WHERE b.bytes < $5::bigint ORDER BY b.id DESC"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, before);
    pg_put_int4(txn, state);
    pg_put_int4(txn, limit);
    pg_put_int8(txn, bytes);
}

void db_batch_open(struct pg_txn *txn, int32_t tenant, int32_t limit)
{
    static const struct pg_stmt stmt = {
        "batch_open",
        "SELECT b.id, b.tenant_id, t.name, b.created_ms, (SELECT coalesce(array_agg("
        "k.block ORDER BY k.block), '{}') FROM batch_block k WHERE k.batch_id = b.id), b.held_ms IS NOT NULL, b.total"
        " FROM (SELECT id, tenant_id, created_ms, held_ms, count(*) OVER () AS total FROM batch WHERE closed_ms IS NULL"
        " AND ($1::integer = 0 OR tenant_id = $1::integer) ORDER BY id DESC LIMIT $2::integer) b"
        " JOIN tenant t ON t.id = b.tenant_id ORDER BY b.id DESC"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4(txn, limit);
}

void db_batch_read(const struct pg_result *r, int row, struct db_batch *out)
{
    *out = (struct db_batch){.id = pg_int(r, row, 0),
                             .request_id = pg_text(r, row, 1),
                             .description = pg_text(r, row, 2),
                             .request_hash = pg_bytes(r, row, 3),
                             .command = pg_bytes(r, row, 4),
                             .priority = (int16_t)pg_int(r, row, 5),
                             .device_count = (uint32_t)pg_int(r, row, 6),
                             .unknown_count = (uint32_t)pg_int(r, row, 7),
                             .created_ms = pg_int(r, row, 8),
                             .expires_ms = pg_int(r, row, 9),
                             .routed_ms = pg_int(r, row, 10),
                             .cancel_requested_ms = pg_int(r, row, 11),
                             .canceled_ms = pg_int(r, row, 12),
                             .closed_ms = pg_int(r, row, 13),
                             .steered = pg_bool(r, row, COLUMN_CONTROL),
                             .paused = pg_bool(r, row, COLUMN_CONTROL + 1),
                             .reason = pg_text(r, row, COLUMN_CONTROL + 2),
                             .asked = pg_bool(r, row, COLUMN_CONTROL + 3),
                             .handled_ms = pg_int(r, row, COLUMN_CONTROL + 4),
                             .steering = pg_bytes(r, row, COLUMN_CONTROL + 5),
                             .not_before_ms = pg_int(r, row, COLUMN_CONTROL + 6),
                             .waves_released = (uint32_t)pg_int(r, row, COLUMN_CONTROL + 7),
                             .stopped = (uint32_t)pg_int(r, row, COLUMN_CONTROL + 8),
                             .cohorts_canceled = (uint32_t)pg_int(r, row, COLUMN_CONTROL + 9),
                             .supersede_key = pg_text(r, row, COLUMN_CONTROL + 10),
                             .rate_steps = (uint32_t)pg_int(r, row, COLUMN_CONTROL + 11),
                             .dynamic = pg_bool(r, row, COLUMN_CONTROL + 12),
                             .sealed = pg_bool(r, row, COLUMN_CONTROL + 13),
                             .joined = (uint32_t)pg_int(r, row, COLUMN_CONTROL + 14),
                             .retry = {.after = (int32_t)pg_int(r, row, COLUMN_CONTROL + 15),
                                       .attempts = (int16_t)pg_int(r, row, COLUMN_CONTROL + 16),
                                       .factor = (int16_t)pg_int(r, row, COLUMN_CONTROL + 17),
                                       .initial_ms = pg_int(r, row, COLUMN_CONTROL + 18),
                                       .max_ms = pg_int(r, row, COLUMN_CONTROL + 19)},
                             .held = pg_bool(r, row, COLUMN_HELD),
                             .described = pg_bytes(r, row, COLUMN_VALUES),
                             .total = pg_int(r, row, COLUMN_TOTAL)};
    int64_t counts[STATE_COUNT] = {0};
    if (!pg_null(r, row, 14))
        pg_int_array(r, row, 14, counts, STATE_COUNT);
    for (unsigned s = 0; s < STATE_COUNT; s++)
        out->counts[s] = (uint32_t)counts[s];
}

void db_batch_unknown(const struct pg_result *r, int row, void (*each)(void *arg, struct slice id), void *arg)
{
    if (!pg_null(r, row, COLUMN_UNKNOWN))
        pg_bytes_array(r, row, COLUMN_UNKNOWN, each, arg);
}

void db_batch_accept(struct pg_txn *txn, const struct db_accept *b)
{
    static const struct pg_stmt steered = {
        "batch_accept_steered",
        "SELECT a.created, a.batch_id FROM accept_rollout($1::integer, $2::text, $3::bytea, $4::text, $5::bytea,"
        " $6::smallint, $7::integer, $8::integer, $9::text[], $10::bigint, $11::bigint, $12::integer[],"
        " $13::smallint[], $14::bytea[], $15::bytea, $16::bigint, $17::bigint, $18::bigint,"
        " $19::integer, $20::text, $21::boolean, $22::integer) AS a"};
    static const struct pg_stmt stmt = {
        "batch_accept", "SELECT a.created, a.batch_id FROM accept_batch($1::integer, $2::text, $3::bytea, $4::text,"
                        " $5::bytea, $6::smallint, $7::integer, $8::integer, $9::text[], $10::bigint, $11::bigint,"
                        " $12::integer[], $13::smallint[], $14::bytea[]) AS a"};
    pg_txn_add(txn, b->steering.len ? &steered : &stmt);
    pg_put_int4(txn, b->tenant);
    pg_put_text(txn, b->request_id);
    pg_put_bytea(txn, b->request_hash, sizeof b->request_hash);
    pg_put_text(txn, b->description);
    pg_put_bytea(txn, b->command.data, b->command.len);
    pg_put_int2(txn, b->priority);
    pg_put_int4(txn, (int32_t)b->device_count);
    pg_put_int4(txn, (int32_t)b->unknown_count);
    if (b->unknown_kept)
        pg_put_text_array(txn, b->unknown_ids, b->unknown_kept);
    else
        pg_put_null(txn);
    pg_put_int8(txn, b->created_ms);
    pg_put_int8(txn, b->expires_ms);
    pg_put_int4_array(txn, b->blocks, b->block_count);
    pg_put_int2_array(txn, b->firsts, b->block_count);
    pg_put_bytea_array(txn, b->targets, b->block_count);
    if (!b->steering.len)
        return;
    pg_put_bytea(txn, b->steering.data, b->steering.len);
    pg_put_int8(txn, b->steer.not_before_ms);
    pg_put_int8(txn, b->steer.deliver_by_ms);
    pg_put_int8(txn, b->steer.execution_ms);
    pg_put_int4(txn, b->steer.window);
    pg_put_text(txn, b->steer.zone);
    pg_put_bool(txn, b->steer.rollout);
    pg_put_int4(txn, b->steer.waves);
}

/* The batch `b` that this transaction has made. */
#define MADE "b.tenant_id = $1::integer AND b.request_id = $2::text AND b.xmin = pg_current_xact_id()::xid"

static void put_made(struct pg_txn *txn, const struct db_accept *b)
{
    pg_put_int4(txn, b->tenant);
    pg_put_text(txn, b->request_id);
}

void db_batch_accept_canary(struct pg_txn *txn, const struct db_accept *b)
{
    static const struct pg_stmt stmt = {"batch_accept_canary",
                                        "INSERT INTO batch_part (batch_id, kind, block, slots)"
                                        " SELECT b.id, 1, u.block, u.slots FROM batch b"
                                        " CROSS JOIN unnest($3::integer[], $4::bytea[]) AS u (block, slots)"
                                        " WHERE " MADE};
    pg_txn_add(txn, &stmt);
    put_made(txn, b);
    pg_put_int4_array(txn, b->canary_blocks, b->canary_count);
    pg_put_bytea_array(txn, b->canary_slots, b->canary_count);
}

void db_batch_accept_skipped(struct pg_txn *txn, const struct db_accept *b)
{
    static const struct pg_stmt stmt = {"batch_accept_skipped",
                                        "INSERT INTO batch_skipped (batch_id, count, ids) SELECT b.id, $3::integer,"
                                        " $4::text[] FROM batch b WHERE " MADE};
    pg_txn_add(txn, &stmt);
    put_made(txn, b);
    pg_put_int4(txn, (int32_t)b->skipped_count);
    pg_put_text_array(txn, b->skipped_ids, b->skipped_kept);
}

void db_batch_skipped(struct pg_txn *txn, int64_t batch)
{
    static const struct pg_stmt stmt = {"batch_skipped",
                                        "SELECT s.count, s.ids FROM batch_skipped s WHERE s.batch_id = $1::bigint"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, batch);
}

void db_batch_skipped_each(const struct pg_result *r, void (*each)(void *arg, struct slice id), void *arg)
{
    pg_bytes_array(r, 0, 1, each, arg);
}

void db_batch_hold_tenants(struct pg_txn *txn, const int32_t *tenants, size_t n)
{
    static const struct pg_stmt stmt = {
        "batch_hold_tenants", "SELECT 1 FROM tenant WHERE id = ANY ($1::integer[]) ORDER BY id FOR KEY SHARE"};
    pg_txn_add(txn, &stmt);
    pg_put_int4_array(txn, tenants, n);
}

/* The columns of many batches. */
struct columns {
    int32_t *tenants;
    int16_t *priorities;
    int64_t *created, *expires;
    const char **request_ids, **descriptions;
    struct slice *hashes, *commands;
    struct buf text; /* of the entries in the audit */
    const char **heads, **tails;
};

static bool columns_make(struct columns *c, const struct db_accept *const *batches, size_t n)
{
    c->tenants = calloc(n, sizeof *c->tenants);
    c->priorities = calloc(n, sizeof *c->priorities);
    c->created = calloc(n, sizeof *c->created);
    c->expires = calloc(n, sizeof *c->expires);
    c->request_ids = calloc(n, sizeof *c->request_ids);
    c->descriptions = calloc(n, sizeof *c->descriptions);
    c->hashes = calloc(n, sizeof *c->hashes);
    c->commands = calloc(n, sizeof *c->commands);
    c->heads = calloc(n, sizeof *c->heads);
    c->tails = calloc(n, sizeof *c->tails);
    for (size_t i = 0; i < n; i++) {
        db_audit_head(&c->text, batches[i]);
        db_audit_tail(&c->text, batches[i]);
    }
    if (!c->tenants || !c->priorities || !c->created || !c->expires || !c->request_ids || !c->descriptions ||
        !c->hashes || !c->commands || !c->heads || !c->tails || c->text.failed)
        return false;
    const char *next = (const char *)buf_slice(&c->text).data;
    for (size_t i = 0; i < n; i++) {
        const struct db_accept *b = batches[i];
        c->tenants[i] = b->tenant;
        c->priorities[i] = b->priority;
        c->created[i] = b->created_ms;
        c->expires[i] = b->expires_ms;
        c->request_ids[i] = b->request_id;
        c->descriptions[i] = b->description;
        c->hashes[i] = (struct slice){b->request_hash, sizeof b->request_hash};
        c->commands[i] = b->command;
        c->heads[i] = next;
        c->tails[i] = next + strlen(next) + 1;
        next = c->tails[i] + strlen(c->tails[i]) + 1;
    }
    return true;
}

static void columns_free(struct columns *c)
{
    free(c->tenants);
    free(c->priorities);
    free(c->created);
    free(c->expires);
    free(c->request_ids);
    free(c->descriptions);
    free(c->hashes);
    free(c->commands);
    free(c->heads);
    free(c->tails);
    buf_free(&c->text);
}

bool db_batch_accept_devices(struct pg_txn *txn, const struct db_accept *const *batches, const char *const *devices,
                             size_t n)
{
    static const struct pg_stmt stmt = {
        "batch_accept_devices",
        "SELECT a.seq, a.batch_id FROM accept_devices_noted($1::integer[], $2::text[], $3::bytea[], $4::text[],"
        " $5::bytea[], $6::smallint[], $7::bigint[], $8::bigint[], $9::text[], $10::text[], $11::text[]) AS a"};
    struct columns c = {0};
    bool made = columns_make(&c, batches, n);
    if (made) {
        pg_txn_add(txn, &stmt);
        pg_put_int4_array(txn, c.tenants, n);
        pg_put_text_array(txn, c.request_ids, n);
        pg_put_bytea_array(txn, c.hashes, n);
        pg_put_text_array(txn, c.descriptions, n);
        pg_put_bytea_array(txn, c.commands, n);
        pg_put_int2_array(txn, c.priorities, n);
        pg_put_int8_array(txn, c.created, n);
        pg_put_int8_array(txn, c.expires, n);
        pg_put_text_array(txn, devices, n);
        pg_put_text_array(txn, c.heads, n);
        pg_put_text_array(txn, c.tails, n);
    }
    columns_free(&c);
    return made;
}

void db_batch_accept_devices_read(const struct pg_result *r, int row, int32_t *seq, int64_t *id)
{
    *seq = (int32_t)pg_int(r, row, 0);
    *id = pg_int(r, row, 1);
}

void db_batch_cancel(struct pg_txn *txn, int32_t tenant, int64_t id, int64_t now_ms, int64_t key)
{
    static const struct pg_stmt stmt = {
        "batch_cancel", "WITH b AS (UPDATE batch SET cancel_requested_ms = $3::bigint WHERE id = $2::bigint"
                        " AND tenant_id = $1::integer AND cancel_requested_ms IS NULL AND closed_ms IS NULL"
                        " RETURNING id, device_count)"
                        " INSERT INTO audit (at_ms, tenant_id, key_id, action, detail, devices)"
                        " SELECT $3::bigint, $1::integer, $4::bigint, 'cancel_batch', b.id::text, b.device_count FROM b"
                        " RETURNING 1"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, id);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, key);
}

/* Entries hold numbers as their little-endian bytes, so that a search for these bytes finds every row that has the
 * batch (or device), and now and then one that has not. */
static void find_in_log(struct pg_txn *txn, const uint8_t *bytes, size_t n)
{
    static const struct pg_stmt stmt = {"log_find",
                                        "SELECT l.at_ms, l.entries FROM ack_log l"
                                        " WHERE position($1::bytea IN l.entries) > 0 ORDER BY l.stream, l.n"};
    pg_txn_add(txn, &stmt);
    pg_put_bytea(txn, bytes, n);
}

void db_batch_log(struct pg_txn *txn, int64_t batch)
{
    uint8_t bytes[8];
    store_u64le(bytes, (uint64_t)batch);
    find_in_log(txn, bytes, sizeof bytes);
}

void db_device_log(struct pg_txn *txn, uint32_t seq)
{
    uint8_t bytes[4];
    store_u32le(bytes, seq);
    find_in_log(txn, bytes, sizeof bytes);
}

void db_batch_blocks(struct pg_txn *txn, int64_t batch)
{
    static const struct pg_stmt stmt = {
        "batch_blocks",
        "SELECT coalesce(array_agg(block ORDER BY block), '{}') FROM batch_block WHERE batch_id = $1::bigint"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, batch);
}

void db_batch_addressed(struct pg_txn *txn, int64_t batch)
{
    static const struct pg_stmt stmt = {
        "batch_addressed", "SELECT block, first, targets FROM batch_block WHERE batch_id = $1::bigint ORDER BY block"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, batch);
}

bool db_batch_addressed_read(const struct pg_result *r, int row, struct db_batch_block *out)
{
    int64_t first = pg_int(r, row, 1);
    *out = (struct db_batch_block){.block = (uint32_t)pg_int(r, row, 0), .first = (uint16_t)first};
    return first >= 0 && first < BLOCK_SLOTS && bitmap_untrim(&out->targets, (unsigned)first, pg_bytes(r, row, 2));
}

void db_batch_states(struct pg_txn *txn, int64_t batch, const int32_t *blocks, size_t n)
{
    static const struct pg_stmt stmt = {"batch_states",
                                        "SELECT block, first, targets, states, times FROM batch_block"
                                        " WHERE batch_id = $1::bigint AND block = ANY ($2::integer[]) ORDER BY block"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, batch);
    pg_put_int4_array(txn, blocks, n);
}

void db_batch_targets(struct pg_txn *txn, int32_t tenant, int64_t batch, const int32_t *blocks, size_t n)
{
    static const struct pg_stmt stmt = {
        "batch_targets", "SELECT k.block, k.first, k.targets, NULL::bytea, NULL::bytea FROM batch_block k"
                         " JOIN batch b ON b.id = k.batch_id AND b.tenant_id = $1::integer"
                         " WHERE k.batch_id = $2::bigint AND k.block = ANY ($3::integer[])"
                         " ORDER BY k.block"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, batch);
    pg_put_int4_array(txn, blocks, n);
}

bool db_batch_block_read(const struct pg_result *r, int row, struct db_batch_block *out)
{
    int64_t first = pg_int(r, row, 1);
    struct slice targets = pg_bytes(r, row, 2), states = pg_bytes(r, row, 3), times = pg_bytes(r, row, 4);
    if (first < 0 || first >= BLOCK_SLOTS || !bitmap_untrim(&out->targets, (unsigned)first, targets))
        return false;
    out->block = (uint32_t)pg_int(r, row, 0);
    out->first = (uint16_t)first;
    out->states = states;
    out->times = times;
    return states.len <= 8 * targets.len && times.len <= 32 * targets.len;
}

void db_batch_results(struct pg_txn *txn, int64_t batch, const int32_t *firsts, const int32_t *lasts, size_t n,
                      int64_t bytes)
{
    static const struct pg_stmt stmt = {
        "batch_results",
        "SELECT r.seq, r.result, r.total FROM (SELECT c.*, count(*) OVER () AS total, coalesce(sum(length(c.result))"
        " OVER (ORDER BY c.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes"
        " FROM unnest($2::integer[], $3::integer[]) AS u (first, last) CROSS JOIN LATERAL"
        " (SELECT x.seq, x.result FROM command_result x WHERE x.batch_id = $1::bigint"
        " AND x.seq BETWEEN u.first AND u.last ORDER BY x.seq) c) r WHERE r.bytes < $4::bigint ORDER BY r.seq"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, batch);
    pg_put_int4_array(txn, firsts, n);
    pg_put_int4_array(txn, lasts, n);
    pg_put_int8(txn, bytes);
}

void db_device_commands(struct pg_txn *txn, int32_t tenant, uint32_t seq, int64_t before, int32_t limit, int64_t bytes)
{
    static const struct pg_stmt stmt = {
        "device_commands",
        "SELECT c.id, c.created_ms, c.routed_ms, c.closed_ms,"
        " CASE WHEN length(c.states) > c.at THEN get_byte(c.states, c.at) WHEN c.held THEN 1 END,"
        " CASE WHEN length(c.times) >= 4 * c.at + 4 THEN substring(c.times FROM 4 * c.at + 1 FOR 4) END,"
        " c.result, c.total FROM"
        " (SELECT c.*, r.result, count(*) OVER () AS total, coalesce(sum(length(r.result)) OVER (ORDER BY c.id DESC"
        " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes FROM"
        " (SELECT b.id, b.created_ms, b.routed_ms, b.closed_ms, b.held_ms IS NOT NULL AS held, k.states, k.times, "
        "$2::integer % 1024 - k.first AS at"
        " FROM batch_block k JOIN batch b ON b.id = k.batch_id AND b.tenant_id = $1::integer"
        " WHERE k.block = $2::integer / 1024 AND k.batch_id < $3::bigint AND CASE WHEN $2::integer % 1024 >= k.first"
        " AND $2::integer % 1024 < k.first + 8 * length(k.targets)"
        " THEN get_bit(k.targets, $2::integer % 1024 - k.first) = 1 ELSE false END"
        " ORDER BY k.batch_id DESC LIMIT $4::integer) c"
        " LEFT JOIN command_result r ON r.batch_id = c.id AND r.seq = $2::integer) c"
        " WHERE c.bytes < $5::bigint ORDER BY c.id DESC"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int4(txn, (int32_t)seq);
    pg_put_int8(txn, before);
    pg_put_int4(txn, limit);
    pg_put_int8(txn, bytes);
}

void db_device_command_read(const struct pg_result *r, int row, struct db_device_command *out)
{
    struct slice time = pg_bytes(r, row, 5);
    *out = (struct db_device_command){.batch = pg_int(r, row, 0),
                                      .created_ms = pg_int(r, row, 1),
                                      .routed_ms = pg_int(r, row, 2),
                                      .closed_ms = pg_int(r, row, 3),
                                      .state = (uint8_t)pg_int(r, row, 4),
                                      .time = time.len == 4 ? load_u32le(time.data) : 0,
                                      .result = pg_bytes(r, row, 6),
                                      .total = pg_int(r, row, 7)};
}
