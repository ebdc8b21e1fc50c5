/* Web hooks: where events are sent to, and what waits for each (schema/postgres, webhooks).
 * Owns: the statements on webhook and webhook_event. May call: lib/store/pg. Loop rule: as pg.h. Adding and reading:
 * see db_tenant.h. */
#ifndef MUSTER_STORE_DB_WEBHOOK_H
#define MUSTER_STORE_DB_WEBHOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/pg.h"

#define WEBHOOK_SECRET_BYTES 32

/* --- callers ------------------------------------------------------------------------------------------------------ */

struct db_webhook {
    int64_t id, created_ms, succeeded_ms, waiting, dead;
    const char *url, *description, *failure;
    uint64_t kinds; /* bit n: of kind n; 0: all */
};
/* No row: the tenant has `most` already. */
void db_webhook_create(struct pg_txn *txn, int32_t tenant, const char *url, uint64_t kinds, const char *description,
                       const uint8_t secret[WEBHOOK_SECRET_BYTES], int32_t most, int64_t key, int64_t now_ms);
void db_webhook_list(struct pg_txn *txn, int32_t tenant);
void db_webhook_read(const struct pg_result *r, int row, struct db_webhook *out);
/* Each has a row when there is such a web hook. */
void db_webhook_delete(struct pg_txn *txn, int32_t tenant, int64_t id, int64_t key, int64_t now_ms);
void db_webhook_rotate(struct pg_txn *txn, int32_t tenant, int64_t id, const uint8_t secret[WEBHOOK_SECRET_BYTES],
                       int64_t key, int64_t now_ms);
void db_webhook_test(struct pg_txn *txn, int32_t tenant, int64_t id, int64_t key, int64_t now_ms);
/* The row has one integer: how many. `n` 0: all. */
void db_webhook_replay(struct pg_txn *txn, int32_t tenant, int64_t id, const int64_t *events, size_t n, int64_t now_ms,
                       int64_t life_ms, int64_t key);

struct db_webhook_dead {
    int64_t event, attempts, died_ms;
    struct slice text; /* for db_event_read */
    const char *failure;
};
/* Behind `after`, at most `limit`. */
void db_webhook_dead(struct pg_txn *txn, int32_t tenant, int64_t id, int64_t after, int32_t limit);
void db_webhook_dead_read(const struct pg_result *r, int row, struct db_webhook_dead *out);

/* --- the leader --------------------------------------------------------------------------------------------------- */

struct db_webhook_limits {
    int64_t life_ms; /* a failure of an event older than this is its last */
    int32_t window;  /* for a web hook for which so many wait no more are brought in */
    int32_t each, tenant, all;
};
/* Fenced: brings in what is new, and gives what is to be sent now, but for the `n` on their way. */
void db_webhook_take(struct pg_txn *txn, int64_t now_ms, const struct db_webhook_limits *limits, const int64_t *hooks,
                     const int64_t *events, size_t n);
struct db_webhook_task {
    int64_t hook, event;
    int32_t tenant;
    const char *tenant_name, *url;
    struct slice secret, former_secret; /* the second may be empty */
    struct slice text;                  /* for db_event_read */
};
void db_webhook_take_read(const struct pg_result *r, int row, struct db_webhook_task *out);
/* Fenced: what became of `n` attempts; "" in `failures`: it was taken. `vary`: 0.5 to 1.5, of the pauses from
 * `first_ms` on. */
void db_webhook_answered(struct pg_txn *txn, const int64_t *hooks, const int64_t *events, const char *const *failures,
                         size_t n, int32_t vary_percent, int64_t now_ms, int64_t first_ms);

#endif
