/* Values per device of a batch.
 * Owns: statements over batch_values and batch_value_block. May call: lib/store/pg. Loop rule: as pg.h. Adding and
 * reading: see db_tenant.h. */
#ifndef MUSTER_STORE_DB_VALUES_H
#define MUSTER_STORE_DB_VALUES_H

#include <stdint.h>

#include "lib/store/pg.h"

#define DB_VALUES_SALT 16 /* bytes */

/* All borrowed while the call runs. */
struct db_values {
    struct slice described; /* encoded muster.v1.BatchValues */
    struct slice defaults;  /* packed; empty: every device has its own */
    uint8_t salt[DB_VALUES_SALT];
    const struct slice *blocks; /* lib/store/value_block.h, for each block of the batch */
    size_t bytes;               /* of all blocks */
};

/* Last statement of the transaction that accepts the batch: `blocks` are the batch's, `n` of them. */
void db_values_accepted(struct pg_txn *txn, int32_t tenant, const char *request_id, const struct db_values *values,
                        const int32_t *blocks, size_t n);
/* block, vals of the blocks behind `after` (-1: the first ones) in order, about as many as take `bytes`, at least one.
 */
void db_values_page(struct pg_txn *txn, int64_t batch, int32_t after, int64_t bytes);

#endif
