/* Batches as callers see them: accepting, asking, cancelling.
 * Owns: statements over batch, batch_block, ack_log and command_result as the dispatcher's service needs them (those of
 * the leader are elsewhere). May call: lib/store/pg, block. Loop rule: as pg.h. Adding and reading: see db_tenant.h. */
#ifndef MUSTER_STORE_DB_BATCH_H
#define MUSTER_STORE_DB_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/block.h"
#include "lib/store/db_values.h"
#include "lib/store/db_window.h"
#include "lib/store/pg.h"

struct db_batch {
    int64_t id;
    const char *request_id, *description;
    struct slice request_hash, command;
    int16_t priority;
    uint32_t device_count, unknown_count;
    int64_t created_ms, expires_ms;
    int64_t routed_ms, cancel_requested_ms, canceled_ms, closed_ms; /* 0: not yet */
    uint32_t counts[STATE_COUNT];                                   /* once closed */
    bool steered, paused, asked; /* see db_control.h; asked: for something not yet carried out */
    const char *reason;
    struct slice steering; /* as struct db_accept has it */
    int64_t not_before_ms;
    uint32_t waves_released;
    uint32_t stopped, cohorts_canceled; /* by thresholds: bit n for platform n */
    bool dynamic, sealed;
    uint32_t joined;     /* devices, of device_count */
    uint32_t rate_steps; /* how often its rate has grown */
    int64_t handled_ms;  /* when all was that was asked for before; 0: never */
    const char *supersede_key;
    struct db_retry retry;
    struct slice described; /* of its values: encoded muster.v1.BatchValues; empty: it has none */
    bool held;              /* for approval, or to cool off: see db_guard.h */
    int64_t total;          /* db_batch_list: rows there would have been without the limit of bytes */
};
void db_batch_get(struct pg_txn *txn, int32_t tenant, int64_t id);
void db_batch_find(struct pg_txn *txn, int32_t tenant, const char *request_id);
/* Batches with a number below `before`, newest first: at most `limit`, fewer when their commands take more than `bytes`
 * (then the batch that goes over is the last). `state`: muster.v1.BatchState, 0 for any. */
void db_batch_list(struct pg_txn *txn, int32_t tenant, int64_t before, int state, int32_t limit, int64_t bytes);
/* Open batches of the tenant, or (0) of all, newest first: id, tenant, its name, created_ms, blocks, held,
 * and in each row how many there are without the limit. */
void db_batch_open(struct pg_txn *txn, int32_t tenant, int32_t limit);
void db_batch_read(const struct pg_result *r, int row, struct db_batch *out);
/* Calls `each` for the unknown ids kept with the batch. */
void db_batch_unknown(const struct pg_result *r, int row, void (*each)(void *arg, struct slice id), void *arg);

/* What acceptance writes; all borrowed while the call runs. */
struct db_accept {
    int32_t tenant;
    const char *request_id, *description;
    uint8_t request_hash[32];
    struct slice command;
    int16_t priority;
    uint32_t device_count, unknown_count;
    const char *const *unknown_ids; /* the first of them */
    size_t unknown_kept;
    int64_t created_ms, expires_ms;
    const int32_t *blocks;
    const int16_t *firsts;
    const struct slice *targets; /* as bitmap_trim gives them */
    size_t block_count;
    int64_t key; /* whose, from where, and of what kind: for the audit; NULL: "" */
    int16_t role;
    const char *address, *note;
    struct slice steering; /* encoded muster.v1.Steering; empty: none, and then `steer` is not used */
    struct db_steer steer;
    const char *supersede_key; /* "": none; else db_supersede.h has statements of its own for it */
    struct slice dynamic;      /* encoded muster.v1.Target of a dynamic batch, else empty; its blocks have all slots */
    /* The canary group: those of the first wave, block by block; 0: it has none. */
    const int32_t *canary_blocks;
    const struct slice *canary_slots; /* whole bitmaps */
    size_t canary_count;
    /* Devices left out because they are full: how many, and the first of them. */
    uint32_t skipped_count;
    const char *const *skipped_ids;
    size_t skipped_kept;
    const struct db_values *values; /* NULL: none; else db_values_accepted is the transaction's last statement */
};
/* First statement of a transaction that accepts one by one: no device of these tenants is deleted between what its
 * statements see and its commit. */
void db_batch_hold_tenants(struct pg_txn *txn, const int32_t *tenants, size_t n);
/* One row: created (bool), id of the new batch or of the one the request id made before, or what db_quota_refused
 * reads.
 */
void db_batch_accept(struct pg_txn *txn, const struct db_accept *batch);
/* After the statement that accepts it, in the same transaction: writes down the canary group of the batch that the
 * transaction has made, if any. No rows. */
void db_batch_accept_canary(struct pg_txn *txn, const struct db_accept *batch);
/* The same for the devices that were left out. */
void db_batch_accept_skipped(struct pg_txn *txn, const struct db_accept *batch);
/* A row when some were: how many, and what db_batch_skipped_each reads. */
void db_batch_skipped(struct pg_txn *txn, int64_t batch);
void db_batch_skipped_each(const struct pg_result *r, void (*each)(void *arg, struct slice id), void *arg);
/* Many at once, each to the one device of the given id, and holds their tenants; what they say of blocks and counts is
 * not used. No two have the same tenant and request id. False (nothing is added) without memory. */
MUST_CHECK bool db_batch_accept_devices(struct pg_txn *txn, const struct db_accept *const *batches,
                                        const char *const *devices, size_t n);
/* Row i is about batches[i]: the device's seq, or -1 when it is not registered; id of the new batch, or 0 when there
 * is none: for want of the device, or because the request id made one before; or what db_quota_refused reads. */
void db_batch_accept_devices_read(const struct pg_result *r, int row, int32_t *seq, int64_t *id);

/* Asks for a cancel unless it was asked for, or the batch is closed. A row when it was new. */
void db_batch_cancel(struct pg_txn *txn, int32_t tenant, int64_t id, int64_t now_ms, int64_t key);

/* --- what became of the commands -------------------------------------------------------------------------------- */
/* Reading log and blocks in this order, in one transaction, misses nothing: what is folded in between is in both. */

/* Rows of the log that may have entries of the batch: at_ms, entries (proto/ack_log.h). */
void db_batch_log(struct pg_txn *txn, int64_t batch);
/* The same for one device, whatever the batch. */
void db_device_log(struct pg_txn *txn, uint32_t seq);

struct db_batch_block {
    uint32_t block;
    uint16_t first;
    struct bitmap targets;
    struct slice states, times; /* from slot `first` on; empty while nothing is recorded */
};
/* One row, one int4[]: the batch's blocks in order. */
void db_batch_blocks(struct pg_txn *txn, int64_t batch);
/* Which devices of these blocks it addresses: rows as below, without states. */
void db_batch_targets(struct pg_txn *txn, int32_t tenant, int64_t batch, const int32_t *blocks, size_t n);
/* The rows of these blocks, in order. */
void db_batch_states(struct pg_txn *txn, int64_t batch, const int32_t *blocks, size_t n);
/* Whom the batch addresses: its blocks in order. Read with db_batch_addressed_read, which fills block, first and
 * targets.
 */
void db_batch_addressed(struct pg_txn *txn, int64_t batch);
MUST_CHECK bool db_batch_addressed_read(const struct pg_result *r, int row, struct db_batch_block *out);
/* False when the row makes no sense. */
MUST_CHECK bool db_batch_block_read(const struct pg_result *r, int row, struct db_batch_block *out);

/* Results of the devices of `n` runs of numbers in order of seq, fewer when they take more than `bytes`: seq, result,
 * total. */
void db_batch_results(struct pg_txn *txn, int64_t batch, const int32_t *firsts, const int32_t *lasts, size_t n,
                      int64_t bytes);

/* Batches below `before` that address the device, newest first. */
struct db_device_command {
    int64_t batch, created_ms, routed_ms, closed_ms;
    uint8_t state; /* 0: as accepted */
    uint32_t time;
    struct slice result;
    int64_t total; /* rows there would have been without the limit of bytes */
};
void db_device_commands(struct pg_txn *txn, int32_t tenant, uint32_t seq, int64_t before, int32_t limit, int64_t bytes);
void db_device_command_read(const struct pg_result *r, int row, struct db_device_command *out);

#endif
