/* Quotas of tenants in PostgreSQL: what they may have, and what acceptance says that they may not.
 * Owns: statements over quota. May call: lib/store/pg. Loop rule: as pg.h. Adding and reading: see db_tenant.h.
 *
 * They are taken from in the transaction that accepts (accept_batch, accept_devices) or registers, under the lock on
 * the tenant's row of quota: all dispatchers together accept no more. Who has no such row pays for looking. */
#ifndef MUSTER_STORE_DB_QUOTA_H
#define MUSTER_STORE_DB_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/pg.h"

/* SQLSTATE of a registration that goes beyond the quota; the message is the limit, a space, and how many are registered
 * now. */
#define DB_QUOTA_DEVICES_STATE "MU004"

enum db_quota_kind { DB_QUOTA_DEVICES = 1, DB_QUOTA_BATCHES, DB_QUOTA_RATE };

/* What acceptance gives as the number of a batch that the quota refuses is -(4 * retry_ms + kind). */
struct db_quota_refusal {
    enum db_quota_kind kind;
    int64_t retry_ms; /* when it is worth coming again */
};
/* False: it is no refusal. */
bool db_quota_refused(struct db_quota_refusal *out, int64_t batch);

struct db_quota {
    int32_t devices, open_batches, commands_per_second, burst; /* 0: no limit, of burst: a second's */
    int32_t used_devices, used_batches;
    int64_t commands_left; /* less than 0: owed */
};
/* By the tenant's name: a row unless there is no such tenant. */
void db_quota_get(struct pg_txn *txn, const char *tenant);
/* The same of a tenant that has one, by its number, without what is used. */
void db_quota_limits(struct pg_txn *txn, int32_t tenant);
/* Fenced. Takes up to so many commands of what the tenant has left. One row, int4: how many, all without a quota. */
void db_quota_grant(struct pg_txn *txn, int32_t tenant, uint32_t commands);
void db_quota_set(struct pg_txn *txn, const char *tenant, const struct db_quota *quota, int64_t key, int64_t now_ms);
void db_quota_read(const struct pg_result *r, int row, struct db_quota *out);

#endif
