/* Dynamic batches: accepting, joining, sealing.
 * Owns: their statements. May call: lib/store/pg, db_batch. Loop rule: as pg.h. Adding and reading: see db_tenant.h. */
#ifndef MUSTER_STORE_DB_DYNAMIC_H
#define MUSTER_STORE_DB_DYNAMIC_H

#include "lib/store/db_batch.h"

/* --- callers ----------------------------------------------------------------------------------------------------- */
/* After the statement that accepts it, in the same transaction: makes the batch that the transaction has made dynamic.
 * No rows. */
void db_dynamic_accept(struct pg_txn *txn, const struct db_accept *batch);
/* One row, int8: dynamic batches of the tenant that are open. */
void db_dynamic_count(struct pg_txn *txn, int32_t tenant);
/* One row: whether anything changed, whether it is dynamic; none when it is not there, is being canceled or is closed.
 */
void db_dynamic_seal(struct pg_txn *txn, int32_t tenant, int64_t batch, int64_t now_ms, int64_t key);

/* --- the leader -------------------------------------------------------------------------------------------------- */
/* One row: bytea, the encoded muster.v1.Target (NULL: it is not dynamic); bool, it is sealed. Who has joined:
 * db_control_parts. */
void db_dynamic_target(struct pg_txn *txn, uint64_t batch);
/* Rows for db_control_part_read, DB_PART_TAKEN: for whom the batch has its key, who has not joined and may. */
void db_dynamic_taken(struct pg_txn *txn, uint64_t batch);

/* Who joins, block by block, as whole bitmaps. */
struct db_join {
    int32_t tenant;
    uint64_t batch;
    uint32_t devices; /* that join now */
    const int32_t *blocks;
    const struct slice *targets, *joined, *new; /* addressed then; ever joined; joining now */
    size_t count;
    int64_t since_ms; /* when it was begun to find them */
};
/* Fenced, of a batch with a key, before they join: older batches of the key end for them. Rows: an older batch, and the
 * request by which that is asked of it; one row of 0 and 0: newer batches have addressed some (DB_PART_BARRED), and
 * nothing was done; nor is it for one that is over, or sealed and without its key for them. */
void db_dynamic_key(struct pg_txn *txn, const struct db_join *join);
/* Fenced. One row, a bool: false when it is too late, or some have been barred since. Sealed is not too late for those
 * for whom the batch has its key. */
void db_dynamic_join(struct pg_txn *txn, const struct db_join *join);

#endif
