/* Leases of roles that one process has at a time, by PostgreSQL's clock, and the fence of writes under them.
 * Owns: the statements on table lease; the numbers of workers. May call: lib/store/pg. Loop rule: non-blocking;
 * callbacks as in pg.h. */
#ifndef MUSTER_STORE_DB_LEASE_H
#define MUSTER_STORE_DB_LEASE_H

#include "lib/store/pg.h"

/* What a holder has: copied by value, `name` and `holder` borrowed. */
struct lease_fence {
    const char *name;
    const char *holder;
    int64_t epoch;
};

/* `value`: the epoch (from 1 on) when taken, 0 when another holds it. */
typedef void db_lease_fn(void *arg, enum err err, int64_t value);
void db_lease_acquire(struct pg *pg, int lane, const char *name, const char *holder, int64_t ttl_ms, db_lease_fn *done,
                      void *arg);
/* `value`: 1 when prolonged, 0 when it is no longer ours. */
void db_lease_renew(struct pg *pg, const struct lease_fence *fence, int64_t ttl_ms, db_lease_fn *done, void *arg);
/* Over `lane`, so that it follows the writes already submitted there. */
void db_lease_release(struct pg *pg, int lane, const struct lease_fence *fence, db_lease_fn *done, void *arg);

/* Makes the check the next (first) statement of `txn`: the transaction fails unless the lease is still the caller's. */
void db_lease_fence(struct pg_txn *txn, const struct lease_fence *fence);
/* Whether that check is what ended a transaction. */
bool db_lease_fenced(enum err err, const struct pg_error *error);

/* `value`: a number for a worker, 1 … 65,534, that is not given again until all others were: neither a Redis that has
 * lost all nor one that has come back with older data makes it another's while it is in use. It will hold for lease_ms
 * unrenewed. */
void db_worker_number(struct pg *pg, int64_t lease_ms, db_lease_fn *done, void *arg);
/* `value`: the longest time, in ms, for which a number that was ever drawn holds unrenewed; 0: none was. */
void db_worker_longest_lease(struct pg *pg, db_lease_fn *done, void *arg);

#endif
