/* Batches with a key, which take the place of older ones with the same: see schema/postgres (supersede).
 * Owns: the statements on batch_key. May call: lib/store/pg. Loop rule: as pg.h. Adding and reading: see db_tenant.h.
 */
#ifndef MUSTER_STORE_DB_SUPERSEDE_H
#define MUSTER_STORE_DB_SUPERSEDE_H

#include <stdint.h>

#include "lib/store/db_batch.h"
#include "lib/store/pg.h"

/* In front of what makes batches with these keys: others of the same keys wait until the transaction has ended. */
void db_supersede_hold(struct pg_txn *txn, const int32_t *tenants, const char *const *keys, size_t n);
/* Behind what made the batch, and behind its guard: gives it its key. One int: how many older batches it supersedes. */
void db_supersede_accept(struct pg_txn *txn, const struct db_accept *batch);
/* One row, one int8[]: the batches that it has superseded. */
void db_supersede_older(struct pg_txn *txn, uint64_t batch);
/* Fenced: batches that are being closed have their keys no longer, nor whom newer ones have barred. */
void db_supersede_closed(struct pg_txn *txn, const int64_t *ids, size_t n);

#endif
