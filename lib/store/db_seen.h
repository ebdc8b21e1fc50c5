/* The hours in which devices were seen, as workers write them; who reads them: db_label.h.
 * Owns: the statement that adds to device_seen. May call: lib/store/pg, block. Loop rule: as pg.h. */
#ifndef MUSTER_STORE_DB_SEEN_H
#define MUSTER_STORE_DB_SEEN_H

#include "lib/store/block.h"
#include "lib/store/pg.h"

struct db_seen {
    int32_t tenant;
    uint32_t block;
    const struct bitmap *slots;
};
/* Devices seen in this hour (since 1970), `n` blocks, each once. Adding the same again changes nothing. */
void db_seen_add(struct pg_txn *txn, int32_t hour, const struct db_seen *blocks, size_t n);

#endif
