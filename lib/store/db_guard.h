/* The blast radius in PostgreSQL: policies, budgets, batches that are held, and their approval.
 * Owns: statements over guard_policy, guard_use and batch_approval. May call: lib/store/pg, db_batch. Loop rule: as
 * pg.h. Adding and reading: see db_tenant.h.
 *
 * Its times are those of PostgreSQL's clock: nobody else's lets go, ends or gives back anything. */
#ifndef MUSTER_STORE_DB_GUARD_H
#define MUSTER_STORE_DB_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/db_batch.h"
#include "lib/store/pg.h"

#define DB_GUARD_HASH_TEXT 65 /* a SHA-256 in hexadecimal, with the final NUL */

/* The commands end before the policy would let them go: the error of db_guard_accepted's transaction. Its message is
 * how many ms they would be kept. */
#define DB_GUARD_TOO_LONG_STATE "MU007"

/* What acceptance of a guarded command needs besides the batch. */
struct db_guard {
    int kind;    /* field of muster.v1.Command */
    int64_t key; /* who submits */
    char digest[DB_GUARD_HASH_TEXT], command_hash[DB_GUARD_HASH_TEXT];
};
/* In the transaction that accepts a batch, which is alone in it: first the lock, under which the budget is taken (and
 * the caller's address, for the audit); then
 * db_batch_accept; then this, which takes the budget, or holds the batch, if it was made just now. One row:
 * muster.v1.ApprovalState, 0 when it is not held. */
void db_guard_lock(struct pg_txn *txn, int32_t tenant, const char *address);
void db_guard_accepted(struct pg_txn *txn, const struct db_accept *batch, const struct db_guard *guard);

/* Of so many devices more, whose commands end then. One row: a bool, they would need approval now; how many ms they
 * would be kept if that is too long (see DB_GUARD_TOO_LONG_STATE), else 0. */
void db_guard_foresee(struct pg_txn *txn, int32_t tenant, int kind, uint32_t devices, int64_t ends_ms);

struct db_approval {
    int16_t state;
    bool needed;
    int64_t requested_by, expires_ms, decided_by, decided_ms, release_ms;
    const char *target_digest, *command_hash, *reason;
};
/* A row when the batch is or was held. */
void db_guard_approval(struct pg_txn *txn, int64_t batch);
void db_guard_approval_read(const struct pg_result *r, int row, struct db_approval *out);

/* One row, a text: "" when it was done, else why not; none when there is no such batch. */
void db_guard_decide(struct pg_txn *txn, int32_t tenant, int64_t batch, int64_t key, bool approve, const char *digest,
                     const char *command_hash, const char *reason);
/* Lets go what has cooled off, cancels what nobody approved: rows of batches that changed. */
void db_guard_release_due(struct pg_txn *txn, int32_t limit);

struct db_guard_policy {
    bool enabled;
    uint32_t kinds; /* bit n: field n of muster.v1.Command */
    int32_t devices_per_hour, percent_per_hour;
    int64_t cooling_off_ms, delay_ms, approval_ms;
    int32_t left; /* db_guard_policy_get: of the budget */
};
/* By the tenant's name: a row unless there is no such tenant. Setting it seals dynamic batches of what it guards. */
void db_guard_policy_get(struct pg_txn *txn, const char *tenant);
void db_guard_policy_set(struct pg_txn *txn, const char *tenant, const struct db_guard_policy *policy, int64_t key);
void db_guard_policy_read(const struct pg_result *r, int row, struct db_guard_policy *out);

#endif
