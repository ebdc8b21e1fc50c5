#include "lib/store/db_webhook.h"

#define WEBHOOK_COLUMNS                                                                                                \
    "w.id, w.url, w.kinds, w.description, w.created_ms, w.succeeded_ms, w.failure,"                                    \
    " (SELECT count(*) FROM webhook_event e WHERE e.webhook_id = w.id AND e.died_ms IS NULL),"                         \
    " (SELECT count(*) FROM webhook_event e WHERE e.webhook_id = w.id AND e.died_ms IS NOT NULL)"

void db_webhook_create(struct pg_txn *txn, int32_t tenant, const char *url, uint64_t kinds, const char *description,
                       const uint8_t secret[WEBHOOK_SECRET_BYTES], int32_t most, int64_t key, int64_t now_ms)
{
    static const struct pg_stmt stmt = {"webhook_create",
                                        "SELECT " WEBHOOK_COLUMNS " FROM webhook_create($1::integer, $2::text,"
                                        " $3::bigint, $4::text, $5::bytea, $6::integer, $7::bigint, $8::bigint) AS w"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_text(txn, url);
    pg_put_int8(txn, (int64_t)kinds);
    pg_put_text(txn, description);
    pg_put_bytea(txn, secret, WEBHOOK_SECRET_BYTES);
    pg_put_int4(txn, most);
    pg_put_int8(txn, key);
    pg_put_int8(txn, now_ms);
}

void db_webhook_list(struct pg_txn *txn, int32_t tenant)
{
    static const struct pg_stmt stmt = {
        "webhook_list", "SELECT " WEBHOOK_COLUMNS " FROM webhook w WHERE w.tenant_id = $1::integer ORDER BY w.id"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
}

void db_webhook_read(const struct pg_result *r, int row, struct db_webhook *out)
{
    *out = (struct db_webhook){.id = pg_int(r, row, 0),
                               .url = pg_text(r, row, 1),
                               .kinds = (uint64_t)pg_int(r, row, 2),
                               .description = pg_text(r, row, 3),
                               .created_ms = pg_int(r, row, 4),
                               .succeeded_ms = pg_int(r, row, 5),
                               .failure = pg_text(r, row, 6),
                               .waiting = pg_int(r, row, 7),
                               .dead = pg_int(r, row, 8)};
}

void db_webhook_delete(struct pg_txn *txn, int32_t tenant, int64_t id, int64_t key, int64_t now_ms)
{
    static const struct pg_stmt stmt = {
        "webhook_delete", "SELECT w FROM webhook_delete($1::integer, $2::bigint, $3::bigint, $4::bigint) AS w"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, id);
    pg_put_int8(txn, key);
    pg_put_int8(txn, now_ms);
}

void db_webhook_rotate(struct pg_txn *txn, int32_t tenant, int64_t id, const uint8_t secret[WEBHOOK_SECRET_BYTES],
                       int64_t key, int64_t now_ms)
{
    static const struct pg_stmt stmt = {"webhook_rotate",
                                        "SELECT w FROM webhook_rotate($1::integer, $2::bigint, $3::bytea, $4::bigint,"
                                        " $5::bigint) AS w"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, id);
    pg_put_bytea(txn, secret, WEBHOOK_SECRET_BYTES);
    pg_put_int8(txn, key);
    pg_put_int8(txn, now_ms);
}

void db_webhook_test(struct pg_txn *txn, int32_t tenant, int64_t id, int64_t key, int64_t now_ms)
{
    static const struct pg_stmt stmt = {
        "webhook_test", "SELECT w FROM webhook_test($1::integer, $2::bigint, $3::bigint, $4::bigint) AS w"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, id);
    pg_put_int8(txn, key);
    pg_put_int8(txn, now_ms);
}

void db_webhook_replay(struct pg_txn *txn, int32_t tenant, int64_t id, const int64_t *events, size_t n, int64_t now_ms,
                       int64_t life_ms, int64_t key)
{
    static const struct pg_stmt stmt = {"webhook_replay",
                                        "SELECT w.replayed FROM webhook_replay($1::integer, $2::bigint, $3::bigint[],"
                                        " $4::bigint, $5::bigint, $6::bigint) AS w"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, id);
    pg_put_int8_array(txn, events, n);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, life_ms);
    pg_put_int8(txn, key);
}

void db_webhook_dead(struct pg_txn *txn, int32_t tenant, int64_t id, int64_t after, int32_t limit)
{
    static const struct pg_stmt stmt = {
        "webhook_dead",
        "SELECT e.event_id, e.text, e.attempts, e.failure, e.died_ms FROM webhook_event e JOIN webhook w"
        " ON w.id = e.webhook_id AND w.tenant_id = $1::integer WHERE e.webhook_id = $2::bigint"
        " AND e.died_ms IS NOT NULL AND e.event_id > $3::bigint ORDER BY e.event_id LIMIT $4::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, id);
    pg_put_int8(txn, after);
    pg_put_int4(txn, limit);
}

void db_webhook_dead_read(const struct pg_result *r, int row, struct db_webhook_dead *out)
{
    *out = (struct db_webhook_dead){.event = pg_int(r, row, 0),
                                    .text = pg_bytes(r, row, 1),
                                    .attempts = pg_int(r, row, 2),
                                    .failure = pg_text(r, row, 3),
                                    .died_ms = pg_int(r, row, 4)};
}

void db_webhook_take(struct pg_txn *txn, int64_t now_ms, const struct db_webhook_limits *limits, const int64_t *hooks,
                     const int64_t *events, size_t n)
{
    static const struct pg_stmt stmt = {
        "webhook_take",
        "SELECT w.webhook_id, w.event_id, w.tenant_id, w.tenant, w.url, w.secret, w.former_secret, w.text"
        " FROM webhook_take($1::bigint, $2::integer, $3::bigint, $4::integer, $5::integer, $6::integer,"
        " $7::bigint[], $8::bigint[]) AS w"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, now_ms);
    pg_put_int4(txn, limits->window);
    pg_put_int8(txn, limits->life_ms);
    pg_put_int4(txn, limits->each);
    pg_put_int4(txn, limits->tenant);
    pg_put_int4(txn, limits->all);
    pg_put_int8_array(txn, hooks, n);
    pg_put_int8_array(txn, events, n);
}

void db_webhook_take_read(const struct pg_result *r, int row, struct db_webhook_task *out)
{
    *out = (struct db_webhook_task){.hook = pg_int(r, row, 0),
                                    .event = pg_int(r, row, 1),
                                    .tenant = (int32_t)pg_int(r, row, 2),
                                    .tenant_name = pg_text(r, row, 3),
                                    .url = pg_text(r, row, 4),
                                    .secret = pg_bytes(r, row, 5),
                                    .former_secret = pg_bytes(r, row, 6),
                                    .text = pg_bytes(r, row, 7)};
}

void db_webhook_answered(struct pg_txn *txn, const int64_t *hooks, const int64_t *events, const char *const *failures,
                         size_t n, int32_t vary_percent, int64_t now_ms, int64_t first_ms)
{
    static const struct pg_stmt stmt = {"webhook_answered",
                                        "SELECT 1 FROM webhook_answered($1::bigint[], $2::bigint[], $3::text[],"
                                        " $4::integer / 100.0, $5::bigint, $6::bigint)"};
    pg_txn_add(txn, &stmt);
    pg_put_int8_array(txn, hooks, n);
    pg_put_int8_array(txn, events, n);
    pg_put_text_array(txn, failures, n);
    pg_put_int4(txn, vary_percent);
    pg_put_int8(txn, now_ms);
    pg_put_int8(txn, first_ms);
}
