/* Events of devices that come and go: who wants them, and what was told last (schema/postgres, device events).
 * Owns: the statements on presence_tenant and presence_block. May call: lib/store/pg, block. Loop rule: as pg.h. Adding
 * and reading: see db_tenant.h. */
#ifndef MUSTER_STORE_DB_PRESENCE_H
#define MUSTER_STORE_DB_PRESENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/block.h"
#include "lib/store/pg.h"

/* --- callers ----------------------------------------------------------------------------------------------------- */
/* One row without meaning. */
void db_presence_set(struct pg_txn *txn, int32_t tenant, bool enabled, int64_t key, int64_t now_ms);
/* One row, a bool. */
void db_presence_get(struct pg_txn *txn, int32_t tenant);

/* --- the leader -------------------------------------------------------------------------------------------------- */
struct db_presence_tenant {
    int32_t tenant;
    int64_t number;  /* another one: nothing has been told */
    uint32_t blocks; /* it has devices in */
};
void db_presence_tenants(struct pg_txn *txn);
void db_presence_tenant_read(const struct pg_result *r, int row, struct db_presence_tenant *out);

/* block, 128 bytes: who was told to be online. */
void db_presence_told(struct pg_txn *txn, int32_t tenant);

struct db_presence {
    int32_t tenant;
    int64_t number, now_ms;
    const int32_t *blocks;
    const struct slice *slots; /* of each, BITMAP_BYTES: who is online now */
    size_t count;
    const int32_t *came, *gone; /* seqs of those who are to be told */
    size_t came_count, gone_count;
};
/* Fenced. One row, a bool: false when the tenant does not want it any more. */
void db_presence_tell(struct pg_txn *txn, const struct db_presence *what);

#endif
