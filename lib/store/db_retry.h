/* What is tried again of a batch.
 * Owns: the statement that stores it; it is read with the batch (db_batch.h, db_open.h). May call: lib/store/pg. Loop
 * rule: as pg.h. */
#ifndef MUSTER_STORE_DB_RETRY_H
#define MUSTER_STORE_DB_RETRY_H

#include "lib/store/db_batch.h"

/* Behind what made the batch. */
void db_retry_accept(struct pg_txn *txn, const struct db_accept *batch);

#endif
