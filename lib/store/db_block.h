/* Which devices are registered, of all tenants at once.
 * Owns: one statement over device_block. May call: lib/store/pg, block. Loop rule: as pg.h. */
#ifndef MUSTER_STORE_DB_BLOCK_H
#define MUSTER_STORE_DB_BLOCK_H

#include <stdint.h>

#include "lib/store/block.h"
#include "lib/store/pg.h"

struct db_block {
    uint32_t tenant, block;
    struct bitmap slots;
};
/* A row per tenant and block, in order, and per platform in it. Empty ones are left out. */
void db_blocks(struct pg_txn *txn);
/* False when the row is no bitmap. */
MUST_CHECK bool db_block_read(const struct pg_result *r, int row, struct db_block *out);

#endif
