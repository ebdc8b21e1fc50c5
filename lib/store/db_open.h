/* Open batches as the leader needs them: loading, folding the acknowledgement log, routing, cancelling, closing.
 * Owns: the leader's statements on batch, batch_block, ack_log, ack_stream, device_cancel. May call: lib/store/pg,
 * block. Loop rule: as pg.h. Functions that take a transaction add one statement to it; those that take a result read a
 * row. Every write stands behind db_lease_fence in the same transaction. */
#ifndef MUSTER_STORE_DB_OPEN_H
#define MUSTER_STORE_DB_OPEN_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/store/db_window.h"
#include "lib/store/pg.h"
#include "lib/store/state.h"

/* --- reading ---------------------------------------------------------------------------------------------------- */
struct db_open {
    uint64_t id;
    uint32_t tenant;
    uint8_t priority; /* muster.v1.Priority */
    uint32_t blocks;  /* upper bound of the number of its blocks; of a dynamic one those of its tenant */
    bool growing; /* dynamic, and not sealed, or it may have its key for some who have not joined: blocks have all slots
                   */
    uint32_t command_bytes;
    int64_t created_ms, expires_ms;
    bool routed, cancel_requested, canceled;
    bool valued;          /* see db_values.h */
    bool steered, paused; /* as db_control.h has it */
    int32_t request;
    struct db_steer steer; /* of a steered one */
    bool keyed;            /* it has a key of db_supersede.h */
};
/* Batches with a number above `after` that are not closed, in order; _unrouted: of those only the ones never routed;
 * _some: of the given ones. */
void db_open_page(struct pg_txn *txn, uint64_t after, int limit);
void db_open_unrouted(struct pg_txn *txn, uint64_t after, int limit);
void db_open_some(struct pg_txn *txn, const int64_t *ids, size_t n);
/* The numbers of those of these batches that are closed, in order: never again open. What is not among them nor open
 * may be yet: a batch that is held, or a number that nobody was given. */
void db_closed_some(struct pg_txn *txn, const int64_t *ids, size_t n);
void db_open_read(const struct pg_result *r, int row, struct db_open *out);

/* Blocks of these batches, by batch and block, without times. */
void db_open_blocks(struct pg_txn *txn, const int64_t *ids, size_t n);
struct db_open_block {
    uint64_t batch;
    uint32_t block;
    uint16_t first;
    struct slice targets, states; /* states empty: as accepted */
};
void db_open_block_read(const struct pg_result *r, int row, struct db_open_block *out);
/* batch, block, times of these. */
void db_open_times(struct pg_txn *txn, const int64_t *batches, const int32_t *blocks, size_t n);
/* id, command; of batches with values what is told of them (encoded muster.v1.BatchValues) and their defaults, else
 * NULL. */
void db_open_commands(struct pg_txn *txn, const int64_t *ids, size_t n);
/* Numbers of batches whose cancel is requested and not confirmed. */
void db_open_canceling(struct pg_txn *txn, int limit);
/* tenant, seq of deleted devices with commands to end, above the given one. */
void db_open_deleted(struct pg_txn *txn, uint32_t tenant, uint32_t seq, int limit);
/* Tenants: id, number of blocks. */
void db_open_tenants(struct pg_txn *txn);
/* The same with the name, by number; `name` "" for all, also those without devices. */
void db_open_tenant_names(struct pg_txn *txn, const char *name);
/* Rows of the log: stream, n, at_ms, entries; at most `limit` of each stream, in order of n, after n = ns[i] where the
 * stream is streams[i]. */
void db_open_log(struct pg_txn *txn, const int64_t *streams, const int64_t *ns, size_t count, int limit);

/* --- writing, fenced --------------------------------------------------------------------------------------------- */
/* States and times of whole blocks. */
void db_open_fold(struct pg_txn *txn, const int64_t *batches, const int32_t *blocks, const struct slice *states,
                  const struct slice *times, size_t n);
/* Of each stream the rows up to n. */
void db_open_forget_log(struct pg_txn *txn, const int64_t *streams, const int64_t *ns, size_t count);
void db_open_routed(struct pg_txn *txn, const int64_t *ids, size_t n, int64_t now_ms);
void db_open_canceled(struct pg_txn *txn, const int64_t *ids, size_t n, int64_t now_ms);
/* `counts`: STATE_COUNT of each batch, one after another. */
void db_open_closed(struct pg_txn *txn, const int64_t *ids, const int32_t *counts, size_t n, int64_t now_ms);
void db_open_forget_deleted(struct pg_txn *txn, const int32_t *tenants, const int32_t *seqs, size_t n);
/* A stream of the leader's own: id. */
void db_open_new_stream(struct pg_txn *txn, const char *holder, int64_t now_ms);
/* Rows of it: n counts from `first_n`. */
void db_open_append(struct pg_txn *txn, uint64_t stream, uint64_t first_n, const int64_t *at_ms,
                    const struct slice *entries, size_t n);
/* Streams made before `before_ms` without rows in the log: nothing needs their rows in ack_stream any more. */
void db_open_forget_streams(struct pg_txn *txn, int64_t before_ms);

#endif
